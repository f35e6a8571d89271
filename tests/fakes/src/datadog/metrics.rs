//! `POST /api/v2/series` and `POST /api/v1/distribution_points`.

use serde_json::{Value, json};

use super::{Kept, Key, SERIES_DECOMPRESSED_BELOW, SERIES_MAX_COMPRESSED, key, refusal, unreadable};
use crate::message::{Answer, Request};

pub(super) fn series(kept: &mut Kept, request: &Request) -> Answer {
    // "enum: deflate, zstd1, gzip"; the fake cannot read zstd.
    match payload(request, &["identity", "gzip", "deflate"], check_series) {
        Ok(series) => kept.series.extend(series),
        Err((status, why)) => return refusal(status, &why),
    }
    Answer::json(202, &json!({ "errors": [] }))
}

pub(super) fn distributions(kept: &mut Kept, request: &Request) -> Answer {
    // The only value documented is deflate: `DistributionPointsContentEncoding` in
    // <https://docs.datadoghq.com/api/latest/metrics/submit-distribution-points/>. The status of others is not.
    match payload(request, &["identity", "deflate"], check_distribution) {
        Ok(series) => kept.distributions.extend(series),
        Err((status, why)) => return refusal(status, &why),
    }
    Answer::json(202, &json!({ "status": "ok" }))
}

type Check = fn(&Value) -> Result<(), String>;

/// The elements of `series`. The statuses (202, 400, 403, 408, 413, 429) are those of both endpoints' pages; the size
/// limits are documented for v2 series alone, and assumed for distributions.
fn payload(request: &Request, encodings: &[&str], check: Check) -> Result<Vec<Value>, (u16, String)> {
    let Key::Right = key(request) else {
        return Err((403, "Forbidden".to_owned()));
    };
    if !encodings.contains(&request.encoding().as_str()) {
        return Err((400, format!("Content-Encoding {} is not documented here", request.encoding())));
    }
    if request.wire.len() > SERIES_MAX_COMPRESSED {
        return Err((413, format!("{} bytes; at most {SERIES_MAX_COMPRESSED}", request.wire.len())));
    }
    if let Some(why) = &request.unreadable {
        return Err((400, unreadable(why)));
    }
    if request.body.len() >= SERIES_DECOMPRESSED_BELOW {
        let size = request.body.len();
        return Err((413, format!("{size} bytes decompressed; must be below {SERIES_DECOMPRESSED_BELOW}")));
    }
    let body = request.json().ok_or((400, "the body is not JSON".to_owned()))?;
    let series = body.get("series").and_then(Value::as_array).ok_or((400, "series is missing".to_owned()))?;
    for (n, element) in series.iter().enumerate() {
        check(element).map_err(|why| (400, format!("series[{n}]: {why}")))?;
    }
    Ok(series.clone())
}

/// `MetricSeries`: `metric` and `points` are required; `type` is 0 unspecified, 1 count, 2 rate, 3 gauge.
fn check_series(series: &Value) -> Result<(), String> {
    named(series)?;
    let is_point = |p: &Value| p["timestamp"].is_i64() && p["value"].is_number();
    all(series, "points", is_point, "a point is {timestamp: integer, value: number}")?;
    optional(series, "type", |t| t.as_u64().is_some_and(|t| t <= 3), "0, 1, 2 or 3")?;
    optional(series, "interval", Value::is_i64, "whole seconds")?;
    optional(series, "unit", Value::is_string, "text")?;
    let is_resource = |r: &Value| r["name"].is_string() && r["type"].is_string();
    let are_resources = |r: &Value| r.as_array().is_some_and(|r| r.iter().all(is_resource));
    optional(series, "resources", are_resources, "a list of {name, type}")?;
    tags(series)
}

/// `DistributionPointsSeries`: points are `[seconds, [values]]`; `type` is always `distribution`.
fn check_distribution(series: &Value) -> Result<(), String> {
    named(series)?;
    let are_values = |values: &Value| values.as_array().is_some_and(|v| v.iter().all(Value::is_number));
    let is_point =
        |p: &Value| p.as_array().is_some_and(|p| p.len() == 2 && p[0].is_number() && are_values(&p[1]));
    all(series, "points", is_point, "a point is [timestamp, [number, …]]")?;
    optional(series, "type", |t| t == "distribution", "\"distribution\"")?;
    optional(series, "host", Value::is_string, "text")?;
    tags(series)
}

fn named(series: &Value) -> Result<(), String> {
    match series["metric"].as_str() {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err("metric is missing".to_owned()),
    }
}

fn tags(series: &Value) -> Result<(), String> {
    let are_tags = |tags: &Value| tags.as_array().is_some_and(|t| t.iter().all(Value::is_string));
    optional(series, "tags", are_tags, "a list of text")
}

fn all(series: &Value, name: &str, is: impl Fn(&Value) -> bool, what: &str) -> Result<(), String> {
    match series[name].as_array() {
        None => Err(format!("{name} is missing")),
        Some(items) if items.iter().all(is) => Ok(()),
        Some(_) => Err(what.to_owned()),
    }
}

fn optional(series: &Value, name: &str, is: impl Fn(&Value) -> bool, what: &str) -> Result<(), String> {
    match series.get(name) {
        Some(value) if !is(value) => Err(format!("{name} is not {what}")),
        _ => Ok(()),
    }
}
