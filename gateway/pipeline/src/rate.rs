//! Rate limits, as token buckets that hold one second's worth.

use std::time::{Duration, Instant};

use crate::time::later;

/// How much may be sent; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RateLimits {
    /// Records a second.
    pub records_per_second: Option<f64>,
    /// Calls a second.
    pub requests_per_second: Option<f64>,
}

/// The limits at work.
#[derive(Debug)]
pub(crate) struct Rate {
    records: Option<Bucket>,
    requests: Option<Bucket>,
}

impl Rate {
    pub(crate) fn new(limits: RateLimits, now: Instant) -> Self {
        let bucket = |rate: Option<f64>| rate.map(|rate| Bucket::new(rate, now));
        Self { records: bucket(limits.records_per_second), requests: bucket(limits.requests_per_second) }
    }

    /// When a call may be made, if that is not now.
    pub(crate) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let buckets = [&self.records, &self.requests].into_iter().flatten();
        let wait = buckets.map(|bucket| bucket.debt(now)).max().filter(|wait| !wait.is_zero())?;
        Some(later(now, wait))
    }

    /// A call is made with so many records.
    pub(crate) fn take(&mut self, records: usize, now: Instant) {
        if let Some(bucket) = &mut self.records {
            bucket.take(records, now);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.take(1, now);
        }
    }
}

/// May go into debt: what finds a token passes whatever its size, and what follows waits until the debt is paid.
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

    fn tokens(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        (self.tokens + passed * self.rate).min(self.rate.max(1.0))
    }

    /// How long until there is a token.
    fn debt(&self, now: Instant) -> Duration {
        let missing = 1.0 - self.tokens(now);
        // Rounded up, so that the wait is not over a moment too soon.
        if missing <= 1e-9 {
            Duration::ZERO
        } else {
            let wait = Duration::try_from_secs_f64(missing / self.rate).unwrap_or(Duration::MAX);
            wait.saturating_add(Duration::from_nanos(1))
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "batches have fewer than 2^52 records")]
    fn take(&mut self, amount: usize, now: Instant) {
        self.tokens = self.tokens(now) - amount as f64;
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(records_per_second: Option<f64>, requests_per_second: Option<f64>) -> RateLimits {
        RateLimits { records_per_second, requests_per_second }
    }

    fn wait(rate: &Rate, now: Instant) -> Duration {
        let wait = rate.ready_at(now).map_or(Duration::ZERO, |at| at - now);
        Duration::from_millis(u64::try_from(wait.as_millis()).unwrap())
    }

    #[test]
    fn a_second_passes_at_once_and_what_follows_waits_its_share() {
        let now = Instant::now();
        let mut rate = Rate::new(limits(Some(100.0), None), now);
        assert_eq!(wait(&rate, now), Duration::ZERO);
        rate.take(100, now);
        assert_eq!(wait(&rate, now), Duration::from_millis(10));
        rate.take(50, now + Duration::from_millis(10));
        let later = now + Duration::from_millis(10);
        assert_eq!(wait(&rate, later), Duration::from_millis(500));
        assert_eq!(wait(&rate, later + Duration::from_millis(501)), Duration::ZERO);
    }

    #[test]
    fn the_stricter_limit_holds() {
        let now = Instant::now();
        let mut rate = Rate::new(limits(Some(1_000.0), Some(1.0)), now);
        rate.take(1, now);
        assert_eq!(wait(&rate, now), Duration::from_secs(1));
        let mut rate = Rate::new(RateLimits::default(), now);
        rate.take(1_000_000, now);
        assert_eq!(rate.ready_at(now), None);
    }

    #[test]
    fn less_than_one_a_second_waits_for_whole_ones() {
        let now = Instant::now();
        let mut rate = Rate::new(limits(None, Some(0.1)), now);
        assert_eq!(wait(&rate, now), Duration::ZERO);
        rate.take(1, now);
        assert_eq!(wait(&rate, now), Duration::from_secs(10));
        assert_eq!(wait(&rate, now + Duration::from_secs(11)), Duration::ZERO);
    }
}
