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
