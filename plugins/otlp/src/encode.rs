//! A record as a log record and as a span. Pure.

use plugin_api::{Field, LOG_NAME};

use crate::{
    conversation::Conversation,
    facts::Facts,
    names::{self, Attribute, Source},
    wire::{self, Value},
};

/// Number of the field that holds the records of a `ScopeLogs`, `ScopeSpans` or `ScopeMetrics`.
const RECORDS: u32 = 2;

/// `SeverityNumber` and its text.
const INFO: (u64, &str) = (9, "INFO");
const ERROR: (u64, &str) = (17, "ERROR");

/// Writes a log record into `piece`, to be joined with others of its scope. `body` is the record's log form; `scratch`
/// is memory to work in.
pub fn log(piece: &mut Vec<u8>, scratch: &mut Vec<u8>, facts: &Facts<'_>, observed: u64, body: Option<&str>) {
    scratch.clear();
    let (number, text) = if facts.error.is_some() { ERROR } else { INFO };
    wire::fixed64(scratch, 1, facts.start);
    wire::fixed64(scratch, 11, observed);
    wire::uint(scratch, 2, number);
    wire::bytes(scratch, 3, text.as_bytes());
    attributes(scratch, 6, names::ATTRIBUTES, facts);
    wire::attribute(scratch, 6, names::LOG_RECORD_UID, Value::Text(&facts.id));
    wire::bytes(scratch, 9, &facts.trace_id);
    wire::bytes(scratch, 10, &facts.span_id);
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
pub fn span(piece: &mut Vec<u8>, facts: &Facts<'_>, conversation: Option<&Conversation>) {
    const CLIENT: u64 = 3;
    const STATUS_ERROR: u64 = 2;
    wire::message(piece, RECORDS, |span| {
        wire::bytes(span, 1, &facts.trace_id);
        wire::bytes(span, 2, &facts.span_id);
        let model = facts.fields.text(Field::RequestModel);
        match &model {
            Some(model) => wire::bytes(span, 5, format!("{} {model}", facts.operation).as_bytes()),
            None => wire::bytes(span, 5, facts.operation.as_bytes()),
        }
        wire::uint(span, 6, CLIENT);
        wire::fixed64(span, 7, facts.start);
        wire::fixed64(span, 8, facts.end);
        attributes(span, 9, names::ATTRIBUTES, facts);
        for (name, text) in conversation.into_iter().flat_map(Conversation::attributes) {
            wire::attribute(span, 9, name, Value::Text(text));
        }
        if let Some(error) = &facts.error {
            wire::message(span, 15, |status| {
                wire::bytes(status, 2, error.as_bytes());
                wire::uint(status, 3, STATUS_ERROR);
            });
        }
    });
}

/// Writes those attributes of a table that the record has, as field `number`.
pub fn attributes(buffer: &mut Vec<u8>, number: u32, table: &[Attribute], facts: &Facts<'_>) {
    for attribute in table {
        write_attribute(buffer, number, attribute, facts);
    }
}

fn write_attribute(buffer: &mut Vec<u8>, number: u32, attribute: &Attribute, facts: &Facts<'_>) {
    let fields = &facts.fields;
    let mut put = |value: Value<'_>| wire::attribute(buffer, number, attribute.name, value);
    match attribute.source {
        Source::Operation => put(Value::Text(facts.operation)),
        Source::Provider => {
            fields.text(Field::Provider).iter().for_each(|name| put(Value::Text(names::provider(name))));
        }
        Source::Conversation => {
            let own = |thread: &str| {
                thread == facts.id || thread.strip_prefix("msg_").is_some_and(|id| is_id(id, &facts.id))
            };
            fields
                .text(Field::ThreadId)
                .iter()
                .filter(|thread| !own(thread))
                .for_each(|thread| put(Value::Text(thread)));
        }
        Source::ErrorType => facts.error.iter().for_each(|error| put(Value::Text(error))),
        Source::Text(field) => fields.text(field).iter().for_each(|text| put(Value::Text(text))),
        Source::Whole(field) => {
            let whole = fields.whole(field).map(|whole| i64::try_from(whole).unwrap_or(i64::MAX));
            whole.into_iter().for_each(|whole| put(Value::Whole(whole)));
        }
        Source::Number(field) => {
            fields.number(field).into_iter().for_each(|number| put(Value::Number(number)));
        }
        Source::Seconds(field) => seconds(facts, field).into_iter().for_each(|time| put(Value::Number(time))),
        Source::SecondsOfStream(field) => {
            let time = seconds(facts, field).filter(|_| is_stream(facts));
            time.into_iter().for_each(|time| put(Value::Number(time)));
        }
        Source::True(field) => {
            if fields.flag(field) == Some(true) {
                put(Value::Flag(true));
            }
        }
        Source::Texts(field) => {
            let texts: Option<Vec<String>> = fields.raw(field).and_then(|raw| serde_json::from_str(raw).ok());
            if let Some(texts) = texts.filter(|texts| !texts.is_empty()) {
                wire::text_list(buffer, number, attribute.name, &texts);
            }
        }
    }
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
