//! Exporter `datadog`: logs, metrics and LLM Observability spans in Datadog.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings, and the sites' addresses |
//! | [`identity`], [`tag`] | who sends, and its tags as Datadog takes them |
//! | [`logs`] | records as log entries |
//! | [`metrics`] | records as distributions |
//! | [`spans`] | records as spans of LLM Observability |
//! | [`messages`], [`tools`], [`parameters`] | what stands in their bodies |
//! | [`age`] | how old a record may be |
//! | [`export`] | one batch: what is sent in which order, and what becomes of the records |
//! | [`intake`] | requests to Datadog, and what its answers mean |
//!
//! Invariants: no entry is cut by Datadog, and no request is over its limits; what Datadog would drop without a word is
//! rejected with a reason; a log that was accepted is not sent again because a metric failed; a metric is never counted
//! twice.

#![forbid(unsafe_code)]

pub mod age;
pub mod config;
pub mod export;
pub mod identity;
pub mod intake;
pub mod logs;
pub mod messages;
pub mod metrics;
pub mod parameters;
pub mod spans;
pub mod tag;
pub mod tools;

use std::time::Duration;

use exporter_kit::{model::BoundedModels, progress::Progress, pulse::Pulse};
use plugin_api::{
    Batch, ContentNeed, Descriptor, ExportError, HardLimits, Health, Host, InitError, TelemetryExporter,
    export_plugin,
};
use tracing::warn;

use crate::{config::Config, export::Export, identity::Identity, intake::Intake};

/// The exporter.
#[derive(Debug)]
pub struct Datadog {
    intake: Intake,
    who: Identity,
    signals: Signals,
    /// What Datadog has of records that it has not all of.
    progress: Progress,
    models: BoundedModels,
    pulse: Pulse,
}

/// What is sent of each record.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Whether as a log.
    pub logs: bool,
    /// Whether as metrics.
    pub metrics: bool,
    /// Whether as a span.
    pub spans: bool,
    /// First part of metrics' names.
    pub metric_prefix: String,
    /// `ml_app` of spans, where it is not the service.
    pub ml_app: Option<String>,
}

/// A record's parts beyond this lose their bodies in the gateway, in its order. The rest up to Datadog's 1 MB is for
/// what the entry has beside them.
const MAX_RECORD: u64 = 900_000;

impl TelemetryExporter for Datadog {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("datadog", env!("CARGO_PKG_VERSION"))
        .description("Sends logs, metrics and LLM Observability spans to Datadog")
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
        config.check_signals()?;
        let datadog = Self {
            intake: Intake::new(&host, &config, key)?,
            who: Identity::new(&config)?,
            signals: Signals {
                logs: config.logs,
                metrics: config.metrics,
                spans: config.llm_observability,
                metric_prefix: config.metric_prefix,
                ml_app: config.ml_app.filter(|name| !name.trim().is_empty()),
            },
            progress: Progress::default(),
            models: BoundedModels::new(config.max_models),
            pulse: Pulse::default(),
        };
        if let Err(reason) = datadog.intake.validate().await {
            warn!(reason, "Datadog cannot be used yet");
        }
        Ok(datadog)
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.pulse.note(Export::new(self, batch).run().await)
    }

    async fn health(&self) -> Health {
        match self.pulse.health() {
            Health::Unhealthy(reason) => Health::Unhealthy(reason),
            _ => self.intake.validate().await.map_or_else(Health::Unhealthy, |()| Health::Healthy),
        }
    }
}

export_plugin!(Datadog);

#[cfg(test)]
mod tests;
