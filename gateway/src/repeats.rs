//! What repeats is told at once, and then at most twice a minute with a count.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(30);

/// One kind of notice.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    suppressed: u64,
}

impl Repeats {
    /// How many were kept back since the last line, if a line is due now.
    pub(crate) fn due(&self, count: u64) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            told.suppressed += count;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repeat_is_counted_and_told_at_most_once_in_thirty_seconds() {
        let repeats = Repeats::default();
        assert_eq!(repeats.due(1), Some(0));
        assert_eq!(repeats.due(1), None);
        assert_eq!(repeats.due(5), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(repeats.due(1), Some(6));
        assert_eq!(repeats.due(1), None);
    }
}
