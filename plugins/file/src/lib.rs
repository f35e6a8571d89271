//! Exporter `file`: every record as one line of JSON, the OpenTelemetry log form with the bodies.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`pattern`] | where a record's line goes |
//! | [`logs`] | the files that are open, and all together |
//! | [`total`] | which files go when all together are too large |
//! | [`log`] | one file: opened, locked, written to, rotated, reopened |
//! | [`append`] | whole lines or none |
//! | [`repair`] | a last line that was torn by a crash |
//! | [`rotation`] | rotated files: names, how many, compression |
//! | [`background`] | fsync at intervals, compression |
//!
//! Invariants: a file holds whole lines alone; a line that was reported as delivered is in it; no retry writes a
//! line that is there already.

#![forbid(unsafe_code)]

pub mod append;
pub mod background;
pub mod config;
pub mod log;
pub mod logs;
pub mod pattern;
pub mod repair;
pub mod rotation;
pub mod total;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use plugin_api::{
    Batch, Descriptor, ExportError, Health, Host, InitError, Record, TelemetryExporter, export_plugin,
};
use tracing::warn;

use crate::{append::Appended, config::Config, logs::Logs};

/// The exporter.
#[derive(Debug)]
pub struct JsonLines {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    logs: Logs,
    /// Lines of the batch under way, for each file that they go to; kept for their memory.
    files: Vec<Lines>,
    last_error: Option<String>,
}

/// Lines for one file.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    text: Vec<u8>,
    /// Where each record's line ends in `text`.
    ends: Vec<usize>,
    /// The records' places in the batch.
    records: Vec<usize>,
}

/// Memory for lines that is kept from one batch to the next.
const KEPT_BYTES: usize = 8 << 20;

impl TelemetryExporter for JsonLines {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("file", env!("CARGO_PKG_VERSION"))
        .description("Writes records as JSON lines to a file, with rotation")
        .license("MIT OR Apache-2.0")
        .batch(1000, 5 * 1024 * 1024, Duration::from_millis(500));

    async fn init(config: Config, _: Host) -> Result<Self, InitError> {
        let mut logs = Logs::new(config)?;
        let last_error = match logs.open(SystemTime::now()) {
            Ok(()) => None,
            Err(error) if is_temporary(&error) => {
                warn!(%error, "the file cannot be opened yet");
                Some(error.to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(InitError::invalid_config(format!("path: {error}")));
            }
            Err(error) => return Err(InitError::failed(format!("cannot open {error}"))),
        };
        Ok(Self { state: Mutex::new(State { logs, files: Vec::new(), last_error }) })
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let state = &mut *self.state();
        state.gather(batch);
        let outcome = state.write(batch);
        state.last_error = outcome.as_ref().err().map(ToString::to_string);
        state.files.truncate(1);
        state.files.iter_mut().for_each(|lines| lines.text.shrink_to(KEPT_BYTES));
        outcome
    }

    async fn health(&self) -> Health {
        let state = self.state();
        let failure = state.last_error.clone().or_else(|| state.logs.sync_failure());
        failure.map_or(Health::Healthy, Health::Unhealthy)
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        Ok(self.state().logs.sync()?)
    }
}

impl JsonLines {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sorts the batch's lines by the file that they go to.
    fn gather(&mut self, batch: Batch<'_>) {
        self.files.iter_mut().for_each(Lines::clear);
        let single = self.logs.pattern().single();
        for record in batch.iter() {
            let path = match (&single, record.fields()) {
                (Some(path), _) => path.clone(),
                (None, Ok(fields)) => self.logs.pattern().path(&fields),
                (None, Err(error)) => {
                    record.reject(&error.to_string());
                    continue;
                }
            };
            self.lines(path).add(record);
        }
    }

    fn lines(&mut self, path: PathBuf) -> &mut Lines {
        let of_path = |lines: &Lines| lines.records.is_empty() || lines.path == path;
        let place = self.files.iter().position(of_path).unwrap_or_else(|| {
            self.files.push(Lines {
                path: PathBuf::new(),
                text: Vec::new(),
                ends: Vec::new(),
                records: Vec::new(),
            });
            self.files.len() - 1
        });
        let lines = &mut self.files[place];
        lines.path = path;
        lines
    }

    /// Writes them, file by file. What cannot be written to one does not hold up the others.
    fn write(&mut self, batch: Batch<'_>) -> Result<(), ExportError> {
        let mut error = None;
        let mut written = Vec::with_capacity(self.files.len());
        for lines in self.files.iter().filter(|lines| !lines.records.is_empty()) {
            let appended = append(&mut self.logs, lines);
            error = error.or_else(|| appended.error.as_ref().map(|error| failure(&lines.path, error)));
            written.push(appended.bytes);
        }
        let Some(error) = error else { return Ok(()) };
        let files = self.files.iter().filter(|lines| !lines.records.is_empty());
        files.zip(written).for_each(|(lines, bytes)| lines.judge(batch, bytes));
        Err(ExportError::retry(error))
    }
}

/// Appends the lines, in as many pieces as it takes for none to be larger than a file may be. The first that fails is the
/// last.
fn append(logs: &mut Logs, lines: &Lines) -> Appended {
    let mut whole = Appended { bytes: 0, error: None, is_torn: false };
    for end in cuts(&lines.ends, logs.max_bytes()) {
        let piece = logs.append(&lines.path, &lines.text[whole.bytes..end], SystemTime::now());
        whole = Appended { bytes: whole.bytes + piece.bytes, ..piece };
        if whole.error.is_some() {
            break;
        }
    }
    whole
}

fn failure(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("the disk of {} is full", path.display())
        }
        io::ErrorKind::FileTooLarge => {
            format!("{} may not grow further: {error} (`ulimit -f`)", path.display())
        }
        _ => format!("cannot write to {}: {error}", path.display()),
    }
}

impl Lines {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.records.clear();
    }

    /// Adds the record's line; one that cannot be written is rejected and adds nothing.
    fn add(&mut self, record: Record<'_>) {
        let start = self.text.len();
        match record.to_otel_log().write_to(&mut self.text) {
            Ok(()) => self.text.push(b'\n'),
            Err(error) => {
                self.text.truncate(start);
                return record.reject(&error.to_string());
            }
        }
        self.ends.push(self.text.len());
        self.records.push(record.index());
    }

    /// Tells which records are delivered, from the number of bytes that are in the file.
    fn judge(&self, batch: Batch<'_>, bytes: usize) {
        let written = self.ends.iter().zip(&self.records).filter(|(end, _)| **end <= bytes);
        written.for_each(|(_, record)| batch.delivered(*record));
    }
}

/// Where pieces of at most `max_bytes` end; 0 is no limit. A line that is larger goes alone.
fn cuts(ends: &[usize], max_bytes: u64) -> Vec<usize> {
    let limit = if max_bytes == 0 { usize::MAX } else { usize::try_from(max_bytes).unwrap_or(usize::MAX) };
    let (mut cuts, mut start, mut last) = (Vec::new(), 0, 0);
    for &end in ends {
        if end - start > limit && last > start {
            cuts.push(last);
            start = last;
        }
        last = end;
    }
    if last > start {
        cuts.push(last);
    }
    cuts
}

/// Failures that may be over by the next batch.
fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WouldBlock};
    matches!(error.kind(), WouldBlock | StorageFull | QuotaExceeded | FileTooLarge)
}

export_plugin!(JsonLines);

#[cfg(test)]
mod tests;
