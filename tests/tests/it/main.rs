//! The gateway as its users have it.

#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod admin;
mod bad_configs;
mod bad_plugins;
mod cli;
mod docs;
mod faults;
mod plugins;
mod requests;
mod sdk;
mod streams;
mod template;
