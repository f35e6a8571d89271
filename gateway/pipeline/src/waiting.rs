//! What waits: fresh records, batches to be sent again, and records that are parked for a retry of their own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{effects::Cause, policy::BatchLimits};

/// One record.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// Order of arrival.
    pub seq: u64,
    pub item: T,
    /// Bytes of `item`.
    pub size: u64,
    /// The record as it came, when `item` is what is left of it without its bodies.
    pub whole: Option<T>,
    /// Bytes that are kept for it.
    pub held: u64,
    pub queued_at: Instant,
    /// Calls that it was part of.
    pub attempts: u32,
    pub first_attempt: Option<Instant>,
    /// What the backend had asked for in pauses by then.
    pub pauses_before: Duration,
    /// While it is parked: not to be sent before.
    pub due: Instant,
    /// To be sent in a call of its own: what it does to a call would be done to others too.
    pub alone: bool,
    pub refusal: Option<Refusal>,
}

/// A record was refused in a call of its own, and it is not settled yet whether the record is to blame.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// When it was refused first.
    pub at: Instant,
    pub cause: Cause,
    pub message: String,
}

/// Records that are sent again together.
#[derive(Debug)]
pub(crate) struct Group<T> {
    /// The oldest first; never empty.
    pub entries: Vec<Entry<T>>,
    /// Calls with it that failed as a whole.
    pub failures: u32,
    /// Those among them for which the backend gave no time to come back at.
    pub unexplained: u32,
    /// Of this group or of the one that it is a part of.
    pub first_failure: Option<Instant>,
    /// When the first refused call began, of this group or of the one that it is a part of.
    pub refused_at: Option<Instant>,
    /// Not to be sent before.
    pub due: Instant,
    /// Goes before everything else: it failed once with the backend, and nothing else is known of it.
    pub is_first: bool,
    /// One of its records was sent alone last, and not the group.
    pub is_sampled: bool,
}

/// Failures after which the reason may lie in the records.
pub(crate) const SUSPECT_AFTER: u32 = 2;

/// The same for a backend that says when it wants to be called again: it knows why it failed.
pub(crate) const SUSPECT_AFTER_PACED: u32 = 8;

impl<T> Group<T> {
    /// Records that nothing is known of.
    pub(crate) fn of(entries: Vec<Entry<T>>, now: Instant) -> Self {
        Self {
            entries,
            failures: 0,
            unexplained: 0,
            first_failure: None,
            refused_at: None,
            due: now,
            is_first: false,
            is_sampled: false,
        }
    }

    /// A record that has to go alone, as a suspect since its first attempt.
    pub(crate) fn alone(entry: Entry<T>, now: Instant) -> Self {
        let first_failure = entry.first_attempt;
        let (failures, unexplained) = (SUSPECT_AFTER, SUSPECT_AFTER);
        Self { failures, unexplained, first_failure, ..Self::of(vec![entry], now) }
    }

    /// A part of this one: it is tried as it is, and one failure makes it suspect.
    pub(crate) fn part(&self, entries: Vec<Entry<T>>, now: Instant) -> Self {
        let once = SUSPECT_AFTER - 1;
        Self {
            entries,
            failures: once,
            unexplained: once,
            due: now,
            is_first: false,
            is_sampled: false,
            ..*self
        }
    }

    /// Bytes that are kept for its records.
    pub(crate) fn held(&self) -> u64 {
        self.entries.iter().map(|entry| entry.held).sum()
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.unexplained >= SUSPECT_AFTER || self.failures >= SUSPECT_AFTER_PACED
    }

    pub(crate) fn seq(&self) -> u64 {
        self.entries.first().map_or(0, |entry| entry.seq)
    }
}

#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub fresh: VecDeque<Entry<T>>,
    fresh_bytes: u64,
    /// Parts of what was split, then the others, the least recently tried first.
    pub again: VecDeque<Group<T>>,
    parked: BTreeMap<u64, Entry<T>>,
    /// When the parked ones are due: those that may go with others, and those that go alone.
    due: BTreeSet<(Instant, u64)>,
    due_alone: BTreeSet<(Instant, u64)>,
    /// How many of the parked ones were refused.
    refused: usize,
    records: usize,
    bytes: u64,
}

impl<T> Waiting<T> {
    pub(crate) fn new() -> Self {
        Self {
            fresh: VecDeque::new(),
            fresh_bytes: 0,
            again: VecDeque::new(),
            parked: BTreeMap::new(),
            due: BTreeSet::new(),
            due_alone: BTreeSet::new(),
            refused: 0,
            records: 0,
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that were sent before.
    pub(crate) fn tried(&self) -> usize {
        self.records - self.fresh.len()
    }

    /// How many were refused alone.
    pub(crate) fn refused(&self) -> usize {
        self.refused
    }

    /// When the first of those was refused.
    pub(crate) fn first_refusal(&self) -> Option<Instant> {
        self.parked.values().filter_map(|entry| Some(entry.refusal.as_ref()?.at)).min()
    }

    /// Whether the fresh ones fill a batch.
    pub(crate) fn fills(&self, limits: &BatchLimits) -> bool {
        !self.fresh.is_empty()
            && (self.fresh.len() >= limits.max_records || self.fresh_bytes >= limits.max_bytes)
    }

    pub(crate) fn push_fresh(&mut self, entry: Entry<T>) {
        self.enter(&entry);
        self.fresh_bytes += entry.size;
        self.fresh.push_back(entry);
    }

    pub(crate) fn park(&mut self, entry: Entry<T>) {
        self.enter(&entry);
        let queue = if entry.alone { &mut self.due_alone } else { &mut self.due };
        queue.insert((entry.due, entry.seq));
        self.refused += usize::from(entry.refusal.is_some());
        self.parked.insert(entry.seq, entry);
    }

    /// Behind all others that wait to be sent again.
    pub(crate) fn push_again(&mut self, group: Group<T>) {
        if !group.entries.is_empty() {
            group.entries.iter().for_each(|entry| self.enter(entry));
            self.again.push_back(group);
        }
    }

    /// Before all others, in the order given: the parts of one that was split.
    pub(crate) fn push_parts(&mut self, parts: Vec<Group<T>>) {
        for group in parts.into_iter().rev().filter(|group| !group.entries.is_empty()) {
            group.entries.iter().for_each(|entry| self.enter(entry));
            self.again.push_front(group);
        }
    }

    pub(crate) fn take_again(&mut self, place: usize) -> Option<Group<T>> {
        let group = self.again.remove(place)?;
        group.entries.iter().for_each(|entry| self.leave(entry));
        Some(group)
    }

    /// The oldest fresh ones, as far as `records` and `bytes` allow; at least one if `at_least_one`.
    pub(crate) fn take_fresh(&mut self, records: usize, bytes: u64, at_least_one: bool) -> Vec<Entry<T>> {
        let (mut taken, mut size) = (Vec::new(), 0_u64);
        while let Some(entry) = self.fresh.front() {
            let fits = taken.len() < records && size.saturating_add(entry.size) <= bytes;
            if !(fits || at_least_one && taken.is_empty()) {
                break;
            }
            size = size.saturating_add(entry.size);
            let Some(entry) = self.fresh.pop_front() else { break };
            self.fresh_bytes -= entry.size;
            self.leave(&entry);
            taken.push(entry);
        }
        taken
    }

    /// Parked ones that are due and may go with others, as far as `records` and `bytes` allow; at least one if
    /// `at_least_one`.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        records: usize,
        bytes: u64,
        at_least_one: bool,
    ) -> Vec<Entry<T>> {
        let (mut taken, mut size) = (Vec::new(), 0_u64);
        while let Some(&(due, seq)) = self.due.first().filter(|(due, _)| *due <= now) {
            let next = self.parked.get(&seq).map_or(0, |entry| entry.size);
            let fits = taken.len() < records && size.saturating_add(next) <= bytes;
            if !(fits || at_least_one && taken.is_empty()) {
                break;
            }
            size = size.saturating_add(next);
            self.due.remove(&(due, seq));
            taken.extend(self.take_parked(seq));
        }
        taken
    }

    /// The first of those that go alone, if it is due; `early` takes it even before.
    pub(crate) fn take_alone(&mut self, now: Instant, early: bool) -> Option<Entry<T>> {
        let &(due, seq) = self.due_alone.first().filter(|(due, _)| early || *due <= now)?;
        self.due_alone.remove(&(due, seq));
        self.take_parked(seq)
    }

    /// The first of those that may go with others, due or not.
    pub(crate) fn take_parked_early(&mut self) -> Option<Entry<T>> {
        let (_, seq) = self.due.pop_first()?;
        self.take_parked(seq)
    }

    fn take_parked(&mut self, seq: u64) -> Option<Entry<T>> {
        let entry = self.parked.remove(&seq)?;
        self.refused -= usize::from(entry.refusal.is_some());
        self.leave(&entry);
        Some(entry)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(crate) fn next_due_alone(&self) -> Option<Instant> {
        self.due_alone.first().map(|(due, _)| *due)
    }

    /// The record that has waited longest of all, to be given up.
    pub(crate) fn pop_oldest(&mut self) -> Option<Entry<T>> {
        let fresh = self.fresh.front().map(|entry| entry.seq);
        let parked = self.parked.keys().next().copied();
        let again = self.again.iter().map(Group::seq).min();
        let oldest = [fresh, parked, again].into_iter().flatten().min()?;
        if fresh == Some(oldest) {
            return self.take_fresh(1, u64::MAX, true).pop();
        }
        if parked == Some(oldest) {
            return self.unpark(oldest);
        }
        let place = self.again.iter().position(|group| group.seq() == oldest)?;
        let entry = self.again[place].entries.remove(0);
        if self.again[place].entries.is_empty() {
            self.again.remove(place);
        }
        self.leave(&entry);
        Some(entry)
    }

    fn unpark(&mut self, seq: u64) -> Option<Entry<T>> {
        let due = self.parked.get(&seq)?.due;
        self.due.remove(&(due, seq));
        self.due_alone.remove(&(due, seq));
        self.take_parked(seq)
    }

    /// Nobody has to wait for a time any more.
    pub(crate) fn make_due(&mut self, now: Instant) {
        for group in &mut self.again {
            group.due = group.due.min(now);
        }
        self.due.clear();
        self.due_alone.clear();
        for (seq, entry) in &mut self.parked {
            entry.due = entry.due.min(now);
            let queue = if entry.alone { &mut self.due_alone } else { &mut self.due };
            queue.insert((entry.due, *seq));
        }
    }

    /// Those that were refused, out of their places.
    pub(crate) fn take_refused(&mut self) -> Vec<Entry<T>> {
        let refused: Vec<u64> =
            self.parked.iter().filter(|(_, entry)| entry.refusal.is_some()).map(|(seq, _)| *seq).collect();
        refused.into_iter().filter_map(|seq| self.unpark(seq)).collect()
    }

    /// Everything.
    pub(crate) fn drain(&mut self) -> Vec<Entry<T>> {
        let all = std::mem::replace(self, Self::new());
        let again = all.again.into_iter().flat_map(|group| group.entries);
        let mut entries: Vec<_> = again.chain(all.parked.into_values()).chain(all.fresh).collect();
        entries.sort_by_key(|entry| entry.seq);
        entries
    }

    fn enter(&mut self, entry: &Entry<T>) {
        self.records += 1;
        self.bytes += entry.held;
    }

    fn leave(&mut self, entry: &Entry<T>) {
        self.records -= 1;
        self.bytes -= entry.held;
    }
}
