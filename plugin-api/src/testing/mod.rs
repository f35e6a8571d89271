//! For the tests of a plugin: records to feed it, a stand-in for the gateway, and a [conformance suite](conformance).
//! Cargo feature `testing`.
//!
//! ```toml
//! [dev-dependencies]
//! plugin-api = { version = "1", features = ["testing"] }
//! ```
//!
//! ```
//! use plugin_api::{Batch, Descriptor, ExportError, Host, InitError, NoConfig, TelemetryExporter};
//! use plugin_api::testing::{Plugin, Sample, Verdict};
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

pub mod conformance;
mod gateway;
mod outcome;
mod plugin;
pub mod relay;
mod sample;

pub use self::{
    outcome::{Failure, Outcome, Verdict},
    plugin::{DEADLINE, Plugin},
    sample::{Records, Sample},
};

#[cfg(test)]
mod tests;
