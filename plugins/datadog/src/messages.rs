//! Bodies as messages for LLM Observability, and as documents for embeddings. Bodies of the common APIs are read; any other
//! is shown as the JSON it is.
//!
//! The fields of tool calls and results are those that Datadog's SDK reference has
//! (<https://docs.datadoghq.com/llm_observability/instrument/sdk/#enriching-spans>); the page of the HTTP API
//! (<https://docs.datadoghq.com/llm_observability/instrumentation/api/>) has the rest.

use exporter_kit::value;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tools::{self, ToolCall, ToolResult};

/// What went in or came out: `IO` of
/// <https://docs.datadoghq.com/llm_observability/instrumentation/api/#io>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// A conversation.
    Messages(Vec<Message>),
    /// What is embedded.
    Documents(Vec<Document>),
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
    /// Tools that are to be called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// What tools returned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_results: Vec<ToolResult>,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The text, or the tokens as JSON.
    pub text: String,
}

/// What went into a model; `None` where there is no body.
#[must_use]
pub fn input(body: &[u8]) -> Option<Io> {
    read::<Request>(body, |request| some(request.messages()).map(Io::Messages))
}

/// What came out of it; `None` where there is no body.
#[must_use]
pub fn output(body: &[u8]) -> Option<Io> {
    read::<Response>(body, |response| some(response.messages()).map(Io::Messages))
}

/// What went into an embedding; `None` where there is no body.
#[must_use]
pub fn embedded(body: &[u8]) -> Option<Io> {
    read::<Request>(body, |request| some(documents(request.input)).map(Io::Documents))
}

/// What came out of it, which is only described: nobody reads a vector.
#[must_use]
pub fn embeddings(body: &[u8]) -> Option<Io> {
    read::<Embeddings<'_>>(body, |answer| {
        let size = answer.data.first()?.embedding.size()?;
        Some(Io::Value(format!("[{} embedding(s) of size {size}]", answer.data.len())))
    })
}

fn read<'de, B: Deserialize<'de>>(body: &'de [u8], io: impl Fn(B) -> Option<Io>) -> Option<Io> {
    if body.is_empty() {
        return None;
    }
    let known = serde_json::from_slice(body).ok().and_then(io);
    Some(known.unwrap_or_else(|| Io::Value(String::from_utf8_lossy(body).into_owned())))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

/// A text, several, or the same as tokens.
fn documents(input: Value) -> Vec<Document> {
    let are_tokens = |items: &[Value]| items.first().is_some_and(Value::is_number);
    let texts = match input {
        Value::Array(items) if !are_tokens(&items) => items,
        Value::Null => Vec::new(),
        input => vec![input],
    };
    let text = |text: Value| match text {
        Value::String(text) => text,
        other => other.to_string(),
    };
    texts.into_iter().map(|item| Document { text: text(item) }).collect()
}

#[derive(Debug, Deserialize)]
struct Embeddings<'a> {
    #[serde(borrow)]
    data: Vec<Embedding<'a>>,
}

#[derive(Debug, Deserialize)]
struct Embedding<'a> {
    #[serde(borrow)]
    embedding: Vector<'a>,
}

/// A list of numbers, or floats of four bytes as base64.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Vector<'a>(#[serde(borrow)] value::Value<'a>);

impl Vector<'_> {
    fn size(&self) -> Option<usize> {
        match &self.0 {
            value::Value::List(size) => Some(*size),
            value::Value::Text(base64) => Some(base64.trim_end_matches('=').len() * 3 / 16),
            _ => None,
        }
    }
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
        let rules = [self.system, self.instructions].map(|rules| said("system", rules));
        let turns = self.messages.into_iter().chain(self.contents).map(|turn| turn.message("user"));
        let input = match self.input {
            Value::Array(items) if items.iter().all(Value::is_object) => {
                items.into_iter().filter_map(|item| serde_json::from_value::<Turn>(item).ok()).collect()
            }
            input => vec![Turn { content: input, ..Turn::default() }],
        };
        let input = input.into_iter().map(|turn| turn.message("user"));
        let all = rules.into_iter().chain(turns).chain(input).chain([said("user", self.prompt)]);
        all.filter(Message::says_something).collect()
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
        turns.map(|turn| turn.message("assistant")).filter(Message::says_something).collect()
    }
}

impl Message {
    fn says_something(&self) -> bool {
        !(self.content.is_empty() && self.tool_calls.is_empty() && self.tool_results.is_empty())
    }
}

/// A message of any of the APIs, or an item of the Responses API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Turn {
    role: Option<String>,
    content: Value,
    /// Gemini's content.
    parts: Value,
    refusal: Value,
    /// Of a reasoning item.
    summary: Value,
    #[serde(flatten)]
    tools: tools::Mentioned,
}

impl Turn {
    fn message(self, role: &str) -> Message {
        let role = self.role.as_deref().or(self.tools.role()).unwrap_or(role);
        let mut text = [&self.content, &self.parts, &self.refusal, &self.summary].map(text_of).concat();
        let tool_calls = self.tools.calls(&[&self.content, &self.parts]);
        let tool_results = self.tools.results(role, &mut text, &[&self.content, &self.parts]);
        Message { role: role.to_owned(), content: text, tool_calls, tool_results }
    }
}

fn said(role: &str, content: Value) -> Message {
    Turn { content, ..Turn::default() }.message(role)
}

/// The text of a content: itself, or that of its parts. A part that is none is named: `[image_url]`; calls of tools and
/// their results are none of the text.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().map(text_of).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
        }
        Value::Object(part) if tools::is_tool_part(part) => String::new(),
        Value::Object(part) => {
            if let Some(text) = ["text", "thinking", "refusal", "parts"].iter().find_map(|key| part.get(*key))
            {
                return text_of(text);
            }
            match part.get("type") {
                Some(Value::String(kind)) => format!("[{kind}]"),
                _ => content.to_string(),
            }
        }
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
            tool_calls: Vec::new(),
            tool_results: Vec::new(),
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
            (r#"{"choices":[{"message":{"content":null,"refusal":"No."}}]}"#, &[("assistant", "No.")]),
            (
                r#"{"choices":[{"message":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}]},{"type":"text","text":"Yes"}]}}]}"#,
                &[("assistant", "Hm.\nYes")],
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

    /// The messages as Datadog has them.
    fn json(io: Option<Io>) -> Value {
        serde_json::to_value(io).unwrap()
    }

    #[test]
    fn calls_of_tools_and_their_results_are_told_from_text() {
        let call = serde_json::json!({
            "role": "assistant", "content": "", "tool_calls": [
                { "name": "weather", "arguments": { "city": "Oslo" }, "tool_id": "c1", "type": "function" },
            ],
        });
        let with = |key: &str, value: &str| {
            let mut call = call.clone();
            call["tool_calls"][0][key] = value.into();
            call
        };
        let gemini = {
            let mut call = with("type", "functionCall");
            call["role"] = "model".into();
            call["tool_calls"][0].as_object_mut().unwrap().remove("tool_id");
            call
        };
        for (body, expected) in [
            (
                r#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]}}]}"#,
                call.clone(),
            ),
            (
                r#"{"output":[{"type":"function_call","call_id":"c1","name":"weather","arguments":"{\"city\":\"Oslo\"}"}]}"#,
                with("type", "function_call"),
            ),
            (
                r#"{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"weather","input":{"city":"Oslo"}}]}"#,
                with("type", "tool_use"),
            ),
            (
                r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"weather","args":{"city":"Oslo"}}}]}}]}"#,
                gemini,
            ),
        ] {
            assert_eq!(
                json(output(body.as_bytes())),
                serde_json::json!({ "messages": [expected] }),
                "{body}"
            );
        }
        let result = |role: &str, kind: &str| {
            serde_json::json!({ "messages": [{ "role": role, "content": "", "tool_results": [
                { "result": "12 °C", "tool_id": "c1", "type": kind },
            ] }] })
        };
        for (body, expected) in [
            (
                r#"{"messages":[{"role":"tool","tool_call_id":"c1","content":"12 °C"}]}"#,
                result("tool", "tool"),
            ),
            (
                r#"{"input":[{"type":"function_call_output","call_id":"c1","output":"12 °C"}]}"#,
                result("tool", "function_call_output"),
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"12 °C"}]}]}]}"#,
                result("user", "tool_result"),
            ),
        ] {
            assert_eq!(json(input(body.as_bytes())), expected, "{body}");
        }
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_in_one() {
        let body =
            r#"{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{torn"}}]}}]}"#;
        let sent = json(output(body.as_bytes()));
        assert_eq!(
            sent["messages"][0]["tool_calls"][0]["arguments"],
            serde_json::json!({ "value": "{torn" })
        );
    }

    #[test]
    fn an_embedding_has_documents_and_its_answer_a_size() {
        for (request, expected) in [
            (r#"{"input":"embed me"}"#, serde_json::json!([{ "text": "embed me" }])),
            (r#"{"input":["a","b"]}"#, serde_json::json!([{ "text": "a" }, { "text": "b" }])),
            (r#"{"input":[1,2]}"#, serde_json::json!([{ "text": "[1,2]" }])),
            (r#"{"input":[[1],[2,3]]}"#, serde_json::json!([{ "text": "[1]" }, { "text": "[2,3]" }])),
        ] {
            let documents = serde_json::json!({ "documents": expected });
            assert_eq!(json(embedded(request.as_bytes())), documents, "{request}");
        }
        let floats = r#"{"data":[{"embedding":[0.1,0.2,-3]},{"embedding":[1,2,3]}]}"#;
        // Twelve bytes, and eight with padding.
        let coded = r#"{"data":[{"embedding":"AAAAAAAAAAAAAAAA"}]}"#;
        let padded = r#"{"data":[{"embedding":"AAAAAAAAAAA="}]}"#;
        for (answer, expected) in [
            (floats, "[2 embedding(s) of size 3]"),
            (coded, "[1 embedding(s) of size 3]"),
            (padded, "[1 embedding(s) of size 2]"),
        ] {
            assert_eq!(embeddings(answer.as_bytes()), Some(Io::Value(expected.to_owned())));
        }
        let refused = r#"{"error":{"message":"no"}}"#;
        assert_eq!(embeddings(refused.as_bytes()), Some(Io::Value(refused.to_owned())));
        assert_eq!((embedded(b""), embeddings(b"")), (None, None));
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
