//! One exporter at work: its plugin, its queue, its breaker, and what the operator is told about it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use plugin_api::Content;
use tokio::time::Instant;

use super::{
    backoff,
    books::{DropReason, Snapshot},
    breaker::{Breaker, BreakerState, Change, Permit},
    dead_letter::{Cause, DeadLetter, DeadLetters},
    item::Item,
    notice::Notices,
    observer::Observer,
    outlet::Outlet,
    queue::{BatchLimits, Queue},
    rate::RateLimit,
};
use crate::{
    loader::{Plugin, State},
    recorder::Record,
};

/// How one exporter is fed, worked out from the operator's settings and the plugin's descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub content: Content,
    pub batch: BatchLimits,
    /// Bytes of one record that the backend, a batch and the queue can take.
    pub max_record_bytes: u64,
    pub retry: backoff::Settings,
    pub call_timeout: Duration,
    pub max_panics: u32,
    pub workers: usize,
}

#[derive(Debug)]
pub(crate) struct Exporter {
    pub name: Arc<str>,
    pub plugin: Plugin,
    pub settings: Settings,
    pub queue: Queue,
    pub observer: Observer,
    pub notices: Notices,
    pub outlet: Outlet,
    /// What was in flight when the drivers were stopped.
    stranded: Mutex<Vec<DeadLetter>>,
    state: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    breaker: Breaker,
    rate: RateLimit,
    panics: u32,
    last_error: Option<String>,
}

impl Exporter {
    pub(crate) fn new(
        plugin: Plugin,
        settings: Settings,
        queue: Queue,
        breaker: Breaker,
        rate: RateLimit,
        observer: Observer,
        outlet: Outlet,
    ) -> Self {
        let name: Arc<str> = plugin.name().into();
        Self {
            notices: Notices::new(name.clone()),
            name,
            plugin,
            settings,
            queue,
            observer,
            outlet,
            stranded: Mutex::default(),
            state: Mutex::new(Shared { breaker, rate, panics: 0, last_error: None }),
        }
    }

    /// Queues what this exporter may see of `records`. Never waits.
    pub(crate) fn submit(&self, records: &[Arc<Record>]) {
        let now = Instant::now();
        self.queue.push(records.iter().filter_map(|record| self.admit(record, now)));
    }

    /// A record over the backend's limit loses bodies; one that is still over it is dropped and counted.
    fn admit(&self, record: &Arc<Record>, now: Instant) -> Option<Item> {
        let item = Item::new(record.clone(), self.settings.content, now);
        let limit = self.settings.max_record_bytes;
        if item.size() <= limit {
            return Some(item);
        }
        let smaller = item.shed_to(limit).filter(|item| item.size() <= limit);
        match &smaller {
            Some(_) => self.queue.count_shed_body(),
            None => {
                self.queue.refuse(DropReason::Oversize);
                let message = format!("more than {limit} bytes even without its bodies");
                self.lose(&item, DropReason::Oversize, message, 0);
            }
        }
        smaller
    }

    /// The dead letters, when there is a file for them.
    pub(crate) fn dead_letters(&self) -> Option<&DeadLetters> {
        match &self.outlet {
            Outlet::DeadLetters(letters) => Some(letters),
            Outlet::None | Outlet::Watcher(_) => None,
        }
    }

    /// Tells of a record that is given up. The books know of it already.
    pub(super) fn lose(&self, item: &Item, cause: impl Into<Cause>, message: String, attempts: u32) {
        if self.outlet.wants_letters() {
            self.outlet.lost(DeadLetter::new(&self.name, item, cause.into(), message, attempts));
        }
    }

    /// Keeps what is still in flight when its driver is stopped; [`Self::take_stranded`] has it then.
    pub(super) fn strand<'a>(&self, items: impl Iterator<Item = &'a Item>, attempts: u32) {
        if self.outlet.wants_letters() {
            let letters = items.map(|item| self.stopped(item, attempts));
            self.stranded.lock().unwrap_or_else(PoisonError::into_inner).extend(letters);
        }
    }

    pub(super) fn take_stranded(&self) -> Vec<DeadLetter> {
        std::mem::take(&mut *self.stranded.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The letter of a record that the end came before.
    pub(super) fn stopped(&self, item: &Item, attempts: u32) -> DeadLetter {
        let message = "the gateway stopped before it was delivered";
        DeadLetter::new(&self.name, item, DropReason::Shutdown.into(), message, attempts)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.queue.snapshot()
    }

    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.lock().breaker.state()
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.lock().last_error.clone()
    }

    /// Whether a call may be made, by the breaker and by the state of the plugin.
    pub(crate) fn permit(&self, now: Instant) -> Permit {
        match self.plugin.state() {
            State::Running => self.lock().breaker.permit(now),
            State::Stuck { .. } | State::Disabled { .. } | State::Stopped => {
                Permit::Wait(now + Duration::from_millis(200))
            }
        }
    }

    /// How long the rate limit asks to wait before a call with `records` records.
    pub(crate) fn rate_delay(&self, records: usize, now: Instant) -> Duration {
        self.lock().rate.take(records, now)
    }

    /// The call did its work, though some records may have failed: the breaker rests, the panics in a row end.
    pub(crate) fn call_succeeded(&self) {
        let change = {
            let mut state = self.lock();
            state.panics = 0;
            state.breaker.succeeded()
        };
        if change == Change::Closed {
            self.notices.recovered();
        }
    }

    pub(crate) fn call_failed(&self, failure: &Failure<'_>, now: Instant) {
        let (change, panics) = {
            let mut state = self.lock();
            state.panics = if failure.is_panic { state.panics + 1 } else { 0 };
            state.last_error = Some(failure.message.to_owned());
            (state.breaker.failed(now, failure.is_unauthorized), state.panics)
        };
        if change == Change::Opened {
            self.notices.breaker_opened(failure);
        } else {
            self.notices.call_failed(failure);
        }
        if panics >= self.settings.max_panics {
            let reason = format!("{panics} panics in a row, the last one: {}", failure.message);
            self.notices.disabled(&reason);
            self.plugin.disable(reason);
        }
    }

    pub(crate) fn note_error(&self, message: String) {
        self.lock().last_error = Some(message);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failed call, as the breaker and the log see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub kind: &'static str,
    pub message: &'a str,
    pub is_unauthorized: bool,
    pub is_panic: bool,
}
