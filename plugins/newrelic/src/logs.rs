//! Records as log entries: <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>.
//!
//! An entry has flat attributes under the record's own names, those excepted that New Relic has names for. What is
//! unknown is left out. The bodies are cut into pieces and not parsed.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use exporter_kit::{
    failure,
    pack::{Frame, Limits, Packer},
    record_tags::RecordTag,
    source::Sources,
    summary,
};
use plugin_api::{BodyDescription, Field, Fields};
use serde::Serialize;

use crate::{
    config::{Bodies, MAX_ATTRIBUTES, MAX_RECORD_TAGS},
    text,
};

/// Most attributes of an entry. One with more is lost.
pub const MAX_ENTRY_ATTRIBUTES: usize = 255;

/// Most pieces of both bodies together.
pub const MAX_PIECES: usize =
    MAX_ENTRY_ATTRIBUTES - Field::ALL.len() - OTHERS - MAX_ATTRIBUTES - MAX_RECORD_TAGS;

/// Attributes beside the fields, the pieces and the operator's: `message`, `timestamp`, `level`, `logtype`, `hostname`,
/// `error.message`, and two more for each description of a body.
const OTHERS: usize = 10;
const _: () = assert!(MAX_PIECES >= 100, "two bodies of some size have no room");

/// Most bytes of a request. New Relic does not say whether it counts them before or after compression: before it is the
/// smaller reading, and needs no compression to find out.
pub const MAX_BYTES: usize = 1_000_000;

/// Kept free for `truncated`, which is written last: its characters as escapes of six bytes, its name, and brackets.
const TAIL: usize = 6 * text::MAX_CHARS + 40;

/// Before and after the entries; [`prefix`] stands before that.
const FRAME: Frame = Frame { open: b"\"logs\":[", between: b",", close: b"]}]" };

/// What a request begins with; `common` are attributes as a JSON object.
#[must_use]
pub fn prefix(common: &str) -> String {
    format!("[{{\"common\":{{\"attributes\":{common}}},")
}

/// Packs entries into requests that begin with `prefix`.
#[must_use]
pub fn packer(prefix: &str) -> Packer {
    Packer::new(FRAME, Limits { max_records: 1_000, max_bytes: MAX_BYTES - prefix.len() })
}

/// Most bytes of an entry in a request that begins with `prefix`.
#[must_use]
pub fn max_entry(prefix: &str) -> usize {
    MAX_BYTES - prefix.len() - FRAME.open.len() - FRAME.close.len()
}

/// What becomes of records.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// What becomes of their bodies.
    pub bodies: Bodies,
    /// Attributes that show what they say.
    pub tags: &'a [RecordTag],
    /// Most bytes of an entry.
    pub max: usize,
}

/// Writes the entry of a record at this time (milliseconds since 1970) into `entry`: at most `max` bytes, as long as
/// `max` has room for the fields. A body that does not fit is left out whole.
///
/// # Errors
/// Those of the JSON; a bug.
pub fn encode(entry: &mut Vec<u8>, from: Sources<'_>, time: u64, how: How<'_>) -> io::Result<()> {
    let (fields, How { bodies, tags, max }) = (from.fields, how);
    entry.clear();
    let mut entry = Entry { json: entry, truncated: truncated(fields), pieces: 0, max };
    write!(entry.json, "{{\"timestamp\":{time},\"message\":")?;
    entry.json(&*text::value(&summary::line(fields)).0)?;
    let is_error = fields.text(Field::Status).is_none_or(|status| status != "success");
    write!(entry.json, ",\"attributes\":{{\"level\":\"{}\"", if is_error { "ERROR" } else { "INFO" })?;
    for field in Field::ALL {
        entry.field(*field, fields)?;
    }
    if let Some(message) = failure::message(from) {
        entry.text("error.message", &message)?;
    }
    for tag in tags {
        if let Some(value) = tag.value(from) {
            entry.text(&tag.name, &value)?;
        }
    }
    if bodies != Bodies::Off {
        let is_summary = bodies == Bodies::Summary;
        entry.body("request", from.request, is_summary)?;
        entry.body("response", from.response, is_summary)?;
    }
    if !entry.truncated.is_empty() {
        let truncated = entry.truncated.join(",");
        entry.text("truncated", &truncated)?;
    }
    entry.json.extend_from_slice(b"}}");
    Ok(())
}

/// An entry under way.
struct Entry<'a> {
    json: &'a mut Vec<u8>,
    /// What is missing or cut.
    truncated: Vec<String>,
    pieces: usize,
    max: usize,
}

impl Entry<'_> {
    /// A field as the attribute it becomes.
    fn field(&mut self, field: Field, fields: &Fields<'_>) -> io::Result<()> {
        let name = match field {
            // They stand elsewhere.
            Field::Timestamp | Field::Truncated => return Ok(()),
            Field::RequestBody | Field::ResponseBody => return self.description(field, fields),
            // Logs in context find each other, and OpenTelemetry's services, by these.
            Field::TraceId => "trace.id",
            Field::SpanId => "span.id",
            Field::ServiceName => "service.name",
            Field::ServiceVersion => "service.version",
            Field::Environment => "deployment.environment",
            _ => field.name(),
        };
        if let Some(text) = fields.text(field).or_else(|| list(fields, field)) {
            return self.text(name, &text);
        }
        if let Some(flag) = fields.flag(field) {
            return write!(self.json, ",\"{name}\":{flag}");
        }
        // What is no `long` is a `double`.
        match (fields.whole(field).filter(|whole| i64::try_from(*whole).is_ok()), fields.number(field)) {
            (Some(whole), _) => write!(self.json, ",\"{name}\":{whole}"),
            (None, Some(number)) => {
                write!(self.json, ",\"{name}\":")?;
                self.json(&number)
            }
            (None, None) => Ok(()),
        }
    }

    /// What a body was that is not JSON.
    fn description(&mut self, field: Field, fields: &Fields<'_>) -> io::Result<()> {
        let raw = fields.raw(field).unwrap_or("null");
        let Some(body): Option<BodyDescription<'_>> = serde_json::from_str(raw)? else { return Ok(()) };
        let name = field.name();
        write!(self.json, ",\"{name}.size\":{}", i64::try_from(body.size).unwrap_or(i64::MAX))?;
        for (part, value) in [("content_type", body.content_type), ("sha256", body.sha256)] {
            if let Some(value) = value {
                self.text(&format!("{name}.{part}"), &value)?;
            }
        }
        Ok(())
    }

    /// A text, named as truncated where it is cut.
    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        let (value, is_cut) = text::value(text);
        if is_cut {
            self.truncated.push(name.to_owned());
        }
        write!(self.json, ",\"{name}\":")?;
        self.json(&*value)
    }

    /// A body in pieces; or nothing of it, and its name as truncated.
    fn body(&mut self, name: &str, body: &[u8], is_summary: bool) -> io::Result<()> {
        let (start, pieces) = (self.json.len(), self.pieces);
        if !self.pieces(name, body, is_summary)? {
            self.json.truncate(start);
            self.pieces = pieces;
        }
        Ok(())
    }

    /// Whether the body fits, or what of it is wanted. Otherwise some pieces may be there.
    fn pieces(&mut self, name: &str, body: &[u8], is_summary: bool) -> io::Result<bool> {
        let Ok(text) = str::from_utf8(body) else { return Ok(self.leave_out(name)) };
        let text = if is_summary {
            let start = text::cut(text, text::MAX_CHARS);
            if start.len() < text.len() {
                self.leave_out(name);
            }
            start
        } else {
            text
        };
        if self.json.len() + text.len() + TAIL > self.max {
            return Ok(self.leave_out(name));
        }
        for (number, piece) in text::pieces(text).enumerate() {
            write!(self.json, ",\"{name}.{number}\":")?;
            self.json(piece)?;
            self.pieces += 1;
            if self.pieces > MAX_PIECES || self.json.len() + TAIL > self.max {
                return Ok(self.leave_out(name));
            }
        }
        Ok(true)
    }

    /// Names what is missing, once. Always false.
    fn leave_out(&mut self, name: &str) -> bool {
        if self.truncated.iter().all(|truncated| truncated != name) {
            self.truncated.push(name.to_owned());
        }
        false
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
        Ok(serde_json::to_writer(&mut *self.json, value)?)
    }
}

/// A field that is a list of texts, as one: New Relic takes no lists.
fn list<'a>(fields: &Fields<'a>, field: Field) -> Option<Cow<'a, str>> {
    let raw = fields.raw(field).filter(|raw| raw.starts_with('['))?;
    let texts: Vec<String> = serde_json::from_str(raw).ok()?;
    Some(texts.join(",").into())
}

/// What the gateway left out already.
fn truncated(fields: &Fields<'_>) -> Vec<String> {
    fields.raw(Field::Truncated).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default()
}
