//! For the unit tests of a plugin: records to feed it, and a stand-in for the gateway. Cargo feature `testing`.
//!
//! ```toml
//! [dev-dependencies]
//! plugin-api = { version = "1", features = ["testing"] }
//! ```
//!
//! ```
//! use plugin_api::{Batch, Descriptor, ExportError, Host, InitError, NoConfig, TelemetryExporter};
//! use plugin_api::testing::{Plugin, Sample, Verdict};
//!
//! /// Takes streams alone.
//! struct Picky;
//!
//! impl TelemetryExporter for Picky {
//!     type Config = NoConfig;
//!     const DESCRIPTOR: Descriptor = Descriptor::new("picky", "1.0.0");
//!
//!     async fn init(_: NoConfig, _: Host) -> Result<Self, InitError> {
//!         Ok(Self)
//!     }
//!
//!     async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
//!         for record in batch.iter() {
//!             if !record.metrics()?.is_streaming {
//!                 record.reject("not a stream");
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let plugin = Plugin::<Picky>::create("{}").unwrap();
//! let outcome = plugin.export([Sample::stream(), Sample::chat()]);
//! assert!(outcome.is_delivered(0));
//! assert_eq!(outcome.verdicts[1], Some(Verdict::Rejected("not a stream".to_owned())));
//! plugin.close().unwrap();
//! ```
//!
//! The exporter runs behind its real function table and on a thread of its own, as in the gateway: a panic, a
//! deadline or a wrong verdict shows as the gateway would see it. What the gateway adds is not here: no queue, no
//! retry, no check of the settings against their schema, no environment variables, no log.
//!
//! Calls block until the exporter is done. A test with an `async` server of its own needs a runtime with several
//! threads (`#[tokio::test(flavor = "multi_thread")]`), or a server on a plain thread.

use std::{
    borrow::Cow,
    cell::RefCell,
    ffi::c_void,
    fmt,
    marker::PhantomData,
    ptr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    abi::{
        ABI_VERSION, BatchV1, HEALTH_V1, HealthV1, HostV1, Instance, Level, Part, SCRAPE_V1, ScrapeV1, Sink,
        Slice, Status, level, part, scrape_format, status, verdict,
    },
    descriptor::Content,
    exporter::TelemetryExporter,
    metrics::{CostSource, EndReason, RequestMetrics, Status as RequestStatus, UsageSource},
    table,
};

/// Time that a call to the exporter is given.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A record to test with: complete and plausible, to be changed where a test cares.
///
/// ```
/// use plugin_api::testing::Sample;
///
/// let sample = Sample::chat()
///     .number(7)
///     .with(|metrics| metrics.model = None)
///     .request(r#"{"model":"gpt-4o-mini","messages":[]}"#);
/// ```
#[derive(Debug, Clone)]
pub struct Sample {
    metrics: RequestMetrics<'static>,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Sample {
    /// A chat completion that went well: every number known, and two small bodies.
    #[must_use]
    pub fn chat() -> Self {
        Self {
            metrics: serde_json::from_str(CHAT).expect("the sample is a record"),
            request: br#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Say hello"}]}"#.to_vec(),
            response: br#"{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":48,"completion_tokens":865,"total_tokens":913}}"#.to_vec(),
        }
    }

    /// The same as a stream, with a time to the first token and the chunks in `streamed_data`.
    #[must_use]
    pub fn stream() -> Self {
        let request =
            r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Say hello"}],"stream":true}"#;
        let response = r#"{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello!"}}],"streamed_data":[{"choices":[{"index":0,"delta":{"content":"Hello!"}}]}]}"#;
        Self::chat()
            .with(|metrics| {
                metrics.is_streaming = true;
                metrics.ttft = Some(412.5);
            })
            .request(request)
            .response(response)
    }

    /// A request that the provider refused with status 429: no model in the answer, no usage, no cost.
    #[must_use]
    pub fn failed() -> Self {
        let response = r#"{"error":{"message":"Rate limit reached","type":"rate_limit_exceeded"}}"#;
        let failed = Self::chat().with(|metrics| {
            metrics.model = None;
            metrics.status = RequestStatus::Error;
            metrics.status_code = Some(429);
            metrics.provider_status_code = Some(429);
            metrics.error_count = 1;
            metrics.error_type = Some(Cow::Borrowed("rate_limit_exceeded"));
            metrics.provider_error_count = 1;
            metrics.provider_error_type = Some(Cow::Borrowed("rate_limit_exceeded"));
        });
        failed.without_usage().response(response)
    }

    /// A request that the client left in the middle of a stream.
    #[must_use]
    pub fn disconnected() -> Self {
        let disconnected = Self::stream().with(|metrics| {
            metrics.status = RequestStatus::Error;
            metrics.error_count = 1;
            metrics.error_type = Some(Cow::Borrowed("client_disconnect"));
            metrics.end_reason = EndReason::ClientDisconnect;
        });
        disconnected.without_usage()
    }

    /// Gives the record an id and a timestamp of its own. Samples are equal in both until numbered.
    #[must_use]
    pub fn number(self, number: u32) -> Self {
        self.with(|metrics| {
            metrics.id = Cow::Owned(format!("01956f3c-8d2b-7e11-9c7a-{number:012x}"));
            metrics.thread_id = Cow::Owned(format!("thread_{number}"));
            let (minute, second, milli) = (number / 60_000 % 60, number / 1000 % 60, number % 1000);
            metrics.timestamp = Cow::Owned(format!("2025-03-05T16:{minute:02}:{second:02}.{milli:03}Z"));
        })
    }

    /// Changes any field of the record but its bodies.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut RequestMetrics<'static>)) -> Self {
        change(&mut self.metrics);
        self
    }

    /// Sets the request's body: JSON, or empty for none.
    #[must_use]
    pub fn request(mut self, json: impl Into<Vec<u8>>) -> Self {
        self.request = json.into();
        self
    }

    /// Sets the response's body: JSON, or empty for none.
    #[must_use]
    pub fn response(mut self, json: impl Into<Vec<u8>>) -> Self {
        self.response = json.into();
        self
    }

    /// The `metrics` part as the gateway would send it.
    #[must_use]
    pub fn metrics_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.metrics).unwrap_or_default()
    }

    fn without_usage(self) -> Self {
        self.with(|metrics| {
            metrics.input_tokens = None;
            metrics.output_tokens = None;
            metrics.total_tokens = None;
            metrics.cached_read_tokens = None;
            metrics.reasoning_tokens = None;
            metrics.usage_source = UsageSource::None;
            metrics.cost = None;
            metrics.cost_source = CostSource::None;
            metrics.price_version = None;
        })
    }
}

/// The `metrics` part of [`Sample::chat`]. A field that it lacks is one that may be absent.
const CHAT: &str = r#"{
    "id": "01956f3c-8d2b-7e11-9c7a-000000000000", "timestamp": "2025-03-05T16:03:20.123Z",
    "thread_id": "thread_29", "org_id": "org_123", "user_id": "user_456",
    "project_id": "proj_design", "project_name": "UX Design", "experiment_id": null,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
    "service_name": "noveum_ai_gateway", "service_version": "1.0.0", "environment": "production",
    "provider": "openai", "model": "gpt-4o-mini-2024-07-18", "request_model": "gpt-4o-mini",
    "path": "/v1/chat/completions", "method": "POST", "is_streaming": false,
    "total_latency": 6250.25, "provider_latency": 255.5, "ttfb": 256.0, "ttft": null, "gateway_overhead": 0.125,
    "request_size": 193, "response_size": 52280,
    "input_tokens": 48, "output_tokens": 865, "total_tokens": 913,
    "cached_read_tokens": 16, "cached_write_tokens": null, "reasoning_tokens": 128, "usage_source": "provider",
    "cost": 0.0456, "cost_source": "table", "price_version": "2025-03-01",
    "status": "success", "status_code": 200, "provider_status_code": 200,
    "error_count": 0, "error_type": null, "provider_error_count": 0, "provider_error_type": null,
    "end_reason": "complete", "provider_request_id": "req_01jnkrrz2ken1bej7emqf9j2af",
    "truncated": [], "request_body": null, "response_body": null
}"#;

/// Samples, serialized once: for a test or a measurement that sends the same batch again and again.
#[derive(Debug, Clone)]
pub struct Records(Arc<[Parts]>);

#[derive(Debug)]
struct Parts {
    metrics: Vec<u8>,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Records {
    /// The records of a batch, in order.
    #[must_use]
    pub fn of(samples: impl IntoIterator<Item = Sample>) -> Self {
        let parts = samples.into_iter().map(|sample| Parts {
            metrics: sample.metrics_json(),
            request: sample.request,
            response: sample.response,
        });
        Self(parts.collect())
    }
}

/// What an exporter said about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend has it.
    Delivered,
    /// Send it again, for this reason.
    Retry(String),
    /// The backend will never take it, for this reason.
    Rejected(String),
}

/// What one call of `export` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One of the constants in [`abi::status`](crate::abi::status).
    pub status: Status,
    /// The error's text; empty after `OK`.
    pub message: String,
    /// For each record the last verdict the exporter gave on it, if any.
    pub verdicts: Vec<Option<Verdict>>,
    /// The wait that the backend asked for.
    pub retry_after: Option<Duration>,
    /// Breaches of the contract: verdicts on records that are not there, unknown ones, missing ones.
    pub faults: Vec<String>,
}

impl Outcome {
    /// Whether record `index` counts as delivered: by its own verdict, else by the fate of the call.
    #[must_use]
    pub fn is_delivered(&self, index: usize) -> bool {
        match self.verdicts.get(index) {
            Some(Some(verdict)) => *verdict == Verdict::Delivered,
            Some(None) => self.status == status::OK,
            None => false,
        }
    }

    /// Whether every record is delivered and the contract was kept.
    #[must_use]
    pub fn is_all_delivered(&self) -> bool {
        self.faults.is_empty() && (0..self.verdicts.len()).all(|index| self.is_delivered(index))
    }
}

/// A call that failed, as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of the constants in [`abi::status`](crate::abi::status), never `OK`.
    pub status: Status,
    /// The plugin's text.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.status, self.message)
    }
}

impl std::error::Error for Failure {}

/// A running instance of exporter `E`, behind its real function table and on its own thread.
///
/// Dropping it destroys the instance; [`close`](Self::close) flushes first, as the gateway does.
pub struct Plugin<E> {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
    content: Content,
    exporter: PhantomData<fn() -> E>,
}

type Job = Box<dyn FnOnce(Instance) + Send>;

impl<E: TelemetryExporter> Plugin<E> {
    /// Makes an instance from its settings (a JSON object) that sees as much of each record as its descriptor asks.
    ///
    /// # Errors
    /// Those of `create`.
    pub fn create(config: impl Into<String>) -> Result<Self, Failure> {
        Self::create_seeing(E::DESCRIPTOR.content, config)
    }

    /// The same, for an operator who sets `content`. With less than [`Content::Full`] the bodies are empty.
    ///
    /// # Errors
    /// Those of `create`.
    pub fn create_seeing(content: Content, config: impl Into<String>) -> Result<Self, Failure> {
        let (jobs, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let config = config.into();
        let thread = std::thread::spawn(move || run::<E>(&config, &ready, &inbox));
        let fault = |_| Failure { status: status::FAULT, message: "the plugin's thread ended".to_owned() };
        started.recv().map_err(fault)??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), content, exporter: PhantomData })
    }

    /// Delivers a batch.
    #[must_use]
    pub fn export(&self, samples: impl IntoIterator<Item = Sample>) -> Outcome {
        self.export_records(&Records::of(samples))
    }

    /// Delivers a batch that was serialized before.
    #[must_use]
    pub fn export_records(&self, records: &Records) -> Outcome {
        let call = (records.clone(), self.content);
        self.call(move |instance| export::<E>(instance, call.0, call.1))
    }

    /// Asks for the backend's health.
    ///
    /// # Errors
    /// `RETRY` when it cannot be reached, `UNSUPPORTED` when the plugin cannot tell.
    pub fn health(&self) -> Result<(), Failure> {
        self.call(|instance| {
            let table = extension::<E, HealthV1>(HEALTH_V1);
            heard(|sink| (table.health)(instance, milliseconds(DEADLINE), sink)).map(drop)
        })
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
        let table = table::exporter::<E>();
        self.call(move |instance| {
            heard(|sink| (table.flush)(instance, milliseconds(DEADLINE), sink)).map(drop)
        })
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
        self.call(move |instance| {
            let table = extension::<E, ScrapeV1>(SCRAPE_V1);
            heard(|sink| (table.scrape)(instance, format, sink))
        })
    }

    fn call<T: Send + 'static>(&self, body: impl FnOnce(Instance) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move |instance| drop(answer.send(body(instance))));
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        assert!(sent, "the plugin's thread runs as long as the plugin");
        answered.recv().expect("every function of the table returns")
    }
}

impl<E> Plugin<E> {
    fn destroy(&mut self) -> Result<(), Failure> {
        self.jobs = None;
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| {
            Err(Failure { status: status::PANIC, message: "the plugin's thread panicked".to_owned() })
        })
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

/// The instance's thread, from `create` to `destroy`.
fn run<E: TelemetryExporter>(
    config: &str,
    ready: &mpsc::Sender<Result<(), Failure>>,
    inbox: &mpsc::Receiver<Job>,
) -> Result<(), Failure> {
    let table = table::exporter::<E>();
    let info = r#"{"gateway_version":"1.0.0","instance":"test","service_name":"test","environment":"test"}"#;
    let host = HostV1 {
        struct_size: size_of_u32::<HostV1>(),
        abi_version: ABI_VERSION,
        context: ptr::null_mut(),
        info: Slice::of(info.as_bytes()),
        max_level: level::OFF,
        log: ignore_log,
        get_extension: no_extension,
    };
    let mut instance: Instance = ptr::null_mut();
    let created = heard(|sink| (table.create)(Slice::of(config.as_bytes()), &host, sink, &mut instance));
    let failed = created.is_err();
    if ready.send(created.map(drop)).is_err() || failed {
        return Ok(());
    }
    while let Ok(job) = inbox.recv() {
        job(instance);
    }
    heard(|sink| (table.destroy)(instance, sink)).map(drop)
}

fn export<E: TelemetryExporter>(instance: Instance, records: Records, content: Content) -> Outcome {
    let length = records.0.len();
    let call = Call {
        records,
        content,
        outcome: RefCell::new(Outcome {
            status: status::OK,
            message: String::new(),
            verdicts: vec![None; length],
            retry_after: None,
            faults: Vec::new(),
        }),
    };
    let batch = BatchV1 {
        struct_size: size_of_u32::<BatchV1>(),
        attempt: 0,
        context: ptr::from_ref(&call).cast_mut().cast(),
        length,
        deadline_ms: milliseconds(DEADLINE),
        part: part_of,
        verdict: judge,
        retry_after: wait,
    };
    let answer = heard(|sink| (table::exporter::<E>().export)(instance, &batch, sink));
    let mut outcome = call.outcome.into_inner();
    if let Err(failure) = answer {
        (outcome.status, outcome.message) = (failure.status, failure.message);
    }
    if outcome.status == status::PER_RECORD && outcome.verdicts.contains(&None) {
        outcome.faults.push("a record without a verdict, though every one should have its own".to_owned());
    }
    outcome
}

/// What the context of a [`BatchV1`] points to.
struct Call {
    records: Records,
    content: Content,
    outcome: RefCell<Outcome>,
}

impl Call {
    /// # Safety
    /// `context` is that of a batch made by [`export`], during its call.
    unsafe fn of<'a>(context: *mut c_void) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*context.cast::<Self>() }
    }
}

extern "C" fn part_of(context: *mut c_void, index: usize, part: Part) -> Slice {
    // SAFETY: a plugin passes on the context it was given, during the call.
    let call = unsafe { Call::of(context) };
    let Some(record) = call.records.0.get(index) else { return Slice::EMPTY };
    match part {
        part::METRICS => Slice::of(&record.metrics),
        part::REQUEST if call.content == Content::Full => Slice::of(&record.request),
        part::RESPONSE if call.content == Content::Full => Slice::of(&record.response),
        _ => Slice::EMPTY,
    }
}

extern "C" fn judge(context: *mut c_void, index: usize, verdict: crate::abi::Verdict, reason: Slice) {
    // SAFETY: as in `part_of`.
    let (call, reason) = unsafe { (Call::of(context), reason.as_bytes()) };
    let reason = String::from_utf8_lossy(reason).into_owned();
    let mut outcome = call.outcome.borrow_mut();
    let given = match verdict {
        verdict::DELIVERED => Verdict::Delivered,
        verdict::RETRY => Verdict::Retry(reason),
        verdict::REJECTED => Verdict::Rejected(reason),
        unknown => return outcome.faults.push(format!("verdict {unknown} does not exist")),
    };
    match outcome.verdicts.get_mut(index) {
        Some(place) => *place = Some(given),
        None => outcome.faults.push(format!("a verdict on record {index}, which is not in the batch")),
    }
}

extern "C" fn wait(context: *mut c_void, milliseconds: u64) {
    // SAFETY: as in `part_of`.
    let call = unsafe { Call::of(context) };
    call.outcome.borrow_mut().retry_after = Some(Duration::from_millis(milliseconds));
}

/// Makes a call and hears what it writes to its sink: the answer after `OK`, else the error's text.
fn heard(call: impl FnOnce(*const Sink) -> Status) -> Result<String, Failure> {
    let text = RefCell::new(Vec::new());
    let status = call(&Sink { context: ptr::from_ref(&text).cast_mut().cast(), write: append });
    let text = String::from_utf8_lossy(&text.into_inner()).into_owned();
    if status == status::OK { Ok(text) } else { Err(Failure { status, message: text }) }
}

extern "C" fn append(context: *mut c_void, bytes: Slice) {
    // SAFETY: the context is that of `heard`, during its call; the slice is valid for this one.
    let (text, bytes) = unsafe { (&*context.cast::<RefCell<Vec<u8>>>(), bytes.as_bytes()) };
    text.borrow_mut().extend_from_slice(bytes);
}

extern "C" fn ignore_log(_: *mut c_void, _: Level, _: Slice, _: Slice, _: Slice) {}

extern "C" fn no_extension(_: *mut c_void, _: Slice) -> *const c_void {
    ptr::null()
}

fn extension<E: TelemetryExporter, T>(name: &str) -> &'static T {
    let table = (table::exporter::<E>().get_extension)(Slice::of(name.as_bytes()));
    // SAFETY: the extension of that name is a static `T`; every exporter of this crate has it.
    unsafe { &*table.cast::<T>() }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::{Batch, Descriptor, ExportError, Health, Host, InitError};

    #[derive(Deserialize, JsonSchema)]
    struct Script {
        does: String,
    }

    /// Does what its settings say.
    struct Actor(String);

    impl TelemetryExporter for Actor {
        type Config = Script;
        const DESCRIPTOR: Descriptor = Descriptor::new("actor", "1.0.0").content(Content::Metadata);

        async fn init(config: Script, _: Host) -> Result<Self, InitError> {
            match &*config.does {
                "refuse" => Err(InitError::invalid_config("no such play")),
                _ => Ok(Self(config.does)),
            }
        }

        async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
            match &*self.0 {
                "panic" => panic!("stage fright"),
                "wait" => Err(ExportError::retry("busy").after(Duration::from_secs(2))),
                "lie" => {
                    batch.delivered(9);
                    Err(ExportError::per_record())
                }
                "peek" => {
                    Err(ExportError::retry(format!("{}", batch.iter().map(|r| r.size()).sum::<usize>())))
                }
                _ => Ok(()),
            }
        }

        async fn health(&self) -> Health {
            Health::Unhealthy("hoarse".to_owned())
        }
    }

    fn actor(does: &str) -> Plugin<Actor> {
        Plugin::create(format!(r#"{{"does":"{does}"}}"#)).unwrap()
    }

    #[test]
    fn an_instance_that_cannot_be_made_says_why() {
        let refused = Plugin::<Actor>::create(r#"{"does":"refuse"}"#).unwrap_err();
        assert_eq!(refused, Failure { status: status::INVALID_CONFIG, message: "no such play".to_owned() });
        assert_eq!(Plugin::<Actor>::create("{}").unwrap_err().status, status::INVALID_CONFIG);
    }

    #[test]
    fn the_outcome_is_what_the_gateway_would_see() {
        let well = actor("well").export([Sample::chat(), Sample::failed()]);
        assert!(well.is_all_delivered() && !well.is_delivered(2), "{well:?}");
        let panicked = actor("panic").export([Sample::chat()]);
        assert_eq!(panicked.status, status::PANIC);
        assert!(panicked.message.starts_with("stage fright"), "{}", panicked.message);
        let busy = actor("wait").export([Sample::chat()]);
        assert_eq!((busy.status, busy.retry_after), (status::RETRY, Some(Duration::from_secs(2))));
        let lied = actor("lie").export([Sample::chat()]);
        assert_eq!(lied.faults.len(), 2, "{lied:?}");
        assert!(!lied.is_all_delivered());
    }

    #[test]
    fn bodies_are_seen_only_with_full_content() {
        let sample = Sample::stream();
        let seen = |plugin: &Plugin<Actor>| plugin.export([sample.clone()]).message;
        assert_eq!(seen(&actor("peek")), sample.metrics_json().len().to_string());
        let full = Plugin::create_seeing(Content::Full, r#"{"does":"peek"}"#).unwrap();
        let all = sample.metrics_json().len() + sample.request.len() + sample.response.len();
        assert_eq!(seen(&full), all.to_string());
    }

    #[test]
    fn every_function_of_the_life_cycle_answers() {
        let plugin = actor("well");
        assert_eq!(plugin.health(), Err(Failure { status: status::RETRY, message: "hoarse".to_owned() }));
        assert_eq!(plugin.scrape().unwrap_err().status, status::UNSUPPORTED);
        assert_eq!(plugin.scrape_openmetrics().unwrap_err().status, status::UNSUPPORTED);
        plugin.close().unwrap();
    }

    #[test]
    fn samples_are_records_that_read_back() {
        for (number, sample) in [Sample::chat(), Sample::stream(), Sample::failed(), Sample::disconnected()]
            .into_iter()
            .enumerate()
        {
            let sample = sample.number(u32::try_from(number).unwrap());
            let json = sample.metrics_json();
            let metrics: RequestMetrics<'_> = serde_json::from_slice(&json).unwrap();
            assert!(metrics.id.ends_with(&number.to_string()), "{}", metrics.id);
            for body in [&sample.request, &sample.response] {
                serde_json::from_slice::<serde_json::Value>(body).unwrap();
            }
        }
    }
}
