//! Metrics as text: the Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! Written by hand, since both formats are needed, series are bounded before they exist, and the libraries at hand
//! write one format or know neither exemplars nor a cap. Both formats write a bound as OpenMetrics wants it (`1.0`,
//! `1.048576e+06`), so that a scraper that changes format finds the same series.

use std::fmt::Write as _;

use crate::{
    label,
    metrics::Metrics,
    series::{Data, Exemplar, Family, Series, Shape},
};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0, without `# EOF`.
    OpenMetrics,
}

/// All metrics, and those of the exporter about itself. Families without a series are left out.
#[must_use]
pub fn write(metrics: &Metrics, prefix: &str, format: Format) -> String {
    let lines: usize = metrics.families.iter().map(lines).sum();
    let mut out =
        Out { text: String::with_capacity(1024 + lines * 128), format, digits: itoa::Buffer::new() };
    for family in metrics.families.iter().filter(|family| !family.series.is_empty()) {
        out.family(family);
    }
    out.about(metrics, prefix);
    out.text
}

fn lines(family: &Family) -> usize {
    match &family.shape {
        Shape::Histogram(bounds) => family.series.len() * (bounds.len() + 3),
        _ => family.series.len(),
    }
}

struct Out {
    text: String,
    format: Format,
    digits: itoa::Buffer,
}

impl Out {
    fn family(&mut self, family: &Family) {
        self.head(&family.name, &family.help, family.unit, &family.shape);
        match &family.shape {
            Shape::Histogram(bounds) => {
                let bounds: Vec<String> = bounds.iter().map(|bound| canonical(*bound)).collect();
                for series in &family.series {
                    self.histogram(&family.name, series, &bounds);
                }
            }
            shape => {
                for series in &family.series {
                    self.single(&family.name, series, *shape != Shape::Gauge);
                }
            }
        }
    }

    fn head(&mut self, name: &str, help: &str, unit: &str, shape: &Shape) {
        let (kind, is_counter) = match shape {
            Shape::Counter | Shape::Dollars => ("counter", true),
            Shape::Gauge => ("gauge", false),
            Shape::Histogram(_) => ("histogram", false),
        };
        // The older format names the series, the newer one the family.
        let suffix = if is_counter && self.format == Format::Text { "_total" } else { "" };
        let _ = write!(self.text, "# HELP {name}{suffix} ");
        for character in help.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if self.format == Format::OpenMetrics => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
        let _ = write!(self.text, "\n# TYPE {name}{suffix} {kind}\n");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    fn single(&mut self, name: &str, series: &Series, is_counter: bool) {
        self.text.push_str(name);
        if is_counter {
            self.text.push_str("_total");
        }
        self.labels(&series.labels);
        match &series.data {
            Data::Number(value, exemplar) => {
                self.number(*value);
                self.end(exemplar.as_ref());
            }
            Data::Dollars(picodollars, exemplar) => {
                dollars(&mut self.text, *picodollars);
                self.end(exemplar.as_ref());
            }
            Data::Histogram { .. } => {}
        }
    }

    fn histogram(&mut self, name: &str, series: &Series, bounds: &[String]) {
        let Data::Histogram { buckets, sum } = &series.data else { return };
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        let mut total = 0;
        for (bucket, bound) in buckets.iter().zip(bounds) {
            total += bucket.count;
            self.text.push_str(name);
            self.text.push_str("_bucket{");
            if !series.labels.is_empty() {
                self.text.push_str(&series.labels);
                self.text.push(',');
            }
            self.text.push_str("le=\"");
            self.text.push_str(bound);
            self.text.push_str("\"} ");
            self.text.push_str(self.digits.format(total));
            self.end(bucket.exemplar.as_ref());
        }
        self.text.push_str(name);
        self.text.push_str("_sum");
        self.labels(&series.labels);
        self.number(*sum);
        self.text.push('\n');
        self.text.push_str(name);
        self.text.push_str("_count");
        self.labels(&series.labels);
        self.text.push_str(self.digits.format(total));
        self.text.push('\n');
    }

    /// How full the exporter is, so that an alert can say that a bound is too low.
    fn about(&mut self, metrics: &Metrics, prefix: &str) {
        let [series, series_overflow, label_overflow] =
            crate::catalogue::ABOUT_ITSELF.map(|name| format!("{prefix}{name}"));
        let budget = &metrics.budget;
        self.head(&series, "Label sets in use, of max_series.", "", &Shape::Gauge);
        let _ = writeln!(self.text, "{series} {}", budget.used);
        let help = "Observations without a label set of their own, because max_series was reached.";
        self.head(&series_overflow, help, "", &Shape::Counter);
        let _ = writeln!(self.text, "{series_overflow}_total {}", budget.overflowed);
        let full: Vec<_> =
            metrics.dimensions.iter().filter(|dimension| dimension.values.overflowed > 0).collect();
        if full.is_empty() {
            return;
        }
        self.head(&label_overflow, "Requests whose value of a label became `other`.", "", &Shape::Counter);
        for dimension in full {
            let mut labels = String::new();
            label::write(&mut labels, "label", &dimension.name);
            let _ = writeln!(self.text, "{label_overflow}_total{{{labels}}} {}", dimension.values.overflowed);
        }
    }

    fn labels(&mut self, labels: &str) {
        if !labels.is_empty() {
            self.text.push('{');
            self.text.push_str(labels);
            self.text.push('}');
        }
        self.text.push(' ');
    }

    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    fn number(&mut self, value: f64) {
        if value.fract() == 0.0 && value.abs() < 9e15 {
            self.text.push_str(self.digits.format(value as i64));
        } else {
            let _ = write!(self.text, "{value}");
        }
    }

    /// Ends a sample, in OpenMetrics with the request that stands for it.
    fn end(&mut self, exemplar: Option<&Exemplar>) {
        if let (Format::OpenMetrics, Some(exemplar)) = (self.format, exemplar) {
            let [upper, lower] = exemplar.trace;
            let _ = write!(self.text, " # {{trace_id=\"{upper:016x}{lower:016x}\"}} ");
            self.number(exemplar.value);
            self.text.push(' ');
            self.text.push_str(self.digits.format(exemplar.at / 1000));
            let milliseconds = exemplar.at % 1000;
            let _ = write!(self.text, ".{milliseconds:03}");
        }
        self.text.push('\n');
    }
}

/// An exact decimal.
fn dollars(out: &mut String, picodollars: i128) {
    const PER_DOLLAR: i128 = 1_000_000_000_000;
    let fraction = format!("{:012}", picodollars % PER_DOLLAR);
    let _ = write!(out, "{}.{}", picodollars / PER_DOLLAR, fraction.trim_end_matches('0'));
    if out.ends_with('.') {
        out.pop();
    }
}

/// A bound as Go's `%g` writes it, with a point or an exponent always: what OpenMetrics calls canonical.
fn canonical(bound: f64) -> String {
    let scientific = format!("{bound:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if bound != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = bound.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_canonical() {
        for (bound, expected) in [
            (0.0, "0.0"),
            (0.01, "0.01"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1.0, "1.0"),
            (81.92, "81.92"),
            (100_000.0, "100000.0"),
            (262_144.0, "262144.0"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (67_108_864.0, "6.7108864e+07"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(canonical(bound), expected);
        }
    }

    #[test]
    fn dollars_are_exact() {
        for (picodollars, expected) in [
            (0, "0"),
            (1, "0.000000000001"),
            (45_600_000_000, "0.0456"),
            (2_000_000_000_000, "2"),
            (12_500_000_000_000, "12.5"),
        ] {
            let mut out = String::new();
            dollars(&mut out, picodollars);
            assert_eq!(out, expected);
        }
    }
}
