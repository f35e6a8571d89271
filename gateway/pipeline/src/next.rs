//! What is sent next, and when.

use std::time::{Duration, Instant};

use crate::{
    batch::{Batch, BatchId, Next},
    breaker::Permit,
    pipeline::{Pipeline, Sent},
    waiting::{Entry, Group},
};

/// Parts that a batch is split into when it failed for a reason that may lie in one record. Every part that holds that
/// record costs a whole timeout, so they are many.
const PARTS: usize = 8;

impl<T: Clone> Pipeline<T> {
    /// A batch to send, or until when to wait, or closed. The records of the batch are in flight until it is settled.
    pub fn next(&mut self, now: Instant) -> Next<T> {
        if self.waiting.is_empty() {
            let is_over = self.is_closed && self.in_flight.is_empty();
            return if is_over { Next::Closed } else { Next::Wait(None) };
        }
        let is_probe = match self.breaker.permit(now) {
            Permit::Granted => false,
            Permit::Probe => true,
            Permit::Until(until) => return Next::Wait(Some(until)),
            Permit::UnderProbe => return Next::Wait(None),
        };
        let paused = self.paused_until.filter(|until| *until > now);
        if let Some(until) = paused.max(self.rate.ready_at(now)) {
            return Next::Wait(Some(until));
        }
        let chosen = if is_probe && self.is_set_up_wrong { self.choose_one(now) } else { self.choose(now) };
        match chosen {
            Some(group) => Next::Send(self.send(group, now)),
            None => Next::Wait(self.next_change()),
        }
    }

    /// What goes first; then in turn what is sent again, and a batch of those that may go together.
    fn choose(&mut self, now: Instant) -> Option<Group<T>> {
        let again = &self.waiting.again;
        if let Some(first) = again.iter().position(|group| group.is_first && group.due <= now) {
            return self.waiting.take_again(first);
        }
        let is_ready = self.is_batch_ready(now);
        if is_ready && self.turn_of_fresh {
            return self.take_together(now);
        }
        self.take_resent(now).or_else(|| if is_ready { self.take_together(now) } else { None })
    }

    /// Something that was sent before and does not go with others.
    fn take_resent(&mut self, now: Instant) -> Option<Group<T>> {
        let place = self.waiting.again.iter().position(|group| group.due <= now);
        let alone = self.waiting.next_due_alone().filter(|due| *due <= now);
        let group_due = place.map(|place| self.waiting.again[place].due);
        let is_alone_earlier = alone.is_some_and(|alone| group_due.is_none_or(|due| alone < due));
        let group = if is_alone_earlier {
            self.waiting.take_alone(now, false).map(|entry| Group::alone(entry, now))
        } else {
            place
                .and_then(|place| self.waiting.take_again(place))
                .and_then(|group| self.first_part(group, now))
        };
        self.turn_of_fresh = group.is_some();
        group
    }

    /// The group itself, or the first of its parts when others were delivered while it failed.
    fn first_part(&mut self, group: Group<T>, now: Instant) -> Option<Group<T>> {
        if group.entries.len() == 1 || !group.is_suspect() || !self.has_delivered_since(group.first_failure) {
            return Some(group);
        }
        let size = group.entries.len().div_ceil(PARTS);
        let mut entries = group.entries.into_iter();
        let mut parts = Vec::new();
        loop {
            let part: Vec<_> = entries.by_ref().take(size).collect();
            if part.is_empty() {
                break;
            }
            parts.push(Group { entries: part, due: now, is_first: false, ..group });
        }
        self.waiting.push_parts(parts);
        self.waiting.take_again(0)
    }

    /// Parked records that are due, and fresh ones. While fresh ones wait, parked ones take at most half.
    fn take_together(&mut self, now: Instant) -> Option<Group<T>> {
        self.turn_of_fresh = false;
        let limits = self.policy.batch;
        let with_fresh = self.may_take_fresh();
        let mut entries = if with_fresh && !self.waiting.fresh.is_empty() {
            // One that is larger than this share gets its chance in every second batch.
            self.turn_of_large = !self.turn_of_large;
            let half = (limits.max_records / 2, limits.max_bytes / 2);
            self.waiting.take_due(now, half.0, half.1, self.turn_of_large)
        } else {
            self.waiting.take_due(now, limits.max_records, limits.max_bytes, true)
        };
        let bytes = |entries: &[Entry<T>]| entries.iter().map(|entry| entry.size).sum::<u64>();
        let records_left = limits.max_records.saturating_sub(entries.len());
        let bytes_left = limits.max_bytes.saturating_sub(bytes(&entries));
        if with_fresh {
            entries.extend(self.waiting.take_fresh(records_left, bytes_left, entries.is_empty()));
        }
        if self.waiting.fresh.is_empty() {
            let records_left = limits.max_records.saturating_sub(entries.len());
            let bytes_left = limits.max_bytes.saturating_sub(bytes(&entries));
            entries.extend(self.waiting.take_due(now, records_left, bytes_left, entries.is_empty()));
        }
        entries.sort_by_key(|entry| entry.seq);
        (!entries.is_empty()).then(|| Group::of(entries, now))
    }

    /// One record to see whether the backend takes any: one that was not tried yet, or else not for the longest time.
    fn choose_one(&mut self, now: Instant) -> Option<Group<T>> {
        if let Some(entry) = self.waiting.take_fresh(1, u64::MAX, true).pop() {
            return Some(Group::of(vec![entry], now));
        }
        if let Some(mut group) = self.waiting.take_again(0) {
            let rest = group.entries.split_off(1);
            self.waiting.push_parts(vec![Group { entries: rest, ..group }]);
            return Some(group);
        }
        let parked = self.waiting.take_alone(now, true).or_else(|| self.waiting.take_parked_early())?;
        Some(Group::alone(parked, now))
    }

    /// Whether those that may go together are enough, or have waited long enough.
    fn is_batch_ready(&self, now: Instant) -> bool {
        let may_take_fresh = self.may_take_fresh();
        (may_take_fresh && self.waiting.fills(&self.policy.batch))
            || self.batch_ready_at().is_some_and(|at| at <= now)
    }

    /// When a batch is ready even if nothing more comes. A parked record waits for company, too, but no longer than for
    /// its next retry.
    fn batch_ready_at(&self) -> Option<Instant> {
        let (fresh_delay, parked_delay) = if self.is_closed {
            (Duration::ZERO, Duration::ZERO)
        } else {
            (self.policy.batch.max_delay, self.policy.batch.max_delay.min(self.policy.retry.max))
        };
        let fresh = self.waiting.fresh.front().filter(|_| self.may_take_fresh());
        let fresh = fresh.map(|entry| entry.queued_at + fresh_delay);
        let parked = self.waiting.next_due().map(|due| due + parked_delay);
        [fresh, parked].into_iter().flatten().min()
    }

    /// Fresh records are kept out of a backend that is down: as many batches as there are workers, and one more to tell a
    /// bad batch from a bad backend, are enough to be tried and in the end given up.
    fn may_take_fresh(&self) -> bool {
        let failing = self.waiting.again.iter().filter(|group| group.failures > 0);
        let first_failure = failing.clone().filter_map(|group| group.first_failure).min();
        failing.count() <= self.policy.workers || self.has_delivered_since(first_failure)
    }

    pub(crate) fn has_delivered_since(&self, then: Option<Instant>) -> bool {
        self.last_delivery.zip(then).is_some_and(|(delivered, then)| delivered >= then)
    }

    fn next_change(&self) -> Option<Instant> {
        let again = self.waiting.again.iter().map(|group| group.due).min();
        [again, self.waiting.next_due_alone(), self.batch_ready_at()].into_iter().flatten().min()
    }

    fn send(&mut self, mut group: Group<T>, now: Instant) -> Batch<T> {
        self.breaker.call_begins();
        self.rate.take(group.entries.len(), now);
        for entry in &mut group.entries {
            entry.first_attempt.get_or_insert(now);
        }
        self.books.in_flight += group.entries.len() as u64;
        self.in_flight_bytes += group.held();
        self.next_batch += 1;
        let id = BatchId(self.next_batch);
        let items = group.entries.iter().map(|entry| entry.item.clone()).collect();
        let attempt = group.entries.iter().map(|entry| entry.attempts).max().unwrap_or(0);
        self.in_flight.insert(id, Sent { group, at: now });
        Batch { id, items, attempt }
    }
}
