//! What is sent next, and when.

use std::time::{Duration, Instant};

use crate::{
    batch::{Batch, BatchId, Next},
    breaker::Permit,
    pipeline::{Pipeline, Sent},
    time::later,
    waiting::{Entry, Group},
};

/// Parts that a batch is split into when it failed for a reason that may lie in one record. Every part that holds that
/// record costs a whole timeout, so they are many.
const PARTS: usize = 8;

/// Where a single record is taken from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Fresh,
    Again,
    Alone,
    Parked,
}

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
            Some(group) => Next::Send(self.send(group, is_probe, now)),
            None => Next::Wait(self.next_change()),
        }
    }

    /// What goes first; then in turn what is sent again, and a batch of those that may go together.
    fn choose(&mut self, now: Instant) -> Option<Group<T>> {
        let again = self.waiting.again.iter().enumerate();
        let first = again.filter(|(_, group)| group.is_first).min_by_key(|(_, group)| group.seq());
        if let Some((place, _)) = first {
            return self.waiting.take_again(place);
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

    /// The group itself, or the first of its parts when others were delivered while it failed. Where there are no others,
    /// one of its records every second time.
    fn first_part(&mut self, mut group: Group<T>, now: Instant) -> Option<Group<T>> {
        if group.entries.len() == 1 || !group.is_suspect() {
            return Some(group);
        }
        if !self.has_delivered_since(group.first_failure) {
            if group.is_sampled || !self.waiting.fresh.is_empty() {
                group.is_sampled = false;
                return Some(group);
            }
            let rest = group.entries.split_off(1);
            let one = std::mem::replace(&mut group.entries, rest);
            let sample = group.part(one, now);
            group.is_sampled = true;
            self.waiting.push_again(group);
            return Some(sample);
        }
        let size = group.entries.len().div_ceil(PARTS);
        let mut entries = std::mem::take(&mut group.entries).into_iter();
        let mut parts = Vec::new();
        loop {
            let part: Vec<_> = entries.by_ref().take(size).collect();
            if part.is_empty() {
                break;
            }
            parts.push(group.part(part, now));
        }
        self.waiting.push_parts(parts);
        self.waiting.take_again(0)
    }

    /// Parked records that are due, and fresh ones. While fresh ones wait, parked ones take at most half. A record that is
    /// too large to go with others is kept out by none: each kind comes first in every second batch.
    fn take_together(&mut self, now: Instant) -> Option<Group<T>> {
        self.turn_of_fresh = false;
        self.turn_of_parked = !self.turn_of_parked;
        let limits = self.policy.batch;
        let most_fresh = if self.seems_down() { 1 } else { limits.max_records };
        let left = |entries: &[Entry<T>]| {
            let bytes: u64 = entries.iter().map(|entry| entry.size).sum();
            (limits.max_records.saturating_sub(entries.len()), limits.max_bytes.saturating_sub(bytes))
        };
        let mut entries = Vec::new();
        if !self.turn_of_parked {
            entries = self.waiting.take_fresh(1, u64::MAX, true);
        }
        let most_fresh = most_fresh.saturating_sub(entries.len());
        let (mut records, mut bytes) = left(&entries);
        if !self.waiting.fresh.is_empty() {
            (records, bytes) = (records.min(limits.max_records / 2), bytes.min(limits.max_bytes / 2));
        }
        entries.extend(self.waiting.take_due(now, records, bytes, entries.is_empty()));
        let (records, bytes) = left(&entries);
        entries.extend(self.waiting.take_fresh(records.min(most_fresh), bytes, entries.is_empty()));
        if self.waiting.fresh.is_empty() {
            let (records, bytes) = left(&entries);
            entries.extend(self.waiting.take_due(now, records, bytes, entries.is_empty()));
        }
        entries.sort_by_key(|entry| entry.seq);
        (!entries.is_empty()).then(|| Group::of(entries, now))
    }

    /// One record to see whether the backend takes any: every second time a fresh one, and the others in turn. None of them
    /// goes first for having failed: they would be many.
    fn choose_one(&mut self, now: Instant) -> Option<Group<T>> {
        const OTHERS: [Source; 3] = [Source::Again, Source::Alone, Source::Parked];
        let turn = self.set_up_probes;
        self.set_up_probes = turn.wrapping_add(1);
        let others = (0..OTHERS.len()).map(|place| OTHERS[(turn / 2 + place) % OTHERS.len()]);
        let (before, after) = if turn.is_multiple_of(2) { (true, false) } else { (false, true) };
        let fresh = |is_here: bool| is_here.then_some(Source::Fresh);
        fresh(before)
            .into_iter()
            .chain(others)
            .chain(fresh(after))
            .find_map(|source| self.take_one(source, now))
    }

    fn take_one(&mut self, source: Source, now: Instant) -> Option<Group<T>> {
        match source {
            Source::Fresh => {
                let entries = self.waiting.take_fresh(1, u64::MAX, true);
                (!entries.is_empty()).then(|| Group::of(Vec::new(), now).part(entries, now))
            }
            Source::Again => {
                let mut group = self.waiting.take_again(0)?;
                let rest = group.entries.split_off(1);
                let one = std::mem::replace(&mut group.entries, rest);
                let sample = group.part(one, now);
                self.waiting.push_parts(vec![group]);
                Some(sample)
            }
            Source::Alone => self.waiting.take_alone(now, true).map(|entry| Group::alone(entry, now)),
            Source::Parked => self.waiting.take_parked_early().map(|entry| Group::alone(entry, now)),
        }
    }

    /// Whether those that may go together are enough, or have waited long enough.
    fn is_batch_ready(&self, now: Instant) -> bool {
        self.waiting.fills(&self.policy.batch) || self.batch_ready_at().is_some_and(|at| at <= now)
    }

    /// When a batch is ready even if nothing more comes. A parked record waits for company, too, but no longer than for
    /// its next retry.
    fn batch_ready_at(&self) -> Option<Instant> {
        let (fresh_delay, parked_delay) = if self.is_closed {
            (Duration::ZERO, Duration::ZERO)
        } else {
            (self.policy.batch.max_delay, self.policy.batch.max_delay.min(self.policy.retry.max))
        };
        let fresh = self.waiting.fresh.front().map(|entry| later(entry.queued_at, fresh_delay));
        let parked = self.waiting.next_due().map(|due| later(due, parked_delay));
        [fresh, parked].into_iter().flatten().min()
    }

    /// Whether it is the backend that is at fault, and not some batches: as many failed as there are workers, and one more,
    /// and nothing was delivered since. Then fresh records are tried, and in the end given up, one at a time.
    fn seems_down(&self) -> bool {
        let failing = self.waiting.again.iter().filter_map(|group| group.first_failure);
        failing.clone().count() > self.policy.workers && !self.has_delivered_since(failing.min())
    }

    pub(crate) fn has_delivered_since(&self, then: Option<Instant>) -> bool {
        self.last_delivery.zip(then).is_some_and(|(delivered, then)| delivered >= then)
    }

    fn next_change(&self) -> Option<Instant> {
        let again = self.waiting.again.iter().map(|group| group.due).min();
        [again, self.waiting.next_due_alone(), self.batch_ready_at()].into_iter().flatten().min()
    }

    fn send(&mut self, mut group: Group<T>, is_probe: bool, now: Instant) -> Batch<T> {
        self.breaker.call_begins();
        self.rate.take(group.entries.len(), now);
        for entry in &mut group.entries {
            if entry.first_attempt.is_none() {
                (entry.first_attempt, entry.pauses_before) = (Some(now), self.asked_pauses);
            }
        }
        self.books.in_flight += group.entries.len() as u64;
        self.in_flight_bytes += group.held();
        self.next_batch += 1;
        let id = BatchId(self.next_batch);
        if is_probe {
            self.probe = Some(id);
        }
        let items = group.entries.iter().map(|entry| entry.item.clone()).collect();
        let attempt = group.entries.iter().map(|entry| entry.attempts).max().unwrap_or(0);
        self.in_flight.insert(id, Sent { group, at: now });
        Batch { id, items, attempt }
    }
}
