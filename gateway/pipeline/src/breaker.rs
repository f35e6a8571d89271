//! The circuit breaker: stops calling a backend that fails, and probes it once per cool-down.

use std::time::{Duration, Instant};

use crate::time::later;

/// When to open, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreaker {
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
    settings: CircuitBreaker,
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

/// State of a circuit breaker, as metrics and `/plugins` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls are made.
    Closed,
    /// One call is under way, to see whether the backend is back.
    HalfOpen,
    /// No calls are made.
    Open,
}

/// Whether a call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    Granted,
    /// One call may be made, to see whether the backend is back.
    Probe,
    /// Ask again then.
    Until(Instant),
    /// Ask again when the probe that is under way is settled.
    UnderProbe,
}

/// What a reported outcome changed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened,
    Closed,
}

impl Breaker {
    pub(crate) fn new(settings: CircuitBreaker) -> Self {
        Self { settings, state: State::Closed, failures: 0, cool_down: settings.cool_down }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing => BreakerState::HalfOpen,
        }
    }

    /// Whether a call may be made.
    pub(crate) fn permit(&self, now: Instant) -> Permit {
        match self.state {
            State::Closed => Permit::Granted,
            State::Open { until } if now < until => Permit::Until(until),
            State::Open { .. } => Permit::Probe,
            State::Probing => Permit::UnderProbe,
        }
    }

    /// A call is made that was permitted.
    pub(crate) fn call_begins(&mut self) {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::Probing;
        }
    }

    /// The next probe may be made now, and further ones as after the first failure.
    pub(crate) fn end_cool_down(&mut self, now: Instant) {
        self.cool_down = self.settings.cool_down;
        if let State::Open { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(crate) fn succeeded(&mut self) -> Change {
        self.failures = 0;
        self.cool_down = self.settings.cool_down;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => Change::None,
            State::Open { .. } | State::Probing => Change::Closed,
        }
    }

    /// `at_once` opens it whatever the count: credentials do not heal by being tried again. While a probe is under way,
    /// other calls that began before say nothing new.
    pub(crate) fn failed(&mut self, now: Instant, at_once: bool, is_probe: bool) -> Change {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Probing if is_probe => {
                self.cool_down = (self.cool_down.saturating_mul(2)).min(self.settings.max_cool_down);
                self.state = State::Open { until: later(now, self.cool_down) };
                Change::None
            }
            State::Closed if at_once || self.failures >= self.settings.failures => {
                self.state = State::Open { until: later(now, self.cool_down) };
                Change::Opened
            }
            State::Closed | State::Open { .. } | State::Probing => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(CircuitBreaker { failures: 3, cool_down: SECOND, max_cool_down: 4 * SECOND })
    }

    #[test]
    fn opens_after_failures_in_a_row_and_not_before() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert_eq!(breaker.failed(now, false, false), Change::None);
        assert_eq!(breaker.failed(now, false, false), Change::None);
        assert_eq!(breaker.succeeded(), Change::None);
        assert_eq!(breaker.failed(now, false, false), Change::None);
        assert_eq!(breaker.failed(now, false, false), Change::None);
        assert_eq!(breaker.permit(now), Permit::Granted);
        assert_eq!(breaker.failed(now, false, false), Change::Opened);
        assert_eq!(breaker.permit(now), Permit::Until(now + SECOND));
    }

    #[test]
    fn one_probe_per_cool_down_which_doubles_up_to_its_limit() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        assert_eq!(breaker.failed(now, true, false), Change::Opened);
        for seconds in [1, 2, 4, 4] {
            now += seconds * SECOND;
            assert_eq!(breaker.permit(now), Permit::Probe, "after {seconds} s");
            breaker.call_begins();
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert_eq!(breaker.permit(now), Permit::UnderProbe);
            assert_eq!(breaker.failed(now, true, false), Change::None, "not the probe");
            assert_eq!(breaker.permit(now), Permit::UnderProbe);
            assert_eq!(breaker.failed(now, false, true), Change::None);
            assert_eq!(breaker.state(), BreakerState::Open);
        }
        now += 4 * SECOND;
        assert_eq!(breaker.permit(now), Permit::Probe);
        breaker.call_begins();
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker.permit(now), Permit::Granted);
        assert_eq!(breaker.failed(now, true, false), Change::Opened);
        assert_eq!(breaker.permit(now), Permit::Until(now + SECOND));
    }

    #[test]
    fn a_call_from_before_the_breaker_opened_moves_no_cool_down() {
        let (mut breaker, now) = (breaker(), Instant::now());
        breaker.failed(now, true, false);
        assert_eq!(breaker.failed(now + SECOND / 2, false, false), Change::None);
        assert_eq!(breaker.permit(now), Permit::Until(now + SECOND));
    }
}
