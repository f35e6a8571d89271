//! Rotated files: their names, how many are kept, and their compression.
//!
//! `requests.jsonl` becomes `requests-20250305T160320.123Z.jsonl`, and `….jsonl.gz` or `….jsonl.zst` when compressed. Only
//! files with exactly such names are ever deleted or compressed.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use flate2::write::GzEncoder;

use crate::config::Compression;

/// Ending of a file that is being compressed. It is never left behind as a finished one.
const UNFINISHED: &str = ".unfinished";

/// What is done with rotated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// So many are kept; 0: all.
    pub keep: u32,
    /// How they are compressed, if they are.
    pub compress: Option<Compression>,
    /// Permissions of compressed files.
    pub mode: u32,
}

/// The rotated files beside one log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    directory: PathBuf,
    prefix: String,
    suffix: String,
}

impl Rotated {
    /// Those of `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let text = |part: Option<&OsStr>| part.map(|text| text.to_string_lossy().into_owned());
        Self {
            directory: path.parent().map(Path::to_owned).unwrap_or_default(),
            prefix: format!("{}-", text(path.file_stem()).unwrap_or_default()),
            suffix: text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default(),
        }
    }

    /// A name that is free, for a file that is rotated at `now`.
    #[must_use]
    pub fn name(&self, now: SystemTime) -> PathBuf {
        let mut time = now;
        loop {
            let stamp = humantime::format_rfc3339_millis(time).to_string().replace(['-', ':'], "");
            let name = self.directory.join(format!("{}{stamp}{}", self.prefix, self.suffix));
            let is_free = |ending: &&str| !with_ending(&name, ending).exists();
            if !name.exists() && Compression::ENDINGS.iter().all(is_free) {
                return name;
            }
            time += Duration::from_millis(1);
        }
    }

    /// Deletes all but the newest, compresses what is to be compressed, and clears away what an earlier compression left
    /// unfinished. `stop` ends it early; the next run goes on.
    ///
    /// # Errors
    /// The first one. The rest was still done.
    pub fn tidy(&self, keeping: Keeping, stop: &AtomicBool) -> io::Result<()> {
        let Keeping { keep, compress, mode } = keeping;
        let mut outcome = Ok(());
        let (unfinished, mut names): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|name| name.ends_with(UNFINISHED));
        for name in unfinished {
            outcome = outcome.and(fs::remove_file(self.directory.join(name)));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        for (age, name) in names.iter().enumerate() {
            let path = self.directory.join(name);
            let done = match compress {
                _ if keep > 0 && age >= keep as usize => fs::remove_file(&path),
                Some(how) if compressed(name).is_none() => compress_file(&path, how, mode, stop),
                _ => Ok(()),
            };
            // Somebody else may clear away here too.
            let done = done
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
            outcome = outcome.and(done);
        }
        outcome
    }

    /// File names of this log's rotated files.
    fn list(&self) -> io::Result<Vec<String>> {
        let here = Path::new(".");
        let directory = if self.directory.as_os_str().is_empty() { here } else { &self.directory };
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if self.is_rotated(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn is_rotated(&self, name: &str) -> bool {
        let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
        let plain = compressed(name).unwrap_or(name);
        let stamp = plain.strip_prefix(&self.prefix).and_then(|rest| rest.strip_suffix(&self.suffix));
        stamp.is_some_and(is_stamp)
    }
}

/// The name that a rotated file had before it was rotated, if that is what it is.
#[must_use]
pub fn name_before(name: &str) -> Option<String> {
    let plain = compressed(name).unwrap_or(name);
    let (stem, extension) = match plain.rsplit_once("Z.") {
        Some((_, extension)) => (plain.strip_suffix(extension)?.strip_suffix('.')?, format!(".{extension}")),
        None => (plain, String::new()),
    };
    let (before, stamp) = stem.split_at_checked(stem.len().checked_sub(STAMP.len())?)?;
    is_stamp(stamp).then_some(())?;
    Some(format!("{}{extension}", before.strip_suffix('-')?))
}

const STAMP: &[u8] = b"00000000T000000.000Z";

fn is_stamp(text: &str) -> bool {
    text.len() == STAMP.len()
        && text.bytes().zip(STAMP).all(|(byte, expected)| match expected {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

/// The name without the ending of a compressed file, if it has one.
fn compressed(name: &str) -> Option<&str> {
    Compression::ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Replaces `path` by its compressed file. The original goes only when that is complete and on the disk.
fn compress_file(path: &Path, how: Compression, mode: u32, stop: &AtomicBool) -> io::Result<()> {
    let finished = with_ending(path, how.ending());
    let unfinished = with_ending(&finished, UNFINISHED);
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    let mut source = Stoppable { file: File::open(path)?, stop };
    let written = match how {
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::default());
            io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish())
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            // A file that was damaged is told from one that was not, as gzip's are.
            encoder.include_checksum(true)?;
            io::copy(&mut source, &mut encoder).and_then(|_| encoder.finish())
        }
    };
    match written {
        Ok(out) => out.sync_all()?,
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
            return fs::remove_file(&unfinished);
        }
        Err(error) => return Err(error),
    }
    fs::rename(&unfinished, finished)?;
    fs::remove_file(path)
}

/// A file that is read until it is told to stop.
struct Stoppable<'a> {
    file: File,
    stop: &'a AtomicBool,
}

impl io::Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn keeping(keep: u32, compress: Option<Compression>) -> Keeping {
        Keeping { keep, compress, mode: 0o600 }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_name_carries_the_time_and_is_never_taken_twice() {
        let directory = tempfile::tempdir().unwrap();
        let rotated = Rotated::of(&directory.path().join("requests.jsonl"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123);
        let first = rotated.name(now);
        assert!(first.ends_with("requests-20250305T160320.123Z.jsonl"), "{first:?}");
        fs::write(directory.path().join("requests-20250305T160320.123Z.jsonl.gz"), "").unwrap();
        fs::write(directory.path().join("requests-20250305T160320.124Z.jsonl"), "").unwrap();
        assert!(rotated.name(now).ends_with("requests-20250305T160320.125Z.jsonl"));
    }

    #[test]
    fn only_the_newest_are_kept_and_nothing_foreign_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(directory.path().join(name), "x\n").unwrap();
        for day in 1..=5 {
            put(&format!("a-2025030{day}T000000.000Z.jsonl"));
        }
        for foreign in
            ["a.jsonl", "a-notes.jsonl", "b-20250301T000000.000Z.jsonl", "a-20250301T000000.000Z.txt"]
        {
            put(foreign);
        }
        let rotated = Rotated::of(&directory.path().join("a.jsonl"));
        rotated.tidy(keeping(2, None), &AtomicBool::new(false)).unwrap();
        let expected = [
            "a-20250301T000000.000Z.txt",
            "a-20250304T000000.000Z.jsonl",
            "a-20250305T000000.000Z.jsonl",
            "a-notes.jsonl",
            "a.jsonl",
            "b-20250301T000000.000Z.jsonl",
        ];
        assert_eq!(names(directory.path()), expected);
        rotated.tidy(keeping(0, None), &AtomicBool::new(false)).unwrap();
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn compressed_files_hold_the_same_bytes_and_count_as_one() {
        for (how, ending) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a-20250301T000000.000Z.jsonl");
            fs::write(&path, "{}\n".repeat(1000)).unwrap();
            let left = format!("a-20250228T000000.000Z.jsonl.{ending}.unfinished");
            fs::write(directory.path().join(left), "torn").unwrap();
            let rotated = Rotated::of(&directory.path().join("a.jsonl"));
            let tidy = |stop| rotated.tidy(keeping(5, Some(how)), &AtomicBool::new(stop)).unwrap();
            tidy(true);
            assert_eq!(names(directory.path()), ["a-20250301T000000.000Z.jsonl"], "it was told to stop");
            tidy(false);
            let name = format!("a-20250301T000000.000Z.jsonl.{ending}");
            assert_eq!(names(directory.path()), [&*name]);
            let compressed = fs::read(directory.path().join(&name)).unwrap();
            let mut text = String::new();
            match how {
                Compression::Gzip => flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut text),
                Compression::Zstd => zstd::Decoder::new(&*compressed).unwrap().read_to_string(&mut text),
            }
            .unwrap();
            assert_eq!(text, "{}\n".repeat(1000));
            tidy(false);
            assert_eq!(names(directory.path()), [&*name], "once is enough");
        }
    }

    #[test]
    fn a_rotated_name_tells_the_one_before() {
        for (name, expected) in [
            ("a-20250301T000000.000Z.jsonl", Some("a.jsonl")),
            ("a.b-c-20250301T000000.000Z.jsonl.gz", Some("a.b-c.jsonl")),
            ("a-20250301T000000.000Z.zst", Some("a")),
            ("a-20250301T000000.000Z", Some("a")),
            ("a.jsonl", None),
            ("20250301T000000.000Z.jsonl", None),
            ("a-20250301T00000.0000Z.jsonl", None),
            ("Z.jsonl", None),
            ("é-20250301T000000.000Z.jsonl", Some("é.jsonl")),
        ] {
            assert_eq!(name_before(name).as_deref(), expected, "{name}");
        }
    }
}
