//! What has been freed goes back to the system when a thread has nothing to do.
//!
//! The allocator keeps what a thread has freed for that thread, and looks for what it may give back only while it
//! allocates: after a burst the memory would stay until the next one. It has a call for it, which is not safe code; but
//! every 10,000 allocations of more than a KiB it does the same by itself (mimalloc's option `generic_collect`). So a
//! thread that has become idle makes as many, which takes about half a millisecond; and once more a moment later, since
//! memory that is freed is given back only after a second (`purge_delay`).

use std::{hint::black_box, time::Duration};

/// Gives memory back when the runtime's thread has become idle. `work` is a number that changes with its work.
pub(crate) async fn give_back_when_idle(work: impl Fn() -> u64) {
    when_idle(work, || {}).await;
}

/// The same, and does `more` each time.
pub(crate) async fn when_idle(work: impl Fn() -> u64, more: impl Fn()) {
    let mut idleness = Idleness::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        if idleness.tick(work()) {
            more();
        }
    }
}

/// How often a thread looks whether it is idle.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// Periods without work after which memory is given back: first from the thread, then from the process.
const GIVE_BACK_AFTER: [u32; 2] = [1, 2];

/// Notices that a thread has become idle.
#[derive(Debug, Default)]
pub(crate) struct Idleness {
    work: u64,
    idle_periods: u32,
}

impl Idleness {
    /// To be called every [`PERIOD`] with a number that has changed when there was work since. True: memory was given back.
    pub(crate) fn tick(&mut self, work: u64) -> bool {
        let is_due = self.is_due(work);
        if is_due {
            give_back();
        }
        is_due
    }

    fn is_due(&mut self, work: u64) -> bool {
        let is_idle = work == self.work;
        self.work = work;
        self.idle_periods = if is_idle { self.idle_periods.saturating_add(1) } else { 0 };
        work > 0 && GIVE_BACK_AFTER.contains(&self.idle_periods)
    }
}

fn give_back() {
    const ALLOCATIONS: usize = 11_000;
    const BYTES: usize = 4 * 1024;
    for _ in 0..ALLOCATIONS {
        drop(black_box(Vec::<u8>::with_capacity(BYTES)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_twice_after_work_and_then_no_more() {
        let mut idleness = Idleness::default();
        let work = [0, 0, 0, 5, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10];
        let due: Vec<bool> = work.into_iter().map(|work| idleness.is_due(work)).collect();
        let expected = [5, 6, 11, 12];
        assert_eq!(
            due.iter().enumerate().filter(|(_, due)| **due).map(|(at, _)| at).collect::<Vec<_>>(),
            expected
        );
    }
}
