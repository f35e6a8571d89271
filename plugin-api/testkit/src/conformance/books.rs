//! What happened so far.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use exporter_pipeline::{Cause, DropReason, Effects, GivenUp};
use plugin_api::abi::status;

use super::backend::canonical;
use crate::{Outcome, Sample, Verdict};

/// Different error texts that are kept for the report.
const KEPT_ERRORS: usize = 5;

/// How a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    Rejected(String),
    Dropped(DropReason),
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// By canonical id.
    pub ends: BTreeMap<String, End>,
    pub calls: u32,
    /// Records and batches that were sent again because the plugin said so.
    pub retried: u64,
    /// Calls that were refused as a whole, for good.
    pub refused: u32,
    /// The longest pause that the plugin asked for.
    pub pause: Option<Duration>,
    /// Breaches of the contract, each once.
    pub faults: Vec<String>,
    /// The last different error texts.
    pub errors: Vec<String>,
    /// What no text may contain.
    pub secrets: Vec<String>,
}

impl Books {
    pub(super) fn fault(&mut self, fault: impl Into<String>) {
        let fault = fault.into();
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Hears a text of the plugin's.
    pub(super) fn text(&mut self, text: &str) {
        if self.secrets.iter().any(|secret| text.contains(secret)) {
            // Which text is not said, since this message would show the secret in turn.
            self.fault("a text of the plugin's shows a setting that is marked `x-secret`");
            return;
        }
        self.errors.retain(|known| known != text);
        self.errors.push(text.to_owned());
        if self.errors.len() > KEPT_ERRORS {
            self.errors.remove(0);
        }
    }

    /// Enters what a step of the pipeline came to.
    pub(super) fn enter(&mut self, effects: Effects<Arc<Sample>>) {
        self.retried += effects.retries;
        for sample in &effects.delivered {
            self.end(sample, End::Delivered);
        }
        for GivenUp { item, cause, message, .. } in effects.given_up {
            let end = match cause {
                Cause::Rejected(_) => End::Rejected(message),
                Cause::Dropped(reason) => End::Dropped(reason),
            };
            self.end(&item, end);
        }
    }

    fn end(&mut self, sample: &Sample, end: End) {
        self.ends.insert(canonical(sample.id()), end);
    }

    /// Hears what a call said.
    pub(super) fn hear(&mut self, outcome: &Outcome) {
        for fault in &outcome.faults {
            self.fault(fault.as_str());
        }
        self.pause = self.pause.max(outcome.retry_after);
        let code = outcome.status;
        self.refused += u32::from(code == status::REJECT);
        match code {
            status::OK | status::PER_RECORD => {}
            status::PANIC => self.fault(format!("`export` panicked: {}", outcome.message)),
            status::FAULT | status::INVALID_CONFIG | status::UNSUPPORTED => {
                self.fault(format!(
                    "`export` ended with status {code}, which it cannot have: {}",
                    outcome.message
                ));
            }
            _ if outcome.message.is_empty() => {
                self.fault(format!("`export` failed with status {code} and no text"));
            }
            _ => {}
        }
        if code != status::OK && code != status::PER_RECORD {
            self.text(&outcome.message);
        }
        for verdict in outcome.verdicts.iter().flatten() {
            match verdict {
                Verdict::Delivered => {}
                Verdict::Retry(reason) if reason.is_empty() => {
                    self.fault("a record is to be sent again for no reason: the text is empty");
                }
                Verdict::Rejected(reason) if reason.is_empty() => {
                    self.fault("a record was rejected for no reason: the text is empty");
                }
                Verdict::Retry(reason) | Verdict::Rejected(reason) => self.text(reason),
            }
        }
    }
}
