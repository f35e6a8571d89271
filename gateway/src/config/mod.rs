//! The gateway's configuration: read once, checked whole, every mistake reported with file, line, key and cure.
//!
//! The way of a value: `document` (TOML to JSON, lines kept, `${NAME}` replaced by `interpolate`) → `coerce` →
//! `schema_check` (against `schema`) → the section's own struct → `check`.
//!
//! - `load`: finds the file and runs all of the above
//! - `environment`: HOST, PORT, ENABLED_EXPORTERS
//! - `schema`: the JSON Schema of the whole
//! - `sections`: the parts, each read on its own; `check`: rules between them
//! - `files`: relative paths, secrets in files
//! - `default_file`: the commented default file
//!
//! Sections belong to the modules they configure (`server::config` and so on), and are made of what
//! [`settings`](crate::settings) has; this module composes them, and none of those modules uses it.

mod check;
mod default_file;
mod environment;
mod files;
mod load;
mod schema;
mod sections;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::default_file::default_file;
pub use self::load::{Loaded, Source, load};
pub use self::schema::schema;
use crate::{admin, loader, mask::Credential, pipeline, proxy, recorder, server};

/// Everything that can be configured. Paths in it are resolved: they do not depend on the current directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "MagicAPI Gateway configuration", description = "Everything that can be configured.")]
pub struct Config {
    /// Where clients connect, and how much of the machine they may use.
    pub server: server::config::Config,
    /// The operator's port: /metrics, /healthz, /readyz and /plugins.
    pub admin: admin::config::Config,
    /// Where requests go.
    pub proxy: proxy::config::Config,
    /// Providers that override a built-in one of the same name, or add one. Absent keys keep the built-in value.
    #[schemars(extend("x-example-key" = "my-provider"))]
    pub providers: BTreeMap<String, proxy::config::Provider>,
    /// What a record says about this gateway, and how much of the bodies it keeps.
    pub telemetry: recorder::config::Config,
    /// Where plugin files are, and how strictly they are looked at.
    pub plugins: loader::config::Config,
    /// Exporters, one entry each.
    pub plugin: Vec<pipeline::config::Plugin>,
}

impl Config {
    /// The gateway's own credentials. Those of plugins only their schemas can tell.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = Credential> {
        let keys = self.providers.iter().filter_map(|(name, provider)| {
            Some((format!("providers.{name}.api_key"), provider.api_key.as_ref()?))
        });
        let token = self.admin.token.iter().map(|token| ("admin.token".to_owned(), token));
        keys.chain(token).map(|(setting, secret)| Credential { setting, text: secret.expose().to_owned() })
    }
}
