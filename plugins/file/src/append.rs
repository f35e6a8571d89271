//! Appending whole lines: all of them, or as many whole ones as there is room for.

use std::{fs::File, io};

/// What lines are appended to: a file, or in tests one that runs full.
pub trait Target {
    /// Writes some of `bytes` at the end.
    ///
    /// # Errors
    /// As `write(2)`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts the file down to `length` bytes.
    ///
    /// # Errors
    /// As `ftruncate(2)`.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

impl Target for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(self, bytes)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// What became of the lines.
#[derive(Debug)]
pub struct Appended {
    /// Bytes that are in the file: whole lines.
    pub bytes: usize,
    /// Why not all are.
    pub error: Option<io::Error>,
    /// Half a line is left behind, because it could not be cut off again.
    pub is_torn: bool,
}

/// Appends `lines`, which end with a newline, to a file of `length` bytes: in one write where the system takes it in
/// one. After a failure the whole lines that fitted stay, and half a line is cut off: the caller sends the rest again
/// later, and no line is in the file twice.
pub fn append(mut target: impl Target, length: u64, lines: &[u8]) -> Appended {
    let mut written = 0;
    let error = loop {
        if written == lines.len() {
            return Appended { bytes: written, error: None, is_torn: false };
        }
        match target.write(&lines[written..]) {
            Ok(0) => break io::ErrorKind::WriteZero.into(),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
    };
    let whole = whole_lines(&lines[..written]);
    let is_torn = whole < written && target.truncate(length + whole as u64).is_err();
    Appended { bytes: whole, error: Some(error), is_torn }
}

/// Length of the whole lines at the start of `bytes`.
#[must_use]
pub fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes, which takes at most so many in one write.
    struct Disk {
        content: Vec<u8>,
        room: usize,
        at_once: usize,
        truncates: bool,
    }

    impl Target for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.at_once).min(self.room - self.content.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn truncate(&mut self, length: u64) -> io::Result<()> {
            if !self.truncates {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.content.truncate(usize::try_from(length).unwrap());
            Ok(())
        }
    }

    const LINES: &[u8] = b"one\ntwo\nthree\n";

    #[test]
    fn a_disk_of_any_size_holds_whole_lines_alone_and_none_twice() {
        for at_once in 1..=LINES.len() {
            for room in 0..=LINES.len() {
                let mut disk = Disk { content: b"old\n".to_vec(), room: room + 4, at_once, truncates: true };
                let first = append(&mut disk, 4, LINES);
                assert_eq!(first.error.is_none(), room == LINES.len());
                assert!(!first.is_torn);
                assert!(disk.content.ends_with(b"\n"), "{room}");
                disk.room = 100;
                let length = disk.content.len() as u64;
                assert!(append(&mut disk, length, &LINES[first.bytes..]).error.is_none());
                assert_eq!(disk.content, b"old\none\ntwo\nthree\n", "{at_once} {room}");
            }
        }
    }

    #[test]
    fn half_a_line_that_cannot_be_cut_off_is_reported() {
        let mut disk = Disk { content: Vec::new(), room: 6, at_once: 100, truncates: false };
        let appended = append(&mut disk, 0, LINES);
        assert_eq!((appended.bytes, appended.is_torn), (4, true));
    }
}
