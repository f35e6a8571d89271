//! Exponential backoff with full jitter, see
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::time::Duration;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Upper bound of any wait.
    pub max: Duration,
    /// From a record's first attempt until it is given up, at its next failure; zero is never.
    pub max_elapsed: Duration,
    /// Upper bound of what a backend may ask for by `Retry-After`.
    pub max_pause: Duration,
}

impl Retry {
    /// Wait before retry number `retry` (0 is the first): uniform between zero and a bound that doubles.
    ///
    /// `jitter` is uniform in 0..1.
    pub(crate) fn delay(&self, retry: u32, jitter: f64) -> Duration {
        self.initial.saturating_mul(1 << retry.min(30)).min(self.max).mul_f64(jitter)
    }

    /// What is granted of a `Retry-After`.
    pub(crate) fn pause(&self, asked: Duration) -> Duration {
        asked.min(self.max_pause)
    }

    /// Whether what was first tried `elapsed` ago is to be given up.
    pub(crate) fn is_exhausted(&self, elapsed: Duration) -> bool {
        !self.max_elapsed.is_zero() && elapsed >= self.max_elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        initial: Duration::from_millis(100),
        max: Duration::from_secs(30),
        max_elapsed: Duration::from_secs(300),
        max_pause: Duration::from_secs(300),
    };

    #[test]
    fn the_bound_doubles_up_to_its_limit() {
        for (retry, milliseconds) in [(0, 100), (1, 200), (5, 3_200), (9, 30_000), (u32::MAX, 30_000)] {
            assert_eq!(RETRY.delay(retry, 1.0), Duration::from_millis(milliseconds), "retry {retry}");
        }
        assert_eq!(RETRY.delay(3, 0.5), Duration::from_millis(400));
        assert_eq!(RETRY.delay(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn what_the_backend_asks_for_is_granted_up_to_a_limit() {
        for (asked, granted) in [(45, 45), (300, 300), (301, 300), (u64::MAX, 300)] {
            assert_eq!(RETRY.pause(Duration::from_secs(asked)), Duration::from_secs(granted));
        }
    }

    #[test]
    fn zero_means_for_ever() {
        let forever = Retry { max_elapsed: Duration::ZERO, ..RETRY };
        assert!(!forever.is_exhausted(Duration::MAX));
        assert!(RETRY.is_exhausted(Duration::from_secs(300)));
        assert!(!RETRY.is_exhausted(Duration::from_secs(299)));
    }
}
