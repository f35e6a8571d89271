//! Taking records in.

use std::time::{Duration, Instant};

use crate::{books::DropReason, effects::Effects, pipeline::Pipeline, policy::OnFull, waiting::Entry};

/// A record that comes.
#[derive(Debug, Clone)]
pub struct Arrival<T> {
    /// The record.
    pub item: T,
    /// Its bytes.
    pub size: u64,
    /// The record without bodies, and its bytes, where [`Room::wanted`] asked for it and there is something to take off.
    pub smaller: Option<(T, u64)>,
}

/// How much room there is, so that smaller versions of records can be made before they are admitted. Room only grows
/// until then, as long as one thread alone admits.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    max_record_bytes: u64,
    /// What is left of the queue, where bodies give way to it.
    free: Option<u64>,
}

impl Room {
    /// The size that a record of `size` bytes should be reduced to, if it is too large as it is.
    pub fn wanted(&mut self, size: u64) -> Option<u64> {
        let target = self.max_record_bytes.min(self.free.unwrap_or(u64::MAX));
        if let Some(free) = &mut self.free {
            *free = free.saturating_sub(size.min(self.max_record_bytes));
        }
        (size > target).then_some(target)
    }
}

impl<T: Clone> Pipeline<T> {
    /// How much room there is for what comes next.
    #[must_use]
    pub fn room(&self) -> Room {
        let free = self.policy.capacity.bytes.saturating_sub(self.bytes());
        let free = (self.policy.on_full == OnFull::Shed).then_some(free);
        Room { max_record_bytes: self.max_record_bytes(), free }
    }

    /// Takes records in, in this order. What does not fit is shed or dropped by the policy, and counted.
    pub fn admit(&mut self, arrivals: Vec<Arrival<T>>, now: Instant) -> Effects<T> {
        let mut effects = Effects::default();
        let was_empty = self.waiting.fresh.is_empty();
        let was_full = self.waiting.fills(&self.policy.batch);
        for arrival in arrivals {
            self.books.accepted += 1;
            self.take_in(arrival, now, &mut effects);
        }
        let is_full = self.waiting.fills(&self.policy.batch);
        effects.tell_losses();
        effects.wake = (was_empty && !self.waiting.fresh.is_empty()) || (!was_full && is_full);
        effects
    }

    fn take_in(&mut self, arrival: Arrival<T>, now: Instant, effects: &mut Effects<T>) {
        let Arrival { item, size, smaller } = arrival;
        let mut entry = self.entry(item, size, now);
        if self.is_closed {
            return self.drop_entry(effects, entry, DropReason::Shutdown, String::new());
        }
        let limit = self.max_record_bytes();
        let is_short = self.policy.on_full == OnFull::Shed
            && self.has_place()
            && size > self.policy.capacity.bytes.saturating_sub(self.bytes());
        match smaller {
            Some((item, smaller)) if (size > limit || is_short) && smaller < size && smaller <= limit => {
                self.shed_bodies += 1;
                effects.freed.push(std::mem::replace(&mut entry.item, item));
                (entry.size, entry.held) = (smaller, smaller);
            }
            unused => effects.freed.extend(unused.map(|(item, _)| item)),
        }
        if entry.size > limit {
            let message = format!("more than {limit} bytes even without its bodies");
            return self.drop_entry(effects, entry, DropReason::Oversize, message);
        }
        self.make_room(entry.size, effects);
        if self.fits(entry.size) {
            self.waiting.push_fresh(entry);
        } else {
            let reason = self.shortage();
            self.drop_entry(effects, entry, reason, String::new());
        }
    }

    /// Drops the oldest that wait until a record of this size fits, unless it could not fit even then.
    fn make_room(&mut self, size: u64, effects: &mut Effects<T>) {
        let is_hopeless = self.in_flight_bytes.saturating_add(size) > self.policy.capacity.bytes
            || self.books.in_flight >= self.policy.capacity.records as u64;
        if self.policy.on_full == OnFull::DropNewest || is_hopeless {
            return;
        }
        while !self.fits(size) {
            let reason = self.shortage();
            let Some(oldest) = self.waiting.pop_oldest() else { return };
            self.drop_entry(effects, oldest, reason, String::new());
        }
    }

    /// Why a record does not fit.
    fn shortage(&self) -> DropReason {
        let is_bytes = self.policy.on_full == OnFull::Shed && self.has_place();
        if is_bytes { DropReason::Shed } else { DropReason::QueueFull }
    }

    fn fits(&self, size: u64) -> bool {
        let bytes = self.bytes().checked_add(size);
        self.has_place() && bytes.is_some_and(|bytes| bytes <= self.policy.capacity.bytes)
    }

    fn has_place(&self) -> bool {
        self.waiting.len() as u64 + self.books.in_flight < self.policy.capacity.records as u64
    }

    /// What waits and what is in flight.
    fn bytes(&self) -> u64 {
        self.waiting.bytes() + self.in_flight_bytes
    }

    fn max_record_bytes(&self) -> u64 {
        self.policy.max_record_bytes.min(self.policy.capacity.bytes)
    }

    fn entry(&mut self, item: T, size: u64, now: Instant) -> Entry<T> {
        self.next_seq += 1;
        Entry {
            seq: self.next_seq,
            item,
            size,
            whole: None,
            held: size,
            queued_at: now,
            attempts: 0,
            first_attempt: None,
            pauses_before: Duration::ZERO,
            due: now,
            alone: false,
            refusal: None,
        }
    }
}
