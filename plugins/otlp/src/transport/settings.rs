//! What is the operator's of a way: by signal, or for all of them.

use std::{path::Path, time::Duration};

use ::http::{HeaderName, HeaderValue};
use exporter_kit::http::{Url, join, url};
use plugin_api::InitError;

use crate::{
    answer::Answers,
    config::{Compression, Config, Pairs, Protocol, Signal},
};

/// The settings of one signal.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) endpoint: Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) compression: Compression,
    pub(super) timeout: Duration,
    pub(super) answers: Answers,
}

impl Settings {
    pub(super) fn new(config: &Config, signal: Signal) -> Result<Self, InitError> {
        let own = config.of(signal);
        let protocol = own.protocol.unwrap_or(config.protocol);
        Ok(Self {
            protocol,
            endpoint: endpoint(config, protocol, signal)?,
            headers: headers(config, signal)?,
            compression: own.compression.unwrap_or(config.compression),
            timeout: own.timeout.unwrap_or(config.timeout).0,
            answers: Answers { strict: config.strict_status },
        })
    }

    /// A text of the receiver's without the headers' values.
    pub(super) fn redacted(&self, text: String) -> String {
        let values = self.headers.iter().filter_map(|(_, value)| value.to_str().ok());
        values
            .filter(|value| !value.is_empty())
            .fold(text, |text, value| if text.contains(value) { text.replace(value, "***") } else { text })
    }
}

fn endpoint(config: &Config, protocol: Protocol, signal: Signal) -> Result<Url, InitError> {
    let is_http = protocol != Protocol::Grpc;
    if let Some(own) = config.of(signal).endpoint {
        return url(&format!("{}_endpoint", signal.name()), own);
    }
    let default = if is_http { "http://localhost:4318" } else { "http://localhost:4317" };
    let base = url("endpoint", config.endpoint().unwrap_or(default))?;
    Ok(if is_http { join(&base, &format!("v1/{}", signal.name())) } else { base })
}

/// Headers of a signal's own go in place of those of all: a key is for one receiver.
fn headers(config: &Config, signal: Signal) -> Result<Vec<(HeaderName, HeaderValue)>, InitError> {
    let own = config.of(signal).headers;
    let of_profile = config.profile().map_or(&[][..], |profile| profile.headers);
    let mut pairs = Pairs::default();
    pairs.0.extend(of_profile.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    if !own.0.is_empty() {
        pairs.0.extend(own.0.clone());
        return checked(&format!("{}_headers", signal.name()), pairs);
    }
    pairs.0.extend(config.headers.0.clone());
    if let Some(file) = &config.headers_file {
        pairs.0.extend(from_file(file)?.0);
    }
    checked("headers", pairs)
}

fn from_file(file: &Path) -> Result<Pairs, InitError> {
    let text = exporter_kit::settings::read_file(file).map_err(|error| {
        InitError::invalid_config(format!("headers_file: cannot read {}: {error}", file.display()))
    })?;
    Pairs::parse(&text)
        .map_err(|error| InitError::invalid_config(format!("headers_file: {}: {error}", file.display())))
}

fn checked(key: &str, pairs: Pairs) -> Result<Vec<(HeaderName, HeaderValue)>, InitError> {
    let header = |(name, value): (String, String)| {
        let bad = |what: &str| InitError::invalid_config(format!("{key}: `{name}` {what}"));
        let mut value =
            HeaderValue::try_from(value).map_err(|_| bad("has a value that no header may have"))?;
        if value.to_str().is_err() {
            return Err(bad("has a value that no header may have"));
        }
        value.set_sensitive(true);
        Ok((HeaderName::try_from(&name).map_err(|_| bad("is no name of a header"))?, value))
    };
    pairs.0.into_iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(settings: &Value) -> Config {
        serde_json::from_value(settings.clone()).unwrap()
    }

    fn all<T>(config: &Config, read: impl Fn(&Settings) -> T) -> [T; 3] {
        Signal::ALL.map(|signal| read(&Settings::new(config, signal).unwrap()))
    }

    fn shown(settings: &Settings) -> String {
        let pairs: Vec<_> = settings
            .headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn a_signal_goes_where_opentelemetry_says() {
        for (settings, expected) in [
            (
                json!({}),
                [
                    "http://localhost:4318/v1/logs",
                    "http://localhost:4318/v1/traces",
                    "http://localhost:4318/v1/metrics",
                ],
            ),
            (
                json!({ "endpoint": "https://h/otlp/", "traces_endpoint": "http://t:1/as/it/is/" }),
                ["https://h/otlp/v1/logs", "http://t:1/as/it/is/", "https://h/otlp/v1/metrics"],
            ),
            (
                json!({ "protocol": "grpc", "logs_endpoint": "https://logs:443" }),
                ["https://logs/", "http://localhost:4317/", "http://localhost:4317/"],
            ),
            (
                json!({ "protocol": "grpc", "metrics_protocol": "http/json" }),
                ["http://localhost:4317/", "http://localhost:4317/", "http://localhost:4318/v1/metrics"],
            ),
        ] {
            let found = all(&config(&settings), |settings| settings.endpoint.to_string());
            assert_eq!(found, expected);
        }
        let error = Settings::new(&config(&json!({ "metrics_endpoint": "localhost:4318" })), Signal::Metrics);
        assert!(error.unwrap_err().to_string().starts_with("metrics_endpoint: "));
    }

    #[test]
    fn what_is_set_for_a_signal_goes_before_what_is_set_for_all() {
        let config = config(&json!({
            "headers": "key=all", "timeout": 1000, "protocol": "grpc", "compression": "none",
            "traces_headers": "x=1,y=2", "logs_timeout": "2s", "metrics_protocol": "http/protobuf",
            "logs_compression": "zstd",
        }));
        assert_eq!(
            all(&config, shown),
            ["key=all", "x=1 y=2", "key=all"],
            "a key goes to one receiver alone"
        );
        assert_eq!(all(&config, |settings| settings.timeout.as_millis()), [2000, 1000, 1000]);
        let protocols = [Protocol::Grpc, Protocol::Grpc, Protocol::Http];
        assert_eq!(all(&config, |settings| settings.protocol), protocols);
        let compressions = [Compression::Zstd, Compression::None, Compression::None];
        assert_eq!(all(&config, |settings| settings.compression), compressions);
    }

    #[test]
    fn headers_come_from_both_places_and_wrong_ones_are_named_without_their_value() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "api-key=from%20file\nX-Other=1\n").unwrap();
        let both =
            config(&json!({ "headers": { "api-key": "inline", "y": "2" }, "headers_file": file.path() }));
        let found = Settings::new(&both, Signal::Logs).unwrap();
        assert_eq!(shown(&found), "x-other=1 api-key=from file y=2");
        let langfuse = config(&json!({ "profile": "langfuse", "headers": "authorization=x" }));
        let found = Settings::new(&langfuse, Signal::Traces).unwrap();
        assert_eq!(shown(&found), "authorization=x x-langfuse-ingestion-version=4");
        for (settings, expected) in [
            (json!({ "headers": { "a b": "hunter2" } }), "headers: `a b` is no name of a header"),
            (json!({ "headers": { "a": "hunter2\n" } }), "headers: `a` has a value that no header may have"),
            (json!({ "logs_headers": { "a": "hunter2é" } }), "logs_headers: `a` has a value that no header"),
            (json!({ "headers_file": "/no/such/file" }), "headers_file: cannot read /no/such/file: "),
        ] {
            let error = Settings::new(&config(&settings), Signal::Logs).unwrap_err().to_string();
            assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
