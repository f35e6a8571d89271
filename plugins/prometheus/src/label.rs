//! Label values: cleaned, and bounded in length and number.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _};

use exporter_kit::bounded::{self, Places};

/// Longest label value in bytes; the rest is cut.
pub const MAX_LENGTH: usize = 120;

/// Stands for every value that has no place of its own.
pub const OTHER: u32 = 0;
/// Stands for no value.
pub const UNKNOWN: u32 = 1;

/// The values that one label may have. Each has a number; the first two are `other` and `unknown`.
#[derive(Debug)]
pub struct Values {
    ids: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
    /// The value before, as it came: most records differ from the one before in a label or two.
    last: (String, u32),
    /// The value that was vouched for last.
    last_vouched: String,
    places: Places,
    /// Records whose value became `other`.
    pub overflowed: u64,
}

impl Values {
    /// The first `limit` values that come along.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        let mut values = Self {
            ids: HashMap::new(),
            names: Vec::new(),
            last: (String::new(), UNKNOWN),
            last_vouched: String::new(),
            places: Places::new(limit),
            overflowed: 0,
        };
        values.add(bounded::OTHER);
        values.add("unknown");
        values
    }

    /// These values alone.
    #[must_use]
    pub fn allowed(list: &[String]) -> Self {
        let mut values = Self::first(0);
        for value in list {
            let value = clean(value);
            if !values.ids.contains_key(&*value) {
                values.add(&value);
            }
        }
        values
    }

    /// The number of `value`. Which new ones get a place is said at [`Places::take`].
    pub fn id(&mut self, value: Option<&str>, is_proven: bool) -> u32 {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return UNKNOWN };
        if value == self.last.0 {
            return self.last.1;
        }
        let cleaned = clean(value);
        let id = match self.ids.get(&*cleaned) {
            Some(id) => *id,
            None if self.places.take(&cleaned, is_proven) => self.add(&cleaned),
            None => {
                self.overflowed += 1;
                return OTHER;
            }
        };
        if value.len() <= MAX_LENGTH {
            self.last.0.clear();
            self.last.0.push_str(value);
            self.last.1 = id;
        }
        id
    }

    /// Remembers that a value exists; see [`Places::vouch`].
    pub fn vouch(&mut self, value: &str) {
        if value != self.last_vouched && value.len() <= MAX_LENGTH {
            self.places.vouch(&clean(value));
            self.last_vouched.clear();
            self.last_vouched.push_str(value);
        }
    }

    /// The value with that number.
    #[must_use]
    pub fn name(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or(bounded::OTHER, |name| name)
    }

    fn add(&mut self, value: &str) -> u32 {
        let id = u32::try_from(self.names.len()).unwrap_or(OTHER);
        self.names.push(value.into());
        self.ids.insert(value.into(), id);
        id
    }
}

/// A value without control characters but line breaks (which the formats can escape), cut to [`MAX_LENGTH`].
fn clean(value: &str) -> Cow<'_, str> {
    let cut = &value[..value.floor_char_boundary(MAX_LENGTH)];
    let is_wild = |c: char| c.is_control() && c != '\n';
    if !cut.contains(is_wild) {
        return Cow::Borrowed(cut);
    }
    let tamed = cut.replace(is_wild, "\u{fffd}");
    Cow::Owned(tamed[..tamed.floor_char_boundary(MAX_LENGTH)].to_owned())
}

/// Appends `name="value"`, escaped, after a comma where it is not the first.
pub fn write(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let _ = write!(labels, "{name}=\"");
    for character in value.chars() {
        match character {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            other => labels.push(other),
        }
    }
    labels.push('"');
}

/// Whether Prometheus takes this as the name of a label of ours.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.starts_with("__");
    starts
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(name, "le" | "quantile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_have_a_place_and_the_rest_share_one() {
        let mut values = Values::first(2);
        let (a, b) = (values.id(Some("a"), true), values.id(Some("b"), true));
        assert_ne!(a, b);
        assert_eq!(values.id(Some("c"), true), OTHER);
        assert_eq!(values.id(Some("a"), true), a);
        assert_eq!(values.id(None, true), UNKNOWN);
        assert_eq!(values.id(Some(""), true), UNKNOWN);
        assert_eq!(values.overflowed, 1);
    }

    #[test]
    fn a_value_that_is_not_proven_has_a_place_when_it_is_proven_or_vouched_for() {
        let mut values = Values::first(3);
        assert_eq!(values.id(Some("a"), false), OTHER);
        let a = values.id(Some("a"), true);
        assert_eq!(values.id(Some("a"), false), a);
        for value in ["b", "b", "c\u{1}"] {
            values.vouch(value);
        }
        assert_ne!(values.id(Some("b"), false), OTHER);
        assert_ne!(values.id(Some("c\u{2}"), false), OTHER);
        assert_eq!(values.id(Some("d"), true), OTHER, "there are three");
    }

    #[test]
    fn a_list_allows_nothing_else() {
        let mut values = Values::allowed(&["a".to_owned(), "a".to_owned(), "other".to_owned()]);
        assert_ne!(values.id(Some("a"), true), OTHER);
        assert_eq!(values.id(Some("b"), true), OTHER);
        assert_eq!(values.id(Some("other"), true), OTHER);
    }

    #[test]
    fn values_that_look_the_same_are_the_same() {
        let mut values = Values::first(5);
        let long = "x".repeat(10_000);
        for (one, same) in [("a\u{1}b", "a\u{2}b"), (&*long, &long[..MAX_LENGTH]), ("é\u{85}", "é\u{fffd}")]
        {
            assert_eq!(values.id(Some(one), true), values.id(Some(same), true), "{one:?}");
        }
        let id = values.id(Some(&"é".repeat(200)), true);
        assert_eq!(values.name(id).len(), MAX_LENGTH);
    }

    #[test]
    fn a_hostile_value_is_escaped() {
        let mut labels = String::new();
        write(&mut labels, "a", "x\"},b\\\n1");
        write(&mut labels, "b", "");
        assert_eq!(labels, r#"a="x\"},b\\\n1",b="""#);
    }

    #[test]
    fn names_are_checked() {
        for (name, is) in [
            ("team", true),
            ("_a1", true),
            ("1a", false),
            ("__a", false),
            ("le", false),
            ("a-b", false),
            ("", false),
        ] {
            assert_eq!(is_name(name), is, "{name}");
        }
    }
}
