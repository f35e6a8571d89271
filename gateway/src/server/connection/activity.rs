//! What goes on in one connection: noted where it happens, read where the limits are.
//!
//! A connection never leaves its thread, so the atomics cost what plain numbers cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Version;
use tokio::time::Instant;

/// What HTTP/2 begins with; no method of HTTP/1 does.
const PREFACE: &[u8] = b"PRI";

/// One connection's.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    /// Requests under way: of HTTP/1 one at most.
    requests: AtomicU32,
    has_sent: AtomicBool,
    is_in_head: AtomicBool,
    is_http2: AtomicBool,
    is_leaving: AtomicBool,
    waiting_since: Moment,
    blocked_since: Moment,
    written_at: Moment,
}

/// What the client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing: requests are under way.
    No,
    /// The rest of a request's head; all of it when nothing has `begun`.
    Head { since: Instant, has_begun: bool },
    /// Its next request.
    Idle { since: Instant },
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            has_sent: AtomicBool::new(false),
            is_in_head: AtomicBool::new(true),
            is_http2: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            waiting_since: Moment(AtomicU64::new(0)),
            blocked_since: Moment(AtomicU64::new(NEVER)),
            written_at: Moment(AtomicU64::new(0)),
        })
    }

    /// Bytes came from the client.
    pub(super) fn read(&self, bytes: &[u8]) {
        if !self.has_sent.load(Relaxed) {
            self.has_sent.store(true, Relaxed);
            self.is_http2.store(bytes.starts_with(PREFACE), Relaxed);
        }
        // Frames of HTTP/2 that belong to no request (answers to pings) are no beginning of one.
        let is_idle = self.requests.load(Relaxed) == 0 && !self.is_in_head.load(Relaxed);
        if is_idle && !self.is_http2.load(Relaxed) {
            self.is_in_head.store(true, Relaxed);
            self.waiting_since.set(Instant::now(), self.opened);
        }
    }

    /// The client takes no more for now.
    pub(super) fn write_is_blocked(&self) {
        if self.blocked_since.get(self.opened).is_none() {
            self.blocked_since.set(Instant::now(), self.opened);
        }
    }

    pub(super) fn written(&self) {
        if self.blocked_since.0.swap(NEVER, Relaxed) != NEVER {
            self.written_at.set(Instant::now(), self.opened);
        }
    }

    /// A request's head is there. It is under way until the last of what is given back is dropped.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Underway {
        self.requests.fetch_add(1, Relaxed);
        self.is_http2.store(version == Version::HTTP_2, Relaxed);
        self.is_in_head.store(false, Relaxed);
        Underway(self.clone())
    }

    /// From now on the client is asked to go with every answer.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Relaxed)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn waiting(&self) -> Waiting {
        let since = self.waiting_since.get(self.opened).unwrap_or(self.opened);
        match (self.requests.load(Relaxed), self.is_in_head.load(Relaxed)) {
            (0, true) => Waiting::Head { since, has_begun: self.has_sent.load(Relaxed) },
            (0, false) => Waiting::Idle { since },
            _ => Waiting::No,
        }
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since.get(self.opened)
    }

    /// When the client last took something after it had taken nothing for a while.
    pub(super) fn resumed_at(&self) -> Instant {
        self.written_at.get(self.opened).unwrap_or(self.opened)
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Underway(Arc<Activity>);

impl Underway {
    /// Whether the answer has to tell an HTTP/1 client to go. To HTTP/2 a frame of its own says so.
    pub(super) fn is_last(&self) -> bool {
        self.0.is_leaving() && !self.0.is_http2()
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Relaxed) == 1 {
            self.0.waiting_since.set(Instant::now(), self.0.opened);
        }
    }
}

const NEVER: u64 = u64::MAX;

/// Microseconds since the connection was opened.
#[derive(Debug)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, now: Instant, opened: Instant) {
        let micros = now.saturating_duration_since(opened).as_micros();
        self.0.store(u64::try_from(micros).unwrap_or(NEVER - 1), Relaxed);
    }

    fn get(&self, opened: Instant) -> Option<Instant> {
        let micros = self.0.load(Relaxed);
        (micros != NEVER).then(|| opened + Duration::from_micros(micros))
    }
}
