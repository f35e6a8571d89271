//! The metrics on their way: a record is counted when it is seen first, and what was counted is sent with each batch. A
//! request that fails is made good by the next one, so that no record waits for the metrics.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plugin_api::{ErrorKind, ExportError};

use crate::{
    Otlp,
    answer::Taken,
    config::Signal,
    facts::Facts,
    metrics::{Metrics, Sent},
    now,
    transport::Refused,
};

/// The metrics, shared by all calls.
#[derive(Debug)]
pub struct Tally {
    metrics: Mutex<Metrics>,
    /// Held while metrics are sent: cumulative points arrive in order.
    sending: tokio::sync::Mutex<()>,
    /// Copies for a scrape, which does not wait for a batch that is added.
    series: AtomicU64,
    overflowed: AtomicU64,
}

impl Tally {
    /// One that begins with these metrics.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics: Mutex::new(metrics),
            sending: tokio::sync::Mutex::default(),
            series: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        }
    }

    /// Counts records, each with the encoded resource that it has.
    pub fn add<'r>(&self, records: impl Iterator<Item = (&'r [u8], &'r Facts<'r>)>) {
        let mut metrics = self.metrics();
        records.for_each(|(resource, facts)| metrics.add(resource, facts));
        self.series.store(metrics.len() as u64, Ordering::Relaxed);
        self.overflowed.store(metrics.overflowed(), Ordering::Relaxed);
    }

    /// Number of series, and of values without a series of their own.
    pub fn size(&self) -> (u64, u64) {
        (self.series.load(Ordering::Relaxed), self.overflowed.load(Ordering::Relaxed))
    }

    /// Sends what was counted and not sent yet. `time` says what is left for a request.
    ///
    /// # Errors
    /// When a request was not taken. What it had is sent with the next one, unless the receiver refused it for good.
    pub async fn send(&self, exporter: &Otlp, time: impl Fn() -> Duration) -> Result<(), Refused> {
        let Ok(_sending) = tokio::time::timeout(time(), self.sending.lock()).await else {
            return Err(ExportError::retry("the metrics of an earlier batch are still on their way").into());
        };
        let (requests, sent) = self.metrics().take(&exporter.origin, now(), exporter.max_request_bytes);
        // The call may be given up while it waits for an answer.
        let mut on_the_way = OnTheWay { tally: self, sent: Some(sent) };
        for request in requests {
            match exporter.transport.send(Signal::Metrics, request.body, time()).await {
                Ok(taken) if taken == Taken::default() => {}
                Ok(taken) => exporter.partly_taken(Signal::Metrics, taken.rejected, &taken.message),
                Err(refused) => {
                    if matches!(refused.error.kind(), ErrorKind::Reject | ErrorKind::TooLarge) {
                        on_the_way.sent = None;
                    }
                    return Err(refused);
                }
            }
        }
        on_the_way.sent = None;
        Ok(())
    }

    fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Metrics that go back where they came from unless they were taken.
struct OnTheWay<'a> {
    tally: &'a Tally,
    sent: Option<Sent>,
}

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.tally.metrics().give_back(sent);
        }
    }
}
