//! Which metrics there are: the built-in ones, and those of the settings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use exporter_kit::source::Source;
use plugin_api::{Content, Field};

use crate::{
    config::{Config, CustomMetric, Kind},
    label::{self, Values},
    metrics::{Budget, Dimension, MAX_LABELS, Metrics, Observer, Part, Read, What},
    series::{Family, Shape},
};

/// A metric that is always there.
struct BuiltIn {
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    bounds: Bounds,
    labels: &'static [Field],
    values: &'static [(&'static str, What)],
}

/// Which of the settings' bounds a metric has.
#[derive(Clone, Copy)]
enum Bounds {
    /// None: a counter.
    Counter,
    /// None: a counter of dollars.
    Dollars,
    Durations,
    FirstToken,
    Tokens,
    Sizes,
}

const fn field(field: Field) -> What {
    What::Number(Source::Field(field))
}

const ROUTE: &[Field] = &[Field::Provider, Field::Model];
const USAGE: &[Field] = &[Field::Provider, Field::Model, Field::UsageSource];

/// A value's text, where it is not empty, is the value of a label `type`.
static BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "requests",
        unit: "",
        help: "Requests.",
        bounds: Bounds::Counter,
        labels: &[Field::Provider, Field::Model, Field::Status, Field::StatusCode],
        values: &[("", What::One)],
    },
    BuiltIn {
        name: "request_ends",
        unit: "",
        help: "Requests by how they ended.",
        bounds: Bounds::Counter,
        labels: &[Field::Provider, Field::Model, Field::EndReason],
        values: &[("", What::One)],
    },
    BuiltIn {
        name: "errors",
        unit: "",
        help: "Requests that failed, by the gateway's error code or the provider's error type.",
        bounds: Bounds::Counter,
        labels: &[Field::Provider, Field::Model, Field::ErrorType],
        values: &[("", What::Failure)],
    },
    BuiltIn {
        name: "request_duration_seconds",
        unit: "seconds",
        help: "From a request's first header to its answer's last byte.",
        bounds: Bounds::Durations,
        labels: &[Field::Provider, Field::Model, Field::Status],
        values: &[("", field(Field::TotalLatency))],
    },
    BuiltIn {
        name: "provider_latency_seconds",
        unit: "seconds",
        help: "From a request sent to the provider until its headers came.",
        bounds: Bounds::Durations,
        labels: ROUTE,
        values: &[("", field(Field::ProviderLatency))],
    },
    BuiltIn {
        name: "time_to_first_token_seconds",
        unit: "seconds",
        help: "From a request's start to the first content token of its stream.",
        bounds: Bounds::FirstToken,
        labels: ROUTE,
        values: &[("", field(Field::Ttft))],
    },
    BuiltIn {
        name: "time_to_first_byte_seconds",
        unit: "seconds",
        help: "From a request's start to the first byte of its answer's body.",
        bounds: Bounds::FirstToken,
        labels: ROUTE,
        values: &[("", field(Field::Ttfb))],
    },
    BuiltIn {
        name: "tokens",
        unit: "",
        help: "Tokens by type. cached_read and cached_write are part of input, reasoning of output.",
        bounds: Bounds::Counter,
        labels: USAGE,
        values: &[
            ("input", field(Field::InputTokens)),
            ("output", field(Field::OutputTokens)),
            ("cached_read", field(Field::CachedReadTokens)),
            ("cached_write", field(Field::CachedWriteTokens)),
            ("reasoning", field(Field::ReasoningTokens)),
        ],
    },
    BuiltIn {
        name: "request_tokens",
        unit: "tokens",
        help: "Tokens per request, by type.",
        bounds: Bounds::Tokens,
        labels: USAGE,
        values: &[("input", field(Field::InputTokens)), ("output", field(Field::OutputTokens))],
    },
    BuiltIn {
        name: "cost_usd",
        unit: "usd",
        help: "Cost in US dollars of the requests whose cost is known.",
        bounds: Bounds::Dollars,
        labels: &[Field::Provider, Field::Model, Field::CostSource],
        values: &[("", field(Field::Cost))],
    },
    BuiltIn {
        name: "request_size_bytes",
        unit: "bytes",
        help: "Size of request bodies on the wire.",
        bounds: Bounds::Sizes,
        labels: ROUTE,
        values: &[("", field(Field::RequestSize))],
    },
    BuiltIn {
        name: "response_size_bytes",
        unit: "bytes",
        help: "Size of answer bodies on the wire.",
        bounds: Bounds::Sizes,
        labels: ROUTE,
        values: &[("", field(Field::ResponseSize))],
    },
];

/// Names that the exporter's metrics about itself have; see the exposition.
pub const ABOUT_ITSELF: [&str; 3] = ["series", "series_overflow", "label_overflow"];

/// Names that belong to the gateway.
const FOREIGN: [&str; 3] = ["magicapi_exporter_", "magicapi_gateway_", "magicapi_plugin_"];

/// The metrics that the settings ask for.
///
/// # Errors
/// A sentence that names the setting.
pub fn build(config: &Config) -> Result<Metrics, String> {
    check_prefix(&config.prefix)?;
    let budget = Budget { used: 0, max: config.max_series as usize, overflowed: 0 };
    let metrics = Metrics {
        families: Vec::new(),
        dimensions: Vec::new(),
        observers: Vec::new(),
        ids: Vec::new(),
        plans: HashMap::new(),
        reads_bodies: false,
        exemplars: config.exemplars,
        budget,
    };
    let mut builder = Builder { config, metrics };
    for metric in BUILT_IN {
        builder.add_built_in(metric)?;
    }
    for metric in &config.metrics {
        builder.add_custom(metric).map_err(|error| format!("metrics: `{}`: {error}", metric.name))?;
    }
    let mut metrics = builder.metrics;
    metrics.ids = vec![0; metrics.dimensions.len()];
    Ok(metrics)
}

struct Builder<'a> {
    config: &'a Config,
    metrics: Metrics,
}

impl Builder<'_> {
    fn add_built_in(&mut self, metric: &'static BuiltIn) -> Result<(), String> {
        let shape = match metric.bounds {
            Bounds::Counter => Shape::Counter,
            Bounds::Dollars => Shape::Dollars,
            Bounds::Durations => histogram("duration_buckets", &self.config.duration_buckets)?,
            Bounds::FirstToken => histogram("first_token_buckets", &self.config.first_token_buckets)?,
            Bounds::Tokens => histogram("token_buckets", &self.config.token_buckets)?,
            Bounds::Sizes => histogram("size_buckets", &self.config.size_buckets)?,
        };
        let mut names: Vec<String> = Vec::new();
        let mut key = Vec::new();
        for field in metric.labels {
            let name = field.name();
            names.push(name.to_owned());
            key.push(self.part(Source::Field(*field), name));
        }
        let types: Vec<_> = metric.values.iter().map(|(of, _)| (*of).to_owned()).collect();
        let typed = (!types[0].is_empty()).then(|| self.fixed(&types));
        if typed.is_some() {
            names.push("type".to_owned());
        }
        self.extend(&mut names, &mut key, typed.is_some())?;
        let at = metric.labels.len();
        let family = self.add_family(metric.name, metric.help, metric.unit, shape, names);
        for (of, what) in metric.values {
            let mut key = key.clone();
            if let Some(dimension) = typed {
                let fixed = Some(self.metrics.dimensions[dimension].values.id(Some(of), false));
                key.insert(at, Part { dimension, fixed });
            }
            let scale = if metric.unit == "seconds" { 0.001 } else { 1.0 };
            self.metrics.observers.push(Observer { family, key, what: what.clone(), scale });
        }
        Ok(())
    }

    /// Adds the settings' `record_tags`.
    fn extend(&mut self, names: &mut Vec<String>, key: &mut Vec<Part>, typed: bool) -> Result<(), String> {
        for (name, source) in &self.config.record_tags.0 {
            if !label::is_name(name) {
                return Err(format!("record_tags: `{name}` cannot be the name of a label"));
            }
            if names.contains(name) {
                return Err(format!("record_tags: `{name}` is a label of the built-in metrics already"));
            }
            let parsed = Source::parse(source).map_err(|error| format!("record_tags: {error}"))?;
            names.push(name.clone());
            key.push(self.part(parsed, source));
        }
        if key.len() + usize::from(typed) > MAX_LABELS {
            return Err(format!("record_tags: a metric can have {MAX_LABELS} labels at the most"));
        }
        Ok(())
    }

    fn add_custom(&mut self, metric: &CustomMetric) -> Result<(), String> {
        let name = self.check_name(metric)?;
        let shape = match metric.kind {
            Kind::Counter => Shape::Counter,
            Kind::Gauge => Shape::Gauge,
            Kind::Histogram if metric.buckets.is_empty() => {
                histogram("duration_buckets", &self.config.duration_buckets)?
            }
            Kind::Histogram => histogram("buckets", &metric.buckets)?,
        };
        let what = match (&metric.value, metric.kind) {
            (Some(source), _) => {
                What::Number(Source::parse(source).map_err(|error| format!("value: {error}"))?)
            }
            (None, Kind::Counter) => What::One,
            (None, _) => return Err("value: only a counter can do without".to_owned()),
        };
        if let What::Number(source) = &what {
            self.metrics.reads_bodies |= source.content() == Content::Full;
        }
        if !metric.scale.is_finite() || metric.scale == 0.0 {
            return Err("scale: a number other than 0 is needed".to_owned());
        }
        let (names, key) = self.custom_labels(&metric.labels)?;
        let family = self.add_family(&name, &metric.help, "", shape, names);
        self.metrics.observers.push(Observer { family, key, what, scale: metric.scale });
        Ok(())
    }

    fn custom_labels(
        &mut self,
        labels: &BTreeMap<String, String>,
    ) -> Result<(Vec<String>, Vec<Part>), String> {
        if labels.len() > MAX_LABELS {
            return Err(format!("labels: a metric can have {MAX_LABELS} at the most"));
        }
        let mut key = Vec::new();
        for (name, source) in labels {
            if !label::is_name(name) {
                return Err(format!("labels: `{name}` cannot be the name of a label"));
            }
            let parsed = Source::parse(source).map_err(|error| format!("labels: {error}"))?;
            key.push(self.part(parsed, source));
        }
        Ok((labels.keys().cloned().collect(), key))
    }

    /// The name without `_total`, if Prometheus takes it and nobody else has it.
    fn check_name(&self, metric: &CustomMetric) -> Result<String, String> {
        let name = match metric.kind {
            Kind::Counter => metric.name.strip_suffix("_total").unwrap_or(&metric.name),
            Kind::Gauge | Kind::Histogram => &metric.name,
        };
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err("name: letters, digits and `_` make a metric's name".to_owned());
        }
        if let Some(suffix) =
            ["_total", "_created", "_sum", "_count", "_bucket", "_info"].iter().find(|s| name.ends_with(**s))
        {
            return Err(format!("name: `{suffix}` at its end has a meaning of its own"));
        }
        let full = format!("{}{name}", self.config.prefix);
        let is_taken =
            ABOUT_ITSELF.contains(&name) || self.metrics.families.iter().any(|family| family.name == full);
        if is_taken {
            return Err("name: another metric has it".to_owned());
        }
        if metric.help.is_empty() {
            return Err("help: say in a sentence what it counts".to_owned());
        }
        Ok(name.to_owned())
    }

    fn add_family(
        &mut self,
        name: &str,
        help: &str,
        unit: &'static str,
        shape: Shape,
        labels: Vec<String>,
    ) -> usize {
        let name = format!("{}{name}", self.config.prefix);
        self.metrics.families.push(Family::new(name, help.to_owned(), unit, shape, labels));
        self.metrics.families.len() - 1
    }

    /// The dimension that reads `source`, made where there is none yet.
    fn part(&mut self, source: Source, name: &str) -> Part {
        self.metrics.reads_bodies |= source.content() == Content::Full;
        let config = self.config;
        let list_or = |list: &[String], max: u32| {
            if list.is_empty() { Values::first(max as usize) } else { Values::allowed(list) }
        };
        let (read, values) = match source {
            Source::Field(Field::Model) => (Read::Model, list_or(&config.models, config.max_models)),
            Source::Field(Field::Provider) => {
                (Read::Source(source), list_or(&config.providers, config.max_providers))
            }
            _ => (Read::Source(source), Values::first(config.max_label_values as usize)),
        };
        let dimensions = &mut self.metrics.dimensions;
        let dimension = dimensions.iter().position(|known| known.read == read).unwrap_or_else(|| {
            dimensions.push(Dimension { name: name.to_owned(), read, values });
            dimensions.len() - 1
        });
        Part { dimension, fixed: None }
    }

    fn fixed(&mut self, values: &[String]) -> usize {
        let values = Values::allowed(values);
        self.metrics.dimensions.push(Dimension { name: "type".to_owned(), read: Read::Fixed, values });
        self.metrics.dimensions.len() - 1
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    let starts = prefix.starts_with(|c: char| c.is_ascii_alphabetic());
    if !starts || !prefix.ends_with('_') || !prefix.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "prefix: `{prefix}` must be letters, digits and `_`, with a letter first and a `_` last"
        ));
    }
    match FOREIGN.iter().find(|foreign| prefix.starts_with(**foreign)) {
        Some(foreign) => Err(format!("prefix: names with `{foreign}` are the gateway's own")),
        None => Ok(()),
    }
}

/// Most bounds that a histogram may have.
const MAX_BOUNDS: usize = 64;

fn histogram(setting: &str, bounds: &[f64]) -> Result<Shape, String> {
    let rises = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if bounds.is_empty()
        || bounds.len() > MAX_BOUNDS
        || !rises
        || !bounds.iter().all(|bound| bound.is_finite())
    {
        return Err(format!("{setting}: between 1 and {MAX_BOUNDS} rising numbers are needed"));
    }
    Ok(Shape::Histogram(Arc::from(bounds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: &str) -> String {
        build(&serde_json::from_str(settings).unwrap()).unwrap_err()
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let custom =
            |more: &str| format!(r#"{{"metrics":[{{"name":"x","kind":"counter","help":"h",{more}}}]}}"#);
        for (settings, expected) in [
            (r#"{"prefix":"magicapi_gateway_llm_"}"#.to_owned(), "prefix: names with `magicapi_gateway_`"),
            (r#"{"prefix":"1_"}"#.to_owned(), "prefix: `1_` must be"),
            (r#"{"duration_buckets":[1,1]}"#.to_owned(), "duration_buckets: between"),
            (r#"{"token_buckets":[]}"#.to_owned(), "token_buckets: between"),
            (r#"{"record_tags":{"le":"org_id"}}"#.to_owned(), "record_tags: `le` cannot"),
            (r#"{"record_tags":{"model":"org_id"}}"#.to_owned(), "record_tags: `model` is a label"),
            (r#"{"record_tags":{"type":"org_id"}}"#.to_owned(), "record_tags: `type` is a label"),
            (
                r#"{"record_tags":{"org":"organisation"}}"#.to_owned(),
                "record_tags: `organisation` is no field",
            ),
            (custom(r#""value":"nope""#), "metrics: `x`: value: `nope` is no field"),
            (custom(r#""scale":0"#), "metrics: `x`: scale: "),
            (custom(r#""labels":{"a-b":"path"}"#), "metrics: `x`: labels: `a-b` cannot"),
            (
                r#"{"metrics":[{"name":"requests_total","kind":"counter","help":"h"}]}"#.to_owned(),
                "another metric has it",
            ),
            (
                r#"{"metrics":[{"name":"series","kind":"gauge","help":"h","value":"cost"}]}"#.to_owned(),
                "another metric has it",
            ),
            (
                r#"{"metrics":[{"name":"a_total","kind":"gauge","help":"h","value":"cost"}]}"#.to_owned(),
                "a meaning of its own",
            ),
            (
                r#"{"metrics":[{"name":"a","kind":"gauge","help":"h"}]}"#.to_owned(),
                "only a counter can do without",
            ),
            (
                r#"{"metrics":[{"name":"a b","kind":"counter","help":"h"}]}"#.to_owned(),
                "letters, digits and `_`",
            ),
            (r#"{"metrics":[{"name":"a","kind":"counter","help":""}]}"#.to_owned(), "help: say"),
        ] {
            let error = refusal(&settings);
            assert!(error.contains(expected), "{settings}: {error}");
        }
    }

    #[test]
    fn a_source_that_two_labels_show_is_read_once() {
        let settings = r#"{"record_tags":{"team":"project_id"},"metrics":[{"name":"a","kind":"counter","help":"h","labels":{"project":"project_id"}}]}"#;
        let metrics = build(&serde_json::from_str(settings).unwrap()).unwrap();
        let readers = metrics.dimensions.iter().filter(|dimension| dimension.name == "project_id");
        assert_eq!(readers.count(), 1);
        assert!(!metrics.reads_bodies);
    }
}
