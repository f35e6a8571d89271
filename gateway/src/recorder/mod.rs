//! The recorder: makes one record of one finished request, off the request path.
//!
//! Pure from end to end: an [`exchange::Exchange`] goes in, a [`record::Record`] comes out.
//!
//! | module | what it is |
//! |---|---|
//! | [`exchange`], [`marked_bytes`] | what the proxy hands over |
//! | `intake` | the bounded hand-over |
//! | `worker` | the thread behind it: what is recorded first, and what becomes of a panic |
//! | [`mod@assemble`] | the stages, one module each |
//! | [`record`] | the record, and what can be let go of it |
//! | [`config`] | `[telemetry]` |
//! | [`dialect`] | how a family of providers writes its bodies |
//! | `body` | captured bytes: decoded, checked, described |
//! | `decode` | content codings taken off, within a budget |
//! | `sse` | server-sent events, cut anywhere |
//! | `chunk_times` | when the chunks of a stream came |
//! | `fold`, `fold_chunks`, `fold_responses`, `template` | a stream becomes one answer |
//! | `usage` | token counts |
//! | `json` | borrowed, partial reading |

pub mod assemble;
pub(crate) mod body;
mod chunk_times;
pub mod config;
mod decode;
pub mod dialect;
pub mod exchange;
pub(crate) mod fold;
pub(crate) mod fold_chunks;
pub(crate) mod fold_responses;
pub(crate) mod intake;
pub(crate) mod json;
pub mod marked_bytes;
pub mod record;
pub(crate) mod sse;
mod template;
#[cfg(test)]
mod tests;
pub mod usage;
mod worker;

pub use self::{
    assemble::{END_BYTES, STREAM_FACTOR, Settings, assemble},
    exchange::{Captured, Exchange, Identity, Kept, MAX_ID_BYTES, MAX_PATH_BYTES, Summary, Times, Trace},
    marked_bytes::MarkedBytes,
    record::Record,
    usage::Usage,
};
pub(crate) use self::{
    exchange::{cut, text},
    intake::{Count, Intake, Tally},
    worker::{Deliver, Recorder},
};
