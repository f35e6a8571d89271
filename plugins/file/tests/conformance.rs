//! The conformance suite over the file exporter: its backend is a directory.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
};

use exporter_testkit::{
    conformance::{Backend, Behaviour, Unsupported},
    conformance_tests,
};
use file_exporter::JsonLines;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

/// A directory that a file with its name may take the place of: then nothing can be written, not even by root.
struct Directory {
    place: TempDir,
}

impl Directory {
    fn start() -> Self {
        let directory = Self { place: tempfile::tempdir().unwrap() };
        fs::create_dir(directory.logs()).unwrap();
        directory
    }

    fn logs(&self) -> PathBuf {
        self.place.path().join("logs")
    }

    fn away(&self) -> PathBuf {
        self.place.path().join("away")
    }

    fn file(&self) -> PathBuf {
        self.logs().join("log.jsonl")
    }

    fn is_down(&self) -> bool {
        self.away().exists()
    }
}

impl Backend for Directory {
    fn config(&self) -> String {
        json!({ "path": self.file() }).to_string()
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        match behaviour {
            Behaviour::Accept if self.is_down() => {
                fs::remove_file(self.logs()).unwrap();
                fs::rename(self.away(), self.logs()).unwrap();
            }
            Behaviour::Down if !self.is_down() => {
                fs::rename(self.logs(), self.away()).unwrap();
                fs::write(self.logs(), "").unwrap();
            }
            Behaviour::Accept | Behaviour::Down => {}
            Behaviour::RetryHalf
            | Behaviour::RejectHalf
            | Behaviour::Thirds
            | Behaviour::RetryOne
            | Behaviour::StallOne => {
                return Err(Unsupported("a file does not look at what is written to it"));
            }
            Behaviour::NotFound => return Err(Unsupported("a path that has gone is what an outage is here")),
            Behaviour::Throttle => return Err(Unsupported("a file system asks for no pause")),
            Behaviour::Hang => return Err(Unsupported("a write to a local file is not waited for")),
            Behaviour::CutAnswer => {
                return Err(Unsupported("what was written is known: there is no answer to be lost"));
            }
        }
        Ok(())
    }

    /// Every line is whole, or this fails.
    fn holds(&mut self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Line {
            attributes: Attributes,
        }
        #[derive(Deserialize)]
        struct Attributes {
            id: String,
        }
        let Ok(file) = fs::File::open(self.file()) else { return Vec::new() };
        let lines = BufReader::new(file).split(b'\n').map(Result::unwrap);
        lines.map(|line| serde_json::from_slice::<Line>(&line).unwrap().attributes.id).collect()
    }

    // A file cannot, and the exporter promises all the same that no retry writes a line that is there.
    fn deduplicates(&self) -> bool {
        true
    }
}

conformance_tests!(JsonLines, Directory::start);
