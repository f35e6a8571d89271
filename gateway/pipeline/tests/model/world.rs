//! One pipeline, what is done to it, and what must hold after every step.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use exporter_pipeline::{
    Arrival, Batch, BatchId, BreakerState, Cause, DropReason, Effects, Next, Notice, Outcome, Pipeline,
    Policy, Snapshot,
};
use fastrand::Rng;
use plugin_api::abi::status;

use crate::{
    backend::Backend,
    draw::{self, SKEW, Scale, milliseconds},
    expect::{Calls, Fates, asked},
    ledger::{Item, Ledger, Loss},
};

pub struct World {
    rng: Rng,
    scale: Scale,
    is_told: bool,
    policy: Policy,
    pipeline: Pipeline<Item>,
    start: Instant,
    now: Instant,
    ledger: Ledger,
    calls: Calls,
    backend: Backend,
    in_flight: BTreeMap<BatchId, (Batch<Item>, Instant)>,
    settled: Vec<BatchId>,
    next_id: u64,
    /// What somebody who asked for work last was told to wait for, and nobody woke them since.
    asleep: Option<Option<Instant>>,
    /// How far behind the clock is.
    early: Duration,
    /// Calls in a row without a fresh record, though one had waited long enough.
    without_fresh: usize,
    /// Times in a row that waiting led to nothing but waiting.
    waits: u32,
    pub steps: u64,
}

impl World {
    pub fn new(seed: u64, scale: Scale, is_told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let policy = draw::policy(&mut rng, scale);
        let now = Instant::now() + Duration::from_secs(1);
        if is_told {
            eprintln!("{policy:#?}");
        }
        Self {
            pipeline: Pipeline::new(policy.clone(), seed, now),
            calls: Calls::new(&policy),
            backend: Backend::draw(&mut rng),
            rng,
            scale,
            is_told,
            policy,
            start: now,
            now,
            ledger: Ledger::default(),
            in_flight: BTreeMap::new(),
            settled: Vec::new(),
            next_id: 0,
            asleep: None,
            early: Duration::ZERO,
            without_fresh: 0,
            waits: 0,
            steps: 0,
        }
    }

    pub fn run(&mut self) {
        for _ in 0..self.rng.usize(100..4_000) {
            self.step();
        }
        match self.rng.u32(..4) {
            0 => self.everything_is_delivered_once_the_backend_is_good(),
            1 => self.what_the_backend_takes_is_delivered(),
            2 => {
                self.close();
                self.drain();
                assert!(self.ledger.records.is_empty(), "{:?}", self.ledger.records);
            }
            _ => {}
        }
        self.abandon();
    }

    fn step(&mut self) {
        self.early = if self.rng.u32(..32) == 0 { self.rng.u32(..5) * SKEW / 5 } else { Duration::ZERO };
        self.now -= self.early;
        self.do_something();
        self.now += std::mem::take(&mut self.early);
    }

    fn do_something(&mut self) {
        match self.rng.u32(..1_000) {
            0..300 => self.admit(),
            300..620 => drop(self.next()),
            620..880 => self.settle_any(),
            880..960 => self.now += draw::pause(&mut self.rng),
            960..980 => self.wait(),
            980..994 => self.settle_late(),
            994..999 => self.backend = Backend::draw(&mut self.rng),
            _ if self.rng.u32(..8) == 0 => self.close(),
            _ => {}
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            let time = self.now - self.start;
            eprintln!("{:>6} {time:?} {:?} {}", self.steps, self.pipeline.breaker(), what());
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.pipeline.snapshot()
    }

    fn checked(&mut self) {
        self.steps += 1;
        self.ledger.check(&self.pipeline.snapshot(), &self.policy);
    }

    fn admit(&mut self) {
        let most = if self.scale == Scale::Production { 300 } else { 3 };
        let mut room = self.pipeline.room();
        let mut arrivals = Vec::new();
        for _ in 0..self.rng.usize(..=most) {
            self.next_id += 1;
            let size = draw::size(&mut self.rng, &self.policy);
            let item = Item { id: self.next_id, size, has_bodies: true };
            let is_wanted = room.wanted(size).is_some() || self.rng.u32(..8) == 0;
            let smaller = draw::smaller(&mut self.rng, size).filter(|_| is_wanted);
            let smaller = smaller.map(|size| (Item { size, has_bodies: false, ..item }, size));
            arrivals.push(Arrival { item, size, smaller });
        }
        self.tell(|| format!("admit {arrivals:?}"));
        let losses = self.ledger.admit(&arrivals, &self.policy, self.now);
        let effects = self.pipeline.admit(arrivals, self.now);
        assert_eq!(lost(&effects), losses);
        assert!(effects.delivered.is_empty());
        self.told_of_losses(&effects);
        self.woken(effects.wake);
        self.checked();
    }

    /// Asks for work, as a worker that is free would. Whether there was some.
    fn next(&mut self) -> bool {
        if self.in_flight.len() >= self.policy.workers {
            return false;
        }
        let before = self.pipeline.breaker();
        let must_send = self.calls.must_send(&self.ledger, before, &self.policy, self.now);
        let next = self.pipeline.next(self.now);
        self.tell(|| match &next {
            Next::Wait(Some(until)) => format!("next waits {:?}", *until - self.now),
            next => format!("next {next:?}"),
        });
        let is_sent = matches!(next, Next::Send(_));
        match next {
            Next::Send(batch) => self.sent(batch, before),
            Next::Wait(until) => {
                assert!(!must_send, "a call is permitted, and a fresh record has waited long enough");
                self.told_to_wait(until, before);
            }
            Next::Closed => {
                assert!(self.ledger.is_closed && self.ledger.records.is_empty());
                assert!(self.in_flight.is_empty());
            }
        }
        self.checked();
        is_sent
    }

    fn sent(&mut self, batch: Batch<Item>, before: BreakerState) {
        if let Some(asleep) = self.asleep {
            let soon = self.now + SKEW;
            assert!(asleep.is_some_and(|until| until <= soon), "nobody was woken for this");
        }
        (self.asleep, self.waits) = (None, 0);
        self.calls.send(&batch, before, self.pipeline.breaker(), &self.ledger, &self.policy, self.now);
        let front = self.ledger.fresh.front().map(|id| self.ledger.records[id].queued_at);
        let is_due = front
            .is_some_and(|front| self.ledger.is_closed || self.now >= front + self.policy.batch.max_delay);
        let fresh = batch.items.iter().filter(|item| self.ledger.records[&item.id].first_sent.is_none());
        let has_fresh = fresh.count() > 0;
        self.without_fresh = if is_due && !has_fresh { self.without_fresh + 1 } else { 0 };
        assert!(self.without_fresh < self.pipeline.patience(), "a fresh record waits for others");
        for item in &batch.items {
            self.ledger.send(item, self.now);
        }
        self.in_flight.insert(batch.id, (batch, self.now));
    }

    fn told_to_wait(&mut self, until: Option<Instant>, before: BreakerState) {
        if let Some(Some(asleep)) = self.asleep {
            let is_earlier = until.is_some_and(|until| until + SKEW < asleep);
            let is_checked = self.early.is_zero();
            assert!(!(is_checked && is_earlier) || asleep <= self.now, "nobody was woken in time");
        }
        if self.early.is_zero() || self.asleep.is_none() {
            self.asleep = Some(until);
        }
        let Some(until) = until else {
            let is_probed = before == BreakerState::HalfOpen && !self.in_flight.is_empty();
            assert!(self.ledger.waiting.is_empty() || is_probed, "something waits, and nothing will wake it");
            return;
        };
        assert!(until > self.now, "a wait that is over");
        self.calls.check_wait(until - (self.now + self.early), &self.policy);
        if before == BreakerState::Open && self.now < self.calls.open_until {
            assert_eq!(until, self.calls.open_until, "the cool-down");
        }
    }

    fn woken(&mut self, is_woken: bool) {
        if is_woken {
            self.asleep = None;
        }
        self.waits = 0;
    }

    /// Waits as a worker would.
    fn wait(&mut self) {
        if let Some(Some(until)) = self.asleep {
            self.now = self.now.max(until);
            self.waits += 1;
            assert!(self.waits < 20, "waiting leads to nothing but waiting");
        }
    }

    fn settle_any(&mut self) {
        let place = self.rng.usize(..self.in_flight.len().max(1));
        let Some(id) = self.in_flight.keys().nth(place).copied() else { return };
        let (batch, _) = &self.in_flight[&id];
        let outcome = self.backend.answer(&mut self.rng, &batch.items);
        self.settle(id, &outcome);
    }

    fn settle(&mut self, id: BatchId, outcome: &Outcome<Item>) {
        self.tell(|| format!("settle {id:?} {outcome:?}"));
        let (batch, sent_at) = self.in_flight.remove(&id).unwrap();
        self.settled.push(id);
        self.settled.drain(..self.settled.len().saturating_sub(4));
        let before = self.pipeline.breaker();
        let fates = Fates::of(&batch, outcome);
        let effects = self.pipeline.settle(id, outcome.clone(), self.now);
        self.tell(|| format!("       {effects:?}"));
        fates.check(&mut self.ledger, outcome, &effects, &self.policy, before, self.now);
        assert_eq!(effects.wake, self.policy.workers > 1 || self.ledger.is_closed);
        let after = self.pipeline.breaker();
        let times = (sent_at, self.now);
        if self.calls.settle(&batch, outcome, (before, after), &effects, &self.policy, times)
            && let Some(asked) = asked(outcome, &self.policy)
        {
            self.ledger.pause(asked, self.now);
        }
        self.told_of_losses(&effects);
        // Whoever made the call asks for more.
        self.woken(true);
        self.checked();
    }

    /// Outcomes of batches that are settled already.
    fn settle_late(&mut self) {
        let Some(id) = self.settled.last().copied() else { return };
        let before = (self.snapshot(), self.pipeline.breaker());
        let effects = self.pipeline.settle(id, Outcome::of(status::TIMEOUT, "late"), self.now);
        assert_eq!(before, (self.snapshot(), self.pipeline.breaker()));
        assert!(effects.delivered.is_empty() && effects.given_up.is_empty() && effects.notices.is_empty());
        self.checked();
    }

    fn close(&mut self) {
        self.tell(|| "close".into());
        if !std::mem::replace(&mut self.ledger.is_closed, true) {
            self.ledger.records.values_mut().for_each(|record| record.not_before = None);
            self.calls.close(&self.policy, self.now);
        }
        let effects = self.pipeline.close(self.now);
        Fates::default().check_ended_refusals(&mut self.ledger, &effects, 0);
        self.told_of_losses(&effects);
        assert!(effects.wake);
        self.woken(true);
        self.checked();
    }

    fn abandon(&mut self) {
        self.tell(|| "abandon".into());
        let effects = self.pipeline.abandon(DropReason::Shutdown);
        assert!(effects.wake);
        self.ledger.is_closed = true;
        for (item, cause, attempts) in lost(&effects) {
            let record = self.ledger.settle(item.id);
            assert_eq!((item, cause), (record.kept, Cause::Dropped(DropReason::Shutdown)));
            assert_eq!(attempts, record.attempts);
            self.ledger.count_loss(cause);
        }
        self.told_of_losses(&effects);
        assert!(self.ledger.records.is_empty(), "abandon leaves nothing");
        self.settled.extend(std::mem::take(&mut self.in_flight).into_keys());
        for id in std::mem::take(&mut self.settled) {
            let effects = self.pipeline.settle(id, Outcome::of(status::OK, ""), self.now);
            assert!(effects.delivered.is_empty() && effects.given_up.is_empty());
        }
        self.checked();
        self.admit();
        assert!(matches!(self.pipeline.next(self.now), Next::Closed));
        self.checked();
    }

    /// Every loss is told of once.
    fn told_of_losses(&self, effects: &Effects<Item>) {
        let told = effects.notices.iter().map(|notice| match notice {
            Notice::Dropped { records, .. } | Notice::Rejected { records, .. } => *records,
            _ => 0,
        });
        assert_eq!(told.sum::<u64>(), effects.given_up.len() as u64);
        for notice in &effects.notices {
            let (cause, records) = match notice {
                Notice::Dropped { reason, records } => (Cause::Dropped(*reason), *records),
                Notice::Rejected { reason, records, .. } => (Cause::Rejected(*reason), *records),
                _ => continue,
            };
            let lost = effects.given_up.iter().filter(|lost| lost.cause == cause).count();
            assert_eq!(records, lost as u64, "one notice for each cause");
        }
    }

    /// Workers that do nothing but their work until nothing is left to do that the backend takes.
    fn work(&mut self, backend: Backend) -> usize {
        let mut calls = 0;
        let is_left = |world: &Self| world.ledger.records.keys().any(|id| !backend.refuses(*id));
        self.backend = backend;
        while is_left(self) {
            if self.next() {
                calls += 1;
            } else if self.in_flight.is_empty() {
                assert!(matches!(self.asleep, Some(Some(_))), "something waits, and nothing will wake it");
                self.wait();
            } else {
                // Time passes in the end, even where a record is sent again and again without a pause.
                let most = if calls > self.policy.capacity.records { 5_000 } else { 10 };
                self.now += milliseconds(self.rng.u64(..most));
                self.settle_any();
            }
            assert!(calls < 100 * self.policy.capacity.records + 1_000, "no end to it");
        }
        calls
    }

    fn everything_is_delivered_once_the_backend_is_good(&mut self) {
        let (delivered, records) = (self.ledger.delivered, self.ledger.records.len());
        self.tell(|| "from here on the backend is good".into());
        let calls = self.work(Backend::Good);
        assert!(calls <= records, "{calls} calls for {records} records");
        if !self.ledger.is_closed {
            assert_eq!(self.ledger.delivered - delivered, records as u64, "the backend takes everything");
        }
    }

    /// Though others make it fail, again and again.
    fn what_the_backend_takes_is_delivered(&mut self) {
        self.tell(|| "from here on the backend is the same".into());
        while matches!(self.backend, Backend::Chaos | Backend::Good | Backend::Always { .. }) {
            self.backend = Backend::draw(&mut self.rng);
        }
        self.work(self.backend);
    }

    fn drain(&mut self) {
        while !self.ledger.records.is_empty() {
            self.work(Backend::Good);
        }
    }
}

fn lost(effects: &Effects<Item>) -> Vec<Loss> {
    effects.given_up.iter().map(|lost| (lost.item, lost.cause, lost.attempts)).collect()
}
