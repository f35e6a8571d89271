//! From an exporter's section of the configuration to how it is fed. What the plugin says of itself comes into it in
//! [`Policy::of`].

use exporter_pipeline::{
    BatchSettings, Capacity, CircuitBreaker, OnFull, Policy, RateLimits, Retry, Settings,
};
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
    let content = plugin.content();
    let policy =
        Policy { keep_whole: sink.wants_letters(), ..Policy::of(plugin.description(), settings(entry)) };
    let observer = Observer::new(instruments.clone(), &entry.name);
    Exporter::new(plugin, content, policy, entry.call_timeout, observer, sink)
}

/// Bytes of dead letters that may wait for the disk whatever the queue's size is.
const LEAST_PENDING_BYTES: u64 = 4 << 20;

/// The entry's dead letters, if it wants any.
pub(super) fn dead_letters(entry: &config::Plugin) -> OutcomeSink {
    let Some(path) = &entry.dead_letter else { return OutcomeSink::None };
    let settings = dead_letter::Settings {
        path: path.clone(),
        max_bytes: entry.dead_letter_max_bytes.bytes(),
        keep: entry.dead_letter_keep,
        // What waits for the disk is bounded as what waits for the backend is; but a queue that is too small for its records
        // is a reason for letters.
        pending_bytes: entry.queue.max_bytes.bytes().max(LEAST_PENDING_BYTES),
    };
    match DeadLetters::start(&entry.name.as_str().into(), &settings) {
        Ok(letters) => OutcomeSink::DeadLetters(letters),
        Err(error) => {
            error!(plugin = entry.name, "goes without dead letters: no thread for them: {error}");
            OutcomeSink::None
        }
    }
}

fn settings(entry: &config::Plugin) -> Settings {
    Settings {
        capacity: Capacity { records: entry.queue.max_records, bytes: entry.queue.max_bytes.bytes() },
        on_full: on_full(entry.queue.on_full),
        batch: BatchSettings {
            max_records: entry.batch.max_records,
            max_bytes: entry.batch.max_bytes.map(ByteSize::bytes),
            max_delay: entry.batch.max_delay,
        },
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
        workers: entry.workers,
    }
}

fn on_full(on_full: config::OnFull) -> OnFull {
    match on_full {
        config::OnFull::DropOldest => OnFull::DropOldest,
        config::OnFull::DropNewest => OnFull::DropNewest,
        config::OnFull::Shed => OnFull::Shed,
    }
}
