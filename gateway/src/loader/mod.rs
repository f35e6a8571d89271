//! Loads exporter plugins and calls them. The one place of the gateway with unsafe code.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | `[plugins]` of the configuration |
//! | `file` | steps 1 and 2 of loading: open once, look at it, read, hash, compare the pin |
//! | `elf` | step 3: is it a plugin for this machine? From the bytes alone |
//! | `folder` | who may put another file in its place |
//! | `memfile` | step 4: a sealed copy in memory, and `dlopen` |
//! | `trial` | before that: the same in a process of its own |
//! | `door` | step 5: version, layout, function table |
//! | `calls` | the functions of the table as safe Rust; what the plugin says through callbacks |
//! | `load` | the steps in their order, each under a deadline |
//! | `heap` | what plugins have freed goes back to the system |
//! | `thread` | the threads of an instance, and which call they are in |
//! | `last_words` | a plugin that ends the process is named |
//! | `patience` | system calls that fail in passing |
//! | [`Plugin`] | the asynchronous face for the pipeline: calls with deadlines, stuck ones given up |
//!
//! Invariants:
//! * Nothing of a plugin runs before its file passed every check that can be made from the bytes, and nothing of it runs
//!   here before it survived in a process of its own.
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
mod folder;
pub(crate) mod heap;
mod last_words;
mod load;
mod memfile;
mod patience;
mod plain_text;
mod plugin;
mod thread;
#[cfg(target_os = "linux")]
mod trial;
#[cfg(not(target_os = "linux"))]
#[path = "trial/elsewhere.rs"]
mod trial;

pub use self::{
    calls::{BatchSource, CallReport, CallStatus, ExportOutcome, Health, HostInfo, RecordVerdict},
    elf::{Door, ElfError, Note},
    error::{LoadError, Stage},
    file::FileRequest,
    last_words::{OrderlyEnd, exit_at_once, watch_process},
    load::{FileFacts, describe, examine},
    memfile::opening,
    plugin::{CallFailed, LoadRequest, Plugin, Settings, State},
    thread::CallKind,
    trial::{be_tried, try_first},
};

#[cfg(test)]
mod tests;
