//! What is logged about a failing exporter: changes of state at once, repeats at most twice a minute with a count.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use exporter_pipeline::{Notice, Opened};
use tokio::time::Instant;
use tracing::{error, info, warn};

const INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Notices {
    plugin: Arc<str>,
    failures: Mutex<Repeats>,
    refusals: Mutex<Repeats>,
    rejections: Mutex<Repeats>,
    drops: Mutex<Repeats>,
    faults: Mutex<Repeats>,
    scrapes: Mutex<Repeats>,
    dead_letters: Mutex<Repeats>,
}

impl Notices {
    pub(crate) fn new(plugin: Arc<str>) -> Self {
        let repeats = Mutex::default;
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
                if let Some(suppressed) = due(&self.failures, 1) {
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
                if let Some(suppressed) = due(&self.refusals, 1) {
                    let why = "it waits until the backend takes another one or refuses more, which tells a bad \
                               record from a wrong set-up";
                    warn!(plugin, kind, suppressed, "the backend refused a record; {why}: {message}");
                }
            }
            Notice::Rejected { reason, records, message } => {
                if let Some(suppressed) = due(&self.rejections, *records) {
                    let reason = reason.label();
                    warn!(plugin, reason, records, suppressed, "the backend rejected records: {message}");
                }
            }
            Notice::Dropped { reason, records } => {
                if let Some(suppressed) = due(&self.drops, *records) {
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
        if let Some(suppressed) = due(&self.scrapes, 1) {
            warn!(plugin = &*self.plugin, suppressed, "its metrics are missing from /metrics: {why}");
        }
    }

    pub(crate) fn faults(&self, faults: u64) {
        if let Some(suppressed) = due(&self.faults, faults) {
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
        if let Some(suppressed) = due(&self.dead_letters, records) {
            let plugin = &*self.plugin;
            error!(plugin, records, suppressed, "dead letters could not be written and are lost: {why}");
        }
    }
}

#[derive(Debug, Default)]
struct Repeats {
    last: Option<Instant>,
    suppressed: u64,
}

/// How many were kept back since the last line, if a line is due now.
fn due(repeats: &Mutex<Repeats>, count: u64) -> Option<u64> {
    let mut repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if repeats.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
        repeats.suppressed += count;
        return None;
    }
    repeats.last = Some(now);
    Some(std::mem::take(&mut repeats.suppressed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repeat_is_counted_and_told_at_most_once_in_thirty_seconds() {
        let repeats = Mutex::default();
        assert_eq!(due(&repeats, 1), Some(0));
        assert_eq!(due(&repeats, 1), None);
        assert_eq!(due(&repeats, 5), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(due(&repeats, 1), Some(6));
        assert_eq!(due(&repeats, 1), None);
    }
}
