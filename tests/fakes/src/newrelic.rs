//! New Relic: the Log API and the Metric API on one port.
//!
//! | path | source |
//! |---|---|
//! | `POST /log/v1` | <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/> |
//! | `POST /metric/v1` | <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/report-metrics-metric-api/> |
//!
//! Both answer 202 before they validate. What is lost afterwards shows nowhere in the protocol; the account gets
//! `NrIntegrationError` events, which [`NewRelic::integration_errors`] gives.

mod logs;
mod metrics;

use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    fake::{Fake, Semantics},
    message::{Answer, Request, Unreadable, inflate},
    script::Script,
};

/// The key that the fake knows.
pub const LICENSE_KEY: &str = "0123456789abcdef0123456789abcdef0123NRAL";
/// "Payload total size: 1MB(10^6 bytes) maximum per POST. We highly recommend using compression."
/// <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>. Read as the size on the wire; the page does not
/// say it in so many words.
pub const LOGS_MAX_BYTES: usize = 1_000_000;
/// "Payloads must be under 1MB (10^6 bytes)", 413.
/// <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/report-metrics-metric-api/>
pub const METRICS_BELOW_BYTES: usize = 1_000_000;
/// "Number of attributes per event: 255 maximum".
/// <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>. What becomes of an event with more is not
/// documented: dropped here.
pub const LOG_MAX_ATTRIBUTES: usize = 255;
/// "Length of attribute name: 255 characters". <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>. What
/// becomes of a longer one is not documented: the attribute is lost here.
pub const NAME_MAX_CHARS: usize = 255;
/// "The first 4,094 characters are stored in a Log event field with the same name".
/// <https://docs.newrelic.com/docs/logs/ui-data/long-logs-blobs/>
pub const VALUE_MAX_CHARS: usize = 4094;
/// "The next 128,000 UTF-8 bytes of the string are stored in a blob field"; the rest is "dropped and not stored".
/// <https://docs.newrelic.com/docs/logs/ui-data/long-logs-blobs/>
pub const BLOB_MAX_BYTES: usize = 128_000;
/// "Payloads with timestamps older than 48 hours may be dropped"
/// (<https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>); metrics older than that "are dropped"
/// (<https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/metric-api-limits-restricted-attributes/>).
pub const MAX_AGE_HOURS: u64 = 48;
/// Metrics "newer than 24 hours from the time they are reported are dropped", same page.
pub const METRIC_MAX_FUTURE_HOURS: u64 = 24;
/// "Max attributes per metric: 100", same page.
pub const METRIC_MAX_ATTRIBUTES: usize = 100;
/// "Max metric attribute value length: 4096 characters", same page.
pub const METRIC_VALUE_MAX_CHARS: usize = 4096;

/// A running fake of New Relic.
pub type NewRelic = Fake<NewRelicApi>;

/// What New Relic does, and what it keeps.
#[derive(Debug, Default)]
pub struct NewRelicApi(Mutex<Kept>);

/// A log event as New Relic keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLog {
    /// The attributes: common ones merged in, nested ones flattened with dots, text cut after 4,094 characters. What of
    /// it went to a blob is under `newrelic.ext.<name>`.
    pub attributes: BTreeMap<String, Value>,
    /// Attributes that lost text beyond the blob.
    pub cut: Vec<String>,
    /// Attributes that are gone: reserved, too long a name, or an array.
    pub lost: Vec<String>,
}

#[derive(Debug, Default)]
struct Kept {
    logs: Vec<StoredLog>,
    dropped_logs: Vec<Value>,
    metrics: Vec<Value>,
    rejected_metrics: Vec<(Value, String)>,
    errors: Vec<Value>,
}

impl Fake<NewRelicApi> {
    /// The log events held, in order, as one object of flat attributes each.
    pub fn logs(&self) -> Vec<Value> {
        self.stored_logs().into_iter().map(|log| log.attributes.into_iter().collect()).collect()
    }

    /// The log events held, with what was lost of them.
    pub fn stored_logs(&self) -> Vec<StoredLog> {
        self.kept(|kept| kept.logs.clone())
    }

    /// The log events that got 202 and were dropped, as objects of flat attributes.
    pub fn dropped_logs(&self) -> Vec<Value> {
        self.kept(|kept| kept.dropped_logs.clone())
    }

    /// The metric data points held, `common` merged in.
    pub fn metrics(&self) -> Vec<Value> {
        self.kept(|kept| kept.metrics.clone())
    }

    /// The metric data points that got 202 and were rejected, with the reason.
    pub fn rejected_metrics(&self) -> Vec<(Value, String)> {
        self.kept(|kept| kept.rejected_metrics.clone())
    }

    /// The account's `NrIntegrationError` events: what went wrong after a 202.
    pub fn integration_errors(&self) -> Vec<Value> {
        self.kept(|kept| kept.errors.clone())
    }

    fn kept<T>(&self, get: impl Fn(&Kept) -> T) -> T {
        get(&self.inner.backend.0.lock().unwrap())
    }
}

impl Semantics for NewRelicApi {
    const DEDUPLICATES: bool = false;

    fn answer(&self, request: &Request, script: &Script) -> Option<Answer> {
        let mut kept = self.0.lock().unwrap();
        Some(match (request.method.as_str(), request.path()) {
            ("POST", "/log/v1") => return logs::answer(&mut kept, request, script),
            ("POST", "/metric/v1") => metrics::answer(&mut kept, request),
            (_, "/log/v1" | "/metric/v1") => Answer::empty(405),
            _ => Answer::empty(404),
        })
    }

    fn stored_ids(&self, script: &Script) -> Vec<String> {
        ids(&self.0.lock().unwrap(), script)
    }

    fn take_ids(&self, script: &Script) -> Vec<String> {
        ids(&std::mem::take(&mut *self.0.lock().unwrap()), script)
    }
}

fn ids(kept: &Kept, script: &Script) -> Vec<String> {
    let objects = kept.logs.iter().map(|log| log.attributes.clone().into_iter().collect::<Value>());
    objects.filter_map(|log| script.id_of(&log)).collect()
}

/// The body as JSON, or the status of what is wrong with the request. The statuses are those of the Metric API's page,
/// which is the only list; the Log API is assumed to answer alike.
fn payload(request: &Request, kinds: &[&str], too_big: impl Fn(usize) -> bool) -> Result<Value, u16> {
    let query = request.query("Api-Key");
    let headers =
        ["api-key", "x-license-key", "license-key"].into_iter().find_map(|name| request.header(name));
    if headers.or(query.as_deref()) != Some(LICENSE_KEY) {
        return Err(403);
    }
    if !request.has_content_length() && !request.is_chunked() {
        return Err(411);
    }
    if too_big(request.wire.len()) {
        return Err(413);
    }
    let kind = request.content_type();
    if !kinds.contains(&kind.as_str()) || !["identity", "gzip"].contains(&request.encoding().as_str()) {
        return Err(415);
    }
    let body = unpacked(request, &kind).map_err(|_| 400_u16)?;
    serde_json::from_slice(&body).map_err(|_| 400)
}

/// "application/gzip" and "gzip" as `Content-Type` mean a compressed body too.
fn unpacked(request: &Request, kind: &str) -> Result<Bytes, Unreadable> {
    match &request.unreadable {
        Some(why) => Err(why.clone()),
        None if kind.ends_with("gzip") && request.encoding() == "identity" => inflate("gzip", &request.wire),
        None => Ok(request.body.clone()),
    }
}

/// 202, before any validation, and the id that the errors found later carry.
fn accepted(request_id: &str) -> Answer {
    Answer::json(202, &json!({ "requestId": request_id }))
}

/// <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/troubleshoot-nrintegrationerror-events/>
fn integration_error(feature: &str, request_id: &str, message: &str) -> Value {
    json!({
        "eventType": "NrIntegrationError", "newRelicFeature": feature, "category": "BadRequest", "message": message,
        "requestId": request_id, "apiKeyPrefix": &LICENSE_KEY[..6],
    })
}

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests;
