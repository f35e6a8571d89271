//! A provider that answers as OpenAI does, always the same to the same request.

use bytes::Bytes;
use end_to_end::{Reading, Said, Scripted, raw_provider::RawRequest};
use serde_json::{Value, json};

pub(super) const MODEL: &str = "gpt-4o-mini";
pub(super) const REQUEST_ID: &str = "req_5d2f1f1c7a9f4b0e8a3d";
const ANSWERED_BY: &str = "gpt-4o-mini-2024-07-18";
const WEATHER: &str = "get_weather";

/// What is sent, before HTTP.
pub(super) struct Answer {
    content_type: &'static str,
    pub(super) body: Bytes,
}

/// What the model has to say.
enum Turn {
    Text(String),
    Tools(Vec<(&'static str, String, String)>),
}

pub(super) async fn start() -> Scripted {
    Scripted::start(Reading::ChunkedFirst, |request| Said::Keep(answer(request).to_http())).await
}

pub(super) fn answer(request: &RawRequest) -> Answer {
    let path = request.head.split(' ').nth(1).unwrap_or_default();
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match path {
        "/v1/chat/completions" if body["stream"] == true => events(&chat_events(&body)),
        "/v1/chat/completions" => json_body(&chat(&body)),
        "/v1/responses" if body["stream"] == true => events(&response_events(&body)),
        "/v1/responses" => json_body(&response(&turn(&body))),
        "/v1/embeddings" => json_body(&embeddings(&body)),
        "/v1/audio/transcriptions" => json_body(&transcription()),
        "/v1/audio/speech" => Answer { content_type: "audio/mpeg", body: Bytes::from(vec![0xff; 5_000]) },
        "/v1/files" => json_body(&file()),
        _ => panic!("no answer to {path}"),
    }
}

impl Answer {
    fn to_http(&self) -> Bytes {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\nx-request-id: {REQUEST_ID}\r\ncontent-length: {}\r\n\r\n",
            self.content_type,
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat().into()
    }
}

fn json_body(body: &Value) -> Answer {
    Answer { content_type: "application/json", body: body.to_string().into() }
}

fn events(events: &[String]) -> Answer {
    Answer { content_type: "text/event-stream; charset=utf-8", body: events.concat().into() }
}

/// A structure where one is asked for, two calls at once of the tools that are offered, and words else.
fn turn(body: &Value) -> Turn {
    let person = json!({ "name": "Ada Lovelace", "age": 36 }).to_string();
    let is_structured =
        body["response_format"]["type"] == "json_schema" || body["text"]["format"]["type"] == "json_schema";
    if is_structured {
        return Turn::Text(person);
    }
    let tool = &body["tools"][0];
    let name = tool["function"]["name"].as_str().or_else(|| tool["name"].as_str());
    match name {
        None => Turn::Text("Red, grün and 青.".to_owned()),
        Some(_) if has_results(body) => Turn::Text("Sunny in both.".to_owned()),
        Some(WEATHER) => Turn::Tools(vec![
            ("call_Paris1", WEATHER.to_owned(), json!({ "city": "Paris" }).to_string()),
            ("call_Zurich2", WEATHER.to_owned(), json!({ "city": "Zürich" }).to_string()),
        ]),
        Some(other) => Turn::Tools(vec![("call_Person1", other.to_owned(), person)]),
    }
}

fn has_results(body: &Value) -> bool {
    let of = |list: &Value, key: &str, value: &str| {
        list.as_array().is_some_and(|items| items.iter().any(|item| item[key] == value))
    };
    of(&body["messages"], "role", "tool") || of(&body["input"], "type", "function_call_output")
}

impl Turn {
    fn finish_reason(&self) -> &'static str {
        match self {
            Self::Text(_) => "stop",
            Self::Tools(_) => "tool_calls",
        }
    }

    fn id(&self, prefix: &str) -> String {
        match self {
            Self::Text(text) => format!("{prefix}_{:032x}", text.len()),
            Self::Tools(calls) => format!("{prefix}_{:032x}", 0x1000 + calls.len()),
        }
    }
}

fn chat(body: &Value) -> Value {
    let turn = turn(body);
    let message = match &turn {
        Turn::Text(text) => {
            json!({ "role": "assistant", "content": text, "refusal": null, "annotations": [] })
        }
        Turn::Tools(calls) => {
            let calls: Vec<_> = calls.iter().map(|(id, name, text)| call(id, name, text)).collect();
            json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": calls })
        }
    };
    json!({
        "id": turn.id("chatcmpl"), "object": "chat.completion", "created": 1_741_570_283, "model": ANSWERED_BY,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": turn.finish_reason()
        }],
        "usage": chat_usage(), "service_tier": "default", "system_fingerprint": "fp_06737a9306"
    })
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
}

fn chat_usage() -> Value {
    json!({
        "prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99,
        "prompt_tokens_details": { "cached_tokens": 64, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": 5, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0
        }
    })
}

/// The chunks of a streamed chat; calls of tools come in pieces, one call after the other.
fn chat_events(body: &Value) -> Vec<String> {
    let turn = turn(body);
    let mut deltas = vec![json!({ "role": "assistant", "content": null, "refusal": null })];
    match &turn {
        Turn::Text(text) => deltas.extend(pieces(text).into_iter().map(|piece| json!({ "content": piece }))),
        Turn::Tools(calls) => deltas.extend(call_deltas(calls)),
    }
    let with_usage = body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": turn.id("chatcmpl"), "object": "chat.completion.chunk", "created": 1_741_570_283,
            "model": ANSWERED_BY, "service_tier": "default", "system_fingerprint": "fp_06737a9306",
            "choices": choices
        });
        if with_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let choice = |delta: Value, finish_reason: Option<&str>| json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]);
    let mut events: Vec<_> =
        deltas.into_iter().map(|delta| chunk(choice(delta, None), Value::Null)).collect();
    events.push(chunk(choice(json!({}), Some(turn.finish_reason())), Value::Null));
    if with_usage {
        events.push(chunk(json!([]), chat_usage()));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn call_deltas(calls: &[(&'static str, String, String)]) -> Vec<Value> {
    let of_call = |(index, (id, name, arguments)): (usize, &(&'static str, String, String))| {
        let function = json!({ "name": name, "arguments": "" });
        let head = json!({ "index": index, "id": id, "type": "function", "function": function });
        let more = |piece| json!({ "index": index, "function": { "arguments": piece } });
        std::iter::once(head).chain(pieces(arguments).into_iter().map(more)).collect::<Vec<_>>()
    };
    let parts = calls.iter().enumerate().flat_map(of_call);
    parts.map(|part| json!({ "tool_calls": [part] })).collect()
}

fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(4).map(|piece| piece.iter().collect()).collect()
}

fn response(turn: &Turn) -> Value {
    let output = match turn {
        Turn::Text(text) => vec![message("completed", &json!([part(text)]))],
        Turn::Tools(calls) => calls
            .iter()
            .map(|(id, name, arguments)| {
                json!({
                    "type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": name,
                    "arguments": arguments, "status": "completed"
                })
            })
            .collect(),
    };
    let usage = json!({
        "input_tokens": 82, "input_tokens_details": { "cached_tokens": 64 },
        "output_tokens": 17, "output_tokens_details": { "reasoning_tokens": 5 }, "total_tokens": 99
    });
    response_in(turn, "completed", &json!(output), &usage)
}

fn response_in(turn: &Turn, status: &str, output: &Value, usage: &Value) -> Value {
    json!({
        "id": turn.id("resp"), "object": "response", "created_at": 1_741_476_777, "status": status, "error": null,
        "incomplete_details": null, "instructions": null, "max_output_tokens": null, "model": ANSWERED_BY,
        "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": { "effort": null, "summary": null }, "store": true, "temperature": 1.0,
        "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "truncation": "disabled", "usage": usage, "user": null, "metadata": {}
    })
}

fn message(status: &str, content: &Value) -> Value {
    json!({ "type": "message", "id": "msg_67ccd2bf17f0", "status": status, "role": "assistant", "content": content })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// The events of a streamed response of words.
fn response_events(body: &Value) -> Vec<String> {
    let turn = turn(body);
    let Turn::Text(text) = &turn else { panic!("no client streams a response with tools") };
    let at = json!({ "item_id": "msg_67ccd2bf17f0", "output_index": 0, "content_index": 0 });
    let in_part = |kind: &str, more: Value| (kind.to_owned(), merged(&at, &more));
    let begun = response_in(&turn, "in_progress", &json!([]), &Value::Null);
    let of_item = |kind: &str, item: Value| (kind.to_owned(), json!({ "output_index": 0, "item": item }));
    let mut events = vec![
        ("response.created".to_owned(), json!({ "response": begun })),
        ("response.in_progress".to_owned(), json!({ "response": begun })),
        of_item("response.output_item.added", message("in_progress", &json!([]))),
        in_part("response.content_part.added", json!({ "part": part("") })),
    ];
    let delta = |piece| in_part("response.output_text.delta", json!({ "delta": piece, "logprobs": [] }));
    events.extend(pieces(text).into_iter().map(delta));
    events.extend([
        in_part("response.output_text.done", json!({ "text": text, "logprobs": [] })),
        in_part("response.content_part.done", json!({ "part": part(text) })),
        of_item("response.output_item.done", message("completed", &json!([part(text)]))),
        ("response.completed".to_owned(), json!({ "response": response(&turn) })),
    ]);
    let numbered = events.into_iter().enumerate();
    numbered
        .map(|(number, (kind, event))| {
            let event = merged(&event, &json!({ "type": kind, "sequence_number": number }));
            format!("event: {kind}\ndata: {event}\n\n")
        })
        .collect()
}

fn merged(one: &Value, other: &Value) -> Value {
    let fields = [one, other].into_iter().flat_map(|value| value.as_object().unwrap().clone());
    Value::Object(fields.collect())
}

/// Two vectors, and the same as the base64 of `f32`s in little-endian order, which most SDKs ask for.
const VECTORS: [[f32; 3]; 2] = [[0.5, -0.25, 1.0], [2.0, 0.0, -1.5]];
const IN_BASE64: [&str; 2] = ["AAAAPwAAgL4AAIA/", "AAAAQAAAAAAAAMC/"];

fn embeddings(body: &Value) -> Value {
    let is_base64 = body["encoding_format"] == "base64";
    let data: Vec<_> = (0..2)
        .map(|index| {
            let embedding = if is_base64 { json!(IN_BASE64[index]) } else { json!(VECTORS[index]) };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    json!({
        "object": "list", "data": data, "model": "text-embedding-3-small",
        "usage": { "prompt_tokens": 2, "total_tokens": 2 }
    })
}

fn transcription() -> Value {
    json!({
        "text": "Red and grün.",
        "usage": {
            "type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59,
            "input_token_details": { "text_tokens": 0, "audio_tokens": 14 }
        }
    })
}

fn file() -> Value {
    json!({
        "id": "file-abc123", "object": "file", "bytes": 34, "created_at": 1_741_570_283, "expires_at": null,
        "filename": "colours.jsonl", "purpose": "batch", "status": "processed", "status_details": null
    })
}
