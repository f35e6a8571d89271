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
        Delivery { exporter: &exporter, worker }.deliver(items).await;
    }
}

/// A part of a batch on its way.
struct Load {
    items: Vec<Item>,
    /// Calls made so far, for the backoff and for the plugin to see.
    attempt: u32,
    first_attempt: Option<Instant>,
}

impl Load {
    fn part(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let items = indices.into_iter().filter_map(|index| self.items.get(index).cloned()).collect();
        Self { items, ..*self }
    }
}

struct Delivery<'a> {
    exporter: &'a Exporter,
    worker: usize,
}

impl Delivery<'_> {
    /// What a call leaves undelivered goes back on the stack, on top: order is kept as far as retries allow.
    async fn deliver(&self, items: Vec<Item>) {
        let mut stack = vec![Load { items, attempt: 0, first_attempt: None }];
        while let Some(mut load) = stack.pop() {
            if let Err(reason) = self.wait_for_permit(&load).await {
                self.drop_all(&load, reason);
                continue;
            }
            load.first_attempt.get_or_insert_with(Instant::now);
            match self.call(&load).await {
                Ok(outcome) => self.settle(load, &outcome, &mut stack).await,
                Err(failed) => {
                    self.unanswered(&failed);
                    stack.push(load);
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
        let delay = self.exporter.rate_delay(load.items.len(), Instant::now());
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
        let batch = Arc::new(Items(load.items.clone()));
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

    async fn settle(&self, load: Load, outcome: &ExportOutcome, stack: &mut Vec<Load>) {
        let judgement = judge(outcome, load.items.len());
        self.tell(outcome, &judgement);
        self.count(&load, &judgement);
        if let Some(index) = judgement.shed {
            stack.extend(self.without_bodies(&load, index));
        }
        if !judgement.split.is_empty() {
            let (first, second) = judgement.split.split_at(judgement.split.len() / 2);
            stack.push(load.part(second.iter().copied()));
            stack.push(load.part(first.iter().copied()));
        }
        if !judgement.retry.is_empty() {
            let again = load.part(judgement.retry.iter().copied());
            stack.extend(self.back_off(again, outcome.retry_after).await);
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
        if judgement.delivered > 0 {
            queue.delivered(judgement.delivered);
            self.observe_delay(load, judgement);
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
    }

    fn observe_delay(&self, load: &Load, judgement: &Judgement) {
        if judgement.delivered == load.items.len() {
            for item in &load.items {
                self.exporter.observer.delivered_after(item.record().finished.elapsed());
            }
        } else if let Some(item) = load.items.first() {
            self.exporter.observer.delivered_after(item.record().finished.elapsed());
        }
    }

    /// A record that is too large alone is tried without its bodies, once; there is nothing to take off after that.
    fn without_bodies(&self, load: &Load, index: usize) -> Option<Load> {
        let smaller = load.items.get(index).and_then(|item| item.shed_to(0));
        match smaller {
            Some(item) => {
                self.exporter.queue.count_shed_body();
                Some(Load { items: vec![item], attempt: load.attempt + 1, first_attempt: load.first_attempt })
            }
            None => {
                self.exporter.queue.dropped(DropReason::Oversize, 1);
                self.exporter.notices.gave_up(1, DropReason::Oversize.label());
                None
            }
        }
    }

    async fn back_off(&self, load: Load, retry_after: Option<Duration>) -> Option<Load> {
        let retry = &self.exporter.settings.retry;
        let elapsed = load.first_attempt.map_or(Duration::ZERO, |first| first.elapsed());
        let delay = retry.delay(load.attempt, retry_after, fastrand::f64());
        if retry.is_exhausted(elapsed) || retry.is_exhausted(elapsed + delay) {
            self.drop_all(&load, DropReason::RetryExhausted);
            return None;
        }
        self.exporter.observer.retry();
        sleep(delay).await;
        Some(Load { attempt: load.attempt.saturating_add(1), ..load })
    }

    fn drop_all(&self, load: &Load, reason: DropReason) {
        self.exporter.queue.dropped(reason, load.items.len());
        self.exporter.notices.gave_up(load.items.len(), reason.label());
    }
}
