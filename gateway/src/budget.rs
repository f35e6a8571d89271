//! One bound on memory that many hold parts of: what is reserved is what is really allocated, and it is given back
//! when its holder is dropped.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A bound, and how much of it is held.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, unless more than the limit and `beyond` would be held.
    fn take(&self, bytes: u64, beyond: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limit.saturating_add(beyond);
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// A share of a budget; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Reservation {
    /// None: of no budget, for tests and measurements.
    budget: Option<Arc<Budget>>,
    bytes: u64,
}

impl Reservation {
    /// Nothing yet, of that budget.
    pub(crate) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Some(budget.clone()), bytes: 0 }
    }

    /// Nothing yet, of the same budget.
    pub(crate) fn another(&self) -> Self {
        Self { budget: self.budget.clone(), bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves `more`; false when there is no room, and then nothing has changed.
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        self.grow_beyond(more, 0)
    }

    /// The same, with that much more room than the limit says.
    pub(crate) fn grow_beyond(&mut self, more: u64, beyond: u64) -> bool {
        let fits = self.budget.as_ref().is_none_or(|budget| budget.take(more, beyond));
        if fits {
            self.bytes += more;
        }
        fits
    }

    /// Counts `more` that are held already, room or not.
    pub(crate) fn add(&mut self, more: u64) {
        self.grow_beyond(more, u64::MAX);
    }

    /// Gives back all.
    pub(crate) fn clear(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(mem::take(&mut self.bytes), Ordering::Relaxed);
        }
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_counts_until_its_holder_goes() {
        let budget = Budget::new(100);
        let mut first = Reservation::of(&budget);
        let mut second = Reservation::of(&budget);
        assert!(first.grow(60) && !second.grow(41) && second.grow(40));
        assert_eq!((budget.used(), second.bytes()), (100, 40));
        assert!(second.grow_beyond(10, 10) && !second.grow_beyond(1, 10));
        first.add(5);
        assert_eq!(budget.used(), 115);
        first.clear();
        assert_eq!((budget.used(), first.bytes()), (50, 0));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}
