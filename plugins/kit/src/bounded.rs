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

/// The values that a label may have: the first ones that come along, up to a limit.
#[derive(Debug)]
pub struct BoundedLabel {
    limit: usize,
    values: RwLock<HashSet<Box<str>>>,
}

impl BoundedLabel {
    /// A label with at most `limit` values beside [`OTHER`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, values: RwLock::default() }
    }

    /// The value, or [`OTHER`] where it has no place. A new one takes a place only where it `may_claim` one: let a
    /// request claim that the provider answered, so that junk does not crowd out the models that exist.
    pub fn bound<'a>(&self, value: &'a str, may_claim: bool) -> &'a str {
        if self.values.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return value;
        }
        if !may_claim {
            return OTHER;
        }
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        if values.len() < self.limit || values.contains(value) {
            values.insert(value.into());
            value
        } else {
            OTHER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_that_may_have_a_place_have_one() {
        let label = BoundedLabel::new(2);
        for (value, may_claim, expected) in [
            ("junk", false, OTHER),
            ("a", true, "a"),
            ("b", true, "b"),
            ("c", true, OTHER),
            ("a", false, "a"),
            ("b", true, "b"),
            ("junk", true, OTHER),
        ] {
            assert_eq!(label.bound(value, may_claim), expected, "{value}");
        }
        assert_eq!(BoundedLabel::new(0).bound("a", true), OTHER);
    }
}
