//! Backends that die and come back while requests are made, and what they hold in the end.

#![allow(clippy::print_stderr, reason = "what happened when, for a failure")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use end_to_end::{Collector, OpenSearch, Postgres};
use fake_backends::{
    Fake, Fault, Semantics,
    script::{Behaviour, Fate},
};
use serde_json::Value;

/// A backend that can be killed and started again.
pub(crate) trait Backend: Send {
    fn name(&self) -> &'static str;
    /// In one of the ways that it has.
    fn kill(&mut self, way: usize);
    fn start_again(&mut self);
}

impl Backend for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn kill(&mut self, _: usize) {
        self.stop_immediately();
    }

    fn start_again(&mut self) {
        Postgres::start_again(self);
    }
}

impl Backend for OpenSearch {
    fn name(&self) -> &'static str {
        "elasticsearch"
    }

    fn kill(&mut self, _: usize) {
        OpenSearch::kill(self);
    }

    fn start_again(&mut self) {
        OpenSearch::start_again(self);
    }
}

impl Backend for Collector {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn kill(&mut self, _: usize) {
        Collector::kill(self);
    }

    fn start_again(&mut self) {
        Collector::start_again(self);
    }
}

/// How a fake fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    Down,
    Unavailable,
    TooManyRequests,
    CutAnswer,
    Hang,
    /// Some records are to be tried again, once or twice, and a few are refused for good.
    SomeRecords,
}

/// A fake fails in more ways than one.
pub(crate) struct Faulty<S: Semantics> {
    pub(crate) name: &'static str,
    pub(crate) fake: Arc<Fake<S>>,
    pub(crate) failures: &'static [Failure],
}

impl<S: Semantics> Backend for Faulty<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kill(&mut self, way: usize) {
        match self.failures[way % self.failures.len()] {
            Failure::Down => self.fake.down(),
            Failure::Unavailable => self.fake.fail(Fault::status(503)),
            Failure::TooManyRequests => self.fake.fail(Fault::too_many_requests("1")),
            Failure::CutAnswer => self.fake.fail(Fault::CutAnswer),
            Failure::Hang => self.fake.fail(Fault::Hang),
            Failure::SomeRecords => self.fake.judge_by(fate_of_some),
        }
    }

    fn start_again(&mut self) {
        self.fake.behave(Behaviour::Accept);
    }
}

fn fate_of_some(id: &str, tries: u32) -> Fate {
    let number = id.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    match number % 500 {
        0 => Fate::Refuse,
        1..=10 if tries < 2 => Fate::Retry,
        _ => Fate::Take,
    }
}

/// The requests made so far, by which the backends' deaths are timed.
#[derive(Debug)]
pub(crate) struct Progress {
    /// How many there will be.
    pub(crate) requests: usize,
    sent: AtomicUsize,
    is_over: AtomicBool,
}

impl Progress {
    pub(crate) fn of(requests: usize) -> Arc<Self> {
        Arc::new(Self { requests, sent: AtomicUsize::new(0), is_over: AtomicBool::new(false) })
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn add_one(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// No more will be made.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn wait_for(&self, sent: usize) {
        while self.sent() < sent && !self.is_over() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Kills the backend so often at random moments of the run, and starts it again some hundreds of requests later.
pub(crate) fn torment<B: Backend + 'static>(
    mut backend: B,
    kills: usize,
    progress: &Arc<Progress>,
    seed: u64,
) -> thread::JoinHandle<B> {
    let progress = progress.clone();
    thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        // In the first round in turn, so that none is left out.
        let first = random.usize(..1000);
        for kill in 0..kills {
            let slice = progress.requests / (kills + 1);
            progress.wait_for(kill * slice + random.usize(slice / 8..slice));
            backend.kill(first + kill);
            progress.wait_for(progress.sent() + random.usize(100..slice / 2));
            backend.start_again();
            eprintln!("{}: killed and started again, {} of {kills}", backend.name(), kill + 1);
        }
        backend
    })
}

/// `msg_…` and UUIDs with hyphens as the one that they are.
pub(crate) fn plain(id: &str) -> String {
    id.trim_start_matches("msg_").replace('-', "")
}

/// The record's id out of a log in the log form.
pub(crate) fn id_of(log: &Value) -> String {
    plain(log["attributes"]["id"].as_str().unwrap_or_else(|| panic!("{log}")))
}
