//! What becomes of records, in scenes: a backend that is a function, and time that moves only when everybody waits.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "behaviour/edges.rs"]
mod edges;
#[path = "behaviour/liveness.rs"]
mod liveness;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use exporter_pipeline::{
    Arrival, BatchLimits, Capacity, Cause, CircuitBreaker, DropReason, Effects, Next, Notice, OnFull, Opened,
    Outcome, Pipeline, Policy, RateLimits, RejectReason, Retry, Verdict,
};
use plugin_api::abi::{status, verdict};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy {
        capacity: Capacity { records: 10_000, bytes: 1 << 20 },
        on_full: OnFull::DropOldest,
        max_record_bytes: 1 << 20,
        batch: BatchLimits { max_records: 500, max_bytes: 1 << 20, max_delay: SECOND },
        retry: Retry {
            initial: 100 * MS,
            max: 30 * SECOND,
            max_elapsed: 300 * SECOND,
            max_pause: 300 * SECOND,
        },
        breaker: CircuitBreaker { failures: 5, cool_down: SECOND, max_cool_down: 60 * SECOND },
        rate: RateLimits::default(),
        max_panics: 10,
        workers: 1,
        keep_whole: true,
    }
}

/// A record: its number, and whether its bodies are gone.
type Item = (u32, bool);

/// A pipeline, its clock, and what became of every record.
struct Scene {
    pipeline: Pipeline<Item>,
    start: Instant,
    now: Instant,
    calls: Vec<Vec<u32>>,
    admitted: HashMap<u32, Duration>,
    /// How long after its admission.
    delivered: HashMap<u32, Duration>,
    given_up: HashMap<u32, Cause>,
    notices: Vec<Notice>,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        let start = Instant::now();
        Self {
            pipeline: Pipeline::new(policy, 7, start),
            start,
            now: start,
            calls: Vec::new(),
            admitted: HashMap::new(),
            delivered: HashMap::new(),
            given_up: HashMap::new(),
            notices: Vec::new(),
        }
    }

    fn admit(&mut self, numbers: impl IntoIterator<Item = u32>) -> &mut Self {
        self.admit_sized(numbers.into_iter().map(|number| (number, 100)))
    }

    fn admit_sized(&mut self, records: impl IntoIterator<Item = (u32, u64)>) -> &mut Self {
        let mut room = self.pipeline.room();
        let arrivals = records
            .into_iter()
            .map(|(number, size)| {
                self.admitted.insert(number, self.now - self.start);
                let smaller = room.wanted(size).filter(|_| size > 10).map(|_| ((number, true), 10));
                Arrival { item: (number, false), size, smaller }
            })
            .collect();
        let effects = self.pipeline.admit(arrivals, self.now);
        self.act(effects);
        self
    }

    fn act(&mut self, effects: Effects<Item>) {
        for (number, _) in effects.delivered {
            let after = self.now - self.start - self.admitted[&number];
            assert_eq!(self.delivered.insert(number, after), None, "{number} twice");
        }
        for lost in effects.given_up {
            assert_eq!(self.given_up.insert(lost.item.0, lost.cause), None, "{} twice", lost.item.0);
        }
        self.notices.extend(effects.notices);
        let snapshot = self.pipeline.snapshot();
        assert!(snapshot.is_balanced(), "{snapshot:?}");
    }

    /// Runs until nothing more happens, or for this long. A call takes what `backend` says.
    fn run(
        &mut self,
        time: Duration,
        mut backend: impl FnMut(&[Item], Duration) -> (Outcome<Item>, Duration),
    ) {
        let end = self.now + time;
        while self.now < end {
            match self.pipeline.next(self.now) {
                Next::Send(batch) => {
                    self.calls.push(batch.items.iter().map(|item| item.0).collect());
                    let (mut outcome, took) = backend(&batch.items, self.now - self.start);
                    if let [(number, false)] = batch.items[..] {
                        outcome.smaller = Some(((number, true), 10));
                    }
                    self.now += took;
                    let effects = self.pipeline.settle(batch.id, outcome, self.now);
                    self.act(effects);
                }
                Next::Wait(Some(until)) => {
                    assert!(until > self.now, "a wait that is over");
                    self.now = until;
                }
                Next::Wait(None) | Next::Closed => return,
            }
        }
    }

    fn lost(&self, cause: Cause) -> Vec<u32> {
        let mut numbers: Vec<u32> =
            self.given_up.iter().filter(|(_, given)| **given == cause).map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn quick(outcome: Outcome<Item>) -> (Outcome<Item>, Duration) {
    (outcome, MS)
}

fn ok() -> (Outcome<Item>, Duration) {
    quick(Outcome::of(status::OK, ""))
}

fn verdicts(items: &[Item], code: impl Fn(u32) -> u32) -> (Outcome<Item>, Duration) {
    let verdicts =
        items.iter().map(|item| Some(Verdict { code: code(item.0), reason: "why".into() })).collect();
    quick(Outcome { verdicts, ..Outcome::of(status::PER_RECORD, "") })
}

const HOPELESS: Cause = Cause::Dropped(DropReason::RetryExhausted);
const REJECTED: Cause = Cause::Rejected(RejectReason::Call);

#[test]
fn a_record_that_is_to_be_retried_for_ever_holds_up_nobody() {
    let mut scene = Scene::new(policy());
    scene.admit(0..21);
    scene.run(400 * SECOND, |items, _| {
        verdicts(items, |number| if number == 0 { verdict::RETRY } else { verdict::DELIVERED })
    });
    assert_eq!(scene.delivered.len(), 20);
    assert!(scene.delivered.values().all(|at| *at <= SECOND + MS), "{:?}", scene.delivered);
    assert_eq!(scene.lost(HOPELESS), [0]);
}

#[test]
fn a_parked_record_takes_at_most_half_of_a_batch_while_fresh_ones_wait() {
    let mut policy = policy();
    policy.batch.max_records = 10;
    let mut scene = Scene::new(policy);
    scene.admit(0..10);
    scene.run(SECOND, |items, _| verdicts(items, |_| verdict::RETRY));
    scene.now += 30 * SECOND;
    scene.admit(10..30);
    scene.calls.clear();
    scene.run(SECOND, |_, _| ok());
    let fresh: Vec<usize> =
        scene.calls.iter().map(|call| call.iter().filter(|number| **number >= 10).count()).collect();
    assert_eq!(fresh[..2], [5, 5], "{:?}", scene.calls);
}

#[test]
fn a_retry_after_is_a_pause_that_drops_nothing() {
    let mut scene = Scene::new(policy());
    scene.admit(0..100);
    scene.run(2000 * SECOND, |_, at| {
        if at < 290 * SECOND {
            quick(Outcome { retry_after: Some(600 * SECOND), ..Outcome::of(status::RETRY, "429") })
        } else {
            ok()
        }
    });
    assert_eq!((scene.delivered.len(), scene.given_up.len(), scene.calls.len()), (100, 0, 2));
}

#[test]
fn pauses_that_the_backend_asks_for_count_against_no_record_however_many_they_are() {
    for asked in [SECOND, 300 * SECOND, 3_600 * SECOND] {
        let mut scene = Scene::new(policy());
        scene.admit(0..100);
        let busy = || quick(Outcome { retry_after: Some(asked), ..Outcome::of(status::RETRY, "429") });
        scene.run(4_000 * SECOND, |_, _| busy());
        assert_eq!(scene.given_up.len(), 0, "{asked:?}");
        let opened = |notice: &Notice| matches!(notice, Notice::BreakerOpened { .. });
        assert!(!scene.notices.iter().any(opened), "the backend is there: {:?}", scene.notices);
        scene.run(400 * SECOND, |_, _| ok());
        assert_eq!((scene.delivered.len(), scene.given_up.len()), (100, 0), "{asked:?}");
    }
}

#[test]
fn what_fails_without_a_time_to_come_back_at_is_given_up_whatever_pauses_there_were_before() {
    let mut scene = Scene::new(policy());
    scene.admit([0]);
    scene.run(1_000 * SECOND, |_, at| {
        let retry_after = (at < 600 * SECOND).then_some(100 * SECOND);
        quick(Outcome { retry_after, ..Outcome::of(status::RETRY, "503") })
    });
    assert_eq!(scene.given_up.len(), 1);
}

#[test]
fn a_verdict_with_a_pause_of_its_own_counts_no_pause_against_its_record() {
    let mut scene = Scene::new(policy());
    scene.admit([0]);
    scene.run(3_000 * SECOND, |items, _| {
        let (outcome, _) = verdicts(items, |_| verdict::RETRY);
        quick(Outcome { retry_after: Some(300 * SECOND), ..outcome })
    });
    assert_eq!(scene.given_up.len(), 0);
}

#[test]
fn a_time_to_come_back_at_that_has_passed_asks_for_nothing() {
    let mut scene = Scene::new(policy());
    scene.admit([0]);
    scene.run(400 * SECOND, |_, _| {
        quick(Outcome { retry_after: Some(Duration::ZERO), ..Outcome::of(status::RETRY, "503") })
    });
    assert_eq!(scene.given_up.len(), 1, "after max_elapsed, as without it");
    let opened = |notice: &Notice| matches!(notice, Notice::BreakerOpened { .. });
    assert!(scene.notices.iter().any(opened), "{:?}", scene.notices);
}

#[test]
fn a_backend_that_refuses_everything_makes_the_records_wait_and_not_die() {
    let mut scene = Scene::new(policy());
    scene.admit(0..500);
    let reject = |_: &[Item], _: Duration| quick(Outcome::of(status::REJECT, "404"));
    scene.run(250 * SECOND, reject);
    assert_eq!(scene.given_up.len(), 0);
    assert!(scene.calls.len() < 30, "{} calls", scene.calls.len());
    let set_up = |notice: &&Notice| matches!(notice, Notice::BreakerOpened { why: Opened::SetUp, .. });
    assert_eq!(scene.notices.iter().filter(set_up).count(), 1, "{:?}", scene.notices);
    scene.run(250 * SECOND, |_, _| ok());
    assert_eq!((scene.delivered.len(), scene.given_up.len()), (500, 0));
    assert_eq!(scene.notices.last(), Some(&Notice::Recovered));
}

#[test]
fn one_refused_record_takes_no_other_with_it_and_is_rejected_at_once() {
    let mut scene = Scene::new(policy());
    scene.admit(0..500);
    scene.run(2 * SECOND, |items, _| {
        if items.iter().any(|item| item.0 == 137) { quick(Outcome::of(status::REJECT, "400")) } else { ok() }
    });
    assert_eq!(scene.delivered.len(), 499);
    assert_eq!(scene.lost(REJECTED), [137]);
}

#[test]
fn a_refused_record_that_came_alone_is_rejected_once_the_backend_has_taken_another() {
    let mut scene = Scene::new(policy());
    let backend = |items: &[Item], _: Duration| {
        if items.iter().any(|item| item.0 == 0) { quick(Outcome::of(status::REJECT, "400")) } else { ok() }
    };
    scene.admit([0]);
    scene.run(20 * SECOND, backend);
    assert_eq!(scene.given_up.len(), 0, "nothing is known of the backend");
    scene.admit([1]);
    scene.run(2 * SECOND, backend);
    assert_eq!((scene.delivered.len(), scene.lost(REJECTED)), (1, vec![0]));
}

#[test]
fn a_refused_record_that_nothing_comes_after_is_rejected_at_the_end() {
    let mut scene = Scene::new(policy());
    scene.admit([0, 1]);
    let reject = |_: &[Item], _: Duration| quick(Outcome::of(status::REJECT, "400"));
    scene.run(3 * SECOND, reject);
    let effects = scene.pipeline.close(scene.now);
    scene.act(effects);
    assert_eq!(scene.lost(REJECTED), [0, 1]);
    assert!(matches!(scene.pipeline.next(scene.now), Next::Closed));
}

#[test]
fn at_the_end_a_refused_record_is_tried_once_more_where_the_backend_takes_others() {
    for (still_refused, delivered) in [(false, 60), (true, 57)] {
        let mut scene = Scene::new(policy());
        scene.admit(0..60);
        scene.run(10 * SECOND, |_, _| quick(Outcome::of(status::REJECT, "404")));
        assert_eq!(scene.given_up.len(), 0);
        let effects = scene.pipeline.close(scene.now);
        scene.act(effects);
        scene.run(300 * SECOND, |items, _| match items {
            [(0..3, _)] if still_refused => quick(Outcome::of(status::REJECT, "400")),
            _ => ok(),
        });
        assert_eq!((scene.delivered.len(), scene.lost(REJECTED).len()), (delivered, 60 - delivered));
        assert!(matches!(scene.pipeline.next(scene.now), Next::Closed));
    }
}

#[test]
fn a_record_that_makes_the_backend_time_out_is_found_and_given_up_alone() {
    let mut scene = Scene::new(policy());
    scene.admit(0..500);
    let backend = |items: &[Item], _: Duration| {
        if items.iter().any(|item| item.0 == 137) {
            (Outcome::of(status::TIMEOUT, "no answer"), 30 * SECOND)
        } else {
            ok()
        }
    };
    for round in 0..100 {
        scene.admit([1000 + round]);
        scene.run(10 * SECOND, backend);
    }
    assert_eq!(scene.delivered.len(), 499 + 100);
    assert_eq!(scene.lost(HOPELESS), [137]);
    let bad = scene.calls.iter().filter(|call| call.contains(&137)).count();
    assert!(bad < 20, "{bad} calls with it");
    let fresh = scene.delivered.iter().filter(|(number, _)| **number >= 1000);
    let mut late: Vec<_> = fresh.map(|(_, after)| *after).collect();
    late.sort_unstable();
    assert!(late[late.len() / 2] < 2 * SECOND && late[late.len() - 1] < 95 * SECOND, "{late:?}");
}

#[test]
fn what_is_too_large_alone_is_sent_without_its_bodies_and_given_back_whole() {
    let mut scene = Scene::new(policy());
    scene.admit(0..4);
    scene.run(10 * SECOND, |items, _| match items {
        [(3, true) | (_, false)] | [_, _, ..] => quick(Outcome::of(status::TOO_LARGE, "413")),
        _ => ok(),
    });
    assert_eq!((scene.delivered.len(), scene.pipeline.snapshot().shed_bodies), (3, 4));
    assert_eq!(scene.lost(Cause::Dropped(DropReason::Oversize)), [3]);
}

#[test]
fn a_record_at_its_limit_passes_and_over_it_loses_bodies_or_is_dropped() {
    for (limit, expected) in
        [(101, (1, 0, 0)), (100, (1, 0, 0)), (99, (1, 1, 0)), (10, (1, 1, 0)), (9, (0, 0, 1))]
    {
        let mut policy = policy();
        policy.max_record_bytes = limit;
        let mut scene = Scene::new(policy);
        scene.admit([0]);
        let snapshot = scene.pipeline.snapshot();
        let dropped = snapshot.books.dropped(DropReason::Oversize);
        assert_eq!((snapshot.queued, snapshot.shed_bodies, dropped), expected, "{limit}");
    }
}

#[test]
fn what_does_not_fit_gives_way_by_the_policy() {
    for (on_full, records, bytes, sizes, kept, shed, reason) in [
        (OnFull::DropOldest, 2, 10_000, [100; 4], vec![2, 3], 0, DropReason::QueueFull),
        (OnFull::DropNewest, 2, 10_000, [100; 4], vec![0, 1], 0, DropReason::QueueFull),
        (OnFull::DropOldest, 10, 210, [100; 4], vec![2, 3], 0, DropReason::QueueFull),
        (OnFull::DropNewest, 10, 210, [100; 4], vec![0, 1], 0, DropReason::QueueFull),
        // By count: no body is given up, since that would make no room.
        (OnFull::Shed, 2, 10_000, [100; 4], vec![2, 3], 0, DropReason::QueueFull),
        (OnFull::Shed, 10, 215, [100; 4], vec![1, 2, 3], 2, DropReason::Shed),
    ] {
        let mut policy = policy();
        policy.capacity = Capacity { records, bytes };
        policy.on_full = on_full;
        let mut scene = Scene::new(policy);
        scene.admit_sized((0..).zip(sizes));
        let case = format!("{on_full:?} {records} {bytes}");
        assert_eq!(scene.lost(Cause::Dropped(reason)).len(), 4 - kept.len(), "{case}");
        assert_eq!(scene.pipeline.snapshot().shed_bodies, shed, "{case}");
        scene.run(2 * SECOND, |_, _| ok());
        let mut delivered: Vec<u32> = scene.delivered.keys().copied().collect();
        delivered.sort_unstable();
        assert_eq!(delivered, kept, "{case}");
    }
}

#[test]
fn what_is_parked_or_in_flight_counts_as_what_waits() {
    let mut policy = policy();
    policy.capacity = Capacity { records: 3, bytes: 10_000 };
    policy.batch.max_delay = Duration::ZERO;
    let mut scene = Scene::new(policy);
    scene.admit(0..2);
    scene.run(MS, |items, _| verdicts(items, |_| verdict::RETRY));
    assert_eq!(scene.pipeline.snapshot().parked, 2);
    scene.admit([2]);
    let Next::Send(batch) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    assert!(batch.items.contains(&(2, false)));
    scene.admit([3]);
    let snapshot = scene.pipeline.snapshot();
    assert_eq!(snapshot.queued + snapshot.books.in_flight, 3, "{snapshot:?}");
    assert_eq!(snapshot.queued_bytes, 300);
}

#[test]
fn a_backend_that_is_down_costs_one_probe_per_cool_down_and_what_was_tried_only_at_its_time() {
    let mut scene = Scene::new(policy());
    scene.admit(0..5000);
    scene.run(1000 * SECOND, |_, _| quick(Outcome::of(status::RETRY, "down")));
    assert!(scene.calls.len() < 40, "{}", scene.calls.len());
    let lost = scene.lost(Cause::Dropped(DropReason::BreakerOpenTimeout)).len();
    assert!(lost > 0 && lost < 3000, "{lost}");
    let mut probes: Vec<u32> = scene.calls.iter().skip(6).map(|call| call[0]).collect();
    probes.dedup();
    assert!(probes.len() > 3, "the same batch is every probe: {probes:?}");
}

#[test]
fn order_is_kept_by_what_never_failed() {
    let mut policy = policy();
    policy.batch.max_records = 7;
    let mut scene = Scene::new(policy);
    scene.admit(0..100);
    let mut calls = 0;
    scene.run(60 * SECOND, |_, _| {
        calls += 1;
        if calls % 3 == 0 { quick(Outcome::of(status::RETRY, "flaky")) } else { ok() }
    });
    let sent: Vec<u32> = scene
        .calls
        .iter()
        .enumerate()
        .filter(|(index, _)| (index + 1) % 3 != 0)
        .flat_map(|(_, call)| call.clone())
        .collect();
    assert_eq!(sent, (0..100).collect::<Vec<_>>());
}

#[test]
fn panics_in_a_row_take_the_plugin_out_of_service() {
    let mut policy = policy();
    policy.max_panics = 2;
    let mut scene = Scene::new(policy);
    scene.admit([0]);
    let mut disabled = Vec::new();
    for _ in 0..2 {
        scene.now += 10 * SECOND;
        let Next::Send(batch) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
        let effects = scene.pipeline.settle(batch.id, Outcome::of(status::PANIC, "boo"), scene.now);
        disabled.push(effects.disable.is_some());
    }
    assert_eq!(disabled, [false, true]);
}

#[test]
fn an_outcome_that_comes_after_everything_was_abandoned_changes_nothing() {
    let mut scene = Scene::new(policy());
    scene.admit(0..3);
    scene.now += SECOND;
    let Next::Send(batch) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    scene.admit([3]);
    let effects = scene.pipeline.abandon(DropReason::Shutdown);
    scene.act(effects);
    assert_eq!(scene.lost(Cause::Dropped(DropReason::Shutdown)), [0, 1, 2, 3]);
    let effects = scene.pipeline.settle(batch.id, Outcome::of(status::OK, ""), scene.now);
    scene.act(effects);
    assert!(scene.delivered.is_empty());
    scene.admit([4]);
    assert_eq!(scene.lost(Cause::Dropped(DropReason::Shutdown)).len(), 5);
    assert!(matches!(scene.pipeline.next(scene.now), Next::Closed));
}

#[test]
fn at_the_end_a_backend_that_is_back_is_found_without_waiting_for_a_pause_or_a_cool_down() {
    for outcome in [
        Outcome::of(status::UNAUTHORIZED, "401"),
        Outcome { retry_after: Some(300 * SECOND), ..Outcome::of(status::RETRY, "429") },
        Outcome::of(status::REJECT, "404"),
    ] {
        let mut scene = Scene::new(policy());
        scene.admit(0..50);
        scene.run(200 * SECOND, |_, _| quick(outcome.clone()));
        let effects = scene.pipeline.close(scene.now);
        scene.act(effects);
        let closed = scene.now;
        scene.run(SECOND, |_, _| ok());
        assert_eq!(scene.delivered.len(), 50, "{outcome:?}");
        assert!(scene.now - closed < SECOND, "{outcome:?}");
        assert!(matches!(scene.pipeline.next(scene.now), Next::Closed));
    }
}
