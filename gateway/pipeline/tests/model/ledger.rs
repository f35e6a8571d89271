//! Where every record is, kept by the model's own means.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use exporter_pipeline::{Arrival, Cause, DropReason, OnFull, Policy, RejectReason, Snapshot};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub id: u64,
    pub size: u64,
    pub has_bodies: bool,
}

/// A record that is not settled.
#[derive(Debug, Clone)]
pub struct Record {
    /// As it is sent.
    pub item: Item,
    /// As it is given back when it is given up.
    pub kept: Item,
    /// Bytes that count for it.
    pub held: u64,
    pub queued_at: Instant,
    pub is_in_flight: bool,
    pub first_sent: Option<Instant>,
    /// What the backend had asked for in pauses by then, and what it asked for with this record alone.
    pub asked_before: Duration,
    pub asked_alone: Duration,
    /// Calls that ended.
    pub attempts: u32,
    /// It was alone in a call that was refused.
    pub is_refused: bool,
    /// The backend asked to be left alone with it until then.
    pub not_before: Option<Instant>,
}

/// A record that is expected to be lost.
pub type Loss = (Item, Cause, u32);

#[derive(Debug, Default)]
pub struct Ledger {
    pub records: BTreeMap<u64, Record>,
    /// Those of them that wait, and those that wait and were never sent, the oldest first.
    pub waiting: BTreeSet<u64>,
    pub fresh: VecDeque<u64>,
    pub fresh_bytes: u64,
    pub in_flight: u64,
    pub in_flight_bytes: u64,
    pub bytes: u64,
    pub accepted: u64,
    pub delivered: u64,
    pub last_delivery: Option<Instant>,
    pub dropped: [u64; DropReason::ALL.len()],
    pub rejected: [u64; RejectReason::ALL.len()],
    pub shed_bodies: u64,
    pub is_closed: bool,
    /// Until when the backend has asked to be left alone, and for how long in all.
    pub asked_until: Option<Instant>,
    pub asked: Duration,
}

impl Ledger {
    /// What admission must do with these, by the policy: what is lost, in order.
    pub fn admit(&mut self, arrivals: &[Arrival<Item>], policy: &Policy, now: Instant) -> Vec<Loss> {
        let mut losses = Vec::new();
        for arrival in arrivals {
            self.accepted += 1;
            let reason = self.admit_one(arrival, policy, now, &mut losses);
            if let Some((item, reason)) = reason {
                self.count_loss(Cause::Dropped(reason));
                losses.push((item, Cause::Dropped(reason), 0));
            }
        }
        losses
    }

    fn admit_one(
        &mut self,
        arrival: &Arrival<Item>,
        policy: &Policy,
        now: Instant,
        losses: &mut Vec<Loss>,
    ) -> Option<(Item, DropReason)> {
        if self.is_closed {
            return Some((arrival.item, DropReason::Shutdown));
        }
        let capacity = policy.capacity;
        let limit = policy.max_record_bytes.min(capacity.bytes);
        let is_shed = policy.on_full == OnFull::Shed;
        let is_short = is_shed && self.has_place(policy) && arrival.size + self.bytes > capacity.bytes;
        let mut item = arrival.item;
        if (item.size > limit || is_short)
            && let Some((smaller, size)) = arrival.smaller
            && size < item.size
            && size <= limit
        {
            item = smaller;
            self.shed_bodies += 1;
        }
        if item.size > limit {
            return Some((item, DropReason::Oversize));
        }
        let could_fit = self.in_flight_bytes + item.size <= capacity.bytes
            && self.in_flight < capacity.records as u64
            && policy.on_full != OnFull::DropNewest;
        while !(self.has_place(policy) && self.bytes + item.size <= capacity.bytes) {
            let is_bytes = is_shed && self.has_place(policy);
            let reason = if is_bytes { DropReason::Shed } else { DropReason::QueueFull };
            let oldest = self.waiting.first().copied().filter(|_| could_fit);
            let Some(oldest) = oldest else { return Some((item, reason)) };
            let record = self.settle(oldest);
            self.count_loss(Cause::Dropped(reason));
            losses.push((record.kept, Cause::Dropped(reason), record.attempts));
        }
        self.enter(item, now);
        None
    }

    fn has_place(&self, policy: &Policy) -> bool {
        self.records.len() < policy.capacity.records
    }

    fn enter(&mut self, item: Item, now: Instant) {
        self.bytes += item.size;
        self.fresh_bytes += item.size;
        self.waiting.insert(item.id);
        self.fresh.push_back(item.id);
        let record = Record {
            item,
            kept: item,
            held: item.size,
            queued_at: now,
            is_in_flight: false,
            first_sent: None,
            asked_before: Duration::ZERO,
            asked_alone: Duration::ZERO,
            attempts: 0,
            is_refused: false,
            not_before: None,
        };
        assert!(self.records.insert(item.id, record).is_none());
    }

    /// A record goes on its way.
    pub fn send(&mut self, item: &Item, now: Instant) {
        let record = self.records.get_mut(&item.id).unwrap_or_else(|| panic!("{item:?} is settled"));
        assert_eq!(record.item, *item);
        assert!(self.waiting.remove(&item.id), "{record:?} is in flight");
        if record.first_sent.is_none() {
            assert_eq!(self.fresh.pop_front(), Some(item.id), "what never failed keeps its order");
            self.fresh_bytes -= record.held;
            (record.first_sent, record.asked_before) = (Some(now), self.asked);
        }
        record.not_before = None;
        record.is_in_flight = true;
        self.in_flight += 1;
        self.in_flight_bytes += record.held;
    }

    /// The backend has asked to be left alone for that long.
    pub fn pause(&mut self, asked: Duration, now: Instant) {
        let (since, until) = (self.asked_until.map_or(now, |until| until.max(now)), now + asked);
        self.asked += until.saturating_duration_since(since);
        self.asked_until = Some(until.max(since));
    }

    /// A call with this record has ended.
    pub fn come_back(&mut self, id: u64) {
        let record = self.records.get_mut(&id).unwrap();
        assert!(std::mem::take(&mut record.is_in_flight));
        record.attempts += 1;
        self.in_flight -= 1;
        self.in_flight_bytes -= record.held;
        self.waiting.insert(id);
    }

    /// Takes off its bodies.
    pub fn shrink(&mut self, id: u64, item: Item, keep_whole: bool) {
        let record = self.records.get_mut(&id).unwrap();
        record.item = item;
        self.shed_bodies += 1;
        if !keep_whole {
            self.bytes = self.bytes - record.held + item.size;
            (record.kept, record.held) = (item, item.size);
        }
    }

    /// A record comes to its end, the one that it has.
    pub fn settle(&mut self, id: u64) -> Record {
        let record = self.records.remove(&id).unwrap_or_else(|| panic!("{id} is settled twice"));
        self.bytes -= record.held;
        if record.is_in_flight {
            self.in_flight -= 1;
            self.in_flight_bytes -= record.held;
        } else {
            self.waiting.remove(&id);
        }
        if record.first_sent.is_none() {
            assert_eq!(self.fresh.front(), Some(&id), "only the oldest is given up before it is sent");
            self.fresh.pop_front();
            self.fresh_bytes -= record.held;
        }
        record
    }

    pub fn count_loss(&mut self, cause: Cause) {
        match cause {
            Cause::Dropped(reason) => self.dropped[reason as usize] += 1,
            Cause::Rejected(reason) => self.rejected[reason as usize] += 1,
        }
    }

    /// The pipeline's books say the same.
    pub fn check(&self, snapshot: &Snapshot, policy: &Policy) {
        let books = &snapshot.books;
        assert!(snapshot.is_balanced(), "{snapshot:?}");
        assert_eq!((books.accepted, books.delivered), (self.accepted, self.delivered));
        for reason in DropReason::ALL {
            assert_eq!(books.dropped(reason), self.dropped[reason as usize], "{reason:?}");
        }
        for reason in RejectReason::ALL {
            assert_eq!(books.rejected(reason), self.rejected[reason as usize], "{reason:?}");
        }
        let lost: u64 = self.dropped.iter().chain(&self.rejected).sum();
        assert_eq!(books.all_dropped() + books.all_rejected(), lost);
        let waiting = self.waiting.len() as u64;
        assert_eq!((snapshot.queued, books.in_flight), (waiting, self.in_flight));
        assert_eq!(snapshot.parked, waiting - self.fresh.len() as u64);
        assert_eq!(snapshot.queued_bytes, self.bytes);
        assert_eq!(snapshot.shed_bodies, self.shed_bodies);
        assert!(snapshot.queued + books.in_flight <= policy.capacity.records as u64, "{snapshot:?}");
        assert!(snapshot.queued_bytes <= policy.capacity.bytes, "{snapshot:?}");
    }
}
