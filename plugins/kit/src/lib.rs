//! What exporters of MagicAPI Gateway share, for plugin authors too: a plugin does the wire protocol of its backend,
//! and this crate does what every such protocol needs.
//!
//! ```toml
//! [dependencies]
//! # Of the same tag as `plugin-api`. `default-features = false` leaves out `http` and `tls`, and with them most of what
//! # it depends on.
//! exporter-kit = { git = "https://github.com/magicapi/magicapi-gateway", tag = "v1.0.0" }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`bounded`] | label values that clients choose, bounded in number |
//! | [`model`] | the model that a record counts under |
//! | [`source`], [`value`] | what a setting such as `response:/usage/total_tokens` names, read without a copy |
//! | [`record_tags`] | tags that show what a record says: the setting of that name |
//! | [`failure`] | what went wrong, in the provider's own words |
//! | [`mod@excerpt`] | a backend's own words, to be quoted |
//! | [`settings`] | values of `[plugin.config]`: durations and sizes with units, secrets, the host's name |
//! | [`pack`] | records into requests of bounded size, and the requests' fates back into verdicts |
//! | [`progress`] | which of a record's several requests the backend has already |
//! | [`round`] | a batch whose records are several requests each: what is sent again, and what never (feature `http`) |
//! | [`pulse`] | health, from what the last calls came to |
//! | [`summary`] | a record as one line of text |
//! | [`tls`] | TLS settings, and a `rustls` configuration from them (feature `tls`) |
//! | [`http`] | an HTTP client that speaks in `ExportError`s (feature `http`) |

#![forbid(unsafe_code)]

pub mod bounded;
pub mod excerpt;
pub mod failure;
#[cfg(feature = "http")]
pub mod http;
pub mod model;
pub mod pack;
pub mod progress;
pub mod pulse;
pub mod record_tags;
#[cfg(feature = "http")]
pub mod round;
pub mod settings;
pub mod source;
pub mod summary;
#[cfg(feature = "tls")]
pub mod tls;
pub mod value;
