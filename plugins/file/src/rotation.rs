//! Rotated files: their names, how many are kept, and their compression.
//!
//! `requests.jsonl` becomes `requests-20250305T160320.123Z.jsonl`, and `….jsonl.gz` when compressed. Only files with
//! exactly such names are ever deleted or compressed.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};

/// Ending of a file that is being compressed. It is never left behind as a finished one.
const UNFINISHED: &str = ".gz.unfinished";

/// The rotated files beside one log file.
#[derive(Debug, Clone)]
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
            let mut compressed = name.clone().into_os_string();
            compressed.push(".gz");
            if !name.exists() && !Path::new(&compressed).exists() {
                return name;
            }
            time += Duration::from_millis(1);
        }
    }

    /// Deletes all but the newest `keep` (0: none), compresses what is to be compressed, and clears away what an
    /// earlier compression left unfinished. `stop` ends it early; the next run goes on.
    ///
    /// # Errors
    /// The first one. The rest was still done.
    pub fn tidy(&self, keep: u32, compress: Option<u32>, stop: &AtomicBool) -> io::Result<()> {
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
                Some(mode) if !name.ends_with(".gz") => gzip(&path, mode, stop),
                _ => Ok(()),
            };
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
        let plain = name.strip_suffix(UNFINISHED).or(name.strip_suffix(".gz")).unwrap_or(name);
        let stamp = plain.strip_prefix(&self.prefix).and_then(|rest| rest.strip_suffix(&self.suffix));
        let pattern = b"00000000T000000.000Z";
        stamp.is_some_and(|stamp| {
            stamp.len() == pattern.len()
                && stamp.bytes().zip(pattern).all(|(byte, expected)| match expected {
                    b'0' => byte.is_ascii_digit(),
                    other => byte == *other,
                })
        })
    }
}

/// Replaces `path` by `path.gz`. The original goes only when the compressed file is complete and on the disk.
fn gzip(path: &Path, mode: u32, stop: &AtomicBool) -> io::Result<()> {
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let unfinished = with(UNFINISHED);
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    let mut source = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        if stop.load(Ordering::Relaxed) {
            return fs::remove_file(&unfinished);
        }
        match source.read(&mut buffer)? {
            0 => break,
            count => encoder.write_all(&buffer[..count])?,
        }
    }
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, with(".gz"))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        rotated.tidy(2, None, &AtomicBool::new(false)).unwrap();
        let expected = [
            "a-20250301T000000.000Z.txt",
            "a-20250304T000000.000Z.jsonl",
            "a-20250305T000000.000Z.jsonl",
            "a-notes.jsonl",
            "a.jsonl",
            "b-20250301T000000.000Z.jsonl",
        ];
        assert_eq!(names(directory.path()), expected);
        rotated.tidy(0, None, &AtomicBool::new(false)).unwrap();
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn compressed_files_hold_the_same_bytes_and_count_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a-20250301T000000.000Z.jsonl");
        fs::write(&path, "{}\n".repeat(1000)).unwrap();
        fs::write(directory.path().join("a-20250228T000000.000Z.jsonl.gz.unfinished"), "torn").unwrap();
        let rotated = Rotated::of(&directory.path().join("a.jsonl"));
        rotated.tidy(5, Some(0o600), &AtomicBool::new(true)).unwrap();
        assert_eq!(names(directory.path()), ["a-20250301T000000.000Z.jsonl"], "it was told to stop");
        rotated.tidy(5, Some(0o600), &AtomicBool::new(false)).unwrap();
        assert_eq!(names(directory.path()), ["a-20250301T000000.000Z.jsonl.gz"]);
        let compressed = fs::read(directory.path().join("a-20250301T000000.000Z.jsonl.gz")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "{}\n".repeat(1000));
    }
}
