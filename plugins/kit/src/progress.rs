//! A record that is delivered in several requests: which of them the backend has already, when the record is tried
//! again.
//!
//! A backend without an idempotency key would otherwise count a metric twice because the log beside it failed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A set of parts, one bit each; what the bits mean is the plugin's.
pub type Parts = u8;

/// Which parts of each record are with the backend, for records that lack some. It is bounded: beyond its capacity the
/// record that was noted first is forgotten, and would have all its parts sent again.
#[derive(Debug)]
pub struct Progress {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parts: HashMap<Box<str>, Parts>,
    /// Ids in the order in which they were noted. One that was settled since may still stand here.
    order: VecDeque<Box<str>>,
}

impl Default for Progress {
    /// A memory for as many records as a large queue holds, at about 100 bytes each.
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl Progress {
    /// A memory for so many records.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), state: Mutex::default() }
    }

    /// What the backend has of this record; 0 when it was never noted.
    #[must_use]
    pub fn of(&self, id: &str) -> Parts {
        self.state().parts.get(id).copied().unwrap_or(0)
    }

    /// Notes that the backend has these parts of a record which lacks others.
    pub fn note(&self, id: &str, parts: Parts) {
        let state = &mut *self.state();
        if let Some(known) = state.parts.get_mut(id) {
            *known |= parts;
            return;
        }
        // Not many are forgotten at once, and ids that were settled since cost nothing but their place in the line.
        while state.order.len() >= self.capacity {
            let Some(first) = state.order.pop_front() else { break };
            state.parts.remove(&first);
        }
        state.parts.insert(id.into(), parts);
        state.order.push_back(id.into());
    }

    /// Takes back what was noted: the backend has these parts not after all.
    pub fn take_back(&self, id: &str, parts: Parts) {
        let rest = self.of(id) & !parts;
        self.settle(id);
        if rest != 0 {
            self.note(id, rest);
        }
    }

    /// Forgets a record that has all its parts, or never will.
    pub fn settle(&self, id: &str) {
        let state = &mut *self.state();
        if state.parts.remove(id).is_some() && state.parts.is_empty() {
            state.order.clear();
        }
    }

    /// Number of records that lack a part.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().parts.len()
    }

    /// Whether every record is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Parts = 1;
    const METRIC: Parts = 2;

    #[test]
    fn parts_add_up_until_the_record_is_settled() {
        let progress = Progress::new(10);
        assert_eq!(progress.of("a"), 0);
        progress.note("a", LOG);
        progress.note("a", METRIC);
        progress.note("b", LOG);
        assert_eq!((progress.of("a"), progress.of("b"), progress.len()), (LOG | METRIC, LOG, 2));
        progress.settle("a");
        progress.settle("never noted");
        assert_eq!((progress.of("a"), progress.of("b"), progress.len()), (0, LOG, 1));
        progress.settle("b");
        assert!(progress.is_empty() && progress.state().order.is_empty());
    }

    #[test]
    fn parts_that_are_taken_back_are_lacking_again() {
        let progress = Progress::new(10);
        progress.note("a", LOG | METRIC);
        progress.note("b", METRIC);
        for id in ["a", "b", "never noted"] {
            progress.take_back(id, METRIC);
        }
        assert_eq!((progress.of("a"), progress.of("b"), progress.len()), (LOG, 0, 1));
    }

    #[test]
    fn the_oldest_is_forgotten_beyond_the_capacity() {
        let progress = Progress::new(3);
        for id in ["a", "b", "c", "d"] {
            progress.note(id, LOG);
        }
        assert_eq!(["a", "b", "c", "d"].map(|id| progress.of(id)), [0, LOG, LOG, LOG]);
        progress.settle("b");
        progress.note("e", LOG);
        assert_eq!(progress.len(), 3);
        assert!(progress.state().order.len() <= 3);
    }
}
