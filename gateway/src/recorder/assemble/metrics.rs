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
        let mut metrics = Vec::with_capacity(1280);
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
            trace_id: Some(hex(&exchange.trace.trace_id).into()),
            span_id: Some(hex(&exchange.trace.span_id).into()),
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

/// What a header says, else what the body says.
fn either<'a>(header: &'a Option<String>, body: &'a Option<String>) -> Option<Cow<'a, str>> {
    header.as_deref().or(body.as_deref()).map(Cow::Borrowed)
}

/// Milliseconds with microseconds as their fraction: more digits would be noise, and longer.
#[allow(clippy::cast_precision_loss, reason = "exact for durations below 285 years")]
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
