//! The server-sent events of each endpoint: one element of the result is one event, and one write.

use serde_json::{Value, json};

use crate::{
    answer::{Answer, Endpoint, Piece, TEXT, render, text_part},
    error::ApiError,
    script::Run,
};

/// All events of a streamed answer, in order.
pub(crate) fn events(answer: &Answer, include_usage: bool) -> Vec<Vec<Run>> {
    match answer.endpoint {
        Endpoint::Chat | Endpoint::Completions => chunks(answer, include_usage),
        Endpoint::Responses => response_events(answer),
    }
}

/// What a stream that fails half-way ends with. `count` events went before.
pub(crate) fn error_event(endpoint: Endpoint, error: &ApiError, count: usize) -> Vec<Run> {
    let body = match endpoint {
        Endpoint::Chat | Endpoint::Completions => return data(&error.body(), &[]),
        Endpoint::Responses => json!({
            "type": "error", "code": error.code, "message": error.message, "param": error.param,
            "sequence_number": count,
        }),
    };
    named(&body, &[])
}

fn chunks(answer: &Answer, include_usage: bool) -> Vec<Vec<Run>> {
    let usage = answer.usage.filter(|_| include_usage);
    let chunk = |choices: Value| {
        let mut chunk = json!({
            "id": answer.id, "object": object(answer.endpoint), "created": answer.created,
            "model": answer.model, "choices": choices,
        });
        // With usage asked for, OpenAI has `"usage": null` in every chunk but the last.
        if usage.is_some() {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let mut events = Vec::new();
    if answer.endpoint == Endpoint::Chat {
        let delta = json!({ "role": "assistant", "content": "", "refusal": null });
        events.push(data(&chunk(choice(&delta)), &[]));
    }
    if answer.calls_tool {
        let delta = json!({ "tool_calls": [with(&answer.tool_call(""), "index", json!(0))] });
        events.push(data(&chunk(choice(&delta)), &[]));
    }
    for piece in &answer.pieces {
        let event = data(&chunk(text_choice(answer)), &[once(piece)]);
        events.extend(repeat(event, piece.times));
    }
    events.push(data(&chunk(json!([last_choice(answer)])), &[]));
    if let Some(usage) = usage {
        let mut last = chunk(json!([]));
        last["usage"] = usage.json(answer.endpoint);
        events.push(data(&last, &[]));
    }
    events.push(vec![Run::once("data: [DONE]\n\n")]);
    events
}

fn object(endpoint: Endpoint) -> &'static str {
    if endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" }
}

fn choice(delta: &Value) -> Value {
    json!([{ "index": 0, "delta": delta, "finish_reason": null }])
}

fn text_choice(answer: &Answer) -> Value {
    match answer {
        Answer { calls_tool: true, .. } => {
            choice(&json!({ "tool_calls": [{ "index": 0, "function": { "arguments": TEXT } }] }))
        }
        Answer { endpoint: Endpoint::Chat, .. } => choice(&json!({ "content": TEXT })),
        _ => json!([{ "index": 0, "text": TEXT, "logprobs": null, "finish_reason": null }]),
    }
}

fn last_choice(answer: &Answer) -> Value {
    if answer.endpoint == Endpoint::Chat {
        json!({ "index": 0, "delta": {}, "finish_reason": answer.finish_reason() })
    } else {
        json!({ "index": 0, "text": "", "logprobs": null, "finish_reason": answer.finish_reason() })
    }
}

fn response_events(answer: &Answer) -> Vec<Vec<Run>> {
    let begun = answer.response("in_progress", &[]);
    let place = json!({ "item_id": answer.item_id, "output_index": 0, "content_index": 0 });
    let mut events = Events { list: Vec::new(), sequence: 0 };
    events.push("response.created", json!({ "response": begun }), &[], 1);
    events.push("response.in_progress", json!({ "response": begun }), &[], 1);
    let item = answer.output_item("in_progress", None);
    events.push("response.output_item.added", json!({ "output_index": 0, "item": item }), &[], 1);
    events.push("response.content_part.added", with(&place, "part", text_part("")), &[], 1);
    for piece in &answer.pieces {
        let delta = with(&place, "delta", json!(TEXT));
        events.push("response.output_text.delta", delta, &[once(piece)], piece.times);
    }
    let pieces = &answer.pieces;
    events.push("response.output_text.done", with(&place, "text", json!(TEXT)), pieces, 1);
    events.push("response.content_part.done", with(&place, "part", text_part(TEXT)), pieces, 1);
    let item = answer.output_item("completed", Some(TEXT));
    events.push("response.output_item.done", json!({ "output_index": 0, "item": item }), pieces, 1);
    let end = if answer.truncated { "response.incomplete" } else { "response.completed" };
    events.push(end, json!({ "response": answer.json() }), pieces, 1);
    events.list
}

/// Events of a response carry their type and number.
struct Events {
    list: Vec<Vec<Run>>,
    sequence: u64,
}

impl Events {
    /// A repeated event repeats its number too: only huge answers have such, and no client minds.
    fn push(&mut self, kind: &str, mut body: Value, pieces: &[Piece], times: u64) {
        body["type"] = json!(kind);
        body["sequence_number"] = json!(self.sequence);
        self.list.extend(repeat(named(&body, pieces), times));
        self.sequence += times;
    }
}

fn with(body: &Value, key: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[key] = value;
    body
}

fn once(piece: &Piece) -> Piece {
    Piece { text: piece.text.clone(), times: 1 }
}

/// A long repetition stays one element, so that a huge stream costs no memory; its events then follow without a pause.
fn repeat(event: Vec<Run>, times: u64) -> Option<Vec<Run>> {
    if times == 1 {
        return Some(event);
    }
    let whole: Vec<u8> = event.iter().flat_map(|run| run.bytes.iter().copied()).collect();
    Some(vec![Run { bytes: whole.into(), times }])
}

fn data(body: &Value, pieces: &[Piece]) -> Vec<Run> {
    render("data: ", body, pieces, "\n\n")
}

/// An event with an `event:` line, which repeats the body's type.
fn named(body: &Value, pieces: &[Piece]) -> Vec<Run> {
    let kind = body["type"].as_str().unwrap_or("error");
    render(&format!("event: {kind}\ndata: "), body, pieces, "\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        behaviour::Behaviour,
        request::{Call, Prompt},
    };

    fn stream(endpoint: Endpoint, behaviour: Behaviour, include_usage: bool) -> (Answer, Vec<String>) {
        let call = Call::parse(br#"{"model":"demo"}"#).expect("a call");
        let answer = Answer::new(endpoint, behaviour, &call, &Prompt { last: "hi".into(), words: 1 });
        let events = events(&answer, include_usage);
        let texts = events.iter().map(|runs| {
            let bytes: Vec<u8> = runs.iter().flat_map(|run| run.bytes.repeat(run.times as usize)).collect();
            String::from_utf8(bytes).expect("UTF-8")
        });
        let texts = texts.collect();
        (answer, texts)
    }

    fn json(event: &str) -> Value {
        let (_, data) = event.split_once("data: ").expect(event);
        serde_json::from_str(data.strip_suffix("\n\n").expect(event)).expect(event)
    }

    #[test]
    fn usage_comes_last_and_is_null_before() {
        let (_, events) = stream(Endpoint::Chat, Behaviour::Normal, true);
        let (done, chunks) = events.split_last().expect("events");
        assert_eq!(done, "data: [DONE]\n\n");
        let (last, others) = chunks.split_last().expect("chunks");
        assert_eq!(json(last)["choices"], json!([]));
        assert!(json(last)["usage"]["total_tokens"].is_u64());
        assert!(others.iter().all(|chunk| json(chunk).get("usage") == Some(&Value::Null)));
    }

    #[test]
    fn usage_not_asked_for_is_absent() {
        for endpoint in [Endpoint::Chat, Endpoint::Completions] {
            let (_, events) = stream(endpoint, Behaviour::Normal, false);
            assert!(events.iter().all(|event| !event.contains("usage")), "{events:?}");
        }
    }

    #[test]
    fn the_prepared_stream_has_32_chunks() {
        let (_, events) = stream(Endpoint::Chat, Behaviour::Fast(std::time::Duration::ZERO), false);
        assert_eq!(events.len(), 32 + 1);
    }

    #[test]
    fn the_parts_of_a_tool_call_add_up_to_its_arguments() {
        let (_, events) = stream(Endpoint::Chat, Behaviour::ToolCall, false);
        let bodies: Vec<Value> = events[..events.len() - 1].iter().map(|event| json(event)).collect();
        let parts = bodies.iter().filter_map(|body| body["choices"][0]["delta"]["tool_calls"][0].as_object());
        let arguments: String = parts.filter_map(|part| part["function"]["arguments"].as_str()).collect();
        let arguments: Value = serde_json::from_str(&arguments).expect("JSON");
        assert_eq!(arguments, json!({ "city": "Paris", "unit": "celsius" }));
        assert_eq!(bodies.last().expect("a chunk")["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn deltas_add_up_to_the_text() {
        let (answer, events) = stream(Endpoint::Responses, Behaviour::Normal, false);
        let text: String = answer.pieces.iter().map(|piece| piece.text.as_str()).collect();
        let bodies: Vec<Value> = events.iter().map(|event| json(event)).collect();
        let deltas: String = bodies.iter().filter_map(|body| body["delta"].as_str()).collect();
        assert_eq!(deltas, text);
        let last = bodies.last().expect("an event");
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], text);
        for (number, (event, body)) in events.iter().zip(&bodies).enumerate() {
            assert_eq!(body["sequence_number"], number);
            assert!(
                event.starts_with(&format!("event: {}\n", body["type"].as_str().expect("a type"))),
                "{event}"
            );
        }
    }

    #[test]
    fn a_big_stream_is_as_big_as_asked_for() {
        let size = (1 << 20) + 5;
        let (_, events) = stream(Endpoint::Chat, Behaviour::Big(size), true);
        let all = events.concat();
        let text: usize = all
            .split("data: ")
            .filter_map(|event| serde_json::from_str::<Value>(event).ok())
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::len))
            .sum();
        assert_eq!(text as u64, size);
    }
}
