//! Exporter `otlp`: logs, GenAI spans and metrics to whatever speaks the OpenTelemetry protocol.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`names`] | the name table, with its convention's version |
//! | [`facts`] | what is read from a record |
//! | [`encode`], [`conversation`] | a record as a log record and as a span |
//! | [`metrics`] | series and their data points |
//! | [`request`] | records into requests of bounded size |
//! | [`wire`] | the protobuf wire format |
//! | [`answer`] | what a receiver's answer means for the records |
//! | [`transport`] | HTTP and gRPC |
//! | [`export`] | one call: which records lack which signals, and what becomes of them |
//! | [`counters`] | what the gateway's books cannot show |
//!
//! Invariants: no request is larger than `max_request_size`; a signal of a record that was taken is not sent again
//! when another one failed; a record is counted in the metrics after its log and its span were taken, and once.

#![forbid(unsafe_code)]

pub mod answer;
pub mod config;
pub mod conversation;
pub mod counters;
pub mod encode;
pub mod export;
pub mod facts;
pub mod metrics;
pub mod names;
pub mod request;
pub mod transport;
pub mod wire;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use exporter_kit::{progress::Progress, pulse::Pulse};
use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter, export_plugin};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    config::{Config, LogBody, Signal},
    counters::{Counters, Seldom},
    export::Export,
    metrics::Metrics,
    request::Origin,
    transport::Transport,
};

/// The exporter.
#[derive(Debug)]
pub struct Otlp {
    signals: Vec<Signal>,
    max_request_bytes: usize,
    body: LogBody,
    captures_content: bool,
    origin: Origin,
    transport: Transport,
    /// Held while metrics are sent: cumulative points arrive in order.
    metrics: Mutex<Metrics>,
    /// Copies for a scrape, which cannot wait.
    series: AtomicU64,
    overflowed: AtomicU64,
    progress: Progress,
    counters: Counters,
    warnings: Seldom,
    pulse: Pulse,
}

/// Records under retry whose signals are remembered.
const PROGRESS: usize = 65_536;
/// Longest wait for the first sign of life.
const PROBE: Duration = Duration::from_secs(2);

impl TelemetryExporter for Otlp {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("otlp", env!("CARGO_PKG_VERSION"))
        .description("Sends logs, GenAI spans and metrics over OTLP")
        .license("MIT OR Apache-2.0")
        .batch(500, 3 * 1024 * 1024, Duration::from_secs(1))
        .background_tasks()
        .concurrent();

    async fn init(config: Config, host: Host) -> Result<Self, InitError> {
        let mut signals = config.signals.clone();
        signals.sort_unstable();
        signals.dedup();
        if signals.is_empty() {
            return Err(InitError::invalid_config("signals: name at least one of logs, traces and metrics"));
        }
        let exporter = Self {
            signals,
            max_request_bytes: config.max_request_size.as_usize(),
            body: config.body,
            captures_content: config.capture_content,
            origin: origin(&config, &host)?,
            transport: Transport::new(&host, &config)?,
            metrics: Mutex::new(Metrics::new(config.temporality, config.max_series, now())),
            series: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            progress: Progress::new(PROGRESS),
            counters: Counters::default(),
            warnings: Seldom::default(),
            pulse: Pulse::default(),
        };
        exporter.probe().await;
        Ok(exporter)
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.pulse.note(Export::new(self, batch).run().await)
    }

    async fn health(&self) -> Health {
        self.pulse.health()
    }

    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        let series = usize::try_from(self.series.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        self.counters.write(out, series, self.overflowed.load(Ordering::Relaxed))
    }
}

impl Otlp {
    /// An empty request, which a receiver takes: whether it is there, and likes the headers.
    async fn probe(&self) {
        let Some(signal) = self.signals.first().copied() else { return };
        let outcome = self.transport.send(signal, Vec::new(), PROBE).await.map(|_| ());
        if let Err(error) = self.pulse.note(outcome) {
            warn!(%error, "the receiver does not answer as it should; records wait and are tried again");
        }
    }

    /// Takes note of a request that was taken but for some records. Which ones is not said, and the protocol forbids to
    /// send it again.
    fn partly_taken(&self, signal: Signal, rejected: u64, message: &str) {
        self.counters.rejected(signal, rejected);
        if (rejected > 0 || !message.is_empty()) && self.warnings.is_due() {
            let target = self.transport.target(signal);
            let signal = signal.name();
            warn!(
                signal,
                rejected,
                message,
                "{target} took a request with reservations; otlp_exporter_partial_success_rejected_total counts on"
            );
        }
    }
}

fn origin(config: &Config, host: &Host) -> Result<Origin, InitError> {
    let mut attributes = config.resource_attributes.0.clone();
    if let Some(name) = config.service_name.as_ref().filter(|name| !name.is_empty()) {
        attributes.insert("service.name".to_owned(), name.clone());
    }
    attributes.entry(names::INSTANCE_ID.to_owned()).or_insert_with(random_uuid);
    let size: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > config.max_request_size.as_usize() / 8 {
        return Err(InitError::invalid_config(
            "resource_attributes: they are larger than an eighth of max_request_size",
        ));
    }
    Ok(Origin::new(host.gateway_version(), &attributes))
}

/// A UUID of version 4. The standard library's hash keys are random, which is all that an instance's name needs.
fn random_uuid() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random() & !0xf000 | 0x4000, random() & !(0xc << 60) | 0x8 << 60);
    let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
    format!("{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    facts::since_1970(SystemTime::now()).unwrap_or_default()
}

export_plugin!(Otlp);

#[cfg(test)]
mod tests;
