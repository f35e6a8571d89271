//! What the chunks of a stream have in common.
//!
//! A stream's chunks are the same text over and over, but for a few strings and numbers: the piece of text, a nonce, a
//! counter. A template is one chunk with holes where those stand. A chunk that fits it byte for byte, with a well-formed
//! value of the same type in each hole, is well-formed JSON and means the same as the one before it but for the values
//! in the holes. That is found out without parsing it: 0.1 µs a chunk, where `serde_json` takes 0.4 to check it and 3 to parse
//! and merge it (docs/performance.md).

/// One chunk, with holes.
#[derive(Debug, Clone)]
pub(crate) struct Template<'e, T> {
    /// What stands before each hole.
    parts: Vec<(&'e str, Hole<T>)>,
    /// What stands after the last.
    end: &'e str,
}

#[derive(Debug, Clone)]
struct Hole<T> {
    kind: Kind,
    /// What a value in this hole is for.
    meaning: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    String,
    Number,
}

impl<'e, T: Copy> Template<'e, T> {
    /// The template of `chunk`, which is well-formed. `holes` are slices of it, each one whole JSON value, with what each
    /// is for. `None` when one is no string and no plain number.
    pub(crate) fn new(chunk: &'e str, mut holes: Vec<(&'e str, T)>) -> Option<Self> {
        holes.sort_by_key(|(value, _)| value.as_ptr());
        let mut parts = Vec::with_capacity(holes.len());
        let mut end = chunk;
        for (value, meaning) in holes {
            let start = (value.as_ptr() as usize).checked_sub(end.as_ptr() as usize)?;
            let kind = if value.starts_with('"') { Kind::String } else { Kind::Number };
            let (before, rest) = (end.get(..start)?, end.get(start..)?);
            let length = kind.length(rest).filter(|length| *length == value.len())?;
            parts.push((before, Hole { kind, meaning }));
            end = &rest[length..];
        }
        Some(Self { parts, end })
    }

    /// Puts the values that `chunk` has in the holes into `values`; false when it does not fit.
    pub(crate) fn fit(&self, chunk: &'e str, values: &mut Vec<(&'e str, T)>) -> bool {
        values.clear();
        let mut rest = chunk;
        for (before, hole) in &self.parts {
            let Some(after) = rest.strip_prefix(before) else { return false };
            let Some(length) = hole.kind.length(after) else { return false };
            let (value, after) = after.split_at(length);
            values.push((value, hole.meaning));
            rest = after;
        }
        rest == self.end
    }
}

impl Kind {
    /// Length of the value of this kind that `text` begins with.
    fn length(self, text: &str) -> Option<usize> {
        match self {
            Self::String => string_length(text.as_bytes()),
            Self::Number => number_length(text.as_bytes()),
        }
    }
}

/// Length of the JSON string that `text` begins with, quotes included.
pub(super) fn string_length(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        let run = memchr::memchr2(b'"', b'\\', &inside[at..])?;
        // The least byte of all, not the first that is too small: without an early end, the compiler takes many bytes
        // at once.
        if inside[at..at + run].iter().fold(u8::MAX, |least, byte| least.min(*byte)) < 0x20 {
            return None;
        }
        at += run;
        if inside[at] == b'"' {
            return Some(at + 2);
        }
        at += match inside.get(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' if inside.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
    }
}

/// Length of the whole number that `text` begins with. What else may belong to it (a fraction, an exponent) then stands
/// where the template wants a comma or a brace, and does not fit.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits == 1 || (digits > 1 && text[0] != b'0')).then_some(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static CHUNK: &str = r#"{"n":17,"delta":{"content":"a"},"nonce":"x"}"#;

    fn template() -> Template<'static, usize> {
        let holes = [("17", 0), (r#""a""#, 1), (r#""x""#, 2)];
        let holes =
            holes.map(|(value, meaning)| (&CHUNK[CHUNK.find(value).unwrap()..][..value.len()], meaning));
        Template::new(CHUNK, holes.into_iter().rev().collect()).unwrap()
    }

    fn fit(chunk: &'static str) -> Option<Vec<&'static str>> {
        let mut values = Vec::new();
        let fits = template().fit(chunk, &mut values);
        fits.then(|| values.into_iter().map(|(value, _)| value).collect())
    }

    #[test]
    fn a_chunk_fits_when_it_differs_in_the_holes_alone() {
        assert_eq!(fit(CHUNK), Some(vec!["17", r#""a""#, r#""x""#]));
        assert_eq!(
            fit(r#"{"n":0,"delta":{"content":"\" \\ \n é \u00e9 \ud83d"},"nonce":""}"#),
            Some(vec!["0", r#""\" \\ \n é \u00e9 \ud83d""#, r#""""#])
        );
    }

    #[test]
    fn any_other_difference_does_not_fit() {
        for chunk in [
            r#"{"n":17,"delta":{"content":"a"},"nonce":"x"} "#,
            r#"{"n":17,"delta":{"content":"a"},"nonce":"x""#,
            r#"{"n":17,"delta":{"content":"a","b":1},"nonce":"x"}"#,
            r#"{"n":17,"delta":{"content":null},"nonce":"x"}"#,
            r#"{"n":1.5,"delta":{"content":"a"},"nonce":"x"}"#,
            r#"{"n":017,"delta":{"content":"a"},"nonce":"x"}"#,
            r#"{"n":,"delta":{"content":"a"},"nonce":"x"}"#,
            r#"{"n":17,"delta":{"content":"\q"},"nonce":"x"}"#,
            r#"{"n":17,"delta":{"content":"\u00g0"},"nonce":"x"}"#,
            r#"{"n":17,"delta":{"content":"\u00"},"nonce":"x"}"#,
            "{\"n\":17,\"delta\":{\"content\":\"\u{1}\"},\"nonce\":\"x\"}",
            "",
        ] {
            assert_eq!(fit(chunk), None, "{chunk}");
        }
    }

    #[test]
    fn a_hole_is_a_string_or_a_whole_number() {
        for (chunk, hole) in
            [("[null]", "null"), ("[1.5]", "1.5"), ("[-1]", "-1"), ("[{}]", "{}"), ("[]", "[")]
        {
            let hole = &chunk[chunk.find(hole).unwrap()..][..hole.len()];
            assert!(Template::new(chunk, vec![(hole, ())]).is_none(), "{chunk}");
        }
        assert!(Template::new("[1]", vec![("1", ())]).is_none(), "a hole from somewhere else");
    }

    proptest! {
        #[test]
        fn what_is_taken_for_a_string_is_one(text in "[\"\\\\a-fu0-9\u{0}-\u{1f}é]{0,12}\"?") {
            let text = format!("\"{text}");
            let is_string = |text: &str| {
                serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
            };
            let length = string_length(text.as_bytes());
            prop_assert_eq!(length == Some(text.len()), is_string(&text), "{:?}", text);
            prop_assert!(length.is_none_or(|length| is_string(&text[..length])), "{:?}", text);
        }
    }
}
