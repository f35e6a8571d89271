//! Records as log entries: <https://docs.datadoghq.com/api/latest/logs/send-logs/>.
//!
//! An entry is the record's log form with Datadog's own attributes before it. The bodies are spliced, not parsed.

use std::io::{self, Write};

use exporter_kit::{
    failure,
    pack::{Frame, Limits, Packer},
    source::Sources,
    summary,
};
use plugin_api::{Field, Fields, Record, RecordLog};
use serde::Serialize;

use crate::identity::{self, Identity, TagsOf};

/// Most bytes of an entry. A larger one is accepted and cut without a word. The page says 1 MB; this is the smaller
/// reading.
pub const MAX_ENTRY: usize = 1_000_000;

/// Most entries and bytes of a request, before compression.
pub const LIMITS: Limits = Limits { max_records: 1_000, max_bytes: 5_000_000 };

/// Packs entries into requests.
#[must_use]
pub fn packer() -> Packer {
    Packer::new(Frame::JSON_ARRAY, LIMITS)
}

/// Writes the entry of a record into `entry`: with the bodies, or without where it would be cut with them.
///
/// # Errors
/// Why the record cannot be an entry: it is no record, or too large even so.
pub fn encode(
    entry: &mut Vec<u8>,
    who: &Identity,
    record: Record<'_>,
    fields: &Fields<'_>,
) -> Result<(), String> {
    let (log, from) = (record.to_otel_log(), Sources::of(record, fields));
    // Bodies that do not fit alone need not be copied to find out.
    if record.size() <= MAX_ENTRY {
        write(entry, who, from, log).map_err(|error| error.to_string())?;
        if entry.len() <= MAX_ENTRY {
            return Ok(());
        }
    }
    write(entry, who, from, log.without_bodies()).map_err(|error| error.to_string())?;
    if entry.len() <= MAX_ENTRY {
        return Ok(());
    }
    Err(format!("the log entry has {} bytes without its bodies; Datadog cuts entries over 1 MB", entry.len()))
}

fn write(entry: &mut Vec<u8>, who: &Identity, from: Sources<'_>, log: RecordLog<'_>) -> io::Result<()> {
    let fields = from.fields;
    entry.clear();
    entry.extend_from_slice(b"{\"ddsource\":");
    json(entry, &who.source)?;
    entry.extend_from_slice(b",\"ddtags\":\"");
    write_tags(entry, who, from);
    entry.extend_from_slice(b"\",\"service\":");
    json(entry, &who.service(fields))?;
    if let Some(hostname) = &who.hostname {
        entry.extend_from_slice(b",\"hostname\":");
        json(entry, hostname)?;
    }
    let is_error = fields.text(Field::Status).is_none_or(|status| status != "success");
    write!(entry, ",\"status\":\"{}\",\"message\":", if is_error { "error" } else { "info" })?;
    json(entry, &summary::line(fields))?;
    write_attributes(entry, from)?;
    let brace = entry.len();
    log.write_to(entry)?;
    // The log form is an object too: its members follow ours.
    entry[brace] = b',';
    Ok(())
}

/// Tags need no escapes: see [`crate::tag`].
fn write_tags(entry: &mut Vec<u8>, who: &Identity, from: Sources<'_>) {
    let model = identity::model(from.fields);
    let start = entry.len();
    who.tags(TagsOf::Event, from, model.as_deref(), |tag| {
        if entry.len() > start {
            entry.push(b',');
        }
        entry.extend_from_slice(tag.as_bytes());
    });
}

/// Datadog's standard attributes: <https://docs.datadoghq.com/standard-attributes/>. Dashboards and facets know them.
fn write_attributes(entry: &mut Vec<u8>, from: Sources<'_>) -> io::Result<()> {
    let fields = from.fields;
    let method = fields.raw(Field::Method).unwrap_or("null");
    let path = fields.raw(Field::Path).unwrap_or("null");
    write!(entry, ",\"http\":{{\"method\":{method},\"url_details\":{{\"path\":{path}}}")?;
    if let Some(status) = fields.whole(Field::StatusCode) {
        write!(entry, ",\"status_code\":{status}")?;
    }
    entry.push(b'}');
    if let Some(milliseconds) = fields.number(Field::TotalLatency) {
        write!(entry, ",\"duration\":{}", nanoseconds(milliseconds))?;
    }
    let known = |field| fields.raw(field).filter(|raw| *raw != "null");
    if let Some(user) = known(Field::UserId) {
        write!(entry, ",\"usr\":{{\"id\":{user}}}")?;
    }
    if let Some(message) = failure::message(from) {
        entry.extend_from_slice(b",\"error\":{\"message\":");
        json(entry, &message)?;
        if let Some(kind) = known(Field::ErrorType) {
            write!(entry, ",\"kind\":{kind}")?;
        }
        entry.push(b'}');
    }
    let id = |field| fields.text(field).as_deref().and_then(datadog_id);
    if let (Some(trace), Some(span)) = (id(Field::TraceId), id(Field::SpanId)) {
        write!(entry, ",\"dd\":{{\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}")?;
    }
    Ok(())
}

/// A W3C id as Datadog's correlation of logs and traces has it: the lower 64 bits, decimal
/// (<https://docs.datadoghq.com/tracing/other_telemetry/connect_logs_and_traces/opentelemetry/>). The whole id stands
/// in `trace_id`.
#[must_use]
pub fn datadog_id(hexadecimal: &str) -> Option<u64> {
    let lower = hexadecimal.get(hexadecimal.len().checked_sub(16)?..)?;
    u64::from_str_radix(lower, 16).ok()
}

/// A duration as Datadog counts it.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is meant"
)]
pub fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6).round() as u64
}

fn json(entry: &mut Vec<u8>, text: &(impl Serialize + ?Sized)) -> io::Result<()> {
    Ok(serde_json::to_writer(entry, text)?)
}
