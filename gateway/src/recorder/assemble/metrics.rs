//! Last stage: everything that is known, as the three byte strings of a record.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use exporter_pipeline::Shed;
use plugin_api::{BodyDescription, RequestMetrics, UsageSource};
use tokio::time::Instant;

use super::{Answered, Draft, Settings, masked};
use crate::{
    hex::hex,
    recorder::{body::Body, exchange::Exchange, record::Record},
    settings::Secret,
};

impl Draft {
    /// Last stage: the three byte strings.
    pub(super) fn into_record(mut self, settings: &Settings) -> Record {
        let request = self.request.take_json();
        let response = self.response.take_json();
        let mut metrics = Vec::with_capacity(1792);
        // Strings, numbers and lists of them always serialize, and memory can always be written to.
        let _ = serde_json::to_writer(&mut metrics, &self.metrics(settings));
        let Exchange { id, started, credential, .. } = self.exchange;
        let before_streamed_data = self.before_streamed_data;
        let (finished, metrics) = (Instant::now(), metrics.into());
        let mut record = Record { id, started, finished, metrics, request, response, before_streamed_data };
        masked::mask(&mut record, &settings.mask, credential.as_ref().map(Secret::expose));
        record
    }

    fn metrics<'a>(&'a self, settings: &'a Settings) -> RequestMetrics<'a> {
        let exchange = &self.exchange;
        let timestamp = humantime::format_rfc3339_millis(exchange.started).to_string();
        let mut metrics = RequestMetrics::new(exchange.id.hyphenated().to_string(), timestamp);
        metrics.service_name = settings.service_name.as_str().into();
        metrics.service_version = env!("CARGO_PKG_VERSION").into();
        metrics.environment = settings.environment.as_str().into();
        self.write_identity(&mut metrics);
        self.write_route(&mut metrics);
        self.write_timing_and_sizes(&mut metrics);
        self.write_usage(&mut metrics);
        self.write_outcome(&mut metrics);
        metrics.truncated = self.truncated();
        metrics.request_body = self.request.description();
        metrics.response_body = self.response.description();
        metrics
    }

    fn write_identity<'a>(&'a self, metrics: &mut RequestMetrics<'a>) {
        let Self { exchange: Exchange { identity, trace, .. }, asked, .. } = self;
        if let Some(thread_id) = either(&identity.thread_id, &asked.thread_id) {
            metrics.thread_id = thread_id;
        }
        metrics.org_id = either(&identity.org_id, &asked.org_id);
        metrics.user_id = either(&identity.user_id, &asked.user_id);
        metrics.project_id = either(&identity.project_id, &asked.project_id);
        metrics.project_name = either(&identity.project_name, &asked.project_name);
        metrics.experiment_id = either(&identity.experiment_id, &asked.experiment_id);
        metrics.client_request_id = known(&identity.client_request_id);
        metrics.trace_id = Some(hex(&trace.trace_id).into());
        metrics.span_id = Some(hex(&trace.span_id).into());
        metrics.parent_span_id = trace.parent_span_id.map(|parent| hex(&parent).into());
        metrics.trace_flags = Some(trace.flags);
    }

    fn write_route<'a>(&'a self, metrics: &mut RequestMetrics<'a>) {
        let Self { exchange, asked, answered, .. } = self;
        metrics.provider = exchange.provider.as_deref().map(Cow::Borrowed);
        metrics.model = known(&answered.model);
        metrics.request_model = known(&asked.model);
        metrics.path = exchange.path.as_str().into();
        metrics.method = exchange.method.as_str().into();
        metrics.is_streaming = answered.is_streaming;
    }

    fn write_timing_and_sizes(&self, metrics: &mut RequestMetrics<'_>) {
        let Self { exchange, answered, .. } = self;
        metrics.total_latency = milliseconds(exchange.times.total);
        metrics.provider_latency = self.provider_latency().map(milliseconds);
        metrics.ttfb = exchange.response.first_byte.map(milliseconds);
        metrics.ttft = answered.first_content.map(milliseconds);
        metrics.gateway_overhead = exchange.times.sent.map(milliseconds);
        metrics.request_size = exchange.request.size;
        metrics.response_size = exchange.response.size;
    }

    fn write_usage<'a>(&'a self, metrics: &mut RequestMetrics<'a>) {
        let Self { answered, cost, .. } = self;
        let usage = answered.usage.unwrap_or_default();
        metrics.input_tokens = usage.input;
        metrics.output_tokens = usage.output;
        metrics.total_tokens = usage.total;
        metrics.cached_read_tokens = usage.cached_read;
        metrics.cached_write_tokens = usage.cached_write;
        metrics.reasoning_tokens = usage.reasoning;
        metrics.usage_source = self.usage_source();
        metrics.cost = cost.amount;
        metrics.cost_source = cost.source.clone();
        metrics.price_version = known(&cost.price_version);
    }

    fn write_outcome<'a>(&'a self, metrics: &mut RequestMetrics<'a>) {
        let Self { exchange, answered, outcome, .. } = self;
        metrics.status = outcome.status.clone();
        metrics.status_code = exchange.status_code;
        metrics.provider_status_code = exchange.provider_status_code;
        metrics.error_count = outcome.errors;
        metrics.error_type = known(&outcome.error_type);
        metrics.provider_error_count = outcome.provider_errors;
        metrics.provider_error_type = answered.error.as_ref().and_then(|error| known(&error.kind));
        metrics.end_reason = outcome.end_reason.clone();
        metrics.provider_request_id = either(&exchange.provider_request_id, &answered.request_id);
    }

    /// Where the token counts come from.
    fn usage_source(&self) -> UsageSource {
        match self.answered {
            Answered { usage: None, .. } => UsageSource::None,
            Answered { usage_is_final: true, .. } => UsageSource::Provider,
            Answered { usage_is_final: false, .. } => UsageSource::Partial,
        }
    }

    fn provider_latency(&self) -> Option<Duration> {
        let times = &self.exchange.times;
        Some(times.provider_headers?.saturating_sub(times.sent?))
    }

    fn truncated(&self) -> Vec<Cow<'static, str>> {
        let is_gone = |level: &Shed| match level {
            Shed::StreamedData => self.chunks_lost,
            Shed::Response => self.response.is_shed(),
            Shed::Request => self.request.is_shed(),
        };
        Shed::ORDER.into_iter().filter(is_gone).map(|level| level.name().into()).collect()
    }
}

impl Body {
    fn take_json(&mut self) -> Bytes {
        match self {
            Self::Json(json) => std::mem::take(json),
            Self::Nothing | Self::Described(_) | Self::Inflated(_) | Self::Shed => Bytes::new(),
        }
    }

    fn description(&self) -> Option<BodyDescription<'static>> {
        match self {
            Self::Described(description) | Self::Inflated(description) => Some(description.clone()),
            Self::Nothing | Self::Json(_) | Self::Shed => None,
        }
    }
}

fn known(text: &Option<String>) -> Option<Cow<'_, str>> {
    text.as_deref().map(Cow::Borrowed)
}

/// What a header says, else what the body says.
fn either<'a>(header: &'a Option<String>, body: &'a Option<String>) -> Option<Cow<'a, str>> {
    known(header).or_else(|| known(body))
}

/// Milliseconds with microseconds as their fraction: more digits would be noise, and longer.
#[allow(clippy::cast_precision_loss, reason = "exact for durations below 285 years")]
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
