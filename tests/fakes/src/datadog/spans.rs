//! `POST /api/intake/llm-obs/v1/trace/spans`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Kept, Key, SPAN_MAX_AGE_HOURS, key, refusal, unreadable};
use crate::{
    message::{Answer, Request},
    when,
};

/// <https://docs.datadoghq.com/llm_observability/instrumentation/api/>, "Meta".
const KINDS: [&str; 7] = ["agent", "workflow", "llm", "tool", "task", "embedding", "retrieval"];

pub(super) fn answer(kept: &mut Kept, request: &Request) -> Answer {
    // The page names only 202; the refusals are those of the API's other endpoints.
    let Key::Right = key(request) else { return refusal(403, "Forbidden") };
    if let Some(why) = &request.unreadable {
        return refusal(400, &unreadable(why));
    }
    let Some(body) = request.json() else { return refusal(400, "the body is not JSON") };
    let attributes = &body["data"]["attributes"];
    if let Err(why) = check(&body) {
        return refusal(400, &why);
    }
    let oldest = when::now_ms() - when::millis(Duration::from_hours(SPAN_MAX_AGE_HOURS));
    for span in attributes["spans"].as_array().into_iter().flatten() {
        let mut span = span.clone();
        let common = ["ml_app", "session_id", "tags"].map(|name| (name.to_owned(), attributes[name].clone()));
        span["_payload"] = Value::Object(common.into_iter().collect());
        let is_too_old = span["start_ns"].as_i64().unwrap_or_default() / 1_000_000 < oldest;
        if is_too_old { kept.dropped_spans.push(span) } else { kept.spans.push(span) }
    }
    Answer::empty(202)
}

/// `SpansRequestData`, `SpansPayload`, `Span` and `Meta`.
fn check(body: &Value) -> Result<(), String> {
    if body["data"]["type"] != json!("span") {
        return Err("data.type is not \"span\"".to_owned());
    }
    let attributes = &body["data"]["attributes"];
    if attributes["ml_app"].as_str().is_none_or(str::is_empty) {
        return Err("data.attributes.ml_app is missing".to_owned());
    }
    let is_tag = |tag: &Value| tag.as_str().is_some_and(|tag| tag.contains(':'));
    let are_tags = |tags: &Value| tags.as_array().is_some_and(|tags| tags.iter().all(is_tag));
    if attributes.get("tags").is_some_and(|tags| !are_tags(tags)) {
        return Err("data.attributes.tags is not a list of key:value".to_owned());
    }
    let spans = attributes["spans"].as_array().ok_or("data.attributes.spans is missing")?;
    spans
        .iter()
        .enumerate()
        .try_for_each(|(n, span)| check_span(span).map_err(|why| format!("spans[{n}]: {why}")))
}

fn check_span(span: &Value) -> Result<(), String> {
    for name in ["name", "span_id", "trace_id", "parent_id"] {
        if span[name].as_str().is_none_or(str::is_empty) {
            return Err(format!("{name} is missing; a root span's parent_id is \"undefined\""));
        }
    }
    if !span["start_ns"].is_u64() || !span["duration"].is_number() {
        return Err("start_ns and duration are numbers of nanoseconds".to_owned());
    }
    if span["meta"]["kind"].as_str().is_none_or(|kind| !KINDS.contains(&kind)) {
        return Err(format!("meta.kind is none of {KINDS:?}"));
    }
    let is_status = |status: &Value| status == "ok" || status == "error";
    match span.get("status") {
        Some(status) if !is_status(status) => Err("status is neither ok nor error".to_owned()),
        _ => Ok(()),
    }
}
