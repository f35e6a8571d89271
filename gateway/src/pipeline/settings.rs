//! How an exporter is fed: the operator's settings over the plugin's defaults, the backend's limits over both.

use exporter_pipeline::{BatchLimits, Capacity, CircuitBreaker, OnFull, Policy, RateLimits, Retry};
use plugin_api::Description;
use tracing::error;

use super::{
    config,
    dead_letter::{self, DeadLetters},
    exporter::Exporter,
    observer::{Instruments, Observer},
    outcome_sink::OutcomeSink,
};
use crate::{loader::Plugin, settings::ByteSize};

pub(super) fn exporter(
    plugin: Plugin,
    entry: &config::Plugin,
    instruments: &Instruments,
    sink: OutcomeSink,
) -> Exporter {
    let content = entry.content.min(plugin.description().content);
    let policy = Policy { keep_whole: sink.wants_letters(), ..policy(plugin.description(), entry) };
    let observer = Observer::new(instruments.clone(), &entry.name);
    Exporter::new(plugin, content, policy, entry.call_timeout, observer, sink)
}

/// The entry's dead letters, if it wants any.
pub(super) fn dead_letters(entry: &config::Plugin) -> OutcomeSink {
    let Some(path) = &entry.dead_letter else { return OutcomeSink::None };
    let settings = dead_letter::Settings {
        path: path.clone(),
        max_bytes: entry.dead_letter_max_bytes.bytes(),
        keep: entry.dead_letter_keep,
        // What waits for the disk is bounded as what waits for the backend is.
        pending_bytes: entry.queue.max_bytes.bytes(),
    };
    match DeadLetters::start(&entry.name.as_str().into(), &settings) {
        Ok(letters) => OutcomeSink::DeadLetters(letters),
        Err(error) => {
            error!(plugin = entry.name, "goes without dead letters: no thread for them: {error}");
            OutcomeSink::None
        }
    }
}

fn policy(plugin: &Description, entry: &config::Plugin) -> Policy {
    let limits = &plugin.limits;
    Policy {
        capacity: Capacity { records: entry.queue.max_records, bytes: entry.queue.max_bytes.bytes() },
        on_full: on_full(entry.queue.on_full),
        max_record_bytes: limits
            .max_record_bytes
            .unwrap_or(u64::MAX)
            .min(limits.max_bytes.unwrap_or(u64::MAX)),
        batch: batch(plugin, entry),
        retry: Retry {
            initial: entry.retry.initial,
            max: entry.retry.max,
            max_elapsed: entry.retry.max_elapsed,
            max_pause: entry.retry.max_pause,
        },
        breaker: CircuitBreaker {
            failures: entry.circuit_breaker.failures,
            cool_down: entry.circuit_breaker.cool_down,
            max_cool_down: entry.circuit_breaker.max_cool_down,
        },
        rate: RateLimits {
            records_per_second: entry.rate_limit.records_per_second,
            requests_per_second: entry.rate_limit.requests_per_second,
        },
        max_panics: entry.max_panics,
        workers: if plugin.concurrent { entry.workers.max(1) } else { 1 },
        keep_whole: false,
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
        let defaults = policy(&plugin, &entry);
        assert_eq!(defaults.batch.max_records, 100);
        assert_eq!(defaults.batch.max_bytes, 1000);
        assert_eq!(defaults.batch.max_delay, Duration::from_secs(1));
        entry.batch.max_records = Some(10);
        entry.batch.max_delay = Some(Duration::from_millis(5));
        let set = policy(&plugin, &entry);
        assert_eq!(set.batch.max_records, 10);
        assert_eq!(set.batch.max_delay, Duration::from_millis(5));
    }

    #[test]
    fn the_backends_hard_limit_bounds_a_record() {
        let entry = config::Plugin::new("x", "x.so");
        let limits = serde_json::json!({ "limits": { "max_bytes": 900, "max_record_bytes": 1_000 } });
        assert_eq!(policy(&description(&limits), &entry).max_record_bytes, 900);
        assert_eq!(policy(&description(&serde_json::json!({})), &entry).max_record_bytes, u64::MAX);
    }

    #[test]
    fn several_workers_only_where_the_plugin_allows_it() {
        let mut entry = config::Plugin::new("x", "x.so");
        entry.workers = 4;
        assert_eq!(policy(&description(&serde_json::json!({})), &entry).workers, 1);
        assert_eq!(policy(&description(&serde_json::json!({ "concurrent": true })), &entry).workers, 4);
    }
}
