//! Loads exporter plugins and calls them. The one place of the gateway with unsafe code.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | `[plugins]` of the configuration |
//! | `file` | steps 1 and 2 of loading: open once, look at it, read, hash, compare the pin |
//! | `elf` | step 3: is it a plugin for this machine? From the bytes alone |
//! | `memfile` | step 4: a sealed copy in memory, and `dlopen` |
//! | `door` | step 5: version, layout, function table |
//! | `calls` | the functions of the table as safe Rust; what the plugin says through callbacks |
//! | `load` | the steps in their order, each under a deadline |
//! | `heap` | what plugins have freed goes back to the system |
//! | `thread` | the threads of an instance, and which call they are in |
//! | [`Plugin`] | the asynchronous face for the pipeline: calls with deadlines, stuck ones given up |
//!
//! Invariants:
//! * Nothing of a plugin runs before its file passed every check that can be made from the bytes.
//! * A plugin's code runs on threads of that instance alone, never on one that serves requests.
//! * No panic of ours unwinds into a plugin; a plugin's own are caught inside it.
//! * A library is never unloaded, and what a plugin was given a pointer to is never freed.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod config;

mod calls;
mod door;
mod elf;
mod error;
mod file;
pub(crate) mod heap;
mod load;
mod memfile;
mod plain_text;
mod plugin;
mod thread;

pub use self::{
    calls::{BatchSource, CallReport, CallStatus, ExportOutcome, Health, HostInfo, RecordVerdict},
    elf::{Door, ElfError, Note},
    error::{LoadError, Stage},
    file::FileRequest,
    load::{FileFacts, describe, examine},
    memfile::{exit_at_once, opening},
    plugin::{CallFailed, LoadRequest, Plugin, Settings, State},
    thread::CallKind,
};

#[cfg(test)]
mod tests;
