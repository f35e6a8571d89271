//! The circuit breaker: stops calling a backend that fails, and probes it once per cool-down.

use std::time::Duration;

use tokio::time::Instant;

/// When to open, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Failed calls in a row that open it.
    pub failures: u32,
    /// First cool-down; doubled after every failed probe.
    pub cool_down: Duration,
    /// Longest cool-down.
    pub max_cool_down: Duration,
}

/// Pure state machine; time is passed in.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: Settings,
    state: State,
    failures: u32,
    cool_down: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    Probing,
}

/// The breaker's state as metrics and `/plugins` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BreakerState {
    Closed,
    HalfOpen,
    Open,
}

/// Whether a call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    Granted,
    /// Ask again then.
    Wait(Instant),
}

/// What a reported outcome changed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, state: State::Closed, failures: 0, cool_down: settings.cool_down }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing => BreakerState::HalfOpen,
        }
    }

    /// Asks for a call. While half open, one probe is under way and all others wait for it.
    pub(crate) fn permit(&mut self, now: Instant) -> Permit {
        match self.state {
            State::Closed => Permit::Granted,
            State::Open { until } if now < until => Permit::Wait(until),
            State::Open { .. } => {
                self.state = State::Probing;
                Permit::Granted
            }
            State::Probing => Permit::Wait(now + self.settings.cool_down),
        }
    }

    pub(crate) fn succeeded(&mut self) -> Change {
        self.failures = 0;
        self.cool_down = self.settings.cool_down;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => Change::None,
            State::Open { .. } | State::Probing => Change::Closed,
        }
    }

    /// `at_once` opens it whatever the count: credentials do not heal by being tried again.
    pub(crate) fn failed(&mut self, now: Instant, at_once: bool) -> Change {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Probing => {
                self.cool_down = (self.cool_down * 2).min(self.settings.max_cool_down);
                self.state = State::Open { until: now + self.cool_down };
                Change::None
            }
            State::Closed if at_once || self.failures >= self.settings.failures => {
                self.state = State::Open { until: now + self.cool_down };
                Change::Opened
            }
            State::Closed | State::Open { .. } => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(Settings { failures: 3, cool_down: SECOND, max_cool_down: 4 * SECOND })
    }

    #[test]
    fn opens_after_failures_in_a_row_and_not_before() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert_eq!(breaker.failed(now, false), Change::None);
        assert_eq!(breaker.failed(now, false), Change::None);
        assert_eq!(breaker.succeeded(), Change::None);
        assert_eq!(breaker.failed(now, false), Change::None);
        assert_eq!(breaker.failed(now, false), Change::None);
        assert_eq!(breaker.permit(now), Permit::Granted);
        assert_eq!(breaker.failed(now, false), Change::Opened);
        assert_eq!(breaker.permit(now), Permit::Wait(now + SECOND));
    }

    #[test]
    fn one_probe_per_cool_down_which_doubles_up_to_its_limit() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        breaker.failed(now, true);
        for seconds in [1, 2, 4, 4] {
            now += seconds * SECOND;
            assert_eq!(breaker.permit(now), Permit::Granted, "after {seconds} s");
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert!(matches!(breaker.permit(now), Permit::Wait(_)), "a second probe");
            assert_eq!(breaker.failed(now, false), Change::None);
        }
        now += 4 * SECOND;
        assert_eq!(breaker.permit(now), Permit::Granted);
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker.permit(now), Permit::Granted);
        assert_eq!(breaker.failed(now, true), Change::Opened);
        assert_eq!(breaker.permit(now), Permit::Wait(now + SECOND));
    }
}
