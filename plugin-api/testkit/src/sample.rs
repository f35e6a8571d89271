//! Records to feed a plugin.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use exporter_pipeline::Shed;
use plugin_api::{Content, CostSource, EndReason, RequestMetrics, Status as RequestStatus, UsageSource};
use serde_json::value::RawValue;

/// A record to test with: complete and plausible, to be changed where a test cares.
///
/// ```
/// use exporter_testkit::Sample;
///
/// let sample = Sample::chat()
///     .number(7)
///     .with(|metrics| metrics.model = None)
///     .request(r#"{"model":"gpt-4o-mini","messages":[]}"#);
/// ```
#[derive(Debug, Clone)]
pub struct Sample {
    metrics: RequestMetrics<'static>,
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
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
        let response = r#"{"id":"chatcmpl-1","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello!"}}],"streamed_data":[{"choices":[{"index":0,"delta":{"content":"Hello!"}}]}],"streamed_data_ms":[412.5]}"#;
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
        let response =
            r#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
        let failed = Self::chat().with(|metrics| {
            metrics.model = None;
            metrics.status = RequestStatus::Error;
            metrics.status_code = Some(429);
            metrics.provider_status_code = Some(429);
            metrics.error_count = 1;
            metrics.error_type = Some(Cow::Borrowed("rate_limit_exceeded"));
            metrics.provider_error_count = 1;
            metrics.provider_error_type = Some(Cow::Borrowed("requests"));
            metrics.provider_error_code = Some(Cow::Borrowed("rate_limit_exceeded"));
            metrics.response_id = None;
            metrics.finish_reasons = None;
            metrics.service_tier = None;
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
            metrics.finish_reasons = None;
        });
        disconnected.without_usage()
    }

    /// A chat completion of ten seconds ago with an id of its own, for a backend that refuses what is old.
    #[must_use]
    pub fn fresh(number: u32) -> Self {
        Self::chat().number(number).started_ago(Duration::from_secs(10))
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

    /// Sets when the request started.
    #[must_use]
    pub fn started(self, time: SystemTime) -> Self {
        let time = humantime::format_rfc3339_millis(time).to_string();
        self.with(|metrics| metrics.timestamp = Cow::Owned(time))
    }

    /// Sets how long ago the request started.
    #[must_use]
    pub fn started_ago(self, age: Duration) -> Self {
        self.started(SystemTime::now() - age)
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

    /// The record's id, as it stands in its `metrics`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.metrics.id
    }

    /// The `metrics` part as the gateway would send it.
    #[must_use]
    pub fn metrics_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.metrics).unwrap_or_default()
    }

    /// Bytes of its three parts.
    pub(super) fn size(&self) -> u64 {
        (self.metrics_json().len() + self.request.len() + self.response.len()) as u64
    }

    /// As an exporter of this content sees it.
    pub(super) fn visible(self, content: Content) -> Self {
        if content == Content::Full { self } else { self.request("").response("") }
    }

    /// Without what `level` lets go, which `truncated` then names; `None` when there is nothing of that.
    pub(super) fn shed(&self, level: Shed) -> Option<Self> {
        let mut shed = self.clone();
        let mut gone = Vec::new();
        if let Some(folded) = without_chunks(&self.response) {
            shed.response = folded;
            gone.push(Shed::StreamedData);
        }
        if level >= Shed::Response && !shed.response.is_empty() {
            shed.response.clear();
            gone.push(Shed::Response);
        }
        if level >= Shed::Request && !shed.request.is_empty() {
            shed.request.clear();
            gone.push(Shed::Request);
        }
        let names = gone.iter().map(|level| Cow::Borrowed(level.name()));
        (!gone.is_empty()).then(|| shed.with(|metrics| metrics.truncated.extend(names)))
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

/// An answer without the chunks that it was folded from, if it has any.
fn without_chunks(response: &[u8]) -> Option<Vec<u8>> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(response).ok()?;
    members.remove(Shed::StreamedData.name())?;
    members.remove("streamed_data_ms");
    serde_json::to_vec(&members).ok()
}

/// The `metrics` part of [`Sample::chat`]. A field that it lacks is one that may be absent.
const CHAT: &str = include_str!("../../tests/golden/record-chat.json");

/// Samples, serialized once: for a test or a measurement that sends the same batch again and again.
#[derive(Debug, Clone)]
pub struct Records(pub(super) Arc<[Parts]>);

#[derive(Debug)]
pub(super) struct Parts {
    pub metrics: Vec<u8>,
    pub request: Vec<u8>,
    pub response: Vec<u8>,
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

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
