//! Exporter `newrelic`: logs and metrics in New Relic.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings, and the regions' addresses |
//! | [`text`] | text in attributes of limited length |
//! | [`logs`] | records as log entries |
//! | [`metrics`] | records as counts and summaries |
//! | [`export`] | one batch: what is sent in which order, and what becomes of the records |
//! | [`intake`] | requests to New Relic, and what its answers mean |
//!
//! New Relic answers 202 before it looks, and drops what is over a limit without a word. Invariants: no request, entry,
//! attribute or data point is over one; what would be dropped for its age is rejected with a reason; a log that was
//! accepted is not sent again because a metric failed; a metric is never counted twice.

#![forbid(unsafe_code)]

pub mod config;
pub mod export;
pub mod intake;
pub mod logs;
pub mod metrics;
pub mod text;

use std::time::Duration;

use exporter_kit::{model::BoundedModels, progress::Progress, pulse::Pulse, record_tags::RecordTag};
use plugin_api::{
    Batch, ContentNeed, Descriptor, ExportError, HardLimits, Health, Host, InitError, TelemetryExporter,
    export_plugin,
};
use tracing::warn;

use crate::{
    config::{Bodies, Config},
    export::Export,
    intake::Intake,
};

/// The exporter.
#[derive(Debug)]
pub struct NewRelic {
    intake: Intake,
    signals: Signals,
    /// What New Relic has of records that it has not all of.
    progress: Progress,
    models: BoundedModels,
    pulse: Pulse,
}

/// What is sent of each record.
#[derive(Debug)]
pub struct Signals {
    /// Whether as a log.
    pub logs: bool,
    /// Whether as metrics.
    pub metrics: bool,
    /// What becomes of the bodies.
    pub bodies: Bodies,
    /// First part of metrics' names.
    pub metric_prefix: String,
    /// Attributes of everything, as a JSON object.
    pub common: String,
    /// Attributes that show what a record says.
    pub record_tags: Vec<RecordTag>,
}

/// A record's parts beyond this lose their bodies in the gateway, in its order: chunks of a stream first. Two bodies of
/// so many bytes together fit into the [pieces](logs::MAX_PIECES) of an entry, and about into its bytes.
const MAX_RECORD: u64 = (logs::MAX_PIECES * text::MAX_CHARS) as u64 / 100_000 * 100_000 - 10_000;

impl TelemetryExporter for NewRelic {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("newrelic", env!("CARGO_PKG_VERSION"))
        .description("Sends logs and metrics to New Relic")
        .license("MIT OR Apache-2.0")
        .batch(500, 4 << 20, Duration::from_secs(1))
        .limits(HardLimits::NONE.record_bytes(MAX_RECORD))
        .concurrent()
        .background_tasks();

    fn content(config: &Config) -> ContentNeed {
        config.needed()
    }

    async fn init(config: Config, host: Host) -> Result<Self, InitError> {
        let key = config.key()?;
        config.check()?;
        if let Some(doubt) = config.doubt(&key) {
            warn!(doubt, "the license key looks wrong");
        }
        let newrelic = Self {
            intake: Intake::new(&host, &config, key)?,
            signals: Signals {
                logs: config.logs,
                metrics: config.metrics,
                bodies: config.bodies,
                common: config.common_attributes(),
                record_tags: config.record_tags()?,
                metric_prefix: config.metric_prefix,
            },
            progress: Progress::default(),
            models: BoundedModels::new(config.max_models),
            pulse: Pulse::default(),
        };
        if let Err(reason) = newrelic.intake.check().await {
            warn!(reason, "New Relic cannot be used yet");
        }
        Ok(newrelic)
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.pulse.note(Export::new(self, batch).run().await)
    }

    async fn health(&self) -> Health {
        match self.pulse.health() {
            Health::Unknown => self.intake.check().await.map_or_else(Health::Unhealthy, |()| Health::Healthy),
            known => known,
        }
    }
}

export_plugin!(NewRelic);

#[cfg(test)]
mod tests;
