//! Odd streams and answers, and what official clients see of them: the record says the same.

use plugin_api::EndReason;
use serde_json::{Value, json};

use super::golden::{captured, exchange, marked, piece, settings, value};
use crate::recorder::{
    assemble::{Settings, assemble},
    exchange::{Exchange, Kept},
};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";

/// Events in a row; what is no object stands as it is.
fn events(events: &[Value]) -> String {
    let text = |event: &Value| event.as_str().map_or_else(|| event.to_string(), str::to_owned);
    events.iter().map(|event| format!("data: {}\n\n", text(event))).collect()
}

fn streamed(path: &str, body: &str) -> Exchange {
    exchange("openai", path, captured("text/event-stream", vec![piece(body, 300)]))
}

fn plain(path: &str, body: &Value) -> Exchange {
    exchange("openai", path, captured("application/json", vec![piece(body.to_string(), 300)]))
}

/// Metrics and response of an exchange.
fn record(exchange: Exchange) -> (Value, Value) {
    let record = assemble(exchange, &settings());
    let response = if record.response.is_empty() { Value::Null } else { value(&record.response) };
    (value(&record.metrics), response)
}

fn facts(metrics: &Value, keys: &[&str]) -> Value {
    keys.iter().map(|key| metrics[key].clone()).collect()
}

/// `[status, end_reason, error_type, usage_source]`
fn outcome(exchange: Exchange) -> Value {
    facts(&record(exchange).0, &["status", "end_reason", "error_type", "usage_source"])
}

fn text(text: &str) -> Value {
    json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

fn end(reason: &str) -> Value {
    json!({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn usage() -> Value {
    json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
}

fn done() -> Value {
    json!("[DONE]")
}

#[test]
fn half_an_answer_is_an_error_and_a_whole_one_is_none() {
    let good = |source: &str| json!(["success", "complete", null, source]);
    let half = |source: &str| json!(["error", "provider_error", "stream_incomplete", source]);
    let of = |index: u64, reason: Value| json!({"choices": [{"index": index, "delta": {}, "finish_reason": reason}]});
    let words = |reason: Value| json!({"choices": [{"index": 0, "text": "a", "finish_reason": reason}]});
    let created = || json!({"type": "response.created", "response": {"id": "r", "status": "in_progress"}});
    let ended = |status: &str| json!({"type": format!("response.{status}"), "response": {"object": "response", "status": status}});
    for (path, stream, expected) in [
        (CHAT, vec![text("a")], half("none")),
        (CHAT, vec![text("a"), usage()], half("partial")),
        (CHAT, vec![], half("none")),
        (CHAT, vec![text("a"), of(0, json!(""))], half("none")),
        (CHAT, vec![of(0, json!("stop")), of(1, json!(null))], half("none")),
        (CHAT, vec![of(0, json!("stop")), of(1, json!(null)), done()], good("none")),
        (CHAT, vec![of(1, json!("stop")), of(0, json!("tool_calls"))], good("none")),
        (CHAT, vec![text("a"), done()], good("none")),
        (CHAT, vec![text("a"), usage(), done()], good("provider")),
        (CHAT, vec![text("a"), end("stop")], good("none")),
        (CHAT, vec![text("a"), end("length"), usage()], good("provider")),
        (CHAT, vec![text("a"), end("content_filter"), json!({"type": "ping"})], good("none")),
        (COMPLETIONS, vec![words(json!(null))], half("none")),
        (COMPLETIONS, vec![words(json!("stop"))], good("none")),
        (RESPONSES, vec![created()], half("none")),
        (RESPONSES, vec![created(), done()], half("none")),
        (RESPONSES, vec![created(), ended("completed")], good("none")),
        (RESPONSES, vec![created(), ended("incomplete")], good("none")),
        (
            RESPONSES,
            vec![created(), ended("failed")],
            json!(["error", "provider_error", "answer_failed", "none"]),
        ),
        // What has another form makes no claim.
        (CHAT, vec![json!({"type": "message_start", "message": {"id": "m"}})], good("none")),
        (RESPONSES, vec![json!({"type": "message_start", "message": {"id": "m"}})], good("none")),
        ("/v1/messages", vec![json!({"type": "message_start", "message": {"id": "m"}})], good("none")),
        ("/v1/audio/speech", vec![json!({"type": "speech.audio.delta", "audio": "UklG"})], good("none")),
        ("/v1/models/gemini:streamGenerateContent", vec![json!({"candidates": []})], good("none")),
    ] {
        assert_eq!(outcome(streamed(path, &events(&stream))), expected, "{path}: {stream:?}");
    }
}

#[test]
fn a_stream_that_did_not_pass_whole_is_not_called_incomplete() {
    let broken = |end: EndReason, status: u16| {
        let mut exchange = streamed(CHAT, &events(&[text("a"), usage()]));
        exchange.provider_status_code = Some(status);
        exchange.response.complete = end == EndReason::Complete;
        exchange.end = end;
        outcome(exchange)
    };
    assert_eq!(
        broken(EndReason::ClientDisconnect, 200),
        json!(["error", "client_disconnect", null, "partial"])
    );
    assert_eq!(broken(EndReason::Timeout, 200), json!(["error", "timeout", null, "partial"]));
    assert_eq!(broken(EndReason::Complete, 500)[2], json!(null));
}

#[test]
fn of_a_stream_that_is_kept_in_part_the_end_decides_where_it_is_there() {
    let outcome_of = |path: &str, head: &str, tail: &str| {
        let mut exchange = streamed(path, "");
        exchange.response.size = 50 << 20;
        exchange.response.kept =
            Kept::Ends { head: marked(&[piece(head, 0)]), tail: tail.as_bytes().to_vec() };
        outcome(exchange)
    };
    let (head, cut) = (events(&[text("a")]), "half of an event\n\n");
    let created = events(&[json!({"type": "response.created", "response": {"id": "r"}})]);
    let [half, good] =
        [["error", "provider_error", "stream_incomplete"], ["success", "complete", ""]].map(|expected| {
            let named = |text: &&str| if text.is_empty() { Value::Null } else { json!(text) };
            Value::from_iter(expected.iter().map(named).chain([json!("none")]))
        });
    let with = |events_after: &[Value]| cut.to_owned() + &events(events_after);
    assert_eq!(outcome_of(CHAT, &head, &with(&[text("b")])), half);
    assert_eq!(outcome_of(CHAT, &head, &with(&[text("b"), end("stop")])), good);
    assert_eq!(outcome_of(CHAT, &head, &with(&[text("b"), done()])), good);
    let delta = json!({"type": "response.output_text.delta", "delta": "a"});
    assert_eq!(outcome_of(RESPONSES, &created, &with(&[delta])), half);
    // The last event has the whole answer, and may be longer than what is kept of the end.
    assert_eq!(outcome_of(RESPONSES, &created, "the end of response.completed\n\n"), good);
}

#[test]
fn an_error_inside_of_a_stream_has_the_providers_name_and_else_ours() {
    let failed = |name: &str, source: &str| json!(["error", "provider_error", name, source]);
    let choice = |error: Value, reason: &str| json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": reason, "error": error}]});
    let overloaded = || json!({"message": "m", "type": "overloaded"});
    for (stream, expected) in [
        (events(&[text("a"), end("error"), usage(), done()]), failed("answer_failed", "partial")),
        (events(&[text("a"), choice(json!({"code": 502, "message": "m"}), "error")]), failed("502", "none")),
        (
            events(&[text("a"), choice(json!({"code": 502, "message": "m"}), "stop"), done()]),
            failed("502", "none"),
        ),
        (
            events(&[
                text("a"),
                json!({"object": "error", "message": "m", "type": "BadRequestError"}),
                done(),
            ]),
            failed("BadRequestError", "none"),
        ),
        (
            events(&[text("a"), usage(), json!({"error": overloaded()}), text("b"), done()]),
            failed("overloaded", "partial"),
        ),
        (events(&[text("a"), json!({"error": "text"})]), failed("answer_failed", "none")),
        (events(&[json!({"type": "error", "error": overloaded()})]), failed("overloaded", "none")),
        (events(&[text("a")]) + "event: error\ndata: no JSON\n\n", failed("answer_failed", "none")),
        (events(&[text("a")]) + "event: error\ndata:\n\n", failed("answer_failed", "none")),
    ] {
        assert_eq!(outcome(streamed(CHAT, &stream)), expected, "{stream}");
    }
    for path in [RESPONSES, "/v1/audio/speech"] {
        let stream = events(&[json!({"object": "error", "message": "m", "type": "overloaded"})]);
        assert_eq!(outcome(streamed(path, &stream)), failed("overloaded", "none"), "{path}");
    }
}

#[test]
fn a_plain_answer_that_failed_in_a_choice_is_an_error() {
    let answer = |choice: Value| json!({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3}});
    let failed = |name: &str| json!(["error", "complete", name, "provider"]);
    for (choice, expected) in [
        (json!({"message": {"content": "a"}, "finish_reason": "error"}), failed("answer_failed")),
        (
            json!({"message": {"content": "a"}, "finish_reason": "error", "error": {"code": 429}}),
            failed("429"),
        ),
        (
            json!({"message": {"content": "\"error\""}, "finish_reason": "stop", "error": null}),
            json!(["success", "complete", null, "provider"]),
        ),
    ] {
        assert_eq!(outcome(plain(CHAT, &answer(choice.clone()))), expected, "{choice}");
    }
}

#[test]
fn an_error_that_says_nothing_is_none() {
    for nothing in [json!(null), json!(""), json!(false), json!([]), json!({})] {
        let mut chunk = text("a");
        chunk["error"] = nothing.clone();
        chunk["choices"][0]["error"] = nothing.clone();
        let stream = events(&[chunk.clone(), end("stop"), done()]);
        assert_eq!(outcome(streamed(CHAT, &stream))[0], "success", "{nothing} in a stream");
        chunk["choices"][0]["finish_reason"] = json!("stop");
        for path in [CHAT, RESPONSES, "/v1/embeddings", "/v1/images/generations"] {
            assert_eq!(outcome(plain(path, &chunk))[0], "success", "{nothing} at {path}");
        }
    }
}

#[test]
fn the_last_chunk_of_azures_filter_does_not_take_the_models_name() {
    let filter = json!({"id": "", "object": "", "created": 0, "model": "", "choices": [
        {"index": 0, "finish_reason": null, "content_filter_results": {}},
    ]});
    let (metrics, response) =
        record(streamed(CHAT, &events(&[text("a"), end("stop"), filter.clone(), filter, done()])));
    assert_eq!(facts(&metrics, &["model", "status"]), json!(["m", "success"]));
    assert_eq!((&response["id"], &response["model"]), (&json!("c"), &json!("m")));
    let nameless = json!({"model": "", "choices": []});
    assert_eq!(record(plain(CHAT, &nameless)).0["model"], json!(null));
}

#[test]
fn a_cumulative_stream_folds_to_its_last_message() {
    let mut so_far = String::new();
    let mut stream: Vec<Value> = (0..300)
        .map(|word| {
            let more = format!("w{word} ");
            so_far += &more;
            json!({"id": "p", "model": "sonar", "object": "chat.completion.chunk", "choices": [{"index": 0,
                "message": {"role": "assistant", "content": so_far}, "delta": {"role": "assistant", "content": more}}]})
        })
        .collect();
    stream.extend([end("stop"), done()]);
    let settings = Settings { max_body_bytes: 1 << 20, ..settings() };
    let whole = assemble(streamed(CHAT, &events(&stream)), &settings);
    let response = value(&whole.response);
    let choice = &response["choices"][0];
    assert_eq!(choice["message"]["content"], so_far);
    assert_eq!(choice["delta"]["content"], so_far);
    assert_eq!(response["streamed_data"].as_array().unwrap()[..], stream[..stream.len() - 1]);
    assert!(whole.before_streamed_data.unwrap() < 2 * so_far.len() + 500);
}

#[test]
fn time_to_first_token_is_that_of_the_first_thought() {
    let parts = |list: Value| json!({"choices": [{"index": 0, "delta": {"content": list}}]});
    let thought = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]);
    let stream = [text(""), parts(json!([])), parts(thought.clone()), text("42"), end("stop"), done()];
    let pieces = stream
        .iter()
        .zip(1..)
        .map(|(event, at)| piece(events(std::slice::from_ref(event)), 100 * at))
        .collect();
    let (metrics, response) = record(exchange("mistral", CHAT, captured("text/event-stream", pieces)));
    assert_eq!(metrics["ttft"], 300.0);
    let text = json!({"type": "text", "text": "42"});
    assert_eq!(response["choices"][0]["delta"]["content"], json!([thought[0], text]));
}

#[test]
fn a_stream_that_is_not_said_to_be_one_is_read_as_one() {
    let stream = events(&[text("a"), end("stop"), usage(), done()]);
    let comment = format!(": ping\n\n{stream}");
    let named = format!("\u{FEFF}event: chunk\n{stream}");
    let keys = ["is_streaming", "model", "output_tokens", "status", "ttft"];
    for body in [&stream, &comment, &named] {
        for content_type in [Some("application/json"), Some("text/plain; charset=utf-8"), Some(""), None] {
            let mut asked = streamed(CHAT, body);
            asked.response.content_type = content_type.map(str::to_owned);
            let (metrics, response) = record(asked);
            assert_eq!(facts(&metrics, &keys), json!([true, "m", 1, "success", 300.0]), "{content_type:?}");
            assert_eq!(response["choices"][0]["delta"]["content"], "a", "{content_type:?}");
        }
    }
    // Nobody asked for one; it is no text; it does not look like one; it is an error's.
    let other = |content_type: &str, request: &str, body: &str, status: u16| {
        let mut exchange = streamed(CHAT, body);
        exchange.response.content_type = Some(content_type.to_owned());
        exchange.request = captured("application/json", vec![piece(request, 0)]);
        exchange.provider_status_code = Some(status);
        record(exchange).0["is_streaming"].clone()
    };
    let asked = r#"{"stream":true}"#;
    assert_eq!(other("text/plain", asked, &stream, 200), true);
    assert_eq!(other("text/plain", r#"{"stream":false}"#, &stream, 200), false);
    assert_eq!(other("text/plain", "{}", &stream, 200), false);
    assert_eq!(other("audio/mpeg", asked, &stream, 200), false);
    assert_eq!(other("text/plain", asked, "database: none", 200), false);
    assert_eq!(other("text/plain", asked, &stream, 500), false);
}

#[test]
fn where_times_are_not_known_there_is_no_time_to_first_token() {
    let mut unlabelled = exchange("openai", CHAT, captured("application/json", Vec::new()));
    let stream = events(&[text("a"), end("stop")]);
    let mut bytes = crate::recorder::MarkedBytes::new(crate::budget::Reservation::default());
    bytes.push(stream.as_bytes(), std::time::Duration::ZERO, None).unwrap();
    unlabelled.response.kept = Kept::Whole(bytes);
    let (metrics, _) = record(unlabelled);
    assert_eq!(facts(&metrics, &["is_streaming", "ttft", "status"]), json!([true, null, "success"]));
}

#[test]
fn a_stream_of_no_known_form_is_what_came_and_never_an_empty_object() {
    let stream = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        json!({"type": "message_stop"}),
    ];
    let body: String = stream
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect();
    let chunks = json!({ "streamed_data": stream });
    for settings in [settings(), Settings { capture_streamed_data: false, ..settings() }] {
        let whole = assemble(streamed("/v1/messages", &body), &settings);
        let mut response = value(&whole.response);
        let times = response.as_object_mut().unwrap().remove("streamed_data_ms");
        assert_eq!(times.is_some(), settings.capture_streamed_data);
        assert_eq!(response, chunks);
        assert_eq!(value(&whole.metrics)["truncated"], json!([]));
        // There is no answer beside the chunks that could stay.
        assert!(whole.shed(exporter_pipeline::Shed::StreamedData).is_none());
    }
    let small = Settings { max_body_bytes: 100, ..settings() };
    let shed = assemble(streamed("/v1/messages", &body), &small);
    assert_eq!((shed.response.len(), &value(&shed.metrics)["truncated"]), (0, &json!(["response"])));
}

#[test]
fn small_oddities_are_read_as_the_sdks_read_them() {
    let nan = text("a").to_string().replace("null", "NaN");
    let twice = r#"{"choices":[{"index":0,"delta":{"content":"x","content":"b"},"finish_reason":null}]}"#;
    let stream = [
        "data:\n\n".to_owned(),
        "data: {\"type\":\"ping\"}\n\n".to_owned(),
        "event: ping\ndata: \n\n".to_owned(),
        format!("data: {nan}\n\n"),
        format!("data: {twice}\n\ndata: {twice}\n\n"),
        events(&[end("stop"), done()]),
    ];
    let (metrics, response) = record(streamed(CHAT, &stream.concat()));
    assert_eq!(facts(&metrics, &["status", "truncated", "model"]), json!(["success", [], "m"]));
    let choice = json!({"index": 0, "delta": {"content": "abb"}, "finish_reason": "stop"});
    let (chunks, times) = (response["streamed_data"].clone(), response["streamed_data_ms"].clone());
    let expected = json!({
        "id": "c", "model": "m", "choices": [choice], "streamed_data": chunks, "streamed_data_ms": times,
    });
    assert_eq!(response, expected);
    assert_eq!(chunks[1], text("a"), "null in place of NaN");
    assert_eq!(chunks.as_array().unwrap().len(), 5);
    let raw = assemble(streamed(CHAT, &stream.concat()), &settings()).response;
    assert!(memchr::memmem::find(&raw, twice.as_bytes()).is_some(), "chunks are kept as they came");
}

#[test]
fn after_the_last_event_the_answer_is_whole_whatever_becomes_of_the_connection() {
    let last = |path: &str, stream: &[Value], end: EndReason, error: Option<&'static str>| {
        let mut exchange = streamed(path, &events(stream));
        (exchange.end, exchange.error, exchange.response.complete) = (end, error, false);
        facts(&record(exchange).0, &["status", "end_reason", "error_type", "error_count", "usage_source"])
    };
    let chat = [text("a"), usage(), done()];
    let completed =
        json!({"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 1}}});
    let whole = json!(["success", "complete", null, 0, "provider"]);
    for (end, error) in [
        (EndReason::ProviderError, Some("upstream_broken")),
        (EndReason::Timeout, Some("upstream_idle_timeout")),
        (EndReason::GatewayError, Some("shutting_down")),
        (EndReason::ClientDisconnect, None),
    ] {
        assert_eq!(last(CHAT, &chat, end.clone(), error), whole, "{end:?}");
        assert_eq!(last(RESPONSES, std::slice::from_ref(&completed), end.clone(), error), whole, "{end:?}");
        let open = last(CHAT, &chat[..2], end.clone(), error);
        assert_eq!(open[0], "error", "{end:?} before the last event");
        assert_eq!((&open[1], &open[2]), (&json!(end.as_str()), &json!(error)));
    }
    let failed = [text("a"), json!({"error": {"code": "c"}}), done()];
    assert_eq!(last(CHAT, &failed, EndReason::ClientDisconnect, None)[1], "provider_error");
}

#[test]
fn a_stream_without_usage_has_none_and_is_no_failure() {
    let mut chunks = [text("a"), end("stop"), done()];
    chunks[..2].iter_mut().for_each(|chunk| chunk["usage"] = Value::Null);
    for stream in [chunks.to_vec(), vec![text("a"), end("stop"), done()]] {
        let (metrics, _) = record(streamed(CHAT, &events(&stream)));
        let keys = ["status", "input_tokens", "output_tokens", "total_tokens", "usage_source"];
        assert_eq!(facts(&metrics, &keys), json!(["success", null, null, null, "none"]));
    }
}

#[test]
fn odd_streams_cut_anywhere_make_records_of_well_formed_json() {
    let call = |call: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]});
    let parts = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "é\n"}]}, 7, {}]);
    let stream = "\u{FEFF}".to_owned()
        + &events(&[
            json!({"choices": [{"delta": {"content": parts}, "message": {"content": "a"}}]}),
            call(json!({"id": "a", "function": {"name": "f", "arguments": "{"}})),
            call(json!({"id": "b", "index": 0, "function": {"arguments": "}"}})),
            json!("{\"choices\":[{\"delta\":{\"content\":\"NaN\",\"content\":\"x\"},\"n\":NaN}]}"),
            json!({"object": "error"}),
            end("error"),
            done(),
        ]);
    for path in [CHAT, RESPONSES, "/v1/messages"] {
        for cut in 0..=stream.len() {
            let pieces = vec![piece(&stream.as_bytes()[..cut], 1)];
            let record =
                assemble(exchange("openai", path, captured("text/event-stream", pieces)), &settings());
            assert!(record.response.is_empty() || value(&record.response).is_object(), "{path} cut at {cut}");
        }
    }
}
