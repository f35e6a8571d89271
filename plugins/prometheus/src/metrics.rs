//! All metrics of an instance: from a record to the series it touches.

use crate::{
    field::{Field, Value},
    label::{self, OTHER, Values},
    series::{Exemplar, Family},
    source::{Source, Sources},
};

/// Labels that a metric may have.
pub const MAX_LABELS: usize = 16;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// In the order of the exposition.
    pub families: Vec<Family>,
    /// Where label values come from, each read once per record.
    pub dimensions: Vec<Dimension>,
    pub(crate) observers: Vec<Observer>,
    /// Number of each dimension's value in the record at hand.
    pub(crate) ids: Vec<u32>,
    /// Whether any source reads a body.
    pub reads_bodies: bool,
    /// Whether exemplars are kept.
    pub exemplars: bool,
    /// Label sets in use, and the bound on them.
    pub budget: Budget,
}

/// The bound on label sets.
#[derive(Debug)]
pub struct Budget {
    /// In use.
    pub used: usize,
    /// The most there may be.
    pub max: usize,
    /// Observations that went to a label set of `other` because there was no room for their own.
    pub overflowed: u64,
}

/// A source of label values, and those it may have.
#[derive(Debug)]
pub struct Dimension {
    /// The source as the settings write it.
    pub name: String,
    pub(crate) read: Read,
    /// Its values.
    pub values: Values,
}

/// How a label's value is read.
#[derive(Debug, PartialEq)]
pub(crate) enum Read {
    /// The model that answered, else the one that was asked for.
    Model,
    /// As it stands there.
    Source(Source),
    /// Fixed by the observer.
    Fixed,
}

/// Takes one value of every record to one family.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) family: usize,
    pub(crate) key: Vec<Part>,
    pub(crate) what: What,
    pub(crate) scale: f64,
}

/// One part of a series' key: a dimension, and where it is fixed, its value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) dimension: usize,
    pub(crate) fixed: Option<u32>,
}

/// What an observer takes.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// 1 for every record.
    One,
    /// 1 for every record of a request that failed.
    Failure,
    /// A number, where there is one.
    Number(Source),
}

impl Metrics {
    /// Counts a record. `now` is the time for exemplars, in milliseconds since 1970.
    pub fn record(&mut self, from: Sources<'_>, now: u64) {
        let failed = from.fields.text(Field::Status) == Some("error");
        for (id, dimension) in self.ids.iter_mut().zip(&mut self.dimensions) {
            *id = dimension.id(from, failed);
        }
        let exemplar = if self.exemplars { exemplar(from, now) } else { None };
        for observer in &self.observers {
            let Some(value) = observer.what.value(from, failed) else { continue };
            let mut key = [OTHER; MAX_LABELS];
            for (place, part) in key.iter_mut().zip(&observer.key) {
                *place = part.fixed.unwrap_or(self.ids[part.dimension]);
            }
            let key = &mut key[..observer.key.len()];
            let family = &mut self.families[observer.family];
            let series = family
                .find(key)
                .unwrap_or_else(|| add(family, &self.dimensions, observer, key, &mut self.budget));
            family.observe(series, value * observer.scale, exemplar);
        }
    }
}

/// Adds a series, or where there is no room leads to the one that stands for the rest: every label but the fixed ones
/// is `other`. Those are not counted, and there is at most one per observer.
#[cold]
fn add(
    family: &mut Family,
    dimensions: &[Dimension],
    observer: &Observer,
    key: &mut [u32],
    budget: &mut Budget,
) -> usize {
    if budget.used < budget.max {
        budget.used += 1;
    } else {
        budget.overflowed += 1;
        for (place, part) in key.iter_mut().zip(&observer.key) {
            *place = part.fixed.unwrap_or(OTHER);
        }
        if let Some(rest) = family.find(key) {
            return rest;
        }
    }
    let mut labels = String::new();
    for ((name, id), part) in family.labels.iter().zip(&*key).zip(&observer.key) {
        label::write(&mut labels, name, dimensions[part.dimension].values.name(*id));
    }
    family.add(key, labels)
}

impl Dimension {
    fn id(&mut self, from: Sources<'_>, failed: bool) -> u32 {
        let source = match &self.read {
            Read::Model => {
                let answered = from.fields.text(Field::Model);
                let model = answered.or_else(|| from.fields.text(Field::RequestModel));
                // A client can ask for anything. Only a model that a provider answered with gets a place.
                return self.values.id(model, answered.is_some() && !failed);
            }
            Read::Fixed => return OTHER,
            Read::Source(source) => source,
        };
        let value = source.read(from);
        let mut digits = itoa::Buffer::new();
        self.values.id(text(&value, &mut digits), true)
    }
}

/// A label's text. A number that is not whole is none: it would have a value per request.
#[allow(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
fn text<'a>(value: &'a Value<'_>, digits: &'a mut itoa::Buffer) -> Option<&'a str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Bool(is) => Some(if *is { "true" } else { "false" }),
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            Some(digits.format(*number as i64))
        }
        Value::Number(_) => Some("other"),
        Value::Null | Value::List(_) => None,
    }
}

impl What {
    fn value(&self, from: Sources<'_>, failed: bool) -> Option<f64> {
        match self {
            Self::One => Some(1.0),
            Self::Failure => failed.then_some(1.0),
            Self::Number(Source::Field(field)) => from.fields.get(*field).number(),
            Self::Number(source) => source.read(from).number(),
        }
    }
}

/// The record's trace, where it has a well-formed one.
fn exemplar(from: Sources<'_>, now: u64) -> Option<Exemplar> {
    let trace: [u8; 32] = from.fields.text(Field::TraceId)?.as_bytes().try_into().ok()?;
    trace.iter().all(u8::is_ascii_hexdigit).then_some(Exemplar { trace, value: 0.0, at: now })
}
