//! Appending to the file: whole lines or none, and rotation before it grows too large.
//!
//! Nothing is kept open that the path no longer names: an operator may move the file away at any time. Several
//! processes may append (an old gateway that drains beside a new one): a line is one write at the end of the file.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::Access;
use tracing::warn;

use super::{names, place};

/// Lines are written together up to this size.
const GROUP: usize = 1 << 20;

/// The file that a path names, whichever that is at the moment.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    /// The same without symbolic links, when it was opened last.
    real: PathBuf,
    max_bytes: u64,
    keep: usize,
    open: Option<File>,
    rotation_failed: bool,
    /// The last rotation's time: names stay in order within a millisecond.
    rotated_at: SystemTime,
}

/// What became of some lines.
#[derive(Debug, Default)]
pub(super) struct Appended {
    /// How many are in the file.
    pub lines: usize,
    /// Why not all are.
    pub error: Option<io::Error>,
}

impl Appender {
    pub(super) fn new(path: PathBuf, max_bytes: u64, keep: usize) -> Self {
        let (real, rotated_at) = (path.clone(), SystemTime::UNIX_EPOCH);
        Self { path, real, max_bytes, keep, open: None, rotation_failed: false, rotated_at }
    }

    /// Appends lines, each with its line feed, and forces them to the disk. What fails is not tried again.
    pub(super) fn append(&mut self, lines: &[Vec<u8>], now: SystemTime) -> Appended {
        let mut appended = Appended::default();
        while appended.lines < lines.len() {
            match self.append_some(&lines[appended.lines..], now) {
                Ok(count) => appended.lines += count,
                Err((count, error)) => {
                    appended.lines += count;
                    appended.error = Some(error);
                    break;
                }
            }
        }
        if let Err(error) = self.open.as_ref().map_or(Ok(()), File::sync_data) {
            // What of them is on the disk is unknown.
            appended = Appended { lines: 0, error: Some(error) };
        }
        appended
    }

    /// As many as go into the file together: at least one. How many that were, also after an error.
    fn append_some(&mut self, lines: &[Vec<u8>], now: SystemTime) -> Result<usize, (usize, io::Error)> {
        let first = lines.first().map_or(0, Vec::len);
        let (file, length) = self.ready(first as u64, now).map_err(|error| (0, error))?;
        let mut bytes = Vec::new();
        if is_torn(&file, length).map_err(|error| (0, error))? {
            bytes.push(b'\n');
        }
        let mend = bytes.len();
        let (mut count, mut ends) = (0, Vec::new());
        for line in lines {
            let size = bytes.len() + line.len();
            if count > 0 && (size > GROUP || length + size as u64 > self.max_bytes) {
                break;
            }
            bytes.extend_from_slice(line);
            ends.push(bytes.len());
            count += 1;
        }
        let outcome = write(&file, length, mend, &ends, &bytes);
        self.open = Some(file);
        outcome.map(|()| count)
    }

    /// The file with room for `more` bytes, and its length.
    fn ready(&mut self, more: u64, now: SystemTime) -> io::Result<(File, u64)> {
        let file = self.file()?;
        let length = file.metadata()?.len();
        if length == 0 || length + more <= self.max_bytes {
            return Ok((file, length));
        }
        match file.sync_data().and_then(|()| self.rotate(now)) {
            Ok(()) => {
                self.rotation_failed = false;
                let file = self.file()?;
                let length = file.metadata()?.len();
                Ok((file, length))
            }
            Err(error) => {
                // A file that is too large is better than a letter lost.
                if !std::mem::replace(&mut self.rotation_failed, true) {
                    warn!("{} cannot be rotated and grows on: {error}", self.path.display());
                }
                Ok((file, length))
            }
        }
    }

    /// The open file, if the path still names it; else whatever it names now.
    fn file(&mut self) -> io::Result<File> {
        if let Some(file) = self.open.take()
            && let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(&self.path))
            && (open.dev(), open.ino()) == (named.dev(), named.ino())
        {
            return Ok(file);
        }
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        place::check(&self.path)?;
        self.real = place::real(&self.path);
        self.create()
    }

    fn create(&self) -> io::Result<File> {
        place::open(OpenOptions::new().read(true).append(true).create(true).mode(0o600), &self.real)
    }

    fn rotate(&mut self, now: SystemTime) -> io::Result<()> {
        const STEP: Duration = Duration::from_millis(1);
        self.rotated_at = now.max(self.rotated_at + STEP);
        while names::rotated(&self.real, self.rotated_at).exists() {
            self.rotated_at += STEP;
        }
        let name = names::rotated(&self.real, self.rotated_at);
        fs::rename(&self.real, name)?;
        // At once: a link to it must not lead nowhere.
        self.open = Some(self.create()?);
        let mut rotated = names::members(&self.real)?;
        rotated.retain(|file| *file != self.real);
        for old in rotated.iter().rev().skip(self.keep) {
            fs::remove_file(old)?;
            warn!("{} deleted: dead_letter_keep is {}", old.display(), self.keep);
        }
        Ok(())
    }
}

/// Whether a crash left half a line at the end.
fn is_torn(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last != [b'\n'])
}

/// Writes `bytes`, lines that end at `ends`, to a file of `length` bytes. When not all of it fits, the lines that are
/// whole stay, and half a line is cut off again. `mend` bytes before the lines end a torn one.
fn write(
    mut file: &File,
    length: u64,
    mend: usize,
    ends: &[usize],
    bytes: &[u8],
) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    let error = loop {
        match file.write(&bytes[written..]) {
            Ok(0) => break io::ErrorKind::WriteZero.into(),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
        if written == bytes.len() {
            return Ok(());
        }
    };
    let whole = ends.iter().take_while(|end| **end <= written).count();
    let kept = whole.checked_sub(1).map_or(mend.min(written), |last| ends[last]);
    // Another process may have written behind it; then the half line is ended by the next append.
    let is_last = file.metadata().is_ok_and(|now| now.len() == length + written as u64);
    if kept < written && is_last {
        let _ = file.set_len(length + kept as u64);
    }
    Err((whole, error))
}

/// Why letters could not be written to a path.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// What is there is no file.
    #[error("{0}")]
    NoFile(String),
    /// The rights or the folders for it are missing.
    #[error("{0}")]
    Access(String),
}

/// Whether letters could be written there, found out without making anything.
///
/// # Errors
/// Why not, in words.
pub(crate) fn check(path: &Path) -> Result<(), Unfit> {
    place::check(path).map_err(|error| Unfit::NoFile(format!("{}: {error}", path.display())))?;
    match fs::metadata(path) {
        Ok(_) => return access(path, Access::READ_OK | Access::WRITE_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Unfit::Access(format!("{}: {error}", path.display()))),
    }
    for folder in path.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => return access(folder, Access::WRITE_OK | Access::EXEC_OK),
            Ok(_) => return Err(Unfit::Access(format!("{} is no folder", folder.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Unfit::Access(format!("{}: {error}", folder.display()))),
        }
    }
    Ok(())
}

fn access(path: &Path, access: Access) -> Result<(), Unfit> {
    rustix::fs::access(path, access).map_err(|error| Unfit::Access(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::pipeline::dead_letter::place::tests::no_files;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123)
    }

    fn lines(lines: &[&str]) -> Vec<Vec<u8>> {
        lines.iter().map(|line| format!("{line}\n").into_bytes()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn missing_folders_and_the_file_are_for_their_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/x.jsonl");
        let appended = Appender::new(path.clone(), 1_000, 5).append(&lines(&["one"]), now());
        assert_eq!((appended.lines, appended.error.is_none()), (1, true));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(
            (mode(&path), mode(&root.path().join("a/b")), mode(&root.path().join("a"))),
            (0o600, 0o700, 0o700)
        );
    }

    #[test]
    fn a_torn_line_is_ended_by_the_next_append() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.jsonl");
        fs::write(&path, "one\ntw").unwrap();
        Appender::new(path.clone(), 1_000, 5).append(&lines(&["three"]), now());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nthree\n");
    }

    #[test]
    fn a_file_is_rotated_before_it_grows_too_large_and_the_newest_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.jsonl");
        fs::write(root.path().join("x-notes.jsonl"), "").unwrap();
        let mut appender = Appender::new(path.clone(), 10, 2);
        // "0000" to "0006", and a line that is larger than a file may be.
        let many: Vec<String> = (0..7).map(|number| format!("{number:04}")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.push("larger than ten bytes");
        let appended = appender.append(&lines(&many), now());
        assert_eq!((appended.lines, appended.error.is_none()), (8, true));
        assert_eq!(fs::read_to_string(&path).unwrap(), "larger than ten bytes\n");
        let rotated = names::members(&path).unwrap();
        assert_eq!(rotated.len(), 3, "two rotated ones and itself: {rotated:?}");
        assert_eq!(fs::read_to_string(&rotated[0]).unwrap(), "0004\n0005\n");
        assert_eq!(fs::read_to_string(&rotated[1]).unwrap(), "0006\n");
        assert!(root.path().join("x-notes.jsonl").exists());
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let root = tempfile::tempdir().unwrap();
        let (path, away) = (root.path().join("x.jsonl"), root.path().join("y.jsonl"));
        let mut appender = Appender::new(path.clone(), 1_000, 5);
        appender.append(&lines(&["one"]), now());
        fs::rename(&path, &away).unwrap();
        appender.append(&lines(&["two"]), now());
        assert_eq!(
            (fs::read_to_string(&away).unwrap(), fs::read_to_string(&path).unwrap()),
            ("one\n".into(), "two\n".into())
        );
    }

    #[test]
    fn a_path_that_cannot_be_written_to_is_reported_and_told_before() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, good) in [
            (root.path().join("new/deep/x.jsonl"), true),
            (file.clone(), true),
            (file.join("x.jsonl"), false),
            (root.path().to_owned(), false),
        ] {
            assert_eq!(check(&path).is_ok(), good, "{path:?}: {:?}", check(&path));
            let appended = Appender::new(path.clone(), 1_000, 5).append(&lines(&["one", "two"]), now());
            assert_eq!(
                (appended.lines, appended.error.is_none()),
                (if good { 2 } else { 0 }, good),
                "{path:?}"
            );
        }
    }

    #[test]
    fn what_is_no_file_is_never_written_to_and_told_before() {
        let root = tempfile::tempdir().unwrap();
        let dangling = root.path().join("dangling");
        symlink("gone/x.jsonl", &dangling).unwrap();
        let mut paths = no_files(root.path());
        paths.push((dangling, "it is a symbolic link to gone/x.jsonl, which is not there"));
        for (path, expected) in paths {
            let unfit = check(&path);
            assert!(matches!(&unfit, Err(Unfit::NoFile(why)) if why.ends_with(expected)), "{unfit:?}");
            let appended = Appender::new(path.clone(), 1_000, 5).append(&lines(&["one"]), now());
            let error = appended.error.map(|error| error.to_string());
            assert_eq!((appended.lines, error.as_deref()), (0, Some(expected)), "{path:?}");
        }
    }

    #[test]
    fn a_file_behind_a_link_is_rotated_where_it_is_and_the_link_stays() {
        let root = tempfile::tempdir().unwrap();
        let (link, real) = (root.path().join("x.jsonl"), root.path().join("d/y.jsonl"));
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(&real, "one\n").unwrap();
        symlink(&real, &link).unwrap();
        let appended = Appender::new(link.clone(), 5, 5).append(&lines(&["two", "three"]), now());
        assert_eq!((appended.lines, appended.error.is_none()), (2, true));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&link).unwrap(), "three\n");
        assert_eq!(names::members(&fs::canonicalize(&real).unwrap()).unwrap().len(), 3);
    }
}
