//! How requests reach the receiver.

mod grpc;
mod http;

use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use exporter_kit::{http::Url, settings::Secret};
use plugin_api::{ExportError, Host, InitError};

use crate::{
    answer::{Answers, Failure, Meaning, Taken},
    config::{Compression, Config, Pairs, Protocol, Signal},
};

/// A request that was not taken.
#[derive(Debug)]
pub struct Refused {
    /// Why, and what becomes of its records.
    pub error: ExportError,
    /// Whether there is nothing at the address that knows the signal.
    pub is_absent: bool,
}

impl From<ExportError> for Refused {
    fn from(error: ExportError) -> Self {
        Self { error, is_absent: false }
    }
}

/// A way to the receiver.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each exporter")]
pub enum Transport {
    /// Protobuf over HTTP.
    Http(http::Http),
    /// gRPC.
    Grpc(grpc::Grpc),
}

impl Transport {
    /// As the settings say.
    ///
    /// # Errors
    /// When a setting is wrong; the error names it.
    pub fn new(host: &Host, config: &Config) -> Result<Self, InitError> {
        let settings = Settings {
            endpoints: endpoints(config)?,
            headers: headers(config)?,
            gzip: config.compression == Compression::Gzip,
            timeout: config.timeout.0,
            answers: Answers { strict: config.strict_status },
        };
        let tls = (&config.tls).into();
        Ok(match config.protocol {
            Protocol::Http => Self::Http(http::Http::new(host, &tls, settings)?),
            Protocol::Grpc => Self::Grpc(grpc::Grpc::new(host, &tls, settings)?),
        })
    }

    /// Sends a request, and gives up on it after `timeout`, unless the settings say a shorter one.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn send(&self, signal: Signal, request: Vec<u8>, timeout: Duration) -> Result<Taken, Refused> {
        match self {
            Self::Http(http) => http.send(signal, request, timeout).await,
            Self::Grpc(grpc) => grpc.send(signal, request, timeout).await,
        }
    }

    /// Where a signal goes, as it may be shown.
    #[must_use]
    pub fn target(&self, signal: Signal) -> String {
        let settings = match self {
            Self::Http(http) => http.settings(),
            Self::Grpc(grpc) => grpc.settings(),
        };
        exporter_kit::http::shown(settings.endpoint(signal))
    }
}

/// What both transports need.
#[derive(Debug)]
pub struct Settings {
    /// By signal.
    endpoints: [Url; 3],
    headers: Vec<(HeaderName, HeaderValue)>,
    gzip: bool,
    timeout: Duration,
    answers: Answers,
}

impl Settings {
    fn endpoint(&self, signal: Signal) -> &Url {
        &self.endpoints[signal as usize]
    }

    /// A text of the receiver's without the headers' values.
    fn redacted(&self, text: String) -> String {
        let values = self.headers.iter().filter_map(|(_, value)| value.to_str().ok());
        values
            .filter(|value| !value.is_empty())
            .fold(text, |text, value| if text.contains(value) { text.replace(value, "***") } else { text })
    }

    fn secrets(&self) -> Vec<Secret> {
        self.headers.iter().filter_map(|(_, value)| value.to_str().ok()).map(Secret::new).collect()
    }
}

/// The error of a request that was answered with a failure.
fn refused(meaning: Meaning, sentence: String, failure: &Failure) -> Refused {
    let error = match meaning {
        Meaning::Unauthorized => ExportError::unauthorized(format!("{sentence} (are the headers right?)")),
        Meaning::TooLarge => ExportError::too_large(sentence),
        Meaning::Reject => ExportError::reject(sentence),
        Meaning::Absent | Meaning::Retry => ExportError::retry(sentence),
    };
    let error = match failure.retry_after {
        Some(delay) => error.after(delay),
        None => error,
    };
    Refused { error, is_absent: meaning == Meaning::Absent }
}

fn endpoints(config: &Config) -> Result<[Url; 3], InitError> {
    let is_http = config.protocol == Protocol::Http;
    let default = if is_http { "http://localhost:4318" } else { "http://localhost:4317" };
    let base = exporter_kit::http::url("endpoint", config.endpoint.as_deref().unwrap_or(default))?;
    let endpoint = |signal: Signal| {
        let own = match signal {
            Signal::Logs => &config.logs_endpoint,
            Signal::Traces => &config.traces_endpoint,
            Signal::Metrics => &config.metrics_endpoint,
        };
        match own {
            Some(text) => exporter_kit::http::url(&format!("{}_endpoint", signal.name()), text),
            None if is_http => Ok(exporter_kit::http::join(&base, &format!("v1/{}", signal.name()))),
            None => Ok(base.clone()),
        }
    };
    Ok([endpoint(Signal::Logs)?, endpoint(Signal::Traces)?, endpoint(Signal::Metrics)?])
}

fn headers(config: &Config) -> Result<Vec<(HeaderName, HeaderValue)>, InitError> {
    let mut pairs = config.headers.0.clone();
    if let Some(file) = &config.headers_file {
        let text = exporter_kit::settings::read_file(file).map_err(|error| {
            InitError::invalid_config(format!("headers_file: cannot read {}: {error}", file.display()))
        })?;
        let more = Pairs::parse(&text).map_err(|error| {
            InitError::invalid_config(format!("headers_file: {}: {error}", file.display()))
        })?;
        pairs.extend(more.0);
    }
    let header = |(name, value): (String, String)| {
        let bad = |what: &str| InitError::invalid_config(format!("headers: `{name}` {what}"));
        let mut value =
            HeaderValue::try_from(value).map_err(|_| bad("has a value that no header may have"))?;
        if value.to_str().is_err() {
            return Err(bad("has a value that no header may have"));
        }
        value.set_sensitive(true);
        Ok((HeaderName::try_from(&name).map_err(|_| bad("is no name of a header"))?, value))
    };
    pairs.into_iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: serde_json::Value) -> Config {
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn a_signal_goes_where_opentelemetry_says() {
        for (settings, expected) in [
            (
                serde_json::json!({}),
                [
                    "http://localhost:4318/v1/logs",
                    "http://localhost:4318/v1/traces",
                    "http://localhost:4318/v1/metrics",
                ],
            ),
            (
                serde_json::json!({ "endpoint": "https://h/otlp/", "traces_endpoint": "http://t:1/as/it/is/" }),
                ["https://h/otlp/v1/logs", "http://t:1/as/it/is/", "https://h/otlp/v1/metrics"],
            ),
            (
                serde_json::json!({ "protocol": "grpc", "logs_endpoint": "https://logs:443" }),
                ["https://logs/", "http://localhost:4317/", "http://localhost:4317/"],
            ),
        ] {
            let found = endpoints(&config(settings)).unwrap().map(|url| url.to_string());
            assert_eq!(found, expected);
        }
        let error = endpoints(&config(serde_json::json!({ "metrics_endpoint": "localhost:4318" })));
        assert!(error.unwrap_err().to_string().starts_with("metrics_endpoint: "));
    }

    #[test]
    fn headers_come_from_both_places_and_wrong_ones_are_named_without_their_value() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "api-key=from%20file\nX-Other=1\n").unwrap();
        let both = config(
            serde_json::json!({ "headers": { "api-key": "inline", "y": "2" }, "headers_file": file.path() }),
        );
        let found = headers(&both).unwrap();
        let text: Vec<_> =
            found.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        assert_eq!(text, ["x-other=1", "api-key=from file", "y=2"]);
        for (settings, expected) in [
            (serde_json::json!({ "headers": { "a b": "hunter2" } }), "headers: `a b` is no name of a header"),
            (
                serde_json::json!({ "headers": { "a": "hunter2\n" } }),
                "headers: `a` has a value that no header may have",
            ),
            (
                serde_json::json!({ "headers": { "a": "hunter2é" } }),
                "headers: `a` has a value that no header may have",
            ),
            (
                serde_json::json!({ "headers_file": "/no/such/file" }),
                "headers_file: cannot read /no/such/file: ",
            ),
        ] {
            let error = headers(&config(settings)).unwrap_err().to_string();
            assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
        }
    }
}
