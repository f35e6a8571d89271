//! Exporter `prometheus`: metrics of LLM requests, served at the gateway's `/metrics`.
//!
//! It has no network of its own: the gateway asks for a scrape and serves it beside its own metrics.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`catalogue`] | which metrics there are, built-in and from the settings |
//! | [`label`] | label values, bounded in number and length |
//! | [`metrics`] | from a record to the series it touches |
//! | [`series`] | counters, gauges, histograms |
//! | [`exposition`] | the two text formats |
//!
//! Invariants: what clients send cannot make more series than the settings allow; sums over all series stay right
//! when a bound is reached; a scrape shows whole batches.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod config;
pub mod exposition;
pub mod label;
pub mod metrics;
pub mod series;

use std::{
    io::{self, Write},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use exporter_kit::source::Sources;
use plugin_api::{
    Batch, Content, ContentNeed, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter,
    export_plugin,
};
use tracing::warn;

use crate::{config::Config, exposition::Format, metrics::Metrics};

/// The exporter.
#[derive(Debug)]
pub struct Prometheus {
    prefix: String,
    metrics: Mutex<Metrics>,
    warned: AtomicBool,
}

impl TelemetryExporter for Prometheus {
    type Config = Config;
    // Numbers and labels are all that its own metrics need.
    const DESCRIPTOR: Descriptor = Descriptor::new("prometheus", env!("CARGO_PKG_VERSION"))
        .description("Counts requests, tokens, latencies and errors for Prometheus")
        .license("MIT OR Apache-2.0")
        .content(Content::Metadata)
        .batch(1000, 4 * 1024 * 1024, Duration::from_millis(500));

    fn content(config: &Config) -> ContentNeed {
        config.needed(ContentNeed::new(Content::Metadata))
    }

    async fn init(config: Config, _: Host) -> Result<Self, InitError> {
        let metrics = catalogue::build(&config).map_err(InitError::invalid_config)?;
        Ok(Self { prefix: config.prefix, metrics: Mutex::new(metrics), warned: AtomicBool::new(false) })
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let now = milliseconds_since_1970();
        let metrics = &mut *self.metrics();
        let mut has_bodies = false;
        for record in batch.iter() {
            let fields = match record.fields() {
                Ok(fields) => fields,
                Err(error) => {
                    record.reject(&error.to_string());
                    continue;
                }
            };
            let (request, response) = match metrics.reads_bodies {
                true => (record.request_json(), record.response_json()),
                false => (&[][..], &[][..]),
            };
            has_bodies |= !request.is_empty() || !response.is_empty();
            metrics.record(Sources { fields: &fields, request, response }, now);
        }
        if metrics.reads_bodies && !has_bodies && !self.warned.swap(true, Ordering::Relaxed) {
            warn!("a metric reads a body, but none came: set `content = \"full\"` for this plugin");
        }
        Ok(())
    }

    async fn health(&self) -> Health {
        Health::Healthy
    }

    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out, Format::Text)
    }

    fn scrape_openmetrics(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out, Format::OpenMetrics)
    }
}

impl Prometheus {
    /// Held for a whole batch or a whole scrape, so that a scrape never shows half a record.
    fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, out: &mut dyn Write, format: Format) -> io::Result<()> {
        let text = exposition::write(&self.metrics(), &self.prefix, format);
        out.write_all(text.as_bytes())
    }
}

fn milliseconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

export_plugin!(Prometheus);

#[cfg(test)]
mod tests;
