use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::recorder::{
    assemble::assemble,
    exchange::Kept,
    tests::golden::{captured, exchange, marked, piece, settings, value},
};

/// Metrics and response of an exchange.
fn record(exchange: Exchange) -> (Value, Value) {
    let record = assemble(exchange, &settings());
    let response = if record.response.is_empty() { Value::Null } else { value(&record.response) };
    (value(&record.metrics), response)
}

fn answer(provider: &str, path: &str, status: u16, body: &Value) -> Exchange {
    let body = serde_json::to_string_pretty(body).unwrap();
    let mut exchange = exchange(provider, path, captured("application/json", vec![piece(body, 40)]));
    exchange.status_code = Some(status);
    exchange.provider_status_code = Some(status);
    exchange
}

fn check(exchange: Exchange, expected: &Value) {
    let (metrics, _) = record(exchange);
    for (key, expected) in expected.as_object().unwrap() {
        assert_eq!(&metrics[key], expected, "{key} in {metrics:#}");
    }
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_plain_answer_of_every_api_gives_its_model_and_usage() {
    let usage = json!({"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10});
    let newer = json!({"input_tokens": 8, "output_tokens": 2, "total_tokens": 10});
    let chat =
        json!({"id": "c", "model": "m", "choices": [{"message": {"content": "Hi\n"}}], "usage": usage});
    for (provider, path, body, output) in [
        ("openai", CHAT, chat.clone(), json!(2)),
        ("groq", CHAT, chat, json!(2)),
        ("openai", "/v1/completions", json!({"model": "m", "choices": [], "usage": usage}), json!(2)),
        ("mistral", "/v1/embeddings", json!({"model": "m", "usage": {"prompt_tokens": 8}}), Value::Null),
        ("openai", "/v1/responses/", json!({"model": "m", "error": null, "usage": newer}), json!(2)),
        ("openai", "/v1/audio/transcriptions", json!({"model": "m", "text": "Hi", "usage": newer}), json!(2)),
    ] {
        let exchange = answer(provider, path, 200, &body);
        let (metrics, response) = record(exchange);
        assert_eq!(response, body, "{path}");
        let facts =
            ["status", "model", "input_tokens", "output_tokens", "usage_source"].map(|key| &metrics[key]);
        assert_eq!(facts, [&json!("success"), &json!("m"), &json!(8), &output, &json!("provider")], "{path}");
        let timing =
            ["ttft", "ttfb", "provider_latency", "gateway_overhead", "total_latency", "is_streaming"];
        let timing = timing.map(|key| &metrics[key]);
        let expected = [Value::Null, json!(40.0), json!(100.0), json!(0.25), json!(900.0), json!(false)];
        assert_eq!(timing, expected.each_ref(), "{path}");
    }
}

#[test]
fn a_stored_answer_that_is_asked_for_is_not_counted_again() {
    let stored =
        json!({"model": "m", "status": "failed", "error": {"code": "x"}, "usage": {"input_tokens": 8}});
    let nothing = json!({"model": "m", "status": "success", "input_tokens": null, "usage_source": "none"});
    check(answer("openai", "/v1/responses/resp_1/cancel", 200, &stored), &nothing);
    let mut get = answer("openai", "/v1/responses", 200, &stored);
    get.method = Method::GET;
    check(get, &nothing);
}

#[test]
fn an_error_has_the_providers_code_as_its_type_and_both_are_kept() {
    let inner = |kind: &str, code: &str| json!({"error": {"message": "m", "type": kind, "code": code}});
    for (provider, body, [name, kind, code]) in [
        (
            "openai",
            inner("requests", "rate_limit_exceeded"),
            ["rate_limit_exceeded", "requests", "rate_limit_exceeded"],
        ),
        (
            "openai",
            inner("invalid_request_error", "invalid_api_key"),
            ["invalid_api_key", "invalid_request_error", "invalid_api_key"],
        ),
        (
            "openai",
            inner("invalid_request_error", "context_length_exceeded"),
            ["context_length_exceeded", "invalid_request_error", "context_length_exceeded"],
        ),
        (
            "openai",
            inner("invalid_request_error", ""),
            ["invalid_request_error", "invalid_request_error", ""],
        ),
        (
            "openai",
            json!({"error": {"message": "m", "type": "insufficient_quota", "code": null}}),
            ["insufficient_quota", "insufficient_quota", ""],
        ),
        (
            "openai",
            json!({"error": {"message": "m", "type": null, "code": "model_not_found"}}),
            ["model_not_found", "", "model_not_found"],
        ),
        ("openrouter", json!({"error": {"message": "m", "code": 429}}), ["429", "", "429"]),
        (
            "vllm",
            json!({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}),
            ["BadRequestError", "BadRequestError", "400"],
        ),
        (
            "mistral",
            json!({"object": "error", "message": "m", "type": "rate_limited", "code": "1300"}),
            ["rate_limited", "rate_limited", "1300"],
        ),
        ("xai", json!({"code": "bad_key", "error": "Incorrect API key"}), ["bad_key", "", "bad_key"]),
        ("ollama", json!({"error": "model not found"}), ["", "", ""]),
        ("vllm", json!({"detail": "Not Found"}), ["", "", ""]),
        ("openai", json!({"type": "error", "error": {"type": "error"}}), ["", "", ""]),
        ("openai", json!(["odd"]), ["", "", ""]),
    ] {
        let [name, kind, code] =
            [name, kind, code].map(|text| json!(Some(text).filter(|text| !text.is_empty())));
        let expected = json!({
            "status": "error", "end_reason": "complete", "error_count": 1, "provider_error_count": 1,
            "error_type": name, "provider_error_type": kind, "provider_error_code": code,
            "status_code": 429, "provider_status_code": 429, "usage_source": "none", "truncated": [],
        });
        check(answer(provider, CHAT, 429, &body), &expected);
    }
}

#[test]
fn the_facts_of_request_and_answer_are_in_the_record_also_where_it_is_a_stream() {
    let details = json!({"cached_tokens": 4, "cache_write_tokens": 3, "audio_tokens": 2, "image_tokens": 1});
    let usage = json!({
        "prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cost": 0.0125, "num_search_queries": 2,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 2, "image_tokens": 1},
    });
    let body = json!({
        "id": "chatcmpl-1", "model": "m", "service_tier": "flex", "usage": usage,
        "choices": [
            {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
            {"index": 1, "delta": {"content": "b"}, "finish_reason": "length"},
        ],
    });
    let expected = json!({
        "response_id": "chatcmpl-1", "finish_reasons": ["stop", "length"], "service_tier": "flex",
        "request_service_tier": "auto", "previous_response_id": "resp_0", "input_tokens": 12, "cached_read_tokens": 4,
        "cached_write_tokens": 3, "audio_input_tokens": 2, "image_input_tokens": 1, "output_tokens": 7,
        "reasoning_tokens": 4, "audio_output_tokens": 2, "image_output_tokens": 1, "search_queries": 2,
        "cost": 0.0125, "cost_source": "provider", "price_version": null, "usage_source": "provider",
        "parent_span_id": "0202020202020202", "trace_flags": 3,
    });
    let streamed = format!("data: {body}\n\ndata: [DONE]\n\n");
    for response in [
        captured("application/json", vec![piece(body.to_string(), 40)]),
        captured("text/event-stream", vec![piece(streamed, 40)]),
    ] {
        let mut exchange = exchange("openai", CHAT, response);
        let asked = r#"{"model":"m","service_tier":"auto","previous_response_id":"resp_0"}"#;
        exchange.request = captured("application/json", vec![piece(asked, 0)]);
        check(exchange, &expected);
    }
}

#[test]
fn usage_that_moonshot_streams_in_a_choice_is_read() {
    let stream = "data: {\"id\":\"c\",\"model\":\"kimi\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n\
        data: {\"id\":\"c\",\"model\":\"kimi\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":\
        {\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11,\"cached_tokens\":5}}]}\n\ndata: [DONE]\n\n";
    let answer = captured("text/event-stream", vec![piece(stream, 0)]);
    check(
        exchange("openai", CHAT, answer),
        &json!({"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "cached_read_tokens": 5,
            "finish_reasons": ["stop"], "usage_source": "provider"}),
    );
}

#[test]
fn a_response_says_why_it_ended_and_what_it_searched() {
    let body = json!({
        "id": "resp_1", "model": "m", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
        "service_tier": "priority", "usage": {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}},
        "output": [{"type": "web_search_call", "action": {"type": "search"}}, {"type": "message"}],
    });
    let expected = json!({
        "response_id": "resp_1", "finish_reasons": ["max_output_tokens"], "service_tier": "priority",
        "search_queries": 1, "cached_read_tokens": 0,
    });
    check(answer("openai", "/v1/responses", 200, &body), &expected);
    let event = json!({"type": "response.incomplete", "response": body});
    let streamed = captured("text/event-stream", vec![piece(format!("data: {event}\n\n"), 0)]);
    check(exchange("openai", "/v1/responses", streamed), &expected);
    // What was made before was counted then.
    let stored = answer("openai", "/v1/responses/resp_1/cancel", 200, &body);
    check(
        stored,
        &json!({"response_id": null, "finish_reasons": null, "service_tier": null, "search_queries": null}),
    );
}

#[test]
fn every_field_of_a_record_is_filled_by_something() {
    let usage = json!({
        "prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cost": 0.0125, "num_search_queries": 2, "seconds": 1.5,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3, "audio_tokens": 2, "image_tokens": 1,
            "cache_creation_token_details": {"ephemeral_1h_input_tokens": 1}},
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 2, "image_tokens": 1},
    });
    let body = json!({
        "id": "c", "model": "m", "service_tier": "flex", "usage": usage, "error": {"type": "t", "code": "c"},
        "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "error"}],
    });
    let mut exchange =
        exchange("openai", CHAT, captured("text/event-stream", vec![piece(format!("data: {body}\n\n"), 9)]));
    let asked = json!({
        "model": "m", "service_tier": "auto", "previous_response_id": "r", "user": "u", "metadata": {
            "thread_id": "t", "org_id": "o", "project_id": "p", "project_name": "P", "experiment_id": "e"
        },
    });
    exchange.request = captured("application/json", vec![piece(asked.to_string(), 0)]);
    exchange.identity.client_request_id = Some("mine".to_owned());
    exchange.provider_request_id = Some("theirs".to_owned());
    let (metrics, _) = record(exchange);
    // No price table yet; both bodies are JSON.
    let unknown: Vec<_> = metrics
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| value.is_null())
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(unknown, ["price_version", "request_body", "response_body"]);
}

#[test]
fn an_error_under_status_200_is_an_error() {
    check(
        answer("openrouter", CHAT, 200, &json!({"error": {"code": 502, "message": "upstream"}})),
        &json!({"status": "error", "end_reason": "complete", "error_count": 1, "error_type": "502"}),
    );
}

#[test]
fn ends_that_the_proxy_saw_are_told_with_who_made_the_error() {
    use EndReason::{ClientDisconnect, Complete, GatewayError, ProviderError, Timeout};
    let cases = [
        (Complete, None, Some(200), Some(200), json!(["success", "complete", 0, 0, null])),
        (Complete, None, Some(500), Some(500), json!(["error", "complete", 1, 1, null])),
        (ClientDisconnect, None, None, None, json!(["error", "client_disconnect", 0, 0, null])),
        (ProviderError, None, Some(200), Some(200), json!(["error", "provider_error", 1, 1, null])),
        (
            ProviderError,
            Some("upstream_connect"),
            Some(502),
            None,
            json!(["error", "provider_error", 1, 1, "upstream_connect"]),
        ),
        (
            Timeout,
            Some("first_byte_timeout"),
            Some(504),
            None,
            json!(["error", "timeout", 1, 0, "first_byte_timeout"]),
        ),
        (
            GatewayError,
            Some("unknown_provider"),
            Some(400),
            None,
            json!(["error", "gateway_error", 1, 0, "unknown_provider"]),
        ),
        (Complete, Some("odd"), Some(200), Some(200), json!(["error", "complete", 1, 0, "odd"])),
    ];
    for (end, error, status, provider_status, expected) in cases {
        let mut exchange = answer("openai", CHAT, 200, &json!({}));
        (exchange.end, exchange.error) = (end, error);
        (exchange.status_code, exchange.provider_status_code) = (status, provider_status);
        let (metrics, _) = record(exchange);
        let keys = ["status", "end_reason", "error_count", "provider_error_count", "error_type"];
        assert_eq!(json!(keys.map(|key| &metrics[key])), expected);
    }
}

#[test]
fn the_gateways_own_error_is_not_read_as_the_providers() {
    let body = json!({"error": {"type": "invalid_request_error", "code": "unknown_provider"}, "model": "m"});
    let mut exchange = answer("openai", CHAT, 400, &body);
    exchange.provider_status_code = None;
    exchange.provider = None;
    (exchange.end, exchange.error) = (EndReason::GatewayError, Some("unknown_provider"));
    let (metrics, response) = record(exchange);
    assert_eq!(response, body);
    assert_eq!(
        (&metrics["provider"], &metrics["model"], &metrics["provider_error_type"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn ids_come_from_the_headers_then_from_the_body_and_else_are_unknown() {
    let asked = |body: &str| {
        let mut exchange = answer("openai", CHAT, 200, &json!({}));
        exchange.request = captured("application/json", vec![piece(body, 0)]);
        exchange
    };
    let own = "01956e2f-0a4b-7000-8000-000000000001";
    let keys =
        ["thread_id", "org_id", "user_id", "project_id", "project_name", "experiment_id", "request_model"];
    let ids = |exchange: Exchange| {
        let metrics = record(exchange).0;
        json!(keys.map(|key| &metrics[key]))
    };
    assert_eq!(ids(asked("{}")), json!([own, null, null, null, null, null, null]));
    let body = r#"{"model":"m","user":"u","metadata":{"thread_id":"t","org_id":"o","project_id":"p",
        "project_name":"P","experiment_id":"e","other":1}}"#;
    assert_eq!(ids(asked(body)), json!(["t", "o", "u", "p", "P", "e", "m"]));
    assert_eq!(ids(asked(r#"{"user":"u","metadata":{"user_id":"v"}}"#))[2], "v");
    let mut both = asked(body);
    both.identity.thread_id = Some("header".to_owned());
    both.identity.client_request_id = Some("mine".to_owned());
    assert_eq!(ids(both)[0], "header");
    let odd = r#"{"model":7,"user":"","metadata":"none"}"#;
    assert_eq!(ids(asked(odd)), json!([own, null, null, null, null, null, null]));
}

#[test]
fn the_providers_id_of_the_request_comes_from_its_header_and_else_from_its_answer() {
    let body = json!({"x_groq": {"id": "req_1"}});
    check(answer("groq", CHAT, 200, &body), &json!({"provider_request_id": "req_1"}));
    check(answer("openai", CHAT, 200, &body), &json!({"provider_request_id": null}));
    let mut named = answer("groq", CHAT, 200, &body);
    named.provider_request_id = Some("req_2".to_owned());
    check(named, &json!({"provider_request_id": "req_2"}));
}

#[test]
fn what_is_no_json_in_a_stream_is_left_out_and_the_rest_is_not() {
    let chunk = |text: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let stream = [
        chunk("a"),
        "data: not json\n\ndata: [1]\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lost\"}}\n\n".to_owned(),
        chunk("b").replace(":[{", ":\ndata: [{"),
        "data\n\n".to_owned(),
        chunk("c"),
        "data: [DONE]\n\n".to_owned(),
    ];
    let (metrics, response) = record(exchange(
        "openai",
        CHAT,
        captured("text/event-stream; charset=utf-8", vec![piece(stream.concat(), 0)]),
    ));
    assert_eq!(response["choices"][0]["delta"]["content"], "abc");
    assert_eq!(response["streamed_data"].as_array().unwrap().len(), 3);
    assert_eq!((&metrics["truncated"], &metrics["status"]), (&json!(["streamed_data"]), &json!("success")));
}

#[test]
fn bytes_of_a_stream_that_are_no_text_are_replaced_as_a_client_would() {
    let stream = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\xff\"}}]}\n\n";
    let (metrics, response) =
        record(exchange("openai", CHAT, captured("text/event-stream", vec![piece(stream, 0)])));
    assert_eq!(response["choices"][0]["delta"]["content"], "a\u{FFFD}");
    assert_eq!(metrics["truncated"], json!([]));
}

#[test]
fn a_stream_of_no_known_form_keeps_its_chunks() {
    let stream = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"Hi\"}\n\n\
                  data: {\"type\":\"transcript.text.done\",\"text\":\"Hi\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}\n\n";
    let (metrics, response) = record(exchange(
        "openai",
        "/v1/audio/transcriptions",
        captured("text/event-stream", vec![piece(stream, 0)]),
    ));
    assert_eq!(response["streamed_data"].as_array().unwrap().len(), 2);
    assert_eq!((&metrics["input_tokens"], &metrics["output_tokens"]), (&json!(3), &json!(1)));
    assert_eq!(record(exchange("openai", CHAT, captured("text/event-stream", vec![]))).1, Value::Null);
    let comment = captured("text/event-stream", vec![piece(": ping\n\n", 0)]);
    assert_eq!(
        record(exchange("openai", CHAT, comment)).1,
        json!({"streamed_data": [], "streamed_data_ms": []})
    );
}

#[test]
fn bodies_that_are_not_json_or_too_large_are_named_in_the_metrics() {
    let mut exchange = answer("openai", "/v1/audio/speech", 200, &json!({}));
    exchange.request.kept =
        Kept::Ends { head: marked(&[piece(r#"{"model":"tts-1","input":"…"#, 0)]), tail: "…\"}".into() };
    exchange.response = captured("audio/mpeg", vec![piece([0xff, 0xfb], 0)]);
    check(
        exchange,
        &json!({
            "request_model": "tts-1",
            "truncated": ["request"],
            "request_body": null,
            "response_body": {"content_type": "audio/mpeg", "size": 2,
                "sha256": "2a07c278aefd14c4aaef1fdb0bc912bb13d3cfb27839d898664b54609416c57a"},
        }),
    );
}
