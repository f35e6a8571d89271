//! What was delivered, beside the files it came from: `x.jsonl.replayed`, shared by `x.jsonl` and all its rotated
//! files, since a file may be rotated between two replays. One line for each record: the exporter's name and the
//! record's id. It is only appended to, and forced to the disk with every step.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::ReplayError;

/// The open note, locked against other replays.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    file: File,
}

/// The note's place for the files of one family.
pub(super) fn path(family: &Path) -> PathBuf {
    let mut path = family.as_os_str().to_owned();
    path.push(".replayed");
    path.into()
}

/// The ids noted for one exporter; none when there is no note.
pub(super) fn read(path: &Path, plugin: &str) -> Result<HashSet<Uuid>, ReplayError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(ids(&text, plugin)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(ReplayError::Unreadable { path: path.to_owned(), error }),
    }
}

/// A line that a crash has torn names no id, or none that is whole: the record is sent once more.
fn ids(text: &str, plugin: &str) -> HashSet<Uuid> {
    let of_plugin = |line: &str| line.strip_prefix(plugin)?.strip_prefix(' ')?.parse().ok();
    text.lines().filter_map(of_plugin).collect()
}

impl Note {
    pub(super) fn open(path: &Path) -> Result<Self, ReplayError> {
        let failed = |error| ReplayError::Note { path: path.to_owned(), error };
        loop {
            let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
            let file = options.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(ReplayError::UnderWay { path: path.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Another replay may have put a shorter one in its place before the lock was had.
            let (open, named) = (file.metadata().map_err(failed)?, fs::metadata(path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())) {
                let mut note = Self { path: path.to_owned(), file };
                note.end_torn_line().map_err(failed)?;
                return Ok(note);
            }
        }
    }

    fn end_torn_line(&mut self) -> io::Result<()> {
        let text = fs::read(&self.path)?;
        if text.last().is_some_and(|last| *last != b'\n') { self.file.write_all(b"\n") } else { Ok(()) }
    }

    /// Notes records, on the disk when it returns.
    pub(super) fn append(&mut self, plugin: &str, ids: &[Uuid]) -> Result<(), ReplayError> {
        let lines: String = ids.iter().map(|id| format!("{plugin} {id}\n")).collect();
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| ReplayError::Note { path: self.path.clone(), error })
    }

    /// Forgets records that are in no file any more: a new note takes the old one's place in one step.
    pub(super) fn keep_only(self, ids: &HashSet<Uuid>) -> io::Result<()> {
        let text = fs::read_to_string(&self.path)?;
        let is_kept = |line: &&str| {
            line.split_once(' ').and_then(|(_, id)| id.parse().ok()).is_some_and(|id: Uuid| ids.contains(&id))
        };
        let kept: Vec<&str> = text.lines().filter(is_kept).collect();
        if kept.len() == text.lines().count() {
            return Ok(());
        }
        let draft = self.path.with_extension("replayed.draft");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        kept.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        file.sync_all()?;
        fs::rename(draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn what_is_noted_is_read_again_for_each_exporter_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("x.jsonl"));
        assert_eq!(read(&path, "a").unwrap(), HashSet::new());
        let mut note = Note::open(&path).unwrap();
        assert!(matches!(Note::open(&path), Err(ReplayError::UnderWay { .. })));
        note.append("a", &[id(1), id(2)]).unwrap();
        note.append("ab", &[id(3)]).unwrap();
        drop(note);
        assert_eq!(read(&path, "a").unwrap(), HashSet::from([id(1), id(2)]));
        assert_eq!(read(&path, "ab").unwrap(), HashSet::from([id(3)]));
    }

    #[test]
    fn a_torn_line_is_no_id_and_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        let whole = format!("a {}\n", id(1));
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            Note::open(&path).unwrap().append("a", &[id(2)]).unwrap();
            let expected = if cut == whole.len() - 1 { vec![id(1), id(2)] } else { vec![id(2)] };
            assert_eq!(read(&path, "a").unwrap(), expected.into_iter().collect(), "{cut}");
        }
    }

    #[test]
    fn records_that_are_gone_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        let mut note = Note::open(&path).unwrap();
        note.append("a", &[id(1), id(2)]).unwrap();
        note.append("b", &[id(2), id(3)]).unwrap();
        note.keep_only(&HashSet::from([id(2)])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("a {0}\nb {0}\n", id(2)));
        Note::open(&path).unwrap();
    }
}
