//! The pipeline against a model of it: random sequences of everything that can be done to one, and after every step what
//! must hold. See `docs/testing.md`.
//!
//! `MODEL_SEED=4711` runs one sequence and prints its steps, `MODEL_STEPS=100000` fewer or more of all.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

mod backend;
mod draw;
mod expect;
mod ledger;
mod world;

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::{draw::Scale, world::World};

/// In about 20 seconds on two cores.
const STEPS: u64 = 12_000_000;

#[test]
fn whatever_happens_the_books_balance_and_nothing_waits_for_ever() {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    if let Some(seed) = number("MODEL_SEED") {
        run(seed, true);
        return;
    }
    let wanted = number("MODEL_STEPS").unwrap_or(STEPS);
    let (next_seed, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while steps.load(Ordering::Relaxed) < wanted {
            let seed = next_seed.fetch_add(1, Ordering::Relaxed);
            steps.fetch_add(run(seed, false), Ordering::Relaxed);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    eprintln!("{} steps, seeds 0 to {}", steps.into_inner(), next_seed.into_inner() - 1);
}

/// One sequence from the first record to the last; how many steps it took.
fn run(seed: u64, is_told: bool) -> u64 {
    let _reproduce = Reproduce(seed);
    let scale = match seed % 64 {
        0 => Scale::Production,
        1..=7 => Scale::Medium,
        _ => Scale::Small,
    };
    let mut world = World::new(seed, scale, is_told);
    world.run();
    world.steps
}

/// Says how to see it again, if a sequence fails.
struct Reproduce(u64);

impl Drop for Reproduce {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to see it again: MODEL_SEED={} cargo test -p exporter-pipeline --test model", self.0);
        }
    }
}
