//! Times to come, whatever the settings are.

use std::time::{Duration, Instant};

/// As good as never, and no overflow.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `wait` after `from`.
pub(crate) fn later(from: Instant, wait: Duration) -> Instant {
    from + wait.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_a_hundred_years_away() {
        let (now, year) = (Instant::now(), Duration::from_secs(365 * 24 * 3600));
        assert_eq!(later(now, Duration::MAX) - now, 100 * year);
        assert_eq!(later(now, year) - now, year);
    }
}
