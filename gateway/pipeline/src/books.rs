//! The books of one exporter: where every record went.

use serde::Serialize;

/// Why a record was dropped by the gateway. The names are the values of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The queue was full: the oldest or the newest record went, as configured.
    QueueFull,
    /// `on_full = "shed"`: there was no room even without its bodies.
    Shed,
    /// The retry time was over when a probe of the open circuit breaker failed.
    BreakerOpenTimeout,
    /// The retry time was over when another attempt failed.
    RetryExhausted,
    /// The gateway stopped before it could be delivered.
    Shutdown,
    /// Too large for the backend even without its bodies.
    Oversize,
}

/// Why a record was rejected for good. The names are the values of the metric's `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The plugin gave a verdict on this very record.
    Record,
    /// The plugin rejected a call with this record alone in it.
    Call,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::QueueFull,
        Self::Shed,
        Self::BreakerOpenTimeout,
        Self::RetryExhausted,
        Self::Shutdown,
        Self::Oversize,
    ];

    /// As the metric's label has it.
    #[must_use]
    pub const fn label(self) -> &'static str {
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
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Record, Self::Call];

    /// As the metric's label has it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Call => "call",
        }
    }
}

/// Where records went. `accepted = delivered + rejected + dropped + queued + in flight`, at every moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books {
    /// Records that were offered.
    pub accepted: u64,
    /// Records that the backend has.
    pub delivered: u64,
    /// Records in batches that are not settled.
    pub in_flight: u64,
    rejected: [u64; RejectReason::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
}

impl Books {
    /// Records rejected for this reason.
    #[must_use]
    pub fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected[reason as usize]
    }

    /// Records dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Records rejected for any reason.
    #[must_use]
    pub fn all_rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Records dropped for any reason.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
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
pub struct Snapshot {
    /// Where records went.
    pub books: Books,
    /// Records that wait, those that were sent before among them.
    pub queued: u64,
    /// Records among them that were sent before.
    pub parked: u64,
    /// Bytes of all that wait or are in flight.
    pub queued_bytes: u64,
    /// Records that lost bodies to fit; they are still delivered.
    pub shed_bodies: u64,
}

impl Snapshot {
    /// Whether every accepted record is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let books = &self.books;
        books.accepted
            == books.delivered + books.all_rejected() + books.all_dropped() + self.queued + books.in_flight
    }
}
