//! Requests to Datadog, and what its answers mean.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, SystemTime},
};

use exporter_kit::{
    http::{self, Answer, Body, Class, Client, NoAnswer, Url, classify},
    pulse::LastYes,
    settings::Secret,
};
use plugin_api::{ErrorKind, ExportError, Host, InitError};
use tracing::warn;

use crate::config::{Config, Urls};

/// Time for the check of the key; it must not delay the start.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to Datadog.
#[derive(Debug)]
pub struct Intake {
    client: Client,
    key: Secret,
    urls: Urls,
    validated: LastYes,
    /// How spans are sent; one of the values below.
    spans: AtomicU8,
}

/// Whether the endpoint of spans takes gzip: the page says nothing of it. The first request finds out.
const UNTRIED: u8 = 0;
/// It does.
const GZIP: u8 = 1;
/// It does not.
const PLAIN: u8 = 2;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Log entries.
    Logs,
    /// Points of distributions.
    Distributions,
    /// Spans of LLM Observability.
    Spans,
}

impl Intake {
    /// A client with these settings.
    ///
    /// # Errors
    /// When a setting of the addresses or of TLS is wrong.
    pub fn new(host: &Host, config: &Config, key: Secret) -> Result<Self, InitError> {
        let client = Client::new(host, &config.tls, config.timeout.0)?.hiding([&key]);
        let (urls, validated) = (config.urls()?, LastYes::default());
        Ok(Self { client, key, urls, validated, spans: AtomicU8::new(UNTRIED) })
    }

    /// Sends a request, compressed as its endpoint takes it: logs as gzip, distributions as zlib (the one encoding that
    /// is documented there), spans as gzip where that is taken.
    ///
    /// # Errors
    /// What became of the records, or that nobody knows.
    pub async fn post(&self, kind: Kind, body: Vec<u8>) -> Result<(), NoAnswer> {
        match kind {
            Kind::Logs => self.send(&self.urls.logs, Body::gzip(&body)).await,
            Kind::Distributions => self.send(&self.urls.distributions, Body::deflate(&body)).await,
            Kind::Spans => self.post_spans(body).await,
        }
    }

    /// Spans go plain from then on when gzip was refused and the same spans were taken plain. Once they were taken as
    /// gzip, a refusal is about the spans.
    async fn post_spans(&self, body: Vec<u8>) -> Result<(), NoAnswer> {
        let url = &self.urls.spans;
        let known = self.spans.load(Ordering::Relaxed);
        if known == PLAIN {
            return self.send(url, Body::plain(body)).await;
        }
        let sent = self.send(url, Body::gzip(&body)).await;
        match &sent {
            Ok(()) => self.spans.store(GZIP, Ordering::Relaxed),
            Err(refused) if known == UNTRIED && refused.error.kind() == ErrorKind::Reject => {
                self.send(url, Body::plain(body)).await?;
                warn!(reason = %refused.error, "Datadog takes no compressed spans; they go uncompressed");
                self.spans.store(PLAIN, Ordering::Relaxed);
                return Ok(());
            }
            Err(_) => {}
        }
        sent
    }

    async fn send(&self, url: &Url, body: Body) -> Result<(), NoAnswer> {
        let known = |error| NoAnswer { error, may_have_arrived: false };
        let request = self.client.post(url.clone()).header("content-type", "application/json");
        let request = request.secret_header("dd-api-key", &self.key).map_err(known)?;
        check(&request.body(body).try_send().await?).map_err(known)
    }

    /// Whether the key is valid. A yes is remembered for five minutes.
    ///
    /// # Errors
    /// Why it is not, or why nobody knows.
    pub async fn validate(&self) -> Result<(), String> {
        if self.validated.holds() {
            return Ok(());
        }
        let request = self.client.get(self.urls.validate.clone()).timeout(VALIDATION_TIMEOUT);
        let request = request.secret_header("dd-api-key", &self.key).map_err(|error| error.to_string())?;
        let answer = request.send().await.map_err(|error| error.to_string())?;
        check(&answer).map_err(|error| error.to_string())?;
        self.validated.note();
        Ok(())
    }
}

/// What an answer means for the records of its request: 202 delivered; 408, 429 and 5xx retry; 413 too large; 401 and
/// 403 the key; other 4xx rejected.
fn check(answer: &Answer) -> Result<(), ExportError> {
    let class = classify(answer.status());
    let Err(error) = answer.check_as(class) else { return Ok(()) };
    if class == Class::Unauthorized {
        // A key of another site is as unknown as one that does not exist.
        let text = format!("{error}: api_key (DD_API_KEY) is not a key of this site (DD_SITE)");
        return Err(ExportError::unauthorized(text));
    }
    let is_asked = error.kind() == ErrorKind::Retry && error.retry_after().is_none();
    let wait = answer.header("x-ratelimit-reset").filter(|_| is_asked).and_then(reset);
    Err(match wait {
        Some(wait) => error.after(wait),
        None => error,
    })
}

/// The wait that `X-RateLimit-Reset` asks for: seconds (<https://docs.datadoghq.com/api/latest/rate-limits/>).
fn reset(value: &str) -> Option<Duration> {
    value.trim().parse::<f64>().ok()?;
    http::retry_after(value, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_a_number_of_seconds() {
        for (value, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("-1", None),
            ("soon", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            assert_eq!(reset(value), expected.map(Duration::from_secs), "{value}");
        }
    }
}
