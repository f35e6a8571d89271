//! Nothing waits for ever though the backend would take it, and nothing panics, whatever the settings and the backend.

use exporter_pipeline::{Batch, BreakerState};

use super::*;

fn fails(status: u32, took: Duration) -> (Outcome<Item>, Duration) {
    (Outcome::of(status, "no"), took)
}

fn holds(items: &[Item], number: u32) -> bool {
    items.iter().any(|item| item.0 == number)
}

fn send(scene: &mut Scene) -> Batch<Item> {
    match scene.pipeline.next(scene.now) {
        Next::Send(batch) => batch,
        other => panic!("nothing to send: {other:?}"),
    }
}

fn settle(scene: &mut Scene, batch: &Batch<Item>, outcome: Outcome<Item>) {
    let effects = scene.pipeline.settle(batch.id, outcome, scene.now);
    scene.act(effects);
}

fn small_batches() -> Policy {
    let mut policy = policy();
    policy.batch.max_records = 10;
    policy.retry.max_elapsed = Duration::ZERO;
    policy
}

#[test]
fn two_batches_that_no_backend_can_digest_hold_up_no_third() {
    for workers in [1, 3] {
        let mut scene = Scene::new(Policy { workers, ..small_batches() });
        scene.admit(0..200);
        let bad = |number: u32| number < 60 && number % 10 == 3;
        scene.run(600 * SECOND, |items, _| {
            if items.iter().any(|item| bad(item.0)) { fails(status::TIMEOUT, SECOND) } else { ok() }
        });
        assert_eq!(scene.delivered.len(), 194, "{workers} workers");
    }
}

#[test]
fn records_that_each_make_the_backend_fail_hold_up_no_other_in_batches_of_one() {
    let mut policy = small_batches();
    policy.batch.max_records = 1;
    let mut scene = Scene::new(policy);
    scene.admit(0..20);
    scene.run(600 * SECOND, |items, _| if items[0].0 < 5 { fails(status::TIMEOUT, SECOND) } else { ok() });
    assert_eq!(scene.delivered.len(), 15);
}

#[test]
fn a_call_that_is_said_to_be_unauthorized_for_the_sake_of_one_record_holds_up_no_other() {
    let mut scene = Scene::new(small_batches());
    scene.admit(0..100);
    scene.run(600 * SECOND, |items, _| if holds(items, 5) { fails(status::UNAUTHORIZED, MS) } else { ok() });
    assert_eq!(scene.delivered.len(), 99);
}

#[test]
fn a_batch_for_which_the_backend_always_asks_for_time_holds_up_no_other() {
    let mut scene = Scene::new(small_batches());
    scene.admit(0..100);
    scene.run(600 * SECOND, |items, _| {
        let busy = Outcome { retry_after: Some(SECOND), ..Outcome::of(status::RETRY, "503") };
        if holds(items, 5) { quick(busy) } else { ok() }
    });
    assert_eq!(scene.delivered.len(), 99);
}

#[test]
fn the_parts_of_a_batch_are_tried_as_they_are_before_they_are_split_again() {
    let mut scene = Scene::new(policy());
    scene.admit(0..1000);
    scene.run(300 * SECOND, |items, _| if holds(items, 137) { fails(status::TIMEOUT, SECOND) } else { ok() });
    assert_eq!(scene.delivered.len(), 999);
    let good = scene.calls.iter().filter(|call| !call.contains(&137)).count();
    assert!(good <= 1 + 3 * 8, "{good} calls without it");
}

#[test]
fn a_backend_that_refuses_everything_is_found_out_while_full_batches_keep_coming() {
    let mut policy = policy();
    policy.capacity = Capacity { records: 100_000, bytes: 1 << 30 };
    let mut scene = Scene::new(policy);
    for round in 0..100 {
        scene.admit(round * 500..(round + 1) * 500);
        let batch = send(&mut scene);
        scene.now += MS;
        settle(&mut scene, &batch, Outcome::of(status::REJECT, "404"));
        if scene.pipeline.breaker() == BreakerState::Open {
            assert!(round < 40, "after {round} calls");
            return;
        }
    }
    panic!("never");
}

#[test]
fn what_was_tried_before_the_set_up_broke_is_not_rejected_for_it() {
    let mut scene = Scene::new(policy());
    scene.admit(0..100);
    scene.run(SECOND + 2 * MS, |items, _| verdicts(items, |_| verdict::RETRY));
    scene.admit([100]);
    scene.now += SECOND;
    let batch = send(&mut scene);
    let verdicts = batch.items.iter().map(|item| {
        let code = if item.0 == 100 { verdict::DELIVERED } else { verdict::RETRY };
        Some(Verdict { code, reason: String::new() })
    });
    let outcome = Outcome { verdicts: verdicts.collect(), ..Outcome::of(status::PER_RECORD, "") };
    settle(&mut scene, &batch, outcome);
    assert_eq!(scene.delivered.len(), 1);
    scene.run(100 * SECOND, |_, _| fails(status::REJECT, MS));
    assert_eq!(scene.given_up.len(), 0, "{:?}", scene.given_up);
}

#[test]
fn the_probes_of_a_wrong_set_up_try_everything_in_turn() {
    // Three refusals, and one record on which the backend fails: all but the last would be taken now.
    let mut scene = Scene::new(small_batches());
    scene.admit(0..3);
    scene.run(3 * SECOND, |_, _| fails(status::REJECT, MS));
    assert!(
        scene.notices.iter().any(|notice| matches!(notice, Notice::BreakerOpened { why: Opened::SetUp, .. }))
    );
    scene.admit([3]);
    for round in 0..20 {
        scene.admit([10 + round]);
        scene.run(100 * SECOND, |items, _| {
            if holds(items, 3) || items[0].0 >= 10 { fails(status::TIMEOUT, SECOND) } else { ok() }
        });
    }
    assert!(scene.delivered.len() >= 3, "{:?}", scene.delivered);
}

#[test]
fn a_call_from_before_the_probe_is_not_the_probe() {
    let mut policy = small_batches();
    policy.workers = 2;
    let mut scene = Scene::new(policy);
    scene.admit(0..20);
    let (old, bad) = (send(&mut scene), send(&mut scene));
    settle(&mut scene, &bad, Outcome::of(status::UNAUTHORIZED, "401"));
    scene.now += SECOND;
    let probe = send(&mut scene);
    assert_eq!(scene.pipeline.breaker(), BreakerState::HalfOpen);
    settle(&mut scene, &old, Outcome::of(status::TIMEOUT, "late"));
    assert_eq!(scene.pipeline.breaker(), BreakerState::HalfOpen, "the probe is still under way");
    settle(&mut scene, &probe, Outcome::of(status::TIMEOUT, "down"));
    assert_eq!(scene.pipeline.breaker(), BreakerState::Open);
    assert!(matches!(scene.pipeline.next(scene.now + 2 * SECOND - MS), Next::Wait(Some(_))));
    assert!(matches!(scene.pipeline.next(scene.now + 2 * SECOND), Next::Send(_)), "a cool-down doubled once");
}

#[test]
fn a_wrong_set_up_is_told_of_even_when_the_breaker_was_open_already() {
    let mut policy = small_batches();
    (policy.workers, policy.batch.max_records) = (2, 1);
    let mut scene = Scene::new(policy);
    scene.admit(0..4);
    let batches: Vec<_> = (0..4).map(|_| send(&mut scene)).collect();
    settle(&mut scene, &batches[0], Outcome::of(status::REJECT, "404"));
    settle(&mut scene, &batches[1], Outcome::of(status::REJECT, "404"));
    settle(&mut scene, &batches[2], Outcome::of(status::UNAUTHORIZED, "401"));
    settle(&mut scene, &batches[3], Outcome::of(status::REJECT, "404"));
    assert!(
        scene.notices.iter().any(|notice| matches!(notice, Notice::BreakerOpened { why: Opened::SetUp, .. })),
        "{:?}",
        scene.notices
    );
}

#[test]
fn of_batches_that_failed_with_the_backend_the_oldest_goes_first() {
    let mut policy = small_batches();
    (policy.workers, policy.retry.initial) = (3, Duration::ZERO);
    let mut scene = Scene::new(policy);
    scene.admit(0..30);
    let batches: Vec<_> = (0..3).map(|_| send(&mut scene)).collect();
    settle(&mut scene, &batches[0], Outcome::of(status::TIMEOUT, "down"));
    settle(&mut scene, &batches[2], Outcome::of(status::REJECT, "400"));
    settle(&mut scene, &batches[1], Outcome::of(status::TIMEOUT, "down"));
    assert_eq!(send(&mut scene).items[0].0, 0);
    assert_eq!(send(&mut scene).items[0].0, 10);
}

#[test]
fn a_smaller_version_that_is_no_smaller_is_none() {
    let mut scene = Scene::new(small_batches());
    scene.admit([0, 1]);
    let mut calls = 0;
    scene.run(100 * SECOND, |items, _| {
        calls += 1;
        if holds(items, 0) && calls < 100 { fails(status::TOO_LARGE, MS) } else { ok() }
    });
    // `run` hands over (0, true) of 10 bytes once; from here on it is as large as the record itself.
    scene.admit_sized([(2, 10)]);
    scene.now += SECOND;
    let batch = send(&mut scene);
    let smaller = Some(((2, true), 10));
    settle(&mut scene, &batch, Outcome { smaller, ..Outcome::of(status::TOO_LARGE, "413") });
    assert_eq!((scene.pipeline.snapshot().queued_bytes, scene.pipeline.snapshot().shed_bodies), (10, 1));
}

#[test]
fn limits_of_zero_keep_nothing_from_being_sent_again() {
    for (max_records, max_bytes) in [(0, 0), (0, 100), (10, 0)] {
        let mut policy = small_batches();
        policy.batch = BatchLimits { max_records, max_bytes, max_delay: Duration::ZERO };
        let mut scene = Scene::new(policy);
        scene.admit(0..4);
        let mut calls = 0;
        scene.run(100 * SECOND, |_, _| {
            calls += 1;
            if calls % 3 == 1 { fails(status::TIMEOUT, MS) } else { ok() }
        });
        assert_eq!(scene.delivered.len(), 4, "{max_records} {max_bytes}");
    }
}

#[test]
fn durations_and_rates_may_be_as_large_and_as_small_as_they_can_be() {
    let durations = [Duration::ZERO, Duration::MAX];
    let rates = [None, Some(0.0), Some(f64::MIN_POSITIVE), Some(1e-6), Some(f64::MAX), Some(f64::INFINITY)];
    for (index, rate) in (0_u32..).zip(rates.into_iter().cycle().take(6 * 128)) {
        let pick = |bit: u32| durations[(((index / 6) >> bit) & 1) as usize];
        let mut policy = policy();
        policy.batch.max_delay = pick(0);
        policy.retry = Retry { initial: pick(1), max: pick(2), max_elapsed: pick(3), max_pause: pick(4) };
        policy.breaker = CircuitBreaker { failures: 2, cool_down: pick(5), max_cool_down: pick(6) };
        policy.rate = RateLimits { records_per_second: rate, requests_per_second: rate };
        let mut scene = Scene::new(policy);
        for code in [status::TIMEOUT, status::REJECT, status::UNAUTHORIZED, status::PER_RECORD].repeat(4) {
            scene.admit([scene.admitted.len() as u32]);
            if let Next::Send(batch) = scene.pipeline.next(scene.now) {
                let outcome = Outcome { retry_after: Some(pick(1)), ..Outcome::of(code, "") };
                scene.now += Duration::from_secs(1 << 33);
                settle(&mut scene, &batch, outcome);
            }
            scene.now += SECOND;
        }
    }
}

#[test]
fn a_plugin_that_never_panicked_is_not_disabled_whatever_the_limit() {
    let mut policy = small_batches();
    policy.max_panics = 0;
    let mut scene = Scene::new(policy);
    scene.admit([0]);
    scene.now += SECOND;
    let batch = send(&mut scene);
    let effects = scene.pipeline.settle(batch.id, Outcome::of(status::OK, ""), scene.now);
    assert_eq!(effects.disable, None);
}

#[test]
fn a_record_that_no_backend_can_digest_is_found_even_when_nothing_else_is_sent() {
    for bad in [0, 1, 9] {
        let mut scene = Scene::new(small_batches());
        scene.admit(0..10);
        scene.run(
            600 * SECOND,
            |items, _| if holds(items, bad) { fails(status::TIMEOUT, SECOND) } else { ok() },
        );
        assert_eq!(scene.delivered.len(), 9, "{bad}");
    }
}

#[test]
fn a_fresh_record_that_fills_a_batch_is_not_kept_out_by_small_ones_that_are_retried_for_ever() {
    let mut policy = small_batches();
    (policy.batch.max_bytes, policy.retry.max) = (100, Duration::ZERO);
    let mut scene = Scene::new(policy);
    scene.admit_sized([(0, 5), (1, 100), (2, 1000)]);
    scene.run(20 * SECOND, |items, _| {
        verdicts(items, |number| if number == 0 { verdict::RETRY } else { verdict::DELIVERED })
    });
    assert_eq!(scene.delivered.len(), 2);
}

#[test]
fn what_failed_as_a_probe_does_not_go_before_all_others_later() {
    let mut scene = Scene::new(small_batches());
    scene.admit(0..3);
    scene.run(3 * SECOND, |_, _| fails(status::REJECT, MS));
    scene.admit(3..100);
    let end = scene.now + 3000 * SECOND;
    while scene.now < end {
        scene.run(SECOND, |_, _| fails(status::TIMEOUT, MS));
    }
    let tried = scene.calls.concat();
    assert!(tried.iter().max().is_some_and(|last| *last > 10), "{tried:?}");
    scene.calls.clear();
    scene.run(60 * SECOND, |_, _| ok());
    // The first call is the last probe.
    let fresh = scene.calls[1..].iter().position(|call| call.iter().any(|number| !tried.contains(number)));
    assert!(fresh.is_some_and(|calls| calls <= 3), "{:?}", scene.calls);
}
