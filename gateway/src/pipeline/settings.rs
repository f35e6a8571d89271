//! How an exporter is fed: the operator's settings over the plugin's defaults, the backend's limits over both.

use plugin_api::Description;
use tokio::time::Instant;
use tracing::error;

use super::{
    backoff,
    breaker::{self, Breaker},
    config,
    dead_letter::{self, DeadLetters},
    exporter::{Exporter, Settings},
    observer::{Instruments, Observer},
    outlet::Outlet,
    queue::{BatchLimits, Capacity, OnFull, Queue},
    rate::RateLimit,
};
use crate::{loader::Plugin, settings::ByteSize};

pub(super) fn exporter(
    plugin: Plugin,
    entry: &config::Plugin,
    instruments: &Instruments,
    outlet: Outlet,
) -> Exporter {
    let settings = settings(plugin.description(), entry);
    let capacity = Capacity { records: entry.queue.max_records, bytes: entry.queue.max_bytes.bytes() };
    let queue = Queue::new(capacity, on_full(entry.queue.on_full), settings.batch);
    let breaker = Breaker::new(breaker::Settings {
        failures: entry.circuit_breaker.failures,
        cool_down: entry.circuit_breaker.cool_down,
        max_cool_down: entry.circuit_breaker.max_cool_down,
    });
    let limit = &entry.rate_limit;
    let rate = RateLimit::new(limit.records_per_second, limit.requests_per_second, Instant::now());
    let observer = Observer::new(instruments.clone(), &entry.name);
    Exporter::new(plugin, settings, queue, breaker, rate, observer, outlet)
}

/// The entry's dead letters, if it wants any.
pub(super) fn dead_letters(entry: &config::Plugin) -> Outlet {
    let Some(path) = &entry.dead_letter else { return Outlet::None };
    let settings = dead_letter::Settings {
        path: path.clone(),
        max_bytes: entry.dead_letter_max_bytes.bytes(),
        keep: entry.dead_letter_keep,
        // What waits for the disk is bounded as what waits for the backend is.
        pending_bytes: entry.queue.max_bytes.bytes(),
    };
    match DeadLetters::start(&entry.name.as_str().into(), &settings) {
        Ok(letters) => Outlet::DeadLetters(letters),
        Err(error) => {
            error!(plugin = entry.name, "goes without dead letters: no thread for them: {error}");
            Outlet::None
        }
    }
}

fn settings(plugin: &Description, entry: &config::Plugin) -> Settings {
    let batch = batch(plugin, entry);
    let limits = &plugin.limits;
    Settings {
        content: entry.content.min(plugin.content),
        batch,
        max_record_bytes: limits
            .max_record_bytes
            .unwrap_or(u64::MAX)
            .min(limits.max_bytes.unwrap_or(u64::MAX))
            .min(entry.queue.max_bytes.bytes()),
        retry: backoff::Settings {
            initial: entry.retry.initial,
            max: entry.retry.max,
            max_elapsed: entry.retry.max_elapsed,
        },
        call_timeout: entry.call_timeout,
        max_panics: entry.max_panics,
        workers: if plugin.concurrent { entry.workers.max(1) } else { 1 },
    }
}

/// A batch never asks for more than the queue can hold: it would never be full, only late.
fn batch(plugin: &Description, entry: &config::Plugin) -> BatchLimits {
    let (defaults, limits) = (&plugin.batch, &plugin.limits);
    let records = entry.batch.max_records.unwrap_or(defaults.max_records as usize);
    let bytes = entry.batch.max_bytes.map_or(defaults.max_bytes, ByteSize::bytes);
    BatchLimits {
        max_records: records
            .min(limits.max_records.map_or(usize::MAX, |records| records as usize))
            .min(entry.queue.max_records)
            .max(1),
        max_bytes: bytes.min(limits.max_bytes.unwrap_or(u64::MAX)).min(entry.queue.max_bytes.bytes()),
        max_delay: entry.batch.max_delay.unwrap_or(defaults.max_delay),
    }
}

fn on_full(on_full: config::OnFull) -> OnFull {
    match on_full {
        config::OnFull::DropOldest => OnFull::DropOldest,
        config::OnFull::DropNewest => OnFull::DropNewest,
        config::OnFull::Shed => OnFull::Shed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugin_api::Content;

    use super::*;

    fn description(extra: &serde_json::Value) -> Description {
        let mut value = serde_json::json!({
            "name": "x", "version": "1", "api_version": "1.0.0", "content": "metadata",
            "batch": { "max_records": 500, "max_bytes": 1000, "max_delay_ms": 1000 }, "config_schema": {},
        });
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_operator_overrides_the_plugin_and_the_backend_caps_both() {
        let mut entry = config::Plugin::new("x", "x.so");
        let plugin = description(&serde_json::json!({ "limits": { "max_records": 100 } }));
        let defaults = settings(&plugin, &entry);
        assert_eq!(defaults.batch.max_records, 100);
        assert_eq!(defaults.batch.max_bytes, 1000);
        assert_eq!(defaults.batch.max_delay, Duration::from_secs(1));
        entry.batch.max_records = Some(10);
        entry.batch.max_delay = Some(Duration::from_millis(5));
        let set = settings(&plugin, &entry);
        assert_eq!(set.batch.max_records, 10);
        assert_eq!(set.batch.max_delay, Duration::from_millis(5));
    }

    #[test]
    fn an_exporter_sees_no_more_than_it_needs_and_no_more_than_it_may() {
        let mut entry = config::Plugin::new("x", "x.so");
        assert_eq!(settings(&description(&serde_json::json!({})), &entry).content, Content::Metadata);
        entry.content = Content::None;
        let full = description(&serde_json::json!({ "content": "full" }));
        assert_eq!(settings(&full, &entry).content, Content::None);
    }

    #[test]
    fn several_workers_only_where_the_plugin_allows_it() {
        let mut entry = config::Plugin::new("x", "x.so");
        entry.workers = 4;
        assert_eq!(settings(&description(&serde_json::json!({})), &entry).workers, 1);
        assert_eq!(settings(&description(&serde_json::json!({ "concurrent": true })), &entry).workers, 4);
    }
}
