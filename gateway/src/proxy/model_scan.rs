//! The `model` of a JSON object that is too large to be kept, found while it passes.
//!
//! Of such a body both ends are kept; but SDKs write the messages first, then the model, then the tools, and all of these
//! may be long. Nothing is parsed: strings, brackets and commas are enough to tell the object's own keys.

use crate::recorder::MAX_ID_BYTES;

/// A name is cut at [`MAX_ID_BYTES`], and a character may be written in six bytes.
const MAX_WRITTEN: usize = 6 * MAX_ID_BYTES;

/// Looks for the first `model` that is a string.
#[derive(Debug, Default)]
pub(crate) struct ModelScan {
    depth: usize,
    string: Inside,
    /// At the object's own level: what comes next is a key.
    at_key: bool,
    /// The key before the value that comes next is the one that is looked for.
    is_model: bool,
    /// The string at hand, when it is the object's own: a key, or the value.
    noted: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    String,
    /// Behind a backslash.
    Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Looking,
    Found,
    /// There is none, or this is no JSON object.
    Over,
}

impl ModelScan {
    /// Takes the next bytes of the body.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while self.state == State::Looking {
            bytes = match (self.string, bytes) {
                (_, []) => return,
                (Inside::Nothing, [byte, rest @ ..]) => {
                    self.structure(*byte);
                    rest
                }
                (Inside::String, _) => {
                    let end = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                    self.note(&bytes[..end]);
                    self.delimiter(&bytes[end..])
                }
                (Inside::Escape, [byte, rest @ ..]) => {
                    self.note(&[*byte]);
                    self.string = Inside::String;
                    rest
                }
            };
        }
    }

    /// The model as it is written, quotes included.
    pub(crate) fn into_model(self) -> Option<String> {
        let text = (self.state == State::Found).then(|| String::from_utf8(self.noted))?.ok()?;
        Some(format!("\"{text}\""))
    }

    /// A byte outside of strings.
    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' if self.depth > 0 => {
                self.string = Inside::String;
                self.noted.clear();
            }
            b'{' if self.depth == 0 => (self.depth, self.at_key) = (1, true),
            b'{' | b'[' if self.depth > 0 => self.depth += 1,
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            b',' if self.depth == 1 => self.at_key = true,
            b':' if self.depth == 1 => self.at_key = false,
            b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF => {}
            _ if self.depth > 0 && !matches!(byte, b'}' | b']') => {}
            _ => self.state = State::Over,
        }
    }

    /// The end of a string, or a backslash in it; what follows.
    fn delimiter<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let [byte, rest @ ..] = bytes else { return bytes };
        if *byte == b'\\' {
            self.note(b"\\");
            self.string = Inside::Escape;
            return rest;
        }
        self.string = Inside::Nothing;
        if self.depth == 1 && self.at_key {
            self.is_model = self.noted == b"model";
        } else if self.depth == 1 && self.is_model {
            self.state = if self.noted.len() > MAX_WRITTEN { State::Over } else { State::Found };
        }
        rest
    }

    /// Keeps one byte more than the limit, so that a string that is too long still looks so when it ends.
    fn note(&mut self, bytes: &[u8]) {
        if self.depth == 1 && (self.at_key || self.is_model) {
            let room = (MAX_WRITTEN + 1).saturating_sub(self.noted.len());
            self.noted.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_own_model_is_found_wherever_the_bytes_are_cut() {
        for (body, expected) in [
            (r#"{"model":"m"}"#, Some(r#""m""#)),
            (
                "\u{FEFF} {\n\"messages\" : [ {\"model\": \"no\"} ], \"model\" : \"m\" , \"x\":",
                Some(r#""m""#),
            ),
            (
                r#"{"a":"\"model\":\"no\" \\","model":"a\"\u0062é\\","model":"later"}"#,
                Some(r#""a\"\u0062é\\""#),
            ),
            (r#"{"a":{"model":"no","b":[{"model":"no"}]},"c":["model","no"],"model":"m"}"#, Some(r#""m""#)),
            (r#"{"a":"model","b":"no","model":"m"}"#, Some(r#""m""#)),
            (r#"{"model":7,"models":"no","Model":"no","a":1.5e3,"b":null}"#, None),
            (r#"{"model":{"name":"no"}}"#, None),
            (r#"{"model":"cut off"#, None),
            (r#"{} {"model":"no"}"#, None),
            (r#"[{"model":"no"}]"#, None),
            (r#""model":"no""#, None),
            ("model", None),
            ("", None),
        ] {
            for size in 1..=body.len().max(1) {
                let mut scan = ModelScan::default();
                body.as_bytes().chunks(size).for_each(|bytes| scan.push(bytes));
                assert_eq!(scan.into_model().as_deref(), expected, "{body} by {size}");
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_string_is_bounded() {
        for (length, is_found) in [(MAX_WRITTEN, true), (MAX_WRITTEN + 1, false), (1 << 20, false)] {
            let mut scan = ModelScan::default();
            scan.push(format!("{{\"{}\":1,\"model\":\"", "k".repeat(1 << 20)).as_bytes());
            vec![b'm'; length].chunks(1000).for_each(|bytes| scan.push(bytes));
            assert!(scan.noted.len() <= MAX_WRITTEN + 1);
            scan.push(b"\"}");
            assert_eq!(scan.into_model().is_some(), is_found, "{length}");
        }
    }
}
