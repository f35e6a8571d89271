//! Content that comes as a list of parts, or as a string first and a list later.
//!
//! Pieces of text, and of thinking, that follow each other are one part, as they are where the answer is no stream.

use super::{Trace, Value, each_field};
use crate::recorder::json::{self, inside_string};

/// Parts beyond this number are no answer of a model.
const MAX_PARTS: usize = 1024;

/// One part of the content.
#[derive(Debug)]
pub(super) enum Part<'e> {
    /// As it was written.
    Raw(&'e str),
    /// `{"type":"text","text":"…"}`: its place in [`Trace::texts`].
    Text(usize),
    /// `{"type":"thinking","thinking":[…]}`
    Thinking(Vec<Part<'e>>),
}

/// What a part in a chunk is.
enum Piece<'e> {
    Text(&'e str),
    Thinking(&'e str),
    Other { speaks: bool },
}

impl<'e> Piece<'e> {
    fn read(part: &'e str) -> Self {
        let (mut kind, mut content, mut has_more) = ("", None, false);
        if part.starts_with('{') {
            // It was read as part of its chunk.
            let _ = each_field(part, |key, raw| match key.as_ref() {
                "type" => kind = raw,
                "text" | "thinking" => content = Some(raw),
                _ => has_more = true,
            });
        }
        match (kind, content) {
            ("\"text\"", Some(text)) if !has_more && text.starts_with('"') => Self::Text(text),
            ("\"thinking\"", Some(list)) if !has_more && list.starts_with('[') => Self::Thinking(list),
            _ => Self::Other { speaks: content.is_some_and(|content| !json::is_nothing(content)) },
        }
    }
}

impl<'e> Trace<'e> {
    /// Joins a list of parts to what there is.
    pub(super) fn join_parts(&mut self, slot: &mut Value<'e>, list: &'e str) {
        if !matches!(slot, Value::Parts(_)) {
            let before = match slot {
                Value::Text(text) if !self.texts[*text].is_empty() => vec![Part::Text(*text)],
                _ => Vec::new(),
            };
            *slot = Value::Parts(before);
            self.grows = true;
        }
        if let Value::Parts(parts) = slot {
            self.add_all(parts, list, true);
        }
    }

    /// Joins a string to a list of parts.
    pub(super) fn join_part(&mut self, parts: &mut Vec<Part<'e>>, raw: &'e str) {
        let text = match parts.last() {
            Some(Part::Text(text)) => Some(*text),
            _ if inside_string(raw).is_none_or(str::is_empty) => None,
            _ => self.add_text(parts),
        };
        if let Some(text) = text {
            self.extend(text, raw);
        }
    }

    fn add_all(&mut self, parts: &mut Vec<Part<'e>>, list: &'e str, may_think: bool) {
        let _ = json::each_raw(list, |part| match Piece::read(part) {
            Piece::Text(text) => self.join_part(parts, text),
            Piece::Thinking(thought) if may_think => {
                if !matches!(parts.last(), Some(Part::Thinking(_))) {
                    self.add(parts, Part::Thinking(Vec::new()));
                }
                if let Some(Part::Thinking(thoughts)) = parts.last_mut() {
                    self.add_all(thoughts, thought, false);
                }
            }
            Piece::Thinking(_) => self.add(parts, Part::Raw(part)),
            Piece::Other { speaks } => {
                self.content |= speaks;
                self.add(parts, Part::Raw(part));
            }
        });
    }

    fn add_text(&mut self, parts: &mut Vec<Part<'e>>) -> Option<usize> {
        if parts.len() >= MAX_PARTS {
            return None;
        }
        let text = self.new_text();
        self.add(parts, Part::Text(text));
        Some(text)
    }

    fn add(&mut self, parts: &mut Vec<Part<'e>>, part: Part<'e>) {
        self.grows = true;
        if parts.len() < MAX_PARTS {
            parts.push(part);
        }
    }
}

pub(super) fn write(parts: &[Part<'_>], out: &mut String, texts: &[String]) {
    out.push('[');
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        match part {
            Part::Raw(raw) => out.push_str(raw),
            Part::Text(text) => out.extend(["{\"type\":\"text\",\"text\":\"", &texts[*text], "\"}"]),
            Part::Thinking(thoughts) => {
                out.push_str("{\"type\":\"thinking\",\"thinking\":");
                write(thoughts, out, texts);
                out.push('}');
            }
        }
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::{
        Chunks, Fold as _,
        tests::{check, delta},
    };

    #[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn content(content: Json) -> Json {
        delta(json!({"content": content}))
    }

    fn text(text: &str) -> Json {
        json!({"type": "text", "text": text})
    }

    fn thinking(thought: &str) -> Json {
        json!({"type": "thinking", "thinking": [text(thought)]})
    }

    #[test]
    fn thinking_and_the_text_that_follows_are_both_kept() {
        check(
            &[
                content(json!("")),
                content(json!([thinking("Hm")])),
                content(json!([thinking(", so")])),
                content(json!("It is")),
                content(json!(" 42")),
                content(json!("")),
                content(json!(null)),
            ],
            &content(json!([thinking("Hm, so"), text("It is 42")])),
        );
    }

    #[test]
    fn a_list_after_a_string_keeps_the_string_and_other_parts_stay_as_they_are() {
        let reference = json!({"type": "reference", "reference_ids": [1]});
        let noted = json!({"type": "text", "text": "b", "annotations": []});
        check(
            &[
                content(json!("a")),
                content(json!([reference, text("b"), text("c")])),
                content(json!([noted, noted, "d", 7, [thinking("e")]])),
                content(json!([thinking("f"), text("g")])),
                content(json!([])),
            ],
            &content(json!([
                text("a"),
                reference,
                text("bc"),
                noted,
                noted,
                "d",
                7,
                [thinking("e")],
                thinking("f"),
                text("g"),
            ])),
        );
    }

    #[test]
    fn only_text_and_thinking_that_is_not_empty_is_content() {
        for (list, expected) in [
            (json!([]), false),
            (json!([text("")]), false),
            (json!([thinking("")]), false),
            (json!([{"type": "reference", "reference_ids": [1]}]), false),
            (json!([text("a")]), true),
            (json!([thinking("a")]), true),
            (json!([{"type": "thinking", "thinking": "a", "closed": true}]), true),
        ] {
            let chunk = content(list).to_string();
            let mut fold = Box::<Chunks<'_>>::default();
            assert_eq!(fold.take(&chunk).unwrap().content, expected, "{chunk}");
        }
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let list = json!({"choices": [{"delta": {"content": vec![json!({"type": "other"}); 2 * super::MAX_PARTS]}}]});
        let chunk = list.to_string();
        let mut fold = Box::<Chunks<'_>>::default();
        fold.take(&chunk).unwrap();
        let folded: Json = serde_json::from_str(&(fold.finish().head + "}")).unwrap();
        assert_eq!(folded["choices"][0]["delta"]["content"].as_array().unwrap().len(), super::MAX_PARTS);
    }

    #[test]
    fn lists_of_log_probabilities_are_no_parts() {
        let chunk = |token: &str| json!({"choices": [{"index": 0, "delta": {"content": token}, "logprobs": {"content": [text(token)]}}]});
        let both = json!({"choices": [{"index": 0, "delta": {"content": "ab"}, "logprobs": {"content": [text("a"), text("b")]}}]});
        check(&[chunk("a"), chunk("b")], &both);
    }
}
