//! One exporter at work: its plugin, what is decided about its records, and what is made of these decisions.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use exporter_pipeline::{
    Arrival, Batch, BatchId, BreakerState, Cause, DropReason, Effects, GivenUp, Next, Notice, Outcome,
    Pipeline, Policy, Snapshot, Verdict,
};
use plugin_api::{Content, abi::status};
use tokio::{sync::Notify, time::Instant};

use super::{
    dead_letter::{DeadLetter, DeadLetters},
    notice::Notices,
    observer::Observer,
    outcome_sink::OutcomeSink,
    visible::{Records, reduced},
};
use crate::{
    loader::{CallFailed, ExportOutcome, Plugin, RecordVerdict, State},
    recorder::Record,
};

/// How long a plugin that takes no calls is left alone before it is looked at again.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Exporter {
    pub name: Arc<str>,
    pub plugin: Plugin,
    /// What it may see.
    pub content: Content,
    pub policy: Policy,
    pub observer: Observer,
    pub notices: Notices,
    pub sink: OutcomeSink,
    call_timeout: Duration,
    /// Nothing of anyone's runs while this is locked.
    pipeline: Mutex<Pipeline<Arc<Record>>>,
    /// Whoever waits for the next batch is to ask again.
    changed: Notify,
    last_error: Mutex<Option<String>>,
}

impl Exporter {
    pub(super) fn new(
        plugin: Plugin,
        content: Content,
        policy: Policy,
        call_timeout: Duration,
        observer: Observer,
        sink: OutcomeSink,
    ) -> Self {
        let name: Arc<str> = plugin.name().into();
        let pipeline = Pipeline::new(policy.clone(), fastrand::u64(..), Instant::now().into_std());
        Self {
            notices: Notices::new(name.clone()),
            name,
            plugin,
            content,
            policy,
            observer,
            sink,
            call_timeout,
            pipeline: Mutex::new(pipeline),
            changed: Notify::new(),
            last_error: Mutex::default(),
        }
    }

    /// Queues records that this exporter may see as they are. Never waits. One thread alone submits.
    pub(crate) fn submit(&self, records: &[Arc<Record>]) {
        let mut room = self.lock().room();
        let arrival = |record: &Arc<Record>| {
            let size = record.size() as u64;
            let smaller = room.wanted(size).and_then(|wanted| reduced(record, wanted));
            Arrival { item: record.clone(), size, smaller }
        };
        let arrivals: Vec<_> = records.iter().map(arrival).collect();
        let effects = self.lock().admit(arrivals, now());
        self.act(effects);
    }

    /// Nothing more is submitted.
    pub(crate) fn close(&self) {
        let effects = self.lock().close(now());
        self.act(effects);
    }

    /// Accounts for everything that is left: so many records, and their letters where letters are wanted.
    pub(super) fn abandon(&self) -> (usize, Vec<DeadLetter>) {
        let mut effects = self.lock().abandon(DropReason::Shutdown);
        let left = std::mem::take(&mut effects.given_up);
        self.act(effects);
        (left.len(), left.into_iter().filter_map(|lost| self.letter(lost)).collect())
    }

    /// The next batch; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<Batch<Arc<Record>>> {
        loop {
            let changed = self.changed.notified();
            if self.plugin.state() != State::Running {
                let _ = tokio::time::timeout(UNAVAILABLE_PAUSE, changed).await;
                continue;
            }
            let next = self.lock().next(now());
            match next {
                Next::Send(batch) => return Some(batch),
                Next::Closed => return None,
                Next::Wait(None) => changed.await,
                Next::Wait(Some(until)) => {
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
            }
        }
    }

    /// Makes the call, and enters what became of it.
    pub(super) async fn send(&self, worker: usize, batch: Batch<Arc<Record>>) {
        let Batch { id, items, attempt } = batch;
        self.observer.batch(items.len());
        let only = if let [only] = &items[..] { Some(only.clone()) } else { None };
        let started = Instant::now();
        let answer = self.plugin.export(worker, Arc::new(Records(items)), attempt, self.call_timeout).await;
        let kind = answer.as_ref().map_or("unanswered", |outcome| outcome.status.as_str());
        self.observer.call(kind, started.elapsed());
        self.settle(id, outcome(answer, only.as_deref()), kind);
    }

    /// Enters the outcome of a batch of which there will be no other.
    pub(super) fn settle_failed(&self, id: BatchId, message: &str) {
        self.settle(id, (Outcome::of(status::FAULT, message), 0), "unanswered");
    }

    fn settle(&self, id: BatchId, (outcome, faults): (Outcome<Arc<Record>>, u32), kind: &'static str) {
        let effects = self.lock().settle(id, outcome, now());
        self.act_on(effects, faults, kind);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().snapshot()
    }

    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.lock().breaker()
    }

    /// How long no call is made, because the breaker is open or the exporter pauses.
    pub(crate) fn waits_for(&self) -> Option<Duration> {
        let now = now();
        self.lock().no_call_before(now).map(|until| until - now)
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The dead letters, when there is a file for them.
    pub(crate) fn dead_letters(&self) -> Option<&DeadLetters> {
        match &self.sink {
            OutcomeSink::DeadLetters(letters) => Some(letters),
            OutcomeSink::None | OutcomeSink::Replay(_) => None,
        }
    }

    fn act(&self, effects: Effects<Arc<Record>>) {
        self.act_on(effects, 0, "");
    }

    /// Does what a step asks for. `kind` is the status of the call that was settled, for the log.
    fn act_on(&self, mut effects: Effects<Arc<Record>>, faults: u32, kind: &'static str) {
        if effects.wake {
            self.changed.notify_waiters();
        }
        self.tell_delivered(&effects.delivered);
        for letter in effects.given_up.drain(..).filter_map(|lost| self.letter(lost)) {
            self.sink.lost(letter);
        }
        for notice in &effects.notices {
            self.remember_error(notice);
            self.notices.tell(notice, kind);
        }
        self.observer.retries(effects.retries);
        let faults = u64::from(faults) + effects.faults;
        if faults > 0 {
            self.observer.faults(faults);
            self.notices.faults(faults);
        }
        if let Some(reason) = effects.disable.take() {
            self.notices.disabled(&reason);
            self.plugin.disable(reason);
        }
    }

    fn tell_delivered(&self, records: &[Arc<Record>]) {
        for record in records {
            self.observer.delivered_after(record.finished.elapsed());
        }
        if self.sink.wants_deliveries() && !records.is_empty() {
            self.sink.delivered(records.iter().map(|record| record.id).collect());
        }
    }

    /// What is kept of a record that is given up. What a full queue drops is no dead letter: its rate is that of the
    /// traffic.
    fn letter(&self, lost: GivenUp<Arc<Record>>) -> Option<DeadLetter> {
        let GivenUp { item, cause, mut message, attempts } = lost;
        let is_overflow = matches!(cause, Cause::Dropped(DropReason::QueueFull | DropReason::Shed));
        if is_overflow || !self.sink.wants_letters() {
            return None;
        }
        if cause == Cause::Dropped(DropReason::Shutdown) {
            message = "the gateway stopped before it was delivered".to_owned();
        }
        Some(DeadLetter::new(&self.name, &item, cause.into(), message, attempts))
    }

    fn remember_error(&self, notice: &Notice) {
        let (Notice::CallFailed { message, .. }
        | Notice::BreakerOpened { message, .. }
        | Notice::Refused { message }
        | Notice::Rejected { message, .. }) = notice
        else {
            return;
        };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Pipeline<Arc<Record>>> {
        self.pipeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What a call said, and how often the plugin spoke of records that are not there. `only` is the record of a batch of one.
fn outcome(answer: Result<ExportOutcome, CallFailed>, only: Option<&Record>) -> (Outcome<Arc<Record>>, u32) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failed) => return (Outcome::of(status::TIMEOUT, failed.to_string()), 0),
    };
    let status = answer.status.code();
    let smaller = only.filter(|_| status == status::TOO_LARGE).and_then(|record| reduced(record, 0));
    let outcome = Outcome {
        status,
        message: answer.message,
        verdicts: answer.verdicts.into_iter().map(|given| given.map(verdict)).collect(),
        retry_after: answer.retry_after,
        smaller,
    };
    (outcome, answer.faults)
}

fn verdict(given: RecordVerdict) -> Verdict {
    let code = given.code();
    let (RecordVerdict::Retry { reason } | RecordVerdict::Rejected { reason }) = given else {
        return Verdict { code, reason: String::new() };
    };
    Verdict { code, reason }
}
