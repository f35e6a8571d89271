//! Bodies as messages for LLM Observability. Bodies of the common APIs are read; any other is shown as the JSON it is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What went in or came out: `IO` of
/// <https://docs.datadoghq.com/llm_observability/instrumentation/api/#io>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// A conversation.
    Messages(Vec<Message>),
    /// Anything else.
    Value(String),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: String,
    /// What is said, as text. What is no text is named in brackets.
    pub content: String,
}

/// What went into an embedding or a model; `None` where there is no body.
#[must_use]
pub fn input(body: &[u8]) -> Option<Io> {
    read::<Request>(body, Request::messages)
}

/// What came out; `None` where there is no body.
#[must_use]
pub fn output(body: &[u8]) -> Option<Io> {
    read::<Response>(body, Response::messages)
}

fn read<'de, B: Deserialize<'de>>(body: &'de [u8], messages: impl Fn(B) -> Vec<Message>) -> Option<Io> {
    if body.is_empty() {
        return None;
    }
    let messages = serde_json::from_slice(body).map(messages).unwrap_or_default();
    Some(if messages.is_empty() {
        Io::Value(String::from_utf8_lossy(body).into_owned())
    } else {
        Io::Messages(messages)
    })
}

/// A request of OpenAI's (chat, responses, completions), Anthropic's or Gemini's shape.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Request {
    system: Value,
    instructions: Value,
    messages: Vec<Turn>,
    contents: Vec<Turn>,
    input: Value,
    prompt: Value,
}

impl Default for Request {
    fn default() -> Self {
        let (messages, contents) = (Vec::new(), Vec::new());
        let none = || Value::Null;
        Self { system: none(), instructions: none(), messages, contents, input: none(), prompt: none() }
    }
}

impl Request {
    fn messages(self) -> Vec<Message> {
        let rules = [self.system, self.instructions].map(|rules| said("system", &rules));
        let turns = self.messages.into_iter().chain(self.contents).map(|turn| turn.message("user"));
        let input = match self.input {
            Value::Array(items) if items.iter().all(Value::is_object) => {
                items.into_iter().filter_map(|item| serde_json::from_value::<Turn>(item).ok()).collect()
            }
            input => vec![Turn { content: input, ..Turn::default() }],
        };
        let input = input.into_iter().map(|turn| turn.message("user"));
        let all = rules.into_iter().chain(turns).chain(input).chain([said("user", &self.prompt)]);
        all.filter(|message| !message.content.is_empty()).collect()
    }
}

/// An answer of the same shapes. A stream comes folded into the shape of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    choices: Vec<Choice>,
    candidates: Vec<Candidate>,
    output: Vec<Turn>,
    content: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    message: Option<Turn>,
    delta: Option<Turn>,
    text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Candidate {
    content: Turn,
}

impl Response {
    fn messages(self) -> Vec<Message> {
        let choices = self.choices.into_iter().filter_map(|choice| {
            let text = choice.text.map(|text| Turn { content: Value::String(text), ..Turn::default() });
            choice.message.or(choice.delta).or(text)
        });
        let candidates = self.candidates.into_iter().map(|candidate| candidate.content);
        let content = self.content.map(|content| Turn { content, ..Turn::default() });
        let turns = choices.chain(candidates).chain(self.output).chain(content);
        turns.map(|turn| turn.message("assistant")).filter(|message| !message.content.is_empty()).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Turn {
    role: Option<String>,
    content: Value,
    /// Gemini's content.
    parts: Value,
    tool_calls: Value,
}

impl Turn {
    fn message(self, role: &str) -> Message {
        let mut text = text_of(&self.content);
        text.push_str(&text_of(&self.parts));
        if let Value::Array(calls) = &self.tool_calls
            && !calls.is_empty()
        {
            text.push_str(&self.tool_calls.to_string());
        }
        Message { role: self.role.unwrap_or_else(|| role.to_owned()), content: text }
    }
}

fn said(role: &str, content: &Value) -> Message {
    Message { role: role.to_owned(), content: text_of(content) }
}

/// The text of a content: itself, or that of its parts. A part that is none is named: `[image_url]`.
fn text_of(content: &Value) -> String {
    match content {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().map(text_of).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
        }
        Value::Object(part) => match (part.get("text"), part.get("parts"), part.get("type")) {
            (Some(Value::String(text)), ..) => text.clone(),
            (_, Some(parts), _) => text_of(parts),
            (.., Some(Value::String(kind))) => format!("[{kind}]"),
            _ => content.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(list: &[(&str, &str)]) -> Option<Io> {
        let message = |(role, content): &(&str, &str)| Message {
            role: (*role).to_owned(),
            content: (*content).to_owned(),
        };
        Some(Io::Messages(list.iter().map(message).collect()))
    }

    #[test]
    fn requests_of_the_common_apis_are_conversations() {
        for (body, expected) in [
            (
                r#"{"model":"m","messages":[{"role":"system","content":"Be brief"},{"role":"user","content":[{"type":"text","text":"Look"},{"type":"image_url","image_url":{}}]}]}"#,
                &[("system", "Be brief"), ("user", "Look\n[image_url]")][..],
            ),
            (
                r#"{"system":[{"type":"text","text":"Be brief"}],"messages":[{"role":"user","content":"Hi"}]}"#,
                &[("system", "Be brief"), ("user", "Hi")],
            ),
            (
                r#"{"contents":[{"role":"user","parts":[{"text":"Hi"},{"text":"there"}]}]}"#,
                &[("user", "Hi\nthere")],
            ),
            (
                r#"{"instructions":"Be brief","input":[{"role":"user","content":"Hi"}]}"#,
                &[("system", "Be brief"), ("user", "Hi")],
            ),
            (r#"{"input":"embed me"}"#, &[("user", "embed me")]),
            (r#"{"input":["a","b"]}"#, &[("user", "a\nb")]),
            (r#"{"prompt":"Once upon"}"#, &[("user", "Once upon")]),
        ] {
            assert_eq!(input(body.as_bytes()), messages(expected), "{body}");
        }
    }

    #[test]
    fn answers_of_the_common_apis_are_messages() {
        for (body, expected) in [
            (
                r#"{"choices":[{"message":{"role":"assistant","content":"Hello!"}}]}"#,
                &[("assistant", "Hello!")][..],
            ),
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":"Hello!"}}],"streamed_data":[{}]}"#,
                &[("assistant", "Hello!")],
            ),
            (
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a"}]}}]}"#,
                &[("assistant", r#"[{"id":"a"}]"#)],
            ),
            (r#"{"choices":[{"text":"a time"}]}"#, &[("assistant", "a time")]),
            (
                r#"{"role":"assistant","content":[{"type":"text","text":"Hello!"}]}"#,
                &[("assistant", "Hello!")],
            ),
            (
                r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello!"}]}}]}"#,
                &[("model", "Hello!")],
            ),
            (
                r#"{"output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hello!"}]}]}"#,
                &[("assistant", "Hello!")],
            ),
        ] {
            assert_eq!(output(body.as_bytes()), messages(expected), "{body}");
        }
    }

    #[test]
    fn any_other_body_is_shown_as_it_is() {
        let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
        for body in [
            r#"{"error":{"message":"no"}}"#,
            r#""text""#,
            "-1.5e3",
            r#"{"messages":"odd"}"#,
            r#"{"messages":[{"content":"\ud800"}]}"#,
            &deep,
        ] {
            assert_eq!(input(body.as_bytes()), Some(Io::Value(body.to_owned())));
        }
        assert_eq!((input(b""), output(b"")), (None, None));
    }
}
