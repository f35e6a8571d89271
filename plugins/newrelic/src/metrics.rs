//! Records as counts and summaries:
//! <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/report-metrics-metric-api/>.
//!
//! The values of records that agree in all attributes and in the ten seconds in which they ended are added up. Data
//! points of the same time and attributes, from other batches and gateways, New Relic adds up itself.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use exporter_kit::{
    model::BoundedModels,
    pack::{Frame, Limits, Packed, Packer},
    record_tags::RecordTag,
    source::Sources,
};
use plugin_api::Field;
use serde_json::{Map, Value};

use crate::text;

/// Most bytes of a request: it must be *under* 10⁶. Before compression, as for [logs](crate::logs::MAX_BYTES).
pub const MAX_BYTES: usize = 999_999;

/// Milliseconds of a data point.
pub const INTERVAL: u64 = 10_000;

/// Most characters of an attribute. New Relic takes 4,096; a model's name has no use for more than this.
const MAX_CHARS: usize = 255;

/// Durations, by their name after the prefix. They are summaries, in seconds.
const DURATIONS: [(&str, Field); 5] = [
    ("request.duration", Field::TotalLatency),
    ("provider.latency", Field::ProviderLatency),
    ("time_to_first_token", Field::Ttft),
    ("time_to_first_byte", Field::Ttfb),
    ("gateway.overhead", Field::GatewayOverhead),
];

/// Amounts, by their name after the prefix. They are counts.
const AMOUNTS: [(&str, Field); 6] = [
    ("tokens.input", Field::InputTokens),
    ("tokens.output", Field::OutputTokens),
    ("tokens.cached_read", Field::CachedReadTokens),
    ("tokens.cached_write", Field::CachedWriteTokens),
    ("tokens.reasoning", Field::ReasoningTokens),
    ("cost", Field::Cost),
];

/// Before and after the data points; [`prefix`] stands before that.
const FRAME: Frame = Frame { open: b"\"metrics\":[", between: b",", close: b"]}]" };

/// What a request begins with; `common` are attributes as a JSON object.
#[must_use]
pub fn prefix(common: &str) -> String {
    format!("[{{\"common\":{{\"interval.ms\":{INTERVAL},\"attributes\":{common}}},")
}

/// What the metrics of a batch become.
#[derive(Debug)]
pub struct Points<'a> {
    models: &'a BoundedModels,
    record_tags: &'a [RecordTag],
    prefix: &'a str,
    /// By attributes, as a JSON object, and by the start of the interval.
    groups: BTreeMap<(String, u64), Group>,
}

/// Records that are added up.
#[derive(Debug, Default)]
struct Group {
    records: Vec<usize>,
    errors: u64,
    durations: [Option<Summary>; DURATIONS.len()],
    amounts: [Option<f64>; AMOUNTS.len()],
}

#[derive(Debug, Clone, Copy)]
struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl<'a> Points<'a> {
    /// Metrics with names that begin with `prefix`.
    #[must_use]
    pub fn new(models: &'a BoundedModels, record_tags: &'a [RecordTag], prefix: &'a str) -> Self {
        Self { models, record_tags, prefix, groups: BTreeMap::new() }
    }

    /// Adds a record whose request ended at this time, in milliseconds since 1970.
    pub fn add(&mut self, record: usize, from: Sources<'_>, end: u64) {
        let fields = from.fields;
        let is_error = fields.text(Field::Status).is_none_or(|status| status != "success");
        let key = (self.attributes(from), end - end % INTERVAL);
        let group = self.groups.entry(key).or_default();
        group.records.push(record);
        group.errors += u64::from(is_error);
        for ((_, field), summary) in DURATIONS.iter().zip(&mut group.durations) {
            if let Some(milliseconds) = fields.number(*field) {
                *summary = Some(Summary::with(*summary, milliseconds / 1e3));
            }
        }
        for ((_, field), sum) in AMOUNTS.iter().zip(&mut group.amounts) {
            if let Some(number) = fields.number(*field) {
                *sum = Some(plus(sum.unwrap_or_default(), number));
            }
        }
    }

    /// The requests, without `request_prefix`, each with at least one record; and records that fit into none.
    ///
    /// # Errors
    /// Those of the JSON; a bug.
    pub fn finish(self, request_prefix: &str) -> io::Result<(Vec<Packed>, Vec<usize>)> {
        let limits = Limits { max_records: usize::MAX, max_bytes: MAX_BYTES - request_prefix.len() };
        let mut packer = Packer::new(FRAME, limits);
        let (mut piece, mut left_out) = (Vec::new(), Vec::new());
        for (place, ((attributes, start), group)) in self.groups.iter().enumerate() {
            piece.clear();
            write(
                &mut piece,
                self.prefix,
                &format!("\"timestamp\":{start},\"attributes\":{attributes}}}"),
                group,
            )?;
            if !packer.add(place, &piece) {
                left_out.extend(&group.records);
            }
        }
        let groups: Vec<_> = self.groups.into_values().map(|group| group.records).collect();
        let mut requests = packer.finish();
        for request in &mut requests {
            request.records = request.records.iter().flat_map(|place| &groups[*place]).copied().collect();
        }
        Ok((requests, left_out))
    }

    fn attributes(&self, from: Sources<'_>) -> String {
        let fields = from.fields;
        let mut attributes = Map::new();
        let mut add = |name: &str, text: Option<&str>| {
            if let Some(text) = text {
                attributes.insert(name.to_owned(), text::cut(text, MAX_CHARS).into());
            }
        };
        for (name, field) in [
            ("service.name", Field::ServiceName),
            ("service.version", Field::ServiceVersion),
            ("deployment.environment", Field::Environment),
            ("provider", Field::Provider),
            ("status", Field::Status),
        ] {
            add(name, fields.text(field).as_deref());
        }
        add("model", self.models.of(fields).as_deref());
        for tag in self.record_tags {
            add(&tag.name, tag.bounded(from).as_deref());
        }
        attributes
            .extend(fields.whole(Field::StatusCode).map(|code| ("status_code".to_owned(), code.into())));
        attributes
            .extend(fields.flag(Field::IsStreaming).map(|flag| ("is_streaming".to_owned(), flag.into())));
        Value::from(attributes).to_string()
    }
}

impl Summary {
    fn with(known: Option<Self>, value: f64) -> Self {
        let Self { count, sum, min, max } =
            known.unwrap_or(Self { count: 0, sum: 0.0, min: value, max: value });
        Self { count: count + 1, sum: plus(sum, value), min: min.min(value), max: max.max(value) }
    }
}

/// A sum that stays a number, since New Relic drops what is none.
fn plus(sum: f64, value: f64) -> f64 {
    (sum + value).clamp(f64::MIN, f64::MAX)
}

/// Writes the data points of a group. `tail` ends each.
fn write(out: &mut Vec<u8>, prefix: &str, tail: &str, group: &Group) -> io::Result<()> {
    let count = |out: &mut Vec<u8>, name: &str| {
        write!(out, "{{\"name\":\"{prefix}.{name}\",\"type\":\"count\",\"value\":")
    };
    for (name, value) in [("requests", group.records.len() as u64), ("errors", group.errors)] {
        if !out.is_empty() {
            out.push(b',');
        }
        count(out, name)?;
        write!(out, "{value},{tail}")?;
    }
    for ((name, _), sum) in AMOUNTS.iter().zip(&group.amounts) {
        let Some(sum) = sum else { continue };
        out.push(b',');
        count(out, name)?;
        serde_json::to_writer(&mut *out, sum)?;
        write!(out, ",{tail}")?;
    }
    for ((name, _), summary) in DURATIONS.iter().zip(&group.durations) {
        let Some(Summary { count, sum, min, max }) = summary else { continue };
        write!(out, ",{{\"name\":\"{prefix}.{name}\",\"type\":\"summary\",\"value\":{{\"count\":{count}")?;
        for (name, value) in [("sum", sum), ("min", min), ("max", max)] {
            write!(out, ",\"{name}\":")?;
            serde_json::to_writer(&mut *out, value)?;
        }
        write!(out, "}},{tail}")?;
    }
    Ok(())
}
