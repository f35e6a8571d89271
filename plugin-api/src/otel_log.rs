//! The OpenTelemetry log form of a record: the shape that log backends receive.
//!
//! There is one way from a record to its log: the layout below, whose values are the record's own bytes.

use std::{borrow::Cow, io};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    cost::Usd,
    flat::{Field, Fields, plain_list},
    metrics::{BodyDescription, RequestMetrics},
};

macro_rules! log_name {
    () => {
        "ai_gateway_request_log"
    };
}

/// `name` of every log.
pub const LOG_NAME: &str = log_name!();

/// A record in its OpenTelemetry log form.
///
/// ```json
/// { "timestamp": "…", "resource": { "service.name": "…", … }, "name": "ai_gateway_request_log",
///   "attributes": { "id": "msg_…", …, "request": {…}, "response": {…}, "metadata": {…} },
///   "trace_id": "…", "span_id": "…", "parent_span_id": "…", "trace_flags": 1 }
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
        log_id(&self.metrics.id)
    }

    /// Writes the log as one line of JSON, without a newline at its end, in many small pieces: give it a `Vec` or a
    /// `BufWriter`. A line break between two tokens of a body becomes a space.
    ///
    /// # Errors
    /// Those of `out`. What was written until then is no whole log.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        let json = serde_json::to_vec(self.metrics)?;
        write(out, &Fields::parse(&json)?, self.request, self.response)
    }
}

impl Serialize for OtelLog<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(serializer, |json| self.write_to(json), self.request.len() + self.response.len())
    }
}

/// Serializes a log of about this size that `write` writes.
pub(crate) fn serialize<S: Serializer>(
    serializer: S,
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    size: usize,
) -> Result<S::Ok, S::Error> {
    let mut json = Vec::with_capacity(2048 + size);
    write(&mut json).map_err(serde::ser::Error::custom)?;
    serde_json::from_slice::<&RawValue>(&json).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// The fields of a record whose log goes without these bodies: `truncated` names what is there and left out, beside
/// what was left out before.
pub(crate) fn naming_bodies_as_truncated<'a>(
    fields: &Fields<'a>,
    request: &[u8],
    response: &[u8],
) -> Fields<'a> {
    let before = fields.raw(Field::Truncated).unwrap_or_default();
    let is_missing = |name: &str, body: &[u8]| before.contains(name) || !body.is_empty();
    let chunks = before.contains("streamed_data")
        || (!response.is_empty() && fields.flag(Field::IsStreaming) == Some(true));
    let names = match (chunks, is_missing("response", response), is_missing("request", request)) {
        (false, false, false) => "[]",
        (false, false, true) => r#"["request"]"#,
        (false, true, false) => r#"["response"]"#,
        (false, true, true) => r#"["response","request"]"#,
        (true, false, false) => r#"["streamed_data"]"#,
        (true, false, true) => r#"["streamed_data","request"]"#,
        (true, true, false) => r#"["streamed_data","response"]"#,
        (true, true, true) => r#"["streamed_data","response","request"]"#,
    };
    fields.clone().with_raw(Field::Truncated, names)
}

/// Writes the log of a record with these fields and these bodies, which are JSON or empty.
pub(crate) fn write(
    out: &mut impl io::Write,
    fields: &Fields<'_>,
    request: &[u8],
    response: &[u8],
) -> io::Result<()> {
    write_members(out, fields, BEFORE_THE_BODIES)?;
    out.write_all(b",\"request\":")?;
    write_body(out, request)?;
    out.write_all(b",\"response\":")?;
    write_body(out, response)?;
    write_members(out, fields, AFTER_THE_BODIES)?;
    out.write_all(b"}")
}

/// A piece of the log: what stands before the value, the field with the value, and what the value must be.
type Member = (&'static str, Field, Form);

/// What a value must be, and how it is written. `null` and absent are the same, and `null` in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A string.
    Text,
    /// A string or `null`.
    TextOrNull,
    /// The record's UUID, as [`OtelLog::log_id`].
    LogId,
    /// The model, else the one that was asked for, else `null`.
    Model,
    /// `true` or `false`.
    Flag,
    /// A whole number up to a maximum.
    Whole(u64),
    /// The same, or `null`.
    WholeOrNull(u64),
    /// A number or `null`.
    NumberOrNull,
    /// A number, rounded to a whole one.
    Rounded,
    /// The same, or `null`.
    RoundedOrNull,
    /// An amount in dollars, or `null`.
    UsdOrNull,
    /// A list of strings; absent is empty.
    Texts,
    /// A list of strings or `null`.
    TextsOrNull,
    /// A [`BodyDescription`]. The member is left out where there is none.
    Description,
}

const U8: u64 = u8::MAX as u64;
const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
const U64: u64 = u64::MAX;

#[rustfmt::skip]
const BEFORE_THE_BODIES: &[Member] = &[
    ("{\"timestamp\":", Field::Timestamp, Form::Text),
    (",\"resource\":{\"service.name\":", Field::ServiceName, Form::Text),
    (",\"service.version\":", Field::ServiceVersion, Form::Text),
    (",\"deployment.environment\":", Field::Environment, Form::Text),
    (concat!("},\"name\":\"", log_name!(), "\",\"attributes\":{\"id\":"), Field::Id, Form::LogId),
    (",\"thread_id\":", Field::ThreadId, Form::Text),
    (",\"org_id\":", Field::OrgId, Form::TextOrNull),
    (",\"user_id\":", Field::UserId, Form::TextOrNull),
    (",\"project_id\":", Field::ProjectId, Form::TextOrNull),
    (",\"provider\":", Field::Provider, Form::TextOrNull),
    (",\"model\":", Field::Model, Form::Model),
];

/// In the metadata the guide's keys come first, in its order; then what this format adds.
#[rustfmt::skip]
const AFTER_THE_BODIES: &[Member] = &[
    (",\"metadata\":{\"project_id\":", Field::ProjectId, Form::TextOrNull),
    (",\"project_name\":", Field::ProjectName, Form::TextOrNull),
    (",\"latency\":", Field::TotalLatency, Form::Rounded),
    (",\"tokens\":{\"input\":", Field::InputTokens, Form::WholeOrNull(U64)),
    (",\"output\":", Field::OutputTokens, Form::WholeOrNull(U64)),
    (",\"total\":", Field::TotalTokens, Form::WholeOrNull(U64)),
    ("},\"cost\":", Field::Cost, Form::UsdOrNull),
    (",\"status\":", Field::Status, Form::Text),
    (",\"path\":", Field::Path, Form::Text),
    (",\"method\":", Field::Method, Form::Text),
    (",\"request_size\":", Field::RequestSize, Form::Whole(U64)),
    (",\"response_size\":", Field::ResponseSize, Form::Whole(U64)),
    (",\"provider_latency\":", Field::ProviderLatency, Form::RoundedOrNull),
    (",\"status_code\":", Field::StatusCode, Form::WholeOrNull(U16)),
    (",\"provider_status_code\":", Field::ProviderStatusCode, Form::WholeOrNull(U16)),
    (",\"error_count\":", Field::ErrorCount, Form::Whole(U32)),
    (",\"error_type\":", Field::ErrorType, Form::TextOrNull),
    (",\"provider_error_count\":", Field::ProviderErrorCount, Form::Whole(U32)),
    (",\"provider_error_type\":", Field::ProviderErrorType, Form::TextOrNull),
    (",\"provider_request_id\":", Field::ProviderRequestId, Form::TextOrNull),

    (",\"experiment_id\":", Field::ExperimentId, Form::TextOrNull),
    (",\"client_request_id\":", Field::ClientRequestId, Form::TextOrNull),
    (",\"request_model\":", Field::RequestModel, Form::TextOrNull),
    (",\"is_streaming\":", Field::IsStreaming, Form::Flag),
    (",\"response_id\":", Field::ResponseId, Form::TextOrNull),
    (",\"previous_response_id\":", Field::PreviousResponseId, Form::TextOrNull),
    (",\"finish_reasons\":", Field::FinishReasons, Form::TextsOrNull),
    (",\"service_tier\":", Field::ServiceTier, Form::TextOrNull),
    (",\"request_service_tier\":", Field::RequestServiceTier, Form::TextOrNull),
    (",\"provider_error_code\":", Field::ProviderErrorCode, Form::TextOrNull),
    (",\"end_reason\":", Field::EndReason, Form::Text),
    (",\"ttfb\":", Field::Ttfb, Form::NumberOrNull),
    (",\"ttft\":", Field::Ttft, Form::NumberOrNull),
    (",\"gateway_overhead\":", Field::GatewayOverhead, Form::NumberOrNull),
    (",\"usage_source\":", Field::UsageSource, Form::Text),
    (",\"cached_read_tokens\":", Field::CachedReadTokens, Form::WholeOrNull(U64)),
    (",\"cached_write_tokens\":", Field::CachedWriteTokens, Form::WholeOrNull(U64)),
    (",\"cached_write_1h_tokens\":", Field::CachedWrite1hTokens, Form::WholeOrNull(U64)),
    (",\"reasoning_tokens\":", Field::ReasoningTokens, Form::WholeOrNull(U64)),
    (",\"audio_input_tokens\":", Field::AudioInputTokens, Form::WholeOrNull(U64)),
    (",\"audio_output_tokens\":", Field::AudioOutputTokens, Form::WholeOrNull(U64)),
    (",\"image_input_tokens\":", Field::ImageInputTokens, Form::WholeOrNull(U64)),
    (",\"image_output_tokens\":", Field::ImageOutputTokens, Form::WholeOrNull(U64)),
    (",\"audio_seconds\":", Field::AudioSeconds, Form::NumberOrNull),
    (",\"search_queries\":", Field::SearchQueries, Form::WholeOrNull(U64)),
    (",\"cost_source\":", Field::CostSource, Form::Text),
    (",\"price_version\":", Field::PriceVersion, Form::TextOrNull),
    (",\"truncated\":", Field::Truncated, Form::Texts),
    (",\"request_body\":", Field::RequestBody, Form::Description),
    (",\"response_body\":", Field::ResponseBody, Form::Description),
    ("}},\"trace_id\":", Field::TraceId, Form::TextOrNull),
    (",\"span_id\":", Field::SpanId, Form::TextOrNull),
    (",\"parent_span_id\":", Field::ParentSpanId, Form::TextOrNull),
    (",\"trace_flags\":", Field::TraceFlags, Form::WholeOrNull(U8)),
];

fn write_members(out: &mut impl io::Write, fields: &Fields<'_>, members: &[Member]) -> io::Result<()> {
    for (before, field, form) in members {
        let value = fields.raw(*field).filter(|raw| *raw != "null");
        if value.is_none() && *form == Form::Description {
            continue;
        }
        out.write_all(before.as_bytes())?;
        match value {
            Some(raw) => write_value(out, fields, (*field, raw), *form)?,
            None => write_missing(out, fields, *field, *form)?,
        }
    }
    Ok(())
}

fn write_value(
    out: &mut impl io::Write,
    fields: &Fields<'_>,
    (field, raw): (Field, &str),
    form: Form,
) -> io::Result<()> {
    let is_as_it_should = match form {
        Form::Text | Form::TextOrNull | Form::Model if fields.is_plain() => raw.starts_with('"'),
        Form::Text | Form::TextOrNull | Form::Model => {
            let text = fields.text(field).ok_or_else(|| unfit(field, Some(raw)))?;
            return Ok(serde_json::to_writer(out, &text)?);
        }
        Form::LogId => {
            let id = fields.text(field).ok_or_else(|| unfit(field, Some(raw)))?;
            return write_log_id(out, &id);
        }
        Form::Flag => fields.flag(field).is_some(),
        Form::Whole(max) | Form::WholeOrNull(max) => fields.whole(field).is_some_and(|whole| whole <= max),
        Form::NumberOrNull => fields.number(field).is_some(),
        Form::Rounded | Form::RoundedOrNull => {
            let number = fields.number(field).ok_or_else(|| unfit(field, Some(raw)))?;
            return Ok(serde_json::to_writer(out, &rounded(number))?);
        }
        Form::UsdOrNull if is_usd(raw) => true,
        Form::UsdOrNull => {
            let amount: Usd = serde_json::from_str(raw)?;
            return Ok(serde_json::to_writer(out, &amount)?);
        }
        Form::Texts | Form::TextsOrNull if fields.is_plain() && plain_list(raw) == Some(raw.len()) => true,
        Form::Texts | Form::TextsOrNull => {
            let texts: Vec<Cow<'_, str>> = serde_json::from_str(raw)?;
            return Ok(serde_json::to_writer(out, &texts)?);
        }
        Form::Description => {
            let description: BodyDescription<'_> = serde_json::from_str(raw)?;
            return Ok(serde_json::to_writer(out, &description)?);
        }
    };
    if is_as_it_should { out.write_all(raw.as_bytes()) } else { Err(unfit(field, Some(raw))) }
}

/// What stands in the log where the record has `null` or nothing.
fn write_missing(out: &mut impl io::Write, fields: &Fields<'_>, field: Field, form: Form) -> io::Result<()> {
    let raw = fields.raw(field);
    match form {
        Form::Texts if raw.is_none() => out.write_all(b"[]"),
        Form::Model => {
            let asked = Field::RequestModel;
            match fields.raw(asked).filter(|raw| *raw != "null") {
                Some(raw) => write_value(out, fields, (asked, raw), Form::TextOrNull),
                None => out.write_all(b"null"),
            }
        }
        Form::TextOrNull
        | Form::WholeOrNull(_)
        | Form::NumberOrNull
        | Form::RoundedOrNull
        | Form::UsdOrNull
        | Form::TextsOrNull
        | Form::Description => out.write_all(b"null"),
        Form::Text | Form::LogId | Form::Flag | Form::Whole(_) | Form::Rounded | Form::Texts => {
            Err(unfit(field, raw))
        }
    }
}

/// Whether a number is written as a [`Usd`] is: that is how the gateway writes it. Others are worth the long way.
fn is_usd(number: &str) -> bool {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digit = |byte: u8| byte.is_ascii_digit();
    (1..=6).contains(&whole.len())
        && whole.bytes().all(is_digit)
        && fraction.len() <= 12
        && fraction.bytes().all(is_digit)
        && !fraction.ends_with('0')
}

#[cold]
fn unfit(field: Field, raw: Option<&str>) -> io::Error {
    let text = match raw {
        Some(raw) => format!("`{}` of the record cannot be `{raw}`", field.name()),
        None => format!("the record lacks `{}`", field.name()),
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// `msg_` and the id without hyphens.
fn write_log_id(out: &mut impl io::Write, id: &str) -> io::Result<()> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_plain {
        return Ok(serde_json::to_writer(out, &log_id(id))?);
    }
    out.write_all(b"\"msg_")?;
    for part in id.split('-') {
        out.write_all(part.as_bytes())?;
    }
    out.write_all(b"\"")
}

fn log_id(id: &str) -> String {
    let mut log_id = String::with_capacity(36);
    log_id.push_str("msg_");
    log_id.extend(id.split('-'));
    log_id
}

/// A body as the bytes it is, on one line: inside a JSON string a line break is always escaped, so every bare one is
/// white space. The gateway sends bodies that have none, but nothing says that it must.
fn write_body(out: &mut impl io::Write, json: &[u8]) -> io::Result<()> {
    let mut rest = if json.is_empty() { b"null" } else { json };
    while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
        out.write_all(&rest[..end])?;
        out.write_all(b" ")?;
        rest = &rest[end + 1..];
    }
    out.write_all(rest)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "latencies are small and not negative"
)]
fn rounded(milliseconds: f64) -> u64 {
    milliseconds.round() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CHAT: &str = include_str!("../tests/golden/record-chat.json");
    const DESCRIBED: &str = include_str!("../tests/golden/record-described.json");

    /// A record as the gateway writes it.
    fn wire(record: &str, change: impl FnOnce(&mut RequestMetrics<'_>)) -> Vec<u8> {
        let mut metrics = serde_json::from_str(record).unwrap();
        change(&mut metrics);
        serde_json::to_vec(&metrics).unwrap()
    }

    fn spliced(metrics: &[u8]) -> io::Result<String> {
        let mut out = Vec::new();
        write(&mut out, &Fields::parse(metrics)?, b"{\"a\":\n1}", b"")?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// The log as serde makes it from the typed record.
    fn typed(metrics: &[u8]) -> serde_json::Result<Value> {
        let m: RequestMetrics<'_> = serde_json::from_slice(metrics)?;
        let mut metadata = json!({
            "project_id": m.project_id, "project_name": m.project_name,
            "latency": m.total_latency.round() as u64,
            "tokens": { "input": m.input_tokens, "output": m.output_tokens, "total": m.total_tokens },
            "cost": m.cost, "status": m.status, "path": m.path, "method": m.method,
            "request_size": m.request_size, "response_size": m.response_size,
            "provider_latency": m.provider_latency.map(|latency| latency.round() as u64),
            "status_code": m.status_code, "provider_status_code": m.provider_status_code,
            "error_count": m.error_count, "error_type": m.error_type,
            "provider_error_count": m.provider_error_count, "provider_error_type": m.provider_error_type,
            "provider_request_id": m.provider_request_id,
        });
        let all = serde_json::to_value(&m)?;
        for added in [
            "experiment_id",
            "client_request_id",
            "request_model",
            "is_streaming",
            "response_id",
            "previous_response_id",
            "finish_reasons",
            "service_tier",
            "request_service_tier",
            "provider_error_code",
            "end_reason",
            "ttfb",
            "ttft",
            "gateway_overhead",
            "usage_source",
            "cached_read_tokens",
            "cached_write_tokens",
            "cached_write_1h_tokens",
            "reasoning_tokens",
            "audio_input_tokens",
            "audio_output_tokens",
            "image_input_tokens",
            "image_output_tokens",
            "audio_seconds",
            "search_queries",
            "cost_source",
            "price_version",
            "truncated",
        ] {
            metadata[added] = all[added].clone();
        }
        for (key, body) in [("request_body", &m.request_body), ("response_body", &m.response_body)] {
            if let Some(body) = body {
                metadata[key] = serde_json::to_value(body)?;
            }
        }
        Ok(json!({
            "timestamp": m.timestamp, "name": LOG_NAME, "trace_id": m.trace_id, "span_id": m.span_id,
            "parent_span_id": m.parent_span_id, "trace_flags": m.trace_flags,
            "resource": {
                "service.name": m.service_name, "service.version": m.service_version,
                "deployment.environment": m.environment,
            },
            "attributes": {
                "id": format!("msg_{}", m.id.replace('-', "")), "thread_id": m.thread_id,
                "org_id": m.org_id, "user_id": m.user_id, "project_id": m.project_id,
                "provider": m.provider, "model": m.model.or(m.request_model),
                "request": { "a": 1 }, "response": null, "metadata": metadata,
            },
        }))
    }

    /// Numbers are copied as they are written: `1` where serde, having read a float, writes `1.0`.
    fn as_floats(value: Value) -> Value {
        match value {
            Value::Number(number) => json!(number.as_f64()),
            Value::Object(members) => {
                members.into_iter().map(|(key, value)| (key, as_floats(value))).collect()
            }
            other => other,
        }
    }

    fn assert_same(metrics: &[u8]) {
        let given = String::from_utf8_lossy(metrics);
        match (spliced(metrics), typed(metrics)) {
            (Ok(log), Ok(expected)) => {
                let log_value = serde_json::from_str::<Value>(&log).unwrap();
                assert_eq!(as_floats(log_value), as_floats(expected), "{given}");
                assert!(!log.contains(['\n', '\r']), "{log}");
            }
            (Err(_), Err(_)) => {}
            (spliced, typed) => panic!("{spliced:?}\n{typed:?}\n{given}"),
        }
    }

    /// Values of every type, some of which no field or only some fields can have.
    const VALUES: &[&str] = &[
        "null",
        "true",
        "0",
        "7",
        "-1",
        "429",
        "65536",
        "4294967296",
        "18446744073709551616",
        "1.5",
        "0.000000000001",
        "12345678.5",
        "1e-3",
        "4.560E2",
        "1e999",
        "0.0456",
        "\"\"",
        "\"plain\"",
        "\"é\"",
        r#""a\"b\\c\n\u0007""#,
        r#""\ud83d\ude00""#,
        r#""\ud83d""#,
        "\"0-1-2\"",
        "[]",
        "[ ]",
        r#"["response","request"]"#,
        r#"["a\tb"]"#,
        "[1]",
        "{}",
        r#"{"size":3}"#,
        r#"{"sha256":"ab","later":[{}],"size":3,"content_type":"a/\"b"}"#,
        r#"{"size":-3}"#,
    ];

    #[test]
    fn any_value_in_any_field_gives_what_serde_gives() {
        let record: serde_json::Map<String, Value> = serde_json::from_str(CHAT).unwrap();
        for field in Field::ALL {
            let mut rest = record.clone();
            let _ = rest.remove(field.name());
            let rest = serde_json::to_string(&rest).unwrap();
            assert_same(rest.as_bytes());
            for value in VALUES {
                let name = field.name();
                assert_same(format!("{{\"{name}\":{value},{}", &rest[1..]).as_bytes());
                assert_same(
                    format!("{{ \"later\" : [1], \"{name}\" :\r\n{value} ,{}", &rest[1..]).as_bytes(),
                );
            }
        }
    }

    #[test]
    fn any_record_gives_what_serde_gives() {
        let record: serde_json::Map<String, Value> = serde_json::from_str(CHAT).unwrap();
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..2000 {
            let mut members: Vec<(String, String)> =
                record.iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
            for _ in 0..random(4) {
                let place = random(members.len());
                members[place].1 = VALUES[random(VALUES.len())].to_owned();
            }
            for _ in 0..random(3) {
                members.remove(random(members.len()));
            }
            let (one, other) = (random(members.len()), random(members.len()));
            members.swap(one, other);
            let gap = ["", "", " ", "\n\t"][random(4)];
            let members: Vec<_> =
                members.iter().map(|(key, value)| format!("{gap}\"{key}\":{gap}{value}{gap}")).collect();
            assert_same(format!("{{{}}}", members.join(",")).as_bytes());
        }
    }

    #[test]
    fn a_record_of_the_gateways_has_these_very_bytes() {
        for (record, golden) in [
            (CHAT, include_str!("../tests/golden/otel-log-chat.jsonl")),
            (DESCRIBED, include_str!("../tests/golden/otel-log-described.jsonl")),
        ] {
            assert_eq!(spliced(&wire(record, |_| ())).unwrap(), golden.trim_end());
        }
    }

    #[test]
    fn a_log_without_its_bodies_names_them() {
        for (is_streaming, before, request, response, expected) in [
            (false, &[][..], "{}", "{}", r#"["response","request"]"#),
            (true, &[], "{}", "{}", r#"["streamed_data","response","request"]"#),
            (false, &[], "", "{}", r#"["response"]"#),
            (false, &[], "{}", "", r#"["request"]"#),
            (true, &["streamed_data"], "", "{}", r#"["streamed_data","response"]"#),
            (true, &["streamed_data", "response"], "{}", "", r#"["streamed_data","response","request"]"#),
            (true, &[], "", "", "[]"),
        ] {
            let json = wire(CHAT, |metrics| {
                metrics.is_streaming = is_streaming;
                metrics.truncated = before.iter().map(|name| Cow::Borrowed(*name)).collect();
            });
            let fields = Fields::parse(&json).unwrap();
            let named = naming_bodies_as_truncated(&fields, request.as_bytes(), response.as_bytes());
            assert_eq!(named.raw(Field::Truncated), Some(expected), "{before:?} {request} {response}");
            assert_eq!(named.raw(Field::Id), fields.raw(Field::Id));
        }
    }

    #[test]
    fn what_a_bad_record_lacks_is_said() {
        let error = spliced(b"{\"timestamp\":\"x\"}").unwrap_err();
        assert_eq!(error.to_string(), "the record lacks `service_name`");
        let error = spliced(b"{\"timestamp\":null}").unwrap_err();
        assert_eq!(error.to_string(), "`timestamp` of the record cannot be `null`");
    }
}
