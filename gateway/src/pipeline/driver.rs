//! Takes batches from an exporter's queue and sees each through to its end: delivered, rejected or dropped.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    books::{DropReason, RejectReason},
    breaker::Permit,
    exporter::{Exporter, Failure},
    item::{Item, Items},
    judge::{Judgement, judge},
};
use crate::loader::{CallFailed, CallStatus, ExportOutcome};

/// Runs until the queue is closed and empty. Worker `worker` of the exporter makes the calls.
pub(crate) async fn drive(exporter: Arc<Exporter>, worker: usize) {
    while let Some(items) = exporter.queue.take(&exporter.settings.batch).await {
        exporter.observer.batch(items.len());
        let stack = vec![Load::new(items)];
        Delivery { exporter: &exporter, worker, stack }.deliver().await;
    }
}

/// A part of a batch on its way.
#[derive(Clone)]
struct Load {
    items: Arc<Items>,
    /// Calls made so far, for the backoff and for the plugin to see.
    attempt: u32,
    first_attempt: Option<Instant>,
    /// Not to be sent before, for the sake of the backoff.
    due: Option<Instant>,
    /// The record as it was, when this is what is left of it without its bodies.
    whole: Option<Item>,
}

impl Load {
    fn new(items: Vec<Item>) -> Self {
        Self { items: Arc::new(Items(items)), attempt: 0, first_attempt: None, due: None, whole: None }
    }

    fn len(&self) -> usize {
        self.items.0.len()
    }

    fn part(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let items = indices.into_iter().filter_map(|index| self.items.0.get(index).cloned()).collect();
        Self { items: Arc::new(Items(items)), ..self.clone() }
    }

    /// The records as they came out of the queue.
    fn originals(&self) -> impl Iterator<Item = &Item> {
        let len = if self.whole.is_some() { 0 } else { self.len() };
        self.whole.iter().chain(&self.items.0[..len])
    }
}

/// Sees one batch through. Every record of it that is not settled yet is on the stack, also while a call is made:
/// what is there when the driver is stopped is stranded, not lost.
struct Delivery<'a> {
    exporter: &'a Exporter,
    worker: usize,
    stack: Vec<Load>,
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        for load in &self.stack {
            self.exporter.strand(load.originals(), load.attempt);
        }
    }
}

impl Delivery<'_> {
    /// What a call leaves undelivered goes back on the stack, on top: order is kept as far as retries allow.
    async fn deliver(&mut self) {
        while let Some(top) = self.stack.last() {
            let load = top.clone();
            if let Some(due) = load.due {
                sleep_until(due).await;
            }
            if let Err(reason) = self.wait_for_permit(&load).await {
                self.stack.pop();
                self.drop_all(&load, reason, load.attempt);
                continue;
            }
            let load = Load { first_attempt: load.first_attempt.or_else(|| Some(Instant::now())), ..load };
            let outcome = self.call(&load).await;
            self.stack.pop();
            match outcome {
                Ok(outcome) => self.settle(&load, &outcome),
                Err(failed) => {
                    self.unanswered(&failed);
                    self.stack.push(load);
                }
            }
        }
    }

    /// Waits for the breaker, a plugin that is stuck or disabled, and the rate limit.
    async fn wait_for_permit(&self, load: &Load) -> Result<(), DropReason> {
        let since = load.first_attempt.unwrap_or_else(Instant::now);
        loop {
            match self.exporter.permit(Instant::now()) {
                Permit::Granted => break,
                Permit::Wait(until) => {
                    let expires = self.expires(since);
                    sleep_until(expires.map_or(until, |expires| expires.min(until))).await;
                    if self.exporter.settings.retry.is_exhausted(since.elapsed()) {
                        return Err(DropReason::BreakerOpenTimeout);
                    }
                }
            }
        }
        let delay = self.exporter.rate_delay(load.len(), Instant::now());
        if !delay.is_zero() {
            sleep(delay).await;
        }
        Ok(())
    }

    fn expires(&self, since: Instant) -> Option<Instant> {
        let max_elapsed = self.exporter.settings.retry.max_elapsed;
        (!max_elapsed.is_zero()).then(|| since + max_elapsed)
    }

    async fn call(&self, load: &Load) -> Result<ExportOutcome, CallFailed> {
        let exporter = self.exporter;
        let started = Instant::now();
        let batch = load.items.clone();
        let outcome =
            exporter.plugin.export(self.worker, batch, load.attempt, exporter.settings.call_timeout).await;
        let label = outcome.as_ref().map_or("unanswered", |outcome| outcome.status.as_str());
        exporter.observer.call(label, started.elapsed());
        outcome
    }

    /// The plugin is stuck, disabled or stopped: the records wait for it, as for a backend that is down.
    fn unanswered(&self, failed: &CallFailed) {
        let message = failed.to_string();
        let failure =
            Failure { kind: "unanswered", message: &message, is_unauthorized: false, is_panic: false };
        self.exporter.call_failed(&failure, Instant::now());
    }

    fn settle(&mut self, load: &Load, outcome: &ExportOutcome) {
        let judgement = judge(outcome, load.len());
        self.tell(outcome, &judgement);
        self.count(load, &judgement);
        if let Some(index) = judgement.shed {
            let smaller = self.without_bodies(load, index, &outcome.message);
            self.stack.extend(smaller);
        }
        if !judgement.split.is_empty() {
            let (first, second) = judgement.split.split_at(judgement.split.len() / 2);
            self.stack.push(load.part(second.iter().copied()));
            self.stack.push(load.part(first.iter().copied()));
        }
        if !judgement.retry.is_empty() {
            let again = self.back_off(load.part(judgement.retry.iter().copied()), outcome.retry_after);
            self.stack.extend(again);
        }
    }

    fn tell(&self, outcome: &ExportOutcome, judgement: &Judgement) {
        if judgement.failed {
            let failure = Failure {
                kind: outcome.status.as_str(),
                message: &outcome.message,
                is_unauthorized: outcome.status == CallStatus::Unauthorized,
                is_panic: outcome.status == CallStatus::Panic,
            };
            self.exporter.call_failed(&failure, Instant::now());
        } else {
            self.exporter.call_succeeded();
        }
        if judgement.faults > 0 {
            self.exporter.observer.faults(judgement.faults);
            self.exporter.notices.faults(judgement.faults);
        }
    }

    fn count(&self, load: &Load, judgement: &Judgement) {
        let queue = &self.exporter.queue;
        if !judgement.delivered.is_empty() {
            queue.delivered(judgement.delivered.len());
            self.observe_delay(load, judgement);
            if self.exporter.outlet.wants_deliveries() {
                let ids = judgement.delivered.iter().filter_map(|index| load.items.0.get(*index));
                self.exporter.outlet.delivered(ids.map(|item| item.record().id).collect());
            }
        }
        for reason in RejectReason::ALL {
            let mut of_reason = judgement.rejected.iter().filter(|(_, given, _)| *given == reason);
            if let Some((_, _, message)) = of_reason.next() {
                let records = 1 + of_reason.count();
                queue.rejected(reason, records);
                self.exporter.notices.rejected(records, reason, message);
                self.exporter.note_error(message.clone());
            }
        }
        for (index, reason, message) in &judgement.rejected {
            if let Some(item) = load.whole.as_ref().or_else(|| load.items.0.get(*index)) {
                self.exporter.lose(item, *reason, message.clone(), load.attempt.saturating_add(1));
            }
        }
    }

    fn observe_delay(&self, load: &Load, judgement: &Judgement) {
        if judgement.delivered.len() == load.len() {
            for item in &load.items.0 {
                self.exporter.observer.delivered_after(item.record().finished.elapsed());
            }
        } else if let Some(item) = load.items.0.first() {
            self.exporter.observer.delivered_after(item.record().finished.elapsed());
        }
    }

    /// A record that is too large alone is tried without its bodies, once; there is nothing to take off after that.
    fn without_bodies(&self, load: &Load, index: usize, message: &str) -> Option<Load> {
        let item = load.items.0.get(index)?;
        let attempt = load.attempt.saturating_add(1);
        if let Some(smaller) = item.shed_to(0) {
            self.exporter.queue.count_shed_body();
            let whole = self.exporter.outlet.wants_letters().then(|| item.clone());
            let items = Arc::new(Items(vec![smaller]));
            return Some(Load { items, attempt, whole, due: None, ..load.clone() });
        }
        self.exporter.queue.dropped(DropReason::Oversize, 1);
        self.exporter.notices.gave_up(1, DropReason::Oversize.label());
        for item in load.originals() {
            self.exporter.lose(item, DropReason::Oversize, message.to_owned(), attempt);
        }
        None
    }

    fn back_off(&self, load: Load, retry_after: Option<Duration>) -> Option<Load> {
        let retry = &self.exporter.settings.retry;
        let elapsed = load.first_attempt.map_or(Duration::ZERO, |first| first.elapsed());
        let delay = retry.delay(load.attempt, retry_after, fastrand::f64());
        if retry.is_exhausted(elapsed) || retry.is_exhausted(elapsed + delay) {
            self.drop_all(&load, DropReason::RetryExhausted, load.attempt.saturating_add(1));
            return None;
        }
        self.exporter.observer.retry();
        let due = Some(Instant::now() + delay);
        Some(Load { attempt: load.attempt.saturating_add(1), due, ..load })
    }

    fn drop_all(&self, load: &Load, reason: DropReason, attempts: u32) {
        self.exporter.queue.dropped(reason, load.len());
        self.exporter.notices.gave_up(load.len(), reason.label());
        let last_error = self.exporter.last_error().unwrap_or_default();
        for item in load.originals() {
            self.exporter.lose(item, reason, last_error.clone(), attempts);
        }
    }
}
