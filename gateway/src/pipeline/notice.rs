//! What is logged about a failing exporter: changes of state at once, repeats at most twice a minute with a count.

use std::sync::Arc;

use exporter_pipeline::{Notice, Opened};
use tracing::{error, info, warn};

use crate::repeats::Repeats;

#[derive(Debug)]
pub(crate) struct Notices {
    plugin: Arc<str>,
    failures: Repeats,
    refusals: Repeats,
    rejections: Repeats,
    drops: Repeats,
    faults: Repeats,
    scrapes: Repeats,
    dead_letters: Repeats,
}

impl Notices {
    pub(crate) fn new(plugin: Arc<str>) -> Self {
        let repeats = Repeats::default;
        Self {
            plugin,
            failures: repeats(),
            refusals: repeats(),
            rejections: repeats(),
            drops: repeats(),
            faults: repeats(),
            scrapes: repeats(),
            dead_letters: repeats(),
        }
    }

    /// `kind` is the status of the call that the notice is about.
    pub(super) fn tell(&self, notice: &Notice, kind: &'static str) {
        let plugin = &*self.plugin;
        match notice {
            Notice::CallFailed { message, pause, is_probe } => {
                if let Some(suppressed) = self.failures.due(1) {
                    match pause {
                        Some(pause) => warn!(
                            plugin,
                            kind, suppressed, "the backend asks to be left alone for {pause:?}: {message}"
                        ),
                        None if *is_probe => warn!(
                            plugin,
                            kind, suppressed, "a probe failed too; circuit breaker still open: {message}"
                        ),
                        None => {
                            warn!(
                                plugin,
                                kind, suppressed, "an export failed and will be retried: {message}"
                            );
                        }
                    }
                }
            }
            Notice::BreakerOpened { why, message } => self.breaker_opened(*why, kind, message),
            Notice::Recovered => info!(plugin, "exports succeed again; circuit breaker closed"),
            Notice::Refused { message } => {
                if let Some(suppressed) = self.refusals.due(1) {
                    let why = "it waits until the backend takes another one or refuses more, which tells a bad \
                               record from a wrong set-up";
                    warn!(plugin, kind, suppressed, "the backend refused a record; {why}: {message}");
                }
            }
            Notice::Rejected { reason, records, message } => {
                if let Some(suppressed) = self.rejections.due(*records) {
                    let reason = reason.label();
                    warn!(plugin, reason, records, suppressed, "the backend rejected records: {message}");
                }
            }
            Notice::Dropped { reason, records } => {
                if let Some(suppressed) = self.drops.due(*records) {
                    warn!(plugin, records, reason = reason.label(), suppressed, "records dropped");
                }
            }
        }
    }

    fn breaker_opened(&self, why: Opened, kind: &'static str, message: &str) {
        let plugin = &*self.plugin;
        match why {
            Opened::Unauthorized => {
                error!(plugin, kind, "the backend refuses the credentials; circuit breaker open: {message}");
            }
            Opened::SetUp => error!(
                plugin,
                kind,
                "the backend refuses every record, so the set-up is at fault, not the records: check the address and \
                 the settings; circuit breaker open; the records wait, and only those that are tried now and then are \
                 given up in time (`retry.max_elapsed`): {message}"
            ),
            Opened::Failures => {
                warn!(plugin, kind, "circuit breaker open after failed exports, the last one: {message}");
            }
        }
    }

    pub(crate) fn disabled(&self, reason: &str) {
        error!(plugin = &*self.plugin, "disabled: {reason}");
    }

    pub(crate) fn scrape_failed(&self, why: &str) {
        if let Some(suppressed) = self.scrapes.due(1) {
            warn!(plugin = &*self.plugin, suppressed, "its metrics are missing from /metrics: {why}");
        }
    }

    pub(crate) fn faults(&self, faults: u64) {
        if let Some(suppressed) = self.faults.due(faults) {
            let plugin = &*self.plugin;
            error!(
                plugin,
                faults,
                suppressed,
                "the plugin gave verdicts on records that are not there, or none where one is due"
            );
        }
    }

    pub(crate) fn dead_letters_failed(&self, records: u64, why: &str) {
        if let Some(suppressed) = self.dead_letters.due(records) {
            let plugin = &*self.plugin;
            error!(plugin, records, suppressed, "dead letters could not be written and are lost: {why}");
        }
    }
}
