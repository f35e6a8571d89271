//! Datadog: the logs intake and the API on one port.
//!
//! | path | source |
//! |---|---|
//! | `POST /api/v2/logs` | <https://docs.datadoghq.com/api/latest/logs/send-logs/> |
//! | `POST /api/v2/series` | <https://docs.datadoghq.com/api/latest/metrics/submit-metrics/> |
//! | `POST /api/v1/distribution_points` | <https://docs.datadoghq.com/api/latest/metrics/submit-distribution-points/> |
//! | `POST /api/intake/llm-obs/v1/trace/spans` | <https://docs.datadoghq.com/llm_observability/instrumentation/api/> |
//! | `GET /api/v1/validate` | <https://docs.datadoghq.com/api/latest/authentication/> |

mod logs;
mod metrics;
mod spans;

use std::sync::Mutex;

use serde_json::{Value, json};

pub use self::logs::StoredLog;
use crate::{
    fake::{Fake, Semantics},
    message::{Answer, Request, Unreadable},
    script::Script,
};

/// The key that the fake knows.
pub const API_KEY: &str = "0123456789abcdef0123456789abcdef";
/// "Maximum array size if sending multiple logs in an array: 1000 entries".
/// <https://docs.datadoghq.com/api/latest/logs/send-logs/>. The status beyond it is not documented: 413 here.
pub const LOGS_MAX_ENTRIES: usize = 1000;
/// "Maximum content size per payload (uncompressed): 5MB", 413 above.
/// <https://docs.datadoghq.com/api/latest/logs/send-logs/>. It does not say whether a MB is 10^6 or 2^20 bytes; the
/// smaller is what an exporter must respect.
pub const LOGS_MAX_BYTES: usize = 5_000_000;
/// "Maximum size for a single log: 1MB"; "truncated … and returns a 2xx".
/// <https://docs.datadoghq.com/api/latest/logs/send-logs/>. 10^6 for the reason above, and Datadog's own log agent says
/// so: <https://github.com/DataDog/datadog-log-agent/blob/master/pkg/config/constants.go>.
pub const LOG_MAX_BYTES: usize = 1_000_000;
/// "A timestamp that is up to 18 hours in the past". <https://docs.datadoghq.com/api/latest/logs/send-logs/>. That
/// older ones get 202 and vanish is the design's word; the page is silent.
pub const LOG_MAX_AGE_HOURS: u64 = 18;
/// "The maximum payload size is 500 kilobytes (512000 bytes)", as sent.
/// <https://docs.datadoghq.com/api/latest/metrics/submit-metrics/>
pub const SERIES_MAX_COMPRESSED: usize = 512_000;
/// "Compressed payloads must have a decompressed size of less than 5 megabytes (5242880 bytes)".
/// <https://docs.datadoghq.com/api/latest/metrics/submit-metrics/>
pub const SERIES_DECOMPRESSED_BELOW: usize = 5_242_880;
/// "Timestamps no more than 24 hours old". <https://docs.datadoghq.com/llm_observability/instrumentation/api/>. What
/// happens to older ones is not documented: 202 and dropped here.
pub const SPAN_MAX_AGE_HOURS: u64 = 24;

/// A running fake of Datadog.
pub type Datadog = Fake<DatadogApi>;

/// What Datadog does, and what it keeps.
#[derive(Debug, Default)]
pub struct DatadogApi(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    logs: Vec<StoredLog>,
    dropped: Vec<Value>,
    series: Vec<Value>,
    distributions: Vec<Value>,
    spans: Vec<Value>,
    dropped_spans: Vec<Value>,
}

impl Fake<DatadogApi> {
    /// The log entries held, in order; those over 1 MB cut (see [`Datadog::stored_logs`]).
    pub fn logs(&self) -> Vec<Value> {
        self.stored_logs().into_iter().map(|log| log.entry).collect()
    }

    /// The log entries held, with what was done to them.
    pub fn stored_logs(&self) -> Vec<StoredLog> {
        self.kept(|kept| kept.logs.clone())
    }

    /// The log entries that got 202 and were dropped for their age.
    pub fn dropped_logs(&self) -> Vec<Value> {
        self.kept(|kept| kept.dropped.clone())
    }

    /// The elements of `series` of every metrics payload.
    pub fn series(&self) -> Vec<Value> {
        self.kept(|kept| kept.series.clone())
    }

    /// The elements of `series` of every distribution payload.
    pub fn distributions(&self) -> Vec<Value> {
        self.kept(|kept| kept.distributions.clone())
    }

    /// The spans held, each with its payload's `ml_app`, `session_id` and `tags` in `_payload`.
    pub fn spans(&self) -> Vec<Value> {
        self.kept(|kept| kept.spans.clone())
    }

    /// The spans that got 202 and were dropped for their age.
    pub fn dropped_spans(&self) -> Vec<Value> {
        self.kept(|kept| kept.dropped_spans.clone())
    }

    fn kept<T>(&self, get: impl Fn(&Kept) -> T) -> T {
        get(&self.inner.backend.0.lock().unwrap())
    }
}

impl Semantics for DatadogApi {
    const DEDUPLICATES: bool = false;

    fn answer(&self, request: &Request, script: &Script) -> Option<Answer> {
        let mut kept = self.0.lock().unwrap();
        Some(match (request.method.as_str(), request.path()) {
            ("POST", "/api/v2/logs") => return logs::answer(&mut kept, request, script),
            ("POST", "/api/v2/series") => metrics::series(&mut kept, request),
            ("POST", "/api/v1/distribution_points") => metrics::distributions(&mut kept, request),
            ("POST", "/api/intake/llm-obs/v1/trace/spans") => spans::answer(&mut kept, request),
            ("GET", "/api/v1/validate") => match key(request) {
                Key::Right => Answer::json(200, &json!({ "valid": true })),
                Key::Missing | Key::Wrong => refusal(403, "Forbidden"),
            },
            _ => refusal(404, "Not found"),
        })
    }

    fn stored_ids(&self, script: &Script) -> Vec<String> {
        let kept = self.0.lock().unwrap();
        kept.logs.iter().filter_map(|log| script.id_of(&log.entry)).collect()
    }

    fn take_ids(&self, script: &Script) -> Vec<String> {
        let kept = std::mem::take(&mut *self.0.lock().unwrap());
        kept.logs.iter().filter_map(|log| script.id_of(&log.entry)).collect()
    }
}

enum Key {
    Right,
    Missing,
    Wrong,
}

fn key(request: &Request) -> Key {
    match request.header("dd-api-key") {
        None => Key::Missing,
        Some(API_KEY) => Key::Right,
        Some(_) => Key::Wrong,
    }
}

/// The API's error: <https://docs.datadoghq.com/api/latest/metrics/submit-metrics/>.
fn refusal(status: u16, why: &str) -> Answer {
    Answer::json(status, &json!({ "errors": [why] }))
}

fn unreadable(why: &Unreadable) -> String {
    match why {
        Unreadable::UnknownEncoding(name) => format!("Content-Encoding {name} is not supported"),
        Unreadable::Broken(e) => format!("the body cannot be decompressed: {e}"),
    }
}

#[cfg(test)]
mod tests;
