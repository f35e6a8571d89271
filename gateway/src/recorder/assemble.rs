//! From an exchange to a record: the stages one after the other, and the three byte strings at their end.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use exporter_pipeline::Shed;
use plugin_api::{BodyDescription, EndReason, RequestMetrics};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    body::{self, Body, DECODED_FACTOR},
    draft::Draft,
    exchange::Exchange,
};

/// Makes the record of a finished request.
#[must_use]
pub fn assemble(exchange: Exchange, settings: &Settings) -> Record {
    let mut draft = Draft::new(exchange);
    draft.read_request(settings);
    draft.read_response(settings);
    draft.judge();
    draft.into_record(settings)
}

/// What the recorder is told once, at start-up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `telemetry.service_name`
    pub service_name: String,
    /// `telemetry.environment`
    pub environment: String,
    /// `telemetry.capture.request`: whether the record carries the request's body.
    pub capture_request: bool,
    /// `telemetry.capture.response`: whether the record carries the answer's body.
    pub capture_response: bool,
    /// `telemetry.capture.streamed_data`: whether a stream's answer carries the chunks too.
    pub capture_streamed_data: bool,
    /// `telemetry.capture.max_body_bytes`: what the proxy keeps of a body as it passed. Bounds decoded bodies as well,
    /// at eight times this.
    pub max_body_bytes: usize,
}

impl Settings {
    pub(crate) fn decoded_limit(&self) -> usize {
        self.max_body_bytes.saturating_mul(DECODED_FACTOR)
    }
}

/// The record of one request, serialized once. Cloning it copies no body.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: Uuid,
    /// When the request started.
    pub started: SystemTime,
    /// When the record was made, which is when the request was over.
    pub finished: Instant,
    /// Everything but the bodies: one JSON object on one line.
    pub metrics: Bytes,
    /// The request's body: JSON on one line, or empty.
    pub request: Bytes,
    /// The answer's body: JSON on one line, or empty.
    pub response: Bytes,
    /// The facts that the gateway's own metrics need.
    pub summary: Summary,
    /// Length of `response` before `streamed_data`, when it has that.
    pub(crate) before_streamed_data: Option<usize>,
}

/// The facts of one request that the gateway counts and measures itself.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Provider's name in the configuration.
    pub provider: Option<Arc<str>>,
    /// How it ended.
    pub end_reason: EndReason,
    /// Status sent to the client.
    pub status_code: Option<u16>,
    /// Until the last byte.
    pub total: Duration,
    /// Until the request was handed to the provider's connection.
    pub gateway_overhead: Option<Duration>,
}

impl Summary {
    /// What the proxy saw, without a look into the bodies.
    #[must_use]
    pub fn of(exchange: &Exchange) -> Self {
        Self {
            provider: exchange.provider.clone(),
            end_reason: exchange.end.clone(),
            status_code: exchange.status_code,
            total: exchange.times.total,
            gateway_overhead: exchange.times.sent,
        }
    }
}

impl Record {
    /// A record of parts that are ready, for measurements and tests of what comes after the recorder.
    pub(crate) fn of_parts(metrics: Bytes, request: Bytes, response: Bytes) -> Self {
        let summary = Summary {
            provider: None,
            end_reason: EndReason::Complete,
            status_code: None,
            total: Duration::ZERO,
            gateway_overhead: None,
        };
        let (started, finished) = (SystemTime::now(), Instant::now());
        let id = Uuid::now_v7();
        Self { id, started, finished, metrics, request, response, summary, before_streamed_data: None }
    }

    /// Bytes of its three parts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.metrics.len() + self.request.len() + self.response.len()
    }

    /// The record without what `level` lets go, which `truncated` then names; `None` when there is nothing of that.
    /// No body is read for it.
    #[must_use]
    pub fn shed(&self, level: Shed) -> Option<Self> {
        let mut record = self.clone();
        let mut gone = Vec::new();
        if let Some(folded) =
            record.before_streamed_data.take().and_then(|length| self.response.get(..length))
        {
            record.response = [folded, b"}"].concat().into();
            gone.push(Shed::StreamedData);
        }
        if level >= Shed::Response && !record.response.is_empty() {
            record.response = Bytes::new();
            gone.push(Shed::Response);
        }
        if level >= Shed::Request && !record.request.is_empty() {
            record.request = Bytes::new();
            gone.push(Shed::Request);
        }
        if gone.is_empty() {
            return None;
        }
        record.metrics = name_truncated(&self.metrics, &gone);
        Some(record)
    }
}

/// The metrics with more names in their `truncated`. Unescaped, that key stands nowhere but where it is a key.
fn name_truncated(metrics: &[u8], gone: &[Shed]) -> Bytes {
    const KEY: &[u8] = b"\"truncated\":[";
    let Some(key) = memchr::memmem::find(metrics, KEY) else { return Bytes::copy_from_slice(metrics) };
    let (before, list) = metrics.split_at(key + KEY.len());
    let (list, after) = list.split_at(memchr::memchr(b']', list).unwrap_or(list.len()));
    let is_named = |level: &Shed| {
        gone.contains(level)
            || memchr::memmem::find(list, format!("\"{}\"", level.name()).as_bytes()).is_some()
    };
    let names: Vec<String> = Shed::ORDER
        .iter()
        .filter(|level| is_named(level))
        .map(|level| format!("\"{}\"", level.name()))
        .collect();
    [before, names.join(",").as_bytes(), after].concat().into()
}

impl Draft {
    /// Last stage: the three byte strings.
    fn into_record(mut self, settings: &Settings) -> Record {
        let request = self.request.take_json();
        let response = self.response.take_json();
        let mut metrics = Vec::with_capacity(1280);
        // Strings, numbers and lists of them always serialize, and memory can always be written to.
        let _ = serde_json::to_writer(&mut metrics, &self.metrics(settings));
        let summary = self.summary();
        let Exchange { id, started, .. } = self.exchange;
        let before_streamed_data = self.before_streamed_data;
        let finished = Instant::now();
        Record {
            id,
            started,
            finished,
            metrics: metrics.into(),
            request,
            response,
            summary,
            before_streamed_data,
        }
    }

    fn metrics<'a>(&'a self, settings: &'a Settings) -> RequestMetrics<'a> {
        let Self { exchange, asked, answered, outcome, cost, .. } = self;
        let identity = &exchange.identity;
        let id = exchange.id.hyphenated().to_string();
        let thread_id = either(&identity.thread_id, &asked.thread_id).unwrap_or_else(|| id.clone().into());
        let usage = answered.usage.unwrap_or_default();
        RequestMetrics {
            id: id.into(),
            timestamp: humantime::format_rfc3339_millis(exchange.started).to_string().into(),
            thread_id,
            org_id: either(&identity.org_id, &asked.org_id),
            user_id: either(&identity.user_id, &asked.user_id),
            project_id: either(&identity.project_id, &asked.project_id),
            project_name: either(&identity.project_name, &asked.project_name),
            experiment_id: either(&identity.experiment_id, &asked.experiment_id),
            client_request_id: identity.client_request_id.as_deref().map(Cow::Borrowed),
            trace_id: Some(body::hex(&exchange.trace.trace_id).into()),
            span_id: Some(body::hex(&exchange.trace.span_id).into()),
            service_name: settings.service_name.as_str().into(),
            service_version: env!("CARGO_PKG_VERSION").into(),
            environment: settings.environment.as_str().into(),
            provider: exchange.provider.as_deref().map(Cow::Borrowed),
            model: answered.model.as_deref().map(Cow::Borrowed),
            request_model: asked.model.as_deref().map(Cow::Borrowed),
            path: exchange.path.as_str().into(),
            method: exchange.method.as_str().into(),
            is_streaming: answered.is_streaming,
            total_latency: milliseconds(exchange.times.total),
            provider_latency: self.provider_latency().map(milliseconds),
            ttfb: exchange.response.first_byte.map(milliseconds),
            ttft: answered.first_content.map(milliseconds),
            gateway_overhead: exchange.times.sent.map(milliseconds),
            request_size: exchange.request.size,
            response_size: exchange.response.size,
            input_tokens: usage.input,
            output_tokens: usage.output,
            total_tokens: usage.total,
            cached_read_tokens: usage.cached_read,
            cached_write_tokens: usage.cached_write,
            reasoning_tokens: usage.reasoning,
            usage_source: self.usage_source(),
            cost: cost.amount,
            cost_source: cost.source.clone(),
            price_version: cost.price_version.as_deref().map(Cow::Borrowed),
            status: outcome.status.clone(),
            status_code: exchange.status_code,
            provider_status_code: exchange.provider_status_code,
            error_count: outcome.errors,
            error_type: outcome.error_type.as_deref().map(Cow::Borrowed),
            provider_error_count: outcome.provider_errors,
            provider_error_type: answered
                .error
                .as_ref()
                .and_then(|error| error.kind.as_deref().map(Cow::Borrowed)),
            end_reason: outcome.end_reason.clone(),
            provider_request_id: either(&exchange.provider_request_id, &answered.request_id),
            truncated: self.truncated(),
            request_body: self.request.description(),
            response_body: self.response.description(),
            request: None,
            response: None,
        }
    }

    fn provider_latency(&self) -> Option<Duration> {
        let times = &self.exchange.times;
        Some(times.provider_headers?.saturating_sub(times.sent?))
    }

    fn truncated(&self) -> Vec<Cow<'static, str>> {
        let is_gone = |level: &Shed| match level {
            Shed::StreamedData => self.chunks_lost,
            Shed::Response => self.response == Body::Shed,
            Shed::Request => self.request == Body::Shed,
        };
        Shed::ORDER.into_iter().filter(is_gone).map(|level| level.name().into()).collect()
    }

    fn summary(&self) -> Summary {
        Summary { end_reason: self.outcome.end_reason.clone(), ..Summary::of(&self.exchange) }
    }
}

impl Body {
    fn take_json(&mut self) -> Bytes {
        match self {
            Self::Json(json) => std::mem::take(json),
            Self::Nothing | Self::Described(_) | Self::Shed => Bytes::new(),
        }
    }

    fn description(&self) -> Option<BodyDescription<'static>> {
        match self {
            Self::Described(description) => Some(description.clone()),
            Self::Nothing | Self::Json(_) | Self::Shed => None,
        }
    }
}

/// What a header says, else what the body says.
fn either<'a>(header: &'a Option<String>, body: &'a Option<String>) -> Option<Cow<'a, str>> {
    header.as_deref().or(body.as_deref()).map(Cow::Borrowed)
}

/// Milliseconds with microseconds as their fraction: more digits would be noise, and longer.
#[allow(clippy::cast_precision_loss, reason = "exact for durations below 285 years")]
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
