//! The settings: `[plugin.config]`, and the variables that OpenTelemetry's exporters are set by everywhere.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, time::Duration};

use exporter_kit::{
    settings::{ByteSize, HumanDuration},
    tls,
};
use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    names,
    profiles::{self, Profile},
};

/// Settings of the OTLP exporter. All of them have defaults: a Collector on this machine needs none.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is sent: any of `"logs"`, `"traces"` and `"metrics"`. A record is delivered when the receiver has taken its log
    /// and its span. A signal that the receiver does not know (404 or 405) is switched off when it knows another.
    /// Without it: all three, or those that `profile` names.
    #[schemars(extend("x-env" = "OTLP_EXPORTER_SIGNALS"), length(min = 1))]
    pub signals: Option<Vec<Signal>>,
    /// A backend that wants something of its own: its address, its signals, attributes under its names, and a check that its
    /// key is there.
    #[schemars(extend("x-env" = "OTLP_EXPORTER_PROFILE"))]
    pub profile: Option<profiles::Name>,
    /// How it is sent: `"http/protobuf"`, `"http/json"` or `"grpc"`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_PROTOCOL"))]
    pub protocol: Protocol,
    /// The receiver, for instance `"https://otlp.example.com:4318"`. With HTTP, `/v1/logs`, `/v1/traces` and
    /// `/v1/metrics` are put behind it. Without it: `http://localhost:4318`, with gRPC `http://localhost:4317`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_ENDPOINT"))]
    pub endpoint: Option<String>,
    /// The receiver of logs alone, with HTTP the whole URL: it goes before `endpoint` and is used as it is.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"))]
    pub logs_endpoint: Option<String>,
    /// The receiver of spans alone, as `logs_endpoint`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))]
    pub traces_endpoint: Option<String>,
    /// The receiver of metrics alone, as `logs_endpoint`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))]
    pub metrics_endpoint: Option<String>,
    /// Headers of every request, such as an API key: a table, or one text as in the variable, `name=value,name=value`
    /// with percent escapes. Values are kept secret.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_HEADERS", "x-secret" = true))]
    pub headers: Pairs,
    /// A file with such headers, in the form of the variable; a line break separates as a comma does. Its headers go
    /// before those of `headers`.
    pub headers_file: Option<PathBuf>,
    /// Headers of requests with logs, in place of all of `headers` and `headers_file`: a key is for one receiver.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-secret" = true))]
    pub logs_headers: Pairs,
    /// How logs are sent, where it differs from `protocol`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"))]
    pub logs_protocol: Option<Protocol>,
    /// How logs are compressed, where it differs from `compression`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION"))]
    pub logs_compression: Option<Compression>,
    /// Longest time for a request with logs, where it differs from `timeout`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"))]
    pub logs_timeout: Option<Timeout>,
    /// Headers of requests with spans, in place of all of `headers` and `headers_file`: a key is for one receiver.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-secret" = true))]
    pub traces_headers: Pairs,
    /// How spans are sent, where it differs from `protocol`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"))]
    pub traces_protocol: Option<Protocol>,
    /// How spans are compressed, where it differs from `compression`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"))]
    pub traces_compression: Option<Compression>,
    /// Longest time for a request with spans, where it differs from `timeout`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"))]
    pub traces_timeout: Option<Timeout>,
    /// Headers of requests with metrics, in place of all of `headers` and `headers_file`: a key is for one receiver.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-secret" = true))]
    pub metrics_headers: Pairs,
    /// How metrics are sent, where it differs from `protocol`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"))]
    pub metrics_protocol: Option<Protocol>,
    /// How metrics are compressed, where it differs from `compression`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION"))]
    pub metrics_compression: Option<Compression>,
    /// Longest time for a request with metrics, where it differs from `timeout`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"))]
    pub metrics_timeout: Option<Timeout>,
    /// `"gzip"`, `"zstd"` or `"none"`. Every receiver takes gzip.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_COMPRESSION"))]
    pub compression: Compression,
    /// Longest time for one request, connecting included: a duration such as `"10s"`, or a bare number of milliseconds
    /// as in the variable.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_TIMEOUT"))]
    pub timeout: Timeout,
    /// TLS, for an endpoint that begins with `https://`.
    pub tls: Tls,
    /// Largest request before compression. Receivers take 4 MiB unless configured otherwise. A record whose log alone
    /// is larger loses its bodies. At least 64 KiB.
    #[schemars(extend("x-env" = "OTLP_EXPORTER_MAX_REQUEST_SIZE", "x-min" = "64 KiB", "x-max" = "1 GiB"))]
    pub max_request_size: ByteSize,
    /// True takes failures by the letter of OTLP: 500, 408 and RESOURCE_EXHAUSTED without `RetryInfo` are for good. By
    /// default they are tried again.
    pub strict_status: bool,
    /// `service.name` of the resource. Without it: the gateway's `telemetry.service_name`.
    #[schemars(extend("x-env" = "OTEL_SERVICE_NAME"))]
    pub service_name: Option<String>,
    /// More attributes of the resource: a table, or `name=value,name=value` with percent escapes. They go before the
    /// gateway's own.
    #[schemars(extend("x-env" = "OTEL_RESOURCE_ATTRIBUTES"))]
    pub resource_attributes: Pairs,
    /// Names of attributes and metrics: `"1.41"` is the last release of the semantic conventions with GenAI,
    /// `"development"` what its authors work on. Without it: `"1.41"`, or `"development"` where the list in
    /// `stability_opt_in` names `gen_ai_latest_experimental`.
    pub conventions: Option<Conventions>,
    /// A list of opt-ins, separated by commas, as OpenTelemetry's variable has it.
    #[schemars(extend("x-env" = "OTEL_SEMCONV_STABILITY_OPT_IN"))]
    pub stability_opt_in: String,
    /// Body of a log record: `"json"` is the whole record with both bodies in the gateway's log form, as one JSON text;
    /// `"none"` leaves only the attributes.
    pub body: LogBody,
    /// Whether spans carry the conversation (`gen_ai.input.messages`, `gen_ai.output.messages`,
    /// `gen_ai.system_instructions`). Prompts in traces are seen by whoever sees traces.
    #[schemars(extend("x-env" = "OTLP_EXPORTER_CAPTURE_CONTENT"))]
    pub capture_content: bool,
    /// Spans of traces that the caller does not sample (`traceparent` ends in `00`): `"export"` sends them, `"skip"` does not.
    /// Their logs and metrics are sent.
    pub unsampled: Unsampled,
    /// `"cumulative"`: a metric counts from the exporter's start; `"delta"`: from the request before.
    // The variable's values are written in any case.
    #[schemars(with = "String", extend("x-env" = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"))]
    pub temporality: Temporality,
    /// Most series of all metrics together, 1 to 1000000. What has no place is counted in one series of its metric,
    /// marked `otel.metric.overflow`.
    #[schemars(extend("x-env" = "OTLP_EXPORTER_MAX_SERIES"), range(min = 1, max = 1_000_000))]
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            signals: None,
            profile: None,
            protocol: Protocol::Http,
            endpoint: None,
            logs_endpoint: None,
            traces_endpoint: None,
            metrics_endpoint: None,
            headers: Pairs::default(),
            headers_file: None,
            logs_headers: Pairs::default(),
            logs_protocol: None,
            logs_compression: None,
            logs_timeout: None,
            traces_headers: Pairs::default(),
            traces_protocol: None,
            traces_compression: None,
            traces_timeout: None,
            metrics_headers: Pairs::default(),
            metrics_protocol: None,
            metrics_compression: None,
            metrics_timeout: None,
            compression: Compression::Gzip,
            timeout: Timeout(Duration::from_secs(10)),
            tls: Tls::default(),
            max_request_size: ByteSize::kib(3500),
            strict_status: false,
            service_name: None,
            resource_attributes: Pairs::default(),
            conventions: None,
            stability_opt_in: String::new(),
            body: LogBody::Json,
            capture_content: false,
            unsampled: Unsampled::Export,
            temporality: Temporality::Cumulative,
            max_series: 2000,
        }
    }
}

/// What is set for one signal alone.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Where it goes.
    pub endpoint: Option<&'a str>,
    /// Its headers; empty where those of all signals are its own.
    pub headers: &'a Pairs,
    /// How it is sent.
    pub protocol: Option<Protocol>,
    /// How it is compressed.
    pub compression: Option<Compression>,
    /// Longest time for a request.
    pub timeout: Option<Timeout>,
}

impl Config {
    /// What is set for this signal alone.
    #[must_use]
    pub fn of(&self, signal: Signal) -> Own<'_> {
        let (endpoint, headers, protocol, compression, timeout) = match signal {
            Signal::Logs => (
                &self.logs_endpoint,
                &self.logs_headers,
                self.logs_protocol,
                self.logs_compression,
                self.logs_timeout,
            ),
            Signal::Traces => (
                &self.traces_endpoint,
                &self.traces_headers,
                self.traces_protocol,
                self.traces_compression,
                self.traces_timeout,
            ),
            Signal::Metrics => (
                &self.metrics_endpoint,
                &self.metrics_headers,
                self.metrics_protocol,
                self.metrics_compression,
                self.metrics_timeout,
            ),
        };
        Own { endpoint: endpoint.as_deref(), headers, protocol, compression, timeout }
    }

    /// What the backend wants, where it has a profile.
    #[must_use]
    pub fn profile(&self) -> Option<&'static Profile> {
        self.profile.and_then(profiles::profile)
    }

    /// The signals that are wanted, each once, in order.
    #[must_use]
    pub fn signals(&self) -> Vec<Signal> {
        let of_profile = || self.profile().map_or(&Signal::ALL[..], |profile| profile.signals).to_vec();
        let mut signals = self.signals.clone().unwrap_or_else(of_profile);
        signals.sort_unstable();
        signals.dedup();
        signals
    }

    /// The receiver of all signals.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref().or_else(|| Some(self.profile()?.endpoint))
    }

    /// The name table.
    #[must_use]
    pub fn names(&self) -> names::Names {
        let extra = self.profile().map_or(&[][..], |profile| profile.attributes);
        names::Names { conventions: self.conventions(), extra }
    }

    /// The version of the conventions.
    #[must_use]
    pub fn conventions(&self) -> &'static names::Conventions {
        let opts_in =
            self.stability_opt_in.split(',').any(|name| name.trim() == "gen_ai_latest_experimental");
        match (self.conventions, opts_in) {
            (Some(Conventions::Development), _) | (None, true) => names::DEVELOPMENT,
            (Some(Conventions::Core141), _) | (None, false) => names::CORE_1_41,
        }
    }
}

/// A version of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Conventions {
    /// Core semantic conventions 1.41.
    #[serde(rename = "1.41")]
    Core141,
    /// The conventions in development.
    #[serde(rename = "development")]
    Development,
}

/// A kind of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Log records.
    Logs,
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Protobuf over HTTP/1.1.
    #[serde(rename = "http/protobuf")]
    Http,
    /// JSON over HTTP/1.1, for receivers that take nothing else: it costs more to write, to send and to read.
    #[serde(rename = "http/json")]
    HttpJson,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
    /// Not at all.
    None,
}

/// Body of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogBody {
    /// The record's log form.
    Json,
    /// Nothing.
    None,
}

/// What becomes of spans whose trace is not sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unsampled {
    /// They are sent.
    Export,
    /// They are not.
    Skip,
}

/// What a metric's numbers count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Temporality {
    /// The exporter's start.
    Cumulative,
    /// The request before.
    Delta,
}

impl TryFrom<String> for Temporality {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "cumulative" => Ok(Self::Cumulative),
            // In an SDK, `lowmemory` makes counters and histograms deltas, and there is nothing else here.
            "delta" | "lowmemory" => Ok(Self::Delta),
            _ => Err(format!("`{text}` is no temporality: write \"cumulative\" or \"delta\"")),
        }
    }
}

/// TLS settings with OpenTelemetry's variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with certificates of a private CA, trusted beside the system's.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_CERTIFICATE"))]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with this side's certificate and its chain, for receivers that ask for one.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"))]
    pub client_cert_file: Option<PathBuf>,
    /// A PEM file with the private key of `client_cert_file`.
    #[schemars(extend("x-env" = "OTEL_EXPORTER_OTLP_CLIENT_KEY"))]
    pub client_key_file: Option<PathBuf>,
    /// True accepts any certificate: whoever is between gateway and receiver can read everything. For tests only.
    pub insecure_skip_verify: bool,
}

impl From<&Tls> for tls::Tls {
    fn from(tls: &Tls) -> Self {
        Self {
            ca_file: tls.ca_file.clone(),
            client_cert_file: tls.client_cert_file.clone(),
            client_key_file: tls.client_key_file.clone(),
            insecure_skip_verify: tls.insecure_skip_verify,
        }
    }
}

/// Names and values: a table, or a text such as `name=value,name=value` whose values have percent escapes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs(pub BTreeMap<String, String>);

impl Pairs {
    /// Reads the text form. Line breaks separate too.
    ///
    /// # Errors
    /// When an entry has no `=` or no name, or an escape is none of UTF-8. The text is not repeated: it may be secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .enumerate()
            .map(|(index, entry)| {
                let bad = |why: &str| format!("entry {}: {why}; write name=value,name=value", index + 1);
                let (name, value) = entry.split_once('=').ok_or_else(|| bad("no `=` in it"))?;
                let decode = |text: &str| {
                    let decoded = percent_decode_str(text.trim()).decode_utf8();
                    decoded.map(Cow::into_owned).map_err(|_| bad("its percent escapes are no UTF-8"))
                };
                let name = decode(name)?;
                if name.is_empty() { Err(bad("no name before the `=`")) } else { Ok((name, decode(value)?)) }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl std::fmt::Debug for Pairs {
    /// Without the values: headers are secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Table(BTreeMap<String, String>),
            Text(String),
        }
        match Form::deserialize(deserializer).map_err(|_| D::Error::custom("expected a table or a text"))? {
            Form::Table(pairs) => Ok(Self(pairs)),
            Form::Text(text) => Self::parse(&text).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Pairs {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Pairs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["object", "string"], "additionalProperties": { "type": "string" } })
    }
}

/// A duration with its unit, or a bare number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(pub Duration);

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Milliseconds(u64),
            Text(String),
        }
        let bad = || {
            D::Error::custom(
                "expected a duration such as \"10s\" or a number of milliseconds, from 1ms to 1h",
            )
        };
        let duration = match Form::deserialize(deserializer).map_err(|_| bad())? {
            Form::Milliseconds(milliseconds) => Duration::from_millis(milliseconds),
            Form::Text(text) => match text.trim().parse() {
                Ok(milliseconds) => Duration::from_millis(milliseconds),
                Err(_) => text.parse().map(|HumanDuration(duration)| duration).map_err(|_| bad())?,
            },
        };
        let is_sound = duration >= Duration::from_millis(1) && duration <= Duration::from_secs(3600);
        if is_sound { Ok(Self(duration)) } else { Err(bad()) }
    }
}

impl JsonSchema for Timeout {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timeout".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "default": "10s" })
    }
}

// The default of a field in the schema is written with these.
impl Serialize for Timeout {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&HumanDuration(self.0))
    }
}

impl Serialize for Pairs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(settings: &Value) -> Result<Config, String> {
        serde_json::from_value(settings.clone()).map_err(|error| error.to_string())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        Pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_is_required() {
        let config = read(&json!({})).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.signals(), Signal::ALL);
        assert!(config.max_request_size.bytes() < 3_670_016, "below 3.5 MiB");
    }

    #[test]
    fn what_the_variables_hold_is_read() {
        let config = read(&json!({
            "protocol": "grpc", "headers": "api-key=a%20b%3D,x = y=z,", "timeout": "2500", "compression": "none",
            "resource_attributes": "team=llm,region=eu%2Cwest", "temporality": "DELTA",
        }))
        .unwrap();
        assert_eq!(config.headers, pairs(&[("api-key", "a b="), ("x", "y=z")]));
        assert_eq!(config.resource_attributes, pairs(&[("team", "llm"), ("region", "eu,west")]));
        assert_eq!(config.timeout, Timeout(Duration::from_millis(2500)));
        assert_eq!((config.protocol, config.temporality), (Protocol::Grpc, Temporality::Delta));
    }

    #[test]
    fn the_names_are_the_released_ones_unless_somebody_opts_in() {
        for (settings, expected) in [
            (json!({}), "1.41"),
            (json!({ "stability_opt_in": "http, gen_ai_latest_experimental" }), "development"),
            (json!({ "stability_opt_in": "http/dup" }), "1.41"),
            (json!({ "conventions": "development" }), "development"),
            (json!({ "conventions": "1.41", "stability_opt_in": "gen_ai_latest_experimental" }), "1.41"),
        ] {
            assert_eq!(read(&settings).unwrap().conventions().version, expected, "{settings}");
        }
    }

    #[test]
    fn a_table_is_taken_as_it_is_written() {
        let config = read(&json!({ "headers": { "a": "100%20,=" }, "timeout": 1500 })).unwrap();
        assert_eq!(config.headers, pairs(&[("a", "100%20,=")]));
        assert_eq!(config.timeout, Timeout(Duration::from_millis(1500)));
        assert_eq!(read(&json!({ "timeout": "1m" })).unwrap().timeout, Timeout(Duration::from_secs(60)));
    }

    #[test]
    fn a_wrong_value_is_refused_and_no_header_is_shown() {
        for (settings, expected) in [
            (json!({ "signals": ["spans"] }), "unknown variant `spans`"),
            (json!({ "protocol": "http/xml" }), "unknown variant `http/xml`"),
            (json!({ "traces_headers": "hunter2" }), "entry 1: no `=` in it"),
            (json!({ "headers": "hunter2" }), "entry 1: no `=` in it; write name=value,name=value"),
            (json!({ "headers": "a=hunter2,=hunter2" }), "entry 2: no name before the `=`"),
            (json!({ "headers": "a=hunter2%ff" }), "entry 1: its percent escapes are no UTF-8"),
            (json!({ "headers": ["hunter2"] }), "expected a table or a text"),
            (json!({ "timeout": "soon" }), "expected a duration such as \"10s\""),
            (json!({ "timeout": 0 }), "from 1ms to 1h"),
            (json!({ "temporality": "gauge" }), "`gauge` is no temporality"),
            (json!({ "endpoints": "x" }), "unknown field `endpoints`"),
        ] {
            let error = read(&settings).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{settings}: {error}");
        }
        let shown = format!("{:?}", read(&json!({ "headers": "key=hunter2" })).unwrap());
        assert!(shown.contains("key") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_schema_names_the_variables_and_hides_the_headers() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        for (at, expected) in [
            ("/properties/endpoint/x-env", json!("OTEL_EXPORTER_OTLP_ENDPOINT")),
            ("/properties/headers/x-env", json!("OTEL_EXPORTER_OTLP_HEADERS")),
            ("/properties/headers/x-secret", json!(true)),
            ("/properties/timeout/type", json!(["string", "integer"])),
            ("/properties/temporality/default", json!("cumulative")),
            ("/properties/max_request_size/default", json!("3500 KiB")),
            ("/$defs/Tls/properties/ca_file/x-env", json!("OTEL_EXPORTER_OTLP_CERTIFICATE")),
        ] {
            assert_eq!(schema.pointer(at), Some(&expected), "{at}: {schema:#}");
        }
    }
}
