//! The conversation as the conventions put it on a span: messages that consist of parts. Done by option alone, since the
//! bodies have to be parsed for it.

use serde_json::{Value, json};

use crate::names;

/// What was said, each as the JSON text of its attribute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conversation {
    system: Option<String>,
    input: Option<String>,
    output: Option<String>,
}

impl Conversation {
    /// Reads the bodies of the APIs that the gateway knows: chat completions, completions, responses, messages. What
    /// has another shape has no conversation.
    #[must_use]
    pub fn read(request: &[u8], response: &[u8]) -> Self {
        let request: Value = serde_json::from_slice(request).unwrap_or_default();
        let response: Value = serde_json::from_slice(response).unwrap_or_default();
        let text = |list: Vec<Value>| (!list.is_empty()).then(|| Value::Array(list).to_string());
        Self { system: text(system(&request)), input: text(input(&request)), output: text(output(&response)) }
    }

    /// Names and values of the attributes.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            (names::SYSTEM_INSTRUCTIONS, &self.system),
            (names::INPUT_MESSAGES, &self.input),
            (names::OUTPUT_MESSAGES, &self.output),
        ];
        all.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}

/// Instructions that stand beside the messages.
fn system(request: &Value) -> Vec<Value> {
    let beside = [&request["system"], &request["instructions"]];
    beside.into_iter().flat_map(parts).collect()
}

fn input(request: &Value) -> Vec<Value> {
    if let Some(messages) = request["messages"].as_array() {
        return messages.iter().map(|said| message(said, "user")).collect();
    }
    match &request["input"] {
        Value::Array(items) => items.iter().map(|item| message(item, "user")).collect(),
        Value::Null => prompts(&request["prompt"]),
        text => prompts(text),
    }
}

/// A text, or several.
fn prompts(prompt: &Value) -> Vec<Value> {
    let texts = match prompt {
        Value::Array(texts) => texts.as_slice(),
        text => std::slice::from_ref(text),
    };
    texts.iter().filter(|text| text.is_string()).map(|text| with_parts("user", parts(text))).collect()
}

/// One message for each choice.
fn output(response: &Value) -> Vec<Value> {
    if let Some(choices) = response["choices"].as_array() {
        return choices.iter().map(choice).collect();
    }
    if let Some(items) = response["output"].as_array() {
        // The items of a response are one answer.
        let said = items.iter().flat_map(|item| parts_of(item, "assistant"));
        return vec![finished(with_parts("assistant", said.collect()), &response["status"])];
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
    // The schema demands one; a stream that broke off has none.
    message["finish_reason"] = reason.as_str().unwrap_or("unknown").into();
    message
}

fn message(said: &Value, role: &str) -> Value {
    let role = said["role"].as_str().unwrap_or(role);
    with_parts(role, parts_of(said, role))
}

fn with_parts(role: &str, parts: Vec<Value>) -> Value {
    let mut message = json!({ "role": role });
    message["parts"] = Value::Array(parts);
    message
}

/// The parts of a message, or of an item that stands for one.
fn parts_of(said: &Value, role: &str) -> Vec<Value> {
    if role == "tool" {
        return vec![tool_response(&said["tool_call_id"], &said["content"])];
    }
    match said["type"].as_str() {
        Some("message") | None => {
            let calls = said["tool_calls"].as_array().into_iter().flatten();
            let calls = calls.map(|call| {
                tool_call(&call["id"], &call["function"]["name"], &call["function"]["arguments"])
            });
            parts(&said["content"]).into_iter().chain(calls).collect()
        }
        Some(_) => vec![part(said)],
    }
}

/// A text or a list of blocks.
fn parts(content: &Value) -> Vec<Value> {
    match content {
        Value::String(text) => vec![text_part("text", text)],
        Value::Array(blocks) => blocks.iter().map(part).collect(),
        _ => Vec::new(),
    }
}

fn part(block: &Value) -> Value {
    let text = |key: &str| block[key].as_str().unwrap_or_default();
    match text("type") {
        "text" | "input_text" | "output_text" => text_part("text", text("text")),
        "thinking" => text_part("reasoning", text("thinking")),
        "tool_use" => tool_call(&block["id"], &block["name"], &block["input"]),
        "function_call" => tool_call(&block["call_id"], &block["name"], &block["arguments"]),
        "tool_result" => tool_response(&block["tool_use_id"], &block["content"]),
        "function_call_output" => tool_response(&block["call_id"], &block["output"]),
        // The conventions take a part of any other type as it is.
        "" => json!({ "type": "unknown", "content": block }),
        _ => block.clone(),
    }
}

fn text_part(kind: &str, text: &str) -> Value {
    json!({ "type": kind, "content": text })
}

fn tool_call(id: &Value, name: &Value, arguments: &Value) -> Value {
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
    let arguments = parsed.unwrap_or_else(|| arguments.clone());
    json!({ "type": "tool_call", "id": id, "name": name, "arguments": arguments })
}

fn tool_response(id: &Value, response: &Value) -> Value {
    json!({ "type": "tool_call_response", "id": id, "response": response })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &Value, response: &Value, expected: &[Value; 3]) {
        let found = Conversation::read(request.to_string().as_bytes(), response.to_string().as_bytes());
        let read = |text: &Option<String>| {
            text.as_deref().map_or(json!(null), |text| serde_json::from_str(text).unwrap())
        };
        assert_eq!(&[read(&found.system), read(&found.input), read(&found.output)], expected, "{request}");
    }

    fn said(role: &str, text: &str) -> Value {
        json!({ "role": role, "parts": [{ "type": "text", "content": text }] })
    }

    #[test]
    fn chat_completions_have_their_tools() {
        let call =
            json!({ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } });
        let request = json!({ "messages": [
            { "role": "system", "content": "Be brief" },
            { "role": "user", "content": [{ "type": "text", "text": "Hi" }, { "type": "image_url", "image_url": { "url": "u" } }] },
            { "role": "assistant", "content": null, "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "c1", "content": "42" },
        ] });
        let response = json!({ "choices": [{ "message": { "role": "assistant", "content": "Hello!" }, "finish_reason": "stop" }] });
        let called = json!({ "type": "tool_call", "id": "c1", "name": "f", "arguments": { "x": 1 } });
        let input = json!([
            said("system", "Be brief"),
            { "role": "user", "parts": [
                { "type": "text", "content": "Hi" }, { "type": "image_url", "image_url": { "url": "u" } }] },
            { "role": "assistant", "parts": [called] },
            { "role": "tool", "parts": [{ "type": "tool_call_response", "id": "c1", "response": "42" }] },
        ]);
        let output = json!([{ "role": "assistant", "parts": [{ "type": "text", "content": "Hello!" }], "finish_reason": "stop" }]);
        check(&request, &response, &[json!(null), input, output]);
    }

    #[test]
    fn a_folded_stream_that_broke_off_is_an_answer() {
        let response = json!({ "choices": [{ "delta": { "content": "Hel" } }], "streamed_data": [] });
        let output = json!([{ "role": "assistant", "parts": [{ "type": "text", "content": "Hel" }], "finish_reason": "unknown" }]);
        check(&json!({}), &response, &[json!(null), json!(null), output]);
    }

    #[test]
    fn messages_responses_and_completions_are_read() {
        let blocks = json!([
            { "type": "thinking", "thinking": "hm" }, { "type": "tool_use", "id": "t", "name": "f", "input": {} }]);
        check(
            &json!({ "system": "Be kind", "messages": [{ "role": "user", "content": "Hi" }] }),
            &json!({ "role": "assistant", "content": blocks, "stop_reason": "tool_use" }),
            &[
                json!([{ "type": "text", "content": "Be kind" }]),
                json!([said("user", "Hi")]),
                json!([{ "role": "assistant", "finish_reason": "tool_use", "parts": [
                    { "type": "reasoning", "content": "hm" },
                    { "type": "tool_call", "id": "t", "name": "f", "arguments": {} }] }]),
            ],
        );
        check(
            &json!({ "instructions": "Be kind", "input": [
                { "role": "user", "content": [{ "type": "input_text", "text": "Hi" }] },
                { "type": "function_call_output", "call_id": "c", "output": "1" }] }),
            &json!({ "status": "completed", "output": [
                { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Hello" }] }] }),
            &[
                json!([{ "type": "text", "content": "Be kind" }]),
                json!([said("user", "Hi"), { "role": "user", "parts": [
                    { "type": "tool_call_response", "id": "c", "response": "1" }] }]),
                json!([{ "role": "assistant", "finish_reason": "completed", "parts": [{ "type": "text", "content": "Hello" }] }]),
            ],
        );
        check(
            &json!({ "prompt": ["a", "b"] }),
            &json!({ "choices": [{ "text": "c", "finish_reason": "length" }] }),
            &[
                json!(null),
                json!([said("user", "a"), said("user", "b")]),
                json!([{ "role": "assistant", "finish_reason": "length", "parts": [{ "type": "text", "content": "c" }] }]),
            ],
        );
    }

    #[test]
    fn what_has_no_shape_has_no_conversation() {
        for text in ["", "null", "[]", "7", r#"{"messages":7,"input":{},"choices":{}}"#] {
            let found = Conversation::read(text.as_bytes(), text.as_bytes());
            assert_eq!(found, Conversation::default(), "{text}");
        }
    }
}
