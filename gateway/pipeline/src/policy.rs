//! How one exporter is fed.

use std::time::Duration;

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
