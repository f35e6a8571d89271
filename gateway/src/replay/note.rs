//! What was delivered, beside the files it came from: `x.jsonl.replayed`, shared by `x.jsonl` and all its rotated
//! files, since a file may be rotated between two replays. One line for each record: the exporter's name and the
//! record's id. It is only appended to, and forced to the disk with every step.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::ReplayError;
use crate::pipeline::dead_letter::place;

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

/// What a note says of one exporter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) ids: HashSet<Uuid>,
    /// Lines that name no record, of whatever exporter.
    pub(super) damaged: usize,
}

/// What is noted for one exporter; nothing when there is no note.
pub(super) fn read(path: &Path, plugin: &str) -> Result<Noted, ReplayError> {
    match bytes(path) {
        Ok(bytes) => Ok(noted(&bytes, plugin)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Noted::default()),
        Err(error) => Err(ReplayError::Unreadable { path: path.to_owned(), error }),
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    place::open(OpenOptions::new().read(true), path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A line that a crash has torn names no id, or none that is whole: the record is sent once more.
fn noted(bytes: &[u8], plugin: &str) -> Noted {
    let mut noted = Noted::default();
    for line in lines(bytes) {
        match entry(line) {
            Some((name, id)) if name == plugin => {
                noted.ids.insert(id);
            }
            Some(_) => {}
            None => noted.damaged += 1,
        }
    }
    noted
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Exporter and record of a line.
fn entry(line: &[u8]) -> Option<(&str, Uuid)> {
    let (plugin, id) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((plugin, id.trim_end().parse().ok()?))
}

impl Note {
    pub(super) fn open(path: &Path) -> Result<Self, ReplayError> {
        let failed = |error| ReplayError::Note { path: path.to_owned(), error };
        loop {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true).mode(0o600);
            let file = place::open(&mut options, path).map_err(failed)?;
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
        let text = bytes(&self.path)?;
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
        let text = bytes(&self.path)?;
        let is_kept = |line: &&[u8]| entry(line).is_some_and(|(_, id)| ids.contains(&id));
        let kept: Vec<&[u8]> = lines(&text).filter(is_kept).collect();
        if kept.len() == lines(&text).count() {
            return Ok(());
        }
        let real = fs::canonicalize(&self.path)?;
        let draft = real.with_extension("replayed.draft");
        // One that a crash has left, or whatever is in its place.
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        kept.iter().try_for_each(|line| file.write_all(&[line, b"\n".as_slice()].concat()))?;
        file.sync_all()?;
        fs::rename(draft, real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::dead_letter::place::tests::no_files;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn what_is_noted_is_read_again_for_each_exporter_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("x.jsonl"));
        assert_eq!(read(&path, "a").unwrap(), Noted::default());
        let mut note = Note::open(&path).unwrap();
        assert!(matches!(Note::open(&path), Err(ReplayError::UnderWay { .. })));
        note.append("a", &[id(1), id(2)]).unwrap();
        note.append("ab", &[id(3)]).unwrap();
        drop(note);
        assert_eq!(read(&path, "a").unwrap().ids, HashSet::from([id(1), id(2)]));
        assert_eq!(read(&path, "ab").unwrap().ids, HashSet::from([id(3)]));
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
            assert_eq!(read(&path, "a").unwrap().ids, expected.into_iter().collect(), "{cut}");
        }
    }

    #[test]
    fn what_is_damaged_is_counted_and_goes_when_the_note_is_shortened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        let good = format!("a {}\r\n", id(1));
        let damage: [&[u8]; 6] = [b"\xff\xfe\n", b"a \n", b"a\n", b"\0\0\0\0", b"\n", good.as_bytes()];
        fs::write(&path, damage.concat()).unwrap();
        assert_eq!(read(&path, "a").unwrap(), Noted { ids: HashSet::from([id(1)]), damaged: 4 });
        fs::write(&path, [good.as_bytes(), b"a \xff\n", good.as_bytes()].concat()).unwrap();
        assert_eq!(read(&path, "a").unwrap(), Noted { ids: HashSet::from([id(1)]), damaged: 1 });
        Note::open(&path).unwrap().keep_only(&HashSet::from([id(1)])).unwrap();
        assert_eq!(read(&path, "a").unwrap(), Noted { ids: HashSet::from([id(1)]), damaged: 0 });
    }

    #[test]
    fn a_note_that_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for (path, expected) in no_files(folder.path()) {
            for error in [read(&path, "a").unwrap_err(), Note::open(&path).unwrap_err()] {
                let text = error.to_string();
                assert!(text.contains(expected) && text.contains(path.to_str().unwrap()), "{text}");
            }
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
