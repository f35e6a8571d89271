//! Records as spans of LLM Observability: <https://docs.datadoghq.com/llm_observability/instrumentation/api/>. The names of
//! token and cost metrics are those of
//! <https://docs.datadoghq.com/llm_observability/instrument/sdk/#cost-monitoring>: without those of cached tokens Datadog
//! prices all input in full.

use exporter_kit::{
    failure,
    pack::{Frame, Limits, Packed, Packer},
    source::Sources,
};
use plugin_api::{Field, Fields, Record};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    age::When,
    identity::{self, Identity, TagsOf},
    logs::nanoseconds,
    messages::{self, Io},
    parameters, tag,
};

/// Most bytes of a span and of a request. The page has no limits; these are those of Datadog's own SDKs
/// (<https://github.com/DataDog/dd-trace-py/blob/main/ddtrace/llmobs/_constants.py>), MB read as 10^6.
const MAX_SPAN: usize = 1_000_000;
const LIMITS: Limits = Limits { max_records: 1_000, max_bytes: 5_000_000 };
/// Room for `ml_app`.
const ML_APP_ROOM: usize = 2_000;
/// The beginning and the end of a request, up to `ml_app`.
const FRAME: Frame = Frame {
    open: b"{\"data\":{\"type\":\"span\",\"attributes\":{\"spans\":[",
    between: b",",
    close: b"],\"ml_app\":",
};

/// Spans of an application, packed into requests.
#[derive(Debug)]
pub struct Spans<'a> {
    who: &'a Identity,
    ml_app: Option<&'a str>,
    packer: Packer,
    /// The application of the records, where the settings name none.
    service: String,
}

#[derive(Serialize)]
struct Span<'a> {
    name: String,
    trace_id: String,
    span_id: String,
    parent_id: String,
    start_ns: u64,
    duration: u64,
    status: &'static str,
    session_id: &'a str,
    tags: Vec<String>,
    meta: Meta,
    metrics: Map<String, Value>,
}

#[derive(Serialize)]
struct Meta {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Io>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Io>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<SpanError>,
    metadata: Map<String, Value>,
}

#[derive(Serialize)]
struct SpanError {
    message: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
}

/// A span that has no parent has this one.
const NO_PARENT: &str = "undefined";

/// What kind of span a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Llm,
    Embedding,
    /// A model is listed, a file is deleted: no model was asked.
    Task,
}

impl Kind {
    fn of(method: &str, path: &str) -> Self {
        match method {
            "POST" if path.trim_end_matches('/').ends_with("/embeddings") => Self::Embedding,
            "POST" => Self::Llm,
            _ => Self::Task,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Embedding => "embedding",
            Self::Task => "task",
        }
    }

    fn input(self, body: &[u8]) -> Option<Io> {
        match self {
            Self::Embedding => messages::embedded(body),
            Self::Llm | Self::Task => messages::input(body),
        }
    }

    fn output(self, body: &[u8]) -> Option<Io> {
        match self {
            Self::Embedding => messages::embeddings(body),
            Self::Llm | Self::Task => messages::output(body),
        }
    }
}

impl<'a> Spans<'a> {
    /// Spans of this application, else of the service.
    #[must_use]
    pub fn new(who: &'a Identity, ml_app: Option<&'a str>) -> Self {
        let max_bytes = LIMITS.max_bytes - ML_APP_ROOM;
        let packer = Packer::new(FRAME, Limits { max_bytes, ..LIMITS });
        Self { who, ml_app, packer, service: String::new() }
    }

    /// Adds a record's span: with messages, or without where it would be too large with them. False when it is too
    /// large even so.
    #[must_use]
    pub fn add(&mut self, record: Record<'_>, fields: &Fields<'_>, when: When) -> bool {
        if self.service.is_empty() {
            self.service = self.who.service(fields).into_owned();
        }
        let session = fields.text(Field::ThreadId).unwrap_or_default();
        let kind = Kind::of(
            &fields.text(Field::Method).unwrap_or_default(),
            &fields.text(Field::Path).unwrap_or_default(),
        );
        let from = Sources::of(record, fields);
        let mut span = self.span(kind, from, when, tag::cut(&session, tag::MAX_LENGTH));
        span.meta.input = kind.input(from.request);
        span.meta.output = kind.output(from.response);
        let mut piece = serde_json::to_vec(&span).unwrap_or_default();
        if piece.len() > MAX_SPAN {
            (span.meta.input, span.meta.output) = (None, None);
            span.tags.push("truncated:true".to_owned());
            piece = serde_json::to_vec(&span).unwrap_or_default();
        }
        !piece.is_empty() && piece.len() <= MAX_SPAN && self.packer.add(record.index(), &piece)
    }

    /// The requests, each with at least one record.
    #[must_use]
    pub fn finish(self) -> Vec<Packed> {
        let name = tag::clean(self.ml_app.unwrap_or(&self.service), 193);
        let name = if name.is_empty() { "magicapi-gateway" } else { &name };
        let close = format!("{}}}}}}}", Value::from(name));
        let mut requests = self.packer.finish();
        requests.iter_mut().for_each(|request| request.body.extend_from_slice(close.as_bytes()));
        requests
    }

    fn span<'f>(&self, kind: Kind, from: Sources<'_>, when: When, session_id: &'f str) -> Span<'f> {
        let fields = from.fields;
        let text = |field| fields.text(field).unwrap_or_default();
        let short = |text: &str| tag::cut(text, tag::MAX_LENGTH).to_owned();
        let id = text(Field::Id).replace('-', "");
        let model = identity::model(fields);
        let mut tags = Vec::new();
        self.who.tags(TagsOf::Event, from, model.as_deref(), |tag| tags.push(tag.to_owned()));
        tags.extend(tag::tag("service", &self.who.service(fields)));
        tags.extend(tag::tag("user_id", &text(Field::UserId)));
        tags.extend(tag::tag("record_id", &id));
        let error =
            failure::message(from).map(|message| SpanError { message, kind: short(&text(Field::ErrorType)) });
        Span {
            name: format!("{} {}", short(&text(Field::Method)), short(&text(Field::Path))),
            // A record without a trace is a trace of its own.
            trace_id: fields.text(Field::TraceId).map_or_else(|| short(&id), |trace| short(&trace)),
            span_id: fields.text(Field::SpanId).map_or_else(|| short(&id), |span| short(&span)),
            parent_id: fields.text(Field::ParentSpanId).map_or_else(|| NO_PARENT.to_owned(), |id| short(&id)),
            start_ns: u64::try_from(when.start.as_nanos()).unwrap_or(u64::MAX),
            duration: nanoseconds(fields.number(Field::TotalLatency).unwrap_or_default()),
            status: if error.is_some() { "error" } else { "ok" },
            session_id,
            tags,
            meta: Meta {
                kind: kind.name(),
                input: None,
                output: None,
                error,
                metadata: metadata(from, model.as_deref()),
            },
            metrics: metrics(fields),
        }
    }
}

fn metadata(from: Sources<'_>, model: Option<&str>) -> Map<String, Value> {
    let fields = from.fields;
    let mut metadata = parameters::of(from.request);
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    };
    let text = |field| Some(tag::cut(&fields.text(field)?, tag::MAX_LENGTH).into());
    add("model_name", model.map(|model| tag::cut(model, tag::MAX_LENGTH).into()));
    add("model_provider", text(Field::Provider));
    add("end_reason", text(Field::EndReason));
    add("usage_source", text(Field::UsageSource));
    add("is_streaming", fields.flag(Field::IsStreaming).map(Value::from));
    add("service_tier", text(Field::ServiceTier));
    add("provider_error_type", text(Field::ProviderErrorType));
    add("provider_error_code", text(Field::ProviderErrorCode));
    add("status_code", fields.whole(Field::StatusCode).map(Value::from));
    metadata
}

fn metrics(fields: &Fields<'_>) -> Map<String, Value> {
    let seconds = |field| fields.number(field).map(|milliseconds| milliseconds / 1e3);
    let number = |field| fields.number(field);
    let known = [
        ("input_tokens", number(Field::InputTokens)),
        ("non_cached_input_tokens", non_cached(fields)),
        ("cache_read_input_tokens", number(Field::CachedReadTokens)),
        ("cache_write_input_tokens", number(Field::CachedWriteTokens)),
        ("output_tokens", number(Field::OutputTokens)),
        ("reasoning_output_tokens", number(Field::ReasoningTokens)),
        ("total_tokens", number(Field::TotalTokens)),
        ("total_cost", number(Field::Cost)),
        ("time_to_first_token", seconds(Field::Ttft)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect()
}

/// The input less what was read from a cache or written to one; `None` where nothing is known of a cache.
fn non_cached(fields: &Fields<'_>) -> Option<f64> {
    let [read, written] =
        [Field::CachedReadTokens, Field::CachedWriteTokens].map(|field| fields.number(field));
    if read.is_none() && written.is_none() {
        return None;
    }
    let cached = read.unwrap_or_default() + written.unwrap_or_default();
    Some((fields.number(Field::InputTokens)? - cached).max(0.0))
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_inference_is_a_task() {
        for (method, path, expected) in [
            ("POST", "/v1/chat/completions", "llm"),
            ("POST", "/v1/responses", "llm"),
            ("POST", "/v1/embeddings", "embedding"),
            ("POST", "/v1/embeddings/", "embedding"),
            ("GET", "/v1/models", "task"),
            ("GET", "/v1/embeddings", "task"),
            ("DELETE", "/v1/files/f", "task"),
        ] {
            assert_eq!(Kind::of(method, path).name(), expected, "{method} {path}");
        }
    }

    #[test]
    fn input_is_split_by_what_a_cache_has_to_do_with_it() {
        for (input, read, written, expected) in [
            (Some(50), Some(22), Some(15), json!([13.0, 22.0, 15.0])),
            (Some(50), Some(22), None, json!([28.0, 22.0, null])),
            (Some(50), None, None, json!([null, null, null])),
            (Some(5), Some(22), None, json!([0.0, 22.0, null])),
            (None, Some(22), None, json!([null, 22.0, null])),
        ] {
            let json = Sample::chat()
                .with(|metrics| {
                    metrics.input_tokens = input;
                    (metrics.cached_read_tokens, metrics.cached_write_tokens) = (read, written);
                })
                .metrics_json();
            let metrics = metrics(&Fields::parse(&json).unwrap());
            let names = ["non_cached", "cache_read", "cache_write"];
            let sent = names.map(|name| metrics.get(&format!("{name}_input_tokens")).cloned());
            assert_eq!(json!(sent), expected, "{input:?} {read:?} {written:?}");
        }
    }
}
