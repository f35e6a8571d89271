//! What the end-to-end tests stand on: the gateway's real binary with real plugins, and what it talks to.
//!
//! ```no_run
//! # use end_to_end::{Gateway, Provider};
//! # async fn test() {
//! let provider = Provider::start().await;
//! let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
//! let answer = gateway.post("/v1/chat/completions", r#"{"model":"demo","messages":[]}"#).await;
//! let record = gateway.record().await;
//! # }
//! ```
//!
//! Everything listens on free ports of 127.0.0.1 and is stopped by its process id when it is dropped.

// The tests of this package are allowed to panic: that is how they fail.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]
#![forbid(unsafe_code)]

pub mod artifacts;
pub mod client;
pub mod ended;
pub mod gateway;
pub mod http2_provider;
mod memory;
pub mod metrics;
mod probe;
pub mod provider;
pub mod raw_client;
pub mod raw_provider;
pub mod scripted;
pub mod tools;
pub mod wait;
pub mod wire;

pub use self::{
    client::{Answer, Client},
    ended::{Ended, magicapi_gateway},
    gateway::{Gateway, Running},
    http2_provider::Http2Provider,
    provider::Provider,
    raw_client::RawClient,
    raw_provider::{RawProvider, Step},
    scripted::{Reading, Said, Scripted},
    tools::{Collector, Database, H2spec, Llm, OpenSearch, Postgres, RealClient, Sdk, WebServer},
    wait::{wait_for, within},
};
