//! The books of one exporter: where every record went.

use serde::Serialize;

/// Why a record was dropped by the gateway. The names are the values of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DropReason {
    /// The queue was full: the oldest or the newest record went, as configured.
    QueueFull,
    /// `on_full = "shed"`: there was no room even without its bodies.
    Shed,
    /// The circuit breaker stayed open until the retry time was over.
    BreakerOpenTimeout,
    /// The retry time was over.
    RetryExhausted,
    /// The gateway stopped before it could be delivered.
    Shutdown,
    /// Too large for the backend even without its bodies.
    Oversize,
}

/// Why a record was rejected for good. The names are the values of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RejectReason {
    /// The plugin gave a verdict on this very record.
    Record,
    /// The plugin rejected a call with this record alone in it.
    Call,
}

impl DropReason {
    pub(crate) const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::Shed,
        Self::BreakerOpenTimeout,
        Self::RetryExhausted,
        Self::Shutdown,
        Self::Oversize,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Shed => "shed",
            Self::BreakerOpenTimeout => "breaker_open_timeout",
            Self::RetryExhausted => "retry_exhausted",
            Self::Shutdown => "shutdown",
            Self::Oversize => "oversize",
        }
    }
}

impl RejectReason {
    pub(crate) const ALL: [Self; 2] = [Self::Record, Self::Call];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Call => "call",
        }
    }
}

/// Where records went. `accepted = delivered + rejected + dropped + queued + in flight`, at every moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub accepted: u64,
    pub delivered: u64,
    pub in_flight: u64,
    rejected: [u64; RejectReason::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
}

impl Books {
    pub(crate) fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected[reason as usize]
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    pub(crate) fn all_rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    pub(crate) fn all_dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(crate) fn count_rejected(&mut self, reason: RejectReason, records: u64) {
        self.rejected[reason as usize] += records;
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason, records: u64) {
        self.dropped[reason as usize] += records;
    }
}

/// The books with the state of the queue, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub books: Books,
    pub queued: u64,
    pub queued_bytes: u64,
    /// Records that lost bodies to fit; they are still delivered.
    pub shed_bodies: u64,
}

impl Snapshot {
    /// Whether every accepted record is accounted for.
    pub(crate) fn is_balanced(&self) -> bool {
        let books = &self.books;
        books.accepted
            == books.delivered + books.all_rejected() + books.all_dropped() + self.queued + books.in_flight
    }
}
