//! The way from a finished request to its record: one bounded hand-over that never waits, and the thread behind it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use plugin_api::EndReason;
use tokio::sync::mpsc;
use tracing::error;

use super::{Exchange, Record, Settings, Summary, assemble};
use crate::proxy::Reservations;

/// Finished requests that may wait for the recorder. Their bodies are bounded by `capture.max_in_flight_bytes`.
const CAPACITY: usize = 65_536;

/// Under load the recorder looks this often, instead of being woken for every request.
const PACE: Duration = Duration::from_millis(5);

/// Where the proxy puts finished requests.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    sender: mpsc::Sender<(Exchange, Reservations)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    aborting: AtomicBool,
}

impl Intake {
    /// Never waits. What finds no place is lost, and counted.
    pub(crate) fn hand_over(&self, mut exchange: Exchange, held: Reservations) {
        if self.shared.aborting.load(Ordering::Relaxed) && exchange.end == EndReason::ClientDisconnect {
            exchange.end = EndReason::GatewayError;
            exchange.error = Some("shutting_down");
        }
        if self.sender.try_send((exchange, held)).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on a request that breaks off was cut by the gateway, not by its client.
    pub(crate) fn abort(&self) {
        self.shared.aborting.store(true, Ordering::Relaxed);
    }

    pub(crate) fn losses(&self) -> Losses {
        Losses(self.shared.clone())
    }
}

/// Requests that made no record, since the recorder could not keep up or failed on them.
#[derive(Debug, Clone)]
pub(crate) struct Losses(Arc<Shared>);

impl Losses {
    pub(crate) fn count(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// Takes records in batches.
pub(crate) type Deliver = Box<dyn FnMut(&[Arc<Record>]) + Send>;

/// What the recorder's thread does with finished requests.
pub(crate) struct Duties {
    /// Counts and measures each.
    pub count: Box<dyn FnMut(&Summary) + Send>,
    /// Takes the records, in batches. Without it nobody wants records, and none are made.
    pub deliver: Option<Deliver>,
}

/// Starts the recorder's thread. It ends when every [`Intake`] is gone and all is recorded.
pub(crate) fn start(settings: Settings, duties: Duties) -> std::io::Result<(Intake, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let shared = Arc::<Shared>::default();
    let intake = Intake { sender, shared: shared.clone() };
    let thread = thread::Builder::new()
        .name("recorder".to_owned())
        .spawn(move || run(receiver, &settings, &shared, duties))?;
    Ok((intake, thread))
}

fn run(
    mut receiver: mpsc::Receiver<(Exchange, Reservations)>,
    settings: &Settings,
    shared: &Shared,
    mut duties: Duties,
) {
    const BATCH: usize = 256;
    let mut finished = Vec::with_capacity(BATCH);
    let mut records = Vec::with_capacity(BATCH);
    while receiver.blocking_recv_many(&mut finished, BATCH) > 0 {
        let full = finished.len() == BATCH;
        match &mut duties.deliver {
            None => finished.drain(..).for_each(|(exchange, _)| (duties.count)(&Summary::of(&exchange))),
            Some(deliver) => {
                records.extend(finished.drain(..).filter_map(|exchange| record(exchange, settings, shared)));
                records.iter().for_each(|record| (duties.count)(&record.summary));
                deliver(&records);
                records.clear();
            }
        }
        if !full {
            thread::sleep(PACE);
        }
    }
}

/// A panic would be a bug of the recorder's: it costs that one record, and is counted.
fn record(
    (exchange, held): (Exchange, Reservations),
    settings: &Settings,
    shared: &Shared,
) -> Option<Arc<Record>> {
    let record = catch_unwind(AssertUnwindSafe(|| assemble(exchange, settings)));
    drop(held);
    record
        .map(Arc::new)
        .inspect_err(|_| {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            error!("the recorder failed on a request; it makes no record");
        })
        .ok()
}
