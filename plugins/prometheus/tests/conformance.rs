//! The conformance suite over the Prometheus exporter: its backend is what a scrape shows.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exporter_testkit::{
    conformance::{Backend, Behaviour, Unsupported},
    conformance_tests,
};
use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter};
use prometheus_exporter::{Prometheus, config::Config};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Instances by number: a scrape goes to the instance, and the suite's backend has only the settings in common with it.
static INSTANCES: Mutex<Vec<Option<Arc<Prometheus>>>> = Mutex::new(Vec::new());

fn instances() -> MutexGuard<'static, Vec<Option<Arc<Prometheus>>>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The exporter, where the test can scrape it.
struct Scraped(Arc<Prometheus>);

#[derive(Deserialize, JsonSchema)]
struct Settings {
    number: usize,
    exporter: Config,
}

impl TelemetryExporter for Scraped {
    type Config = Settings;
    const DESCRIPTOR: Descriptor = Prometheus::DESCRIPTOR;

    async fn init(settings: Settings, host: Host) -> Result<Self, InitError> {
        let exporter = Arc::new(Prometheus::init(settings.exporter, host).await?);
        instances()[settings.number] = Some(Arc::clone(&exporter));
        Ok(Self(exporter))
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.0.export(batch).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}

/// A counter with a label for each record's id.
struct Scrape {
    number: usize,
}

impl Scrape {
    fn start() -> Self {
        let mut instances = instances();
        instances.push(None);
        Self { number: instances.len() - 1 }
    }
}

impl Backend for Scrape {
    fn config(&self) -> String {
        let counter =
            json!({ "name": "seen", "kind": "counter", "help": "Records by id", "labels": { "id": "id" } });
        let exporter =
            json!({ "prefix": "x_", "max_label_values": 10_000, "max_series": 20_000, "metrics": [counter] });
        json!({ "number": self.number, "exporter": exporter }).to_string()
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        match behaviour {
            Behaviour::Accept => Ok(()),
            _ => Err(Unsupported("the exporter counts in its own memory, which takes every record at once")),
        }
    }

    fn holds(&mut self) -> Vec<String> {
        let Some(exporter) = instances()[self.number].clone() else { return Vec::new() };
        let mut text = Vec::new();
        exporter.scrape(&mut text).unwrap();
        String::from_utf8(text).unwrap().lines().flat_map(copies).collect()
    }

    fn deduplicates(&self) -> bool {
        false
    }
}

/// `x_seen_total{id="…"} 2` is two copies.
fn copies(line: &str) -> Vec<String> {
    let parts = line.strip_prefix("x_seen_total{id=\"").and_then(|rest| rest.split_once("\"} "));
    parts.map_or_else(Vec::new, |(id, count)| vec![id.to_owned(); count.parse().unwrap()])
}

conformance_tests!(Scraped, Scrape::start);
