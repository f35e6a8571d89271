//! `POST /api/v2/logs`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json, value::RawValue};

use super::{Kept, Key, LOG_MAX_AGE_HOURS, LOG_MAX_BYTES, LOGS_MAX_BYTES, LOGS_MAX_ENTRIES, key, unreadable};
use crate::{
    message::{Answer, Request},
    script::{Fate, Script},
    when,
};

/// A log entry as Datadog keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLog {
    /// The entry. When it was cut: its `message` shortened by what was too much, or, when that is not long enough, the
    /// beginning of the entry's text as `message` and nothing else. Where Datadog cuts is not documented.
    pub entry: Value,
    /// The size of its JSON text as sent.
    pub size: usize,
    /// Whether it was over 1 MB.
    pub was_cut: bool,
}

pub(super) fn answer(kept: &mut Kept, request: &Request, script: &Script) -> Option<Answer> {
    let entries = match accepted(request) {
        Ok(entries) => entries,
        Err((status, detail)) => return Some(refusal(status, &detail)),
    };
    let logs: Vec<StoredLog> = entries.iter().map(|raw| stored(raw)).collect();
    match script.judge_whole(logs.iter().map(|log| &log.entry)) {
        Fate::Take => {}
        Fate::Retry => return Some(refusal(429, "Too many requests: the script says so")),
        Fate::Refuse => return Some(refusal(400, "Bad request: the script says so")),
        Fate::Stall => return None,
    }
    let now = when::now_ms();
    for log in logs {
        if is_too_old(&log.entry, now) {
            kept.dropped.push(log.entry);
        } else {
            kept.logs.push(log);
        }
    }
    Some(Answer::json(202, &json!({})))
}

/// The statuses: <https://docs.datadoghq.com/api/latest/logs/send-logs/>.
fn accepted(request: &Request) -> Result<Vec<Box<RawValue>>, (u16, String)> {
    match key(request) {
        Key::Right => {}
        Key::Missing => return Err((401, "Unauthorized".to_owned())),
        Key::Wrong => return Err((403, "Forbidden".to_owned())),
    }
    // Text and logplex are taken too, and would store a JSON array as one message: never what an exporter means.
    if request.content_type() != "application/json" {
        return Err((400, format!("Content-Type is {:?}, not application/json", request.content_type())));
    }
    if let Some(why) = &request.unreadable {
        return Err((400, unreadable(why)));
    }
    if request.body.len() > LOGS_MAX_BYTES {
        return Err((413, format!("{} bytes uncompressed; at most {LOGS_MAX_BYTES}", request.body.len())));
    }
    let entries = entries(&request.body).map_err(|why| (400, why))?;
    if entries.len() > LOGS_MAX_ENTRIES {
        return Err((413, format!("{} entries; at most {LOGS_MAX_ENTRIES}", entries.len())));
    }
    Ok(entries)
}

/// An array of objects, or one object.
fn entries(body: &[u8]) -> Result<Vec<Box<RawValue>>, String> {
    let one: Box<RawValue> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let is_array = one.get().starts_with('[');
    let all: Vec<Box<RawValue>> =
        if is_array { serde_json::from_str(one.get()).map_err(|e| e.to_string())? } else { vec![one] };
    let are_objects = all.iter().all(|entry| entry.get().starts_with('{'));
    if are_objects { Ok(all) } else { Err("an entry is not an object".to_owned()) }
}

fn stored(raw: &RawValue) -> StoredLog {
    let (entry, was_cut) = match raw.get().len().checked_sub(LOG_MAX_BYTES) {
        None | Some(0) => (lenient(raw.get()), false),
        Some(excess) => (cut(raw.get(), excess), true),
    };
    StoredLog { entry, size: raw.get().len(), was_cut }
}

/// JSON of any depth, with any number and any escape: what `Value` cannot hold stays its own text. How Datadog reads it
/// is not documented.
fn lenient(text: &str) -> Value {
    let parsed = serde_json::from_str(text).ok();
    let members = || serde_json::from_str::<BTreeMap<String, &RawValue>>(text).ok();
    let object = |members: BTreeMap<String, &RawValue>| {
        members.into_iter().map(|(name, value)| (name, lenient(value.get()))).collect()
    };
    parsed.or_else(|| members().map(object)).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn cut(text: &str, excess: usize) -> Value {
    let mut entry = lenient(text);
    match entry.get_mut("message") {
        Some(Value::String(message)) if message.len() > excess => {
            message.truncate(message.floor_char_boundary(message.len() - excess));
            entry
        }
        _ => json!({ "message": &text[..text.floor_char_boundary(LOG_MAX_BYTES)] }),
    }
}

fn is_too_old(entry: &Value, now_ms: i64) -> bool {
    let oldest = now_ms - when::millis(Duration::from_hours(LOG_MAX_AGE_HOURS));
    entry.get("timestamp").and_then(when::epoch_ms).is_some_and(|time| time < oldest)
}

/// The v2 error shape: <https://docs.datadoghq.com/api/latest/logs/send-logs/>.
fn refusal(status: u16, detail: &str) -> Answer {
    let error = json!({ "status": status.to_string(), "title": "Error", "detail": detail });
    Answer::json(status, &json!({ "errors": [error] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_too_old_after_eighteen_hours_to_the_millisecond() {
        let now = 1_700_000_000_000;
        let limit = now - 18 * 3_600_000;
        for (time, expect) in [(limit - 1, true), (limit, false), (limit + 1, false), (now, false)] {
            assert_eq!(is_too_old(&json!({ "timestamp": time }), now), expect, "{time}");
        }
        assert!(is_too_old(&json!({ "timestamp": "2023-11-13T00:00:00Z" }), now));
        assert!(!is_too_old(&json!({ "message": "no time" }), now));
    }
}
