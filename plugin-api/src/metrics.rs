//! [`RequestMetrics`]: what the gateway knows about one finished request.
//!
//! A record travels as three byte strings: `metrics` (this struct without the bodies, one JSON object of about
//! 1.5 KB), `request` and `response` (the bodies as JSON, or empty). Field names here are the wire names. Every
//! duration is in milliseconds, as a number with a fraction. **Unknown is `null`**, never 0 and never a guess.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{cost::Usd, otel_log::OtelLog, wire_enum::wire_enum};

/// One request, finished: identity, route, timing, size, usage, cost and outcome, and the two bodies.
///
/// It borrows from the batch it was read from. Fields may be added in a minor release; none is ever removed or
/// changes its meaning. A test takes one from `exporter-testkit`'s `Sample`, or makes one:
///
/// ```
/// use plugin_api::{RequestMetrics, Status};
///
/// let mut metrics = RequestMetrics::new("01956f3c-8d2b-7e11-9c7a-000000000001", "2025-03-05T16:03:20.123Z");
/// metrics.provider = Some("openai".into());
/// metrics.input_tokens = Some(48);
/// metrics.status = Status::Success;
/// assert_eq!((&metrics.thread_id, metrics.output_tokens), (&metrics.id, None));
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[non_exhaustive]
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
    /// W3C span id of the caller's span, 16 hexadecimal digits: header `traceparent`. The gateway's span is its child;
    /// `null` when the trace begins with the gateway's.
    #[serde(borrow, default, deserialize_with = "text")]
    pub parent_span_id: Option<Cow<'a, str>>,
    /// W3C trace flags, as they went on to the provider: the caller's, or 1 (sampled) when the trace begins with the
    /// gateway's span.
    #[serde(default)]
    pub trace_flags: Option<u8>,

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
    /// The provider's id of what it made: the answer's `id`, by which `previous_response_id` of a later request names it.
    #[serde(borrow, default, deserialize_with = "text")]
    pub response_id: Option<Cow<'a, str>>,
    /// The answer that the request goes on from: its `previous_response_id`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub previous_response_id: Option<Cow<'a, str>>,
    /// Why the model stopped, in the provider's words, one for each choice that says it, in the order of the choices.
    /// Of the responses API: `incomplete_details.reason`, else `status`.
    #[serde(borrow, default, deserialize_with = "texts")]
    pub finish_reasons: Option<Vec<Cow<'a, str>>>,
    /// Service tier that the provider answered with: the answer's `service_tier`. It decides the price.
    #[serde(borrow, default, deserialize_with = "text")]
    pub service_tier: Option<Cow<'a, str>>,
    /// Service tier that the client asked for: the request's `service_tier`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub request_service_tier: Option<Cow<'a, str>>,

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
    /// Of `cached_write_tokens`: those that are to be kept for an hour, which have a price of their own.
    pub cached_write_1h_tokens: Option<u64>,
    /// Of the output: tokens the model spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Of the input: tokens of audio.
    pub audio_input_tokens: Option<u64>,
    /// Of the output: tokens of audio.
    pub audio_output_tokens: Option<u64>,
    /// Of the input: tokens of images.
    pub image_input_tokens: Option<u64>,
    /// Of the output: tokens of images.
    pub image_output_tokens: Option<u64>,
    /// Length of the audio that was read, in seconds, where the provider counts these and not tokens.
    pub audio_seconds: Option<f64>,
    /// Searches of the web or of files that the provider made for the answer.
    pub search_queries: Option<u64>,
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
    /// The gateway's stable error code, else the provider's code for its error, else the provider's type.
    #[serde(borrow, default, deserialize_with = "text")]
    pub error_type: Option<Cow<'a, str>>,
    /// Of the errors, those that the provider made.
    pub provider_error_count: u32,
    /// The provider's type of its error, such as `invalid_request_error`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub provider_error_type: Option<Cow<'a, str>>,
    /// The provider's code for its error, such as `context_length_exceeded`; a number as text.
    #[serde(borrow, default, deserialize_with = "text")]
    pub provider_error_code: Option<Cow<'a, str>>,
    /// How the request ended.
    pub end_reason: EndReason,
    /// The provider's id of the request, from its answer's headers.
    #[serde(borrow, default, deserialize_with = "text")]
    pub provider_request_id: Option<Cow<'a, str>>,

    /// What was left out of the bodies, most expendable first: `streamed_data`, `response`, `request`.
    #[serde(borrow, default)]
    pub truncated: Vec<Cow<'a, str>>,
    /// Description of a request body that is not JSON and is therefore not carried, or of a form.
    #[serde(borrow, default)]
    pub request_body: Option<BodyDescription<'a>>,
    /// Description of a response body that is not JSON and is therefore not carried.
    #[serde(borrow, default)]
    pub response_body: Option<BodyDescription<'a>>,

    /// The JSON that the client sent; of a form (`multipart/form-data`) its fields, with a description of each file. Not
    /// part of the `metrics` bytes.
    #[serde(skip)]
    pub request: Option<&'a RawValue>,
    /// The JSON that the provider sent; for a stream the folded answer, with every chunk in `streamed_data`, and in
    /// `streamed_data_ms` when each of these came: a list of numbers, in milliseconds from the request's start. Not part
    /// of the `metrics` bytes.
    #[serde(skip)]
    pub response: Option<&'a RawValue>,
}

impl<'a> RequestMetrics<'a> {
    /// A record of which nothing else is known: texts are empty, numbers `null` or 0, and it ended with an error of the
    /// gateway's until its fields say otherwise. Its conversation is itself.
    #[must_use]
    pub fn new(id: impl Into<Cow<'a, str>>, timestamp: impl Into<Cow<'a, str>>) -> Self {
        let id = id.into();
        Self { thread_id: id.clone(), id, timestamp: timestamp.into(), ..Self::default() }
    }
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
#[non_exhaustive]
pub struct BodyDescription<'a> {
    /// Its `Content-Type`, as sent.
    #[serde(borrow, default, deserialize_with = "text")]
    pub content_type: Option<Cow<'a, str>>,
    /// Its size in bytes, as it passed on the wire.
    pub size: u64,
    /// SHA-256 of the bytes that passed, in hexadecimal; `null` when the body was not captured whole, and of a form, whose
    /// files have hashes of their own.
    #[serde(borrow, default, deserialize_with = "text")]
    pub sha256: Option<Cow<'a, str>>,
}

impl<'a> BodyDescription<'a> {
    /// A body of this many bytes, of which nothing else is known.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { content_type: None, size, sha256: None }
    }

    /// Sets the `Content-Type`.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<Cow<'a, str>>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets the SHA-256.
    #[must_use]
    pub fn sha256(mut self, hex: impl Into<Cow<'a, str>>) -> Self {
        self.sha256 = Some(hex.into());
        self
    }
}

wire_enum! {
    /// Whether the client got a complete, successful answer.
    Status {
        /// The answer was complete and its status below 400.
        Success = "success",
        /// Anything else; `error_type` and `end_reason` say what.
        #[default]
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
        #[default]
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
        #[default]
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
        #[default]
        GatewayError = "gateway_error",
    }
}

/// A string, borrowed where it has no escapes: serde borrows a bare `Cow`, but not one inside an `Option` or a list.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads an optional string.
fn text<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}

/// Reads an optional list of strings.
fn texts<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Cow<'a, str>>>, D::Error> {
    let texts = Option::<Vec<Text<'a>>>::deserialize(deserializer)?;
    Ok(texts.map(|texts| texts.into_iter().map(|text| text.0).collect()))
}
