//! The gateway as its users have it.

#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod admin;
mod bad_configs;
mod bad_plugins;
mod cli;
mod client_limits;
mod crowd;
mod datadog;
mod dead_letters;
mod decoding;
mod deployment;
mod descriptors;
mod docs;
mod elasticsearch;
mod exporter_docs;
mod faults;
mod memory;
mod newrelic;
mod odd_files;
mod oracle;
mod otlp;
mod pipeline;
mod plugins;
mod postgres;
mod requests;
mod rolling_restart;
mod sdk;
mod servers;
mod soak;
mod stopping;
mod streams;
mod supervision;
mod template;
mod torment;
