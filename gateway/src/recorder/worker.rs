//! The recorder's thread: takes finished requests, makes their records, hands these on in batches.
//!
//! **Who waits for whom.** Requests whose bodies may be costly to read (see [`is_heavy`]) are kept apart. The work goes
//! in rounds: first every light request that had come when the round began, then heavy ones for [`SLICE`], at least one.
//! So a light request waits for at most one slice and one heavy request, however many of them there are, and heavy ones
//! go on under any load.
//!
//! **What it holds.** Records are handed on when there are [`BATCH`] of them or they have [`BATCH_BYTES`]; until then they
//! count against `capture.max_in_flight_bytes`, as the bodies did that they were made of.
//!
//! **When something panics.** On one request: that record is lost. While handing on: the batch at hand is lost, and the
//! thread goes on with what waits. Both are counted and said.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{self, Runtime},
    sync::mpsc::{self, error::TryRecvError},
};
use tracing::error;

use super::{
    Exchange, Record, Settings, assemble,
    exchange::{Captured, Kept},
    intake::{Intake, MAX_WAITING, Shared, Waiting},
};
use crate::{
    budget::{Budget, Reservation},
    memory::{self, Idleness},
};

/// Under load the recorder looks this often, instead of being woken for every request.
const PACE: Duration = Duration::from_millis(5);

/// How long heavy requests may take before light ones are looked for again.
const SLICE: Duration = Duration::from_millis(5);

/// Records that are handed on together.
const BATCH: usize = 256;
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// Bodies of this size, or in a content coding and of this size, are costly.
const HEAVY_BYTES: usize = 512 * 1024;
const HEAVY_CODED_BYTES: usize = 16 * 1024;

/// The same complaint is not made more often than this.
const QUIET: Duration = Duration::from_secs(30);

/// Takes records in batches.
pub(crate) type Deliver = Box<dyn FnMut(&[Arc<Record>]) + Send>;

/// The recorder's thread.
#[derive(Debug)]
pub(crate) struct Recorder(Option<JoinHandle<()>>);

impl Recorder {
    /// Starts it. Without `deliver` nobody wants records, and none are made. It ends when every [`Intake`] is gone and all
    /// is recorded.
    pub(crate) fn start(
        settings: Settings,
        budget: &Arc<Budget>,
        deliver: Option<Deliver>,
    ) -> io::Result<(Intake, Self)> {
        let shared = Arc::<Shared>::default();
        let Some(deliver) = deliver else { return Ok((Intake::new(None, shared), Self(None))) };
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let worker = Worker {
            runtime: runtime::Builder::new_current_thread().enable_time().build()?,
            idleness: Idleness::default(),
            receiver,
            received: Vec::new(),
            light: VecDeque::new(),
            heavy: VecDeque::new(),
            made: Made { records: Vec::with_capacity(BATCH), held: Reservation::of(budget) },
            settings,
            shared: shared.clone(),
            deliver,
            complained: None,
        };
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || worker.run())?;
        Ok((Intake::new(Some(sender), shared), Self(Some(thread))))
    }

    /// Waits for its end.
    pub(crate) fn join(self) -> thread::Result<()> {
        self.0.map_or(Ok(()), JoinHandle::join)
    }
}

struct Worker {
    /// For a wait that has an end.
    runtime: Runtime,
    idleness: Idleness,
    receiver: mpsc::Receiver<Waiting>,
    received: Vec<Waiting>,
    light: VecDeque<Waiting>,
    heavy: VecDeque<Waiting>,
    made: Made,
    settings: Settings,
    shared: Arc<Shared>,
    deliver: Deliver,
    complained: Option<Instant>,
}

/// Records that are not handed on yet.
struct Made {
    records: Vec<Arc<Record>>,
    held: Reservation,
}

impl Worker {
    fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            let lost = self.made.records.len();
            self.made.clear();
            self.shared.recorder_failed_on(lost as u64);
            self.shared.recorder_restarted();
            self.complain(&format!("the recorder failed while it handed on {lost} records; they are lost"));
        }
    }

    /// Until nothing can come any more.
    fn work(&mut self) {
        // What a panic has left.
        self.record_light();
        self.hand_on();
        while let Some(received) = self.receive() {
            self.record_light();
            self.record_heavy();
            self.hand_on();
            if received < BATCH && self.heavy.is_empty() {
                thread::sleep(PACE);
            }
        }
    }

    /// Takes in what waits; none when all is done. Waits for something only when there is nothing else to do.
    fn receive(&mut self) -> Option<usize> {
        let most = self.receiver.len().max(BATCH);
        if self.heavy.is_empty() {
            self.wait(most);
        } else {
            while self.received.len() < most {
                match self.receiver.try_recv() {
                    Ok(waiting) => self.received.push(waiting),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
        }
        let received = self.received.len();
        for waiting in self.received.drain(..) {
            let queue = if is_heavy(&waiting.exchange) { &mut self.heavy } else { &mut self.light };
            queue.push_back(waiting);
        }
        (received > 0 || !self.heavy.is_empty()).then_some(received)
    }

    fn wait(&mut self, most: usize) {
        let Self { runtime, receiver, received, .. } = self;
        let mut wait = || {
            let next =
                async { tokio::time::timeout(memory::PERIOD, receiver.recv_many(received, most)).await };
            runtime.block_on(next)
        };
        while wait().is_err() {
            let _ = self.idleness.tick(self.shared.all_handed_on());
        }
    }

    fn record_light(&mut self) {
        while let Some(waiting) = self.light.pop_front() {
            self.record(waiting);
        }
        // A burst is over: its room is not kept.
        self.light.shrink_to(BATCH);
        self.received.shrink_to(BATCH);
    }

    fn record_heavy(&mut self) {
        let began = Instant::now();
        while let Some(waiting) = self.heavy.pop_front() {
            self.record(waiting);
            if began.elapsed() >= SLICE {
                break;
            }
        }
        self.heavy.shrink_to(self.heavy.len().max(BATCH));
    }

    /// A panic would be a bug of the recorder's: it costs that one record, and is counted.
    fn record(&mut self, waiting: Waiting) {
        let settings = &self.settings;
        match catch_unwind(AssertUnwindSafe(|| assemble(waiting.exchange, settings))) {
            Ok(record) => self.made.push(record),
            Err(_) => {
                self.shared.recorder_failed_on(1);
                self.complain("the recorder failed on a request; it makes no record");
            }
        }
        if self.made.is_full() {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        if !self.made.records.is_empty() {
            (self.deliver)(&self.made.records);
            self.shared.handed_on(self.made.records.len() as u64);
            self.made.clear();
        }
    }

    fn complain(&mut self, of: &str) {
        if self.complained.is_none_or(|last| last.elapsed() >= QUIET) {
            self.complained = Some(Instant::now());
            let lost = self.shared.all_recorder_failed();
            error!(lost, "{of}");
        }
    }
}

impl Made {
    fn push(&mut self, record: Record) {
        self.held.add(record.size() as u64);
        self.records.push(Arc::new(record));
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH || self.held.bytes() >= BATCH_BYTES
    }

    fn clear(&mut self) {
        self.records.clear();
        self.held.clear();
    }
}

/// Whether its bodies may be costly to read: large ones, and those in a content coding. Few clients send such, and what
/// these few bytes become is theirs to choose.
fn is_heavy(exchange: &Exchange) -> bool {
    let Exchange { request, response, .. } = exchange;
    let size = |captured: &Captured| match &captured.kept {
        Kept::Nothing | Kept::Shed => 0,
        Kept::Whole(bytes) | Kept::Ends { head: bytes, .. } => bytes.as_slice().len(),
    };
    let is_coded = |captured: &Captured| captured.content_encoding.is_some();
    (is_coded(request) && size(request) > 0)
        || (is_coded(response) && size(response) > HEAVY_CODED_BYTES)
        || size(request) + size(response) > HEAVY_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::recorder::{
        exchange::Captured,
        tests::golden::{captured, exchange, piece, settings, value},
    };

    type Handed = Arc<Mutex<Vec<Vec<String>>>>;

    fn request(path: &str, body: &[u8], coding: Option<&str>) -> Exchange {
        let answer = captured("application/json", vec![piece("{}", 0)]);
        let request = captured("application/json", vec![piece(body, 0)]);
        let request = Captured { content_encoding: coding.map(str::to_owned), ..request };
        Exchange { request, ..exchange("openai", path, answer) }
    }

    fn path(record: &Record) -> String {
        value(&record.metrics)["path"].as_str().unwrap().to_owned()
    }

    /// Hands over `exchanges` and waits until all is recorded; the batches of paths, and the intake.
    fn run(
        exchanges: Vec<Exchange>,
        budget: &Arc<Budget>,
        mut before: impl FnMut(&[Arc<Record>]) + Send + 'static,
    ) -> (Vec<Vec<String>>, crate::recorder::Tally) {
        let handed = Handed::default();
        let (gate, opened) = std::sync::mpsc::channel::<()>();
        let seen = handed.clone();
        let deliver: Deliver = Box::new(move |records| {
            // All has been handed over before the first batch is done.
            let _ = opened.recv();
            before(records);
            seen.lock().unwrap().push(records.iter().map(|record| path(record)).collect());
        });
        let (intake, recorder) = Recorder::start(settings(), budget, Some(deliver)).unwrap();
        let tally = intake.tally();
        exchanges.into_iter().for_each(|exchange| intake.hand_over(exchange));
        drop((intake, gate));
        recorder.join().unwrap();
        (Arc::try_unwrap(handed).unwrap().into_inner().unwrap(), tally)
    }

    #[test]
    fn a_panic_while_handing_on_costs_one_batch_and_is_counted() {
        // The second call comes when all others wait behind it.
        for failing in [1, 2] {
            let mut calls = 0;
            let exchanges =
                (0..3 * BATCH).map(|number| request(&format!("/{number}"), b"{}", None)).collect();
            let (handed, tally) = run(exchanges, &Budget::new(1 << 30), move |_| {
                calls += 1;
                assert!(calls != failing, "this call fails");
            });
            let recorded = handed.concat().len() as u64;
            let [full, failed] = tally.losses();
            assert_eq!((full.1, recorded + failed.1), (0, 3 * BATCH as u64), "call {failing}");
            assert!(failed.1 >= 1 && failed.1 <= BATCH as u64, "call {failing}");
            assert_eq!((tally.restarts(), tally.recorded()), (1, recorded), "call {failing}");
        }
    }

    #[test]
    fn records_are_handed_on_by_bytes_and_counted_in_the_budget_until_then() {
        let budget = Budget::new(1 << 30);
        let body = format!("{{\"text\":\"{}\"}}", "x".repeat(60_000));
        let exchanges = (0..200).map(|_| request("/", body.as_bytes(), None)).collect();
        let watched = budget.clone();
        let (handed, _) = run(exchanges, &budget, move |records| {
            let bytes: usize = records.iter().map(|record| record.size()).sum();
            assert!(bytes as u64 <= BATCH_BYTES + 70_000, "{bytes}");
            assert!(watched.used() >= bytes as u64);
        });
        assert_eq!(handed.concat().len(), 200);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn light_requests_go_before_heavy_ones_that_came_earlier() {
        let zeros = format!("{{\"text\":\"{}\"}}", "0".repeat(30_000));
        let [(_, zipped), ..] = &crate::recorder::body::tests::encoded(zeros.as_bytes())[..] else {
            panic!()
        };
        let mut exchanges = vec![request("/first", b"{}", None)];
        exchanges.extend((0..500).map(|_| request("/heavy", zipped, Some("gzip"))));
        exchanges.extend((0..300).map(|_| request("/light", b"{}", None)));
        let (handed, tally) = run(exchanges, &Budget::new(1 << 30), |_| {});
        let order = handed.concat();
        assert_eq!((order.len(), tally.losses()), (801, [("hand_over_full", 0), ("recorder_failed", 0)]));
        // What the recorder took in before the first batch was handed on may have been heavy.
        let last_light = order.iter().rposition(|path| path == "/light").unwrap();
        let heavy_before = order[..last_light].iter().filter(|path| *path == "/heavy").count();
        assert!(heavy_before < 400, "{heavy_before} heavy requests went first");
    }

    #[test]
    fn without_anybody_who_wants_records_none_are_made() {
        let (intake, recorder) = Recorder::start(settings(), &Budget::new(1), None).unwrap();
        intake.hand_over(request("/", b"{}", None));
        assert_eq!(intake.tally().losses()[0].1, 0);
        recorder.join().unwrap();
    }
}
