//! From a finished record to a delivered batch: one bounded queue per exporter, batching, retry, circuit breaking and
//! books that balance.
//!
//! | module | what it is |
//! |---|---|
//! | `queue`, `books`, `item` | what waits, and where every record went |
//! | `dead_letter`, `outlet` | what is kept of records that are given up, and who hears of it |
//! | `driver` | takes batches and sees each through to its end |
//! | `judge`, `breaker`, `backoff`, `rate` | the decisions, as pure functions and state machines |
//! | `exporter`, `settings` | one exporter put together |
//! | `observer`, `notice` | what is measured, and what is logged |

mod backoff;
mod books;
mod breaker;
pub mod config;
pub(crate) mod dead_letter;
mod driver;
mod exporter;
mod item;
mod judge;
mod notice;
mod observer;
mod outlet;
mod queue;
mod rate;
mod settings;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tracing::{info, warn};

pub(crate) use self::{
    books::{DropReason, RejectReason, Snapshot},
    breaker::BreakerState,
    exporter::Exporter,
    observer::Instruments,
    outlet::{Fate, Outlet},
};
use crate::{loader::Plugin, recorder::Record};

/// How long the end waits for the disk that the dead letters go to.
const DEAD_LETTERS_GRACE: Duration = Duration::from_secs(5);

/// All exporters. Records go in by [`Pipeline::submit`]; nothing ever comes back to the request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pipeline {
    exporters: Arc<[Arc<Exporter>]>,
}

impl Pipeline {
    pub(crate) fn new(exporters: Vec<Arc<Exporter>>) -> Self {
        Self { exporters: exporters.into() }
    }

    /// Puts an exporter together from a loaded plugin and its entry in the configuration.
    pub(crate) fn exporter(
        plugin: Plugin,
        entry: &config::Plugin,
        instruments: &Instruments,
    ) -> Arc<Exporter> {
        Self::exporter_with(plugin, entry, instruments, settings::dead_letters(entry))
    }

    /// The same with another outlet than the entry's own.
    pub(crate) fn exporter_with(
        plugin: Plugin,
        entry: &config::Plugin,
        instruments: &Instruments,
        outlet: Outlet,
    ) -> Arc<Exporter> {
        Arc::new(settings::exporter(plugin, entry, instruments, outlet))
    }

    pub(crate) fn exporters(&self) -> &[Arc<Exporter>] {
        &self.exporters
    }

    /// Whether any exporter wants records at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.exporters.is_empty()
    }

    /// Hands records to every exporter. Never waits.
    pub(crate) fn submit(&self, records: &[Arc<Record>]) {
        for exporter in self.exporters.iter() {
            exporter.submit(records);
        }
    }

    /// Starts the drivers on the current runtime.
    pub(crate) fn start(&self) -> Drivers {
        let mut tasks = JoinSet::new();
        for exporter in self.exporters.iter() {
            for worker in 0..exporter.settings.workers {
                tasks.spawn(driver::drive(exporter.clone(), worker));
            }
        }
        Drivers { pipeline: self.clone(), tasks }
    }
}

/// The running drivers.
#[derive(Debug)]
pub(crate) struct Drivers {
    pipeline: Pipeline,
    tasks: JoinSet<()>,
}

impl Drivers {
    /// Delivers what is queued, as far as `timeout` allows; accounts for the rest, and ends the plugins.
    pub(crate) async fn shutdown(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        for exporter in self.pipeline.exporters() {
            exporter.queue.close();
        }
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(deadline, drained).await;
        self.tasks.shutdown().await;
        let mut ends = JoinSet::new();
        for exporter in self.pipeline.exporters() {
            ends.spawn(end(exporter.clone(), deadline));
        }
        while ends.join_next().await.is_some() {}
    }
}

async fn end(exporter: Arc<Exporter>, deadline: Instant) {
    let (left, queued) = exporter.queue.abandon(DropReason::Shutdown);
    let mut letters = exporter.take_stranded();
    if exporter.outlet.wants_letters() {
        letters.extend(queued.iter().map(|item| exporter.stopped(item, 0)));
    }
    tokio::join!(exporter.outlet.finish(letters, DEAD_LETTERS_GRACE), stop_plugin(&exporter, deadline));
    tell_books(&exporter, left);
}

async fn stop_plugin(exporter: &Exporter, deadline: Instant) {
    // A second for goodbye even when draining took all the time.
    let grace = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    // The plugin may still be in an export with a later deadline of its own; the flush behind it waits no longer.
    match tokio::time::timeout(grace(), exporter.plugin.flush(grace())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(plugin = &*exporter.name, "flush failed: {error}"),
        Err(_) => warn!(plugin = &*exporter.name, "flush failed: no answer in time"),
    }
    if let Err(error) = exporter.plugin.stop(grace()).await {
        warn!(plugin = &*exporter.name, "not ended cleanly: {error}");
    }
}

fn tell_books(exporter: &Exporter, left: u64) {
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
