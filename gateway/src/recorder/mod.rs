//! The recorder: makes one record of one finished request, off the request path.
//!
//! Pure from end to end: an [`exchange::Exchange`] goes in, a [`assemble::Record`] comes out.
//!
//! | module | what it is |
//! |---|---|
//! | [`exchange`] | what the proxy hands over |
//! | `intake` | the bounded hand-over |
//! | [`mod@assemble`] | the stages, one after the other, and the record |
//! | [`config`] | `[telemetry]` |
//! | `draft` | what each stage does |
//! | `body` | captured bytes: decoded, checked, described |
//! | `sse` | server-sent events, cut anywhere |
//! | `fold`, `fold_chunks`, `fold_responses`, `template` | a stream becomes one answer |
//! | `usage` | token counts |
//! | `json` | borrowed, partial reading |

pub mod assemble;
pub(crate) mod body;
pub mod config;
mod draft;
pub mod exchange;
pub(crate) mod fold;
pub(crate) mod fold_chunks;
pub(crate) mod fold_responses;
#[cfg(test)]
mod golden;
pub(crate) mod intake;
pub(crate) mod json;
pub(crate) mod sse;
mod template;
pub mod usage;

pub(crate) use self::intake::{Duties, Intake, Losses, start};
pub use self::{
    assemble::{Record, Settings, Summary, assemble},
    exchange::{Captured, Exchange, Identity, Kept, Piece, Times, Trace},
    usage::Usage,
};
