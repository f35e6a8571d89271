//! Values as operators write them, in the gateway's own sections and in `[plugin.config]` alike: `"20 MiB"`, `"30s"`,
//! secrets, and the files that settings name.
//!
//! Each type brings its JSON Schema, so a plugin's author only has to name it. The gateway checks a plugin's settings
//! with the parsers of this crate before the plugin reads them with the same ones: what the one takes the other takes.
//!
//! ```
//! use std::time::Duration;
//!
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//! use setting_values::{ByteSize, HumanDuration, Secret};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Config {
//!     api_key: Secret,
//!     max_request_bytes: ByteSize,
//!     /// A `HumanDuration` would do as well, and does where the key is optional.
//!     #[serde(with = "HumanDuration")]
//!     timeout: Duration,
//! }
//!
//! let config: Config =
//!     serde_json::from_str(r#"{ "api_key": "k3y", "max_request_bytes": "1_000 KiB", "timeout": "1m 30s" }"#)?;
//! assert_eq!((config.max_request_bytes.bytes(), config.timeout), (1_024_000, Duration::from_secs(90)));
//! assert_eq!((format!("{:?}", config.api_key), config.api_key.expose()), ("***".to_owned(), "k3y"));
//! # Ok::<(), serde_json::Error>(())
//! ```

#![forbid(unsafe_code)]

mod duration;
pub mod regular_file;
mod secret;
mod size;
mod unit;

pub use self::{
    duration::HumanDuration,
    secret::{HIDDEN, LEAST_HIDDEN, Secret, can_be_hidden},
    size::ByteSize,
    unit::UnitError,
};
