//! A record as a log record and as a span. Pure.

use std::borrow::Cow;

use plugin_api::{Field, LOG_NAME};

use crate::{
    conversation::{CUT, Conversation},
    facts::Facts,
    json,
    names::{
        self, Attribute, Names, Source,
        operation::{Work, api_type},
    },
    wire::{self, Value},
};

/// Number of the field that holds the records of a `ScopeLogs`, `ScopeSpans` or `ScopeMetrics`.
const RECORDS: u32 = 2;

/// `SeverityNumber` and its text.
const INFO: (u64, &str) = (9, "INFO");
const ERROR: (u64, &str) = (17, "ERROR");

/// Writes a log record into `piece`, to be joined with others of its scope. `body` is the record's log form; `scratch`
/// is memory to work in.
pub fn log(
    piece: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    names: Names,
    facts: &Facts<'_>,
    observed: u64,
    body: Option<&str>,
) {
    scratch.clear();
    let (number, text) = if facts.error.is_some() { ERROR } else { INFO };
    wire::fixed64(scratch, 1, facts.start);
    wire::fixed64(scratch, 11, observed);
    wire::uint(scratch, 2, number);
    wire::bytes(scratch, 3, text.as_bytes());
    attributes(scratch, 6, names, facts);
    wire::attribute(scratch, 6, names::LOG_RECORD_UID, Value::Text(&facts.id));
    wire::bytes(scratch, 9, &facts.trace_id);
    wire::bytes(scratch, 10, &facts.span_id);
    if let Some(flags) = facts.trace_flags {
        wire::fixed32(scratch, 8, flags.into());
    }
    wire::bytes(scratch, 12, LOG_NAME.as_bytes());
    // The body may be large: its length is known beforehand, so that it is copied once.
    let any = body.map(|body| wire::delimited_len(body.len()));
    let length = scratch.len() + any.map_or(0, wire::delimited_len);
    wire::length_delimited(piece, RECORDS, length);
    piece.extend_from_slice(scratch);
    if let (Some(body), Some(any)) = (body, any) {
        wire::length_delimited(piece, 5, any);
        wire::bytes(piece, 1, body.as_bytes());
    }
}

/// Writes a span into `piece`, to be joined with others of its scope.
pub fn span(piece: &mut Vec<u8>, names: Names, facts: &Facts<'_>, conversation: Option<&Conversation>) {
    const CLIENT: u64 = 3;
    const STATUS_ERROR: u64 = 2;
    /// Two bits beside the trace flags: that it is known where the parent is, and that it is elsewhere.
    const PARENT_IS_REMOTE: u32 = 0x300;
    wire::message(piece, RECORDS, |span| {
        wire::bytes(span, 1, &facts.trace_id);
        wire::bytes(span, 2, &facts.span_id);
        if let Some(parent) = &facts.parent_span_id {
            wire::bytes(span, 4, parent);
        }
        let model = facts.fields.text(Field::RequestModel);
        match &model {
            Some(model) => wire::bytes(span, 5, format!("{} {model}", facts.operation.name).as_bytes()),
            None => wire::bytes(span, 5, facts.operation.name.as_bytes()),
        }
        wire::uint(span, 6, CLIENT);
        wire::fixed64(span, 7, facts.start);
        wire::fixed64(span, 8, facts.end);
        attributes(span, 9, names, facts);
        for (name, text) in conversation.into_iter().flat_map(Conversation::attributes) {
            wire::attribute(span, 9, name, Value::Text(text));
        }
        if let Some(flags) = facts.trace_flags {
            let parent = if facts.parent_span_id.is_some() { PARENT_IS_REMOTE } else { 0 };
            wire::fixed32(span, 16, u32::from(flags) | parent);
        }
        if let Some(error) = &facts.error {
            wire::message(span, 15, |status| {
                wire::bytes(status, 2, error.as_bytes());
                wire::uint(status, 3, STATUS_ERROR);
            });
        }
    });
}

/// Writes the attributes that the record has, as field `number`.
fn attributes(buffer: &mut Vec<u8>, number: u32, names: Names, facts: &Facts<'_>) {
    names.attributes().for_each(|row| attribute(buffer, number, row, facts));
}

/// Writes an attribute as field `number`, where the record has it.
pub fn attribute(buffer: &mut Vec<u8>, number: u32, row: &Attribute, facts: &Facts<'_>) {
    let fields = &facts.fields;
    let mut put = |value: Value<'_>| wire::attribute(buffer, number, row.name, value);
    let mut put_text = |text: Option<&str>| text.into_iter().for_each(|text| put(Value::Text(text)));
    match row.source {
        Source::Operation => put_text(Some(facts.operation.name)),
        Source::ApiType => put_text(fields.text(Field::Path).as_deref().and_then(api_type)),
        Source::Provider => put_text(fields.text(Field::Provider).as_deref().map(names::provider)),
        Source::Conversation => put_text(conversation(facts).as_deref()),
        Source::ErrorType => put_text(facts.error.as_deref()),
        Source::Text(field) => put_text(fields.text(field).as_deref()),
        Source::OutputType => put_text(output_type(facts)),
        Source::ReasoningLevel => put_text(reasoning_level(facts).as_deref()),
        Source::TextOfAnswer(member) => {
            put_text(facts.answer.raw(member).and_then(json_text).as_deref());
        }
        Source::Whole(field) => whole(fields.whole(field)).into_iter().for_each(put),
        Source::Usage(field) => {
            let used = fields.whole(field).filter(|_| facts.operation.work != Work::None);
            whole(used).into_iter().for_each(put);
        }
        Source::WholeOf(members) => {
            parameter(facts, members, json_whole).map(Value::Whole).into_iter().for_each(put);
        }
        Source::Choices => {
            let choices = parameter(facts, &["n"], json_whole).filter(|choices| *choices != 1);
            choices.map(Value::Whole).into_iter().for_each(put);
        }
        Source::Number(field) => fields.number(field).map(Value::Number).into_iter().for_each(put),
        Source::NumberOf(members) => {
            parameter(facts, members, json_number).map(Value::Number).into_iter().for_each(put);
        }
        Source::Seconds(field) => seconds(facts, field).map(Value::Number).into_iter().for_each(put),
        Source::SecondsOfStream(field) => {
            let time = seconds(facts, field).filter(|_| is_stream(facts));
            time.map(Value::Number).into_iter().for_each(put);
        }
        Source::True(field) => {
            (fields.flag(field) == Some(true)).then_some(Value::Flag(true)).into_iter().for_each(put);
        }
        Source::FinishReasons => put_texts(buffer, number, row, finish_reasons(facts)),
        Source::Texts(field) => put_texts(buffer, number, row, fields.raw(field).map(json_texts)),
        Source::TextsOf(members) => {
            put_texts(buffer, number, row, parameter(facts, members, |raw| Some(json_texts(raw))));
        }
    }
}

fn put_texts(buffer: &mut Vec<u8>, number: u32, row: &Attribute, texts: Option<Vec<String>>) {
    if let Some(texts) = texts.filter(|texts| !texts.is_empty()) {
        wire::text_list(buffer, number, row.name, &texts);
    }
}

fn whole(number: Option<u64>) -> Option<Value<'static>> {
    number.map(|whole| Value::Whole(i64::try_from(whole).unwrap_or(i64::MAX)))
}

/// The first of these parameters that is what `read` reads.
fn parameter<T>(facts: &Facts<'_>, members: &[&str], read: impl Fn(&str) -> Option<T>) -> Option<T> {
    members.iter().find_map(|member| read(facts.parameters.raw(member)?))
}

fn json_text(raw: &str) -> Option<String> {
    match json::value(raw) {
        serde_json::Value::String(text) if raw.starts_with('"') && !text.is_empty() => Some(text),
        _ => None,
    }
}

fn json_whole(raw: &str) -> Option<i64> {
    raw.parse().ok()
}

fn json_number(raw: &str) -> Option<f64> {
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    raw.parse().ok().filter(|number: &f64| is_number && number.is_finite())
}

/// A text, or a list of texts.
fn json_texts(raw: &str) -> Vec<String> {
    match json::value(raw) {
        serde_json::Value::String(text) => vec![text],
        serde_json::Value::Array(list) => {
            list.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// The record's reasons. A stream that was cut has `error`, which the conventions want in place of a reason that is missing.
fn finish_reasons(facts: &Facts<'_>) -> Option<Vec<String>> {
    let reasons =
        facts.fields.raw(Field::FinishReasons).map(json_texts).filter(|reasons| !reasons.is_empty());
    let was_cut = || facts.error.is_some() && is_stream(facts) && facts.operation.work == Work::Inference;
    reasons.or_else(|| was_cut().then(|| vec![CUT.to_owned()]))
}

/// The thread, unless the gateway made it up from the record's id.
fn conversation<'a>(facts: &Facts<'a>) -> Option<Cow<'a, str>> {
    facts.fields.text(Field::ThreadId).filter(|thread| {
        let short = thread.strip_prefix("msg_");
        **thread != *facts.id && !short.is_some_and(|id| is_id(id, &facts.id))
    })
}

/// What the client asks for: by the path, else by the format that the request names.
fn output_type(facts: &Facts<'_>) -> Option<&'static str> {
    let path = facts.fields.text(Field::Path).unwrap_or_default();
    if path.contains("/images/") {
        return Some("image");
    }
    if path.ends_with("/audio/speech") {
        return Some("speech");
    }
    let modalities = facts.parameters.raw("modalities").map(json_texts).unwrap_or_default();
    if modalities.iter().any(|modality| modality == "audio") {
        return Some("speech");
    }
    let format = |raw: &str, pointer: &str| json::value(raw).pointer(pointer)?.as_str().map(str::to_owned);
    let chat = facts.parameters.raw("response_format").and_then(|raw| format(raw, "/type"));
    let responses = || facts.parameters.raw("text").and_then(|raw| format(raw, "/format/type"));
    match chat.or_else(responses)?.as_str() {
        "text" => Some("text"),
        "json_object" | "json_schema" => Some("json"),
        _ => None,
    }
}

/// The level in the provider's own word: chat's member, or that of responses.
fn reasoning_level(facts: &Facts<'_>) -> Option<String> {
    let of_chat = facts.parameters.raw("reasoning_effort").and_then(json_text);
    of_chat.or_else(|| {
        let reasoning = json::value(facts.parameters.raw("reasoning")?);
        reasoning["effort"].as_str().map(str::to_owned)
    })
}

/// Whether these are the digits of that UUID.
fn is_id(digits: &str, id: &str) -> bool {
    digits.chars().eq(id.chars().filter(|c| *c != '-'))
}

/// Milliseconds as seconds.
#[must_use]
pub fn seconds(facts: &Facts<'_>, field: Field) -> Option<f64> {
    facts.fields.number(field).map(|milliseconds| milliseconds / 1000.0)
}

/// Whether the answer was a stream.
#[must_use]
pub fn is_stream(facts: &Facts<'_>) -> bool {
    facts.fields.flag(Field::IsStreaming) == Some(true)
}
