//! `POST /metric/v1`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    Kept, MAX_AGE_HOURS, METRIC_MAX_ATTRIBUTES, METRIC_MAX_FUTURE_HOURS, METRIC_VALUE_MAX_CHARS,
    METRICS_BELOW_BYTES, NAME_MAX_CHARS, accepted, integration_error, payload, request_id,
};
use crate::{
    message::{Answer, Request},
    when,
};

pub(super) fn answer(kept: &mut Kept, request: &Request) -> Answer {
    let body = match payload(request, &["application/json"], |size| size >= METRICS_BELOW_BYTES) {
        Ok(body) => body,
        Err(status) => return Answer::empty(status),
    };
    let Some(metrics) = metrics(&body) else { return Answer::empty(400) };
    let (id, now) = (request_id(), when::now_ms());
    for metric in metrics {
        match check(&metric, now) {
            Ok(()) => kept.metrics.push(metric.into()),
            Err(why) => {
                kept.errors.push(integration_error("Metrics", &id, &why));
                kept.rejected_metrics.push((metric.into(), why));
            }
        }
    }
    accepted(&id)
}

/// "An array of maps. Each map must contain a `metrics` key whose value is an array": anything else is 400.
fn metrics(body: &Value) -> Option<Vec<Map<String, Value>>> {
    let mut all = Vec::new();
    for block in body.as_array()? {
        for metric in block.get("metrics")?.as_array()? {
            all.push(merged(block.get("common"), metric.as_object()?));
        }
    }
    Some(all)
}

/// "Values in the common section will be overridden if the same key exists on a metric data point."
fn merged(common: Option<&Value>, metric: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = common.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut attributes = match merged.remove("attributes") {
        Some(Value::Object(attributes)) => attributes,
        _ => Map::new(),
    };
    merged.extend(metric.clone());
    match merged.remove("attributes") {
        Some(Value::Object(own)) => attributes.extend(own),
        // Kept for the check to find.
        Some(other) => drop(attributes.insert("attributes".to_owned(), other)),
        None => {}
    }
    merged.insert("attributes".to_owned(), attributes.into());
    merged
}

/// The asynchronous validation:
/// <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/report-metrics-metric-api/>, "Required key-value
/// pairs".
fn check(metric: &Map<String, Value>, now_ms: i64) -> Result<(), String> {
    let name = metric.get("name").and_then(Value::as_str).ok_or("name is missing")?;
    if name.is_empty() || name.chars().count() >= NAME_MAX_CHARS {
        return Err(format!("name must be less than {NAME_MAX_CHARS} characters"));
    }
    check_value(metric)?;
    let time = metric.get("timestamp").and_then(when::epoch_ms).ok_or("timestamp is missing")?;
    let oldest = now_ms - when::millis(Duration::from_hours(MAX_AGE_HOURS));
    let newest = now_ms + when::millis(Duration::from_hours(METRIC_MAX_FUTURE_HOURS));
    if time < oldest || time > newest {
        return Err("timestamp is older than 48 hours or newer than 24".to_owned());
    }
    check_attributes(metric.get("attributes").and_then(Value::as_object).ok_or("attributes is no map")?)
}

fn check_value(metric: &Map<String, Value>) -> Result<(), String> {
    let value = metric.get("value").ok_or("value is missing")?;
    let has_interval = metric.get("interval.ms").and_then(Value::as_u64).is_some_and(|ms| ms > 0);
    // "If you do not specify a type, then this will default to a gauge."
    match metric.get("type").map_or(Some("gauge"), Value::as_str) {
        Some("count" | "summary") if !has_interval => Err("interval.ms is missing".to_owned()),
        Some("gauge" | "count") if value.is_number() => Ok(()),
        Some("summary") if ["count", "sum", "min", "max"].iter().all(|n| value[*n].is_number()) => Ok(()),
        Some(kind @ ("gauge" | "count" | "summary")) => Err(format!("value is not one of a {kind}")),
        _ => Err("type is none of gauge, count and summary".to_owned()),
    }
}

fn check_attributes(attributes: &Map<String, Value>) -> Result<(), String> {
    if attributes.len() > METRIC_MAX_ATTRIBUTES {
        return Err(format!("{} attributes; at most {METRIC_MAX_ATTRIBUTES}", attributes.len()));
    }
    for (name, value) in attributes {
        if name.chars().count() >= NAME_MAX_CHARS {
            return Err(format!("an attribute's name must be less than {NAME_MAX_CHARS} characters"));
        }
        match value {
            Value::String(text) if text.chars().count() > METRIC_VALUE_MAX_CHARS => {
                return Err(format!("{name} is longer than {METRIC_VALUE_MAX_CHARS} characters"));
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {}
            _ => return Err(format!("{name} is neither text, number nor boolean")),
        }
    }
    Ok(())
}
