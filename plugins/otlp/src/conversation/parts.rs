//! The parts of a message: what the APIs' blocks and items are in the conventions. A block of a kind that is not known stays as
//! it is, which the conventions allow.

use serde_json::{Value, json};

/// Items of responses that the provider runs itself.
const SERVER_TOOLS: [&str; 5] =
    ["web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"];

/// Whether a part is of one of these kinds.
pub(super) fn with_type(part: &Value, kinds: &[&str]) -> bool {
    part["type"].as_str().is_some_and(|kind| kinds.contains(&kind))
}

/// The parts of a message of chat or of messages.
pub(super) fn parts_of_message(said: &Value) -> Vec<Value> {
    if matches!(said["role"].as_str(), Some("tool" | "function")) {
        return vec![tool_response(&said["tool_call_id"], &said["content"])];
    }
    let reasoning = [&said["reasoning_content"], &said["reasoning"]].into_iter().find_map(Value::as_str);
    let mut found: Vec<Value> =
        reasoning.into_iter().filter_map(|text| text_part("reasoning", text)).collect();
    found.extend(parts(&said["content"]));
    found.extend(said["refusal"].as_str().and_then(|text| text_part("text", text)));
    found.extend(audio_made(&said["audio"]));
    let calls = said["tool_calls"].as_array().into_iter().flatten();
    found.extend(calls.map(|call| {
        let called = [&call["function"], &call["custom"]].into_iter().find(|called| called.is_object());
        let called = called.unwrap_or(&Value::Null);
        let arguments = called.get("arguments").unwrap_or(&called["input"]);
        tool_call(&call["id"], &called["name"], arguments)
    }));
    let legacy = &said["function_call"];
    if legacy.is_object() {
        found.push(tool_call(&Value::Null, &legacy["name"], &legacy["arguments"]));
    }
    found
}

/// The parts of an item of responses.
pub(super) fn parts_of_item(item: &Value) -> Vec<Value> {
    match item["type"].as_str() {
        Some("message") => parts_of_message(item),
        Some("reasoning") => {
            let texts =
                [&item["summary"], &item["content"]].into_iter().filter_map(Value::as_array).flatten();
            texts.filter_map(|text| text_part("reasoning", text["text"].as_str()?)).collect()
        }
        _ => part(item).into_iter().collect(),
    }
}

/// A text or a list of blocks.
pub(super) fn parts(content: &Value) -> Vec<Value> {
    match content {
        Value::String(text) => text_part("text", text).into_iter().collect(),
        Value::Array(blocks) => blocks.iter().filter_map(part).collect(),
        _ => Vec::new(),
    }
}

/// The texts alone.
pub(super) fn text_parts(content: &Value) -> Vec<Value> {
    parts(content).into_iter().filter(|part| with_type(part, &["text"])).collect()
}

/// An image of an answer.
pub(super) fn image_made(made: &Value) -> Option<Value> {
    let kind = "image";
    match made["b64_json"].as_str() {
        Some(data) => Some(blob(kind, None, data)),
        None => Some(uri(kind, made["url"].as_str()?)),
    }
}

fn part(block: &Value) -> Option<Value> {
    let kind = block["type"].as_str().unwrap_or_default();
    Some(match kind {
        "text" | "input_text" | "output_text" => return text_part("text", block["text"].as_str()?),
        "refusal" => return text_part("text", block["refusal"].as_str()?),
        "thinking" => return text_part("reasoning", &thinking(&block["thinking"])?),
        "tool_use" => tool_call(&block["id"], &block["name"], &block["input"]),
        "function_call" => tool_call(&block["call_id"], &block["name"], &block["arguments"]),
        "custom_tool_call" => tool_call(&block["call_id"], &block["name"], &block["input"]),
        "tool_result" => tool_response(&block["tool_use_id"], &block["content"]),
        "function_call_output" | "custom_tool_call_output" => {
            tool_response(&block["call_id"], &block["output"])
        }
        "server_tool_use" => {
            let mut inner = block["input"].clone();
            if !inner.is_object() {
                inner = json!({ "input": inner });
            }
            inner["type"] = block["name"].clone();
            json!({ "type": "server_tool_call", "id": block["id"], "name": block["name"], "server_tool_call": inner })
        }
        _ if kind.ends_with("_tool_result") => {
            json!({ "type": "server_tool_call_response", "id": block["tool_use_id"], "server_tool_call_response": block })
        }
        _ if SERVER_TOOLS.contains(&kind) => {
            let name = kind.trim_end_matches("_call");
            json!({ "type": "server_tool_call", "id": block["id"], "name": name, "server_tool_call": block })
        }
        _ => media(kind, block).unwrap_or_else(|| as_it_is(block)),
    })
}

fn as_it_is(block: &Value) -> Value {
    match &block["type"] {
        Value::String(_) => block.clone(),
        _ => json!({ "type": "generic", "content": block }),
    }
}

/// Images, sound, films and files, by address, in the message itself, or by the provider's id.
fn media(kind: &str, block: &Value) -> Option<Value> {
    let by_address =
        |modality, at: &Value| at.as_str().or_else(|| at["url"].as_str()).map(|url| uri(modality, url));
    match kind {
        "image_url" | "input_image" => {
            by_address("image", &block["image_url"]).or_else(|| file("image", &block["file_id"]))
        }
        "video_url" => by_address("video", &block["video_url"]),
        "audio_url" => by_address("audio", &block["audio_url"]),
        "input_audio" => {
            let audio = &block["input_audio"];
            let mime = audio["format"].as_str().map(|format| format!("audio/{format}"));
            Some(blob("audio", mime.as_deref(), audio["data"].as_str()?))
        }
        "file" | "input_file" => {
            let inner = block.get("file").filter(|inner| inner.is_object()).unwrap_or(block);
            let data = inner["file_data"].as_str().map(|data| uri("document", data));
            data.or_else(|| by_address("document", &inner["file_url"]))
                .or_else(|| file("document", &inner["file_id"]))
        }
        "image" | "document" => {
            let source = &block["source"];
            match source["type"].as_str()? {
                "base64" => Some(blob(kind, source["media_type"].as_str(), source["data"].as_str()?)),
                "url" => by_address(kind, &source["url"]),
                "file" => file(kind, &source["file_id"]),
                "text" => text_part("text", source["data"].as_str()?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A URL that holds its data is a blob.
fn uri(modality: &str, url: &str) -> Value {
    let held = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match held {
        Some((mime, data)) => blob(modality, Some(mime).filter(|mime| !mime.is_empty()), data),
        None => json!({ "type": "uri", "modality": modality, "uri": url }),
    }
}

fn blob(modality: &str, mime: Option<&str>, data: &str) -> Value {
    let mut part = json!({ "type": "blob", "modality": modality, "content": data });
    if let Some(mime) = mime {
        part["mime_type"] = mime.into();
    }
    part
}

fn file(modality: &str, id: &Value) -> Option<Value> {
    id.as_str().map(|id| json!({ "type": "file", "modality": modality, "file_id": id }))
}

/// What the model says aloud: its words, and the sound.
fn audio_made(audio: &Value) -> Vec<Value> {
    let words = audio["transcript"].as_str().and_then(|text| text_part("text", text));
    let sound = audio["data"].as_str().map(|data| blob("audio", None, data));
    words.into_iter().chain(sound).collect()
}

/// A text, or a list of blocks with one each.
fn thinking(said: &Value) -> Option<String> {
    match said {
        Value::String(text) => Some(text.clone()),
        Value::Array(blocks) => Some(blocks.iter().filter_map(|block| block["text"].as_str()).collect()),
        _ => None,
    }
}

fn text_part(kind: &str, text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!({ "type": kind, "content": text }))
}

fn tool_call(id: &Value, name: &Value, arguments: &Value) -> Value {
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
    let arguments = parsed.unwrap_or_else(|| arguments.clone());
    json!({ "type": "tool_call", "id": id, "name": name, "arguments": arguments })
}

fn tool_response(id: &Value, response: &Value) -> Value {
    json!({ "type": "tool_call_response", "id": id, "response": response })
}
