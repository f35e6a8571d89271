//! An HTTP client for backends: TLS as the operator set it, proxies from the standard variables (`HTTPS_PROXY`,
//! `NO_PROXY`), kept connections, gzip, and answers that turn into [`ExportError`]s.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use exporter_kit::{http::{Body, Client}, tls::Tls};
//! # async fn example(host: plugin_api::Host, body: Vec<u8>) -> Result<(), plugin_api::ExportError> {
//! # let key = exporter_kit::settings::Secret::new("");
//! let client = Client::new(&host, &Tls::default(), Duration::from_secs(10)).unwrap().hiding([&key]);
//! let url = exporter_kit::http::url("url", "https://intake.example.com/logs").unwrap();
//! let answer = client
//!     .post(url)
//!     .header("content-type", "application/json")
//!     .secret_header("api-key", &key)?
//!     .body(Body::gzip(&body))
//!     .send()
//!     .await?;
//! answer.check()?;
//! # Ok(()) }
//! ```

mod answer;
mod retry_after;

use std::{io::Write, time::Duration};

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use plugin_api::{ExportError, Host, InitError, causes};
use reqwest::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
pub use reqwest::{Method, StatusCode, Url, header};

pub use self::{
    answer::{Answer, Class, classify},
    retry_after::retry_after,
};
use crate::{
    settings::{Secret, can_be_hidden},
    tls::Tls,
};

/// A client for one backend. Clones share its connections.
///
/// Its connections live on the plugin's runtime: say [`Descriptor::background_tasks`](plugin_api::Descriptor), so
/// that one which the backend closes between two calls is noticed.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    secrets: Vec<Secret>,
}

/// So much is read of an answer. That of a bulk request with an error for each of 10,000 documents is smaller.
const LARGEST_ANSWER: usize = 16 << 20;

/// An idle connection is closed before the usual 60 s of load balancers are over.
const IDLE: Duration = Duration::from_secs(50);

impl Client {
    /// A client that gives up on a request after `timeout`, connecting included. Redirects are not followed: a
    /// backend that answers with one has another address, and a request with a key in it goes nowhere else.
    ///
    /// # Errors
    /// Those of [`Tls::client_config`].
    pub fn new(host: &Host, tls: &Tls, timeout: Duration) -> Result<Self, InitError> {
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.client_config()?)
            .user_agent(format!("magicapi-gateway/{}", host.gateway_version()))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| InitError::failed(causes(&error)))?;
        Ok(Self { inner, secrets: Vec::new() })
    }

    /// Takes these texts out of every answer that is quoted in an error, where they [can be](can_be_hidden).
    #[must_use]
    pub fn hiding<'a>(mut self, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        self.secrets.extend(secrets.into_iter().filter(|secret| can_be_hidden(secret.expose())).cloned());
        self
    }

    /// A `POST`.
    pub fn post(&self, url: Url) -> Request<'_> {
        self.request(Method::POST, url)
    }

    /// A `GET`.
    pub fn get(&self, url: Url) -> Request<'_> {
        self.request(Method::GET, url)
    }

    /// A request with any method.
    pub fn request(&self, method: Method, url: Url) -> Request<'_> {
        let target = format!("{method} {}", shown(&url));
        Request { client: self, builder: self.inner.request(method, url), target }
    }

    /// A text without the secrets.
    fn redact(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| text.replace(secret.expose(), "***"))
    }
}

/// A request to be sent once.
#[derive(Debug)]
#[must_use]
pub struct Request<'a> {
    client: &'a Client,
    builder: reqwest::RequestBuilder,
    target: String,
}

impl Request<'_> {
    /// Adds a header. A value that is none is an error of [`send`](Self::send).
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// Adds a header whose value is never shown.
    ///
    /// # Errors
    /// When the secret has characters that no header may have, a line break from a file for instance.
    pub fn secret_header(self, name: &'static str, secret: &Secret) -> Result<Self, ExportError> {
        self.prefixed_secret_header(name, "", secret)
    }

    /// The same with a scheme before the secret, such as `Bearer `.
    ///
    /// # Errors
    /// As [`secret_header`](Self::secret_header).
    pub fn prefixed_secret_header(
        mut self,
        name: &'static str,
        prefix: &str,
        secret: &Secret,
    ) -> Result<Self, ExportError> {
        let mut value = HeaderValue::try_from(format!("{prefix}{}", secret.expose())).map_err(|_| {
            ExportError::unauthorized(format!(
                "the value for header {name} holds a character that no header may have"
            ))
        })?;
        value.set_sensitive(true);
        self.builder = self.builder.header(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// Sets the body, and says how it is compressed.
    pub fn body(mut self, body: Body) -> Self {
        if let Some(encoding) = body.encoding {
            self.builder = self.builder.header(CONTENT_ENCODING, encoding);
        }
        self.builder = self.builder.body(body.bytes);
        self
    }

    /// Gives up after this time rather than the client's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.builder = self.builder.timeout(timeout);
        self
    }

    /// Sends it and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// A retry, when there is no answer: no connection, no TLS, no time left, an answer that breaks off, or one of more
    /// than 16 MiB.
    pub async fn send(self) -> Result<Answer, ExportError> {
        self.try_send().await.map_err(|failure| failure.error)
    }

    /// The same for a request that must not be sent twice: says whether the backend may have had it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn try_send(self) -> Result<Answer, NoAnswer> {
        let Self { client, builder, target } = self;
        let failed = |error: reqwest::Error| {
            let may_have_arrived = !error.is_connect() && !error.is_builder();
            let text = format!("{target}: {}", client.redact(causes(&error.without_url())));
            NoAnswer { error: ExportError::retry(text), may_have_arrived }
        };
        let mut answer = builder.send().await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                let text = format!("{target} answered {status} with more than {LARGEST_ANSWER} bytes");
                return Err(NoAnswer { error: ExportError::retry(text), may_have_arrived: true });
            }
            body.extend_from_slice(&chunk);
        }
        let body = Bytes::from(body);
        let excerpt = client.redact(answer::excerpt(&body));
        Ok(Answer { target, status, headers, body, excerpt })
    }
}

/// A request without an answer.
#[derive(Debug)]
pub struct NoAnswer {
    /// Why; a retry.
    pub error: ExportError,
    /// False when there was no connection to send it on. Otherwise the backend may have processed it.
    pub may_have_arrived: bool,
}

/// A request's body.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Bytes,
    encoding: Option<&'static str>,
}

impl Body {
    /// As it is.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), encoding: None }
    }

    /// Compressed with gzip, on the fastest level: JSON still shrinks to about a sixth.
    #[must_use]
    pub fn gzip(bytes: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
        // A `Vec` takes everything.
        let bytes = written.unwrap_or_default();
        Self { bytes: bytes.into(), encoding: Some("gzip") }
    }

    /// Compressed with zlib, which HTTP calls `deflate`, for a backend that does not take gzip.
    #[must_use]
    pub fn deflate(bytes: &[u8]) -> Self {
        let mut encoder = ZlibEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
        Self { bytes: written.unwrap_or_default().into(), encoding: Some("deflate") }
    }

    /// Plain or gzip, as the operator chose.
    #[must_use]
    pub fn new(bytes: Vec<u8>, gzip: bool) -> Self {
        if gzip { Self::gzip(&bytes) } else { Self::plain(bytes) }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The URL that stands in setting `key`: `http` or `https`, with a host, without query and fragment.
///
/// # Errors
/// When it is none; the error names the setting and does not repeat a password in the URL.
pub fn url(key: &str, text: &str) -> Result<Url, InitError> {
    let bad = |why: &str| InitError::invalid_config(format!("{key}: {why}; write it as https://host:port"));
    let url = Url::parse(text.trim()).map_err(|error| bad(&format!("no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("a URL here starts with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a URL here has no `?` and no `#`"));
    }
    Ok(url)
}

/// `base` with a path below it: `https://host/prefix` and `_bulk` make `https://host/prefix/_bulk`.
#[must_use]
pub fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    url
}

/// A URL as it may stand in a message: without user, password and query.
#[must_use]
pub fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests;
