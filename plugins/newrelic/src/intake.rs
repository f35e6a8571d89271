//! Requests to New Relic, and what its answers mean.

use std::time::Duration;

use exporter_kit::{
    http::{Answer, Body, Class, Client, NoAnswer, classify},
    pulse::LastYes,
    settings::Secret,
};
use plugin_api::{ExportError, Host, InitError};

use crate::config::{Config, Urls};

/// Time for the check of the key; it must not delay the start.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to New Relic.
#[derive(Debug)]
pub struct Intake {
    client: Client,
    key: Secret,
    urls: Urls,
    gzip: bool,
    /// What the check of the key asks.
    probed: Kind,
    checked: LastYes,
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Log entries.
    Logs,
    /// Data points of metrics.
    Metrics,
}

impl Intake {
    /// A client with these settings.
    ///
    /// # Errors
    /// When a setting of the addresses or of TLS is wrong.
    pub fn new(host: &Host, config: &Config, key: Secret) -> Result<Self, InitError> {
        let client = Client::new(host, &config.tls, config.timeout.0)?.hiding([&key]);
        let urls = config.urls(&key)?;
        let probed = if config.logs { Kind::Logs } else { Kind::Metrics };
        Ok(Self { client, key, urls, gzip: config.gzip, probed, checked: LastYes::default() })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// What became of the records, or that nobody knows.
    pub async fn post(&self, kind: Kind, json: Vec<u8>) -> Result<(), NoAnswer> {
        let answer = self.send(kind, self.body(json), None).await?;
        check(&answer).map_err(|error| NoAnswer { error, may_have_arrived: false })?;
        self.checked.note();
        Ok(())
    }

    /// Whether New Relic is there and knows the key: a request without a record. A yes is remembered for five minutes.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), String> {
        if self.checked.holds() {
            return Ok(());
        }
        let sent = self.send(self.probed, Body::plain("[]"), Some(CHECK_TIMEOUT)).await;
        let answer = sent.map_err(|failure| failure.error.to_string())?;
        // An empty request may be refused; the key was not.
        if classify(answer.status()) != Class::Reject {
            check(&answer).map_err(|error| error.to_string())?;
        }
        self.checked.note();
        Ok(())
    }

    async fn send(&self, kind: Kind, body: Body, timeout: Option<Duration>) -> Result<Answer, NoAnswer> {
        let url = match kind {
            Kind::Logs => &self.urls.logs,
            Kind::Metrics => &self.urls.metrics,
        };
        let request = self.client.post(url.clone()).header("content-type", "application/json");
        let request = request
            .secret_header("api-key", &self.key)
            .map_err(|error| NoAnswer { error, may_have_arrived: false })?;
        let request = match timeout {
            Some(timeout) => request.timeout(timeout),
            None => request,
        };
        request.body(body).try_send().await
    }

    /// The limit is on the body as it is sent, and compression must not carry it over that.
    fn body(&self, json: Vec<u8>) -> Body {
        if self.gzip {
            let compressed = Body::gzip(&json);
            if compressed.len() < json.len() {
                return compressed;
            }
        }
        Body::plain(json)
    }
}

/// What an answer means for the records of its request: 202 delivered; 408, 429 and 5xx retry, and 404 and 405 too, which
/// speak of the address; 413 too large; 401 and 403 the key; other 4xx rejected.
fn check(answer: &Answer) -> Result<(), ExportError> {
    let class = classify(answer.status());
    let Err(error) = answer.check_as(class) else { return Ok(()) };
    if class == Class::Unauthorized {
        // A key of another region is as unknown as one that does not exist.
        let text =
            format!("{error}: license_key (NEW_RELIC_LICENSE_KEY) is not a license key of this region");
        return Err(ExportError::unauthorized(text));
    }
    Err(error)
}
