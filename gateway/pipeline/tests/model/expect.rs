//! What may and what must become of the records of a call, and when calls may be made.

use std::time::{Duration, Instant};

use exporter_pipeline::{
    Batch, BatchId, BreakerState, Cause, DropReason, Effects, GivenUp, Notice, Opened, Outcome, Policy,
    RejectReason,
};
use plugin_api::abi::{status, verdict};

use crate::{
    draw::SKEW,
    ledger::{Item, Ledger},
};

/// How long a record that makes a call last may have to wait for the next, in such calls.
const PATIENCE: u32 = 4;

/// The records of a call by what it says of each.
#[derive(Debug, Default)]
pub struct Fates {
    delivered: Vec<Item>,
    rejected: Vec<(Item, String)>,
    retried: Vec<Item>,
    missing: u64,
    /// They share the fate of the call.
    rest: Vec<Item>,
}

impl Fates {
    pub fn of(batch: &Batch<Item>, outcome: &Outcome<Item>) -> Self {
        let mut fates = Self::default();
        for (place, item) in batch.items.iter().enumerate() {
            let said = outcome.verdicts.get(place).and_then(Option::as_ref);
            match (said.map(|said| said.code), outcome.status) {
                (Some(verdict::DELIVERED), _) | (None, status::OK) => fates.delivered.push(*item),
                (Some(verdict::REJECTED), _) => fates.rejected.push((*item, said.unwrap().reason.clone())),
                (Some(_), _) => fates.retried.push(*item),
                (None, status::PER_RECORD) => {
                    fates.retried.push(*item);
                    fates.missing += 1;
                }
                (None, _) => fates.rest.push(*item),
            }
        }
        fates
    }

    /// Enters into the ledger what became of them, if that is what may become of them.
    pub fn check(
        &self,
        ledger: &mut Ledger,
        outcome: &Outcome<Item>,
        effects: &Effects<Item>,
        policy: &Policy,
        breaker: BreakerState,
        now: Instant,
    ) {
        let all = self.delivered.iter().chain(self.rejected.iter().map(|(item, _)| item));
        for item in all.chain(&self.retried).chain(&self.rest) {
            ledger.come_back(item.id);
        }
        assert_eq!(effects.delivered, self.delivered);
        assert_eq!(effects.faults, self.missing);
        for item in &self.delivered {
            ledger.settle(item.id);
            ledger.delivered += 1;
            ledger.last_delivery = Some(now);
        }
        let given_up = |id: u64| effects.given_up.iter().find(|lost| lost.item.id == id);
        for (item, reason) in &self.rejected {
            let lost = given_up(item.id).expect("rejected");
            assert_eq!((lost.cause, &lost.message), (Cause::Rejected(RejectReason::Record), reason));
            Self::lose(ledger, lost);
        }
        for item in &self.retried {
            let is_over = is_exhausted(ledger, item, policy, now);
            let cause = given_up(item.id).map(|lost| lost.cause);
            assert_eq!(cause, is_over.then_some(Cause::Dropped(DropReason::RetryExhausted)), "{item:?}");
            match given_up(item.id) {
                Some(lost) => Self::lose(ledger, lost),
                None => Self::retry(ledger, item, outcome, policy, now),
            }
        }
        let is_smaller = self.is_sent_smaller(outcome);
        for item in &self.rest {
            let Some(lost) = given_up(item.id) else { continue };
            assert!(!is_smaller, "{lost:?} can be sent without its bodies");
            self.check_loss(ledger, lost, outcome, policy, breaker, now);
            Self::lose(ledger, lost);
        }
        if is_smaller {
            let (item, _) = outcome.smaller.unwrap();
            ledger.shrink(item.id, item, policy.keep_whole);
        }
        let is_refused = matches!(outcome.status, status::REJECT | status::TOO_LARGE) && !is_smaller;
        if let ([item], true) = (&self.rest[..], is_refused)
            && let Some(record) = ledger.records.get_mut(&item.id)
        {
            record.is_refused = true;
        }
        if !ledger.is_closed {
            assert_eq!(
                effects.retries,
                self.retries(ledger, is_failure(outcome.status), is_refused),
                "{outcome:?}"
            );
        }
        let of_this = self.rejected.len() + self.retried.len() + self.rest.len();
        self.check_ended_refusals(ledger, effects, of_this);
    }

    /// Records that wait on their own now, and what is left of a batch that failed.
    fn retries(&self, ledger: &Ledger, is_failed: bool, is_refused: bool) -> u64 {
        let is_kept = |item: &&Item| ledger.records.contains_key(&item.id);
        let parked = self.retried.iter().filter(is_kept).count() as u64;
        let is_left = self.rest.iter().any(|item| is_kept(&item));
        parked + u64::from(is_left && (is_failed || is_refused && self.rest.len() == 1))
    }

    fn retry(ledger: &mut Ledger, item: &Item, outcome: &Outcome<Item>, policy: &Policy, now: Instant) {
        let record = ledger.records.get_mut(&item.id).unwrap();
        record.is_refused = false;
        record.asked_alone += asked(outcome, policy).unwrap_or_default();
        record.not_before = asked(outcome, policy).map(|asked| now + asked);
    }

    fn is_sent_smaller(&self, outcome: &Outcome<Item>) -> bool {
        let smaller = outcome.smaller.filter(|_| outcome.status == status::TOO_LARGE);
        smaller.is_some_and(|(_, size)| matches!(&self.rest[..], [item] if size < item.size))
    }

    /// Whether a record that shares the fate of its call may be given up like this.
    fn check_loss(
        &self,
        ledger: &Ledger,
        lost: &GivenUp<Item>,
        outcome: &Outcome<Item>,
        policy: &Policy,
        breaker: BreakerState,
        now: Instant,
    ) {
        let is_over = is_exhausted(ledger, &lost.item, policy, now);
        match lost.cause {
            Cause::Dropped(DropReason::RetryExhausted) => {
                assert!(is_over && !is_refusal(outcome.status), "{lost:?} {outcome:?}");
            }
            Cause::Dropped(DropReason::BreakerOpenTimeout) => {
                assert!(is_over && breaker != BreakerState::Closed, "{lost:?} {outcome:?}");
            }
            Cause::Rejected(RejectReason::Call) | Cause::Dropped(DropReason::Oversize) => {
                if ledger.is_closed && ledger.records[&lost.item.id].is_refused {
                    return;
                }
                assert!(is_refusal(outcome.status) && self.rest.len() == 1, "{lost:?} {outcome:?}");
                let first_sent = ledger.records[&lost.item.id].first_sent;
                let is_proven = ledger.last_delivery.is_some_and(|at| Some(at + SKEW) >= first_sent);
                assert!(is_over || is_proven || ledger.is_closed, "nothing is known of the backend");
                let is_large = outcome.status == status::TOO_LARGE;
                let is_oversize = lost.cause == Cause::Dropped(DropReason::Oversize);
                assert!(is_large == is_oversize, "{lost:?} {outcome:?}");
            }
            Cause::Rejected(_) | Cause::Dropped(_) => panic!("{lost:?} {outcome:?}"),
        }
    }

    /// What else was given up was refused alone, and nothing more comes.
    pub fn check_ended_refusals(&self, ledger: &mut Ledger, effects: &Effects<Item>, of_this_call: usize) {
        let mut others = 0;
        for lost in &effects.given_up {
            let Some(record) = ledger.records.get(&lost.item.id) else { continue };
            assert!(ledger.is_closed && record.is_refused, "{lost:?} {record:?}");
            let may_be = [Cause::Rejected(RejectReason::Call), Cause::Dropped(DropReason::Oversize)];
            assert!(may_be.contains(&lost.cause), "{lost:?}");
            Self::lose(ledger, lost);
            others += 1;
        }
        assert!(effects.given_up.len() <= of_this_call + others, "something is given up twice");
    }

    fn lose(ledger: &mut Ledger, lost: &GivenUp<Item>) {
        let record = ledger.settle(lost.item.id);
        assert_eq!((lost.item, lost.attempts), (record.kept, record.attempts));
        ledger.count_loss(lost.cause);
    }
}

fn is_refusal(code: u32) -> bool {
    matches!(code, status::REJECT | status::TOO_LARGE)
}

fn is_failure(code: u32) -> bool {
    !matches!(code, status::OK | status::PER_RECORD) && !is_refusal(code)
}

/// Whether it may be given up now that an attempt failed.
fn is_exhausted(ledger: &Ledger, item: &Item, policy: &Policy, now: Instant) -> bool {
    let record = &ledger.records[&item.id];
    let asked = ledger.asked - record.asked_before + record.asked_alone;
    let elapsed = record.first_sent.map(|first| (now - first).saturating_sub(asked));
    let max = policy.retry.max_elapsed;
    !max.is_zero() && elapsed.is_some_and(|elapsed| elapsed >= max)
}

/// When calls may be made: breaker and pauses, as far as they do not depend on the jitter.
#[derive(Debug)]
pub struct Calls {
    probe: Option<BatchId>,
    pub open_until: Instant,
    cool_down: Duration,
    /// Failed calls in a row.
    failed: u32,
    /// Those of them that are no pause that the backend asked for.
    failed_for_breaker: u32,
    panics: u32,
    longest: Duration,
    /// No call before; no pause after.
    paused_at_least: Instant,
    paused_at_most: Instant,
}

impl Calls {
    pub fn new(policy: &Policy) -> Self {
        let long_ago = Instant::now();
        Self {
            probe: None,
            open_until: long_ago,
            cool_down: policy.breaker.cool_down,
            failed: 0,
            failed_for_breaker: 0,
            panics: 0,
            longest: Duration::ZERO,
            paused_at_least: long_ago,
            paused_at_most: long_ago,
        }
    }

    /// Pauses and cool-downs end.
    pub fn close(&mut self, policy: &Policy, now: Instant) {
        self.cool_down = policy.breaker.cool_down;
        self.open_until = self.open_until.min(now);
        // Longer ago than the clock ever jumps back.
        let over = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        self.paused_at_least = self.paused_at_least.min(over);
        self.paused_at_most = self.paused_at_most.min(over);
    }

    fn is_permitted(&self, breaker: BreakerState, policy: &Policy, now: Instant) -> bool {
        let is_limited = policy.rate.records_per_second.or(policy.rate.requests_per_second).is_some();
        let is_open = match breaker {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => false,
            BreakerState::Open => now >= self.open_until,
        };
        is_open && now >= self.paused_at_most && !is_limited
    }

    /// Whether there has to be a batch: a call is permitted, and the fresh records are enough or have waited long enough.
    pub fn must_send(&self, ledger: &Ledger, breaker: BreakerState, policy: &Policy, now: Instant) -> bool {
        self.is_permitted(breaker, policy, now) && is_ready(ledger, policy, now)
    }

    pub fn check_wait(&self, wait: Duration, policy: &Policy) {
        let is_limited = policy.rate.records_per_second.or(policy.rate.requests_per_second).is_some();
        let pause = policy.retry.max.max(policy.retry.max_pause).max(self.longest * PATIENCE);
        let cool_down = policy.breaker.cool_down.max(policy.breaker.max_cool_down);
        let longest = pause.max(cool_down) + policy.batch.max_delay;
        assert!(is_limited || wait <= longest, "{wait:?} is for ever");
    }

    /// A call begins.
    pub fn send(
        &mut self,
        batch: &Batch<Item>,
        before: BreakerState,
        after: BreakerState,
        ledger: &Ledger,
        policy: &Policy,
        now: Instant,
    ) {
        assert!(now >= self.paused_at_least, "the backend asked to be left alone");
        match before {
            BreakerState::Closed => assert_eq!(after, BreakerState::Closed),
            BreakerState::HalfOpen => panic!("a call beside a probe"),
            BreakerState::Open => {
                assert!(now >= self.open_until, "a call while the breaker is open");
                assert_eq!(after, BreakerState::HalfOpen);
                self.probe = Some(batch.id);
            }
        }
        let limits = policy.batch;
        let bytes: u64 = batch.items.iter().map(|item| item.size).sum();
        assert!(!batch.items.is_empty() && batch.items.len() <= limits.max_records.max(1), "{batch:?}");
        assert!(batch.items.len() == 1 || bytes <= limits.max_bytes, "{batch:?}");
        assert!(batch.items.is_sorted_by_key(|item| item.id), "the oldest first");
        let record = |item: &Item| &ledger.records[&item.id];
        assert_eq!(Some(batch.attempt), batch.items.iter().map(|item| record(item).attempts).max());
        let fresh = batch.items.iter().filter(|item| record(item).first_sent.is_none()).count();
        let tried = batch.items.len() - fresh;
        if fresh > 0 && fresh < ledger.fresh.len() {
            let of_tried = batch.items.iter().filter(|item| record(item).first_sent.is_some());
            let bytes: u64 = of_tried.map(|item| item.size).sum();
            let is_half = tried <= limits.max_records / 2 && bytes <= limits.max_bytes / 2;
            assert!(tried <= 1 || is_half, "{tried} in {batch:?} though fresh ones wait");
        }
        if before == BreakerState::Closed {
            let early = batch.items.iter().find(|item| record(item).not_before.is_some_and(|at| at > now));
            assert_eq!(early, None, "the backend asked to be left alone with it");
            let is_all_fresh = ledger.fresh.len() == ledger.waiting.len();
            assert!(!is_all_fresh || is_ready(ledger, policy, now), "{batch:?} is not complete");
        }
    }

    /// A call ends. True: it failed.
    pub fn settle(
        &mut self,
        batch: &Batch<Item>,
        outcome: &Outcome<Item>,
        (before, after): (BreakerState, BreakerState),
        effects: &Effects<Item>,
        policy: &Policy,
        (sent_at, now): (Instant, Instant),
    ) -> bool {
        self.longest = self.longest.max(now - sent_at);
        self.panics = if outcome.status == status::PANIC { self.panics + 1 } else { 0 };
        assert_eq!(effects.disable.is_some(), self.panics >= policy.max_panics);
        let opened = effects.notices.iter().find_map(|notice| match notice {
            Notice::BreakerOpened { why, .. } => Some(*why),
            _ => None,
        });
        let is_unauthorized = outcome.status == status::UNAUTHORIZED;
        let is_probe = self.probe == Some(batch.id);
        let fails = is_failure(outcome.status) || is_refusal(outcome.status) && after != BreakerState::Closed;
        if !fails {
            assert_eq!(after, BreakerState::Closed, "{outcome:?}");
            let is_recovered = effects.notices.contains(&Notice::Recovered);
            assert_eq!(is_recovered, before != BreakerState::Closed);
            (self.failed, self.failed_for_breaker) = (0, 0);
            self.cool_down = policy.breaker.cool_down;
            return false;
        }
        self.failed += 1;
        self.pause(outcome, policy, now);
        let is_paced = before == BreakerState::Closed && asked(outcome, policy).is_some() && !is_unauthorized;
        if !is_paced {
            self.failed_for_breaker += 1;
        }
        match before {
            BreakerState::Closed => {
                let is_open =
                    is_unauthorized || !is_paced && self.failed_for_breaker >= policy.breaker.failures;
                assert_eq!(after != BreakerState::Closed, is_open || opened == Some(Opened::SetUp));
                assert_eq!(opened.is_some(), after != BreakerState::Closed);
                if opened.is_some() {
                    self.open_until = now + self.cool_down;
                }
            }
            BreakerState::HalfOpen if is_probe => {
                assert_eq!(after, BreakerState::Open);
                self.cool_down = (self.cool_down * 2).min(policy.breaker.max_cool_down);
                self.open_until = now + self.cool_down;
            }
            BreakerState::HalfOpen | BreakerState::Open => assert_eq!(after, before),
        }
        let expected = if is_unauthorized { Opened::Unauthorized } else { Opened::Failures };
        assert!(opened.is_none_or(|why| why == expected || why == Opened::SetUp), "{opened:?} {outcome:?}");
        true
    }

    fn pause(&mut self, outcome: &Outcome<Item>, policy: &Policy, now: Instant) {
        let retry = &policy.retry;
        let (least, most) = match asked(outcome, policy) {
            Some(asked) => (asked, asked),
            None => {
                let doubled = retry.initial.saturating_mul(1 << (self.failed - 1).min(30));
                (Duration::ZERO, doubled.min(retry.max))
            }
        };
        self.paused_at_least = self.paused_at_least.max(now + least);
        self.paused_at_most = self.paused_at_most.max(now + most);
    }
}

/// For how long the backend is left alone since it has asked for it.
pub fn asked(outcome: &Outcome<Item>, policy: &Policy) -> Option<Duration> {
    let asked = outcome.retry_after.filter(|asked| !asked.is_zero());
    asked.map(|asked| asked.min(policy.retry.max_pause))
}

fn is_ready(ledger: &Ledger, policy: &Policy, now: Instant) -> bool {
    let Some(oldest) = ledger.fresh.front().map(|id| ledger.records[id].queued_at) else { return false };
    ledger.is_closed && now >= oldest
        || now >= oldest + policy.batch.max_delay
        || ledger.fresh.len() >= policy.batch.max_records
        || ledger.fresh_bytes >= policy.batch.max_bytes
}
