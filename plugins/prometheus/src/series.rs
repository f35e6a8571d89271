//! Families of series, and what an observation does to them.

use std::{collections::HashMap, sync::Arc};

/// What a family's series hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A sum that only grows.
    Counter,
    /// A sum of dollars, exact to 10⁻¹² of one.
    Dollars,
    /// The last value.
    Gauge,
    /// Counts by upper bound.
    Histogram(Arc<[f64]>),
}

/// All series of one name.
#[derive(Debug)]
pub struct Family {
    /// Name without the `_total` of a counter.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// Unit for OpenMetrics, with which the name ends; empty for none.
    pub unit: &'static str,
    /// What its series hold.
    pub shape: Shape,
    /// Names of its labels, in the order of a key's parts.
    pub labels: Vec<String>,
    /// In the order in which they came up.
    pub series: Vec<Series>,
    by_key: HashMap<Box<[u32]>, usize>,
}

/// One label set and its value.
#[derive(Debug)]
pub struct Series {
    /// Rendered and escaped, without braces.
    pub labels: Box<str>,
    /// Its value.
    pub data: Data,
}

/// A value.
#[derive(Debug)]
pub enum Data {
    /// A sum or the last value, and one of the requests behind it.
    Number(f64, Option<Exemplar>),
    /// Picodollars.
    Dollars(i128, Option<Exemplar>),
    /// One bucket more than there are bounds; the last one has none.
    Histogram {
        /// Counts of each bucket by itself, not summed up.
        buckets: Box<[Bucket]>,
        /// Sum of the values.
        sum: f64,
    },
}

/// A bucket of a histogram.
#[derive(Debug, Clone, Default)]
pub struct Bucket {
    /// Values between the bound before and this one's.
    pub count: u64,
    /// One of the requests behind them.
    pub exemplar: Option<Exemplar>,
}

/// A request that stands for others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// Trace id, upper and lower half.
    pub trace: [u64; 2],
    /// What it added.
    pub value: f64,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

impl Family {
    /// A family without series.
    #[must_use]
    pub fn new(name: String, help: String, unit: &'static str, shape: Shape, labels: Vec<String>) -> Self {
        Self { name, help, unit, shape, labels, series: Vec::new(), by_key: HashMap::new() }
    }

    /// The series with that key.
    #[must_use]
    pub fn find(&self, key: &[u32]) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Adds a series at zero.
    pub fn add(&mut self, key: &[u32], labels: String) -> usize {
        let data = match &self.shape {
            Shape::Counter | Shape::Gauge => Data::Number(0.0, None),
            Shape::Dollars => Data::Dollars(0, None),
            Shape::Histogram(bounds) => {
                Data::Histogram { buckets: vec![Bucket::default(); bounds.len() + 1].into(), sum: 0.0 }
            }
        };
        let index = self.series.len();
        self.series.push(Series { labels: labels.into_boxed_str(), data });
        self.by_key.insert(key.into(), index);
        index
    }

    /// Takes a value into a series. A counter ignores a negative one: it only grows.
    pub fn observe(&mut self, series: usize, value: f64, exemplar: Option<Exemplar>) {
        let exemplar = exemplar.map(|exemplar| Exemplar { value, ..exemplar });
        match (&self.shape, &mut self.series[series].data) {
            (Shape::Gauge, Data::Number(last, _)) => *last = value,
            (_, Data::Number(sum, latest)) if value >= 0.0 => {
                *sum += value;
                *latest = exemplar.or(*latest);
            }
            (_, Data::Dollars(sum, latest)) if value >= 0.0 => {
                *sum += picodollars(value);
                *latest = exemplar.or(*latest);
            }
            (Shape::Histogram(bounds), Data::Histogram { buckets, sum }) => {
                let bucket = &mut buckets[bounds.partition_point(|bound| *bound < value)];
                bucket.count += 1;
                bucket.exemplar = exemplar.or(bucket.exemplar);
                *sum += value;
            }
            _ => {}
        }
    }
}

/// The exact amount behind a float: a request's cost has at most 12 decimal places, and below 9,000 dollars a float
/// holds all of them.
#[allow(clippy::cast_possible_truncation, reason = "a float beyond the range of i128 saturates")]
fn picodollars(dollars: f64) -> i128 {
    (dollars * 1e12).round() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(shape: Shape) -> Family {
        let mut family = Family::new("a".to_owned(), "b".to_owned(), "", shape, Vec::new());
        family.add(&[], String::new());
        family
    }

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let mut family = family(Shape::Histogram([1.0, 2.0].into()));
        for value in [0.5, 1.0, 1.5, 2.0, 9.0] {
            family.observe(0, value, None);
        }
        let Data::Histogram { buckets, sum } = &family.series[0].data else { panic!() };
        assert_eq!(buckets.iter().map(|bucket| bucket.count).collect::<Vec<_>>(), [2, 2, 1]);
        assert!((sum - 14.0).abs() < 1e-9);
    }

    #[test]
    fn dollars_do_not_drift() {
        let mut family = family(Shape::Dollars);
        for _ in 0..1_000_000 {
            family.observe(0, 0.1, None);
        }
        let Data::Dollars(sum, _) = family.series[0].data else { panic!() };
        assert_eq!(sum, 100_000 * 1_000_000_000_000);
    }

    #[test]
    fn a_counter_never_falls_and_a_gauge_may() {
        let value = |shape| {
            let mut family = family(shape);
            family.observe(0, 5.0, None);
            family.observe(0, -2.0, None);
            let Data::Number(value, _) = family.series[0].data else { panic!() };
            value
        };
        assert!((value(Shape::Counter) - 5.0).abs() < 1e-9);
        assert!((value(Shape::Gauge) + 2.0).abs() < 1e-9);
    }
}
