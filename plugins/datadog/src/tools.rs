//! Calls of tools and their results, wherever an API puts them: beside a message's content, among its parts, or as items of
//! their own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::messages::text_of;

/// A tool that is to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// What it is called with: an object.
    pub arguments: Value,
    /// By which its result is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_id: Option<String>,
    /// What the API calls it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What a tool returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolResult {
    /// It, as text.
    pub result: String,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The call that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_id: Option<String>,
    /// What the API calls it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What a message or an item says of tools beside its content.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mentioned {
    tool_calls: Value,
    function_call: Value,
    tool_call_id: Value,
    #[serde(rename = "type")]
    kind: Value,
    name: Value,
    call_id: Value,
    arguments: Value,
    input: Value,
    output: Value,
}

impl Mentioned {
    /// Who speaks, where the item has no role.
    pub fn role(&self) -> Option<&'static str> {
        let kind = self.kind.as_str()?;
        match kind.strip_suffix("_output") {
            Some(_) => Some("tool"),
            None if kind.ends_with("_call") || kind == "reasoning" => Some("assistant"),
            None => None,
        }
    }

    /// The calls, those among `parts` too.
    pub fn calls(&self, parts: &[&Value]) -> Vec<ToolCall> {
        let beside = list(&self.tool_calls).iter().map(|call| {
            let [id, kind] = ["id", "type"].map(|key| text(&call[key]));
            let function = if call["custom"].is_object() { &call["custom"] } else { &call["function"] };
            let arguments =
                if function["input"].is_null() { &function["arguments"] } else { &function["input"] };
            ToolCall { tool_id: id, kind, ..called(&function["name"], arguments) }
        });
        let old = self.function_call.is_object().then(|| {
            let call = &self.function_call;
            called(&call["name"], &call["arguments"])
        });
        let is_item = self.kind.as_str().is_some_and(|kind| kind.ends_with("_call")) && self.name.is_string();
        let item = is_item.then(|| {
            let arguments = if self.arguments.is_null() { &self.input } else { &self.arguments };
            let (tool_id, kind) = (text(&self.call_id), text(&self.kind));
            ToolCall { tool_id, kind, ..called(&self.name, arguments) }
        });
        let among = parts.iter().flat_map(|parts| list(parts)).filter_map(call_of_part);
        beside.chain(old).chain(item).chain(among).collect()
    }

    /// The results, those among `parts` too. The text of a tool's message is its result.
    pub fn results(&self, role: &str, said: &mut String, parts: &[&Value]) -> Vec<ToolResult> {
        let mut results: Vec<_> =
            parts.iter().flat_map(|parts| list(parts)).filter_map(result_of_part).collect();
        if !self.output.is_null() && self.kind.as_str().is_some_and(|kind| kind.ends_with("_output")) {
            let (tool_id, kind) = (text(&self.call_id), text(&self.kind));
            results.push(ToolResult { result: text_of(&self.output), name: None, tool_id, kind });
        }
        if matches!(role, "tool" | "function") && results.is_empty() {
            let (name, tool_id) = (text(&self.name), text(&self.tool_call_id));
            results.push(ToolResult {
                result: std::mem::take(said),
                name,
                tool_id,
                kind: Some(role.to_owned()),
            });
        }
        results
    }
}

/// Whether a part of a content is a call or a result, and no text.
pub fn is_tool_part(part: &Map<String, Value>) -> bool {
    let kind = part.get("type").and_then(Value::as_str);
    matches!(kind, Some("tool_use" | "tool_result"))
        || part.contains_key("functionCall")
        || part.contains_key("functionResponse")
}

/// Anthropic's, else Gemini's.
fn call_of_part(part: &Value) -> Option<ToolCall> {
    if part["type"] == "tool_use" {
        let (tool_id, kind) = (text(&part["id"]), text(&part["type"]));
        return Some(ToolCall { tool_id, kind, ..called(&part["name"], &part["input"]) });
    }
    let call = part.get("functionCall")?;
    let (tool_id, kind) = (text(&call["id"]), Some("functionCall".to_owned()));
    Some(ToolCall { tool_id, kind, ..called(&call["name"], &call["args"]) })
}

fn result_of_part(part: &Value) -> Option<ToolResult> {
    if part["type"] == "tool_result" {
        let (tool_id, kind) = (text(&part["tool_use_id"]), text(&part["type"]));
        return Some(ToolResult { result: text_of(&part["content"]), name: None, tool_id, kind });
    }
    let answer = part.get("functionResponse")?;
    let (name, tool_id) = (text(&answer["name"]), text(&answer["id"]));
    let kind = Some("functionResponse".to_owned());
    Some(ToolResult { result: answer["response"].to_string(), name, tool_id, kind })
}

/// A call of that name. Most APIs write the arguments as a text that is JSON; what is no object is kept in one.
fn called(name: &Value, arguments: &Value) -> ToolCall {
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
    let arguments = match parsed.unwrap_or_else(|| arguments.clone()) {
        Value::Null => json!({}),
        object @ Value::Object(_) => object,
        other => json!({ "value": other }),
    };
    ToolCall { name: text(name).unwrap_or_default(), arguments, tool_id: None, kind: None }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
