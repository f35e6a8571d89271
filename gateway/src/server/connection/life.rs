//! When a connection has outlived one of its limits: decided from what goes on in it, without a clock of its own.

use std::time::Duration;

use tokio::time::Instant;

use super::activity::{Activity, Waiting};
use crate::server::{config::Config, phase::Phase};

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For a request's head, the first one's from the connection's beginning.
    pub header: Duration,
    /// For the next request.
    pub idle: Duration,
    /// Until it takes more of its answer.
    pub write: Duration,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        Self { header: config.header_timeout, idle: config.idle_timeout, write: config.write_timeout }
    }
}

/// After the last request, a client that was told to go has this long to do so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// While the gateway stops, a client that stands still has this long at most: it would use up the grace period of all.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// While the gateway stops, a connection that is younger may still bring its request: whoever has just connected
/// could not know.
const FRESH: Duration = Duration::from_secs(1);

/// While the gateway stops, an idle connection is closed after so long: what was sent already has come by then.
const LAST_CALL: Duration = Duration::from_millis(20);

/// The limit that a client has overrun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Header,
    Idle,
    Write,
    LastWords,
}

/// What is known of a connection beside its activity.
#[derive(Debug)]
pub(super) struct Life {
    limits: Limits,
    stopping: Option<Instant>,
    closing: Option<Instant>,
}

impl Life {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, stopping: None, closing: None }
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        if phase == Phase::Stopping {
            self.stopping.get_or_insert(now);
        }
    }

    /// The client has been told to go.
    pub(super) fn close(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
    }

    /// The limit that will be overrun next when nothing happens, and when that is.
    pub(super) fn due(&self, activity: &Activity) -> Option<(Instant, Limit)> {
        let write = activity.blocked_since().map(|since| (self.write(since), Limit::Write));
        let wait = match (activity.waiting(), self.closing) {
            (Waiting::No, _) => None,
            (Waiting::Head { since, .. } | Waiting::Idle { since }, Some(closing)) => {
                Some((self.last_words(since, closing, activity), Limit::LastWords))
            }
            (Waiting::Head { since, has_begun }, None) => {
                Some((self.header(since, has_begun, activity), Limit::Header))
            }
            (Waiting::Idle { since }, None) => Some((self.idle(since), Limit::Idle)),
        };
        write.into_iter().chain(wait).min_by_key(|(at, _)| *at)
    }

    fn write(&self, since: Instant) -> Instant {
        patient(since, self.limits.write, self.stopping)
    }

    fn header(&self, since: Instant, has_begun: bool, activity: &Activity) -> Instant {
        let due = after(since, self.limits.header);
        match self.stopping {
            None => due,
            Some(stopping) if has_begun => due.min(after(stopping, PATIENCE)),
            Some(stopping) => due.min(stopping.max(after(activity.opened(), FRESH))),
        }
    }

    fn idle(&self, since: Instant) -> Instant {
        let due = after(since, self.limits.idle);
        self.stopping.map_or(due, |stopping| due.min(after(stopping.max(since), LAST_CALL)))
    }

    /// A slow client may take the rest of its last answer, as long as it goes on doing so.
    fn last_words(&self, since: Instant, closing: Instant, activity: &Activity) -> Instant {
        let begun = closing.max(since);
        after(begun.max(activity.resumed_at()), LAST_WORDS)
            .min(after(begun, self.limits.write.max(LAST_WORDS)))
    }
}

/// When a client that has stood still for so long is given up.
pub(super) fn patient(since: Instant, limit: Duration, stopping: Option<Instant>) -> Instant {
    let due = after(since, limit);
    stopping.map_or(due, |stopping| due.min(after(stopping.max(since), PATIENCE)))
}

/// A limit of centuries is none.
fn after(since: Instant, duration: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    since + duration.min(NEVER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Version;
    use tokio::time::{advance, pause};

    use super::*;

    const LIMITS: Limits = Limits {
        header: Duration::from_secs(30),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(60),
    };

    fn start() -> (Arc<Activity>, Life, Instant) {
        pause();
        (Activity::new(), Life::new(LIMITS), Instant::now())
    }

    /// Seconds from `start`, and the limit.
    fn due(life: &Life, activity: &Activity, start: Instant) -> Option<(u64, Limit)> {
        life.due(activity).map(|(at, limit)| (at.duration_since(start).as_secs(), limit))
    }

    #[tokio::test]
    async fn a_connection_is_in_one_limit_after_the_other() {
        let (activity, life, start) = start();
        assert_eq!(due(&life, &activity, start), Some((30, Limit::Header)));
        advance(Duration::from_secs(10)).await;
        activity.read(b"GET / HT");
        assert_eq!(
            due(&life, &activity, start),
            Some((30, Limit::Header)),
            "from the connection's beginning"
        );
        let request = activity.begin(Version::HTTP_11);
        assert_eq!(due(&life, &activity, start), None, "it waits for its provider");
        activity.write_is_blocked();
        advance(Duration::from_secs(10)).await;
        activity.write_is_blocked();
        assert_eq!(due(&life, &activity, start), Some((70, Limit::Write)), "since it was blocked first");
        activity.written();
        drop(request);
        assert_eq!(due(&life, &activity, start), Some((95, Limit::Idle)));
        advance(Duration::from_secs(10)).await;
        activity.read(b"GET");
        assert_eq!(due(&life, &activity, start), Some((60, Limit::Header)), "from its first byte");
    }

    #[tokio::test]
    async fn frames_that_belong_to_no_request_are_no_beginning_of_one() {
        let (activity, mut life, start) = start();
        activity.read(b"PRI * HTTP/2.0");
        let requests = [activity.begin(Version::HTTP_2), activity.begin(Version::HTTP_2)];
        assert_eq!(due(&life, &activity, start), None);
        drop(requests);
        advance(Duration::from_secs(5)).await;
        activity.read(b"a pong");
        assert_eq!(due(&life, &activity, start), Some((75, Limit::Idle)));
        life.close(Instant::now());
        assert_eq!(due(&life, &activity, start), Some((7, Limit::LastWords)));
    }

    #[tokio::test]
    async fn while_the_gateway_stops_nobody_who_stands_still_holds_it_up() {
        let (silent, mut life, start) = start();
        advance(Duration::from_secs(10)).await;
        let (fresh, half, idle, deaf) = (Activity::new(), Activity::new(), Activity::new(), Activity::new());
        half.read(b"GET");
        drop(idle.begin(Version::HTTP_11));
        let _request = deaf.begin(Version::HTTP_11);
        deaf.write_is_blocked();
        life.enter(Phase::Draining, Instant::now());
        assert_eq!(due(&life, &silent, start), Some((30, Limit::Header)), "everyone is served still");
        advance(Duration::from_millis(500)).await;
        life.enter(Phase::Stopping, Instant::now());
        let due =
            |activity| life.due(activity).map(|(at, limit)| (at.duration_since(start).as_millis(), limit));
        assert_eq!(due(&silent), Some((10_500, Limit::Header)));
        assert_eq!(due(&fresh), Some((11_000, Limit::Header)), "it could not know");
        assert_eq!(due(&half), Some((15_500, Limit::Header)));
        assert_eq!(due(&idle), Some((10_520, Limit::Idle)));
        assert_eq!(due(&deaf), Some((15_500, Limit::Write)));
    }

    #[tokio::test]
    async fn a_client_that_still_takes_its_last_answer_has_time_for_it() {
        let (activity, mut life, start) = start();
        drop(activity.begin(Version::HTTP_2));
        life.close(Instant::now());
        advance(Duration::from_secs(1)).await;
        activity.write_is_blocked();
        advance(Duration::from_millis(500)).await;
        activity.written();
        assert_eq!(due(&life, &activity, start), Some((3, Limit::LastWords)));
        advance(Duration::from_secs(100)).await;
        activity.write_is_blocked();
        activity.written();
        assert_eq!(due(&life, &activity, start), Some((60, Limit::LastWords)), "but not for ever");
    }

    #[tokio::test]
    async fn a_limit_of_centuries_is_none() {
        let limits = Limits { header: Duration::MAX, idle: Duration::MAX, write: Duration::MAX };
        assert!(Life::new(limits).due(&Activity::new()).is_some());
    }
}
