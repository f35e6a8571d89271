//! The settings: `[plugin.config]`.

use std::collections::BTreeMap;

use exporter_kit::{record_tags::RecordTags, source::Source};
use plugin_api::ContentNeed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the Prometheus exporter. Every one has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Start of every metric's name. Two instances of this exporter need different ones.
    #[schemars(extend("x-env" = "PROMETHEUS_EXPORTER_PREFIX"))]
    pub prefix: String,
    /// Models that have a label value of their own; every other is `other`. Empty: the first `max_models` that a
    /// provider answered with.
    #[schemars(extend("x-env" = "PROMETHEUS_EXPORTER_MODELS"))]
    pub models: Vec<String>,
    /// Number of models when `models` is empty.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_models: u32,
    /// Providers that have a label value of their own. Empty: the first `max_providers`.
    #[schemars(extend("x-env" = "PROMETHEUS_EXPORTER_PROVIDERS"))]
    pub providers: Vec<String>,
    /// Number of providers when `providers` is empty.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_providers: u32,
    /// Number of values of every other label: error types, status codes, and the labels that you add.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_label_values: u32,
    /// Number of label sets over all metrics. A histogram's label set counts as one and is about 17 time series in
    /// Prometheus. Beyond it, observations go to label sets of `other`.
    #[schemars(range(min = 1, max = 100_000), extend("x-env" = "PROMETHEUS_EXPORTER_MAX_SERIES"))]
    pub max_series: u32,
    /// Further labels of every built-in metric: a label's name and what it shows, a field of the record or a place in a
    /// body, for instance `{ team = "project_id", tier = "response:/service_tier" }`. Each value multiplies the number of
    /// series.
    pub record_tags: RecordTags,
    /// Whether OpenMetrics scrapes carry the trace id of a recent request per counter and bucket.
    pub exemplars: bool,
    /// Upper bounds of the duration histograms, in seconds.
    pub duration_buckets: Vec<f64>,
    /// Upper bounds of the histograms of the time to the first token and the first byte, in seconds.
    pub first_token_buckets: Vec<f64>,
    /// Upper bounds of the token histograms.
    pub token_buckets: Vec<f64>,
    /// Upper bounds of the size histograms, in bytes.
    pub size_buckets: Vec<f64>,
    /// Metrics of your own.
    pub metrics: Vec<CustomMetric>,
}

impl Default for Config {
    /// The histograms' bounds are those that OpenTelemetry recommends for generative AI.
    fn default() -> Self {
        let powers =
            |first: f64, factor: f64, count: i32| (0..count).map(|n| first * factor.powi(n)).collect();
        Self {
            prefix: "magicapi_llm_".to_owned(),
            models: Vec::new(),
            max_models: 100,
            providers: Vec::new(),
            max_providers: 50,
            max_label_values: 50,
            max_series: 2000,
            record_tags: RecordTags::default(),
            exemplars: true,
            duration_buckets: powers(0.01, 2.0, 14),
            first_token_buckets: vec![
                0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
            ],
            token_buckets: powers(1.0, 4.0, 14),
            size_buckets: powers(256.0, 4.0, 9),
            metrics: Vec::new(),
        }
    }
}

impl Config {
    /// Adds what labels and metrics need to see of a record.
    #[must_use]
    pub fn needed(&self, need: ContentNeed) -> ContentNeed {
        let values = self.metrics.iter().flat_map(|metric| {
            let value = metric.value.iter().map(move |source| (metric, "it reads", source));
            value.chain(metric.labels.values().map(move |source| (metric, "a label shows", source)))
        });
        values.fold(self.record_tags.needed(need), |need, (metric, what, text)| match Source::parse(text) {
            Ok(source) => {
                need.requires(source.content(), format!("metrics: `{}`: {what} `{text}`", metric.name))
            }
            Err(_) => need,
        })
    }
}

/// A metric made from a field of the record or a place in a body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomMetric {
    /// Its name after the prefix, for instance `max_tokens`. A counter gets `_total` at its end.
    pub name: String,
    /// `counter` adds values up, `histogram` sorts them into buckets, `gauge` keeps the last one.
    pub kind: Kind,
    /// One sentence for readers of `/metrics`.
    pub help: String,
    /// What it reads: a field of the record (`output_tokens`), or a JSON pointer into a body
    /// (`request:/max_tokens`, `response:/usage/queue_time`). A boolean
    /// counts as 1 or 0, a list as its length; anything else is not observed. A counter without it counts requests.
    #[serde(default)]
    pub value: Option<String>,
    /// Factor for the value, for instance `0.001` from milliseconds to seconds.
    #[serde(default = "one")]
    pub scale: f64,
    /// Labels: a name and what it shows, written as in `value`.
    #[serde(default = "provider_and_model")]
    pub labels: BTreeMap<String, String>,
    /// Upper bounds of a histogram; those of durations unless set.
    #[serde(default)]
    pub buckets: Vec<f64>,
}

/// Kind of a custom metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Values add up.
    Counter,
    /// Values are sorted into buckets.
    Histogram,
    /// The last value counts.
    Gauge,
}

fn one() -> f64 {
    1.0
}

fn provider_and_model() -> BTreeMap<String, String> {
    ["provider", "model"].map(|name| (name.to_owned(), name.to_owned())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_conventions() {
        let config: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(config, Config::default());
        let ends = |bounds: &[f64]| (bounds.len(), bounds[0], bounds[bounds.len() - 1]);
        assert_eq!(ends(&config.duration_buckets), (14, 0.01, 81.92));
        assert_eq!(ends(&config.token_buckets), (14, 1.0, 67_108_864.0));
        assert_eq!(ends(&config.first_token_buckets), (16, 0.001, 10.0));
        assert_eq!(ends(&config.size_buckets), (9, 256.0, 16_777_216.0));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for settings in
            [r#"{"max_serie":1}"#, r#"{"metrics":[{"name":"a","kind":"counter","help":"b","bucket":[1]}]}"#]
        {
            assert!(
                serde_json::from_str::<Config>(settings).unwrap_err().to_string().contains("unknown field")
            );
        }
    }
}
