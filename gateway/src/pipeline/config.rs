//! `[[plugin]]`: one exporter, and what lies between the records and it.

use std::path::PathBuf;
use std::time::Duration;

pub use plugin_api::Content;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{
    ByteSize, HumanDuration, Mistake, Problem, SchemaProblem, Settings, places::Origin, pointer,
};

/// One exporter, and what lies between the records and it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Unique; the label of its metrics and log lines. Letters a-z, digits, "_" and "-".
    #[schemars(extend("x-in-example" = true), example = "my-exporter")]
    pub name: String,
    /// The plugin's file. A name without a folder is looked up in the plugin directory; when absent:
    /// `lib<name>_exporter.so` there.
    #[serde(default)]
    #[schemars(extend("default" = null), example = "libmy_exporter.so")]
    pub path: PathBuf,
    /// The file's SHA-256; another file is refused.
    #[serde(default)]
    #[schemars(
        regex(pattern = "^[0-9a-fA-F]{64}$"),
        example = &"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )]
    pub sha256: Option<String>,
    /// False takes the plugin out without deleting its settings.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether the gateway starts without it: false makes a failure to load a warning.
    #[serde(default = "yes")]
    pub required: bool,
    /// Batches in flight at once; more than 1 only where order does not matter and the plugin allows it.
    #[serde(default = "one_worker")]
    #[schemars(range(min = 1, max = 64))]
    pub workers: usize,
    /// What this exporter may see of requests and answers.
    #[serde(default)]
    pub content: Content,
    /// A file for records that were given up, one JSON object a line: rejected, out of retries, too large, or left at
    /// the end. `magicapi-gateway replay` sends them again.
    #[serde(default)]
    #[schemars(example = "dead/my-exporter.jsonl")]
    pub dead_letter: Option<PathBuf>,
    /// A dead-letter file that would grow beyond this is rotated.
    #[serde(default = "hundred_mebibytes")]
    #[schemars(extend("x-min" = "1 KiB"))]
    pub dead_letter_max_bytes: ByteSize,
    /// Rotated dead-letter files that are kept; older ones are deleted.
    #[serde(default = "five_files")]
    #[schemars(range(min = 1, max = 10_000))]
    pub dead_letter_keep: usize,
    /// After so many panics in a row the plugin is taken out of service.
    #[serde(default = "ten_panics")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_panics: u32,
    /// How long the plugin may take to start.
    #[serde(default = "half_a_minute", with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub create_timeout: Duration,
    /// How long one export call may take; a call that hangs longer is abandoned.
    #[serde(default = "half_a_minute", with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub call_timeout: Duration,
    /// Records that wait. The bound holds in records and in bytes.
    #[serde(default)]
    pub queue: Queue,
    /// Records sent together. Absent keys keep the plugin's own defaults; its backend's limits always hold.
    #[serde(default)]
    pub batch: Batch,
    /// How often and how long a failed delivery is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// When to stop calling an exporter that keeps failing.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
    /// How much may be sent; no limit unless set.
    #[serde(default)]
    pub rate_limit: RateLimit,
    /// The plugin's own settings, checked against the schema that it declares.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "url": "${MY_EXPORTER_URL:-http://localhost:8080}" }))]
    pub config: Settings,
    /// Where the entry stands.
    #[serde(skip)]
    pub(crate) origin: Origin,
}

/// Records that wait for an exporter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// The most records that wait or are in flight.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_records: usize,
    /// The most bytes of these records; one that is larger alone loses bodies, or is dropped (`oversize`).
    #[schemars(extend("x-min" = "1 KiB"))]
    pub max_bytes: ByteSize,
    /// What gives way when the queue is full.
    pub on_full: OnFull,
}

/// What gives way when a queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The oldest record.
    #[default]
    DropOldest,
    /// The record that comes in.
    DropNewest,
    /// When bytes are short, the bodies of the record that comes in; then the oldest record.
    Shed,
}

/// Records sent together. An absent key keeps the plugin's own default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// The most records in one batch.
    #[schemars(range(min = 1, max = 1_000_000), example = 500)]
    pub max_records: Option<usize>,
    /// The most bytes in one batch.
    #[schemars(extend("x-min" = "1 KiB"), example = ByteSize::mib(5))]
    pub max_bytes: Option<ByteSize>,
    /// How long a record may wait for others.
    #[serde(with = "optional_duration")]
    #[schemars(with = "Option<HumanDuration>", example = "1s")]
    pub max_delay: Option<Duration>,
}

/// How often and how long a failed delivery is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The wait before the first retry, about; each further one is twice as long.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub initial: Duration,
    /// The longest wait.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub max: Duration,
    /// A record whose first attempt is longer ago than this is given up at its next failure; "0s" is never. Pauses that
    /// the backend asks for do not count.
    #[serde(with = "HumanDuration")]
    pub max_elapsed: Duration,
    /// The longest pause that a backend may ask for (`Retry-After`). A pause by itself drops nothing.
    #[serde(with = "HumanDuration")]
    pub max_pause: Duration,
}

/// When to stop calling an exporter that keeps failing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Failed calls in a row that open the breaker: nothing is sent until a probe succeeds.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failures: u32,
    /// The wait before the first probe; each further one is twice as long.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub cool_down: Duration,
    /// The longest wait between probes.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub max_cool_down: Duration,
}

/// How much may be sent to an exporter; no limit unless set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// The most records a second.
    #[schemars(range(min = 0.001), example = 5000)]
    pub records_per_second: Option<f64>,
    /// The most batches a second.
    #[schemars(range(min = 0.001), example = 10)]
    pub requests_per_second: Option<f64>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max_records: 10_000, max_bytes: ByteSize::mib(64), on_full: OnFull::default() }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
            max_elapsed: Duration::from_secs(300),
            max_pause: Duration::from_secs(300),
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failures: 5, cool_down: Duration::from_secs(1), max_cool_down: Duration::from_secs(60) }
    }
}

impl Plugin {
    /// An entry with every default.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            sha256: None,
            enabled: yes(),
            required: yes(),
            workers: one_worker(),
            content: Content::default(),
            dead_letter: None,
            dead_letter_max_bytes: hundred_mebibytes(),
            dead_letter_keep: five_files(),
            max_panics: ten_panics(),
            create_timeout: half_a_minute(),
            call_timeout: half_a_minute(),
            queue: Queue::default(),
            batch: Batch::default(),
            retry: Retry::default(),
            circuit_breaker: CircuitBreaker::default(),
            rate_limit: RateLimit::default(),
            config: Settings::default(),
            origin: Origin::default(),
        }
    }

    /// A mistake in the plugin's settings, found against its schema, with file and line.
    pub fn settings_problem(&self, found: &SchemaProblem) -> Problem {
        let pointer = format!("/config{}", found.pointer);
        let mut problem = self.problem_at(&pointer, &found.message, &found.cure);
        // `workers = 2` below the line `[plugin.config]` belongs to the table of that name.
        let key = found.pointer.trim_start_matches('/');
        let is_own = || schemars::schema_for!(Self).pointer(&format!("/properties/{key}")).is_some();
        if found.kind == Mistake::UnknownKey && is_own() {
            problem.cure = format!("{key} is a key of [[plugin]] itself: put it above [plugin.config]");
        }
        problem
    }

    /// A mistake at a key of this entry (`path`, `sha256`; `""` for the entry as a whole), with file and line.
    pub fn problem(&self, key: &str, message: &str, cure: &str) -> Problem {
        let pointer = if key.is_empty() { String::new() } else { format!("/{}", key.replace('.', "/")) };
        self.problem_at(&pointer, message, cure)
    }

    fn problem_at(&self, pointer: &str, message: &str, cure: &str) -> Problem {
        Problem {
            file: self.origin.file.clone(),
            line: self.origin.places.line(pointer),
            column: None,
            key: plugin_key(&self.name, pointer),
            message: message.to_owned(),
            cure: cure.to_owned(),
        }
    }

    /// The rules no schema can say. `at` is the entry's place.
    pub(crate) fn check(&self, at: &str, problems: &mut Vec<SchemaProblem>) {
        let mut more_than = |is: bool, key: &str, what: String, cure: &str| {
            if is {
                problems.push(SchemaProblem::new(format!("{at}/{key}"), what, cure));
            }
        };
        let Self { queue, batch, retry, circuit_breaker: breaker, .. } = self;
        if let Some(records) = batch.max_records {
            let what = format!("{records} is more than queue.max_records, {}", queue.max_records);
            let cure = "such a batch could never be filled: lower it or raise the queue";
            more_than(records > queue.max_records, "batch/max_records", what, cure);
        }
        if let Some(bytes) = batch.max_bytes {
            let what = format!("{bytes} is more than queue.max_bytes, {}", queue.max_bytes);
            let cure = "such a batch could never be filled: lower it or raise the queue";
            more_than(bytes > queue.max_bytes, "batch/max_bytes", what, cure);
        }
        let what = "is longer than retry.max".to_owned();
        more_than(retry.initial > retry.max, "retry/initial", what, "lower it or raise retry.max");
        let what = "is longer than circuit_breaker.max_cool_down".to_owned();
        let cure = "lower it or raise circuit_breaker.max_cool_down";
        more_than(breaker.cool_down > breaker.max_cool_down, "circuit_breaker/cool_down", what, cure);
    }

    /// The file's name when the entry gives no path.
    pub(crate) fn default_file(name: &str) -> PathBuf {
        PathBuf::from(format!("lib{name}_exporter.so"))
    }
}

/// A key of the entry with this name, as problems show it.
pub(crate) fn plugin_key(name: &str, pointer: &str) -> String {
    let colon = if pointer.is_empty() { "" } else { ": " };
    format!("plugin \"{name}\"{colon}{}", pointer::dotted(pointer))
}

fn yes() -> bool {
    true
}

fn one_worker() -> usize {
    1
}

fn hundred_mebibytes() -> ByteSize {
    ByteSize::mib(100)
}

fn five_files() -> usize {
    5
}

fn ten_panics() -> u32 {
    10
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

mod optional_duration {
    use super::{Deserialize, Duration, HumanDuration, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(HumanDuration).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<HumanDuration>::deserialize(deserializer)?.map(|duration| duration.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(value: serde_json::Value) -> Plugin {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_name_is_enough() {
        assert_eq!(plugin(json!({ "name": "x", "path": "x.so" })), Plugin::new("x", "x.so"));
    }

    #[test]
    fn values_that_contradict_each_other_are_found() {
        for (value, expected) in [
            (json!({}), vec![]),
            (json!({ "batch": { "max_records": 10_001 } }), vec!["/p/batch/max_records"]),
            (
                json!({ "batch": { "max_records": 11 }, "queue": { "max_records": 10 } }),
                vec!["/p/batch/max_records"],
            ),
            (json!({ "batch": { "max_bytes": "65 MiB" } }), vec!["/p/batch/max_bytes"]),
            (json!({ "retry": { "initial": "1m" } }), vec!["/p/retry/initial"]),
            (json!({ "circuit_breaker": { "cool_down": "2m" } }), vec!["/p/circuit_breaker/cool_down"]),
        ] {
            let mut value = value;
            value["name"] = json!("x");
            let mut problems = Vec::new();
            plugin(value.clone()).check("/p", &mut problems);
            assert_eq!(problems.iter().map(|p| p.pointer.as_str()).collect::<Vec<_>>(), expected, "{value}");
        }
    }

    #[test]
    fn a_key_below_the_wrong_header_is_sent_home() {
        for (key, expected) in [
            (
                "workers",
                "config.workers: unknown key; workers is a key of [[plugin]] itself: put it above [plugin.config]",
            ),
            (
                "create_timeout",
                "config.create_timeout: unknown key; create_timeout is a key of [[plugin]] itself: \
                 put it above [plugin.config]",
            ),
            ("colour", "config.colour: unknown key; take it out"),
        ] {
            let unknown = SchemaProblem::new(format!("/{key}"), "unknown key", "take it out")
                .of_kind(Mistake::UnknownKey);
            let problem = Plugin::new("x", "x.so").settings_problem(&unknown);
            assert_eq!(problem.to_string(), format!("plugin \"x\": {expected}"));
        }
    }
}
