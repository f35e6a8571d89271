//! The stream that lines go to.

use std::{
    fs::File,
    io::{self, IsTerminal, Write as _},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use crate::config::Stream;

/// One of the gateway's standard streams, without the standard library's buffer: what was written is known exactly.
#[derive(Debug)]
pub struct Output {
    file: File,
    name: &'static str,
}

/// What became of a write.
#[derive(Debug)]
pub struct Write {
    /// Bytes that went out.
    pub bytes: usize,
    /// Why not all did.
    pub error: Option<io::Error>,
}

/// Pause before a stream that is full (a pipe in non-blocking mode) is tried again.
const PAUSE: Duration = Duration::from_millis(5);

impl Output {
    /// A handle of its own on one of the process's streams.
    ///
    /// # Errors
    /// When the process has no such stream.
    pub fn of(stream: Stream) -> io::Result<Self> {
        let (descriptor, name) = match stream {
            Stream::Stdout => (io::stdout().as_fd().try_clone_to_owned()?, "stdout"),
            Stream::Stderr => (io::stderr().as_fd().try_clone_to_owned()?, "stderr"),
        };
        Ok(Self::new(File::from(descriptor), name))
    }

    /// A stream under a name of its own.
    #[must_use]
    pub fn new(file: File, name: &'static str) -> Self {
        Self { file, name }
    }

    /// The stream's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a person is looking.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// Writes `bytes` in one call where the system takes them in one. A stream in non-blocking mode that stays full
    /// is waited for, for half of `deadline`.
    pub fn write(&mut self, bytes: &[u8], deadline: Duration) -> Write {
        let give_up = Instant::now() + deadline / 2;
        let mut written = 0;
        while written < bytes.len() {
            let error = match self.file.write(&bytes[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if Instant::now() < give_up => thread::sleep(PAUSE),
                _ => return Write { bytes: written, error: Some(error) },
            }
        }
        Write { bytes: written, error: None }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_slow_reader_gets_every_byte() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(File::from(std::os::fd::OwnedFd::from(writer)), "pipe");
        let bytes = vec![b'x'; 1 << 20];
        let written = thread::spawn(move || output.write(&bytes, Duration::from_secs(10)));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        let written = written.join().unwrap();
        assert!(written.error.is_none());
        assert_eq!((written.bytes, read.len()), (1 << 20, 1 << 20));
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error_and_no_more() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut output = Output::new(File::from(std::os::fd::OwnedFd::from(writer)), "pipe");
        let written = output.write(b"line\n", Duration::from_secs(1));
        assert_eq!(written.bytes, 0);
        assert_eq!(written.error.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
