//! Bodies, read with indulgence: what a client or a provider wrote oddly costs that part of the body, never the whole.
//! A lone surrogate becomes U+FFFD, a number that does not fit stays text, and what is nested too deeply stays the JSON that
//! it is. Of a key that is there twice the last one counts.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Deepest nesting that is read. Messages with their parts and the schemas of tools are far from it.
const DEEPEST: usize = 64;

/// The members of an object, in order: keys, and values as the JSON they are. Of anything else there are none.
pub fn members(text: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let mut reader = Reader { text, at: 0 };
    let mut is_open = reader.take(b'{');
    std::iter::from_fn(move || {
        if !is_open {
            return None;
        }
        let key = reader.key();
        let value = key.is_some().then(|| reader.raw());
        is_open = reader.take(b',');
        Some((key?, value?))
    })
}

/// The value that a text is; `null` where it is none.
#[must_use]
pub fn value(text: &str) -> Value {
    Reader { text, at: 0 }.value(0)
}

/// A cursor. Every step goes forward or ends the text, whatever that is.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Steps over this byte, where it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn key(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let key = unescaped(self.quoted());
        self.take(b':').then_some(key)
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.peek() {
            Some(b'{' | b'[') if depth == DEEPEST => Value::String(self.raw().to_owned()),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Value::String(unescaped(self.quoted()).into_owned()),
            _ => scalar(self.raw()),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut members = Map::new();
        let mut is_open = self.take(b'{');
        while is_open && let Some(key) = self.key() {
            members.insert(key.into_owned(), self.value(depth));
            is_open = self.take(b',');
        }
        self.take(b'}');
        Value::Object(members)
    }

    fn array(&mut self, depth: usize) -> Value {
        let mut elements = Vec::new();
        let mut is_open = self.take(b'[') && self.peek() != Some(b']');
        while is_open {
            elements.push(self.value(depth));
            is_open = self.take(b',');
        }
        self.take(b']');
        Value::Array(elements)
    }

    /// Steps over a string; what is between its quotation marks.
    fn quoted(&mut self) -> &'a str {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut end = start;
        while bytes.get(end).is_some_and(|byte| *byte != b'"') {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.at = (end + 1).min(bytes.len());
        self.text.get(start..end.min(bytes.len())).unwrap_or_default()
    }

    /// Steps over a value; its JSON.
    fn raw(&mut self) -> &'a str {
        let mut depth = 0_usize;
        self.peek();
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.quoted();
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                Some(b',' | b':' | b'}' | b']') | None => break,
                Some(_) => self.word(),
            }
            if depth == 0 {
                break;
            }
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Steps over a number or a word.
    fn word(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:{}[]\"".contains(byte);
        self.at += rest.iter().position(ends).unwrap_or(rest.len()).max(1);
    }
}

fn scalar(raw: &str) -> Value {
    match raw {
        "" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => serde_json::from_str(raw).map_or_else(|_| Value::String(raw.to_owned()), Value::Number),
    }
}

/// What stands between quotation marks, without its escapes.
fn unescaped(quoted: &str) -> Cow<'_, str> {
    let Some(first) = quoted.find('\\') else { return Cow::Borrowed(quoted) };
    let mut text = quoted[..first].to_owned();
    let mut rest = &quoted[first..];
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (character, length) = escaped(&rest[at..]);
        text.push(character);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character that an escape stands for, and the escape's length.
fn escaped(escape: &str) -> (char, usize) {
    let Some(kind) = escape[1..].chars().next() else { return (char::REPLACEMENT_CHARACTER, 1) };
    let plain = |character| (character, 2);
    match kind {
        'n' => plain('\n'),
        't' => plain('\t'),
        'r' => plain('\r'),
        'b' => plain('\u{8}'),
        'f' => plain('\u{c}'),
        'u' => match (unit(escape), unit(escape.get(6..).unwrap_or_default())) {
            (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            (Some(code), _) => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
            (None, _) => (char::REPLACEMENT_CHARACTER, 2),
        },
        other => (other, 1 + other.len_utf8()),
    }
}

/// The number of an escape such as `\u00e9`.
fn unit(escape: &str) -> Option<u32> {
    u32::from_str_radix(escape.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_odd_costs_its_part_alone() {
        for (text, expected) in [
            (r#"{"a":"x\ud800y","b":1}"#, json!({ "a": "x\u{fffd}y", "b": 1 })),
            (r#"{"a":"\udc00\ud83d\ude00"}"#, json!({ "a": "\u{fffd}😀" })),
            (r#"{"a":1e999,"b":[true]}"#, json!({ "a": "1e999", "b": [true] })),
            (r#"{"a":1,"a":2}"#, json!({ "a": 2 })),
            (r#" { "a" : [ 1 , { } , [ ] , "" ] } "#, json!({ "a": [1, {}, [], ""] })),
            ("", json!(null)),
            ("NaN", json!("NaN")),
            (r#"{"a":"cut"#, json!({ "a": "cut" })),
            (r#"{"a":[1,"#, json!({ "a": [1, null] })),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_stays_as_it_is() {
        let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
        let found = value(&format!(r#"{{"deep":{deep},"b":"B"}}"#));
        assert_eq!(found["b"], "B");
        let mut at = &found["deep"];
        let mut levels = 0;
        while let Value::Array(inner) = at {
            (at, levels) = (&inner[0], levels + 1);
        }
        let kept = at.as_str().unwrap();
        assert_eq!(kept.matches('[').count() + levels, 1000);
        assert!(levels < DEEPEST && kept.ends_with(']'), "{levels}");
    }

    #[test]
    fn members_are_read_without_what_is_in_them() {
        let text = r#"{"a": {"x":"}\"]"} ,"b\u0041":[1,[2]],"c":-1.5e3,"d":"t"}"#;
        let found: Vec<_> = members(text).collect();
        let found: Vec<_> = found.iter().map(|(key, raw)| (&**key, *raw)).collect();
        assert_eq!(found, [("a", r#"{"x":"}\"]"}"#), ("bA", "[1,[2]]"), ("c", "-1.5e3"), ("d", r#""t""#)]);
        for text in ["", "[]", "7", "{}", "{", "null"] {
            assert_eq!(members(text).count(), 0, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_read_as_serde_reads_it(expected in any_json()) {
            prop_assert_eq!(&value(&expected.to_string()), &expected);
            prop_assert_eq!(&value(&serde_json::to_string_pretty(&expected).unwrap()), &expected);
            if let Value::Object(object) = &expected {
                let text = expected.to_string();
                let found: Map<String, Value> =
                    members(&text).map(|(key, raw)| (key.into_owned(), value(raw))).collect();
                prop_assert_eq!(&found, object);
            }
        }

        #[test]
        fn no_text_is_too_odd(text: String, junk in r#"[\[\]{}",:\\u0a ]{0,40}"#) {
            let _ = value(&text);
            let _ = value(&junk);
            members(&junk).for_each(drop);
        }
    }
}
