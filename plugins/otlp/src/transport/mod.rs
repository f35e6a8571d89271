//! How requests reach the receiver.

mod body;
mod grpc;
mod http;
mod proxied;
mod settings;

use std::time::Duration;

use plugin_api::{ExportError, Host, InitError};

use self::{grpc::Grpc, http::Http, settings::Settings};
use crate::{
    answer::{Failure, Meaning, Taken},
    config::{Config, Protocol, Signal},
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

/// A way to the receiver for each signal.
#[derive(Debug)]
pub struct Transport {
    ways: [Way; 3],
}

#[derive(Debug)]
struct Way {
    client: Client,
    settings: Settings,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are three for each exporter")]
enum Client {
    Http(Http),
    Grpc(Grpc),
}

impl Transport {
    /// As the settings say. Signals of one protocol share its connections.
    ///
    /// # Errors
    /// When a setting is wrong; the error names it.
    pub fn new(host: &Host, config: &Config) -> Result<Self, InitError> {
        let tls = (&config.tls).into();
        let (mut http, mut grpc) = (None, None);
        let mut way = |signal| {
            let settings = Settings::new(config, signal)?;
            let client = match settings.protocol {
                Protocol::Grpc => Client::Grpc(made(&mut grpc, || Grpc::new(host, &tls))?),
                Protocol::Http | Protocol::HttpJson => {
                    Client::Http(made(&mut http, || Http::new(host, &tls))?)
                }
            };
            Ok::<_, InitError>(Way { client, settings })
        };
        Ok(Self { ways: [way(Signal::Logs)?, way(Signal::Traces)?, way(Signal::Metrics)?] })
    }

    /// Sends a request, and gives up on it after `timeout`, unless the settings say a shorter one.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn send(&self, signal: Signal, request: Vec<u8>, timeout: Duration) -> Result<Taken, Refused> {
        let Way { client, settings } = &self.ways[signal as usize];
        let timeout = timeout.min(settings.timeout);
        match client {
            Client::Http(http) => http.send(settings, signal, request, timeout).await,
            Client::Grpc(grpc) => grpc.send(settings, signal, request, timeout).await,
        }
    }

    /// Where a signal goes, as it may be shown.
    #[must_use]
    pub fn target(&self, signal: Signal) -> String {
        exporter_kit::http::shown(&self.ways[signal as usize].settings.endpoint)
    }
}

/// The client, made when it is first needed.
fn made<T: Clone>(
    client: &mut Option<T>,
    make: impl FnOnce() -> Result<T, InitError>,
) -> Result<T, InitError> {
    match client {
        Some(made) => Ok(made.clone()),
        None => Ok(client.insert(make()?).clone()),
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
