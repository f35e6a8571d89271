//! The gateway's part, played. What decides is the gateway's own [`Pipeline`]; this makes the calls that it asks for, and
//! writes down what became of them.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use exporter_pipeline::{
    Arrival, Batch, BatchSettings, BreakerState, Capacity, CircuitBreaker, DropReason, Next, OnFull, Outcome,
    Pipeline, Policy, RateLimits, Retry, Settings, Shed, Verdict,
};
use plugin_api::{Content, Description, TelemetryExporter, abi::status};

use super::books::Books;
use crate::{Plugin, Records, Sample, outcome};

/// Longest wait between two calls to a backend that does not take records: a test does not wait as long as a gateway.
const MAX_DELAY: Duration = Duration::from_millis(100);
/// The first one.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// Sees records through to their end.
pub(super) struct Delivery {
    pipeline: Pipeline<Arc<Sample>>,
    content: Content,
    clock: Clock,
}

/// What is known before a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    /// Calls that were made since [`Delivery::run`] began.
    pub made: u32,
    /// Whether the circuit breaker is open, and this call a probe.
    pub is_probe: bool,
}

impl Delivery {
    /// An empty one. What is not delivered is given up when it fails again after so long.
    pub(super) fn new(exporter: &Description, patience: Duration) -> Self {
        let clock = Clock::default();
        let policy = Policy::of(exporter, settings(patience));
        Self { pipeline: Pipeline::new(policy, 0, clock.now()), content: exporter.content, clock }
    }

    /// Records in one batch, at the most.
    pub(super) fn max_records(&self) -> usize {
        self.pipeline.policy().batch.max_records
    }

    pub(super) fn admit(&mut self, samples: Vec<Sample>, books: &mut Books) {
        let mut room = self.pipeline.room();
        let arrivals = samples.into_iter().map(|sample| {
            let sample = sample.visible(self.content);
            let size = sample.size();
            let smaller = room.wanted(size).and_then(|wanted| reduced(&sample, wanted));
            Arrival { item: Arc::new(sample), size, smaller }
        });
        let effects = self.pipeline.admit(arrivals.collect(), self.clock.now());
        books.enter(effects);
    }

    /// Nothing more comes.
    pub(super) fn close(&mut self, books: &mut Books) {
        books.enter(self.pipeline.close(self.clock.now()));
    }

    /// Makes calls until nothing waits.
    pub(super) fn run<E: TelemetryExporter>(
        &mut self,
        plugin: &Plugin<E>,
        books: &mut Books,
        mut before_call: impl FnMut(Calls, &mut Books),
    ) {
        for made in 0.. {
            let Some(batch) = self.next() else { return };
            let is_probe = self.pipeline.breaker() != BreakerState::Closed;
            before_call(Calls { made, is_probe }, books);
            let is_out_of_service = self.send(plugin, batch, books);
            if is_out_of_service {
                books.enter(self.pipeline.abandon(DropReason::Shutdown));
            }
        }
    }

    fn next(&mut self) -> Option<Batch<Arc<Sample>>> {
        loop {
            match self.pipeline.next(self.clock.now()) {
                Next::Send(batch) => return Some(batch),
                Next::Wait(Some(until)) => self.clock.wait(until),
                Next::Wait(None) | Next::Closed => return None,
            }
        }
    }

    /// Whether the gateway would make no more calls after this one.
    fn send<E: TelemetryExporter>(
        &mut self,
        plugin: &Plugin<E>,
        batch: Batch<Arc<Sample>>,
        books: &mut Books,
    ) -> bool {
        let Batch { id, items, attempt } = batch;
        books.calls += 1;
        let records = Records::of(items.iter().map(|sample| Sample::clone(sample)));
        let answer = plugin.export_again(&records, attempt);
        books.hear(&answer);
        let only = if let [only] = &items[..] { Some(&**only) } else { None };
        let mut effects = self.pipeline.settle(id, outcome(answer, only), self.clock.now());
        let is_out_of_service = effects.disable.take().is_some() || plugin.is_stuck();
        books.enter(effects);
        is_out_of_service
    }
}

/// Room for everything, and short waits.
fn settings(patience: Duration) -> Settings {
    Settings {
        capacity: Capacity { records: usize::MAX, bytes: u64::MAX },
        on_full: OnFull::DropOldest,
        batch: BatchSettings::default(),
        retry: Retry {
            initial: FIRST_DELAY,
            max: MAX_DELAY,
            // Zero would be for ever.
            max_elapsed: patience.max(Duration::from_nanos(1)),
            max_pause: MAX_DELAY,
        },
        breaker: CircuitBreaker { failures: 5, cool_down: FIRST_DELAY, max_cool_down: MAX_DELAY },
        rate: RateLimits::default(),
        max_panics: 10,
        workers: 1,
    }
}

fn reduced(sample: &Sample, wanted: u64) -> Option<(Arc<Sample>, u64)> {
    let without = |level| {
        let sample = sample.shed(level)?;
        let size = sample.size();
        Some((Arc::new(sample), size))
    };
    Shed::reduce(wanted, without)
}

/// What a call said. `only` is the record of a batch of one.
fn outcome(answer: outcome::Outcome, only: Option<&Sample>) -> Outcome<Arc<Sample>> {
    let is_too_large = answer.status == status::TOO_LARGE;
    let verdict =
        |given: &outcome::Verdict| Verdict { code: given.code(), reason: given.reason().to_owned() };
    Outcome {
        status: answer.status,
        verdicts: answer.verdicts.iter().map(|given| given.as_ref().map(verdict)).collect(),
        retry_after: answer.retry_after,
        smaller: only.filter(|_| is_too_large).and_then(|sample| reduced(sample, 0)),
        message: answer.message,
    }
}

/// Real time, but for what is skipped of long waits.
#[derive(Debug, Default)]
struct Clock {
    skipped: Duration,
}

impl Clock {
    fn now(&self) -> Instant {
        Instant::now() + self.skipped
    }

    fn wait(&mut self, until: Instant) {
        let left = until.saturating_duration_since(self.now());
        let slept = left.min(MAX_DELAY);
        thread::sleep(slept);
        self.skipped += left - slept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_over_soon_and_counts_in_full() {
        let mut clock = Clock::default();
        let (started, until) = (Instant::now(), clock.now() + Duration::from_secs(3600));
        clock.wait(until);
        assert!(clock.now() >= until && started.elapsed() < Duration::from_secs(60));
        let now = clock.now();
        clock.wait(until);
        assert!(clock.now() < now + Duration::from_secs(1), "what is over is not waited for");
    }
}
