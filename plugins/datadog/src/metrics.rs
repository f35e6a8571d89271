//! Records as distributions: <https://docs.datadoghq.com/api/latest/metrics/submit-distribution-points/>.
//!
//! Everything is a distribution, counts too, since points of a distribution add up wherever they come from. Of two
//! points of a *count* with the same tags and second Datadog keeps the last one alone
//! (<https://github.com/vectordotdev/vector/issues/13867>), so that batches, workers and gateways would overwrite each
//! other's counts. The number of requests is the `count` of `request.duration`; tokens and cost are `sum`s.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use exporter_kit::{model::BoundedModels, pack::Packed, source::Sources};
use plugin_api::Field;

use crate::identity::{Identity, TagsOf};

/// Most bytes of a request, before compression, so that it is below the 512,000 that Datadog takes *after* it, however
/// badly it compresses (<https://docs.datadoghq.com/api/latest/metrics/submit-metrics/>).
pub const MAX_BYTES: usize = 500_000;

/// The metrics: name after the prefix, field, and what turns the field into Datadog's unit. Durations are seconds.
const METRICS: [(&str, Field, f64); 11] = [
    ("request.duration", Field::TotalLatency, 1e-3),
    ("provider.latency", Field::ProviderLatency, 1e-3),
    ("time_to_first_token", Field::Ttft, 1e-3),
    ("time_to_first_byte", Field::Ttfb, 1e-3),
    ("gateway.overhead", Field::GatewayOverhead, 1e-3),
    ("tokens.input", Field::InputTokens, 1.0),
    ("tokens.output", Field::OutputTokens, 1.0),
    ("tokens.cached_read", Field::CachedReadTokens, 1.0),
    ("tokens.cached_write", Field::CachedWriteTokens, 1.0),
    ("tokens.reasoning", Field::ReasoningTokens, 1.0),
    ("cost", Field::Cost, 1.0),
];

/// Longest name in [`METRICS`].
const LONGEST_NAME: usize = 20;
/// Most bytes of a number with a comma: 17 digits, sign, point and exponent.
const LONGEST_VALUE: usize = 26;
/// Most bytes of what stands around a series: `{"metric":".","points":[[18446744073709551615,[]]],"type":"distribution"},`
const SERIES_FRAME: usize = 90;
const OPEN: &[u8] = b"{\"series\":[";
const CLOSE: &[u8] = b"]}";

/// What the metrics of a batch become.
#[derive(Debug)]
pub struct Distributions<'a> {
    who: &'a Identity,
    models: &'a BoundedModels,
    prefix: &'a str,
    /// `,"host":…` or nothing.
    host: String,
    requests: Vec<Packed>,
    open: Open,
}

/// The request under way: values by what their series have in common.
#[derive(Debug, Default)]
struct Open {
    groups: BTreeMap<(String, u64), [Vec<f64>; METRICS.len()]>,
    records: Vec<usize>,
    /// No less than the bytes that it will have.
    size: usize,
}

impl<'a> Distributions<'a> {
    /// Metrics with this prefix, of this sender.
    #[must_use]
    pub fn new(who: &'a Identity, models: &'a BoundedModels, prefix: &'a str) -> Self {
        let host = |name: &String| format!(",\"host\":{}", serde_json::Value::from(name.as_str()));
        let host = who.hostname.as_ref().map(host).unwrap_or_default();
        Self { who, models, prefix, host, requests: Vec::new(), open: Open::default() }
    }

    /// Adds a record's values at this second. False when they do not fit into a request of their own.
    #[must_use]
    pub fn add(&mut self, record: usize, from: Sources<'_>, second: u64) -> bool {
        let key = (self.tags(from), second);
        let values = METRICS.len() * LONGEST_VALUE;
        let frame = SERIES_FRAME + self.prefix.len() + LONGEST_NAME + key.0.len() + self.host.len();
        let series = METRICS.len() * frame;
        if OPEN.len() + CLOSE.len() + series + values > MAX_BYTES {
            return false;
        }
        let grown = |open: &Open| {
            let is_new = !open.groups.contains_key(&key);
            open.size.max(OPEN.len() + CLOSE.len()) + values + if is_new { series } else { 0 }
        };
        if grown(&self.open) > MAX_BYTES {
            self.close();
        }
        self.open.size = grown(&self.open);
        self.open.records.push(record);
        let group = self.open.groups.entry(key).or_default();
        for ((_, field, factor), values) in METRICS.iter().zip(group) {
            values.extend(from.fields.number(*field).map(|number| number * factor));
        }
        true
    }

    /// The requests, each with at least one record.
    #[must_use]
    pub fn finish(mut self) -> Vec<Packed> {
        self.close();
        self.requests
    }

    /// `,"tags":["…","…"]`
    fn tags(&self, from: Sources<'_>) -> String {
        let model = self.models.of(from.fields);
        let mut tags = String::with_capacity(256);
        tags.push_str(",\"tags\":[");
        let mut add = |tag: &str| {
            tags.push_str(if tags.ends_with('[') { "\"" } else { ",\"" });
            tags.push_str(tag);
            tags.push('"');
        };
        self.who.tags(TagsOf::Metric, from, model.as_deref(), &mut add);
        if let Some(service) = crate::tag::tag("service", &self.who.service(from.fields)) {
            add(&service);
        }
        tags.push(']');
        tags
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.records.is_empty() {
            return;
        }
        let mut body = Vec::with_capacity(open.size.min(64 << 10));
        // A `Vec` takes everything.
        let _ = self.write(&mut body, &open);
        self.requests.push(Packed { body, records: open.records });
    }

    fn write(&self, body: &mut Vec<u8>, open: &Open) -> io::Result<()> {
        body.extend_from_slice(OPEN);
        for ((tags, second), group) in &open.groups {
            for ((name, ..), values) in METRICS.iter().zip(group).filter(|(_, values)| !values.is_empty()) {
                if body.len() > OPEN.len() {
                    body.push(b',');
                }
                write!(body, "{{\"metric\":\"{}.{name}\",\"points\":[[{second},", self.prefix)?;
                serde_json::to_writer(&mut *body, values)?;
                write!(body, "]]{tags}{},\"type\":\"distribution\"}}", self.host)?;
            }
        }
        body.extend_from_slice(CLOSE);
        Ok(())
    }
}
