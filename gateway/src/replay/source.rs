//! A dead-letter file, read as it was when it was opened.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek as _},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use super::ReplayError;
use crate::pipeline::dead_letter::{DeadLetter, decode, place};

/// A longer line is no dead letter.
const MAX_LINE: u64 = 256 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An open file. It stays readable when the gateway rotates or deletes it, and what is appended later is not part of
/// it.
#[derive(Debug)]
pub(crate) struct Source {
    /// As it was named.
    pub(super) path: PathBuf,
    /// Without symbolic links: the note belongs to the file, not to a name of it.
    pub(super) real: PathBuf,
    pub(super) file: File,
    length: u64,
}

/// One line of a file.
#[derive(Debug)]
pub(crate) struct Line {
    /// From 1.
    pub(super) number: u64,
    pub(super) content: Content,
}

/// What a line holds.
#[derive(Debug)]
pub(crate) enum Content {
    Letter(Box<DeadLetter>),
    /// Why it cannot be read.
    Unreadable(String),
    /// The last line, which ends in the middle: it is being written, or was when the power failed. Or what is left of a
    /// compressed file that is damaged here.
    Torn,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, ReplayError> {
        let unreadable = |error| ReplayError::Unreadable { path: path.to_owned(), error };
        let real = fs::canonicalize(path).map_err(unreadable)?;
        let file = place::open(OpenOptions::new().read(true), &real).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        Ok(Self { path: path.to_owned(), real, file, length })
    }

    /// Its lines from the beginning. One pass at a time.
    pub(super) fn lines(&self) -> io::Result<Lines<'_>> {
        (&self.file).rewind()?;
        let mut bytes = BufReader::with_capacity(256 * 1024, (&self.file).take(self.length));
        let is_compressed = bytes.fill_buf()?.starts_with(&GZIP);
        let reader: Box<dyn BufRead> = if is_compressed {
            Box::new(BufReader::with_capacity(256 * 1024, MultiGzDecoder::new(bytes)))
        } else {
            Box::new(bytes)
        };
        Ok(Lines { reader, is_compressed, number: 0, is_over: false })
    }
}

/// The lines of a file, empty ones left out.
pub(crate) struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    is_compressed: bool,
    number: u64,
    is_over: bool,
}

impl Lines<'_> {
    /// What a failure to read comes to: the disk's is an error, that of a decoder is the end of what can be read.
    fn failed(&mut self, error: io::Error) -> io::Result<Line> {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        self.is_over = true;
        if self.is_compressed && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) {
            return Ok(Line { number: self.number + 1, content: Content::Torn });
        }
        Err(error)
    }
}

impl Iterator for Lines<'_> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            let mut bytes = Vec::new();
            match self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(self.failed(error)),
            }
            self.number += 1;
            let is_whole = bytes.ends_with(b"\n");
            let content = if !is_whole && bytes.len() as u64 == MAX_LINE {
                match self.reader.skip_until(b'\n') {
                    Ok(_) => Content::Unreadable(format!("it is longer than {MAX_LINE} bytes")),
                    Err(error) => return Some(self.failed(error)),
                }
            } else if bytes.trim_ascii().is_empty() {
                continue;
            } else {
                content(&bytes, is_whole)
            };
            return Some(Ok(Line { number: self.number, content }));
        }
        None
    }
}

fn content(bytes: &[u8], is_whole: bool) -> Content {
    match decode(bytes) {
        Ok(letter) => Content::Letter(Box::new(letter)),
        Err(_) if !is_whole => Content::Torn,
        Err(why) => Content::Unreadable(why),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LINE: &str = include_str!("../pipeline/dead_letter/golden.jsonl");

    fn read(content: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        fs::write(&path, content).unwrap();
        let source = Source::open(&path).unwrap();
        // What is appended after it was opened is not part of it.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more\n").unwrap();
        let word = |line: io::Result<Line>| {
            let line = line.unwrap();
            let word = match line.content {
                Content::Letter(_) => "letter",
                Content::Unreadable(_) => "unreadable",
                Content::Torn => "torn",
            };
            format!("{} {word}", line.number)
        };
        let first: Vec<String> = source.lines().unwrap().map(word).collect();
        assert_eq!(
            source.lines().unwrap().map(word).collect::<Vec<_>>(),
            first,
            "a second pass is like the first"
        );
        first
    }

    #[test]
    fn lines_that_cannot_be_read_are_named_and_a_torn_end_is_told_apart() {
        let half = &LINE[..LINE.len() / 2];
        for (content, expected) in [
            (String::new(), vec![]),
            (LINE.to_owned(), vec!["1 letter"]),
            (LINE.trim_end().to_owned(), vec!["1 letter"]),
            (format!("{LINE}\n{LINE}"), vec!["1 letter", "3 letter"]),
            (format!("{LINE}{half}"), vec!["1 letter", "2 torn"]),
            (format!("{half}\n{LINE}"), vec!["1 unreadable", "2 letter"]),
        ] {
            assert_eq!(read(content.as_bytes()), expected, "{content}");
        }
    }

    #[test]
    fn a_compressed_file_is_read_as_a_plain_one() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(LINE.repeat(3).as_bytes()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl.gz");
        fs::write(&path, encoder.finish().unwrap()).unwrap();
        assert_eq!(Source::open(&path).unwrap().lines().unwrap().count(), 3);
        // Cut anywhere behind its head, it is a torn file and no reason to send nothing.
        let whole = fs::read(&path).unwrap();
        for length in [whole.len() / 2, whole.len() - 12, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let source = Source::open(&path).unwrap();
            let lines: Vec<Line> = source.lines().unwrap().map(Result::unwrap).collect();
            let (last, before) = lines.split_last().unwrap();
            assert!(matches!(last.content, Content::Torn), "{length}");
            assert!(before.iter().all(|line| matches!(line.content, Content::Letter(_))), "{length}");
        }
    }
}
