//! A provider as one worker sees it: its address, its credentials, its time limits and its own pool of connections.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderValue, Uri, uri};

use super::{
    config::{self, Http2, Timeout},
    pool::{self, Pool},
    tls,
};
use crate::{
    providers::{self, MovedPath},
    recorder::dialect::Dialect,
    settings::{Secret, address::shown_url},
};

/// What is known of a provider before any connection: the same for all workers.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub name: Arc<str>,
    pub dialect: Dialect,
    pub request_id_headers: &'static [&'static str],
    pub timeout: Timeout,
    base_url: String,
    scheme: uri::Scheme,
    authority: uri::Authority,
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
        /// What was given, without login and query.
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
    let Some((scheme, authority)) = origin(&base_url) else {
        return Err(TargetError::BaseUrl { name: name_of(), url: shown_url(&base_url).into_owned() });
    };
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
        scheme,
        authority,
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

fn origin(url: &str) -> Option<(uri::Scheme, uri::Authority)> {
    let parts = url.parse::<Uri>().ok()?.into_parts();
    let (scheme, authority) = parts.scheme.zip(parts.authority)?;
    (matches!(scheme.as_str(), "http" | "https") && !authority.host().is_empty())
        .then_some((scheme, authority))
}

fn bearer(key: &Secret) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A provider with a pool of connections.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub target: Arc<Target>,
    pub pool: Arc<Pool>,
    /// The client's path can be taken as it is.
    keeps_path: bool,
}

impl Upstream {
    pub(super) fn new(target: Arc<Target>, max_headers: usize) -> Self {
        let Target { scheme, authority, .. } = &*target;
        let keeps_path = target.moved_paths.is_empty()
            && providers::join(&target.base_url, "/v1/x") == format!("{scheme}://{authority}/v1/x");
        let pool = Pool::new(pool::Settings {
            scheme: scheme.clone(),
            authority: authority.clone(),
            http2: target.http2,
            connect_timeout: target.timeout.connect,
            first_byte: target.timeout.first_byte,
            max_headers,
            tls: target.tls.clone(),
        });
        Self { target, pool, keeps_path }
    }

    /// The path at the provider for a path and query of the client's.
    pub(super) fn path(&self, path_and_query: &uri::PathAndQuery) -> Result<Uri, uri::InvalidUri> {
        if self.keeps_path {
            return Ok(path_and_query.clone().into());
        }
        let path = providers::relocate(self.target.moved_paths, path_and_query.as_str());
        let joined = providers::join(&self.target.base_url, &path).parse::<Uri>()?;
        Ok(joined.path_and_query().cloned().map_or_else(Uri::default, Uri::from))
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.target.authorization.as_ref()
    }
}
