//! The conversation as the conventions put it on a span: messages that consist of `parts`. Done by option alone, since
//! the bodies have to be parsed for it.

mod parts;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use self::parts::{parts, parts_of_item, parts_of_message, text_parts, with_type};
use crate::{
    json,
    names::{self, operation::Work},
};

/// What was said, each as the JSON text of its attribute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conversation {
    system: Option<String>,
    tools: Option<String>,
    input: Option<String>,
    output: Option<String>,
    embedded: Option<String>,
}

/// What a generation that has no reason of its own to end has ended by: the stream was cut, or failed.
pub const CUT: &str = "error";

impl Conversation {
    /// Reads the bodies of the APIs that the gateway knows: chat completions, completions, responses, messages, images,
    /// embeddings. What has another shape has no conversation, and neither has work that is none.
    #[must_use]
    pub fn read(work: Work, request: &[u8], response: &[u8]) -> Self {
        let list = |list: Vec<Value>| (!list.is_empty()).then(|| Value::Array(list).to_string());
        match work {
            Work::None => Self::default(),
            // Their vectors are no content.
            Work::Embeddings => {
                let embedded = texts(&body(request)["input"]).map(Value::from).collect();
                Self { embedded: list(embedded), ..Self::default() }
            }
            Work::Inference | Work::Unknown => {
                let (request, response) = (body(request), body(response));
                Self {
                    system: list(system(&request)),
                    tools: list(tools(&request)),
                    input: list(input(&request)),
                    output: list(output(&response)),
                    embedded: None,
                }
            }
        }
    }

    /// Names and values of the attributes.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            (names::SYSTEM_INSTRUCTIONS, &self.system),
            (names::TOOL_DEFINITIONS, &self.tools),
            (names::INPUT_MESSAGES, &self.input),
            (names::OUTPUT_MESSAGES, &self.output),
            (names::EMBEDDED, &self.embedded),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}

/// A body without the chunks that a stream's answer was folded from.
fn body(text: &[u8]) -> Value {
    let members = json::members(str::from_utf8(text).unwrap_or_default());
    let members = members.filter(|(name, _)| !name.starts_with("streamed_data"));
    Value::Object(members.map(|(name, raw)| (name.into_owned(), json::value(raw))).collect())
}

/// Instructions that stand beside the messages: their texts.
fn system(request: &Value) -> Vec<Value> {
    let beside = [&request["system"], &request["instructions"]];
    beside.into_iter().flat_map(text_parts).collect()
}

fn tools(request: &Value) -> Vec<Value> {
    request["tools"].as_array().into_iter().flatten().filter_map(tool).collect()
}

/// A tool as the conventions define one: chat's has its function inside, that of messages calls its parameters otherwise.
fn tool(tool: &Value) -> Option<Value> {
    let function = tool.get("function").filter(|inner| inner.is_object()).unwrap_or(tool);
    let kind = tool["type"].as_str().filter(|kind| *kind != "custom").unwrap_or("function");
    let name = function["name"].as_str().or_else(|| tool["type"].as_str())?;
    let mut defined = Map::from_iter([("type".into(), kind.into()), ("name".into(), name.into())]);
    for (theirs, ours) in
        [("description", "description"), ("input_schema", "parameters"), ("parameters", "parameters")]
    {
        if let Some(value) = function.get(theirs).filter(|value| !value.is_null()) {
            defined.insert(ours.to_owned(), value.clone());
        }
    }
    Some(Value::Object(defined))
}

fn input(request: &Value) -> Vec<Value> {
    if let Some(messages) = request["messages"].as_array() {
        return messages.iter().map(|said| message(said, "user")).collect();
    }
    match &request["input"] {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().map(|item| message(item, "user")).collect()
        }
        Value::Null => prompts(&request["prompt"]),
        text => prompts(text),
    }
}

/// A text, or several.
fn prompts(prompt: &Value) -> Vec<Value> {
    texts(prompt).map(|text| with_parts("user", parts(&text.into()))).collect()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let texts = match value {
        Value::Array(texts) => texts.as_slice(),
        text => std::slice::from_ref(text),
    };
    texts.iter().filter_map(Value::as_str)
}

/// One message for each choice.
fn output(response: &Value) -> Vec<Value> {
    if let Some(choices) = response["choices"].as_array() {
        return choices.iter().map(choice).collect();
    }
    if let Some(items) = response["output"].as_array() {
        // The items of a response are one answer.
        let said = items.iter().flat_map(parts_of_item);
        let reason = response.pointer("/incomplete_details/reason").unwrap_or(&response["status"]);
        return vec![finished(with_parts("assistant", said.collect()), reason)];
    }
    if let Some(images) = response["data"].as_array() {
        let made = images.iter().filter_map(parts::image_made).map(|part| {
            // There is none that stops early.
            finished(with_parts("assistant", vec![part]), &json!("stop"))
        });
        return made.collect();
    }
    match response["content"].as_array() {
        Some(_) => vec![finished(message(response, "assistant"), &response["stop_reason"])],
        None => Vec::new(),
    }
}

fn choice(choice: &Value) -> Value {
    let said = [&choice["message"], &choice["delta"]].into_iter().find(|said| said.is_object());
    let answer = match said {
        Some(said) => message(said, "assistant"),
        None => with_parts("assistant", parts(&choice["text"])),
    };
    finished(answer, &choice["finish_reason"])
}

fn finished(mut message: Value, reason: &Value) -> Value {
    message["finish_reason"] = reason.as_str().filter(|reason| !reason.is_empty()).unwrap_or(CUT).into();
    message
}

/// A message, or an item that stands for one.
fn message(said: &Value, role: &str) -> Value {
    let parts = match said["type"].as_str() {
        Some("message") | None => parts_of_message(said),
        Some(_) => parts_of_item(said),
    };
    let is_all = |kinds: &[&str]| !parts.is_empty() && parts.iter().all(|part| with_type(part, kinds));
    let made_by = match said["role"].as_str() {
        // Messages and responses put what a tool answered into the user's mouth, or into nobody's.
        Some("user") | None if is_all(&["tool_call_response"]) => "tool",
        Some("function") => "tool",
        Some(role) => role,
        None if is_all(&["tool_call", "reasoning", "server_tool_call", "server_tool_call_response"]) => {
            "assistant"
        }
        None => role,
    };
    let mut message = with_parts(made_by, parts);
    // An item's name is its tool's.
    let named = said["name"].as_str().filter(|name| !name.is_empty() && said["role"].is_string());
    if let Some(name) = named {
        message["name"] = name.into();
    }
    message
}

fn with_parts(role: &str, parts: Vec<Value>) -> Value {
    let mut message = json!({ "role": role });
    message["parts"] = Value::Array(parts);
    message
}
