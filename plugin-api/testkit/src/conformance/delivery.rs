//! The gateway's part, played: every record is seen through to its end.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use plugin_api::{Content, Description, TelemetryExporter, abi::status, judge::judge};

use super::backend::canonical;
use crate::{Outcome, Plugin, Records, Sample, Verdict};

/// Upper bound of any wait: a test is not to wait as long as a gateway does.
const MAX_DELAY: Duration = Duration::from_millis(100);
/// Wait before the first retry. It doubles.
const FIRST_DELAY: Duration = Duration::from_millis(10);
/// Different error texts that are kept for the report.
const KEPT_ERRORS: usize = 5;

/// How a record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    Rejected(String),
    /// Given up, for the gateway's reason (`retry_exhausted`, `oversize`).
    Dropped(&'static str),
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// By canonical id.
    pub ends: BTreeMap<String, End>,
    pub calls: u32,
    /// Records that were sent again because the plugin said so.
    pub retried: usize,
    /// Breaches of the contract, each once.
    pub faults: Vec<String>,
    /// The last different error texts.
    pub errors: Vec<String>,
    /// What no text may contain.
    pub secrets: Vec<String>,
}

impl Books {
    pub(super) fn fault(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Hears a text of the plugin's.
    pub(super) fn text(&mut self, text: &str) {
        if self.secrets.iter().any(|secret| text.contains(secret)) {
            // Which text is not said, since this message would show the secret in turn.
            self.fault("a text of the plugin's shows a setting that is marked `x-secret`".to_owned());
            return;
        }
        self.errors.retain(|known| known != text);
        self.errors.push(text.to_owned());
        if self.errors.len() > KEPT_ERRORS {
            self.errors.remove(0);
        }
    }

    fn end(&mut self, sample: &Sample, end: End) {
        self.ends.insert(canonical(sample.id()), end);
    }

    fn read(&mut self, outcome: &Outcome) {
        for fault in &outcome.faults {
            self.fault(fault.clone());
        }
        let code = outcome.status;
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
                    self.fault("a record is to be sent again for no reason: the text is empty".to_owned());
                }
                Verdict::Rejected(reason) if reason.is_empty() => {
                    self.fault("a record was rejected for no reason: the text is empty".to_owned());
                }
                Verdict::Retry(reason) | Verdict::Rejected(reason) => self.text(reason),
            }
        }
    }
}

/// A part of a batch on its way.
struct Load {
    samples: Vec<Sample>,
    /// Calls made so far.
    attempt: u32,
}

impl Load {
    fn part(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let samples = indices.into_iter().filter_map(|index| self.samples.get(index).cloned()).collect();
        Self { samples, ..*self }
    }
}

/// Sees records through to their end.
pub(super) struct Delivery<'a, E> {
    pub plugin: &'a Plugin<E>,
    pub exporter: &'a Description,
    pub books: &'a mut Books,
    /// What is not delivered then is given up.
    pub give_up: Instant,
    /// Called before each call, with the number of calls that this delivery has made.
    pub before_call: &'a mut dyn FnMut(u32, &mut Books),
}

impl<E: TelemetryExporter> Delivery<'_, E> {
    /// Delivers `samples` in batches as the descriptor asks for them.
    pub(super) fn run(mut self, samples: Vec<Sample>) {
        let before = self.books.calls;
        let samples: Vec<Sample> = samples.into_iter().filter_map(|sample| self.admit(sample)).collect();
        for samples in batches(self.exporter, samples) {
            self.deliver(samples, before);
        }
    }

    /// What a call leaves undelivered goes back on the stack, on top.
    fn deliver(&mut self, samples: Vec<Sample>, before: u32) {
        let mut stack = vec![Load { samples, attempt: 0 }];
        while let Some(load) = stack.pop() {
            (self.before_call)(self.books.calls - before, self.books);
            self.books.calls += 1;
            let outcome = self.plugin.export_again(&Records::of(load.samples.iter().cloned()), load.attempt);
            self.books.read(&outcome);
            self.settle(&load, &outcome, &mut stack);
        }
    }

    fn settle(&mut self, load: &Load, outcome: &Outcome, stack: &mut Vec<Load>) {
        let verdict_of = |index: usize| outcome.verdicts.get(index).and_then(Option::as_ref);
        let judgement =
            judge(outcome.status, load.samples.len(), |index| verdict_of(index).map(Verdict::code));
        for index in judgement.delivered {
            self.books.end(&load.samples[index], End::Delivered);
        }
        for index in judgement.rejected {
            let reason = verdict_of(index).map_or("", Verdict::reason);
            self.books.end(&load.samples[index], End::Rejected(reason.to_owned()));
        }
        if let Some(index) = judgement.rejected_by_call {
            self.books.end(&load.samples[index], End::Rejected(outcome.message.clone()));
        }
        if let Some(index) = judgement.shed {
            match load.samples[index].without_bodies() {
                Some(smaller) => stack.push(Load { samples: vec![smaller], attempt: load.attempt + 1 }),
                None => self.books.end(&load.samples[index], End::Dropped("oversize")),
            }
        }
        if !judgement.split.is_empty() {
            let (first, second) = judgement.split.split_at(judgement.split.len() / 2);
            stack.push(load.part(second.iter().copied()));
            stack.push(load.part(first.iter().copied()));
        }
        if !judgement.retry.is_empty() {
            let again = load.part(judgement.retry);
            stack.extend(self.back_off(again, outcome.retry_after));
        }
    }

    fn back_off(&mut self, load: Load, retry_after: Option<Duration>) -> Option<Load> {
        let delay = delay(load.attempt, retry_after);
        if self.plugin.is_stuck() || Instant::now() + delay >= self.give_up {
            for sample in &load.samples {
                self.books.end(sample, End::Dropped("retry_exhausted"));
            }
            return None;
        }
        self.books.retried += load.samples.len();
        thread::sleep(delay);
        Some(Load { attempt: load.attempt.saturating_add(1), ..load })
    }

    /// A record over the backend's limit loses bodies; one that is still over it is dropped.
    fn admit(&mut self, sample: Sample) -> Option<Sample> {
        let &Description { limits, content, .. } = self.exporter;
        let limit = limits.max_record_bytes.unwrap_or(u64::MAX).min(limits.max_bytes.unwrap_or(u64::MAX));
        if size(&sample, content) <= limit {
            return Some(sample);
        }
        let smaller = sample.without_bodies().filter(|smaller| size(smaller, content) <= limit);
        if smaller.is_none() {
            self.books.end(&sample, End::Dropped("oversize"));
        }
        smaller
    }
}

/// Bounds of the gateway, cut short: exponential, with what the backend asked for as the floor.
fn delay(attempt: u32, retry_after: Option<Duration>) -> Duration {
    let bound = FIRST_DELAY.saturating_mul(1 << attempt.min(20));
    bound.max(retry_after.unwrap_or_default()).min(MAX_DELAY)
}

/// Bytes of the parts that a plugin of this content sees.
fn size(sample: &Sample, content: Content) -> u64 {
    let bodies = if content == Content::Full { sample.request.len() + sample.response.len() } else { 0 };
    (sample.metrics_json().len() + bodies) as u64
}

/// Records in one batch, at the most.
pub(super) fn max_records(exporter: &Description) -> usize {
    let limit = exporter.limits.max_records.unwrap_or(u32::MAX);
    exporter.batch.max_records.min(limit).max(1) as usize
}

/// Cuts records into batches of the size that the descriptor asks for.
fn batches(exporter: &Description, samples: Vec<Sample>) -> Vec<Vec<Sample>> {
    let max_bytes = exporter.batch.max_bytes.min(exporter.limits.max_bytes.unwrap_or(u64::MAX));
    let (mut batches, mut bytes) = (Vec::<Vec<Sample>>::new(), 0);
    for sample in samples {
        let size = size(&sample, exporter.content);
        match batches.last_mut() {
            Some(batch) if batch.len() < max_records(exporter) && bytes + size <= max_bytes => {
                batch.push(sample);
                bytes += size;
            }
            _ => {
                batches.push(vec![sample]);
                bytes = size;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn samples(count: u32) -> Vec<Sample> {
        (0..count).map(|number| Sample::chat().number(number)).collect()
    }

    fn described(max_records: u32, max_bytes: u64) -> Description {
        serde_json::from_value(json!({
            "name": "x", "version": "1", "api_version": "1", "content": "full", "config_schema": {},
            "batch": { "max_records": max_records, "max_bytes": max_bytes, "max_delay_ms": 1000 },
        }))
        .unwrap()
    }

    #[test]
    fn batches_keep_to_the_descriptor_and_to_the_backends_limits() {
        let size = size(&Sample::chat(), Content::Full);
        let lengths = |records, bytes| {
            let exporter = described(records, bytes);
            batches(&exporter, samples(5)).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(2, u64::MAX), [2, 2, 1]);
        assert_eq!(lengths(10, u64::MAX), [5]);
        assert_eq!(lengths(10, 3 * size + 100), [3, 2]);
        assert_eq!(lengths(10, 1), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_wait_doubles_and_is_never_less_than_asked_for_nor_more_than_a_test_bears() {
        let ms = Duration::from_millis;
        for (attempt, asked, expected) in [
            (0, None, ms(10)),
            (3, None, ms(80)),
            (60, None, MAX_DELAY),
            (0, Some(ms(50)), ms(50)),
            (0, Some(ms(60_000)), MAX_DELAY),
        ] {
            assert_eq!(delay(attempt, asked), expected, "{attempt} {asked:?}");
        }
    }
}
