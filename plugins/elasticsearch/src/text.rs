//! What people wrote and models answered, as one text that is searched by words.

use std::borrow::Cow;

use crate::tokens::{Kind, Token, Tokens, unescaped};

/// Names of members that hold such text, in the APIs of OpenAI, of those who speak like it, and of Anthropic.
const SPOKEN: [&str; 16] = [
    "content",
    "text",
    "input",
    "prompt",
    "instructions",
    "system",
    "arguments",
    "output",
    "refusal",
    "reasoning",
    "reasoning_content",
    "thinking",
    "transcript",
    "message",
    "suffix",
    "query",
];

/// The single events of a stream say again what the answer that was put together says.
const EVENTS: &str = "streamed_data";

/// Which end of a text stays when it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Its beginning.
    First,
    /// Its end: in a conversation that is the question that is new.
    Last,
}

/// The text in a body, at most `max_bytes` of it, with a line break between two pieces. Empty where there is none.
#[must_use]
pub fn text(body: &[u8], max_bytes: usize, keep: Keep) -> String {
    let mut pieces = pieces(body);
    if keep == Keep::Last {
        pieces.reverse();
    }
    let (mut kept, mut left) = (Vec::new(), max_bytes);
    for piece in &pieces {
        let piece = String::from_utf8_lossy(piece);
        let part = cut(&piece, left, keep).to_owned();
        let is_whole = part.len() == piece.len();
        if !part.is_empty() {
            left -= part.len();
            kept.push(part);
        }
        if !is_whole || left <= 1 {
            break;
        }
        left -= 1;
    }
    if keep == Keep::Last {
        kept.reverse();
    }
    kept.join("\n")
}

fn cut(text: &str, max_bytes: usize, keep: Keep) -> &str {
    match keep {
        Keep::First => &text[..text.floor_char_boundary(max_bytes)],
        Keep::Last => &text[text.ceil_char_boundary(text.len().saturating_sub(max_bytes))..],
    }
}

fn pieces(body: &[u8]) -> Vec<Cow<'_, [u8]>> {
    // Whether a string here is such text, for each object and array around it.
    let (mut around, mut pieces) = (Vec::new(), Vec::new());
    let mut tokens = Tokens::of(body);
    while let Some(token) = tokens.next() {
        match token {
            // What a list holds is what its name says; what an object holds has names of its own.
            Token::Open(Kind::Array) => around.push(around.last().copied().unwrap_or_default()),
            Token::Open(Kind::Object) => around.push(false),
            Token::Close(_) => drop(around.pop()),
            Token::Key(range) if body[range.clone()] == *EVENTS.as_bytes() => skip_value(&mut tokens),
            Token::Key(range) => {
                if let Some(is_spoken) = around.last_mut() {
                    *is_spoken = SPOKEN.iter().any(|name| body[range.clone()] == *name.as_bytes());
                }
            }
            Token::Text(range) if !range.is_empty() && around.last() == Some(&true) => {
                pieces.push(unescaped(&body[range]));
            }
            Token::Text(_) | Token::Number(_) | Token::Word => {}
        }
    }
    pieces
}

fn skip_value(tokens: &mut Tokens<'_>) {
    let depth = tokens.depth();
    while tokens.next().is_some() && tokens.depth() > depth {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str) -> String {
        text(body.as_bytes(), 1000, Keep::First)
    }

    #[test]
    fn what_was_said_is_found_wherever_an_api_has_it() {
        for (body, expected) in [
            ("", ""),
            (r#""content""#, ""),
            (
                r#"{"model":"m","messages":[{"role":"system","content":"Be brief"},{"role":"user","content":[{"type":"text","text":"What \"is\" this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}"#,
                "Be brief\nWhat \"is\" this?",
            ),
            (r#"{"model":"m","input":"Tell me","instructions":"Rhyme"}"#, "Tell me\nRhyme"),
            (r#"{"input":["one","two"]}"#, "one\ntwo"),
            (r#"{"prompt":["one",[1,2]],"stop":["x"]}"#, "one"),
            (
                r#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]}}]}"#,
                r#"{"city":"Oslo"}"#,
            ),
            (r#"{"output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}]}"#, "Hi"),
            (
                r#"{"choices":[{"delta":{"content":"Hi"}}],"streamed_data":[{"choices":[{"delta":{"content":"H"}}]}],"error":{"message":"late","type":"t"}}"#,
                "Hi\nlate",
            ),
            (r#"{"streamed_data":[],"content":"a"}"#, "a"),
            (r#"{"content":"","text":"\ud800"}"#, r"\ud800"),
        ] {
            assert_eq!(all(body), expected, "{body}");
        }
    }

    #[test]
    fn of_a_long_text_one_end_stays() {
        let body = r#"{"input":["one","zwölf","three"]}"#;
        for (max_bytes, first, last) in [
            (99, "one\nzwölf\nthree", "one\nzwölf\nthree"),
            (8, "one\nzwö", "lf\nthree"),
            (7, "one\nzw", "f\nthree"),
            (5, "one\nz", "three"),
            (3, "one", "ree"),
            (0, "", ""),
        ] {
            assert_eq!(text(body.as_bytes(), max_bytes, Keep::First), first, "{max_bytes}");
            assert_eq!(text(body.as_bytes(), max_bytes, Keep::Last), last, "{max_bytes}");
        }
    }
}
