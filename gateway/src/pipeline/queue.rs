//! The bounded queue of one exporter, and its books, under one lock: they cannot disagree.
//!
//! It is not a `tokio` channel, though it is used like one: a channel cannot drop its *oldest* record when it is full,
//! is bounded in records but not in bytes, and its length could not be read together with the books.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    books::{Books, DropReason, RejectReason, Snapshot},
    item::Item,
};

/// What happens to a record that finds the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFull {
    DropOldest,
    DropNewest,
    Shed,
}

/// Bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub records: usize,
    pub bytes: u64,
}

/// Bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub max_records: usize,
    pub max_bytes: u64,
    pub max_delay: Duration,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    capacity: Capacity,
    on_full: OnFull,
    wake: BatchLimits,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: u64,
    books: Books,
    shed_bodies: u64,
    closed: bool,
}

impl Queue {
    /// `batch` tells when a waiting consumer is worth waking: for the first record, and for a full batch.
    pub(crate) fn new(capacity: Capacity, on_full: OnFull, batch: BatchLimits) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), capacity, on_full, wake: batch }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Takes records in, never waits. What does not fit is dropped by the queue's policy, and counted.
    pub(crate) fn push(&self, items: impl Iterator<Item = Item>) {
        let mut state = self.lock();
        let before = state.items.len();
        let was_full = self.is_full_batch(&state);
        for item in items {
            state.books.accepted += 1;
            if state.closed {
                state.books.count_dropped(DropReason::Shutdown, 1);
            } else {
                self.admit(&mut state, item);
            }
        }
        let wake = (before == 0 && !state.items.is_empty()) || (!was_full && self.is_full_batch(&state));
        drop(state);
        if wake {
            self.arrived.notify_waiters();
            self.arrived.notify_one();
        }
    }

    /// A record that can never be delivered: it is accepted and dropped in one step.
    pub(crate) fn refuse(&self, reason: DropReason) {
        let mut state = self.lock();
        state.books.accepted += 1;
        state.books.count_dropped(reason, 1);
    }

    fn is_full_batch(&self, state: &State) -> bool {
        state.items.len() >= self.wake.max_records || state.bytes >= self.wake.max_bytes
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        state.items.len() < self.capacity.records && state.bytes + bytes <= self.capacity.bytes
    }

    fn admit(&self, state: &mut State, mut item: Item) {
        if !self.fits(state, item.size()) && self.on_full == OnFull::Shed {
            let room = self.capacity.bytes.saturating_sub(state.bytes);
            if let Some(smaller) = item.shed_to(room) {
                state.shed_bodies += 1;
                item = smaller;
            }
        }
        let reason = if self.on_full == OnFull::Shed { DropReason::Shed } else { DropReason::QueueFull };
        while self.on_full != OnFull::DropNewest && !self.fits(state, item.size()) {
            let Some(oldest) = state.items.pop_front() else { break };
            state.bytes -= oldest.size();
            state.books.count_dropped(reason, 1);
        }
        if self.fits(state, item.size()) {
            state.bytes += item.size();
            state.items.push_back(item);
        } else {
            state.books.count_dropped(reason, 1);
        }
    }

    /// Waits for a batch: full, or its oldest record `max_delay` old, or the queue closed. `None` when the queue is
    /// closed and empty. The records are in flight from here on, until they are settled.
    pub(crate) async fn take(&self, limits: &BatchLimits) -> Option<Vec<Item>> {
        loop {
            let arrived = self.arrived.notified();
            let wait_until = {
                let mut state = self.lock();
                match state.items.front() {
                    None if state.closed => return None,
                    None => None,
                    Some(oldest) => {
                        let due = oldest.queued_at() + limits.max_delay;
                        if state.closed || self.is_full_batch(&state) || Instant::now() >= due {
                            return Some(state.take(limits));
                        }
                        Some(due)
                    }
                }
            };
            match wait_until {
                None => arrived.await,
                Some(due) => drop(tokio::time::timeout_at(due, arrived).await),
            }
        }
    }

    pub(crate) fn delivered(&self, records: usize) {
        self.settle(records, |books, records| books.delivered += records);
    }

    pub(crate) fn rejected(&self, reason: RejectReason, records: usize) {
        self.settle(records, |books, records| books.count_rejected(reason, records));
    }

    pub(crate) fn dropped(&self, reason: DropReason, records: usize) {
        self.settle(records, |books, records| books.count_dropped(reason, records));
    }

    pub(crate) fn count_shed_body(&self) {
        self.lock().shed_bodies += 1;
    }

    fn settle(&self, records: usize, enter: impl FnOnce(&mut Books, u64)) {
        let mut state = self.lock();
        // After `abandon` everything is accounted for already: a late outcome changes nothing.
        let records = (records as u64).min(state.books.in_flight);
        state.books.in_flight -= records;
        enter(&mut state.books, records);
    }

    /// Takes no more records; what is queued can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Drops what is queued and in flight. Returns how many that were, and those that were queued.
    pub(crate) fn abandon(&self, reason: DropReason) -> (u64, Vec<Item>) {
        let mut state = self.lock();
        state.closed = true;
        let left = state.items.len() as u64 + state.books.in_flight;
        let items = std::mem::take(&mut state.items);
        state.bytes = 0;
        state.books.in_flight = 0;
        state.books.count_dropped(reason, left);
        (left, items.into())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            books: state.books,
            queued: state.items.len() as u64,
            queued_bytes: state.bytes,
            shed_bodies: state.shed_bodies,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, limits: &BatchLimits) -> Vec<Item> {
        let (mut count, mut bytes) = (0, 0);
        for item in self.items.iter().take(limits.max_records.max(1)) {
            if count > 0 && bytes + item.size() > limits.max_bytes {
                break;
            }
            count += 1;
            bytes += item.size();
        }
        self.bytes -= bytes;
        self.books.in_flight += count as u64;
        self.items.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plugin_api::Content;

    use super::*;
    use crate::recorder::{Record, Shed};

    const LIMITS: BatchLimits =
        BatchLimits { max_records: 3, max_bytes: 1_000, max_delay: Duration::from_secs(1) };

    /// An item of 100 bytes of metrics and `body` bytes of response.
    fn item(body: usize) -> Item {
        let record = Record::of_parts(vec![b'm'; 100].into(), Vec::new().into(), vec![b'r'; body].into());
        Item::new(Arc::new(record), Content::Full, Instant::now())
    }

    fn queue(records: usize, bytes: u64, on_full: OnFull) -> Queue {
        Queue::new(Capacity { records, bytes }, on_full, LIMITS)
    }

    fn push(queue: &Queue, bodies: &[usize]) {
        queue.push(bodies.iter().map(|body| item(*body)));
        assert!(queue.snapshot().is_balanced(), "{:?}", queue.snapshot());
    }

    fn sizes(items: &[Item]) -> Vec<u64> {
        items.iter().map(Item::size).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_leaves_at_once_and_a_small_one_after_its_delay() {
        let queue = queue(10, 10_000, OnFull::DropOldest);
        push(&queue, &[0, 1, 2, 3]);
        let start = Instant::now();
        assert_eq!(sizes(&queue.take(&LIMITS).await.unwrap()), [100, 101, 102]);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(sizes(&queue.take(&LIMITS).await.unwrap()), [103]);
        assert_eq!(start.elapsed(), LIMITS.max_delay);
        assert_eq!(queue.snapshot().books.in_flight, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_before_its_bytes_do_and_a_large_record_goes_alone() {
        let queue = queue(10, 10_000, OnFull::DropOldest);
        push(&queue, &[500, 500, 2_000, 0]);
        let limits = BatchLimits { max_records: 10, ..LIMITS };
        for expected in [vec![600], vec![600], vec![2_100], vec![100]] {
            assert_eq!(sizes(&queue.take(&limits).await.unwrap()), expected);
        }
    }

    #[tokio::test]
    async fn a_waiting_consumer_is_woken_by_the_batch_it_waits_for() {
        let queue = Arc::new(queue(10, 10_000, OnFull::DropOldest));
        let consumer = tokio::spawn({
            let queue = queue.clone();
            async move { queue.take(&LIMITS).await.map(|items| items.len()) }
        });
        tokio::task::yield_now().await;
        push(&queue, &[0]);
        tokio::task::yield_now().await;
        push(&queue, &[0, 0]);
        assert_eq!(consumer.await.unwrap(), Some(3));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_by_the_policy_and_counted() {
        for (policy, bytes, reason, kept) in [
            (OnFull::DropOldest, 10_000, DropReason::QueueFull, vec![102, 103]),
            (OnFull::DropNewest, 10_000, DropReason::QueueFull, vec![100, 101]),
            (OnFull::DropOldest, 210, DropReason::QueueFull, vec![102, 103]),
            (OnFull::DropNewest, 210, DropReason::QueueFull, vec![100, 101]),
        ] {
            let queue = queue(2, bytes, policy);
            push(&queue, &[0, 1, 2, 3]);
            assert_eq!(queue.snapshot().books.dropped(reason), 2, "{policy:?} {bytes}");
            queue.close();
            assert_eq!(sizes(&queue.take(&LIMITS).await.unwrap()), kept, "{policy:?} {bytes}");
        }
    }

    #[tokio::test]
    async fn a_record_larger_than_the_queue_drives_no_other_out_of_it_under_drop_newest() {
        let queue = queue(10, 300, OnFull::DropNewest);
        push(&queue, &[0, 5_000]);
        assert_eq!((queue.snapshot().queued, queue.snapshot().books.all_dropped()), (1, 1));
    }

    #[tokio::test]
    async fn shedding_gives_up_bodies_before_records() {
        let queue = queue(3, 1_000, OnFull::Shed);
        push(&queue, &[800, 800, 800]);
        let snapshot = queue.snapshot();
        assert_eq!(
            (snapshot.queued, snapshot.books.all_dropped(), snapshot.shed_bodies),
            (2, 1, 2),
            "{snapshot:?}"
        );
        push(&queue, &[0, 0]);
        assert_eq!(queue.snapshot().books.dropped(DropReason::Shed), 2);
    }

    #[tokio::test]
    async fn every_record_is_settled_once_even_when_its_outcome_comes_late() {
        let queue = queue(10, 10_000, OnFull::DropOldest);
        push(&queue, &[0, 0, 0, 0]);
        let taken = queue.take(&LIMITS).await.unwrap().len();
        queue.delivered(1);
        queue.rejected(RejectReason::Record, 1);
        assert!(queue.snapshot().is_balanced());
        let (left, queued) = queue.abandon(DropReason::Shutdown);
        assert_eq!((left, queued.len()), (2, 1));
        queue.delivered(taken);
        let books = queue.snapshot().books;
        assert_eq!((books.delivered, books.all_rejected(), books.dropped(DropReason::Shutdown)), (1, 1, 2));
        assert!(queue.snapshot().is_balanced());
        assert!(queue.take(&LIMITS).await.is_none(), "closed and empty");
        push(&queue, &[0]);
        assert_eq!(queue.snapshot().books.dropped(DropReason::Shutdown), 3);
    }

    #[test]
    fn an_exporter_sees_only_what_it_may() {
        let record =
            Arc::new(Record::of_parts((&b"{\"m\":1}"[..]).into(), (&b"{}"[..]).into(), (&b"[]"[..]).into()));
        let size = |content| Item::new(record.clone(), content, Instant::now()).size();
        assert_eq!(size(Content::Full), 11);
        assert_eq!(size(Content::Metadata), 7);
        assert!(record.shed(Shed::Request).is_some());
    }
}
