//! Which signals the receiver takes. One that it does not know, while it takes others, is switched off: a receiver of
//! traces alone answers 404 or 405 to logs. Pure but for its memory.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::config::Signal;

/// The switches of the signals that are wanted.
#[derive(Debug)]
pub struct Switches {
    wanted: Vec<Signal>,
    /// By signal.
    states: [AtomicU8; 3],
}

/// Nothing is known.
const UNKNOWN: u8 = 0;
/// The receiver has taken some, or judged them: it knows the signal, and will again after an outage.
const KNOWN: u8 = 1;
/// The receiver does not know it.
const OFF: u8 = 2;

impl Switches {
    /// All of these signals are on.
    #[must_use]
    pub fn new(wanted: Vec<Signal>) -> Self {
        Self { wanted, states: Default::default() }
    }

    /// The signals that are sent.
    pub fn on(&self) -> impl Iterator<Item = Signal> {
        self.wanted.iter().copied().filter(|signal| self.state(*signal).load(Ordering::Relaxed) != OFF)
    }

    /// Whether a signal is sent.
    #[must_use]
    pub fn is_on(&self, signal: Signal) -> bool {
        self.on().any(|on| on == signal)
    }

    /// The receiver knows this signal.
    pub fn knows(&self, signal: Signal) {
        let _ = self.state(signal).compare_exchange(UNKNOWN, KNOWN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The receiver answers that there is no such address. Where it knows another signal and never knew this one, this one
    /// is off from now on; otherwise the address is wrong, or its receiver is not there yet.
    pub fn absent(&self, signal: Signal) -> Absent {
        let is_known = |other: &Signal| self.state(*other).load(Ordering::Relaxed) == KNOWN;
        if !self.wanted.iter().any(is_known) {
            return Absent::Wait;
        }
        let state = self.state(signal);
        match state.compare_exchange(UNKNOWN, OFF, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Absent::SwitchedOff,
            Err(OFF) => Absent::Off,
            Err(_) => Absent::Wait,
        }
    }

    fn state(&self, signal: Signal) -> &AtomicU8 {
        &self.states[signal as usize]
    }
}

/// What an answer of 404 or 405 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// The address is wrong: the records wait.
    Wait,
    /// The signal was switched off just now.
    SwitchedOff,
    /// It was off already.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_the_receiver_never_knew_is_off_once_it_knows_another() {
        use Signal::{Logs, Metrics, Traces};
        let switches = Switches::new(Signal::ALL.to_vec());
        assert_eq!(switches.absent(Logs), Absent::Wait, "it knows none yet");
        switches.knows(Traces);
        assert_eq!(switches.absent(Logs), Absent::SwitchedOff);
        assert_eq!(switches.absent(Logs), Absent::Off, "said once");
        assert_eq!(switches.absent(Traces), Absent::Wait, "it knew it: an outage");
        switches.knows(Logs);
        assert_eq!(switches.on().collect::<Vec<_>>(), [Traces, Metrics]);
        assert!(!switches.is_on(Logs) && switches.is_on(Metrics));
    }

    #[test]
    fn a_signal_that_is_not_wanted_is_off_and_the_only_one_never_is() {
        let switches = Switches::new(vec![Signal::Traces]);
        assert!(!switches.is_on(Signal::Logs));
        assert_eq!(switches.absent(Signal::Traces), Absent::Wait);
        switches.knows(Signal::Traces);
        assert_eq!(switches.absent(Signal::Traces), Absent::Wait);
        assert!(switches.is_on(Signal::Traces));
    }
}
