//! Backends for the exporters' tests: Datadog, New Relic and Elasticsearch's `_bulk`, each as its documentation
//! describes it, and each able to fail on command.
//!
//! A fake has its own thread, so that a test that blocks can use it; every method is synchronous and may be called from
//! any thread, and dropping the fake ends it.
//!
//! ```
//! use fake_backends::{Datadog, Fault};
//!
//! let fake = Datadog::start();
//! fake.fail_next(1, Fault::status(503));
//! // … point the exporter at `fake.url()`, send records, then:
//! assert!(fake.logs().is_empty());
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `fake` | what all fakes have in common: [`Fake`] |
//! | [`script`] | faults, and what becomes of each record |
//! | `server` | HTTP/1.1 on a thread of its own, with or without TLS |
//! | `message` | a request as it was recorded, and an answer |
//! | `tls` | a certificate authority for one test |
//! | [`datadog`] | logs, metrics, distributions, LLM Observability spans |
//! | [`newrelic`] | logs and metrics |
//! | [`elasticsearch`] | `_bulk`, templates, indices, data streams, health |
//!
//! Every limit and status has the link to the page that says so beside it. Where the documentation is silent, the
//! comment says so, and the fake does what is hardest on an exporter.

#![forbid(unsafe_code)]
// A fake that cannot go on is a test that must fail.
#![allow(clippy::unwrap_used)]

pub mod datadog;
pub mod elasticsearch;
mod fake;
mod message;
pub mod newrelic;
pub mod script;
mod server;
mod tls;
mod when;

#[cfg(test)]
mod client;

pub use crate::{
    datadog::Datadog,
    elasticsearch::Elasticsearch,
    fake::{Fake, Semantics, UnderTest},
    message::{Answer, Request},
    newrelic::NewRelic,
    script::{Behaviour, Fate, Fault},
    tls::ClientCertificate,
};
