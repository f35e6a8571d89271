//! `POST /log/v1`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use super::{
    BLOB_MAX_BYTES, Kept, LOG_MAX_ATTRIBUTES, LOGS_MAX_BYTES, MAX_AGE_HOURS, NAME_MAX_CHARS, StoredLog,
    VALUE_MAX_CHARS, accepted, integration_error, payload, request_id,
};
use crate::{
    message::{Answer, Request},
    script::{Fate, Script},
    when,
};

/// <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/>, "HTTP headers".
const CONTENT_TYPES: [&str; 4] = ["application/json", "json", "application/gzip", "gzip"];
/// "Reserved attribute name. If it is included, it will be dropped during ingest." Same page.
const RESERVED: [&str; 2] = ["accountId", "eventType"];

type Attributes = BTreeMap<String, Value>;

pub(super) fn answer(kept: &mut Kept, request: &Request, script: &Script) -> Option<Answer> {
    let body = match payload(request, &CONTENT_TYPES, |size| size > LOGS_MAX_BYTES) {
        Ok(body) => body,
        Err(status) => return Some(Answer::empty(status)),
    };
    let Some(events) = events(&body) else { return Some(Answer::empty(400)) };
    let objects: Vec<Value> = events.iter().map(|event| event.clone().into_iter().collect()).collect();
    match script.judge_whole(&objects) {
        Fate::Take => {}
        Fate::Retry => return Some(Answer::empty(503)),
        Fate::Refuse => return Some(Answer::empty(400)),
        Fate::Stall => return None,
    }
    let (id, now) = (request_id(), when::now_ms());
    for event in events {
        match why_dropped(&event, now) {
            None => kept.logs.push(stored(event)),
            Some(why) => {
                kept.dropped_logs.push(event.into_iter().collect());
                kept.errors.push(integration_error("Logs", &id, &why));
            }
        }
    }
    Some(accepted(&id))
}

/// The events of a payload in the simple form (one object) or the detailed one (an array of objects with `logs`), each
/// as flat attributes.
fn events(body: &Value) -> Option<Vec<Attributes>> {
    let blocks = match body {
        Value::Object(event) => return Some(vec![flat(None, event)]),
        Value::Array(blocks) => blocks,
        _ => return None,
    };
    let mut events = Vec::new();
    for block in blocks {
        let common = match block.get("common") {
            None => None,
            Some(common) => Some(common.as_object()?),
        };
        for event in block.get("logs")?.as_array()? {
            events.push(flat(common, event.as_object()?));
        }
    }
    Some(events)
}

/// The event's own attributes win over the common ones, and both over those found in a `message` that is JSON. Which
/// wins is not documented.
fn flat(common: Option<&Map<String, Value>>, event: &Map<String, Value>) -> Attributes {
    let mut attributes = Attributes::new();
    for object in common.into_iter().chain([event]) {
        for (name, value) in object {
            match (name.as_str(), value) {
                ("attributes", Value::Object(nested)) => flatten(&mut attributes, "", nested),
                // "We will rewrite this string as the field `message` on ingest."
                ("log" | "LOG" | "MESSAGE", Value::String(_)) => {
                    attributes.insert("message".to_owned(), value.clone());
                }
                _ => insert(&mut attributes, name.clone(), value),
            }
        }
    }
    // "Our log management capabilities will parse any `message` attribute as JSON."
    let message = attributes.get("message").and_then(Value::as_str);
    if let Some(Ok(Value::Object(parsed))) = message.map(serde_json::from_str::<Value>) {
        let mut inner = Attributes::new();
        flatten(&mut inner, "", &parsed);
        for (name, value) in inner {
            attributes.entry(name).or_insert(value);
        }
    }
    attributes
}

fn flatten(into: &mut Attributes, prefix: &str, object: &Map<String, Value>) {
    for (name, value) in object {
        insert(into, format!("{prefix}{name}"), value);
    }
}

fn insert(into: &mut Attributes, name: String, value: &Value) {
    match value {
        Value::Object(nested) => flatten(into, &format!("{name}."), nested),
        _ => {
            into.insert(name, value.clone());
        }
    }
}

fn why_dropped(event: &Attributes, now_ms: i64) -> Option<String> {
    if event.len() > LOG_MAX_ATTRIBUTES {
        return Some(format!("{} attributes; at most {LOG_MAX_ATTRIBUTES}", event.len()));
    }
    let oldest = now_ms - when::millis(Duration::from_hours(MAX_AGE_HOURS));
    let time = event.get("timestamp").and_then(when::epoch_ms)?;
    (time < oldest).then(|| format!("the timestamp is older than {MAX_AGE_HOURS} hours"))
}

fn stored(event: Attributes) -> StoredLog {
    let mut log = StoredLog { attributes: Attributes::new(), cut: Vec::new(), lost: Vec::new() };
    for (name, value) in event {
        // "Array: (unsupported)"; what becomes of one is not documented.
        let is_lost = name.chars().count() > NAME_MAX_CHARS || RESERVED.contains(&&*name) || value.is_array();
        match value {
            _ if is_lost => log.lost.push(name),
            Value::String(text) => store_text(&mut log, name, &text),
            other => {
                log.attributes.insert(name, other);
            }
        }
    }
    log
}

fn store_text(log: &mut StoredLog, name: String, text: &str) {
    let (field, blob, is_cut) = pieces(text);
    if is_cut {
        log.cut.push(name.clone());
    }
    if !blob.is_empty() {
        log.attributes.insert(format!("newrelic.ext.{name}"), blob.into());
    }
    log.attributes.insert(name, field.into());
}

/// The field, the blob, and whether something was left over.
/// <https://docs.newrelic.com/docs/logs/ui-data/long-logs-blobs/>
fn pieces(text: &str) -> (&str, &str, bool) {
    let end = text.char_indices().nth(VALUE_MAX_CHARS).map_or(text.len(), |(at, _)| at);
    let (field, rest) = text.split_at(end);
    let blob = &rest[..rest.floor_char_boundary(BLOB_MAX_BYTES)];
    (field, blob, blob.len() < rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_as_a_field_a_blob_and_no_more() {
        let full = VALUE_MAX_CHARS + BLOB_MAX_BYTES;
        for (length, field, blob, is_cut) in [
            (VALUE_MAX_CHARS - 1, VALUE_MAX_CHARS - 1, 0, false),
            (VALUE_MAX_CHARS, VALUE_MAX_CHARS, 0, false),
            (VALUE_MAX_CHARS + 1, VALUE_MAX_CHARS, 1, false),
            (full - 1, VALUE_MAX_CHARS, BLOB_MAX_BYTES - 1, false),
            (full, VALUE_MAX_CHARS, BLOB_MAX_BYTES, false),
            (full + 1, VALUE_MAX_CHARS, BLOB_MAX_BYTES, true),
        ] {
            let text = "x".repeat(length);
            let (f, b, c) = pieces(&text);
            assert_eq!((f.len(), b.len(), c), (field, blob, is_cut), "{length}");
        }
        // The field counts characters, the blob bytes.
        let text = "é".repeat(VALUE_MAX_CHARS + BLOB_MAX_BYTES / 2 + 1);
        let (field, blob, is_cut) = pieces(&text);
        assert_eq!((field.chars().count(), blob.len(), is_cut), (VALUE_MAX_CHARS, BLOB_MAX_BYTES, true));
    }

    #[test]
    fn an_event_is_dropped_for_its_age_and_for_its_attributes() {
        let now = 1_700_000_000_000_i64;
        let limit = now - 48 * 3_600_000;
        for (time, dropped) in [(limit - 1, true), (limit, false), (limit + 1, false)] {
            let event = Attributes::from([("timestamp".to_owned(), time.into())]);
            assert_eq!(why_dropped(&event, now).is_some(), dropped, "{time}");
        }
        for (count, dropped) in [(254, false), (255, false), (256, true)] {
            let event: Attributes = (0..count).map(|n| (format!("a{n}"), n.into())).collect();
            assert_eq!(why_dropped(&event, now).is_some(), dropped, "{count}");
        }
    }
}
