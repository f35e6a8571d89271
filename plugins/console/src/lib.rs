//! Exporter `console`: one line per request on the gateway's standard output or standard error.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | `line` | a request as a line of text |
//! | [`output`] | the stream, and what became of a write to it |
//!
//! Lines are written whole: one write per batch, and a record counts as delivered when the last byte of its line is
//! out. A reader that has gone (a closed pipe) does not come back, so its records are rejected and counted, not kept.

#![forbid(unsafe_code)]

pub mod config;
pub mod line;
pub mod output;

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use plugin_api::{
    Batch, Descriptor, ExportError, Health, Host, InitError, Record, TelemetryExporter, export_plugin,
};

use crate::{
    config::{Config, Format},
    line::Request,
    output::{Output, Write},
};

/// The exporter.
#[derive(Debug)]
pub struct Console {
    format: Format,
    color: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    output: Output,
    /// Lines of the batch under way, kept for its memory.
    lines: Vec<u8>,
    /// Where each record's line ends in `lines`.
    ends: Vec<usize>,
    /// Half a line was the last that went out: the next write ends it first, so that no record is on it.
    is_torn: bool,
    last_error: Option<String>,
}

impl TelemetryExporter for Console {
    type Config = Config;
    // A terminal is read by a person: lines come within a blink, not once a second.
    const DESCRIPTOR: Descriptor = Descriptor::new("console", env!("CARGO_PKG_VERSION"))
        .description("Writes one readable line per request to the terminal")
        .license("MIT OR Apache-2.0")
        .batch(200, 4 * 1024 * 1024, Duration::from_millis(50));

    async fn init(config: Config, _: Host) -> Result<Self, InitError> {
        let output = Output::of(config.stream)?;
        let color = config.color.is_on(output.is_terminal(), |name| std::env::var(name).ok());
        Ok(Self::on(output, config.format, color))
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lines.clear();
        state.ends.clear();
        if state.is_torn {
            state.lines.push(b'\n');
        }
        let head = state.lines.len();
        for record in batch.iter() {
            let start = state.lines.len();
            if let Err(error) = self.add(&mut state.lines, record) {
                state.lines.truncate(start);
                record.reject(&error.to_string());
            }
            state.ends.push(state.lines.len());
        }
        let written = state.output.write(&state.lines, batch.deadline());
        if let Some(last) = state.lines[..written.bytes].last() {
            state.is_torn = *last != b'\n';
        }
        judge(batch, state, head, written)
    }

    async fn health(&self) -> Health {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_error.clone().map_or(Health::Healthy, Health::Unhealthy)
    }
}

impl Console {
    /// An exporter on any stream, for tests.
    #[must_use]
    pub fn on(output: Output, format: Format, color: bool) -> Self {
        let state = State { output, lines: Vec::new(), ends: Vec::new(), is_torn: false, last_error: None };
        Self { format, color, state: Mutex::new(state) }
    }

    fn add(&self, lines: &mut Vec<u8>, record: Record<'_>) -> io::Result<()> {
        match self.format {
            Format::Text => line::write(lines, &Request::of(&record.fields()?)?, self.color),
            Format::Json => record.to_otel_log().write_to(lines)?,
        }
        lines.push(b'\n');
        Ok(())
    }
}

/// Tells each record's fate from the number of bytes that went out; the first line begins at `head`.
fn judge(batch: Batch<'_>, state: &mut State, head: usize, written: Write) -> Result<(), ExportError> {
    let Some(error) = written.error else {
        state.last_error = None;
        return Ok(());
    };
    let name = state.output.name();
    let mut start = head;
    for (index, end) in state.ends.iter().copied().enumerate() {
        let has_line = end > start;
        start = end;
        if has_line && end <= written.bytes {
            batch.delivered(index);
        } else if has_line && error.kind() == io::ErrorKind::BrokenPipe {
            batch.reject(index, "nobody reads the stream any more");
        }
    }
    let message = match error.kind() {
        io::ErrorKind::BrokenPipe => format!("{name} is closed: its reader has gone"),
        _ => format!("cannot write to {name}: {error}"),
    };
    state.last_error = Some(message.clone());
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(ExportError::retry(message)),
    }
}

export_plugin!(Console);

#[cfg(test)]
mod tests;
