//! MagicAPI Gateway: an HTTP gateway for LLM providers whose telemetry exporters are plugins loaded at run time.
//!
//! Data flows one way: client → [`server`] → [`proxy`] → provider, and of every finished request one hand-over →
//! [`recorder`] → [`pipeline`] → plugins, through the `loader`.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | one TOML file, checked whole: composes the sections of the other modules |
//! | [`settings`] | what sections are made of: values, mistakes, schema checks |
//! | `budget` | one bound on memory that many hold parts of |
//! | `clock` | the time, on machines with any clock |
//! | `memory` | freed memory goes back to the system when a thread is idle |
//! | [`server`] | connections, one single-threaded runtime per core |
//! | [`proxy`] | the request path: bytes in, bytes out |
//! | [`providers`] | the known providers, as data |
//! | [`recorder`] | one record of every request; the dialects that bodies are read in |
//! | [`pipeline`] | queue, batch, retry, circuit breaker and books, per exporter |
//! | `replay` | sends dead letters again |
//! | [`loader`] | plugin files, checked and loaded; the only unsafe code here |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz`, `/plugins` |
//! | [`startup`] | loads the plugins of a configuration |
//! | [`gateway`] | everything put together, run and drained |
//! | [`cli`] | the command line |
//! | `mask` | credentials do not get into copies |
//! | `hex` | bytes as hexadecimal digits |
//! | `places` | how many connections and requests there may be |
//! | `repeats` | what repeats is told at most twice a minute |
//! | `descriptors` | how many files and sockets this process may have open |
//! | `supervisor` | what systemd hands over and is told |
//!
//! # Invariants
//!
//! 1. The request path never waits for telemetry.
//! 2. The client sees exactly the provider's bytes.
//! 3. Every request makes exactly one record.
//! 4. The books of every exporter balance at every moment.
//! 5. Everything is bounded.
//! 6. This crate depends on no plugin and names none.

#[forbid(unsafe_code)]
pub mod admin;
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod bench;
#[forbid(unsafe_code)]
pub(crate) mod budget;
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub(crate) mod clock;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub(crate) mod descriptors;
#[forbid(unsafe_code)]
pub mod gateway;
#[forbid(unsafe_code)]
mod hex;
pub mod loader;
#[forbid(unsafe_code)]
pub(crate) mod mask;
#[forbid(unsafe_code)]
pub(crate) mod memory;
#[forbid(unsafe_code)]
pub mod pipeline;
#[forbid(unsafe_code)]
pub(crate) mod places;
#[forbid(unsafe_code)]
pub mod providers;
#[forbid(unsafe_code)]
pub mod proxy;
#[forbid(unsafe_code)]
pub mod recorder;
#[forbid(unsafe_code)]
pub(crate) mod repeats;
#[forbid(unsafe_code)]
pub(crate) mod replay;
#[forbid(unsafe_code)]
pub mod server;
#[forbid(unsafe_code)]
pub mod settings;
#[forbid(unsafe_code)]
pub mod startup;
#[forbid(unsafe_code)]
pub(crate) mod supervisor;

pub use crate::{
    gateway::{Listeners, RunError, run},
    startup::{LoadedPlugins, load_plugins},
};
