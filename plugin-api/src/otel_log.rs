//! The OpenTelemetry log form of a record: the shape that log backends receive.

use std::{borrow::Cow, io};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    cost::Usd,
    metrics::{BodyDescription, CostSource, EndReason, RequestMetrics, Status, UsageSource},
};

/// `name` of every log.
pub const LOG_NAME: &str = "ai_gateway_request_log";

/// A record in its OpenTelemetry log form.
///
/// ```json
/// { "timestamp": "…", "resource": { "service.name": "…", … }, "name": "ai_gateway_request_log",
///   "attributes": { "id": "msg_…", …, "request": {…}, "response": {…}, "metadata": {…} },
///   "trace_id": "…", "span_id": "…" }
/// ```
///
/// [`OtelLog::write_to`] splices the bodies in as the bytes they are: nothing in them is parsed or copied. The value
/// also serializes with `serde_json` (that way checks the bodies once more, and is slower).
#[derive(Debug, Clone, Copy)]
pub struct OtelLog<'a> {
    metrics: &'a RequestMetrics<'a>,
    request: &'a [u8],
    response: &'a [u8],
}

impl<'a> OtelLog<'a> {
    /// The bodies are JSON, or empty.
    pub(crate) const fn new(metrics: &'a RequestMetrics<'a>, request: &'a [u8], response: &'a [u8]) -> Self {
        Self { metrics, request, response }
    }

    /// `attributes.id`: `msg_` and the record's UUID without hyphens. It is the same for every exporter and every
    /// attempt.
    #[must_use]
    pub fn log_id(&self) -> String {
        let mut id = String::with_capacity(36);
        id.push_str("msg_");
        id.extend(self.metrics.id.chars().filter(|c| *c != '-'));
        id
    }

    /// Writes the log as one line of compact JSON, without a newline at its end.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        let metrics = self.metrics;
        let mut head = Vec::with_capacity(512);
        open_object(&mut head, &Head::of(metrics))?;
        head.extend_from_slice(b",\"attributes\":");
        open_object(&mut head, &Attributes::of(metrics, &self.log_id()))?;
        head.extend_from_slice(b",\"request\":");
        out.write_all(&head)?;
        out.write_all(or_null(self.request))?;
        out.write_all(b",\"response\":")?;
        out.write_all(or_null(self.response))?;
        let mut tail = head;
        tail.clear();
        tail.extend_from_slice(b",\"metadata\":");
        serde_json::to_writer(&mut tail, &Metadata::of(metrics))?;
        tail.extend_from_slice(b"},\"trace_id\":");
        serde_json::to_writer(&mut tail, &metrics.trace_id)?;
        tail.extend_from_slice(b",\"span_id\":");
        serde_json::to_writer(&mut tail, &metrics.span_id)?;
        tail.push(b'}');
        out.write_all(&tail)
    }
}

impl Serialize for OtelLog<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = Vec::with_capacity(1536 + self.request.len() + self.response.len());
        self.write_to(&mut json).map_err(serde::ser::Error::custom)?;
        serde_json::from_slice::<&RawValue>(&json).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Writes an object without its closing brace, so that more members can follow.
fn open_object(out: &mut Vec<u8>, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, object)?;
    out.pop();
    Ok(())
}

const fn or_null(json: &[u8]) -> &[u8] {
    if json.is_empty() { b"null" } else { json }
}

#[derive(Serialize)]
struct Head<'a> {
    timestamp: &'a str,
    resource: Resource<'a>,
    name: &'a str,
}

#[derive(Serialize)]
struct Resource<'a> {
    #[serde(rename = "service.name")]
    name: &'a str,
    #[serde(rename = "service.version")]
    version: &'a str,
    #[serde(rename = "deployment.environment")]
    environment: &'a str,
}

impl<'a> Head<'a> {
    fn of(metrics: &'a RequestMetrics<'a>) -> Self {
        let resource = Resource {
            name: &metrics.service_name,
            version: &metrics.service_version,
            environment: &metrics.environment,
        };
        Self { timestamp: &metrics.timestamp, resource, name: LOG_NAME }
    }
}

#[derive(Serialize)]
struct Attributes<'a> {
    id: &'a str,
    thread_id: &'a str,
    org_id: Option<&'a str>,
    user_id: Option<&'a str>,
    project_id: Option<&'a str>,
    provider: Option<&'a str>,
    model: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    fn of(metrics: &'a RequestMetrics<'a>, id: &'a str) -> Self {
        Self {
            id,
            thread_id: &metrics.thread_id,
            org_id: metrics.org_id.as_deref(),
            user_id: metrics.user_id.as_deref(),
            project_id: metrics.project_id.as_deref(),
            provider: metrics.provider.as_deref(),
            model: metrics.model.as_deref().or(metrics.request_model.as_deref()),
        }
    }
}

/// The guide's keys first, in its order; then what this format adds.
#[derive(Serialize)]
struct Metadata<'a> {
    project_id: Option<&'a str>,
    project_name: Option<&'a str>,
    latency: u64,
    tokens: Tokens,
    cost: Option<Usd>,
    status: &'a Status,
    path: &'a str,
    method: &'a str,
    request_size: u64,
    response_size: u64,
    provider_latency: Option<u64>,
    status_code: Option<u16>,
    provider_status_code: Option<u16>,
    error_count: u32,
    error_type: Option<&'a str>,
    provider_error_count: u32,
    provider_error_type: Option<&'a str>,
    provider_request_id: Option<&'a str>,

    experiment_id: Option<&'a str>,
    client_request_id: Option<&'a str>,
    request_model: Option<&'a str>,
    is_streaming: bool,
    end_reason: &'a EndReason,
    ttfb: Option<f64>,
    ttft: Option<f64>,
    gateway_overhead: Option<f64>,
    usage_source: &'a UsageSource,
    cached_read_tokens: Option<u64>,
    cached_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    cost_source: &'a CostSource,
    price_version: Option<&'a str>,
    truncated: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<&'a BodyDescription<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<&'a BodyDescription<'a>>,
}

#[derive(Serialize)]
struct Tokens {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
}

impl<'a> Metadata<'a> {
    fn of(metrics: &'a RequestMetrics<'a>) -> Self {
        Self {
            project_id: metrics.project_id.as_deref(),
            project_name: metrics.project_name.as_deref(),
            latency: whole_milliseconds(metrics.total_latency),
            tokens: Tokens {
                input: metrics.input_tokens,
                output: metrics.output_tokens,
                total: metrics.total_tokens,
            },
            cost: metrics.cost,
            status: &metrics.status,
            path: &metrics.path,
            method: &metrics.method,
            request_size: metrics.request_size,
            response_size: metrics.response_size,
            provider_latency: metrics.provider_latency.map(whole_milliseconds),
            status_code: metrics.status_code,
            provider_status_code: metrics.provider_status_code,
            error_count: metrics.error_count,
            error_type: metrics.error_type.as_deref(),
            provider_error_count: metrics.provider_error_count,
            provider_error_type: metrics.provider_error_type.as_deref(),
            provider_request_id: metrics.provider_request_id.as_deref(),
            experiment_id: metrics.experiment_id.as_deref(),
            client_request_id: metrics.client_request_id.as_deref(),
            request_model: metrics.request_model.as_deref(),
            is_streaming: metrics.is_streaming,
            end_reason: &metrics.end_reason,
            ttfb: metrics.ttfb,
            ttft: metrics.ttft,
            gateway_overhead: metrics.gateway_overhead,
            usage_source: &metrics.usage_source,
            cached_read_tokens: metrics.cached_read_tokens,
            cached_write_tokens: metrics.cached_write_tokens,
            reasoning_tokens: metrics.reasoning_tokens,
            cost_source: &metrics.cost_source,
            price_version: metrics.price_version.as_deref(),
            truncated: &metrics.truncated,
            request_body: metrics.request_body.as_ref(),
            response_body: metrics.response_body.as_ref(),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "latencies are small and not negative"
)]
fn whole_milliseconds(milliseconds: f64) -> u64 {
    milliseconds.round() as u64
}
