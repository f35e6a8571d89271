//! Entering what became of a batch.

use std::time::{Duration, Instant};

use plugin_api::abi::status;

use crate::{
    batch::{BatchId, Outcome},
    books::{DropReason, RejectReason},
    breaker::Change,
    effects::{Cause, Effects, Notice, Opened},
    judge::{CallDisposition, Disposition},
    pipeline::{Pipeline, Sent},
    time::later,
    waiting::{Entry, Group, Refusal},
};

/// Records that are refused one after the other, each alone, before the backend has taken any: after so many it is the
/// set-up that is at fault, and not the records.
pub const SETUP_REFUSALS: usize = 3;

/// A record on which the backend fails, and on no other, waits so many times as long as its last call took: it gets a
/// small share of the time.
const PATIENCE: u32 = 4;

/// What a call says of the backend.
enum Backend {
    Works,
    Fails { why: Option<Opened> },
}

impl<T: Clone> Pipeline<T> {
    /// Enters what became of a batch. A batch that is not in flight (any more) changes nothing.
    pub fn settle(&mut self, id: BatchId, outcome: Outcome<T>, now: Instant) -> Effects<T> {
        let mut effects = Effects::default();
        let Some(sent) = self.in_flight.remove(&id) else { return effects };
        self.books.in_flight -= sent.group.entries.len() as u64;
        self.in_flight_bytes -= sent.group.held();
        // A time that has passed asks for nothing.
        let retry_after = outcome.retry_after.filter(|asked| !asked.is_zero());
        let outcome = Outcome { retry_after, ..outcome };
        let (sent, outcome) = self.settle_verdicts(sent, outcome, now, &mut effects);
        let backend = self.settle_call(sent, &outcome, now, &mut effects);
        self.settle_backend(&backend, id, &outcome, now, &mut effects);
        self.end_refusals(&mut effects);
        effects.tell_losses();
        effects.wake = self.policy.workers > 1 || self.is_closed;
        effects
    }

    /// Every record with a verdict of its own goes by it. What is left goes as the call goes.
    fn settle_verdicts(
        &mut self,
        mut sent: Sent<T>,
        mut outcome: Outcome<T>,
        now: Instant,
        effects: &mut Effects<T>,
    ) -> (Sent<T>, Outcome<T>) {
        let entries = std::mem::take(&mut sent.group.entries);
        effects.delivered.reserve(entries.len());
        let mut verdicts = std::mem::take(&mut outcome.verdicts).into_iter();
        for mut entry in entries {
            entry.attempts = entry.attempts.saturating_add(1);
            let verdict = verdicts.next().flatten();
            let disposition = Disposition::of(outcome.status, verdict.as_ref().map(|verdict| verdict.code));
            let reason = || verdict.map(|verdict| verdict.reason).unwrap_or_default();
            match disposition {
                Disposition::Delivered => {
                    effects.delivered.push(entry.item);
                    effects.freed.extend(entry.whole);
                }
                Disposition::Rejected => {
                    self.end(effects, entry, Cause::Rejected(RejectReason::Record), reason());
                }
                Disposition::Retry => self.park_for_retry(entry, reason(), outcome.retry_after, now, effects),
                Disposition::Missing => {
                    effects.faults += 1;
                    self.park_for_retry(entry, reason(), outcome.retry_after, now, effects);
                }
                Disposition::OfTheCall => sent.group.entries.push(entry),
            }
        }
        if !effects.delivered.is_empty() {
            self.books.delivered += effects.delivered.len() as u64;
            self.last_delivery = Some(now);
            self.unproven_refusals = 0;
            self.try_refused_again(now);
        }
        (sent, outcome)
    }

    fn park_for_retry(
        &mut self,
        mut entry: Entry<T>,
        reason: String,
        retry_after: Option<Duration>,
        now: Instant,
        effects: &mut Effects<T>,
    ) {
        if self.is_exhausted(&entry, now) {
            return self.drop_entry(effects, entry, DropReason::RetryExhausted, reason);
        }
        let asked = retry_after.map_or(Duration::ZERO, |asked| self.policy.retry.pause(asked));
        entry.first_attempt = entry.first_attempt.map(|first| later(first, asked));
        entry.due = later(now, self.delay(entry.attempts).max(asked));
        (entry.alone, entry.refusal) = (false, None);
        effects.retries += 1;
        self.waiting.park(entry);
    }

    fn settle_call(
        &mut self,
        sent: Sent<T>,
        outcome: &Outcome<T>,
        now: Instant,
        effects: &mut Effects<T>,
    ) -> Backend {
        match CallDisposition::of(outcome.status) {
            CallDisposition::Answered => Backend::Works,
            CallDisposition::Failed => {
                self.settle_failed(sent, outcome, now, effects);
                let why = (outcome.status == status::UNAUTHORIZED).then_some(Opened::Unauthorized);
                Backend::Fails { why }
            }
            CallDisposition::Refused => {
                let cause = Cause::Rejected(RejectReason::Call);
                self.settle_refused(sent, cause, outcome, now, effects)
            }
            CallDisposition::TooLarge => match (&outcome.smaller, sent.group.entries.as_slice()) {
                (Some((item, size)), [entry]) if *size < entry.size => {
                    self.send_smaller(sent.group, item.clone(), *size, effects);
                    self.backend_that_refused()
                }
                _ => {
                    let cause = Cause::Dropped(DropReason::Oversize);
                    self.settle_refused(sent, cause, outcome, now, effects)
                }
            },
        }
    }

    /// Tries again without its bodies what was too large alone.
    fn send_smaller(&mut self, mut group: Group<T>, item: T, size: u64, effects: &mut Effects<T>) {
        self.shed_bodies += 1;
        for entry in &mut group.entries {
            let large = std::mem::replace(&mut entry.item, item.clone());
            entry.size = size;
            if self.policy.keep_whole {
                entry.whole.get_or_insert(large);
            } else {
                entry.held = size;
                effects.freed.push(large);
            }
        }
        self.waiting.push_parts(vec![group]);
    }

    /// Records that were refused together are split; one that was refused alone is to blame, or the set-up is.
    fn settle_refused(
        &mut self,
        sent: Sent<T>,
        cause: Cause,
        outcome: &Outcome<T>,
        now: Instant,
        effects: &mut Effects<T>,
    ) -> Backend {
        let Sent { mut group, at } = sent;
        if group.entries.len() > 1 {
            if self.is_set_up_wrong {
                self.waiting.push_again(Group::of(group.entries, now));
                return Backend::Fails { why: None };
            }
            self.split_in_two(group, at, now);
            return Backend::Works;
        }
        let since = group.refused_at.unwrap_or(at);
        let Some(entry) = group.entries.pop() else { return Backend::Works };
        self.refuse_alone(entry, since, cause, outcome, now, effects)
    }

    /// The parts of a part go before all others, so that a record is found before more batches are split.
    fn split_in_two(&mut self, mut group: Group<T>, at: Instant, now: Instant) {
        let is_part = group.refused_at.is_some();
        let refused_at = group.refused_at.or(Some(at));
        let second = group.entries.split_off(group.entries.len() / 2);
        let parts = [group.entries, second].map(|part| Group { refused_at, ..Group::of(part, now) });
        if is_part {
            self.waiting.push_parts(parts.into());
        } else {
            parts.into_iter().for_each(|part| self.waiting.push_again(part));
        }
    }

    fn refuse_alone(
        &mut self,
        mut entry: Entry<T>,
        since: Instant,
        cause: Cause,
        outcome: &Outcome<T>,
        now: Instant,
        effects: &mut Effects<T>,
    ) -> Backend {
        let since = entry.refusal.as_ref().map_or(since, |refusal| refusal.at);
        let backend = self.backend_that_refused();
        if !self.is_set_up_wrong && self.has_delivered_since(Some(since)) {
            self.end(effects, entry, cause, outcome.message.clone());
            return backend;
        }
        if self.is_exhausted(&entry, now) {
            let cause =
                if self.is_set_up_wrong { Cause::Dropped(DropReason::BreakerOpenTimeout) } else { cause };
            self.end(effects, entry, cause, outcome.message.clone());
            return backend;
        }
        let message = || outcome.message.clone();
        if entry.refusal.is_none() {
            self.unproven_refusals = self.unproven_refusals.saturating_add(1);
            if !self.is_set_up_wrong {
                effects.notices.push(Notice::Refused { message: message() });
            }
        }
        entry.refusal.get_or_insert_with(|| Refusal { at: now, cause, message: message() });
        entry.alone = true;
        entry.due = later(now, self.delay(entry.attempts));
        effects.retries += 1;
        self.waiting.park(entry);
        if self.is_set_up_wrong || self.unproven_refusals < SETUP_REFUSALS {
            return backend;
        }
        self.is_set_up_wrong = true;
        Backend::Fails { why: Some(Opened::SetUp) }
    }

    /// A backend that refuses is one that works, unless it refuses everything.
    fn backend_that_refused(&self) -> Backend {
        if self.is_set_up_wrong { Backend::Fails { why: None } } else { Backend::Works }
    }

    /// The backend takes records: what it refused before is tried once more, and that refusal counts.
    fn try_refused_again(&mut self, now: Instant) {
        if self.waiting.refused() > 0 {
            for mut entry in self.waiting.take_refused() {
                entry.due = entry.due.min(now);
                self.waiting.park(entry);
            }
        }
    }

    /// At the end, when nothing is left by which the refused ones could be judged, they are to blame. Those that the backend
    /// has taken others after are tried once more first.
    pub(crate) fn end_refusals(&mut self, effects: &mut Effects<T>) {
        let is_all =
            self.is_closed && self.in_flight.is_empty() && self.waiting.refused() == self.waiting.len();
        let is_proven = || self.has_delivered_since(self.waiting.first_refusal());
        if !is_all || self.is_set_up_wrong || is_proven() {
            return;
        }
        for mut entry in self.waiting.take_refused() {
            if let Some(Refusal { cause, message, .. }) = entry.refusal.take() {
                self.end(effects, entry, cause, message);
            }
        }
    }

    /// A call that failed as a whole. Its records are tried again together, and first; if that fails while others are
    /// delivered, they are split, and one that is alone then waits on its own.
    fn settle_failed(&mut self, sent: Sent<T>, outcome: &Outcome<T>, now: Instant, effects: &mut Effects<T>) {
        let Sent { mut group, at } = sent;
        group.failures = group.failures.saturating_add(1);
        if outcome.retry_after.is_none() {
            group.unexplained = group.unexplained.saturating_add(1);
        }
        group.first_failure.get_or_insert(now);
        let is_to_blame = group.is_suspect() && self.has_delivered_since(group.first_failure);
        if is_to_blame && group.entries.len() == 1 {
            return self.park_alone(group, now.saturating_duration_since(at), outcome, now, effects);
        }
        if !is_to_blame {
            let reason = if self.breaker.is_closed() {
                DropReason::RetryExhausted
            } else {
                DropReason::BreakerOpenTimeout
            };
            let entries = std::mem::take(&mut group.entries);
            for entry in entries {
                if self.is_exhausted(&entry, now) {
                    self.drop_entry(effects, entry, reason, outcome.message.clone());
                } else {
                    group.entries.push(entry);
                }
            }
        }
        group.is_first = group.failures == 1;
        group.due = if group.is_first { now } else { later(now, self.delay(group.failures)) };
        effects.retries += u64::from(!group.entries.is_empty());
        self.waiting.push_again(group);
    }

    fn park_alone(
        &mut self,
        mut group: Group<T>,
        took: Duration,
        outcome: &Outcome<T>,
        now: Instant,
        effects: &mut Effects<T>,
    ) {
        let Some(mut entry) = group.entries.pop() else { return };
        if self.is_exhausted(&entry, now) {
            return self.drop_entry(effects, entry, DropReason::RetryExhausted, outcome.message.clone());
        }
        entry.alone = true;
        entry.due = later(now, self.delay(entry.attempts).max(took.saturating_mul(PATIENCE)));
        effects.retries += 1;
        self.waiting.park(entry);
    }

    /// Breaker, pause and panics, by what the call said of the backend.
    fn settle_backend(
        &mut self,
        backend: &Backend,
        id: BatchId,
        outcome: &Outcome<T>,
        now: Instant,
        effects: &mut Effects<T>,
    ) {
        self.panics = if outcome.status == status::PANIC { self.panics.saturating_add(1) } else { 0 };
        if self.panics > 0 && self.panics >= self.policy.max_panics {
            let reason = format!("{} panics in a row, the last one: {}", self.panics, outcome.message);
            effects.disable = Some(reason);
        }
        let Backend::Fails { why } = *backend else {
            (self.failed_calls, self.is_set_up_wrong) = (0, false);
            if self.breaker.succeeded() == Change::Closed {
                effects.notices.push(Notice::Recovered);
            }
            return;
        };
        self.failed_calls = self.failed_calls.saturating_add(1);
        let asked = outcome.retry_after.map(|asked| self.policy.retry.pause(asked));
        let pause = asked.unwrap_or_else(|| self.delay(self.failed_calls));
        let until = later(now, pause);
        self.paused_until = self.paused_until.max(Some(until));
        if asked.is_some() {
            let since = self.asked_until.map_or(now, |asked| asked.max(now));
            self.asked_pauses += until.saturating_duration_since(since);
            self.asked_until = self.asked_until.max(Some(until));
        }
        let message = outcome.message.clone();
        // One that says when it wants to be called again is there, and the pause is all that it asks for.
        let is_pause_enough = asked.is_some() && why.is_none() && self.breaker.is_closed();
        let change = if is_pause_enough {
            Change::None
        } else {
            self.breaker.failed(now, why.is_some(), self.probe == Some(id))
        };
        // That it is the set-up is news even of a backend that failed before.
        effects.notices.push(if change == Change::Opened || why == Some(Opened::SetUp) {
            Notice::BreakerOpened { why: why.unwrap_or(Opened::Failures), message }
        } else {
            Notice::CallFailed { message, pause: asked, is_probe: self.probe == Some(id) }
        });
    }

    fn is_exhausted(&self, entry: &Entry<T>, now: Instant) -> bool {
        let asked = self.asked_pauses.saturating_sub(entry.pauses_before);
        let since = entry.first_attempt.map(|first| now.saturating_duration_since(first));
        since.is_some_and(|elapsed| self.policy.retry.is_exhausted(elapsed.saturating_sub(asked)))
    }

    /// Wait after so many failures, with jitter.
    fn delay(&mut self, failures: u32) -> Duration {
        let jitter = self.random.f64();
        self.policy.retry.delay(failures.saturating_sub(1), jitter)
    }
}
