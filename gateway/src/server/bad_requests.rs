//! What clients send that never becomes a request: hyper answers it, or hangs up, and there is nothing to record. It is
//! counted.

use std::{
    error::Error as StdError,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counts by reason.
#[derive(Debug, Default)]
pub(crate) struct BadRequests {
    malformed: AtomicU64,
    head_too_large: AtomicU64,
    http2: AtomicU64,
}

impl BadRequests {
    /// Counts the end of a connection, if it was one of these.
    pub(super) fn note(&self, error: &(dyn StdError + Send + Sync + 'static)) {
        let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
        let counter = if error.is_parse_too_large() {
            &self.head_too_large
        } else if error.is_parse() {
            &self.malformed
        } else if is_http2_fault(error) {
            &self.http2
        } else {
            return;
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 3] {
        [("malformed", &self.malformed), ("head_too_large", &self.head_too_large), ("http2", &self.http2)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

/// A client that breaks the protocol, rather than its connection. Its error is the last cause, and none of the system's.
fn is_http2_fault(error: &hyper::Error) -> bool {
    let cause = error.source();
    cause.and_then(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(h2::Error::is_library)
}
