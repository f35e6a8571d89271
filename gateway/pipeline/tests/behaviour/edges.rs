//! Where exactly the lines are: room, waking, counting.

use super::*;

#[test]
fn room_says_to_what_a_record_is_to_be_reduced() {
    for (on_full, max_record, free, sizes, wanted) in [
        (OnFull::DropOldest, 100, 1000, [100, 101, 1001], [None, Some(100), Some(100)]),
        (OnFull::Shed, 1000, 200, [100, 100, 1], [None, None, Some(0)]),
        (OnFull::Shed, 1000, 200, [201, 1, 0], [Some(200), Some(0), None]),
        (OnFull::Shed, 50, 200, [1000, 51, 50], [Some(50), Some(50), None]),
        (OnFull::Shed, 50, 120, [50, 50, 50], [None, None, Some(20)]),
        // The queue's own size limits a record, too.
        (OnFull::DropNewest, 1000, 200, [200, 201, 10], [None, Some(200), None]),
    ] {
        let mut policy = policy();
        (policy.on_full, policy.max_record_bytes, policy.capacity.bytes) = (on_full, max_record, free);
        let mut room = Scene::new(policy).pipeline.room();
        assert_eq!(sizes.map(|size| room.wanted(size)), wanted, "{on_full:?} {max_record} {free}");
    }
}

#[test]
fn what_waits_takes_up_room() {
    let mut policy = policy();
    (policy.on_full, policy.capacity.bytes) = (OnFull::Shed, 250);
    let mut scene = Scene::new(policy);
    scene.admit([0]);
    assert_eq!(scene.pipeline.room().wanted(200), Some(150));
}

#[test]
fn a_worker_is_woken_by_what_changes_its_wait_and_by_nothing_else() {
    let mut policy = policy();
    policy.batch.max_records = 3;
    let mut scene = Scene::new(policy);
    let wakes = [(0, false), (1, true), (1, false), (1, true), (1, false)].map(|(records, expected)| {
        let arrival = Arrival { item: (0, false), size: 1, smaller: None };
        let effects = scene.pipeline.admit(vec![arrival; records], scene.now);
        (effects.wake, expected)
    });
    assert!(wakes.iter().all(|(wake, expected)| wake == expected), "{wakes:?}");
}

fn fail(scene: &mut Scene, status: u32) -> Effects<Item> {
    let Next::Send(batch) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    scene.calls.push(batch.items.iter().map(|item| item.0).collect());
    scene.pipeline.settle(batch.id, Outcome::of(status, "no"), scene.now)
}

#[test]
fn a_probe_of_a_backend_that_was_down_is_a_whole_batch() {
    let mut policy = policy();
    policy.breaker.failures = 1;
    let mut scene = Scene::new(policy);
    scene.admit(0..10);
    for _ in 0..2 {
        scene.now += 60 * SECOND;
        let _ = fail(&mut scene, status::TIMEOUT);
    }
    assert!(scene.calls.iter().all(|call| call.len() == 10), "{:?}", scene.calls);
}

#[test]
fn what_will_be_sent_again_is_counted() {
    let mut scene = Scene::new(policy());
    scene.admit(0..4);
    scene.now += SECOND;
    assert_eq!(fail(&mut scene, status::TIMEOUT).retries, 1, "a batch");
    scene.now += SECOND;
    assert_eq!(fail(&mut scene, status::PER_RECORD).retries, 4, "each of its records");
    scene.now += 40 * SECOND;
    let refused = (0..4).map(|_| fail(&mut scene, status::REJECT)).map(|effects| effects.retries);
    assert_eq!(refused.collect::<Vec<_>>(), [0, 0, 1, 1]);
}

#[test]
fn a_refusal_is_told_of_once_for_each_record() {
    let mut policy = policy();
    policy.batch.max_records = 1;
    let mut scene = Scene::new(policy);
    scene.admit([0, 1]);
    scene.run(20 * SECOND, |_, _| quick(Outcome::of(status::REJECT, "400")));
    let told = scene.notices.iter().filter(|notice| matches!(notice, Notice::Refused { .. })).count();
    assert!(scene.calls.len() > 4 && told == 2, "{told} {:?}", scene.calls);
}

#[test]
fn a_record_that_makes_calls_last_gets_a_fifth_of_the_time() {
    let mut policy = policy();
    policy.batch.max_records = 1;
    let mut scene = Scene::new(policy);
    scene.admit(0..2);
    let mut last = Vec::new();
    for round in 0..60 {
        scene.admit([10 + round]);
        scene.run(5 * SECOND, |items, at| {
            if items[0].0 == 0 {
                last.push(at);
                (Outcome::of(status::TIMEOUT, "no answer"), 10 * SECOND)
            } else {
                ok()
            }
        });
    }
    assert_eq!(scene.delivered.len(), 61);
    let waits: Vec<_> = last.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[3..].iter().all(|wait| *wait >= 50 * SECOND && *wait < 65 * SECOND), "{waits:?}");
}

#[test]
fn a_suspect_batch_is_sampled_every_second_time_and_only_where_nothing_fresh_tells_more() {
    let mut policy = policy();
    (policy.batch.max_records, policy.retry.max_elapsed, policy.breaker.failures) = (10, Duration::ZERO, 100);
    let sizes = |scene: &Scene| scene.calls.iter().map(Vec::len).collect::<Vec<_>>();
    let mut scene = Scene::new(policy.clone());
    scene.admit(0..10);
    for _ in 0..6 {
        scene.now += 60 * SECOND;
        let _ = fail(&mut scene, status::TIMEOUT);
    }
    assert_eq!(sizes(&scene), [10, 10, 1, 9, 1, 1]);
    let mut scene = Scene::new(policy);
    scene.admit(0..100);
    for _ in 0..6 {
        scene.now += 60 * SECOND;
        let _ = fail(&mut scene, status::TIMEOUT);
    }
    assert_eq!(sizes(&scene), [10; 6]);
}

#[test]
fn a_record_that_goes_alone_has_its_turn_when_it_was_due_before_what_was_refused_since() {
    let mut policy = policy();
    policy.batch.max_records = 2;
    let mut scene = Scene::new(policy);
    scene.admit([0]);
    scene.now += SECOND;
    let _ = fail(&mut scene, status::REJECT);
    // From here on every pair is refused, and every record of it taken: there is always a part to be sent.
    scene.admit(1..100);
    let _ = fail(&mut scene, status::REJECT);
    scene.now += 60 * SECOND;
    scene.calls.clear();
    scene.run(
        100 * MS,
        |items, _| if items.len() > 1 { quick(Outcome::of(status::REJECT, "400")) } else { ok() },
    );
    let place = scene.calls.iter().position(|call| *call == [0]);
    assert!(place.is_some_and(|place| place < 6), "{:?}", scene.calls);
}

#[test]
fn without_fresh_records_the_probes_of_a_wrong_set_up_take_turns_with_all_that_wait() {
    let mut policy = policy();
    policy.batch.max_records = 1;
    let mut scene = Scene::new(policy);
    scene.admit([9]);
    scene.now += SECOND;
    let Next::Send(batch) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    let (outcome, _) = verdicts(&batch.items, |_| verdict::RETRY);
    let outcome = Outcome { retry_after: Some(300 * SECOND), ..outcome };
    let _ = scene.pipeline.settle(batch.id, outcome, scene.now);
    scene.admit(0..4);
    scene.now += SECOND;
    while scene.calls.len() < 3 + 8 {
        match scene.pipeline.next(scene.now) {
            Next::Send(batch) => {
                let number = batch.items[0].0;
                scene.calls.push(vec![number]);
                let code = if number == 3 { status::TIMEOUT } else { status::REJECT };
                let _ = scene.pipeline.settle(batch.id, Outcome::of(code, "no"), scene.now);
            }
            Next::Wait(Some(until)) => scene.now = until,
            other => panic!("{other:?}"),
        }
    }
    let calls = scene.calls.concat();
    assert_eq!(calls[..4], [0, 1, 2, 3], "three refusals, and a fresh one");
    // The batch again; those that were refused, twice; the parked one; those, as it is one of them now.
    assert_eq!((calls[4], calls[7]), (3, 9), "{calls:?}");
}

#[test]
fn fresh_records_are_tried_one_at_a_time_while_the_backend_seems_to_be_down() {
    let mut policy = policy();
    (policy.batch.max_records, policy.breaker.failures, policy.retry.max_elapsed) = (10, 100, Duration::ZERO);
    let mut scene = Scene::new(policy);
    scene.admit(0..200);
    let mut tried: u32 = 0;
    for call in 0..12 {
        scene.now += 60 * SECOND;
        let _ = fail(&mut scene, status::TIMEOUT);
        let last = scene.calls[call].iter().max().copied().unwrap_or(0) + 1;
        let fresh = last.saturating_sub(tried);
        tried = tried.max(last);
        assert!(fresh == 10 && tried <= 20 || fresh <= 1, "{:?}", scene.calls);
    }
    assert!(tried > 21, "{:?}", scene.calls);
    scene.calls.clear();
    scene.run(60 * SECOND, |_, _| ok());
    assert!(scene.calls[2..].iter().any(|call| call.len() == 10 && call[0] >= tried), "{:?}", scene.calls);
}

#[test]
fn of_nine_calls_and_one_for_each_worker_one_has_a_fresh_record() {
    for workers in [1, 4] {
        assert_eq!(Scene::new(Policy { workers, ..policy() }).pipeline.patience(), workers + 9);
    }
}

#[test]
fn what_is_sent_again_waits_longer_each_time() {
    let mut policy = policy();
    policy.batch.max_delay = Duration::ZERO;
    let mut scene = Scene::new(policy.clone());
    scene.admit([0]);
    scene.run(250 * SECOND, |items, _| verdicts(items, |_| verdict::RETRY));
    let calls = scene.calls.len();
    assert!((15..40).contains(&calls), "{calls} verdicts");
    let mut scene =
        Scene::new(Policy { breaker: CircuitBreaker { failures: 1000, ..policy.breaker }, ..policy });
    scene.admit([0]);
    scene.run(250 * SECOND, |_, _| quick(Outcome::of(status::RETRY, "down")));
    let calls = scene.calls.len();
    assert!((15..40).contains(&calls), "{calls} failed calls");
}

#[test]
fn a_refused_record_on_which_the_backend_fails_later_does_not_go_first() {
    let mut policy = policy();
    (policy.batch.max_records, policy.workers) = (1, 2);
    let mut scene = Scene::new(policy);
    scene.admit([0]);
    scene.now += SECOND;
    let _ = fail(&mut scene, status::REJECT);
    scene.now += 40 * SECOND;
    let Next::Send(refused) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    assert_eq!(refused.items[0].0, 0);
    scene.admit([1]);
    scene.now += SECOND;
    let Next::Send(fresh) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    let _ = scene.pipeline.settle(refused.id, Outcome::of(status::TIMEOUT, "no"), scene.now);
    let _ = scene.pipeline.settle(fresh.id, Outcome::of(status::TIMEOUT, "no"), scene.now);
    scene.now += 40 * SECOND;
    let Next::Send(first) = scene.pipeline.next(scene.now) else { panic!("nothing to send") };
    assert_eq!(first.items[0].0, 1);
}

#[test]
fn a_parked_record_that_fills_a_batch_has_its_turn_while_fresh_ones_fill_every_batch() {
    let mut policy = policy();
    policy.batch.max_bytes = 1000;
    let mut scene = Scene::new(policy);
    scene.admit_sized([(0, 900)]);
    scene.now += SECOND;
    let _ = fail(&mut scene, status::PER_RECORD);
    scene.now += SECOND;
    scene.admit(1..100);
    scene.calls.clear();
    scene.run(5 * MS, |_, _| ok());
    assert!(scene.calls[..2].iter().any(|call| call.contains(&0)), "{:?}", scene.calls);
}

#[test]
fn books_balance_only_if_every_record_is_somewhere() {
    let mut scene = Scene::new(policy());
    scene.admit(0..4);
    let snapshot = scene.pipeline.snapshot();
    assert!(snapshot.is_balanced());
    assert!(!exporter_pipeline::Snapshot { queued: 3, ..snapshot }.is_balanced());
    assert!(!exporter_pipeline::Snapshot { queued: 5, ..snapshot }.is_balanced());
}

#[test]
fn every_reason_has_a_label_of_its_own() {
    let dropped = DropReason::ALL.map(DropReason::label);
    assert_eq!(
        dropped,
        ["queue_full", "shed", "breaker_open_timeout", "retry_exhausted", "shutdown", "oversize"]
    );
    assert_eq!(RejectReason::ALL.map(RejectReason::label), ["record", "call"]);
}

/// Sends what there is, at the earliest time, and settles it.
fn settle_next(scene: &mut Scene, outcome: impl FnOnce(&[Item]) -> Outcome<Item>) -> Vec<Notice> {
    loop {
        match scene.pipeline.next(scene.now) {
            Next::Send(batch) => {
                let outcome = outcome(&batch.items);
                return scene.pipeline.settle(batch.id, outcome, scene.now).notices;
            }
            Next::Wait(Some(until)) => scene.now = until,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn it_is_told_until_when_no_call_is_made() {
    let mut scene = Scene::new(policy());
    scene.admit([0]);
    assert_eq!(scene.pipeline.no_call_before(scene.now), None);
    settle_next(&mut scene, |_| Outcome {
        retry_after: Some(60 * SECOND),
        ..Outcome::of(status::RETRY, "429")
    });
    let until = scene.now + 60 * SECOND;
    for (at, expected) in [(scene.now, Some(until)), (until - MS, Some(until)), (until, None)] {
        assert_eq!(scene.pipeline.no_call_before(at), expected);
    }
}

#[test]
fn at_the_end_a_record_that_was_to_wait_on_its_own_is_sent_at_once() {
    let mut scene = Scene::new(policy());
    scene.admit([0]);
    settle_next(&mut scene, |items| Outcome {
        retry_after: Some(300 * SECOND),
        ..verdicts(items, |_| verdict::RETRY).0
    });
    let _ = scene.pipeline.close(scene.now);
    assert!(matches!(scene.pipeline.next(scene.now), Next::Send(_)));
}

#[test]
fn of_a_failed_call_it_is_told_whether_it_was_a_probe() {
    let mut policy = policy();
    policy.breaker.failures = 2;
    let mut scene = Scene::new(policy);
    scene.admit([0]);
    let told: Vec<Option<bool>> = (0..3)
        .map(|_| {
            let notices = settle_next(&mut scene, |_| Outcome::of(status::RETRY, "503"));
            notices.iter().find_map(|notice| match notice {
                Notice::CallFailed { is_probe, .. } => Some(*is_probe),
                _ => None,
            })
        })
        .collect();
    assert_eq!(told, [Some(false), None, Some(true)], "the second one opens the breaker");
}

#[test]
fn what_a_record_loses_has_the_names_of_its_documentation() {
    assert_eq!(
        exporter_pipeline::Shed::ORDER.map(exporter_pipeline::Shed::name),
        ["streamed_data", "response", "request"]
    );
}
