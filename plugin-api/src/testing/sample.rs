//! Records to feed a plugin.

use std::{borrow::Cow, sync::Arc};

use crate::metrics::{CostSource, EndReason, RequestMetrics, Status as RequestStatus, UsageSource};

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

    /// What the gateway makes of a record that is too large; `None` when there is nothing to take off.
    pub(super) fn without_bodies(&self) -> Option<Self> {
        let bodies = [("response", &self.response), ("request", &self.request)];
        let gone: Vec<_> =
            bodies.iter().filter(|(_, body)| !body.is_empty()).map(|(name, _)| *name).collect();
        let shed = self.clone().request("").response("");
        (!gone.is_empty())
            .then(|| shed.with(|metrics| metrics.truncated.extend(gone.into_iter().map(Cow::Borrowed))))
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
