//! Exporter `otlp`: logs, GenAI spans and metrics to whatever speaks the OpenTelemetry protocol.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`profiles`] | backends that want something of their own |
//! | [`names`] | the name table, a file for each version of the conventions |
//! | [`json`] | bodies, read with indulgence |
//! | [`facts`] | what is read from a record |
//! | [`encode`], [`conversation`] | a record as a log record and as a span |
//! | [`metrics`] | series and their data points |
//! | [`tally`] | the metrics on their way |
//! | [`request`] | records into requests of bounded size |
//! | [`wire`] | the protobuf wire format |
//! | [`answer`] | what a receiver's answer means for the records |
//! | [`otlp_json`] | the same requests as JSON |
//! | [`transport`] | HTTP and gRPC |
//! | [`switches`] | which signals the receiver takes |
//! | [`export`] | one call: which records lack which signals, and what becomes of them |
//! | [`counters`] | what the gateway's books cannot show |
//!
//! Invariants: no request is larger than `max_request_size`; a signal of a record that was taken is not sent again
//! when another one failed; a record is counted in the metrics once, and never waits for them.

#![forbid(unsafe_code)]

pub mod answer;
pub mod config;
pub mod conversation;
pub mod counters;
pub mod encode;
pub mod export;
pub mod facts;
pub mod json;
pub mod metrics;
pub mod names;
pub mod otlp_json;
pub mod profiles;
pub mod request;
pub mod switches;
pub mod tally;
pub mod transport;
pub mod wire;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Write},
    time::{Duration, SystemTime},
};

use exporter_kit::{progress::Progress, pulse::Pulse};
use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter, export_plugin};
use tracing::warn;

use crate::{
    config::{Config, LogBody, Signal, Unsampled},
    counters::{Counters, Seldom},
    export::Export,
    metrics::Metrics,
    request::Origin,
    switches::{Absent, Switches},
    tally::Tally,
    transport::Transport,
};

/// The exporter.
#[derive(Debug)]
pub struct Otlp {
    switches: Switches,
    max_request_bytes: usize,
    body: LogBody,
    captures_content: bool,
    skips_unsampled: bool,
    origin: Origin,
    transport: Transport,
    tally: Tally,
    progress: Progress,
    counters: Counters,
    warnings: Seldom,
    metrics_warnings: Seldom,
    pulse: Pulse,
}

/// Records under retry whose signals are remembered.
const PROGRESS: usize = 65_536;
/// Longest wait for the first sign of life.
const PROBE: Duration = Duration::from_secs(2);
/// Longest wait for the metrics at the end.
const GOODBYE: Duration = Duration::from_secs(2);

impl TelemetryExporter for Otlp {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("otlp", env!("CARGO_PKG_VERSION"))
        .description("Sends logs, GenAI spans and metrics over OTLP")
        .license("MIT OR Apache-2.0")
        .batch(500, 3 * 1024 * 1024, Duration::from_secs(1))
        .background_tasks()
        .concurrent();

    async fn init(config: Config, host: Host) -> Result<Self, InitError> {
        let signals = config.signals();
        if signals.is_empty() {
            return Err(InitError::invalid_config("signals: name at least one of logs, traces and metrics"));
        }
        if let Some(profile) = config.profile() {
            profile.check(&config)?;
        }
        let exporter = Self {
            switches: Switches::new(signals),
            max_request_bytes: config.max_request_size.as_usize(),
            body: config.body,
            captures_content: config.capture_content,
            skips_unsampled: config.unsampled == Unsampled::Skip,
            origin: origin(&config, &host)?,
            transport: Transport::new(&host, &config)?,
            tally: Tally::new(Metrics::new(
                config.conventions(),
                config.temporality,
                config.max_series,
                now(),
            )),
            progress: Progress::new(PROGRESS),
            counters: Counters::default(),
            warnings: Seldom::default(),
            metrics_warnings: Seldom::default(),
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

    /// What metrics a failed request left behind.
    async fn shutdown(&self) -> Result<(), ExportError> {
        if !self.switches.is_on(Signal::Metrics) {
            return Ok(());
        }
        self.tally.send(self, || GOODBYE).await.map_err(|refused| refused.error)
    }

    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        let (series, overflowed) = self.tally.size();
        self.counters.write(out, series, overflowed)
    }
}

impl Otlp {
    /// Empty requests, which a receiver takes: whether it is there, likes the headers, and knows the signals.
    async fn probe(&self) {
        let send = async |signal| {
            let is_on = self.switches.is_on(signal);
            let sent = async || self.transport.send(signal, Vec::new(), PROBE).await.map(|_| ());
            (signal, if is_on { Some(sent().await) } else { None })
        };
        let (logs, traces, metrics) =
            tokio::join!(send(Signal::Logs), send(Signal::Traces), send(Signal::Metrics));
        let answers = [logs, traces, metrics].into_iter().filter_map(|(signal, sent)| Some((signal, sent?)));
        let (known, refused): (Vec<_>, Vec<_>) = answers.partition(|(_, sent)| sent.is_ok());
        known.iter().for_each(|(signal, _)| self.switches.knows(*signal));
        let mut outcome = Ok(());
        for (signal, sent) in refused {
            if let Err(refused) = sent
                && !(refused.is_absent && self.is_off(signal, &refused.error))
            {
                outcome = Err(refused.error);
            }
        }
        if let Err(error) = self.pulse.note(outcome) {
            warn!(%error, "the receiver does not answer as it should; records wait and are tried again");
        }
    }

    /// Whether a signal that has no address at the receiver is off from now on. That is said once.
    fn is_off(&self, signal: Signal, error: &ExportError) -> bool {
        let absent = self.switches.absent(signal);
        if absent == Absent::SwitchedOff {
            let on: Vec<String> = self.switches.on().map(|on| format!("\"{}\"", on.name())).collect();
            let (signal, on) = (signal.name(), on.join(", "));
            warn!(
                %error,
                "the receiver takes no {signal}: they are switched off until the gateway starts again; \
                 signals = [{on}] makes this silent"
            );
        }
        absent != Absent::Wait
    }

    /// Takes note of metrics that failed while logs or spans carry the records.
    fn metrics_failed(&self, error: &ExportError) {
        self.counters.metrics_failed();
        if self.metrics_warnings.is_due() {
            warn!(%error, "metrics were not taken; otlp_exporter_metrics_failed_total counts on");
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
    Ok(Origin::new(config.names(), host.gateway_version(), &attributes))
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
