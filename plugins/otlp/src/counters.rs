//! What the gateway's books cannot show, for `/metrics` and, now and then, for the log.

use std::{
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::config::Signal;

/// The counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// By signal.
    rejected: [AtomicU64; 3],
    bodies_shed: AtomicU64,
    conversations_shed: AtomicU64,
    metrics_failed: AtomicU64,
}

impl Counters {
    /// The receiver took a request and refused this many records of it.
    pub fn rejected(&self, signal: Signal, records: u64) {
        self.rejected[signal as usize].fetch_add(records, Ordering::Relaxed);
    }

    /// A log record lost its bodies.
    pub fn body_shed(&self) {
        self.bodies_shed.fetch_add(1, Ordering::Relaxed);
    }

    /// A span lost its conversation.
    pub fn conversation_shed(&self) {
        self.conversations_shed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request with metrics was not taken.
    pub fn metrics_failed(&self) {
        self.metrics_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes them in the Prometheus text format.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write, series: u64, overflowed: u64) -> io::Result<()> {
        let name = "otlp_exporter_partial_success_rejected_total";
        head(out, name, "counter", "Records (of metrics: data points) refused in requests that were taken.")?;
        for (signal, rejected) in Signal::ALL.iter().zip(&self.rejected) {
            writeln!(out, "{name}{{signal=\"{}\"}} {}", signal.name(), rejected.load(Ordering::Relaxed))?;
        }
        let name = "otlp_exporter_shed_total";
        head(
            out,
            name,
            "counter",
            "Log records without bodies and spans without conversation, for their size.",
        )?;
        for (what, count) in [("bodies", &self.bodies_shed), ("conversation", &self.conversations_shed)] {
            writeln!(out, "{name}{{what=\"{what}\"}} {}", count.load(Ordering::Relaxed))?;
        }
        let name = "otlp_exporter_metrics_failed_total";
        head(out, name, "counter", "Batches whose metrics were not taken; the next one has them.")?;
        writeln!(out, "{name} {}", self.metrics_failed.load(Ordering::Relaxed))?;
        let name = "otlp_exporter_metric_series";
        head(out, name, "gauge", "Series of metrics held.")?;
        writeln!(out, "{name} {series}")?;
        let name = "otlp_exporter_metric_overflow_total";
        head(out, name, "counter", "Values without a series of their own (max_series).")?;
        writeln!(out, "{name} {overflowed}")
    }
}

fn head(out: &mut dyn Write, name: &str, kind: &str, help: &str) -> io::Result<()> {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// Lets one through in a while.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time again.
    pub fn is_due(&self) -> bool {
        const EVERY: Duration = Duration::from_secs(60);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
