//! The contract between MagicAPI Gateway and its telemetry exporters: dynamic libraries that the gateway loads at run
//! time, built by anyone, in any repository, years before or after the gateway that loads them.
//!
//! # Writing a plugin
//!
//! Implement [`TelemetryExporter`], say [`export_plugin!`], build a `cdylib`, name the file in the gateway's
//! configuration:
//!
//! ```toml
//! # Cargo.toml
//! [lib]
//! crate-type = ["cdylib"]
//! ```
//!
//! ```toml
//! # gateway.toml
//! [[plugin]]
//! name = "hello"
//! path = "/opt/plugins/libhello_exporter.so"
//! ```
//!
//! The example at [`TelemetryExporter`] is a complete plugin.
//!
//! # What the gateway does for every plugin
//!
//! A bounded queue, batching, per-record verdicts, retry with exponential backoff and `Retry-After`, a circuit
//! breaker, a rate limit, draining at shutdown, and books that balance: every record is delivered, rejected with a
//! reason, or dropped with a reason, and counted.
//!
//! # Code map
//!
//! | module | what it is |
//! |---|---|
//! | [`TelemetryExporter`], [`Batch`], [`Record`] | what a plugin implements, and what it is given |
//! | [`RequestMetrics`], [`OtelLog`] | the record, and its OpenTelemetry log form |
//! | [`Field`], [`Fields`] | the record's fields as the JSON they are, for the quick way |
//! | [`Descriptor`], [`Description`] | what a plugin says about itself |
//! | [`abi`] | the binary interface, for the gateway and for plugins in other languages |
//! | [`note`] | the ELF note that names a plugin without running it |
//!
//! For a plugin's tests there is a crate beside this one, `exporter-testkit`: sample records, a stand-in for the gateway,
//! and the conformance suite that the gateway's own exporters pass.
//!
//! # Versions
//!
//! The major version of this crate is the version of the ABI. A plugin built with any 1.x loads in any gateway that
//! speaks ABI 1, older or newer. The tables in [`abi`] never change; new abilities are extensions that either side
//! may lack. Fields of the record are only ever added. The public Rust API follows semantic versioning.

// This crate is the boundary: unsafe code is here, on its other side (the gateway's loader) and in its testkit.
#![allow(unsafe_code)]
#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod abi;
mod batch;
mod cost;
mod descriptor;
pub mod door;
mod error;
mod exporter;
mod flat;
mod guard;
mod host;
mod logging;
mod metrics;
pub mod note;
mod otel_log;
mod table;
mod wire_enum;

pub use crate::{
    batch::{Batch, Record, RecordLog},
    cost::{InvalidUsd, Usd},
    descriptor::{BatchDefaults, Content, ContentNeed, Description, Descriptor, HardLimits, RequiredContent},
    error::{ErrorKind, ExportError, Health, InitError, causes},
    exporter::{NoConfig, TelemetryExporter},
    flat::{Field, Fields},
    host::Host,
    metrics::{BodyDescription, CostSource, EndReason, RequestMetrics, Status, UsageSource},
    otel_log::{LOG_NAME, OtelLog},
};

/// What `export_plugin!` expands to; not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use abi_stable::library::LibHeader;

    pub use crate::{
        door::header,
        note::{Note, padded_length},
    };
}
