//! The hand-over from the proxy to the recorder: it never waits, and it is bounded in requests and in bytes.
//!
//! What a waiting request holds beside its bodies (path, ids, times) is bounded here; its bodies are bounded by
//! `capture.max_in_flight_bytes`, and are let go before a request is.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use plugin_api::EndReason;
use tokio::sync::mpsc;

use super::{Exchange, Summary};
use crate::budget::{Budget, Reservation};

/// Finished requests that may wait for the recorder.
pub(crate) const MAX_WAITING: usize = 65_536;

/// What they may take together, bodies apart: enough for that number of usual ones, and for 6,000 whose path and ids are
/// as long as they may be.
pub(crate) const MAX_WAITING_BYTES: u64 = 64 * 1024 * 1024;

/// A request that waits for the recorder.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) exchange: Exchange,
    /// Held until the record is made.
    _room: Reservation,
}

/// What is done with the facts of every request, on the thread that answered it.
pub(crate) type Count = Arc<dyn Fn(&Summary) + Send + Sync>;

/// Where the proxy puts finished requests.
#[derive(Clone)]
pub(crate) struct Intake {
    /// None when nobody wants records.
    sender: Option<mpsc::Sender<Waiting>>,
    room: Arc<Budget>,
    shared: Arc<Shared>,
    count: Count,
    /// Requests that came to their end on this thread.
    finished: Arc<AtomicU64>,
}

/// What intake, recorder and metrics have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    hand_over_full: AtomicU64,
    recorder_failed: AtomicU64,
    handed_on: AtomicU64,
    restarts: AtomicU64,
    aborting: AtomicBool,
}

impl Intake {
    pub(super) fn new(sender: Option<mpsc::Sender<Waiting>>, shared: Arc<Shared>) -> Self {
        let room = Budget::new(MAX_WAITING_BYTES);
        Self { sender, shared, room, count: Arc::new(|_| {}), finished: Arc::default() }
    }

    /// The same for another thread, counting by `count`.
    pub(crate) fn counting(&self, count: Count) -> Self {
        Self { count, finished: Arc::default(), ..self.clone() }
    }

    /// Requests that came to their end on this thread.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Never waits. Every request is counted; one that finds no place makes no record, which is counted too.
    pub(crate) fn hand_over(&self, mut exchange: Exchange) {
        if self.shared.aborting.load(Ordering::Relaxed) && exchange.end == EndReason::ClientDisconnect {
            exchange.end = EndReason::GatewayError;
            exchange.error = Some("shutting_down");
        }
        self.finished.fetch_add(1, Ordering::Relaxed);
        (self.count)(&Summary::of(&exchange));
        let Some(sender) = &self.sender else { return };
        let mut room = Reservation::of(&self.room);
        let bytes = exchange.metadata_bytes() + size_of::<Reservation>() as u64;
        if !room.grow(bytes) || sender.try_send(Waiting { exchange, _room: room }).is_err() {
            self.shared.hand_over_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on a request that breaks off was cut by the gateway, not by its client.
    pub(crate) fn abort(&self) {
        self.shared.aborting.store(true, Ordering::Relaxed);
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally(self.shared.clone())
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn recorder_failed_on(&self, requests: u64) {
        self.recorder_failed.fetch_add(requests, Ordering::Relaxed);
    }

    pub(super) fn handed_on(&self, records: u64) {
        self.handed_on.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn all_handed_on(&self) -> u64 {
        self.handed_on.load(Ordering::Relaxed)
    }

    pub(super) fn all_recorder_failed(&self) -> u64 {
        self.recorder_failed.load(Ordering::Relaxed)
    }

    pub(super) fn recorder_restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// What became of requests that were handed over.
#[derive(Debug, Clone)]
pub(crate) struct Tally(Arc<Shared>);

impl Tally {
    /// Records that the recorder made.
    pub(crate) fn recorded(&self) -> u64 {
        self.0.all_handed_on()
    }

    /// Requests that made no record, by reason.
    pub(crate) fn losses(&self) -> [(&'static str, u64); 2] {
        [("hand_over_full", &self.0.hand_over_full), ("recorder_failed", &self.0.recorder_failed)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// How often the recorder had to begin anew.
    pub(crate) fn restarts(&self) -> u64 {
        self.0.restarts.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::recorder::{
        MAX_ID_BYTES, MAX_PATH_BYTES,
        tests::golden::{captured, exchange},
    };

    fn intake() -> (Intake, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Intake::new(Some(sender), Arc::default()), receiver)
    }

    fn request() -> Exchange {
        exchange("openai", "/v1/chat/completions", captured("text/plain", Vec::new()))
    }

    #[test]
    fn usual_requests_are_bounded_in_number_and_long_ones_in_bytes() {
        let (intake, receiver) = intake();
        let mut usual = request();
        usual.identity.thread_id = Some("thread_29".to_owned());
        usual.identity.user_id = Some("user_456".to_owned());
        assert!(
            usual.metadata_bytes() * MAX_WAITING as u64 <= MAX_WAITING_BYTES,
            "{}",
            usual.metadata_bytes()
        );
        let mut handed = 0;
        while intake.tally().losses()[0].1 == 0 {
            let mut long = request();
            long.path = "p".repeat(MAX_PATH_BYTES);
            long.identity.thread_id = Some("t".repeat(MAX_ID_BYTES));
            intake.hand_over(long);
            handed += 1;
        }
        assert!((10_000..16_000).contains(&handed), "{handed}");
        assert!(intake.room.used() <= MAX_WAITING_BYTES);
        drop(receiver);
        assert_eq!(intake.room.used(), 0);
    }

    #[test]
    fn every_request_is_counted_whether_or_not_it_makes_a_record() {
        let ends = Arc::<Mutex<Vec<EndReason>>>::default();
        let seen = ends.clone();
        let (intake, receiver) = intake();
        let intake =
            intake.counting(Arc::new(move |summary| seen.lock().unwrap().push(summary.end_reason.clone())));
        intake.hand_over(request());
        drop(receiver);
        intake.hand_over(request());
        intake.abort();
        intake.hand_over(Exchange { end: EndReason::ClientDisconnect, ..request() });
        let expected = [EndReason::Complete, EndReason::Complete, EndReason::GatewayError];
        assert_eq!(*ends.lock().unwrap(), expected);
        assert_eq!(intake.tally().losses()[0], ("hand_over_full", 2));
    }
}
