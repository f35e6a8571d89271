//! Rate limits, as token buckets that hold one second's worth.

use std::time::Duration;

use tokio::time::Instant;

/// Limits on calls and on records; `None` is no limit.
#[derive(Debug)]
pub(crate) struct RateLimit {
    records: Option<Bucket>,
    requests: Option<Bucket>,
}

impl RateLimit {
    pub(crate) fn new(
        records_per_second: Option<f64>,
        requests_per_second: Option<f64>,
        now: Instant,
    ) -> Self {
        let bucket = |rate: Option<f64>| rate.map(|rate| Bucket::new(rate, now));
        Self { records: bucket(records_per_second), requests: bucket(requests_per_second) }
    }

    /// Takes one call with `records` records out of the buckets, and says how long to wait before making it.
    pub(crate) fn take(&mut self, records: usize, now: Instant) -> Duration {
        let mut wait = Duration::ZERO;
        if let Some(bucket) = &mut self.records {
            wait = wait.max(bucket.take(records, now));
        }
        if let Some(bucket) = &mut self.requests {
            wait = wait.max(bucket.take(1, now));
        }
        wait
    }
}

/// May go into debt: a batch larger than a second's worth passes, and what follows waits for it.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    updated: Instant,
}

impl Bucket {
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, tokens: rate.max(1.0), updated: now }
    }

    #[allow(clippy::cast_precision_loss, reason = "batches have fewer than 2^52 records")]
    fn take(&mut self, amount: usize, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.rate.max(1.0)) - amount as f64;
        Duration::from_secs_f64((-self.tokens / self.rate).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_passes_at_once_and_what_follows_waits_its_share() {
        let now = Instant::now();
        let mut limit = RateLimit::new(Some(100.0), None, now);
        assert_eq!(limit.take(100, now), Duration::ZERO);
        assert_eq!(limit.take(50, now), Duration::from_millis(500));
        assert_eq!(limit.take(50, now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn the_stricter_limit_holds() {
        let now = Instant::now();
        let mut limit = RateLimit::new(Some(1_000.0), Some(1.0), now);
        assert_eq!(limit.take(1, now), Duration::ZERO);
        assert_eq!(limit.take(1, now), Duration::from_secs(1));
        assert_eq!(RateLimit::new(None, None, now).take(1_000_000, now), Duration::ZERO);
    }
}
