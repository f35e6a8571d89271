//! [`RequestMetrics`]: what the gateway knows about one finished request.
//!
//! A record travels as three byte strings: `metrics` (this struct without the bodies, one JSON object of about
//! 1 KB), `request` and `response` (the bodies as JSON, or empty). Field names here are the wire names. Every
//! duration is in milliseconds, as a number with a fraction. **Unknown is `null`**, never 0 and never a guess.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{cost::Usd, otel_log::OtelLog, wire_enum::wire_enum};

/// One request, finished: identity, route, timing, size, usage, cost and outcome, and the two bodies.
///
/// It borrows from the batch it was read from. Fields may be added in a minor release; none is ever removed or
/// changes its meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub struct RequestMetrics<'a> {
    /// UUID version 7 in its hyphenated form, made when the request started. Every backend uses it as its
    /// idempotency key: the same record delivered twice carries the same id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Start of the request, RFC 3339 in UTC with milliseconds, for instance `2025-03-05T16:03:20.123Z`.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// Conversation: header `x-thread-id`, else the body's `metadata.thread_id`, else the record's own id.
    #[serde(borrow)]
    pub thread_id: Cow<'a, str>,
    /// Organisation: header `x-organisation-id` or `x-organization-id`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub org_id: Option<Cow<'a, str>>,
    /// User: header `x-user-id`, else the body's `metadata.user_id` or `user`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub user_id: Option<Cow<'a, str>>,
    /// Project: header `x-project-id`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub project_id: Option<Cow<'a, str>>,
    /// Project's display name: header `x-project-name`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub project_name: Option<Cow<'a, str>>,
    /// Experiment: header `x-experiment-id`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub experiment_id: Option<Cow<'a, str>>,
    /// The caller's own id of the request: header `x-request-id`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub client_request_id: Option<Cow<'a, str>>,
    /// W3C trace id, 32 hexadecimal digits: the caller's, or one the gateway made.
    #[serde(borrow, default, deserialize_with = "text")]
    pub trace_id: Option<Cow<'a, str>>,
    /// W3C span id of the gateway's own span, 16 hexadecimal digits. The provider sees it as its parent.
    #[serde(borrow, default, deserialize_with = "text")]
    pub span_id: Option<Cow<'a, str>>,

    /// `telemetry.service_name` of the gateway.
    #[serde(borrow)]
    pub service_name: Cow<'a, str>,
    /// Version of the gateway that made the record.
    #[serde(borrow)]
    pub service_version: Cow<'a, str>,
    /// `telemetry.environment` of the gateway.
    #[serde(borrow)]
    pub environment: Cow<'a, str>,

    /// Provider's name in the gateway's configuration; `null` when the request named none that exists.
    #[serde(borrow, default, deserialize_with = "text")]
    pub provider: Option<Cow<'a, str>>,
    /// Model as the provider answered it; `null` when the answer names none.
    #[serde(borrow, default, deserialize_with = "text")]
    pub model: Option<Cow<'a, str>>,
    /// Model as the client asked for it.
    #[serde(borrow, default, deserialize_with = "text")]
    pub request_model: Option<Cow<'a, str>>,
    /// Path of the request, without the query.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// HTTP method of the request.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// Whether the answer was a stream of events.
    pub is_streaming: bool,

    /// From the request's first header to the answer's last byte, in milliseconds.
    pub total_latency: f64,
    /// From the request sent to the provider until its headers came, in milliseconds.
    pub provider_latency: Option<f64>,
    /// From the request's start to the first byte of the answer's body, in milliseconds.
    pub ttfb: Option<f64>,
    /// From the request's start to the first *content* token of a stream, in milliseconds.
    pub ttft: Option<f64>,
    /// Time to the provider's headers that the gateway spent itself (routing, connecting excluded), in milliseconds.
    pub gateway_overhead: Option<f64>,

    /// Bytes of the request's body as they passed on the wire.
    pub request_size: u64,
    /// Bytes of the answer's body as they passed on the wire to the client.
    pub response_size: u64,

    /// Tokens of the prompt, cached ones included.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, reasoning included.
    pub output_tokens: Option<u64>,
    /// Sum as the provider reports it.
    pub total_tokens: Option<u64>,
    /// Of the input: tokens read from the provider's prompt cache.
    pub cached_read_tokens: Option<u64>,
    /// Of the input: tokens written to the provider's prompt cache.
    pub cached_write_tokens: Option<u64>,
    /// Of the output: tokens the model spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Where the token counts come from.
    pub usage_source: UsageSource,

    /// Cost in US dollars, exact.
    pub cost: Option<Usd>,
    /// Where the cost comes from.
    pub cost_source: CostSource,
    /// Version of the price table, when the cost comes from one.
    #[serde(borrow, default, deserialize_with = "text")]
    pub price_version: Option<Cow<'a, str>>,

    /// Whether the client got a complete, successful answer.
    pub status: Status,
    /// HTTP status that the client was sent; `null` when the client left before one was.
    pub status_code: Option<u16>,
    /// HTTP status that the provider sent; `null` when it sent none.
    pub provider_status_code: Option<u16>,
    /// Number of errors in this request, of the gateway and of the provider.
    pub error_count: u32,
    /// The gateway's stable error code, or the provider's error type.
    #[serde(borrow, default, deserialize_with = "text")]
    pub error_type: Option<Cow<'a, str>>,
    /// Of the errors, those that the provider made.
    pub provider_error_count: u32,
    /// The provider's own name for its error.
    #[serde(borrow, default, deserialize_with = "text")]
    pub provider_error_type: Option<Cow<'a, str>>,
    /// How the request ended.
    pub end_reason: EndReason,
    /// The provider's id of the request, from its answer's headers.
    #[serde(borrow, default, deserialize_with = "text")]
    pub provider_request_id: Option<Cow<'a, str>>,

    /// What was left out of the bodies, most expendable first: `streamed_data`, `response`, `request`.
    #[serde(borrow, default)]
    pub truncated: Vec<Cow<'a, str>>,
    /// Description of a request body that is not JSON and is therefore not carried.
    #[serde(borrow, default)]
    pub request_body: Option<BodyDescription<'a>>,
    /// Description of a response body that is not JSON and is therefore not carried.
    #[serde(borrow, default)]
    pub response_body: Option<BodyDescription<'a>>,

    /// The JSON that the client sent. Not part of the `metrics` bytes.
    #[serde(skip)]
    pub request: Option<&'a RawValue>,
    /// The JSON that the provider sent; for a stream the folded answer, with every chunk in `streamed_data`.
    /// Not part of the `metrics` bytes.
    #[serde(skip)]
    pub response: Option<&'a RawValue>,
}

impl RequestMetrics<'_> {
    /// The record in its OpenTelemetry log form: a value to serialize, without a copy of the bodies.
    #[must_use]
    pub fn to_otel_log(&self) -> OtelLog<'_> {
        OtelLog::new(self, bytes(self.request), bytes(self.response))
    }
}

fn bytes(body: Option<&RawValue>) -> &[u8] {
    body.map_or(&[], |body| body.get().as_bytes())
}

/// What a body was, when it is not JSON and is therefore not carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub struct BodyDescription<'a> {
    /// Its `Content-Type`, as sent.
    #[serde(borrow, default, deserialize_with = "text")]
    pub content_type: Option<Cow<'a, str>>,
    /// Its size in bytes, as it passed on the wire.
    pub size: u64,
    /// SHA-256 of the bytes that passed, in hexadecimal; `null` when the body was not captured whole.
    #[serde(borrow, default, deserialize_with = "text")]
    pub sha256: Option<Cow<'a, str>>,
}

wire_enum! {
    /// Whether the client got a complete, successful answer.
    Status {
        /// The answer was complete and its status below 400.
        Success = "success",
        /// Anything else; `error_type` and `end_reason` say what.
        Error = "error",
    }
}

wire_enum! {
    /// Where the token counts come from.
    UsageSource {
        /// The provider reported them.
        Provider = "provider",
        /// The provider reported some, and the stream broke off before it reported all.
        Partial = "partial",
        /// Counted by the gateway. An estimate is never reported as a fact.
        Estimated = "estimated",
        /// Nobody reported any: the counts are `null`.
        None = "none",
    }
}

wire_enum! {
    /// Where the cost comes from.
    CostSource {
        /// Computed from the gateway's price table; `price_version` says which.
        Table = "table",
        /// Reported by the provider.
        Provider = "provider",
        /// Unknown: the cost is `null`.
        None = "none",
    }
}

wire_enum! {
    /// How a request ended.
    EndReason {
        /// The answer was passed on whole, whatever its status.
        Complete = "complete",
        /// The client went away first.
        ClientDisconnect = "client_disconnect",
        /// The provider broke off, could not be reached, sent an error inside a stream, or ended one before its answer was
        /// whole.
        ProviderError = "provider_error",
        /// A time limit of the gateway passed.
        Timeout = "timeout",
        /// The gateway answered itself, without asking a provider.
        GatewayError = "gateway_error",
    }
}

/// Reads an optional string without a copy where it has no escapes. (serde borrows a bare `Cow`, but not one inside
/// an `Option`.)
fn text<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(bound(deserialize = "'de: 'a"))]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}
