//! A provider as one worker sees it: its address, its credentials, its time limits and its own pool of connections.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderValue, Uri, uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    body::RequestBody,
    config::{self, Http2, Timeout},
    tls,
};
use crate::{
    config::secret::Secret,
    providers::{self, Dialect, MovedPath},
};

/// What is known of a provider before any connection: the same for all workers.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub name: Arc<str>,
    pub dialect: Dialect,
    pub request_id_headers: &'static [&'static str],
    pub timeout: Timeout,
    base_url: String,
    moved_paths: &'static [MovedPath],
    authorization: Option<HeaderValue>,
    http2: Http2,
    tls: Arc<rustls::ClientConfig>,
}

/// Why a provider of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The operator's: not an absolute http or https URL.
    #[error("providers.{name}.base_url: `{url}` is not an http:// or https:// address")]
    BaseUrl {
        /// The provider.
        name: String,
        /// What was given.
        url: String,
    },
    /// The operator's: an API key that cannot stand in a header.
    #[error(
        "providers.{name}.api_key has characters that cannot stand in a header; check for a line break at its end"
    )]
    ApiKey {
        /// The provider.
        name: String,
    },
    /// The operator's: `ca_file`.
    #[error("providers.{name}.ca_file: {source}")]
    Tls {
        /// The provider.
        name: String,
        /// What is wrong with it.
        source: tls::TlsError,
    },
}

/// Every provider that there is: the built-in table with the configuration over it.
pub(crate) fn targets(config: &BTreeMap<String, config::Provider>) -> Result<Vec<Target>, TargetError> {
    let system = tls::client_config(None);
    let default = config::Provider::default();
    let built_in = providers::built_in().iter().map(|known| {
        let entry = config.get(known.name).unwrap_or(&default);
        target(known.name, Some(known), entry, &system)
    });
    let others = config
        .iter()
        .filter(|(name, _)| providers::find(name).is_none())
        .map(|(name, entry)| target(name, None, entry, &system));
    built_in.chain(others).collect()
}

fn target(
    name: &str,
    known: Option<&'static providers::Provider>,
    entry: &config::Provider,
    system: &Result<Arc<rustls::ClientConfig>, tls::TlsError>,
) -> Result<Target, TargetError> {
    let name_of = || name.to_owned();
    let base_url = entry.base_url.clone().or_else(|| known.map(|known| known.base_url.to_owned()));
    let base_url = base_url.unwrap_or_default();
    if !is_http(&base_url) {
        return Err(TargetError::BaseUrl { name: name_of(), url: base_url });
    }
    let tls = match (&entry.ca_file, system) {
        (None, Ok(system)) => Ok(system.clone()),
        (ca_file, _) => tls::client_config(ca_file.as_deref()),
    };
    let key = entry.api_key.as_ref().filter(|key| !key.expose().is_empty());
    let authorization = key.map(bearer).transpose().map_err(|_| TargetError::ApiKey { name: name_of() })?;
    Ok(Target {
        name: name.into(),
        dialect: entry.dialect().or(known.map(|known| known.dialect)).unwrap_or_default(),
        request_id_headers: known.map_or(providers::REQUEST_ID_HEADERS, |known| known.request_id_headers),
        timeout: entry.timeout.clone(),
        base_url,
        moved_paths: if entry.base_url.is_none() {
            known.map_or(&[], |known| known.moved_paths)
        } else {
            &[]
        },
        authorization,
        http2: entry.http2,
        tls: tls.map_err(|source| TargetError::Tls { name: name_of(), source })?,
    })
}

fn is_http(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        uri.host().is_some_and(|host| !host.is_empty()) && matches!(uri.scheme_str(), Some("http" | "https"))
    })
}

fn bearer(key: &Secret) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A provider with a pool of connections.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub target: Arc<Target>,
    pub client: Client<HttpsConnector<HttpConnector>, RequestBody>,
    /// Scheme and authority, where the client's path can be taken as it is.
    origin: Option<(uri::Scheme, uri::Authority)>,
}

impl Upstream {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        let client = client(&target);
        let parts = target.base_url.parse::<Uri>().unwrap_or_default().into_parts();
        let plain = target.moved_paths.is_empty()
            && providers::join(&target.base_url, "/v1/x").ends_with(&format!(
                "://{}/v1/x",
                parts.authority.as_ref().map_or("", |authority| authority.as_str())
            ));
        let origin = if plain { parts.scheme.zip(parts.authority) } else { None };
        Self { target, client, origin }
    }

    /// The address at the provider for a path and query of the client's.
    pub(crate) fn uri(&self, path_and_query: &uri::PathAndQuery) -> Result<Uri, http::Error> {
        match &self.origin {
            Some((scheme, authority)) => Uri::builder()
                .scheme(scheme.clone())
                .authority(authority.clone())
                .path_and_query(path_and_query.clone())
                .build(),
            None => {
                let path = providers::relocate(self.target.moved_paths, path_and_query.as_str());
                Ok(providers::join(&self.target.base_url, &path).parse::<Uri>()?)
            }
        }
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.target.authorization.as_ref()
    }
}

fn client(target: &Target) -> Client<HttpsConnector<HttpConnector>, RequestBody> {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http.set_connect_timeout(Some(target.timeout.connect));
    http.set_keepalive(Some(Duration::from_secs(60)));
    let tls = HttpsConnectorBuilder::new().with_tls_config((*target.tls).clone()).https_or_http();
    let connector = match target.http2 {
        Http2::Auto => tls.enable_http1().enable_http2().wrap_connector(http),
        Http2::Never => tls.enable_http1().wrap_connector(http),
        Http2::Always => tls.enable_http2().wrap_connector(http),
    };
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(55))
        .http2_only(target.http2 == Http2::Always)
        .http2_adaptive_window(true)
        .build(connector)
}
