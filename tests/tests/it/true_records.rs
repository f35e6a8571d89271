//! Odd streams and answers through the binary: the record says what official clients see.

use std::{collections::HashMap, sync::Arc};

use end_to_end::{Gateway, RawProvider, Running, Step, client::post, within};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const EVENT_STREAM: &str = "text/event-stream";
const DONE: &str = "data: [DONE]\n\n";

/// An answer with 200, and what is asked of its record.
struct Case {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: String,
    /// The body's last chunk is sent.
    ends: bool,
    expected: Value,
}

impl Case {
    /// A stream of chat completions; `expected` are fields of the metadata.
    fn stream(name: &'static str, body: impl Into<String>, expected: Value) -> Self {
        Self { name, path: CHAT, content_type: EVENT_STREAM, body: body.into(), ends: true, expected }
    }

    fn plain(name: &'static str, body: &Value, expected: Value) -> Self {
        Self { content_type: "application/json", ..Self::stream(name, body.to_string(), expected) }
    }

    fn on(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    fn steps(&self) -> Vec<Step> {
        let head = format!("content-type: {}\r\n", self.content_type);
        let head = if self.content_type.is_empty() { String::new() } else { head };
        let framing = "transfer-encoding: chunked\r\nconnection: close";
        let mut steps = vec![
            Step::send(format!("HTTP/1.1 200 OK\r\n{head}{framing}\r\n\r\n")),
            Step::chunk(self.body.as_bytes()),
        ];
        steps.extend(self.ends.then(Step::end));
        steps
    }
}

fn events(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn text(text: &str) -> Value {
    json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

fn end(reason: &str) -> Value {
    json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn usage() -> Value {
    json!({"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
}

fn question() -> String {
    json!({"model": "asked-for", "messages": [{"role": "user", "content": "Hi"}], "stream": true}).to_string()
}

/// Asks for every case, compares what is expected of its metadata, and gives the records back by name.
async fn check(cases: Vec<Case>) -> HashMap<&'static str, Value> {
    let cases: Arc<[Case]> = cases.into();
    let answers = cases.clone();
    let provider = RawProvider::start(move |request| {
        let case: usize = request.header("x-case").unwrap().parse().unwrap();
        answers[case].steps()
    })
    .await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter().start().await;
    let mut records = HashMap::new();
    for (position, case) in cases.iter().enumerate() {
        ask(&gateway, case, position).await;
        let record = gateway.wait_for_records(position + 1).await.remove(position);
        let metadata = &record["attributes"]["metadata"];
        for (key, expected) in case.expected.as_object().unwrap() {
            assert_eq!(&metadata[key], expected, "{}: {key} in {record:#}", case.name);
        }
        records.insert(case.name, record["attributes"].clone());
    }
    records
}

/// Whatever becomes of the record, the client gets the provider's bytes.
async fn ask(gateway: &Running, case: &Case, position: usize) {
    let headers = [("x-case", &*position.to_string())];
    let request = post(&format!("{}{}", gateway.url, case.path), question(), &headers);
    let mut answer = gateway.client.open(request).await.unwrap();
    let mut read = Vec::new();
    let is_whole = loop {
        match within("a frame", answer.frame()).await {
            Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().unwrap()),
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    assert_eq!(
        (String::from_utf8_lossy(&read), is_whole),
        (case.body.as_str().into(), case.ends),
        "{}",
        case.name
    );
}

fn good() -> Value {
    json!({"status": "success", "end_reason": "complete", "error_type": null, "error_count": 0, "provider_error_count": 0})
}

fn failed(error_type: &str, usage_source: &str) -> Value {
    json!({"status": "error", "end_reason": "provider_error", "error_type": error_type, "error_count": 1,
        "provider_error_count": 1, "status_code": 200, "usage_source": usage_source})
}

fn delta(record: &Value) -> &Value {
    &record["response"]["choices"][0]["delta"]
}

#[tokio::test]
async fn half_an_answer_is_an_error() {
    let incomplete = |source: &str| failed("stream_incomplete", source);
    let second = json!({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": null}]});
    let created = json!({"type": "response.created", "response": {"id": "r", "model": "m", "usage": {"input_tokens": 3}}});
    let completed = json!({"type": "response.completed", "response": {"id": "r", "model": "m", "usage": {"input_tokens": 3}}});
    let speech = json!({"type": "speech.audio.delta", "audio": "UklG"});
    check(vec![
        Case::stream("no end", events(&[text("a")]), incomplete("none")),
        Case::stream("usage and no end", events(&[text("a"), usage()]), incomplete("partial")),
        Case::stream(
            "one of two choices",
            events(&[text("a"), second.clone(), end("stop")]),
            incomplete("none"),
        ),
        Case::stream("nothing at all", ": wait\n\n", incomplete("none")),
        Case::stream("responses", events(std::slice::from_ref(&created)), incomplete("partial"))
            .on(RESPONSES),
        Case::stream("whole responses", events(&[created, completed]), good()).on(RESPONSES),
        Case::stream("only [DONE]", events(&[text("a"), second]) + DONE, good()),
        Case::stream("no [DONE]", events(&[text("a"), end("stop"), usage()]), good()),
        Case::stream("speech", events(&[speech]), good()).on("/v1/audio/speech"),
    ])
    .await;
}

#[tokio::test]
async fn an_error_is_an_error_wherever_it_stands_and_nothing_is_none() {
    let choice = |error: Value| json!({"model": "m", "choices": [{"index": 0, "delta": {}, "message": {}, "finish_reason": "error", "error": error}]});
    let named = choice(json!({"code": 502, "message": "m"}));
    let vllm = json!({"object": "error", "message": "m", "type": "BadRequestError", "code": null});
    let wrapped = json!({"error": {"message": "m", "code": "overloaded"}});
    let plain =
        |error_type: &str| json!({"status": "error", "end_reason": "complete", "error_type": error_type});
    let mut cases = vec![
        Case::stream(
            "finish reason",
            events(&[text("a"), end("error"), usage()]) + DONE,
            failed("answer_failed", "partial"),
        ),
        Case::stream("in a choice", events(&[text("a"), named.clone()]) + DONE, failed("502", "none")),
        Case::stream("no name", events(&[text("a"), vllm]) + DONE, failed("BadRequestError", "none")),
        Case::stream(
            "wrapped",
            events(&[text("a"), wrapped, text("b")]) + DONE,
            failed("overloaded", "none"),
        ),
        Case::plain("plain, in a choice", &named, plain("502")),
        Case::plain("plain, finish reason", &choice(json!(null)), plain("answer_failed")),
    ];
    for nothing in [json!(""), json!(false), json!([]), json!({}), json!(null)] {
        let mut chunk = end("stop");
        chunk["error"] = nothing;
        cases.push(Case::stream("nothing, streamed", events(&[text("a"), chunk.clone()]) + DONE, good()));
        cases.push(Case::plain("nothing, plain", &chunk, good()));
    }
    check(cases).await;
}

#[tokio::test]
async fn what_is_empty_replaces_nothing_and_calls_stay_apart() {
    let calls = |calls: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]});
    let call = |id: &str, name: &str, arguments: &str| json!({"index": 0, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let unnumbered = |id: &str, name: &str, arguments: &str| json!({"id": id, "function": {"name": name, "arguments": arguments}});
    let piece =
        |arguments: &str| json!([{"id": "", "type": "", "function": {"name": "", "arguments": arguments}}]);
    let filter = json!({"id": "", "object": "", "model": "", "created": 0, "choices": [{"index": 0, "content_filter_offsets": {}}]});
    let stream = |chunks: &[Value]| events(chunks) + &events(&[end("tool_calls")]) + DONE;
    let records = check(vec![
        Case::stream("filter", stream(&[text("a"), filter]), good()),
        Case::stream(
            "one index",
            stream(&[
                calls(json!([call("a", "f", "{\"a\":1}")])),
                calls(json!([call("b", "g", "{\"b\":2}")])),
            ]),
            good(),
        ),
        Case::stream(
            "no index",
            stream(&[
                calls(json!([unnumbered("a", "f", "")])),
                calls(piece("{\"a\":1}")),
                calls(json!([unnumbered("b", "g", "")])),
                calls(piece("{\"b\":")),
                calls(piece("2}")),
            ]),
            good(),
        ),
    ])
    .await;
    let filtered = &records["filter"];
    assert_eq!((&filtered["model"], &filtered["response"]["id"]), (&json!("m"), &json!("c")));
    for name in ["one index", "no index"] {
        let calls = delta(&records[name])["tool_calls"].as_array().unwrap();
        let told: Vec<_> = calls.iter().map(|call| json!([call["id"], call["function"]])).collect();
        let expected = [
            json!(["a", {"name": "f", "arguments": "{\"a\":1}"}]),
            json!(["b", {"name": "g", "arguments": "{\"b\":2}"}]),
        ];
        assert_eq!(told, expected, "{name}");
    }
}

#[tokio::test]
async fn cumulative_messages_and_lists_of_parts_are_folded() {
    let mut so_far = String::new();
    let mut growing: Vec<Value> = (0..300)
        .map(|word| {
            let more = format!("w{word} ");
            so_far += &more;
            json!({"model": "sonar", "choices": [{"index": 0, "message": {"content": so_far}, "delta": {"content": more}}]})
        })
        .collect();
    growing.push(end("stop"));
    let part = |text: &str| json!({"type": "text", "text": text});
    let thought = |text: &str| json!({"type": "thinking", "thinking": [part(text)]});
    let parts = |list: Value| json!({"choices": [{"index": 0, "delta": {"content": list}}]});
    let thinking =
        events(&[text(""), parts(json!([thought("Hm")])), parts(json!([thought(", so")])), end("length")]);
    let both = events(&[parts(json!([thought("Hm")])), text("It is"), text(" 42"), end("stop")]);
    let records = check(vec![
        Case::stream("growing", events(&growing) + DONE, good()),
        Case::stream("thinking", thinking, good()),
        Case::stream("both", both, good()),
    ])
    .await;
    let response = &records["growing"]["response"];
    assert_eq!(response["streamed_data"], json!(growing));
    assert_eq!(response["choices"][0]["message"]["content"], so_far);
    let mut folded = response.clone();
    for chunks in ["streamed_data", "streamed_data_ms"] {
        folded.as_object_mut().unwrap().remove(chunks);
    }
    assert!(folded.to_string().len() < 2 * so_far.len() + 200, "{folded}");
    assert_eq!(delta(&records["thinking"])["content"], json!([thought("Hm, so")]));
    assert!(
        records["thinking"]["metadata"]["ttft"].as_f64().is_some_and(|ttft| ttft > 0.0),
        "a thought is content"
    );
    assert_eq!(delta(&records["both"])["content"], json!([thought("Hm"), part("It is 42")]));
}

#[tokio::test]
async fn a_stream_is_read_as_one_whatever_it_is_called() {
    let body = events(&[text("a"), end("stop"), usage()]) + DONE;
    let mut expected = good();
    expected["is_streaming"] = json!(true);
    expected["tokens"] = json!({"input": 3, "output": 1, "total": 4});
    let types = ["application/json", "text/plain", "", EVENT_STREAM];
    let cases = types.map(|content_type| Case {
        name: content_type,
        content_type,
        ..Case::stream("", body.clone(), expected.clone())
    });
    let records = check(cases.into()).await;
    for (content_type, record) in records {
        assert_eq!(
            (&record["model"], &delta(&record)["content"]),
            (&json!("m"), &json!("a")),
            "{content_type}"
        );
        assert!(record["metadata"]["ttft"].as_f64().is_some_and(|ttft| ttft > 0.0), "{content_type}");
    }
}

#[tokio::test]
async fn a_stream_of_no_known_form_is_kept_as_it_came() {
    let stream = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude", "content": []}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        json!({"type": "message_stop"}),
    ];
    let provider = RawProvider::start({
        let case = Case::stream("anthropic", events(&stream), good());
        move |_| case.steps()
    })
    .await;
    let gateway = Gateway::new()
        .provider("openai", &provider.url())
        .section("[telemetry.capture]\nstreamed_data = false")
        .file_exporter()
        .start()
        .await;
    gateway.post("/v1/messages", question()).await;
    let record = gateway.record().await;
    assert_eq!(record["attributes"]["response"], json!({ "streamed_data": stream }));
    assert_eq!(record["attributes"]["metadata"]["status"], "success");
}

#[tokio::test]
async fn small_oddities_are_read_as_the_sdks_read_them() {
    let nan = text("a").to_string().replace("null", "NaN");
    let twice = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\",\"content\":\"b\"}}]}\n\n";
    let odd = format!("\u{FEFF}data:\n\ndata: {{\"type\":\"ping\"}}\n\ndata: {nan}\n\n{twice}");
    let answer = json!({"model": "m", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]});
    let mut whole = good();
    whole["truncated"] = json!([]);
    let marked = Case { body: format!("\u{FEFF}{answer}"), ..Case::plain("marked", &answer, whole.clone()) };
    let cut = Case { ends: false, ..Case::stream("cut", events(&[text("a"), end("stop")]) + DONE, good()) };
    let mut none = good();
    none["usage_source"] = json!("none");
    none["tokens"] = json!({"input": null, "output": null, "total": null});
    let mut without_usage = [text("a"), end("stop")];
    without_usage.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
    let records = check(vec![
        Case::stream("odd", odd + &events(&[end("stop")]) + DONE, whole),
        marked,
        cut,
        Case::stream("no usage", events(&[text("a"), end("stop")]) + DONE, none.clone()),
        Case::stream("usage: null", events(&without_usage) + DONE, none),
    ])
    .await;
    assert_eq!(delta(&records["odd"])["content"], "ab");
    assert_eq!(records["odd"]["response"]["type"], Value::Null);
    assert_eq!(records["odd"]["response"]["streamed_data"].as_array().unwrap().len(), 4);
    assert_eq!((&records["marked"]["response"], &records["marked"]["model"]), (&answer, &json!("m")));
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_event_was_served_whole() {
    let body = events(&[text("a"), end("stop"), usage()]) + DONE;
    let length = body.len();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let provider = RawProvider::start(move |_| {
        let gate = opened.clone();
        let wait = Step::wait(async move { gate.acquire().await.unwrap().forget() });
        vec![Step::chunked_head(EVENT_STREAM), Step::chunk(body.as_bytes()), wait]
    })
    .await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter().start().await;
    let request = post(&format!("{}{CHAT}", gateway.url), question(), &[]);
    let mut answer = gateway.client.open(request).await.unwrap();
    let mut read = 0;
    while read < length {
        read += within("a frame", answer.frame()).await.unwrap().unwrap().data_ref().unwrap().len();
    }
    drop(answer);
    let metadata = gateway.record().await["attributes"]["metadata"].take();
    gate.add_permits(1);
    assert_eq!(
        ["status", "end_reason", "usage_source"].map(|key| &metadata[key]),
        ["success", "complete", "provider"]
    );
}

#[tokio::test]
async fn the_model_of_a_request_too_large_to_be_kept_is_known_wherever_it_stands() {
    let provider =
        RawProvider::of("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
    let gateway = Gateway::new()
        .provider("openai", &provider.url())
        .section("[telemetry.capture]\nmax_body_bytes = \"64 KiB\"")
        .file_exporter()
        .start()
        .await;
    // As SDKs write it: the messages, the model, the tools.
    let filling = "x\\\" \\\"model\\\": ".repeat(5_000);
    let body = format!(
        r#"{{"messages":[{{"model":"no","content":"{filling}"}}],"model":"m","tools":["{filling}"]}}"#
    );
    gateway.post(CHAT, body).await;
    let metadata = gateway.record().await["attributes"]["metadata"].take();
    assert_eq!((&metadata["request_model"], &metadata["truncated"]), (&json!("m"), &json!(["request"])));
}
