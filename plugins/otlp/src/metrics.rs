//! Metrics: series, what a record adds to them, and their data points.
//!
//! Cumulative series live as long as the exporter, delta series until a request with them was taken. What a failed request
//! had is in the next one.

use std::collections::{HashMap, hash_map::Entry};

use exporter_kit::{bounded::BoundedLabel, pack::Packed};
use plugin_api::Field;

use crate::{
    config::Temporality,
    encode,
    facts::Facts,
    json,
    names::{self, Attribute, Conventions, Extra, Metric, Of, Source, Values, operation::Work},
    request::{Origin, Requests},
    wire::{self, Value},
};

/// Longest attribute value in bytes: clients choose model names.
const LONGEST_VALUE: usize = 200;
/// Resources that have series of their own. Every record that this gateway made has the same one.
const MAX_RESOURCES: usize = 16;
/// Of the series, so many may go to model names.
const SHARE_OF_MODELS: usize = 10;

/// All series.
#[derive(Debug)]
pub struct Metrics {
    conventions: &'static Conventions,
    temporality: Temporality,
    max_series: usize,
    /// Since when they count, in nanoseconds since 1970.
    start: u64,
    resources: Vec<Vec<u8>>,
    /// By resource, metric and encoded attributes.
    series: HashMap<Vec<u8>, Series>,
    models: BoundedLabel,
    overflowed: u64,
    scratch: Vec<u8>,
}

/// What [`Metrics::take`] took.
#[derive(Debug)]
pub enum Sent {
    /// Of cumulative series: which of them.
    Keys(Vec<Vec<u8>>),
    /// Deltas, and since when they count.
    Deltas(HashMap<Vec<u8>, Series>, u64),
}

/// The values of a series.
#[derive(Debug, Clone)]
pub struct Series {
    /// One more than there are bounds; none for a sum.
    buckets: Box<[u64]>,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// Whether the receiver lacks its present state.
    is_changed: bool,
}

impl Metrics {
    /// No series. `start` is the time from which they count.
    #[must_use]
    pub fn new(
        conventions: &'static Conventions,
        temporality: Temporality,
        max_series: usize,
        start: u64,
    ) -> Self {
        Self {
            conventions,
            temporality,
            max_series,
            start,
            resources: Vec::new(),
            series: HashMap::new(),
            models: BoundedLabel::new((max_series / SHARE_OF_MODELS).max(1)),
            overflowed: 0,
            scratch: Vec::new(),
        }
    }

    /// Adds a record.
    pub fn add(&mut self, resource: &[u8], facts: &Facts<'_>) {
        let resource = self.resource(resource);
        for (place, metric) in self.conventions.metrics.iter().enumerate() {
            if is_of(metric.of, facts) {
                values(metric.values, facts, |value| self.observe((resource, place), metric, facts, value));
            }
        }
    }

    /// The data points of all series that changed, in requests of at most `max_bytes`, and what has to be
    /// [given back](Self::give_back) when they are not taken.
    #[must_use]
    pub fn take(&mut self, origin: &Origin, now: u64, max_bytes: usize) -> (Vec<Packed>, Sent) {
        let requests = self.requests(origin, now, max_bytes);
        let sent = match self.temporality {
            Temporality::Cumulative => {
                let changed = self.series.iter_mut().filter(|(_, series)| series.is_changed);
                let settled = changed.map(|(key, series)| {
                    series.is_changed = false;
                    key.clone()
                });
                Sent::Keys(settled.collect())
            }
            Temporality::Delta => {
                let start = std::mem::replace(&mut self.start, now);
                Sent::Deltas(std::mem::take(&mut self.series), start)
            }
        };
        (requests, sent)
    }

    /// What was sent was not taken: it is sent again with what came since.
    pub fn give_back(&mut self, sent: Sent) {
        match sent {
            Sent::Keys(keys) => {
                let series = &mut self.series;
                keys.iter().filter_map(|key| series.get_mut(key).map(|s| s.is_changed = true)).for_each(drop);
            }
            Sent::Deltas(deltas, start) => {
                self.start = start;
                for (key, delta) in deltas {
                    match self.series.entry(key) {
                        Entry::Occupied(mut known) => known.get_mut().merge(&delta),
                        Entry::Vacant(vacant) => drop(vacant.insert(delta)),
                    }
                }
            }
        }
    }

    fn requests(&self, origin: &Origin, now: u64, max_bytes: usize) -> Vec<Packed> {
        let mut changed: Vec<_> = self.series.iter().filter(|(_, series)| series.is_changed).collect();
        changed.sort_unstable_by_key(|(key, _)| *key);
        let mut requests = Requests::new(origin, max_bytes);
        // A metric of many series is written in several parts, so that the parts fill a request well.
        let largest_part = max_bytes / 8;
        let (mut points, mut piece) = (Vec::new(), Vec::new());
        let mut at = None;
        for (key, series) in changed {
            let (resource, place) = (usize::from(key[0]), usize::from(key[1]));
            let name = |place: usize| self.conventions.metrics[place].name;
            let is_another = |at: &(usize, usize)| at.0 != resource || name(at.1) != name(place);
            if let Some(before) = at.filter(|at| is_another(at) || points.len() > largest_part) {
                self.flush(&mut requests, before, &mut points, &mut piece);
            }
            at = Some((resource, place));
            series.write(&mut points, &self.conventions.metrics[place], &key[2..], (self.start, now));
        }
        if let Some(last) = at {
            self.flush(&mut requests, last, &mut points, &mut piece);
        }
        requests.finish()
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Values that went to a series of overflow.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    fn flush<'a>(
        &'a self,
        requests: &mut Requests<'a>,
        at: (usize, usize),
        points: &mut Vec<u8>,
        piece: &mut Vec<u8>,
    ) {
        let (resource, place) = at;
        piece.clear();
        write_metric(piece, &self.conventions.metrics[place], self.temporality, points);
        points.clear();
        // A point is bounded and far below a request's smallest limit; `init` sees to the resource.
        let _ = requests.add(&self.resources[resource], 0, piece);
    }

    fn resource(&mut self, resource: &[u8]) -> u8 {
        let place = self.resources.iter().position(|known| known == resource).unwrap_or_else(|| {
            if self.resources.len() < MAX_RESOURCES {
                self.resources.push(resource.to_owned());
            }
            self.resources.len() - 1
        });
        u8::try_from(place).unwrap_or_default()
    }

    fn observe(&mut self, (resource, place): (u8, usize), metric: &Metric, facts: &Facts<'_>, value: f64) {
        let key = &mut self.scratch;
        key.clear();
        key.extend_from_slice(&[resource, u8::try_from(place).unwrap_or_default()]);
        let number = attributes_number(metric);
        for attribute in names::METRIC_ATTRIBUTES {
            write_label(key, number, attribute, facts, &self.models);
        }
        match metric.extra {
            Extra::None => {}
            Extra::Error => write_label(key, number, &names::ERROR_TYPE, facts, &self.models),
            Extra::Text(name, text) => wire::attribute(key, number, name, Value::Text(text)),
        }
        if !self.series.contains_key(key.as_slice()) && self.series.len() >= self.max_series {
            self.overflowed += 1;
            key.truncate(2);
            wire::attribute(key, number, names::OVERFLOW, Value::Flag(true));
        }
        if let Some(series) = self.series.get_mut(key.as_slice()) {
            return series.add(metric.bounds, value);
        }
        match self.series.entry(key.clone()) {
            Entry::Occupied(_) => {}
            Entry::Vacant(vacant) => vacant.insert(Series::new(metric.bounds)).add(metric.bounds, value),
        }
    }
}

fn is_of(of: Of, facts: &Facts<'_>) -> bool {
    let is_inference = matches!(facts.operation.work, Work::Inference | Work::Unknown);
    match of {
        Of::All => true,
        Of::Usage => facts.operation.work != Work::None,
        Of::Inference => is_inference,
        Of::Embeddings => facts.operation.work == Work::Embeddings,
        Of::Other => facts.operation.work == Work::None,
        Of::Stream => is_inference && encode::is_stream(facts),
        Of::Success => is_inference && facts.error.is_none(),
    }
}

/// What a record adds to a metric. A value that is no time and no count is left out.
fn values(values: Values, facts: &Facts<'_>, put: impl FnMut(f64)) {
    let fields = &facts.fields;
    let one = match values {
        Values::Number(field) | Values::Whole(field) => fields.number(field),
        Values::Rest(total, apart) => {
            let apart: f64 = apart.iter().filter_map(|field| fields.number(*field)).sum();
            fields.number(total).map(|total| total - apart)
        }
        Values::Seconds(field) => encode::seconds(facts, field),
        Values::PerToken => per_token(facts),
        Values::ChunkGaps => return chunk_gaps(facts).into_iter().filter(is_sound).for_each(put),
    };
    one.filter(is_sound).into_iter().for_each(put);
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "a filter's")]
fn is_sound(value: &f64) -> bool {
    value.is_finite() && *value >= 0.0
}

/// Seconds from the first content token to the end, for each of the other tokens.
fn per_token(facts: &Facts<'_>) -> Option<f64> {
    let first = encode::seconds(facts, Field::Ttft)?;
    let others = facts.fields.number(Field::OutputTokens)? - 1.0;
    (others >= 1.0).then_some((encode::seconds(facts, Field::TotalLatency)? - first) / others)
}

fn chunk_gaps(facts: &Facts<'_>) -> Vec<f64> {
    let times = facts.answer.raw(names::CHUNK_TIMES).map(json::value).unwrap_or_default();
    let times: Vec<f64> =
        times.as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect();
    times.windows(2).map(|pair| (pair[1] - pair[0]) / 1000.0).collect()
}

/// Writes an attribute of a metric, with a value that is bounded in length, and in number where a client chooses it.
fn write_label(
    key: &mut Vec<u8>,
    number: u32,
    attribute: &Attribute,
    facts: &Facts<'_>,
    models: &BoundedLabel,
) {
    let mut put = |text: &str| wire::attribute(key, number, attribute.name, Value::Text(text));
    match attribute.source {
        Source::Text(field) => {
            if let Some(text) = facts.fields.text(field) {
                put(models.bound(cut(&text), facts.error.is_none()));
            }
        }
        Source::Provider => {
            if let Some(name) = facts.fields.text(Field::Provider) {
                put(cut(names::provider(&name)));
            }
        }
        Source::ErrorType => facts.error.iter().for_each(|error| put(cut(error))),
        _ => encode::attribute(key, number, attribute, facts),
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_VALUE)]
}

/// A histogram's points have their attributes in field 9, a sum's in field 7.
fn attributes_number(metric: &Metric) -> u32 {
    if metric.bounds.is_empty() { 7 } else { 9 }
}

/// Writes a metric with these data points as a record of its scope.
fn write_metric(buffer: &mut Vec<u8>, metric: &Metric, temporality: Temporality, points: &[u8]) {
    let temporality = match temporality {
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    wire::message(buffer, 2, |buffer| {
        wire::bytes(buffer, 1, metric.name.as_bytes());
        wire::bytes(buffer, 2, metric.description.as_bytes());
        wire::bytes(buffer, 3, metric.unit.as_bytes());
        let (histogram, sum) = (9, 7);
        let is_sum = metric.bounds.is_empty();
        wire::message(buffer, if is_sum { sum } else { histogram }, |data| {
            data.extend_from_slice(points);
            wire::uint(data, 2, temporality);
            if is_sum {
                // It only grows.
                wire::uint(data, 3, 1);
            }
        });
    });
}

impl Series {
    fn new(bounds: &[f64]) -> Self {
        let buckets = if bounds.is_empty() { 0 } else { bounds.len() + 1 };
        Self {
            buckets: vec![0; buckets].into(),
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            is_changed: false,
        }
    }

    fn add(&mut self, bounds: &[f64], value: f64) {
        // A value on a bound belongs below it.
        if let Some(bucket) = self.buckets.get_mut(bounds.partition_point(|bound| *bound < value)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.is_changed = true;
    }

    fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.is_changed = true;
    }

    fn write(&self, points: &mut Vec<u8>, metric: &Metric, attributes: &[u8], (start, now): (u64, u64)) {
        wire::message(points, 1, |point| {
            point.extend_from_slice(attributes);
            wire::fixed64(point, 2, start);
            wire::fixed64(point, 3, now);
            if metric.bounds.is_empty() {
                return wire::double(point, 4, self.sum);
            }
            wire::fixed64(point, 4, self.count);
            wire::double(point, 5, self.sum);
            wire::packed64(point, 6, self.buckets.iter().copied());
            wire::packed64(point, 7, metric.bounds.iter().map(|bound| bound.to_bits()));
            wire::double(point, 11, self.min);
            wire::double(point, 12, self.max);
        });
    }
}
