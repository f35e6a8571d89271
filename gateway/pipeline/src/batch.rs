//! A batch on its way, and what became of it.

use std::time::{Duration, Instant};

use plugin_api::abi;

/// Tells batches of one pipeline apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub(crate) u64);

/// Records to be sent in one call. They are in flight until the batch is settled.
#[derive(Debug, Clone)]
pub struct Batch<T> {
    /// To settle it by.
    pub id: BatchId,
    /// The records, the oldest first.
    pub items: Vec<T>,
    /// How often the one of them that was sent most was sent before.
    pub attempt: u32,
}

/// What is to be done now.
#[derive(Debug, Clone)]
pub enum Next<T> {
    /// Send this, and settle it.
    Send(Batch<T>),
    /// Nothing, until this time or until something changes. `None`: until something changes.
    Wait(Option<Instant>),
    /// Nothing ever again: the pipeline is closed, and everything is settled.
    Closed,
}

/// What a call said.
#[derive(Debug, Clone)]
pub struct Outcome<T> {
    /// Status of the call, see [`abi::status`]. A call without an answer is [`abi::status::TIMEOUT`].
    pub status: abi::Status,
    /// The call's error.
    pub message: String,
    /// Verdicts by place in the batch; a record without one goes as the call goes.
    pub verdicts: Vec<Option<Verdict>>,
    /// How long the backend asks to be left alone.
    pub retry_after: Option<Duration>,
    /// For [`abi::status::TOO_LARGE`] on a batch of one: the record without its bodies, and its size; `None` when there is
    /// nothing to take off.
    pub smaller: Option<(T, u64)>,
}

/// What was said of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// See [`abi::verdict`].
    pub code: abi::Verdict,
    /// Why; may be empty.
    pub reason: String,
}

impl<T> Outcome<T> {
    /// A call that ended with this status and without verdicts.
    #[must_use]
    pub fn of(status: abi::Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), verdicts: Vec::new(), retry_after: None, smaller: None }
    }
}
