//! Sends dead letters again, through the ordinary pipeline of one exporter.
//!
//! The files are only read: a gateway may append to them and rotate them at the same time. What was delivered is noted
//! beside them, so that no later replay sends it again.
//!
//! | module | what it is |
//! |---|---|
//! | `source` | the files, line by line |
//! | `plan` | what to send and what became of it; pure |
//! | `note` | the ids that were delivered, on the disk |
//! | `progress` | the bar |
//! | `send` | everything put together |

mod note;
mod plan;
mod progress;
mod send;
mod source;

pub(crate) use self::{
    plan::{Plan, Tally},
    send::{Replay, Survey},
};
use std::{io, path::PathBuf};

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The operator's: a dead-letter file is not there or cannot be read.
    #[error("cannot read {}: {error}; check the path and the permissions", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// The system's: what was delivered cannot be noted, so it would be sent again.
    #[error(
        "cannot write {}, where it is noted what was delivered: {error}; \
         move away what is in its place, or check the permissions and the room on the disk",
        path.display()
    )]
    Note {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// The system's: there is no thread to deliver on.
    #[error("the system gives no thread to deliver on: {0}")]
    Thread(#[source] io::Error),
    /// The operator's: two replays would send the same records.
    #[error("another replay of these records is under way: it holds {}; wait for its end", path.display())]
    UnderWay { path: PathBuf },
}
