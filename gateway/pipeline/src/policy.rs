//! How one exporter is fed.

use std::time::Duration;

use plugin_api::Description;

use crate::{backoff::Retry, breaker::CircuitBreaker, rate::RateLimits};

/// How one exporter is fed.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What may wait, be parked and be in flight together.
    pub capacity: Capacity,
    /// What gives way when that is not enough.
    pub on_full: OnFull,
    /// Bytes of one record, at most. A larger one is admitted without bodies, or is dropped as `oversize`.
    pub max_record_bytes: u64,
    /// When a batch is complete.
    pub batch: BatchLimits,
    /// How often and how long a record is tried again.
    pub retry: Retry,
    /// When to stop calling.
    pub breaker: CircuitBreaker,
    /// How much may be sent.
    pub rate: RateLimits,
    /// Panics in a row after which the plugin is to be taken out of service.
    pub max_panics: u32,
    /// Batches that may be in flight at once.
    pub workers: usize,
    /// Whether a record that is sent without its bodies is kept whole, to be given back if it is given up.
    pub keep_whole: bool,
}

/// What is set for one exporter, before what its plugin says of itself comes into it.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// As in [`Policy`].
    pub capacity: Capacity,
    /// As in [`Policy`].
    pub on_full: OnFull,
    /// When a batch is complete, where the plugin's own defaults are not wanted.
    pub batch: BatchSettings,
    /// As in [`Policy`].
    pub retry: Retry,
    /// As in [`Policy`].
    pub breaker: CircuitBreaker,
    /// As in [`Policy`].
    pub rate: RateLimits,
    /// As in [`Policy`].
    pub max_panics: u32,
    /// As in [`Policy`], for a plugin that allows more than one.
    pub workers: usize,
}

/// Bounds of a batch as they are set; `None` is the plugin's own default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchSettings {
    /// Records, at most.
    pub max_records: Option<usize>,
    /// Bytes, at most.
    pub max_bytes: Option<u64>,
    /// How long a record may wait for others.
    pub max_delay: Option<Duration>,
}

impl Policy {
    /// The settings over the plugin's defaults, the backend's hard limits over both.
    #[must_use]
    pub fn of(plugin: &Description, settings: Settings) -> Self {
        let Settings { capacity, on_full, batch, retry, breaker, rate, max_panics, workers } = settings;
        let unlimited = u64::MAX;
        Self {
            capacity,
            on_full,
            max_record_bytes: plugin
                .limits
                .max_record_bytes
                .unwrap_or(unlimited)
                .min(plugin.limits.max_bytes.unwrap_or(unlimited)),
            batch: BatchLimits::of(plugin, batch, capacity),
            retry,
            breaker,
            rate,
            max_panics,
            workers: if plugin.concurrent { workers.max(1) } else { 1 },
            keep_whole: false,
        }
    }
}

impl BatchLimits {
    /// A batch asks for no more than half of what the queue can hold: one that waits for more would wait while records
    /// are dropped, and the other half fills while the first is sent.
    fn of(plugin: &Description, settings: BatchSettings, capacity: Capacity) -> Self {
        let (defaults, limits) = (&plugin.batch, &plugin.limits);
        let records = settings.max_records.unwrap_or(defaults.max_records as usize);
        let bytes = settings.max_bytes.unwrap_or(defaults.max_bytes);
        Self {
            max_records: records
                .min(limits.max_records.map_or(usize::MAX, |records| records as usize))
                .min(capacity.records / 2)
                .max(1),
            max_bytes: bytes.min(limits.max_bytes.unwrap_or(u64::MAX)).min(capacity.bytes / 2),
            max_delay: settings.max_delay.unwrap_or(defaults.max_delay),
        }
    }
}

/// Bounds of what an exporter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Records, at most.
    pub records: usize,
    /// Bytes of these records, at most.
    pub bytes: u64,
}

/// Bounds of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records, at most.
    pub max_records: usize,
    /// Bytes, at most; a larger record goes alone.
    pub max_bytes: u64,
    /// How long a record may wait for others.
    pub max_delay: Duration,
}

/// What happens to a record that finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The oldest record that waits gives way.
    DropOldest,
    /// The record that comes is dropped.
    DropNewest,
    /// When bytes are short the record that comes loses bodies; then as [`OnFull::DropOldest`].
    Shed,
}

#[cfg(test)]
mod tests {
    use plugin_api::{Content, Descriptor, HardLimits};

    use super::*;

    fn plugin(limits: HardLimits) -> Description {
        let descriptor = Descriptor::new("x", "1")
            .content(Content::Metadata)
            .batch(500, 1_000, Duration::from_secs(1))
            .limits(limits);
        Description::new(&descriptor, Default::default())
    }

    fn settings() -> Settings {
        let ms = Duration::from_millis;
        Settings {
            capacity: Capacity { records: 10_000, bytes: 64 << 20 },
            on_full: OnFull::DropOldest,
            batch: BatchSettings::default(),
            retry: Retry { initial: ms(100), max: ms(30_000), max_elapsed: ms(0), max_pause: ms(0) },
            breaker: CircuitBreaker { failures: 5, cool_down: ms(1), max_cool_down: ms(1) },
            rate: RateLimits::default(),
            max_panics: 10,
            workers: 4,
        }
    }

    fn batch(limits: HardLimits, settings: Settings) -> (usize, u64, Duration) {
        let BatchLimits { max_records, max_bytes, max_delay } = Policy::of(&plugin(limits), settings).batch;
        (max_records, max_bytes, max_delay)
    }

    #[test]
    fn settings_override_the_plugin_and_the_backend_caps_both() {
        let second = Duration::from_secs(1);
        let limits = HardLimits::NONE.records(100).bytes(900);
        assert_eq!(batch(HardLimits::default(), settings()), (500, 1_000, second));
        assert_eq!(batch(limits, settings()), (100, 900, second));
        let wanted = |records, bytes, delay| {
            let (max_records, max_bytes) = (Some(records), Some(bytes));
            let batch = BatchSettings { max_records, max_bytes, max_delay: Some(delay) };
            Settings { batch, ..settings() }
        };
        let ms = Duration::from_millis(5);
        assert_eq!(batch(limits, wanted(10, 800, ms)), (10, 800, ms));
        assert_eq!(batch(limits, wanted(1_000, 2_000, ms)), (100, 900, ms));
        assert_eq!(batch(limits, wanted(0, 800, ms)), (1, 800, ms), "an empty batch is none");
    }

    #[test]
    fn a_batch_asks_for_no_more_than_half_of_what_the_queue_can_hold() {
        let small = Settings { capacity: Capacity { records: 7, bytes: 300 }, ..settings() };
        let (records, bytes, _) = batch(HardLimits::default(), small);
        assert_eq!((records, bytes), (3, 150));
    }

    #[test]
    fn the_backends_hard_limit_bounds_a_record() {
        let bound = |max_bytes, max_record_bytes| {
            let mut plugin = plugin(HardLimits::NONE);
            (plugin.limits.max_bytes, plugin.limits.max_record_bytes) = (max_bytes, max_record_bytes);
            Policy::of(&plugin, settings()).max_record_bytes
        };
        assert_eq!(bound(Some(900), Some(1_000)), 900);
        assert_eq!(bound(Some(1_000), Some(900)), 900);
        assert_eq!(bound(None, None), u64::MAX);
    }

    #[test]
    fn several_workers_only_where_the_plugin_allows_it() {
        let workers = |concurrent, workers| {
            let mut plugin = plugin(HardLimits::default());
            plugin.concurrent = concurrent;
            Policy::of(&plugin, Settings { workers, ..settings() }).workers
        };
        assert_eq!([workers(false, 4), workers(true, 4), workers(true, 0)], [1, 4, 1]);
    }
}
