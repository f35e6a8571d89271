//! The gateway as its users have it.

#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod admin;
mod bad_configs;
mod bad_plugins;
mod cli;
mod client_limits;
mod client_port;
mod conformance;
mod copies_without_credentials;
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
mod framing;
mod last_words;
mod memory;
mod newrelic;
mod odd_config_files;
mod odd_files;
mod oracle;
mod otlp;
mod overload;
mod paths;
mod pipeline;
mod plugin_places;
mod plugins;
mod postgres;
mod real_clients;
mod requests;
mod rolling_restart;
mod sdk;
mod servers;
mod smuggling;
mod smuggling_http2;
mod soak;
mod stopping;
mod streams;
mod supervision;
mod template;
mod torment;
mod trials;
mod uploads;
mod upstream_connections;
mod upstream_http2;
mod websocket;
