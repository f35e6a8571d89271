//! Borrowed, partial reading of JSON: an object's fields as slices of its text. Reading them checks the whole text.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    fmt,
    marker::PhantomData,
};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::template::string_length;

/// Values deeper than this keep the keys that they repeat.
const MAX_DEPTH: u8 = 16;

/// Fields of one object, each value as its JSON text. Of a repeated key the last value counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    /// Reads `text`. What could be read before an error is kept: the head of a cut answer names its model.
    pub(crate) fn read(text: &'a str) -> (Self, Result<(), serde_json::Error>) {
        let mut fields = Self(Vec::with_capacity(12));
        let end = each_field(text, |key, raw| fields.push(key, Cow::Borrowed(raw)));
        (fields, end)
    }

    /// Adds a field that comes after the others.
    pub(crate) fn push(&mut self, key: Cow<'a, str>, raw: Cow<'a, str>) {
        self.0.push((key, raw));
    }

    /// Adds fields that come after the others.
    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The same, independent of the text.
    pub(crate) fn into_owned(self) -> Fields<'static> {
        let owned = |(key, raw): (Cow<'_, str>, Cow<'_, str>)| {
            (Cow::Owned(key.into_owned()), Cow::Owned(raw.into_owned()))
        };
        Fields(self.0.into_iter().map(owned).collect())
    }

    /// The field's JSON text, unless it is missing or `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, raw) = self.0.iter().rev().find(|(key, _)| key == name)?;
        (raw != "null").then_some(raw)
    }

    /// The field as text, when it is a string.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        text(self.get(name)?)
    }

    /// The fields of a field that is an object; none otherwise.
    pub(crate) fn object(&self, name: &str) -> Fields<'_> {
        self.get(name).map(|raw| Fields::read(raw).0).unwrap_or_default()
    }
}

/// Calls `each` with every field of the object that `text` is. Fails when it is no object, or not JSON to its end.
pub(crate) fn each_field<'a>(
    text: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(EachField(each))?;
    deserializer.end()
}

struct EachField<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de str)> Visitor<'de> for EachField<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            self.0(key, map.next_value::<&RawValue>()?.get());
        }
        Ok(())
    }
}

/// Calls `each` with every element of the array that `text` is, up to the first that is no `T`; then it fails.
pub(crate) fn each_element<'a, T: Deserialize<'a>>(
    text: &'a str,
    each: impl FnMut(T),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_seq(EachElement(each, PhantomData))?;
    deserializer.end()
}

/// The same with every element as it is written.
pub(crate) fn each_raw<'a>(text: &'a str, mut each: impl FnMut(&'a str)) -> Result<(), serde_json::Error> {
    each_element(text, |element: &'a RawValue| each(element.get()))
}

struct EachElement<F, T>(F, PhantomData<T>);

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for EachElement<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            self.0(element);
        }
        Ok(())
    }
}

/// An object's key, borrowed where it has no escapes. (serde's own `Cow` is always a copy.)
pub(crate) struct Key<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// What stands between the quotes of a JSON string, escapes untouched.
pub(crate) fn inside_string(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// What stands between the brackets of a JSON array.
pub(crate) fn inside_array(raw: &str) -> Option<&str> {
    Some(raw.strip_prefix('[')?.strip_suffix(']')?.trim_matches([' ', '\t', '\n', '\r']))
}

/// Whether a value says that there is nothing: `null`, `false`, `0`, or an empty string, array or object.
pub(crate) fn is_nothing(raw: &str) -> bool {
    let inside = |open, close| raw.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    matches!(raw, "null" | "false" | "0" | "\"\"")
        || [inside('[', ']'), inside('{', '}')].into_iter().flatten().any(|inside| inside.trim().is_empty())
}

/// JSON text with `null` in place of `NaN` and `Infinity`, which Python writes and reads although JSON has no such
/// numbers. `None` when there are none.
pub(crate) fn finite(text: &str) -> Option<String> {
    if !["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
        return None;
    }
    let outside = |text: &str| {
        ["-Infinity", "Infinity", "NaN"].iter().fold(text.to_owned(), |text, word| text.replace(word, "null"))
    };
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(quote) = rest.find('"') {
        let (before, string) = rest.split_at(quote);
        let (string, after) = string.split_at(string_length(string.as_bytes())?);
        out.push_str(&outside(before));
        out.push_str(string);
        rest = after;
    }
    out.push_str(&outside(rest));
    (out != text).then_some(out)
}

/// JSON text in which no object has the same key twice: the last value stays, as in everything that reads JSON into maps.
/// `None` when none has, or the text is no JSON.
pub(crate) fn unique_keys(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    write_unique(&mut out, text.trim(), 0).ok()?.then_some(out)
}

/// Writes a value; says whether it is another than before.
fn write_unique(out: &mut String, raw: &str, depth: u8) -> Result<bool, serde_json::Error> {
    match raw.as_bytes().first() {
        Some(b'{') if depth < MAX_DEPTH => write_unique_fields(out, raw, depth + 1),
        Some(b'[') if depth < MAX_DEPTH => write_unique_elements(out, raw, depth + 1),
        _ => {
            out.push_str(raw);
            Ok(false)
        }
    }
}

fn write_unique_fields(out: &mut String, raw: &str, depth: u8) -> Result<bool, serde_json::Error> {
    let (mut fields, mut places, mut changes) = (Vec::new(), HashMap::new(), false);
    each_field(raw, |key, value| match places.entry(key.clone()) {
        Entry::Vacant(place) => {
            place.insert(fields.len());
            fields.push((key, value));
        }
        Entry::Occupied(place) => {
            changes = true;
            fields[*place.get()].1 = value;
        }
    })?;
    out.push('{');
    for (position, (key, value)) in fields.into_iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        write_key(out, &key);
        changes |= write_unique(out, value, depth)?;
    }
    out.push('}');
    Ok(changes)
}

fn write_unique_elements(out: &mut String, raw: &str, depth: u8) -> Result<bool, serde_json::Error> {
    let mut elements = Vec::new();
    each_raw(raw, |element| elements.push(element))?;
    out.push('[');
    let mut changes = false;
    for (position, element) in elements.into_iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        changes |= write_unique(out, element, depth)?;
    }
    out.push(']');
    Ok(changes)
}

/// A JSON string as text.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inside = inside_string(raw)?;
    if inside.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inside))
}

/// A JSON number as a count. `12.0` is one (some servers count in floats); `-1` and `1.5` are not.
pub(crate) fn count(raw: &str) -> Option<u64> {
    if let Ok(count) = raw.parse() {
        return Some(count);
    }
    raw.strip_suffix(".0")?.parse().ok()
}

/// Writes `key` as it stands before its value.
pub(crate) fn write_key(out: &mut String, key: &str) {
    if key.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        // A key of text always serializes.
        out.push_str(&serde_json::to_string(key).unwrap_or_default());
    } else {
        out.extend(["\"", key, "\""]);
    }
    out.push(':');
}

/// Makes JSON one line. Outside of strings a line break means no more than a space does, and inside it cannot stand;
/// so bodies may be spliced into formats of one record per line as they are.
pub(crate) fn flatten(json: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', &json[from..]) {
        json[from + at] = b' ';
        from += at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_slices_and_the_whole_text_is_checked() {
        let (fields, end) = Fields::read(r#"{"model":"m\u0021","n":3,"gone":null,"a":{"b":[1]},"n":4}"#);
        assert!(end.is_ok());
        assert_eq!(fields.text("model").as_deref(), Some("m!"));
        assert_eq!(fields.get("n"), Some("4"));
        assert_eq!(fields.get("gone"), None);
        assert_eq!(fields.object("a").get("b"), Some("[1]"));
        assert_eq!(fields.text("n"), None);
        for broken in ["", "[]", "5", "{", r#"{"a":1} x"#, r#"{"a":01}"#, r#"{"a":"\q"}"#, "{\"a\":\"\n\"}"] {
            assert!(Fields::read(broken).1.is_err(), "{broken}");
        }
    }

    #[test]
    fn the_head_of_a_cut_object_still_gives_its_fields() {
        let (fields, end) = Fields::read(r#"{"model":"m","choices":[{"a"#);
        assert!(end.is_err());
        assert_eq!(fields.text("model").as_deref(), Some("m"));
    }

    #[test]
    fn only_whole_numbers_count() {
        for (raw, counted) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("17.0", Some(17)),
            ("-1", None),
            ("1.5", None),
            ("\"3\"", None),
        ] {
            assert_eq!(count(raw), counted, "{raw}");
        }
    }

    #[test]
    fn flattened_json_means_the_same() {
        let mut json = "{\r\n  \"a\": \"x\\ny\",\n\n  \"b\": [1,\n2]\n}".to_owned().into_bytes();
        let before: serde_json::Value = serde_json::from_slice(&json).unwrap();
        flatten(&mut json);
        assert!(!json.contains(&b'\n') && !json.contains(&b'\r'));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), before);
    }

    #[test]
    fn what_is_empty_or_false_says_nothing() {
        for raw in ["null", "false", "0", "\"\"", "[]", "{}", "[ ]", "{ \t}"] {
            assert!(is_nothing(raw), "{raw}");
        }
        for raw in ["true", "1", "\" \"", "[null]", "{\"a\":null}", "\"null\""] {
            assert!(!is_nothing(raw), "{raw}");
        }
    }

    #[test]
    fn numbers_that_json_does_not_have_become_null_and_words_in_strings_stay() {
        for (text, expected) in [
            (
                r#"{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN \" NaN"}"#,
                Some(r#"{"a":null,"b":[null,null],"c":"NaN \" NaN"}"#),
            ),
            (r#"{"c":"NaN"}"#, None),
            (r#"{"a":1}"#, None),
            (r#"{"a":NaN,"b":"not closed}"#, None),
        ] {
            assert_eq!(finite(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_value_stays_at_any_depth() {
        for (text, expected) in [
            (r#"{"a":1,"b":2,"\u0061":3}"#, Some(r#"{"a":3,"b":2}"#)),
            (r#" {"x":[{"d":{"c":"1","c":"2"}},"s",[]]} "#, Some(r#"{"x":[{"d":{"c":"2"}},"s",[]]}"#)),
            (r#"{"a":{"b":1},"c":{"b":1}}"#, None),
            (r#"{"a":1,"a":2"#, None),
            ("7", None),
        ] {
            assert_eq!(unique_keys(text).as_deref(), expected, "{text}");
        }
        let deep = format!("{}{{\"a\":1,\"a\":2}}{}", "[".repeat(9000), "]".repeat(9000));
        assert_eq!(unique_keys(&deep), None);
    }
}
