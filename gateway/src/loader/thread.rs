//! The threads of an instance, and which call each of them is in.
//!
//! The first thread makes the instance, exports, flushes and destroys it. An instance with more workers has one thread
//! more for each; those only `export`. One further thread asks for health and metrics, beside whatever is exported.
//! Whether a call is stuck is never noted anywhere: it
//! follows from when it began and how long it may take, so it is right at any moment and heals by itself.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    calls::{BatchSource, CallReport, ExportOutcome, Health, Instance},
    load::thread_name,
};

/// Calls that may wait for one thread. A worker has one export at a time, so this bounds health checks and scrapes.
pub(super) const MAX_WAITING: usize = 64;

/// A call to be made.
pub(super) enum Job {
    Export {
        batch: Arc<dyn BatchSource>,
        attempt: u32,
        deadline: Duration,
        answer: oneshot::Sender<ExportOutcome>,
    },
    Flush {
        deadline: Duration,
        answer: oneshot::Sender<CallReport>,
    },
    Health {
        deadline: Duration,
        answer: oneshot::Sender<Result<Health, CallReport>>,
    },
    Scrape {
        format: u32,
        deadline: Duration,
        answer: oneshot::Sender<Result<Option<Vec<u8>>, CallReport>>,
    },
    Destroy {
        deadline: Duration,
        answer: oneshot::Sender<CallReport>,
    },
}

/// Kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Delivering a batch.
    Export,
    /// Delivering what the plugin holds.
    Flush,
    /// Asking for the backend's health.
    Health,
    /// Asking for metrics.
    Scrape,
    /// Ending the instance.
    Destroy,
}

impl CallKind {
    /// The name of the function in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Flush => "flush",
            Self::Health => "health",
            Self::Scrape => "scrape",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long a call may take before it is given up: its deadline, and a tenth more, at least a second. A plugin made
/// with the SDK ends by itself at the deadline, and its own answer is better than none.
fn limit(deadline: Duration) -> Duration {
    deadline.saturating_add((deadline / 10).max(Duration::from_secs(1)))
}

/// The call that a thread is in.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Option<Running>>);

#[derive(Debug, Clone, Copy)]
struct Running {
    call: CallKind,
    since: Instant,
    limit: Duration,
    is_reported: bool,
}

/// A call that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) call: CallKind,
    pub(super) since: Instant,
}

impl Activity {
    /// The call that runs past its limit, if one does. The first to see it says so in the log.
    pub(super) fn overdue(&self, plugin: &str) -> Option<Overdue> {
        let mut running = self.lock();
        let running = running.as_mut().filter(|running| running.since.elapsed() >= running.limit)?;
        if !std::mem::replace(&mut running.is_reported, true) {
            tracing::error!(
                plugin,
                call = running.call.as_str(),
                "the plugin is stuck: `{}` has not returned for {:.1?}; it gets no more calls until it does",
                running.call,
                running.since.elapsed()
            );
        }
        Some(Overdue { call: running.call, since: running.since })
    }

    /// How long the running call may still take.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let running = (*self.lock())?;
        Some(running.limit.saturating_sub(running.since.elapsed()))
    }

    /// The running call, and when it began.
    pub(super) fn running(&self) -> Option<(CallKind, Instant)> {
        (*self.lock()).map(|running| (running.call, running.since))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call. A panic of our own ends that call alone.
    fn during<T>(
        &self,
        plugin: &str,
        call: CallKind,
        deadline: Duration,
        body: impl FnOnce() -> T,
    ) -> Option<T> {
        let since = Instant::now();
        *self.lock() = Some(Running { call, since, limit: limit(deadline), is_reported: false });
        let answer = panic::catch_unwind(AssertUnwindSafe(body));
        let ended = self.lock().take();
        if ended.is_some_and(|running| running.is_reported) {
            let took = since.elapsed();
            tracing::warn!(
                plugin,
                call = call.as_str(),
                "the plugin runs again: `{call}` returned after {took:.1?}; what it says about that call comes too \
                 late and is discarded"
            );
        }
        answer
            .inspect_err(|_| {
                tracing::error!(plugin, "the gateway failed in `{call}`; this is a bug, please report it");
            })
            .map_err(std::mem::forget)
            .ok()
    }
}

/// One thread that serves an instance.
pub(super) struct Worker {
    pub(super) plugin: Arc<str>,
    pub(super) activity: Arc<Activity>,
    pub(super) jobs: mpsc::Receiver<Job>,
}

impl Worker {
    /// Life of an instance's first thread, once the instance is there. Without an order to `Destroy` the instance
    /// ends when nobody can send any more.
    pub(super) fn serve_first(mut self, instance: Instance, others: Vec<Self>) {
        let instance = Arc::new(instance);
        let threads = self.start(others, &instance);
        let mut last = None;
        while let Some(job) = self.jobs.blocking_recv() {
            if let Job::Destroy { deadline, answer } = job {
                last = Some((deadline, answer));
                break;
            }
            self.serve(&instance, job);
        }
        drop(self.jobs);
        let (deadline, answer) = last.unzip();
        let report =
            self.activity.during(&self.plugin, CallKind::Destroy, deadline.unwrap_or(Duration::MAX), || {
                // Their channels are closed by now. One that is in a call that never returns keeps the instance alive.
                threads.into_iter().for_each(|thread| drop(thread.join()));
                Arc::into_inner(instance).map(Instance::destroy)
            });
        if let (Some(Some(report)), Some(answer)) = (report, answer) {
            // Nobody may wait any more.
            let _ = answer.send(report);
        }
    }

    fn start(&self, others: Vec<Self>, instance: &Arc<Instance>) -> Vec<JoinHandle<()>> {
        let spawn = |(index, worker): (usize, Self)| {
            let instance = Arc::clone(instance);
            let spawned = thread::Builder::new()
                .name(thread_name(&format!("{}-{}", self.plugin, index + 1)))
                .spawn(move || worker.serve_other(&instance));
            spawned
                .inspect_err(|error| {
                    tracing::error!(plugin = &*self.plugin, "no thread for a worker: {error}");
                })
                .ok()
        };
        others.into_iter().enumerate().filter_map(spawn).collect()
    }

    fn serve_other(mut self, instance: &Instance) {
        while let Some(job) = self.jobs.blocking_recv() {
            self.serve(instance, job);
        }
    }

    fn serve(&self, instance: &Instance, job: Job) {
        match job {
            Job::Export { batch, attempt, deadline, answer } => {
                let call = || instance.export(&*batch, attempt, deadline);
                self.answer(CallKind::Export, deadline, answer, call);
            }
            Job::Flush { deadline, answer } => {
                self.answer(CallKind::Flush, deadline, answer, || instance.flush(deadline));
            }
            Job::Health { deadline, answer } => {
                self.answer(CallKind::Health, deadline, answer, || instance.health(deadline));
            }
            Job::Scrape { format, deadline, answer } => {
                self.answer(CallKind::Scrape, deadline, answer, || instance.scrape(format));
            }
            // `serve_first` takes it; the other threads get none.
            Job::Destroy { .. } => {}
        }
    }

    /// Makes a call, unless nobody waits for it any more.
    fn answer<T>(
        &self,
        kind: CallKind,
        deadline: Duration,
        answer: oneshot::Sender<T>,
        call: impl FnOnce() -> T,
    ) {
        if answer.is_closed() {
            return;
        }
        if let Some(outcome) = self.activity.during(&self.plugin, kind, deadline, call) {
            let _ = answer.send(outcome);
        }
    }
}
