//! Exponential backoff with full jitter, see
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::time::Duration;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Upper bound of any wait.
    pub max: Duration,
    /// From a batch's first attempt until it is given up; zero is never.
    pub max_elapsed: Duration,
}

impl Settings {
    /// Wait before retry number `retry` (0 is the first): uniform between zero and a bound that doubles, but never
    /// less than what the backend asked for.
    ///
    /// `jitter` is uniform in 0..1.
    pub(crate) fn delay(&self, retry: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
        let bound = self.initial.saturating_mul(1 << retry.min(30)).min(self.max);
        bound.mul_f64(jitter).max(retry_after.unwrap_or_default())
    }

    /// Whether a batch that was first tried `elapsed` ago is to be given up.
    pub(crate) fn is_exhausted(&self, elapsed: Duration) -> bool {
        !self.max_elapsed.is_zero() && elapsed >= self.max_elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        initial: Duration::from_millis(100),
        max: Duration::from_secs(30),
        max_elapsed: Duration::from_secs(300),
    };

    #[test]
    fn the_bound_doubles_up_to_its_limit() {
        for (retry, milliseconds) in [(0, 100), (1, 200), (5, 3_200), (9, 30_000), (u32::MAX, 30_000)] {
            assert_eq!(
                SETTINGS.delay(retry, None, 1.0),
                Duration::from_millis(milliseconds),
                "retry {retry}"
            );
        }
        assert_eq!(SETTINGS.delay(3, None, 0.0), Duration::ZERO);
    }

    #[test]
    fn what_the_backend_asks_for_is_a_floor() {
        let asked = Some(Duration::from_secs(45));
        assert_eq!(SETTINGS.delay(0, asked, 0.5), Duration::from_secs(45));
    }

    #[test]
    fn zero_means_for_ever() {
        let forever = Settings { max_elapsed: Duration::ZERO, ..SETTINGS };
        assert!(!forever.is_exhausted(Duration::MAX));
        assert!(SETTINGS.is_exhausted(Duration::from_secs(300)));
        assert!(!SETTINGS.is_exhausted(Duration::from_secs(299)));
    }
}
