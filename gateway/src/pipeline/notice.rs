//! What is logged about a failing exporter: changes of state at once, repeats at most twice a minute with a count.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{books::RejectReason, exporter::Failure};

const INTERVAL: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Notices {
    plugin: Arc<str>,
    failures: Mutex<Repeats>,
    rejections: Mutex<Repeats>,
    faults: Mutex<Repeats>,
    dead_letters: Mutex<Repeats>,
}

impl Notices {
    pub(crate) fn new(plugin: Arc<str>) -> Self {
        let repeats = Mutex::default;
        Self {
            plugin,
            failures: repeats(),
            rejections: repeats(),
            faults: repeats(),
            dead_letters: repeats(),
        }
    }

    pub(crate) fn call_failed(&self, failure: &Failure<'_>) {
        if let Some(suppressed) = due(&self.failures, 1) {
            let (plugin, kind, message) = (&*self.plugin, failure.kind, failure.message);
            warn!(plugin, kind, suppressed, "an export failed and will be retried: {message}");
        }
    }

    pub(crate) fn breaker_opened(&self, failure: &Failure<'_>) {
        let (plugin, kind, message) = (&*self.plugin, failure.kind, failure.message);
        if failure.is_unauthorized {
            error!(plugin, kind, "the backend refuses the credentials; circuit breaker open: {message}");
        } else {
            warn!(plugin, kind, "circuit breaker open after failed exports, the last one: {message}");
        }
    }

    pub(crate) fn recovered(&self) {
        info!(plugin = &*self.plugin, "exports succeed again; circuit breaker closed");
    }

    pub(crate) fn disabled(&self, reason: &str) {
        error!(plugin = &*self.plugin, "disabled: {reason}");
    }

    pub(crate) fn rejected(&self, records: usize, reason: RejectReason, message: &str) {
        if let Some(suppressed) = due(&self.rejections, records as u64) {
            let (plugin, reason) = (&*self.plugin, reason.label());
            warn!(plugin, reason, records, suppressed, "the backend rejected records: {message}");
        }
    }

    pub(crate) fn faults(&self, faults: u32) {
        if let Some(suppressed) = due(&self.faults, u64::from(faults)) {
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

    pub(crate) fn gave_up(&self, records: usize, reason: &'static str) {
        warn!(plugin = &*self.plugin, records, reason, "records dropped");
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
