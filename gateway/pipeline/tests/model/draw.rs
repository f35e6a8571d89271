//! What is drawn at random: limits, and the sizes of records.

use std::time::Duration;

use exporter_pipeline::{BatchLimits, Capacity, CircuitBreaker, OnFull, Policy, RateLimits, Retry};
use fastrand::Rng;

/// How large the limits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// So small that everything is at its limit.
    Small,
    Medium,
    /// As they are in operation.
    Production,
}

/// Who reads the clock before the lock may come with a time that is over by as much. And a rate limit rounds.
pub const SKEW: Duration = Duration::from_millis(5);

pub fn milliseconds(of: u64) -> Duration {
    Duration::from_millis(of)
}

fn one_of(rng: &mut Rng, milliseconds: &[u64]) -> Duration {
    Duration::from_millis(milliseconds[rng.usize(..milliseconds.len())])
}

pub fn policy(rng: &mut Rng, scale: Scale) -> Policy {
    let (records, bytes, batch) = match scale {
        Scale::Small => (rng.usize(1..=8), rng.u64(1..=400), rng.usize(1..=4)),
        Scale::Medium => (rng.usize(8..=64), rng.u64(1_000..=8_000), rng.usize(2..=16)),
        Scale::Production => (10_000, 1 << 24, 500),
    };
    let on_full = [OnFull::DropOldest, OnFull::DropNewest, OnFull::Shed][rng.usize(..3)];
    let capacity = Capacity { records, bytes };
    let (max_records, max_bytes) = (batch, if rng.bool() { bytes } else { rng.u64(1..=bytes) });
    Policy {
        capacity,
        on_full,
        max_record_bytes: if rng.bool() { u64::MAX } else { rng.u64(1..=bytes) },
        batch: BatchLimits { max_records, max_bytes, max_delay: one_of(rng, &[0, 1, 50, 1_000]) },
        retry: Retry {
            initial: one_of(rng, &[0, 10, 100]),
            max: one_of(rng, &[0, 100, 5_000, 30_000]),
            max_elapsed: one_of(rng, &[0, 0, 1, 2_000, 60_000, 300_000]),
            max_pause: one_of(rng, &[0, 1_000, 10_000, 300_000]),
        },
        breaker: CircuitBreaker {
            failures: rng.u32(1..=5),
            cool_down: one_of(rng, &[0, 100, 1_000]),
            max_cool_down: one_of(rng, &[0, 1_000, 4_000, 60_000]),
        },
        rate: rate(rng),
        max_panics: rng.u32(1..=4),
        workers: rng.usize(1..=4),
        keep_whole: rng.bool(),
    }
}

fn rate(rng: &mut Rng) -> RateLimits {
    let mut one = || match rng.u32(..16) {
        0 => Some(0.5),
        1 => Some(20.0),
        2 => Some(1_000.0),
        _ => None,
    };
    RateLimits { records_per_second: one(), requests_per_second: one() }
}

/// The size of a record: mostly small beside the limits, sometimes at them and over them.
pub fn size(rng: &mut Rng, policy: &Policy) -> u64 {
    let (capacity, limit) = (policy.capacity.bytes, policy.max_record_bytes.min(policy.capacity.bytes));
    match rng.u32(..40) {
        0 => limit.saturating_add(rng.u64(..=2)).saturating_sub(1).max(1),
        1 => capacity.saturating_add(rng.u64(..=2)).saturating_sub(1).max(1),
        2 => policy.batch.max_bytes.saturating_add(rng.u64(..=2)).saturating_sub(1).max(1),
        3 => rng.u64(1..=capacity * 2),
        4..=9 => rng.u64(1..=capacity / 2 + 1),
        _ => rng.u64(1..=capacity / 16 + 4),
    }
}

/// The size of a record without its bodies; not always one that helps.
pub fn smaller(rng: &mut Rng, size: u64) -> Option<u64> {
    match rng.u32(..8) {
        0 => None,
        1 => Some(size + rng.u64(..=1)),
        _ => Some(rng.u64(1..=size / 2 + 1)),
    }
}

/// How much time passes of itself.
pub fn pause(rng: &mut Rng) -> Duration {
    match rng.u32(..8) {
        0 => Duration::ZERO,
        1 => milliseconds(rng.u64(..=60_000)),
        2 | 3 => milliseconds(rng.u64(..=2_000)),
        _ => milliseconds(rng.u64(..=20)),
    }
}
