//! Files that are read whole: regular ones alone, and no more of them than is bounded. Opening a FIFO would wait for a
//! writer, and `/dev/zero` has no end.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a regular file, and waits for nobody.
///
/// # Errors
/// The system's, and `InvalidInput` for what is no regular file.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Before it is opened: with some devices that alone does something.
    if let Ok(found) = fs::metadata(path) {
        regular(found.file_type())?;
    }
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads all of a regular file.
///
/// # Errors
/// As [`open`], and `FileTooLarge` for more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(OpenOptions::new().read(true), path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// The same for text.
///
/// # Errors
/// As [`read`], and `InvalidData` for what is no UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Whether it is a regular file.
///
/// # Errors
/// What it is instead.
pub fn regular(kind: FileType) -> io::Result<()> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what} and no regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit_and_refused_beyond_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "it is larger than 4 bytes");
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 5).unwrap_err().to_string(), "it is not UTF-8 text");
        assert_eq!(
            read(Path::new("/dev/zero"), 5).unwrap_err().to_string(),
            "it is a device and no regular file"
        );
    }
}
