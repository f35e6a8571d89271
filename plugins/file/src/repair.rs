//! A file whose last line is torn: half written when the machine or the gateway died.
//!
//! The next line must start clean, and every line of the log must be whole. So the torn end is moved to
//! `<path>.torn` (appended there, one fragment per line) and cut off the log. The record it belonged to was never
//! reported as delivered. If only the newline is missing, it is added.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::de::IgnoredAny;

/// What was found at the end of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A newline, or nothing at all.
    Whole,
    /// A whole line without its newline, which was added.
    NoNewline,
    /// So many bytes of a torn line, moved to this file.
    Torn(u64, PathBuf),
}

/// Half a line up to this size is looked at to see whether it is whole.
const MAX_LINE: u64 = 64 << 20;

/// Makes the end of the file a whole line.
///
/// # Errors
/// When it cannot be read, moved or cut.
pub fn repair(file: &File, path: &Path, mode: u32) -> io::Result<Found> {
    let mut file = file;
    let length = file.metadata()?.len();
    let whole = last_line_end(file, length)?;
    if whole == length {
        return Ok(Found::Whole);
    }
    file.seek(SeekFrom::Start(whole))?;
    if length - whole <= MAX_LINE {
        let mut line = Vec::new();
        file.take(length - whole).read_to_end(&mut line)?;
        if is_json(&line) {
            file.write_all(b"\n")?;
            return Ok(Found::NoNewline);
        }
        file.seek(SeekFrom::Start(whole))?;
    }
    let torn = torn_path(path);
    // To open a FIFO would be to wait for its reader.
    if fs::metadata(&torn).is_ok_and(|found| !found.is_file()) {
        let text = format!("{} is no regular file, and half a line is to be moved there", torn.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut aside = OpenOptions::new().append(true).create(true).mode(mode).open(&torn)?;
    io::copy(&mut file.take(length - whole), &mut aside)?;
    aside.write_all(b"\n")?;
    // The fragment is cut off only when it is safe elsewhere.
    aside.sync_all()?;
    file.set_len(whole)?;
    Ok(Found::Torn(length - whole, torn))
}

/// Where fragments of the log at `path` go.
fn torn_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".torn");
    PathBuf::from(name)
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// Where the last whole line ends: found backwards, a block at a time.
fn last_line_end(mut file: &File, length: u64) -> io::Result<u64> {
    let mut block = [0; 64 * 1024];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        let whole = crate::append::whole_lines(part);
        if whole > 0 {
            return Ok(start + whole as u64);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn repaired(content: &[u8]) -> (Found, Vec<u8>, Option<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        fs::write(&path, content).unwrap();
        let file = OpenOptions::new().read(true).append(true).open(&path).unwrap();
        let found = repair(&file, &path, 0o600).unwrap();
        let found = match found {
            Found::Torn(bytes, torn) => {
                assert_eq!(torn, torn_path(&path));
                Found::Torn(bytes, PathBuf::new())
            }
            other => other,
        };
        (found, fs::read(&path).unwrap(), fs::read(torn_path(&path)).ok())
    }

    #[test]
    fn the_file_ends_with_a_whole_line() {
        let torn = |bytes| Found::Torn(bytes, PathBuf::new());
        for (content, found, kept, aside) in [
            ("", Found::Whole, "", None),
            ("{}\n", Found::Whole, "{}\n", None),
            ("{}\n{\"a\":1}", Found::NoNewline, "{}\n{\"a\":1}\n", None),
            ("{}\n{\"a\":", torn(5), "{}\n", Some("{\"a\":\n")),
            ("{\"a\":", torn(5), "", Some("{\"a\":\n")),
            ("{}\n\0\0\0", torn(3), "{}\n", Some("\0\0\0\n")),
        ] {
            let (is, left, moved) = repaired(content.as_bytes());
            assert_eq!(is, found, "{content:?}");
            assert_eq!(left, kept.as_bytes(), "{content:?}");
            assert_eq!(moved.as_deref(), aside.map(str::as_bytes), "{content:?}");
        }
    }

    #[test]
    fn a_torn_line_longer_than_a_block_is_found() {
        let content = format!("{{}}\n\"{}", "x".repeat(200_000));
        let (found, left, moved) = repaired(content.as_bytes());
        assert_eq!(found, Found::Torn(200_001, PathBuf::new()));
        assert_eq!(left, b"{}\n");
        assert_eq!(moved.unwrap().len(), 200_002);
    }
}
