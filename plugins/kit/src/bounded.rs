//! Label values that clients choose, bounded in number.
//!
//! Backends bill metrics by the number of label combinations, and a client can make up a model name for every request:
//! only so many values have a place of their own.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

/// What stands for every value without a place.
pub const OTHER: &str = "other";

/// One place in so many may be taken by values of which nobody knows whether they exist.
const UNPROVEN_SHARE: usize = 4;
/// Longest value in bytes; the rest is cut. A client chooses the length too.
const LONGEST: usize = 255;

/// Who may have a place of its own. It knows how many have one, and not which: that is its user's to keep.
#[derive(Debug)]
pub struct Places {
    left: usize,
    /// Of those, for values that are not proven.
    left_unproven: usize,
    vouched: HashSet<Box<str>>,
    max_vouched: usize,
}

impl Places {
    /// So many places.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let left_unproven = limit / UNPROVEN_SHARE;
        Self { left: limit, left_unproven, vouched: HashSet::new(), max_vouched: limit }
    }

    /// Whether a value that has no place gets one. A quarter of them are open to any; the rest is for those that exist,
    /// since they are proven or were [vouched](Self::vouch) for, so that junk does not crowd them out.
    pub fn take(&mut self, value: &str, is_proven: bool) -> bool {
        let is_proven = is_proven || self.vouched.contains(value);
        if self.left == 0 || (!is_proven && self.left_unproven == 0) {
            return false;
        }
        self.left -= 1;
        self.left_unproven -= usize::from(!is_proven);
        true
    }

    /// Remembers that a value exists, without a place for it: it may never be needed. As many are remembered as there
    /// are places.
    pub fn vouch(&mut self, value: &str) {
        if self.vouched.len() < self.max_vouched && value.len() <= LONGEST && !self.vouched.contains(value) {
            self.vouched.insert(value.into());
        }
    }

    /// Whether it is known that a value exists, or too many are known already.
    #[must_use]
    fn needs_no_vouching(&self, value: &str) -> bool {
        self.vouched.len() >= self.max_vouched || self.vouched.contains(value)
    }
}

/// The values that a label may have: the first ones that come along, up to a limit.
#[derive(Debug)]
pub struct BoundedLabel(RwLock<Values>);

#[derive(Debug)]
struct Values {
    known: HashSet<Box<str>>,
    places: Places,
}

impl BoundedLabel {
    /// A label with at most `limit` values beside [`OTHER`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(RwLock::new(Values { known: HashSet::new(), places: Places::new(limit) }))
    }

    /// The value, or [`OTHER`] where it has no place; see [`Places::take`] for who gets one.
    pub fn bound<'a>(&self, value: &'a str, is_proven: bool) -> &'a str {
        let value = &value[..value.floor_char_boundary(LONGEST)];
        if self.0.read().unwrap_or_else(PoisonError::into_inner).known.contains(value) {
            return value;
        }
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Values { known, places } = &mut *values;
        if known.contains(value) || places.take(value, is_proven) {
            known.insert(value.into());
            value
        } else {
            OTHER
        }
    }

    /// Remembers that a value exists; see [`Places::vouch`].
    pub fn vouch(&self, value: &str) {
        if !self.0.read().unwrap_or_else(PoisonError::into_inner).places.needs_no_vouching(value) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).places.vouch(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_have_a_place_and_those_of_which_nobody_knows_a_quarter() {
        let label = BoundedLabel::new(8);
        for (value, is_proven, expected) in [
            ("junk-1", false, "junk-1"),
            ("junk-2", false, "junk-2"),
            ("junk-3", false, OTHER),
            ("a", true, "a"),
            ("a", false, "a"),
            ("junk-3", true, "junk-3"),
            ("b", true, "b"),
            ("c", true, "c"),
            ("d", true, "d"),
            ("e", true, "e"),
            ("f", true, OTHER),
            ("junk-1", true, "junk-1"),
        ] {
            assert_eq!(label.bound(value, is_proven), expected, "{value}");
        }
        assert_eq!(BoundedLabel::new(0).bound("a", true), OTHER);
    }

    #[test]
    fn whom_somebody_vouches_for_has_a_place_under_the_same_limit() {
        let label = BoundedLabel::new(3);
        assert_eq!(label.bound("gpt-4o", false), OTHER);
        for name in ["gpt-4o", "gpt-4o", "o3", "o4", "o5"] {
            label.vouch(name);
        }
        let bound = ["gpt-4o", "o5", "o3", "o4", "o1"].map(|name| label.bound(name, false));
        assert_eq!(bound, ["gpt-4o", OTHER, "o3", "o4", OTHER], "three are remembered, and have places");
        assert_eq!(label.bound("gpt-4.1", true), OTHER, "there is no fourth");
    }

    #[test]
    fn a_value_of_any_length_takes_little_room() {
        let label = BoundedLabel::new(8);
        let long = "é".repeat(1_000_000);
        assert_eq!(label.bound(&long, true).len(), LONGEST - 1);
        label.vouch(&long);
        assert!(label.0.read().unwrap().places.vouched.is_empty());
    }
}
