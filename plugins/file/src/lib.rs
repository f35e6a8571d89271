//! Exporter `file`: every record as one line of JSON, the OpenTelemetry log form with the bodies.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`log`] | the file: opened, locked, written to, rotated, reopened |
//! | [`append`] | whole lines or none |
//! | [`repair`] | a last line that was torn by a crash |
//! | [`rotation`] | rotated files: names, how many, compression |
//! | [`background`] | fsync at intervals, compression |
//!
//! Invariants: the file holds whole lines alone; a line that was reported as delivered is in it; no retry writes a
//! line that is there already.

#![forbid(unsafe_code)]

pub mod append;
pub mod background;
pub mod config;
pub mod log;
pub mod repair;
pub mod rotation;

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use plugin_api::{
    Batch, Descriptor, ExportError, Health, Host, InitError, Record, TelemetryExporter, export_plugin,
};
use tracing::warn;

use crate::{append::Appended, config::Config, log::Log};

/// The exporter.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Lines of the batch under way, kept for its memory.
    lines: Vec<u8>,
    /// Where each record's line ends in `lines`.
    ends: Vec<usize>,
    last_error: Option<String>,
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
        let path = config.path.clone();
        if path.file_name().is_none() {
            return Err(InitError::invalid_config(format!("path: `{}` names no file", path.display())));
        }
        let mut log = Log::new(config);
        let last_error = match log.open(SystemTime::now()) {
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
        let state = State { log, lines: Vec::new(), ends: Vec::new(), last_error };
        Ok(Self { path, state: Mutex::new(state) })
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let state = &mut *self.state();
        state.lines.clear();
        state.ends.clear();
        for record in batch.iter() {
            add_line(&mut state.lines, record);
            state.ends.push(state.lines.len());
        }
        let appended = state.append();
        let outcome = self.judge(batch, &state.ends, &appended);
        state.last_error = outcome.as_ref().err().map(ToString::to_string);
        state.lines.shrink_to(KEPT_BYTES);
        outcome
    }

    async fn health(&self) -> Health {
        let state = self.state();
        let failure = state.last_error.clone().or_else(|| state.log.sync_failure());
        failure.map_or(Health::Healthy, Health::Unhealthy)
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        Ok(self.state().log.sync()?)
    }
}

impl JsonLines {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells each record's fate from the number of bytes that are in the file.
    fn judge(&self, batch: Batch<'_>, ends: &[usize], appended: &Appended) -> Result<(), ExportError> {
        let Some(error) = &appended.error else { return Ok(()) };
        let mut start = 0;
        for (index, end) in ends.iter().copied().enumerate() {
            if end > start && end <= appended.bytes {
                batch.delivered(index);
            }
            start = end;
        }
        Err(ExportError::retry(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("the disk of {} is full", self.path.display())
            }
            io::ErrorKind::FileTooLarge => {
                format!("{} may not grow further: {error} (`ulimit -f`)", self.path.display())
            }
            _ => format!("cannot write to {}: {error}", self.path.display()),
        }))
    }
}

impl State {
    /// Appends the lines, in as many pieces as it takes for none to be larger than a file may be. The first that fails
    /// is the last.
    fn append(&mut self) -> Appended {
        let mut whole = Appended { bytes: 0, error: None, is_torn: false };
        for end in cuts(&self.ends, self.log.max_bytes()) {
            let piece = self.log.append(&self.lines[whole.bytes..end], SystemTime::now());
            whole = Appended { bytes: whole.bytes + piece.bytes, ..piece };
            if whole.error.is_some() {
                break;
            }
        }
        whole
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

/// Adds the record's line; one that cannot be written is rejected and adds nothing.
fn add_line(lines: &mut Vec<u8>, record: Record<'_>) {
    let start = lines.len();
    match record.to_otel_log().write_to(lines) {
        Ok(()) => lines.push(b'\n'),
        Err(error) => {
            lines.truncate(start);
            record.reject(&error.to_string());
        }
    }
}

/// Failures that may be over by the next batch.
fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull, WouldBlock};
    matches!(error.kind(), WouldBlock | StorageFull | QuotaExceeded | FileTooLarge)
}

export_plugin!(JsonLines);

#[cfg(test)]
mod tests;
