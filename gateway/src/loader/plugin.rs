//! A loaded plugin as the pipeline sees it: asynchronous calls, each with a deadline that holds whatever the plugin
//! does.
//!
//! A call that does not return within its deadline and a grace (a tenth of it, at least a second) is given up, not
//! stopped: no thread can be. The plugin is then [`State::Stuck`] and every further call fails at once. The records
//! of the call live on with the thread. Should it return after all, the plugin runs again; what it says then is
//! discarded, because its records were judged long since. They are sent again, so a backend may see them twice, which
//! is what record ids are for.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use plugin_api::{Content, ContentNeed, Description, RequiredContent};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    calls::{BatchSource, CallReport, CallStatus, ExportOutcome, Health, HostInfo},
    error::{LoadError, Stage},
    file::FileRequest,
    load::{self, FileFacts, Progress},
    thread::{Activity, CallKind, Job, MAX_WAITING, Overdue, Worker},
};

/// How soon a thread that seems idle is looked at again.
const BETWEEN_CALLS: Duration = Duration::from_millis(10);

/// Makes a plugin's settings from what it says about itself; the error is for the operator.
pub type Settings = Box<dyn FnOnce(&Description) -> Result<serde_json::Value, String> + Send>;

/// What is needed to load a plugin.
pub struct LoadRequest {
    /// Name of the `[[plugin]]` entry.
    pub name: String,
    /// Where the file is, and how strictly it is looked at.
    pub file: FileRequest,
    /// How many batches may be under way at once. More than one needs a plugin that says `concurrent`.
    pub workers: usize,
    /// How long everything may take, from reading the file until the instance is there.
    pub create_timeout: Duration,
    /// Makes the settings.
    pub settings: Settings,
    /// The most that it may see of a record.
    pub content: Content,
    /// What the plugin is told about the gateway.
    pub host: HostInfo,
}

impl fmt::Debug for LoadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadRequest")
            .field("name", &self.name)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// How a plugin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It takes calls.
    Running,
    /// A call does not return. It takes none until it does.
    Stuck {
        /// When that call began.
        since: Instant,
        /// Which one it is.
        call: CallKind,
    },
    /// It was switched off and takes no calls.
    Disabled {
        /// Why.
        reason: String,
    },
    /// It was ended.
    Stopped,
}

/// Why there is no answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailed {
    /// The call, or one before it, does not return. If it was this one, what became of it is unknown.
    #[error("the plugin is stuck: `{call}` does not return")]
    Stuck {
        /// The call that does not return.
        call: CallKind,
    },
    /// The thread is in another call that may take its time. Only for health and metrics.
    #[error("the plugin is busy with another question")]
    Busy,
    /// The plugin was switched off.
    #[error("the plugin is disabled")]
    Disabled,
    /// The plugin was ended.
    #[error("the plugin is stopped")]
    Stopped,
    /// The call returned and said that it failed.
    #[error("the plugin answered `{}`: {}", .0.status, .0.message)]
    Failed(CallReport),
}

/// A plugin that was loaded. Dropped without [`stop`](Self::stop), it is destroyed in the background, unflushed.
pub struct Plugin {
    name: Arc<str>,
    description: Description,
    content: Content,
    facts: FileFacts,
    workers: Vec<CallQueue>,
    /// To the thread that asks for health and metrics, so that nobody waits for an export to learn of it.
    inquiries: CallQueue,
    disabled: Mutex<Option<String>>,
    is_stopped: AtomicBool,
}

/// The way to one thread of the instance.
struct CallQueue {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    activity: Arc<Activity>,
}

impl Plugin {
    /// Loads a plugin and makes its instance, on the thread that the instance will live on.
    ///
    /// # Errors
    /// Why it was not loaded. With [`LoadError::TimedOut`] its thread is left behind.
    pub async fn load(request: LoadRequest) -> Result<Self, LoadError> {
        let (name, path, timeout) = (request.name.clone(), request.file.path.clone(), request.create_timeout);
        load::on_thread(&name, path, timeout, |progress| make(request, progress)).await
    }

    /// Name of its `[[plugin]]` entry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// How much of a record it is shown: what its settings need, as far as the operator allows it.
    #[must_use]
    pub fn content(&self) -> Content {
        self.content
    }

    /// The file that it came from.
    #[must_use]
    pub fn facts(&self) -> &FileFacts {
        &self.facts
    }

    /// How many batches may be under way at once.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// How it is now.
    #[must_use]
    pub fn state(&self) -> State {
        if self.is_stopped.load(Ordering::Acquire) {
            return State::Stopped;
        }
        if let Some(reason) = self.disabled.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return State::Disabled { reason };
        }
        match self.overdue() {
            Some(Overdue { call, since }) => State::Stuck { since, call },
            None => State::Running,
        }
    }

    /// Switches it off: it takes no more calls but [`stop`](Self::stop). The first reason stands.
    pub fn disable(&self, reason: impl Into<String>) {
        self.disabled.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.into());
    }

    /// Delivers a batch on thread `worker` (from 0; one call at a time for each). `deadline` counts from the moment
    /// the plugin is called.
    ///
    /// # Errors
    /// When there is no outcome. After [`CallFailed::Stuck`] the batch may have been delivered or not.
    pub async fn export(
        &self,
        worker: usize,
        batch: Arc<dyn BatchSource>,
        attempt: u32,
        deadline: Duration,
    ) -> Result<ExportOutcome, CallFailed> {
        self.admit()?;
        let job = |answer| Job::Export { batch, attempt, deadline, answer };
        self.ask(&self.workers[worker % self.workers.len()], None, job).await
    }

    /// Delivers what the plugin itself still holds.
    ///
    /// # Errors
    /// When it failed, or there is no answer.
    pub async fn flush(&self, deadline: Duration) -> Result<(), CallFailed> {
        self.admit()?;
        let report = self.ask(&self.workers[0], None, |answer| Job::Flush { deadline, answer }).await?;
        succeeded(report)
    }

    /// Whether the backend can be reached. Asked beside a running export.
    ///
    /// # Errors
    /// When it failed, or there is no answer.
    pub async fn health(&self, deadline: Duration) -> Result<Health, CallFailed> {
        let answer = self.inquire(deadline, |answer| Job::Health { deadline, answer }).await?;
        answer.map_err(CallFailed::Failed)
    }

    /// The plugin's own metrics in one of the formats of [`plugin_api::abi::scrape_format`]; `None` when it has none
    /// in this format. Asked beside a running export.
    ///
    /// # Errors
    /// When it failed, or there is no answer.
    pub async fn scrape(&self, format: u32, deadline: Duration) -> Result<Option<Vec<u8>>, CallFailed> {
        let answer = self.inquire(deadline, |answer| Job::Scrape { format, deadline, answer }).await?;
        answer.map_err(CallFailed::Failed)
    }

    /// Ends the instance; [`flush`](Self::flush) comes first. A plugin that does not end within `deadline` is left
    /// behind with its threads.
    ///
    /// # Errors
    /// When it failed, was stopped before, or was left behind.
    pub async fn stop(&self, deadline: Duration) -> Result<(), CallFailed> {
        if self.is_stopped.swap(true, Ordering::AcqRel) {
            return Err(CallFailed::Stopped);
        }
        // The other threads end when nobody can send to them; the first one waits for them before it destroys.
        self.inquiries.close();
        for calls in &self.workers[1..] {
            calls.close();
        }
        if let Some(Overdue { call, .. }) = self.overdue() {
            self.workers[0].close();
            return Err(CallFailed::Stuck { call });
        }
        let wait = self.ask(&self.workers[0], None, |answer| Job::Destroy { deadline, answer });
        let report = tokio::time::timeout(deadline, wait).await;
        self.workers[0].close();
        match report {
            Ok(report) => succeeded(report?),
            Err(_) => Err(CallFailed::Stuck {
                call: self.workers[0].activity.running().map_or(CallKind::Destroy, |(call, _)| call),
            }),
        }
    }

    #[cfg(test)]
    pub(super) fn is_in_a_call(&self) -> bool {
        self.workers.iter().chain([&self.inquiries]).any(|calls| calls.activity.running().is_some())
    }

    fn admit(&self) -> Result<(), CallFailed> {
        match self.state() {
            State::Running => Ok(()),
            State::Stuck { call, .. } => Err(CallFailed::Stuck { call }),
            State::Disabled { .. } => Err(CallFailed::Disabled),
            State::Stopped => Err(CallFailed::Stopped),
        }
    }

    /// Asks for health or metrics. A plugin that is stuck in an export can still be asked.
    async fn inquire<T>(
        &self,
        deadline: Duration,
        job: impl FnOnce(oneshot::Sender<T>) -> Job,
    ) -> Result<T, CallFailed> {
        match self.state() {
            State::Running | State::Stuck { .. } => {}
            State::Disabled { .. } => return Err(CallFailed::Disabled),
            State::Stopped => return Err(CallFailed::Stopped),
        }
        if let Some(Overdue { call, .. }) = self.inquiries.activity.overdue(&self.name) {
            return Err(CallFailed::Stuck { call });
        }
        self.ask(&self.inquiries, Instant::now().checked_add(deadline), job).await
    }

    fn overdue(&self) -> Option<Overdue> {
        self.workers.iter().find_map(|calls| calls.activity.overdue(&self.name))
    }

    /// Sends a job and waits for its answer: until it or the job before it is overdue, and, while the job has not
    /// begun, until `give_up`.
    async fn ask<T>(
        &self,
        calls: &CallQueue,
        give_up: Option<Instant>,
        job: impl FnOnce(oneshot::Sender<T>) -> Job,
    ) -> Result<T, CallFailed> {
        let (answer, mut waiting) = oneshot::channel();
        let sent = Instant::now();
        calls.send(job(answer))?;
        loop {
            if let Ok(answer) = tokio::time::timeout(calls.pause(give_up), &mut waiting).await {
                return answer.map_err(|_| CallFailed::Stopped);
            }
            if let Some(Overdue { call, .. }) = calls.activity.overdue(&self.name) {
                return Err(CallFailed::Stuck { call });
            }
            let waits_for_another = calls.activity.running().is_some_and(|(_, since)| since < sent);
            if waits_for_another && give_up.is_some_and(|give_up| Instant::now() >= give_up) {
                return Err(CallFailed::Busy);
            }
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl CallQueue {
    fn send(&self, job: Job) -> Result<(), CallFailed> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(CallFailed::Busy),
            Some(Err(TrySendError::Closed(_))) | None => Err(CallFailed::Stopped),
        }
    }

    /// How long to wait before looking again at what the thread does. One that is between two calls is about to take
    /// the next, and only then is known how long that one may take.
    fn pause(&self, give_up: Option<Instant>) -> Duration {
        let pause = self.activity.remaining().unwrap_or(BETWEEN_CALLS);
        let left = give_up.map(|give_up| give_up.saturating_duration_since(Instant::now()));
        left.filter(|left| !left.is_zero())
            .map_or(pause, |left| left.min(pause))
            .max(Duration::from_millis(1))
    }

    fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Everything that happens on the instance's thread: first the loading, then, as the second value, its life.
fn make(request: LoadRequest, progress: &Progress) -> Result<(Plugin, impl FnOnce() + use<>), LoadError> {
    let LoadRequest { name, file, workers, settings, host, content: allowed, .. } = request;
    let (library, facts) = load::open(&file, &name, progress)?;
    progress.enter(Stage::Describe);
    let description = library.describe()?;
    progress.enter(Stage::Settings);
    let settings =
        settings(&description).map_err(|message| LoadError::Settings { path: file.path.clone(), message })?;
    let need = library.content(&settings)?.unwrap_or_else(|| ContentNeed::new(description.content));
    let content = visible(need, allowed, &file.path)?;
    progress.enter(Stage::Create);
    let instance = library.create(&name, &settings, &host)?;

    let name: Arc<str> = name.into();
    let count = usable_workers(workers, &description, &name);
    let (first_calls, first) = calls(&name);
    let (mut workers, mut others): (Vec<_>, Vec<_>) = (1..count).map(|_| calls(&name)).unzip();
    workers.insert(0, first_calls);
    let (inquiries, inquirer) = calls(&name);
    others.push(inquirer);
    let life = move || first.serve_first(instance, others);
    let (disabled, is_stopped) = (Mutex::new(None), AtomicBool::new(false));
    Ok((Plugin { name, description, content, facts, workers, inquiries, disabled, is_stopped }, life))
}

/// What it needs, as far as it is allowed. What it cannot do without must be.
fn visible(need: ContentNeed, allowed: Content, path: &Path) -> Result<Content, LoadError> {
    match need.required.filter(|required| required.content > allowed) {
        Some(RequiredContent { content: needed, reason, .. }) => {
            Err(LoadError::Content { path: path.to_owned(), allowed, needed, reason })
        }
        None => Ok(need.content.min(allowed)),
    }
}

/// At least 1, and more only for a plugin that can take it.
fn usable_workers(wanted: usize, description: &Description, plugin: &str) -> usize {
    if wanted > 1 && !description.concurrent {
        tracing::warn!(
            plugin,
            "`workers = {wanted}`, but this plugin takes one batch at a time; it gets one worker"
        );
        return 1;
    }
    wanted.max(1)
}

/// The two ends of the way to one thread.
fn calls(plugin: &Arc<str>) -> (CallQueue, Worker) {
    let (sender, jobs) = mpsc::channel(MAX_WAITING);
    let activity = Arc::new(Activity::default());
    let worker = Worker { plugin: Arc::clone(plugin), activity: Arc::clone(&activity), jobs };
    (CallQueue { jobs: Mutex::new(Some(sender)), activity }, worker)
}

fn succeeded(report: CallReport) -> Result<(), CallFailed> {
    if report.status == CallStatus::Ok { Ok(()) } else { Err(CallFailed::Failed(report)) }
}
