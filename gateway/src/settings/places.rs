//! Where each value of a configuration comes from: its line, and the variables in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::pointer;

/// One value's origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The line in the file, from 1.
    pub(crate) line: Option<usize>,
    /// The environment variables its text was made from.
    pub(crate) variables: Vec<String>,
    /// True when it was one `${…}` and nothing else, and so may be a number or a boolean.
    pub(crate) whole: bool,
}

/// The origins of all values, by JSON pointer.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Places(BTreeMap<String, Place>);

impl fmt::Debug for Places {
    /// Short, because it is part of what a plugin entry's `Debug` shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({})", self.0.len())
    }
}

impl Places {
    pub(crate) fn insert(&mut self, pointer: String, place: Place) {
        self.0.insert(pointer, place);
    }

    /// The line of a value, or of the nearest thing around it, for a key that is missing.
    pub(crate) fn line(&self, pointer: &str) -> Option<usize> {
        pointer::ancestors(pointer).find_map(|outer| self.0.get(outer)?.line)
    }

    /// The environment variable that a value was made from, the first if there are several.
    pub(crate) fn variable(&self, pointer: &str) -> Option<String> {
        self.0.get(pointer)?.variables.first().cloned()
    }

    /// The values that are one reference and nothing else.
    pub(crate) fn references(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, place)| place.whole).map(|(pointer, _)| pointer.as_str())
    }

    /// The origins inside one value, as seen from it.
    pub(crate) fn below(&self, outer: &str) -> Self {
        let inside = self.0.iter().filter(|(pointer, _)| pointer::is_within(pointer, outer));
        Self(inside.map(|(pointer, place)| (pointer[outer.len()..].to_owned(), place.clone())).collect())
    }
}

/// Where one entry of a configuration stands: pointers are relative to the entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The file; none for an entry that the environment made.
    pub(crate) file: Option<PathBuf>,
    /// The entry's keys.
    pub(crate) places: Places,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_has_the_line_of_what_is_around_it() {
        let mut places = Places::default();
        for (pointer, line) in
            [("/plugin/0", 4), ("/plugin/0/config", 6), ("/plugin/0/config/url", 7), ("/plugin/01", 9)]
        {
            places.insert(pointer.into(), Place { line: Some(line), ..Place::default() });
        }
        for (pointer, expected) in [
            ("/plugin/0/config/url", Some(7)),
            ("/plugin/0/config/key", Some(6)),
            ("/plugin/0/name", Some(4)),
            ("/server", None),
        ] {
            assert_eq!(places.line(pointer), expected, "{pointer}");
        }
        let settings = places.below("/plugin/0/config");
        assert_eq!((settings.line("/url"), settings.line("/key"), settings.0.len()), (Some(7), Some(6), 2));
    }
}
