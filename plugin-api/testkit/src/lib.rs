//! For the tests of an exporter plugin: records to feed it, a stand-in for the gateway, and a
//! [conformance suite](conformance).
//!
//! ```toml
//! [dev-dependencies]
//! # Of the same tag as `plugin-api`.
//! exporter-testkit = { git = "https://github.com/magicapi/magicapi-gateway", tag = "v1.0.0" }
//!
//! [lib]
//! # The first is what the gateway loads, the second what tests in `tests/` can use.
//! crate-type = ["cdylib", "rlib"]
//! ```
//!
//! ```
//! use plugin_api::{Batch, Descriptor, ExportError, Host, InitError, NoConfig, TelemetryExporter};
//! use exporter_testkit::{Plugin, Sample, Verdict};
//!
//! /// Takes streams alone.
//! struct Picky;
//!
//! impl TelemetryExporter for Picky {
//!     type Config = NoConfig;
//!     const DESCRIPTOR: Descriptor = Descriptor::new("picky", "1.0.0");
//!
//!     async fn init(_: NoConfig, _: Host) -> Result<Self, InitError> {
//!         Ok(Self)
//!     }
//!
//!     async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
//!         for record in batch.iter() {
//!             if !record.metrics()?.is_streaming {
//!                 record.reject("not a stream");
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let plugin = Plugin::<Picky>::create("{}").unwrap();
//! let outcome = plugin.export([Sample::stream(), Sample::chat()]);
//! assert!(outcome.is_delivered(0));
//! assert_eq!(outcome.verdicts[1], Some(Verdict::Rejected("not a stream".to_owned())));
//! plugin.close().unwrap();
//! ```
//!
//! The exporter runs behind its real function table and on a thread of its own, as in the gateway: a panic, a
//! deadline or a wrong verdict shows as the gateway would see it. What the gateway adds is not here: no queue, no
//! retry, no check of the settings against their schema, no environment variables, no log.
//!
//! Calls block until the exporter is done, or is given up. A test with an `async` server of its own needs a runtime
//! with several threads (`#[tokio::test(flavor = "multi_thread")]`), or a server on a plain thread.
//!
//! | module | what it is |
//! |---|---|
//! | [`Plugin`], [`Outcome`] | one exporter, one call, and what it came to |
//! | [`Sample`], [`Records`] | records to feed it |
//! | [`conformance`] | whether it keeps its promises when its backend does not behave |
//! | [`relay`] | a TCP relay that hangs, refuses and cuts, in front of any server |

#[forbid(unsafe_code)]
pub mod conformance;
// Calls a plugin's functions over the binary interface, and is called back.
#[allow(unsafe_code)]
#[deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
mod gateway;
#[forbid(unsafe_code)]
mod outcome;
#[forbid(unsafe_code)]
mod plugin;
#[forbid(unsafe_code)]
pub mod relay;
#[forbid(unsafe_code)]
mod sample;

pub use crate::{
    outcome::{Failure, Outcome, Verdict},
    plugin::{DEADLINE, Plugin},
    sample::{Records, Sample},
};

#[cfg(test)]
mod tests;
