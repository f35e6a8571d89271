//! Connections that nobody uses just now.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Shorter than what servers commonly allow, so that a request rarely meets a connection that is just being closed.
const LONGEST: Duration = Duration::from_secs(55);

/// The one used last stands last, and is used first: those that are not needed grow old and go.
#[derive(Debug)]
pub(super) struct Idle<C>(VecDeque<(Instant, C)>);

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<C> Idle<C> {
    pub(super) fn push(&mut self, connection: C, now: Instant) {
        self.0.push_back((now, connection));
    }

    /// Closes those that nobody has used for long. How soon there may be others, if any are left.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Duration> {
        while self.0.front().is_some_and(|(since, _)| is_old(*since, now)) {
            self.0.pop_front();
        }
        let (since, _) = self.0.front()?;
        Some(LONGEST.saturating_sub(now.saturating_duration_since(*since)))
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<C> {
        let (since, connection) = self.0.pop_back()?;
        if is_old(since, now) {
            // All before it are older still.
            self.0.clear();
            return None;
        }
        Some(connection)
    }
}

#[cfg(test)]
impl Idle<super::Http1> {
    pub(super) fn is_any_ready(&self) -> bool {
        self.0.iter().any(|(_, http1)| http1.sender.is_ready())
    }
}

fn is_old(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) > LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_youngest_is_used_and_the_old_ones_go() {
        let start = Instant::now();
        let mut idle = Idle::default();
        idle.push('a', start);
        idle.push('b', start + Duration::from_secs(1));
        assert_eq!(idle.pop(start + Duration::from_secs(2)), Some('b'));
        idle.push('c', start + LONGEST);
        assert_eq!(idle.expire(start + LONGEST), Some(Duration::ZERO), "at the limit it is kept");
        assert_eq!(
            idle.expire(start + LONGEST + Duration::from_millis(1)),
            Some(LONGEST - Duration::from_millis(1))
        );
        assert_eq!(idle.pop(start + 3 * LONGEST), None);
        assert_eq!(idle.expire(start), None);
    }
}
