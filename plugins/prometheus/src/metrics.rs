//! All metrics of an instance: from a record to the series it touches.

use std::collections::HashMap;

use exporter_kit::{
    model::CountedModel,
    source::{Source, Sources},
};
use plugin_api::Field;

use crate::{
    label::{self, OTHER, Values},
    series::{Exemplar, Family},
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
    /// For each combination of them that came along, the series of every observer: one look-up per record instead of
    /// one per series.
    pub(crate) plans: HashMap<Box<[u32]>, Box<[u32]>>,
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
    /// See [`CountedModel`].
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
        let failed = from.fields.text(Field::Status).as_deref() == Some("error");
        for (id, dimension) in self.ids.iter_mut().zip(&mut self.dimensions) {
            *id = dimension.id(from);
        }
        let exemplar = if self.exemplars { exemplar(from, now) } else { None };
        if !self.plans.contains_key(&*self.ids) {
            self.add_plan();
        }
        let Some(plan) = self.plans.get_mut(&*self.ids) else { return };
        for (observer, planned) in self.observers.iter().zip(plan) {
            let Some(value) = observer.what.value(from, failed) else { continue };
            let family = &mut self.families[observer.family];
            let series = if *planned == UNPLANNED {
                let (series, is_own) = observer.find(family, &self.dimensions, &self.ids, &mut self.budget);
                if let (Ok(series), true) = (u32::try_from(series), is_own) {
                    *planned = series;
                }
                series
            } else {
                *planned as usize
            };
            family.observe(series, value * observer.scale, exemplar);
        }
    }

    /// Plans only remember what can be found again, so they are thrown away when they are many.
    #[cold]
    fn add_plan(&mut self) {
        if self.plans.len() >= MAX_PLANS {
            self.plans.clear();
        }
        let unplanned = vec![UNPLANNED; self.observers.len()];
        self.plans.insert(self.ids.as_slice().into(), unplanned.into());
    }
}

/// In a plan: the series was not looked up yet, or has none of its own.
const UNPLANNED: u32 = u32::MAX;

/// Combinations that are remembered; some 150 bytes each.
const MAX_PLANS: usize = 10_000;

impl Observer {
    /// The series for these values, added where there is none, and whether it is their own. Where there is no room it
    /// is the one that stands for the rest: every label but the fixed ones is `other`. Those are not counted, and
    /// there is at most one per observer.
    #[cold]
    fn find(
        &self,
        family: &mut Family,
        dimensions: &[Dimension],
        ids: &[u32],
        budget: &mut Budget,
    ) -> (usize, bool) {
        let key = |id: &dyn Fn(&Part) -> u32| -> Vec<u32> {
            self.key.iter().map(|part| part.fixed.unwrap_or_else(|| id(part))).collect()
        };
        let own = key(&|part| ids[part.dimension]);
        if let Some(series) = family.find(&own) {
            return (series, true);
        }
        if budget.used < budget.max {
            budget.used += 1;
            return (family.add(&own, self.labels(family, dimensions, &own)), true);
        }
        budget.overflowed += 1;
        let rest = key(&|_| OTHER);
        let series =
            family.find(&rest).unwrap_or_else(|| family.add(&rest, self.labels(family, dimensions, &rest)));
        (series, false)
    }

    fn labels(&self, family: &Family, dimensions: &[Dimension], key: &[u32]) -> String {
        let mut labels = String::new();
        for ((name, id), part) in family.labels.iter().zip(key).zip(&self.key) {
            label::write(&mut labels, name, dimensions[part.dimension].values.name(*id));
        }
        labels
    }
}

impl Dimension {
    fn id(&mut self, from: Sources<'_>) -> u32 {
        let source = match &self.read {
            Read::Model => {
                let CountedModel { name, is_proven, alias } = CountedModel::of(from.fields);
                if let Some(alias) = alias {
                    self.values.vouch(&alias);
                }
                return self.values.id(name.as_deref(), is_proven);
            }
            Read::Fixed => return OTHER,
            Read::Source(source) => source,
        };
        let value = source.read(from);
        let mut digits = itoa::Buffer::new();
        self.values.id(value.label(&mut digits), true)
    }
}

impl What {
    fn value(&self, from: Sources<'_>, failed: bool) -> Option<f64> {
        match self {
            Self::One => Some(1.0),
            Self::Failure => failed.then_some(1.0),
            Self::Number(source) => source.read(from).number(),
        }
    }
}

/// The record's trace, where it has a well-formed one.
fn exemplar(from: Sources<'_>, now: u64) -> Option<Exemplar> {
    let trace = from.fields.text(Field::TraceId)?;
    if trace.len() != 32 || !trace.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let half = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some(Exemplar { trace: [half(&trace[..16])?, half(&trace[16..])?], value: 0.0, at: now })
}
