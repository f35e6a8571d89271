//! From a finished record to a delivered batch. What is decided on the way is `exporter_pipeline`'s; here it is done.
//!
//! | module | what it is |
//! |---|---|
//! | `exporter` | one exporter: its plugin, its pipeline behind a lock, and what is made of each step |
//! | `driver` | the thread that sends batches |
//! | `visible` | what an exporter may see of a record |
//! | `dead_letter`, `outcome_sink` | what is kept of records that are given up, and who hears of it |
//! | `config`, `settings` | `[[plugin]]`, and what follows from it |
//! | `observer`, `notice` | what is measured, and what is logged |

pub mod config;
pub(crate) mod dead_letter;
mod driver;
mod exporter;
mod notice;
mod observer;
mod outcome_sink;
mod settings;
mod visible;

use std::{io, sync::Arc};

use self::visible::Views;
pub(crate) use self::{
    driver::Drivers,
    exporter::Exporter,
    observer::Instruments,
    outcome_sink::{OutcomeSink, RecordOutcome},
};
use crate::{loader::Plugin, recorder::Record};

/// All exporters. Records go in by [`Exporters::submit`]; nothing ever comes back to the request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Exporters(Arc<[Arc<Exporter>]>);

impl Exporters {
    pub(crate) fn new(exporters: Vec<Arc<Exporter>>) -> Self {
        Self(exporters.into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Exporter>> {
        self.0.iter()
    }

    /// Whether nobody wants records at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands records to every exporter. Never waits. One thread alone submits.
    pub(crate) fn submit(&self, records: &[Arc<Record>]) {
        let mut views = Views::of(records);
        for exporter in self.iter() {
            exporter.submit(views.view(exporter.content));
        }
    }

    /// Starts to deliver.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(&self) -> io::Result<Drivers> {
        Drivers::start(self.clone())
    }
}

impl Exporter {
    /// Puts an exporter together from a loaded plugin and its entry in the configuration.
    pub(crate) fn of(plugin: Plugin, entry: &config::Plugin, instruments: &Instruments) -> Arc<Self> {
        Self::with(plugin, entry, instruments, settings::dead_letters(entry))
    }

    /// The same with another sink than the entry's own.
    pub(crate) fn with(
        plugin: Plugin,
        entry: &config::Plugin,
        instruments: &Instruments,
        sink: OutcomeSink,
    ) -> Arc<Self> {
        Arc::new(settings::exporter(plugin, entry, instruments, sink))
    }
}
