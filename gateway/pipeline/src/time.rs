//! Times to come, whatever the settings are.

use std::time::{Duration, Instant};

/// As good as never, and no overflow.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `wait` after `from`.
pub(crate) fn later(from: Instant, wait: Duration) -> Instant {
    from + wait.min(FAR)
}
