//! What every section of the configuration is made of; it knows none of them, and nothing else of the gateway.
//!
//! - `address`: addresses to listen on and base URLs; sizes, durations and secrets are those of [`setting_values`]
//! - `document`: TOML as a JSON value with the place of each value, `${NAME}` replaced by `interpolate`
//! - `problem`: what is wrong, where, and the cure; `pointer`, `places`: where a value stands
//! - `schema_check`: a value against a JSON Schema, with the formats of `format`, in the sentences of `sentence` with
//!   `suggest`; `schema_walk`: what a schema says of one value; `without_null`: schemas for TOML; `coerce`: text from the environment as a value of the schema's type
//! - `plugin`: a plugin's own settings, `[plugin.config]`; `credentials`: those of them that are secret
//!
//! Nothing here shows a secret: not in `Debug`, not in a problem. Values that came from the environment are not
//! shown either.

pub(crate) mod address;
pub(crate) mod coerce;
pub(crate) mod credentials;
pub(crate) mod document;
mod format;
mod interpolate;
pub(crate) mod places;
pub(crate) mod plugin;
pub(crate) mod pointer;
pub(crate) mod problem;
pub(crate) mod schema_check;
pub(crate) mod schema_walk;
mod sentence;
pub(crate) mod suggest;
pub(crate) mod without_null;

pub use setting_values::{ByteSize, HumanDuration, Secret};

pub use self::{
    plugin::{Settings, plugin_settings},
    problem::{Mistake, Problem, SchemaProblem},
};
