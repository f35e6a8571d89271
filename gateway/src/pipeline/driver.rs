//! The thread that delivers: it asks each exporter for batches and sees them sent. It does nothing else, so neither
//! accepting connections nor the admin port ever waits for it, nor it for them.

use std::{io, panic::AssertUnwindSafe, sync::Arc, thread, time::Duration};

use exporter_pipeline::{BatchId, Books, Snapshot};
use futures_util::FutureExt as _;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

use super::{Exporters, exporter::Exporter};
use crate::{loader, memory};

/// How long the end waits for the disk that the dead letters go to.
const DEAD_LETTERS_GRACE: Duration = Duration::from_secs(5);

/// The least time for a plugin's goodbye, also when draining took all there was.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// The running drivers.
#[derive(Debug)]
pub(crate) struct Drivers {
    stop: oneshot::Sender<Instant>,
    stopped: oneshot::Receiver<()>,
}

impl Drivers {
    /// Starts the thread.
    pub(super) fn start(exporters: Exporters) -> io::Result<Self> {
        let (stop, ordered) = oneshot::channel();
        let (done, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("delivery".to_owned()).spawn(move || {
            runtime.block_on(run(exporters, ordered));
            let _ = done.send(());
        })?;
        Ok(Self { stop, stopped })
    }

    /// Delivers what is queued, as far as `timeout` allows; accounts for the rest, and ends the plugins.
    pub(crate) async fn shutdown(self, timeout: Duration) {
        let _ = self.stop.send(Instant::now() + timeout);
        let _ = self.stopped.await;
    }
}

async fn run(exporters: Exporters, ordered: oneshot::Receiver<Instant>) {
    let counted = exporters.clone();
    let work = move || counted.iter().map(|exporter| moved(&exporter.snapshot().books)).sum();
    let idle = tokio::spawn(memory::when_idle(work, loader::heap::give_back));
    let mut tasks = JoinSet::new();
    for exporter in exporters.iter() {
        for worker in 0..exporter.policy.workers {
            tasks.spawn(drive(exporter.clone(), worker));
        }
    }
    // Nobody is left who could order it: what is queued has no time at all.
    let deadline = ordered.await.unwrap_or_else(|_| Instant::now());
    for exporter in exporters.iter() {
        exporter.close();
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    let _ = timeout_at(deadline, drained).await;
    tasks.shutdown().await;
    let mut ends = JoinSet::new();
    for exporter in exporters.iter() {
        ends.spawn(end(exporter.clone(), deadline));
    }
    while ends.join_next().await.is_some() {}
    idle.abort();
}

/// A number that grows whenever a record comes or goes.
fn moved(books: &Books) -> u64 {
    books.accepted + books.delivered + books.all_rejected() + books.all_dropped()
}

/// Runs until the exporter is closed and everything is settled. Worker `worker` of the plugin makes the calls.
async fn drive(exporter: Arc<Exporter>, worker: usize) {
    while let Some(batch) = exporter.next().await {
        let id = batch.id;
        let sent = AssertUnwindSafe(exporter.send(worker, batch)).catch_unwind().await;
        if sent.is_err() {
            survive(&exporter, id);
        }
    }
}

/// A panic on this thread is a bug of the gateway's: it costs an attempt, not the exporter.
fn survive(exporter: &Exporter, id: BatchId) {
    error!(plugin = &*exporter.name, "the gateway failed on a batch; this is a bug, please report it");
    exporter.settle_failed(id, "the gateway failed on this batch");
}

async fn end(exporter: Arc<Exporter>, deadline: Instant) {
    let (left, letters) = exporter.abandon();
    tokio::join!(exporter.sink.finish(letters, DEAD_LETTERS_GRACE), stop_plugin(&exporter, deadline));
    tell_books(&exporter, left);
}

async fn stop_plugin(exporter: &Exporter, deadline: Instant) {
    let grace = || deadline.saturating_duration_since(Instant::now()).max(LAST_CALLS);
    // The plugin may still be in an export with a later deadline of its own; the flush behind it waits no longer.
    match timeout(grace(), exporter.plugin.flush(grace())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(plugin = &*exporter.name, "flush failed: {error}"),
        Err(_) => warn!(plugin = &*exporter.name, "flush failed: no answer in time"),
    }
    if let Err(error) = exporter.plugin.stop(grace()).await {
        warn!(plugin = &*exporter.name, "not ended cleanly: {error}");
    }
}

fn tell_books(exporter: &Exporter, left: usize) {
    let Snapshot { books, .. } = exporter.snapshot();
    let (accepted, delivered) = (books.accepted, books.delivered);
    let (rejected, dropped) = (books.all_rejected(), books.all_dropped());
    let plugin = &*exporter.name;
    if left == 0 {
        info!(plugin, accepted, delivered, rejected, dropped, "exporter stopped");
    } else {
        warn!(
            plugin,
            accepted, delivered, rejected, dropped, left, "exporter stopped with records undelivered"
        );
    }
}
