//! Records as spans of LLM Observability: <https://docs.datadoghq.com/llm_observability/instrumentation/api/>.

use exporter_kit::pack::{Frame, Limits, Packed, Packer};
use plugin_api::{Field, Fields, Record};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    age::When,
    identity::{self, Identity},
    logs::nanoseconds,
    messages::{self, Io},
    tag,
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
    parent_id: &'static str,
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
    error: Option<Value>,
    metadata: Map<String, Value>,
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
        let mut span = self.span(fields, when, tag::cut(&session, tag::MAX_LENGTH));
        span.meta.input = messages::input(record.request_json());
        span.meta.output = messages::output(record.response_json());
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

    fn span<'f>(&self, fields: &Fields<'f>, when: When, session_id: &'f str) -> Span<'f> {
        let text = |field| fields.text(field).unwrap_or_default();
        let short = |text: &str| tag::cut(text, tag::MAX_LENGTH).to_owned();
        let (id, path) = (text(Field::Id).replace('-', ""), text(Field::Path));
        let model = identity::model(fields);
        let kind = if path.ends_with("/embeddings") { "embedding" } else { "llm" };
        let mut tags = Vec::new();
        self.who.tags(fields, model.as_deref(), |tag| tags.push(tag.to_owned()));
        tags.extend(tag::tag("service", &self.who.service(fields)));
        tags.extend(tag::tag("user_id", &text(Field::UserId)));
        tags.extend(tag::tag("record_id", &id));
        let is_error = text(Field::Status) != "success";
        let kind_of_error = || short(&text(Field::ErrorType));
        Span {
            name: format!("{} {}", short(&text(Field::Method)), short(&path)),
            // A record without a trace is a trace of its own.
            trace_id: fields.text(Field::TraceId).map_or_else(|| short(&id), |trace| short(&trace)),
            span_id: fields.text(Field::SpanId).map_or_else(|| short(&id), |span| short(&span)),
            parent_id: "undefined",
            start_ns: u64::try_from(when.start.as_nanos()).unwrap_or(u64::MAX),
            duration: nanoseconds(fields.number(Field::TotalLatency).unwrap_or_default()),
            status: if is_error { "error" } else { "ok" },
            session_id,
            tags,
            meta: Meta {
                kind,
                input: None,
                output: None,
                error: is_error
                    .then(|| json!({ "type": kind_of_error(), "message": short(&text(Field::EndReason)) })),
                metadata: metadata(fields, model.as_deref()),
            },
            metrics: metrics(fields),
        }
    }
}

fn metadata(fields: &Fields<'_>, model: Option<&str>) -> Map<String, Value> {
    let mut metadata = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    };
    let text = |field| Some(tag::cut(&fields.text(field)?, tag::MAX_LENGTH).into());
    add("model_name", model.map(|model| tag::cut(model, tag::MAX_LENGTH).into()));
    add("model_provider", text(Field::Provider));
    add("cost_usd", fields.number(Field::Cost).map(Value::from));
    add("end_reason", text(Field::EndReason));
    add("usage_source", text(Field::UsageSource));
    add("is_streaming", fields.flag(Field::IsStreaming).map(Value::from));
    add("status_code", fields.whole(Field::StatusCode).map(Value::from));
    metadata
}

fn metrics(fields: &Fields<'_>) -> Map<String, Value> {
    let seconds = |field| fields.number(field).map(|milliseconds| milliseconds / 1e3);
    let known = [
        ("input_tokens", fields.number(Field::InputTokens)),
        ("output_tokens", fields.number(Field::OutputTokens)),
        ("total_tokens", fields.number(Field::TotalTokens)),
        ("time_to_first_token", seconds(Field::Ttft)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect()
}
