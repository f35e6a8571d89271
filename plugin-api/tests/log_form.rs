//! The log form holds to the guide's two examples: every key there is there, at the same place, with the same value.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use plugin_api::{LOG_NAME, RequestMetrics};
use serde_json::{Value, json, value::RawValue};

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The facts of the guide's first example, as a record.
fn metrics() -> Value {
    let text = r#"{
        "id": "0195-67", "timestamp": "2025-03-05T16:03:20.123Z", "thread_id": "thread_29",
        "org_id": "org_123", "user_id": "user_456", "project_id": "proj_design", "project_name": "UX Design",
        "service_name": "noveum_ai_gateway", "service_version": "1.0.0", "environment": "production",
        "provider": "azure", "model": "gpt-4-turbo", "path": "/v1/chat/completions", "method": "POST",
        "is_streaming": false, "total_latency": 6250.2, "provider_latency": 254.9, "ttfb": 256.0, "ttft": null,
        "gateway_overhead": 0.4, "request_size": 193, "response_size": 52280, "input_tokens": 48,
        "output_tokens": 865, "total_tokens": 913, "cached_read_tokens": null, "cached_write_tokens": null,
        "reasoning_tokens": null, "usage_source": "provider", "cost": 0.0456, "cost_source": "table",
        "price_version": "2025-03", "status": "success", "status_code": 200, "provider_status_code": 0,
        "error_count": 0, "error_type": null, "provider_error_count": 0, "provider_error_type": null,
        "end_reason": "complete", "provider_request_id": "req_01jnkrrz2ken1bej7emqf9j2af", "truncated": []
    }"#;
    serde_json::from_str(text).unwrap()
}

fn log_of(metrics: &Value, request: &Value, response: &Value) -> Value {
    let (metrics, request, response) = (metrics.to_string(), request.to_string(), response.to_string());
    let mut record: RequestMetrics<'_> = serde_json::from_str(&metrics).unwrap();
    record.request = Some(serde_json::from_str::<&RawValue>(&request).unwrap());
    record.response = Some(serde_json::from_str::<&RawValue>(&response).unwrap());
    let log = record.to_otel_log();
    let mut written = Vec::new();
    log.write_to(&mut written).unwrap();
    assert_eq!(serde_json::to_vec(&log).unwrap(), written, "both ways to write it agree");
    assert!(!written.contains(&b'\n'), "one line");
    serde_json::from_slice(&written).unwrap()
}

/// Every value of `expected` stands in `found` at the same place; more may stand there.
fn assert_contains(found: &Value, expected: &Value, place: &str) {
    match expected {
        Value::Object(members) => {
            for (key, value) in members {
                let inner = found.get(key).unwrap_or_else(|| panic!("{place}.{key} is missing"));
                assert_contains(inner, value, &format!("{place}.{key}"));
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn a_plain_answer_has_the_guides_form() {
    let mut expected = golden("otel-log.json");
    expected["attributes"]["id"] = json!("msg_019567");
    let log = log_of(&metrics(), &json!({}), &json!({}));
    assert_contains(&log, &expected, "log");
    assert_eq!(log["name"], LOG_NAME);
    for additive in ["ttfb", "ttft", "experiment_id", "usage_source", "end_reason", "cached_read_tokens"] {
        assert!(log["attributes"]["metadata"].get(additive).is_some(), "{additive} sits in the metadata");
    }
    assert!(log.get("trace_id").is_some() && log.get("span_id").is_some(), "at the top level");
}

#[test]
fn a_stream_has_the_guides_form() {
    let mut expected = golden("otel-log-streaming.json");
    expected["attributes"]["id"] = json!("msg_31");
    let mut metrics = metrics();
    for (key, value) in [
        ("id", json!("31")),
        ("timestamp", json!("2025-03-05T16:25:30.789Z")),
        ("thread_id", json!("thread_31")),
        ("project_id", json!("proj_chat")),
        ("provider", json!("groq")),
        ("model", json!("llama-3.1-8b-instant")),
        ("total_latency", json!(1244.4)),
        ("input_tokens", json!(38)),
        ("output_tokens", json!(256)),
        ("total_tokens", json!(294)),
        ("cost", json!(0.0263)),
        ("is_streaming", json!(true)),
    ] {
        metrics[key] = value;
    }
    let (request, response) =
        (expected["attributes"]["request"].clone(), expected["attributes"]["response"].clone());
    assert_contains(&log_of(&metrics, &request, &response), &expected, "log");
}

#[test]
fn unknown_is_null_and_bodies_pass_byte_for_byte() {
    let mut metrics = metrics();
    metrics["cost"] = Value::Null;
    metrics["input_tokens"] = Value::Null;
    let metrics = metrics.to_string();
    let mut record: RequestMetrics<'_> = serde_json::from_str(&metrics).unwrap();
    record.request = Some(serde_json::from_str("{ \"a\" :1.50, \"big\": 12345678901234567890123 }").unwrap());
    let mut written = Vec::new();
    record.to_otel_log().write_to(&mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains("\"request\":{ \"a\" :1.50, \"big\": 12345678901234567890123 },\"response\":null"));
    assert!(text.contains("\"cost\":null") && text.contains("\"tokens\":{\"input\":null,"), "{text}");
}

#[test]
fn what_a_later_release_adds_is_read_and_what_it_says_is_kept() {
    let mut metrics = metrics();
    metrics["end_reason"] = json!("throttled");
    metrics["of_a_later_release"] = json!({ "x": 1 });
    let log = log_of(&metrics, &json!({}), &json!({}));
    assert_eq!(log["attributes"]["metadata"]["end_reason"], "throttled");
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let text = metrics().to_string();
    let record: RequestMetrics<'_> = serde_json::from_str(&text).unwrap();
    let again: Value = serde_json::to_value(&record).unwrap();
    assert_contains(&again, &metrics(), "metrics");
    assert!(matches!(record.provider, Some(std::borrow::Cow::Borrowed(_))), "nothing is copied");
}
