//! The value itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    batch::BatchId,
    books::{Books, DropReason, Snapshot},
    breaker::{Breaker, BreakerState, Permit},
    effects::{Cause, Effects},
    policy::Policy,
    rate::Rate,
    waiting::{Entry, Group, Waiting},
};

/// Everything that is decided about one exporter's records. `T` is a record, cheap to clone.
#[derive(Debug)]
pub struct Pipeline<T> {
    pub(crate) policy: Policy,
    pub(crate) waiting: Waiting<T>,
    pub(crate) in_flight: BTreeMap<BatchId, Sent<T>>,
    pub(crate) in_flight_bytes: u64,
    pub(crate) books: Books,
    pub(crate) shed_bodies: u64,
    pub(crate) breaker: Breaker,
    pub(crate) rate: Rate,
    /// No call is made before.
    pub(crate) paused_until: Option<Instant>,
    /// Until when the backend has asked to be left alone, and for how long in all: that counts against no record.
    pub(crate) asked_until: Option<Instant>,
    pub(crate) asked_pauses: Duration,
    /// Failed calls in a row.
    pub(crate) failed_calls: u32,
    pub(crate) panics: u32,
    pub(crate) last_delivery: Option<Instant>,
    /// Records that were refused alone since the last delivery.
    pub(crate) unproven_refusals: usize,
    /// The call that is to show whether the backend is back.
    pub(crate) probe: Option<BatchId>,
    /// The breaker is open because every record was refused.
    pub(crate) is_set_up_wrong: bool,
    /// Single records that were sent to see whether the set-up is right again.
    pub(crate) set_up_probes: usize,
    /// Whose turn it is where records that were sent before and fresh ones both could go.
    pub(crate) turn_of_fresh: bool,
    /// Whose turn it is in a batch that holds parked and fresh ones.
    pub(crate) turn_of_parked: bool,
    pub(crate) next_seq: u64,
    pub(crate) next_batch: u64,
    pub(crate) is_closed: bool,
    pub(crate) random: fastrand::Rng,
}

/// A batch in flight.
#[derive(Debug)]
pub(crate) struct Sent<T> {
    pub group: Group<T>,
    pub at: Instant,
}

impl<T: Clone> Pipeline<T> {
    /// An empty one. `seed` is that of the jitter.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, now: Instant) -> Self {
        Self {
            waiting: Waiting::new(),
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            books: Books::default(),
            shed_bodies: 0,
            breaker: Breaker::new(policy.breaker),
            rate: Rate::new(policy.rate, now),
            paused_until: None,
            asked_until: None,
            asked_pauses: Duration::ZERO,
            failed_calls: 0,
            panics: 0,
            last_delivery: None,
            unproven_refusals: 0,
            probe: None,
            is_set_up_wrong: false,
            set_up_probes: 0,
            turn_of_fresh: false,
            turn_of_parked: false,
            next_seq: 0,
            next_batch: 0,
            is_closed: false,
            random: fastrand::Rng::with_seed(seed),
            policy,
        }
    }

    /// By what it decides.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The books with what waits, read together.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            books: self.books,
            queued: self.waiting.len() as u64,
            parked: self.waiting.tried() as u64,
            queued_bytes: self.waiting.bytes() + self.in_flight_bytes,
            shed_bodies: self.shed_bodies,
        }
    }

    /// Calls, at most, of which one has a fresh record in it, from when one has waited for `max_delay`. Each of these may
    /// come before it:
    /// - a first retry of a batch for every worker, and of each of the others in this list;
    /// - what is sent again, a parked record that fills a batch, and what is sent again once more, which take turns with fresh ones;
    /// - what is sent again as a probe of a set-up that was wrong, in turns with fresh ones, too.
    #[must_use]
    pub fn patience(&self) -> usize {
        self.policy.workers + 2 * (3 + 1) + 1
    }

    /// Before when no call is made, because the breaker is open or the exporter pauses.
    #[must_use]
    pub fn no_call_before(&self, now: Instant) -> Option<Instant> {
        let open = match self.breaker.permit(now) {
            Permit::Until(until) => Some(until),
            Permit::Granted | Permit::Probe | Permit::UnderProbe => None,
        };
        open.max(self.paused_until).filter(|until| *until > now)
    }

    /// State of the circuit breaker.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Nothing more comes; what waits is sent without waiting for more. Pauses and cool-downs end, since there may be no
    /// time for what comes after them: the backend is asked at once whether it takes records again. What is admitted
    /// afterwards is dropped (`shutdown`).
    pub fn close(&mut self, now: Instant) -> Effects<T> {
        let mut effects = Effects { wake: true, ..Effects::default() };
        if std::mem::replace(&mut self.is_closed, true) {
            return effects;
        }
        self.paused_until = None;
        self.breaker.end_cool_down(now);
        self.waiting.make_due(now);
        self.end_refusals(&mut effects);
        effects.tell_losses();
        effects
    }

    /// Gives up everything that waits or is in flight. Outcomes that come later change nothing.
    pub fn abandon(&mut self, reason: DropReason) -> Effects<T> {
        self.is_closed = true;
        let mut effects = Effects { wake: true, ..Effects::default() };
        let sent = std::mem::take(&mut self.in_flight);
        self.in_flight_bytes = 0;
        self.books.in_flight = 0;
        let mut left: Vec<Entry<T>> = sent.into_values().flat_map(|sent| sent.group.entries).collect();
        left.extend(self.waiting.drain());
        for entry in left {
            self.drop_entry(&mut effects, entry, reason, String::new());
        }
        effects.tell_losses();
        effects
    }

    pub(crate) fn drop_entry(
        &mut self,
        effects: &mut Effects<T>,
        entry: Entry<T>,
        reason: DropReason,
        message: String,
    ) {
        self.end(effects, entry, Cause::Dropped(reason), message);
    }

    /// Enters the end of a record that is neither waiting nor in flight any more.
    pub(crate) fn end(&mut self, effects: &mut Effects<T>, entry: Entry<T>, cause: Cause, message: String) {
        match cause {
            Cause::Dropped(reason) => self.books.count_dropped(reason, 1),
            Cause::Rejected(reason) => self.books.count_rejected(reason, 1),
        }
        let item = match entry.whole {
            Some(whole) => {
                effects.freed.push(entry.item);
                whole
            }
            None => entry.item,
        };
        effects.give_up(item, cause, message, entry.attempts);
    }
}
