//! A running instance of an exporter.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use plugin_api::{
    Content, ContentNeed, TelemetryExporter,
    abi::{
        CONTENT_V1, ContentV1, HEALTH_V1, HealthV1, Instance, SCRAPE_V1, ScrapeV1, Slice, scrape_format,
        status,
    },
    door::function_table,
};

use crate::{
    gateway::{Call, Job, export, extension, heard, milliseconds, run},
    outcome::{Failure, Outcome},
    sample::{Records, Sample},
};

/// Time that a call to the exporter is given, unless [`Plugin::with_deadline`] says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Time that `init` is given: the gateway's own default.
const CREATE_DEADLINE: Duration = Duration::from_secs(30);

/// A running instance of exporter `E`, behind its real function table and on its own thread.
///
/// A call that has not returned a second (or a tenth of the deadline, if that is more) after its deadline is given
/// up, as in the gateway: it comes out as a `TIMEOUT` with a fault, and so does every call after it.
///
/// Dropping it destroys the instance; [`close`](Self::close) flushes first, as the gateway does.
pub struct Plugin<E> {
    jobs: Option<mpsc::Sender<Job>>,
    /// Gets what `destroy` said, when the instance's thread ends.
    ended: Mutex<mpsc::Receiver<Result<(), Failure>>>,
    content: Content,
    deadline: Duration,
    stuck: AtomicBool,
    exporter: PhantomData<fn() -> E>,
}

impl<E: TelemetryExporter> Plugin<E> {
    /// Makes an instance from its settings (a JSON object) that sees as much of each record as they need.
    ///
    /// # Errors
    /// Those of `create`.
    pub fn create(config: impl Into<String>) -> Result<Self, Failure> {
        let config = config.into();
        Self::create_seeing(Self::content(&config)?.content, config)
    }

    /// How much of each record an instance with these settings needs.
    ///
    /// # Errors
    /// When they are no settings of this exporter.
    pub fn content(config: &str) -> Result<ContentNeed, Failure> {
        let table = extension::<E, ContentV1>(CONTENT_V1);
        let need = heard(|sink| (table.content)(Slice::of(config.as_bytes()), sink))?;
        serde_json::from_str(&need)
            .map_err(|error| Failure { status: status::FAULT, message: error.to_string() })
    }

    /// The same, for an operator who sets `content`. With less than [`Content::Full`] the bodies are empty.
    ///
    /// # Errors
    /// Those of `create`.
    pub fn create_seeing(content: Content, config: impl Into<String>) -> Result<Self, Failure> {
        let (jobs, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let config = config.into();
        std::thread::spawn(move || drop(end.send(run::<E>(&config, &ready, &inbox))));
        match started.recv_timeout(with_grace(CREATE_DEADLINE)) {
            Ok(created) => created?,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(no_return("init", CREATE_DEADLINE)),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(thread_ended()),
        }
        Ok(Self {
            jobs: Some(jobs),
            ended: Mutex::new(ended),
            content,
            deadline: DEADLINE,
            stuck: AtomicBool::new(false),
            exporter: PhantomData,
        })
    }

    /// Gives every call from now on this much time instead of [`DEADLINE`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Delivers a batch.
    #[must_use]
    pub fn export(&self, samples: impl IntoIterator<Item = Sample>) -> Outcome {
        self.export_records(&Records::of(samples))
    }

    /// Delivers a batch that was serialized before.
    #[must_use]
    pub fn export_records(&self, records: &Records) -> Outcome {
        self.export_again(records, 0)
    }

    /// Delivers a batch that was sent `attempt` times before.
    #[must_use]
    pub fn export_again(&self, records: &Records, attempt: u32) -> Outcome {
        let call = Call { records: records.clone(), content: self.content, attempt, deadline: self.deadline };
        let length = records.len();
        self.call("export", move |instance| export::<E>(instance, call)).unwrap_or_else(|failure| Outcome {
            status: failure.status,
            faults: vec![failure.message.clone()],
            message: failure.message,
            verdicts: vec![None; length],
            retry_after: None,
        })
    }

    /// Asks for the backend's health.
    ///
    /// # Errors
    /// `RETRY` when it cannot be reached, `UNSUPPORTED` when the plugin cannot tell.
    pub fn health(&self) -> Result<(), Failure> {
        let deadline = self.deadline;
        self.call("health", move |instance| {
            let table = extension::<E, HealthV1>(HEALTH_V1);
            heard(|sink| (table.health)(instance, milliseconds(deadline), sink)).map(drop)
        })?
    }

    /// The plugin's metrics in the Prometheus text format.
    ///
    /// # Errors
    /// `UNSUPPORTED` when it has none.
    pub fn scrape(&self) -> Result<String, Failure> {
        self.scrape_as(scrape_format::PROMETHEUS_TEXT)
    }

    /// The plugin's metrics in OpenMetrics.
    ///
    /// # Errors
    /// `UNSUPPORTED` when it does not write that format.
    pub fn scrape_openmetrics(&self) -> Result<String, Failure> {
        self.scrape_as(scrape_format::OPEN_METRICS)
    }

    /// Has the plugin deliver what it still holds.
    ///
    /// # Errors
    /// Those of `shutdown`.
    pub fn flush(&self) -> Result<(), Failure> {
        let (table, deadline) = (function_table::<E>(), self.deadline);
        self.call("shutdown", move |instance| {
            heard(|sink| (table.flush)(instance, milliseconds(deadline), sink)).map(drop)
        })?
    }

    /// Flushes and destroys, as the gateway does at its end.
    ///
    /// # Errors
    /// Those of `shutdown`, else a panic while it was dropped.
    pub fn close(mut self) -> Result<(), Failure> {
        self.flush()?;
        self.destroy()
    }

    fn scrape_as(&self, format: u32) -> Result<String, Failure> {
        self.call("scrape", move |instance| {
            let table = extension::<E, ScrapeV1>(SCRAPE_V1);
            heard(|sink| (table.scrape)(instance, format, sink))
        })?
    }

    /// Runs `body` on the instance's thread; the error is that it did not return.
    fn call<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce(Instance) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if self.is_stuck() {
            return Err(Failure {
                status: status::TIMEOUT,
                message: format!("`{name}` was not called: an earlier call has not returned"),
            });
        }
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move |instance| drop(answer.send(body(instance))));
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(thread_ended)?;
        answered.recv_timeout(with_grace(self.deadline)).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                self.stuck.store(true, Ordering::Relaxed);
                no_return(name, self.deadline)
            }
            mpsc::RecvTimeoutError::Disconnected => thread_ended(),
        })
    }
}

impl<E> Plugin<E> {
    /// Whether a call was given up because it did not return.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    fn destroy(&mut self) -> Result<(), Failure> {
        // Without a sender of jobs the thread destroys the instance and ends.
        if self.jobs.take().is_none() || self.is_stuck() {
            return Ok(());
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(with_grace(self.deadline)) {
            Ok(destroyed) => destroyed,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(no_return("drop", self.deadline)),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Failure { status: status::PANIC, message: "the plugin's thread panicked".to_owned() })
            }
        }
    }
}

impl<E> fmt::Debug for Plugin<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("content", &self.content).finish_non_exhaustive()
    }
}

impl<E> Drop for Plugin<E> {
    fn drop(&mut self) {
        let _ = self.destroy();
    }
}

/// How long the gateway waits for a call with this deadline before it calls the plugin stuck.
pub(super) fn with_grace(deadline: Duration) -> Duration {
    deadline + (deadline / 10).max(Duration::from_secs(1))
}

fn no_return(call: &str, deadline: Duration) -> Failure {
    let message = format!(
        "`{call}` has not returned {:?} after its deadline of {deadline:?}: it blocks, where \
         the gateway would call the plugin stuck",
        with_grace(deadline) - deadline
    );
    Failure { status: status::TIMEOUT, message }
}

fn thread_ended() -> Failure {
    Failure { status: status::FAULT, message: "the plugin's thread ended".to_owned() }
}
