//! The line of a dead letter: one JSON object, documented in `docs/operations.md`. The parts of the record are spliced
//! in and cut out as they are; nothing of a body is parsed into values.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::letter::{Cause, DeadLetter};

/// Written into every line. A change that an older reader would misunderstand takes the next number.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    version: u32,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    plugin: Cow<'a, str>,
    #[serde(borrow)]
    fate: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    streamed_data_at: Option<usize>,
    #[serde(borrow)]
    record: Parts<'a>,
}

/// An absent part is one that the record does not have; `null` is a body that says so.
#[derive(Serialize, Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metrics: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    request: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
}

fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// The letter as a line, with its line feed.
///
/// # Errors
/// When a part is no JSON, which a record's parts always are.
pub(super) fn encode(letter: &DeadLetter) -> Result<Vec<u8>, serde_json::Error> {
    let line = Line {
        version: VERSION,
        time: humantime::format_rfc3339_millis(letter.time).to_string().into(),
        plugin: (&*letter.plugin).into(),
        fate: (&*letter.cause.fate).into(),
        reason: (&*letter.cause.reason).into(),
        message: (&*letter.message).into(),
        attempts: letter.attempts,
        streamed_data_at: letter.before_streamed_data,
        record: Parts {
            metrics: serde_json::from_slice(&letter.metrics)?,
            request: part(&letter.request)?,
            response: part(&letter.response)?,
        },
    };
    let mut bytes = Vec::with_capacity(letter.size() + 256);
    serde_json::to_writer(&mut bytes, &line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn part(json: &[u8]) -> Result<Option<&RawValue>, serde_json::Error> {
    if json.is_empty() { Ok(None) } else { serde_json::from_slice(json).map(Some) }
}

/// Reads a line. What is not known is passed over, so that a later release can add to it.
///
/// # Errors
/// Why it cannot be read, in words. They quote nothing of the line, which may hold a prompt.
pub(crate) fn decode(line: &[u8]) -> Result<DeadLetter, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
    if version != VERSION {
        return Err(format!("it has version {version}, and this gateway reads version {VERSION}"));
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| unreadable(&error))?;
    let bytes = |part: Option<&RawValue>| {
        part.map_or_else(Bytes::new, |json| Bytes::copy_from_slice(json.get().as_bytes()))
    };
    let response = bytes(line.record.response);
    Ok(DeadLetter {
        id: id(line.record.metrics)?,
        time: humantime::parse_rfc3339(&line.time).map_err(|error| format!("`time`: {error}"))?,
        plugin: line.plugin.into(),
        cause: Cause { fate: line.fate.into_owned().into(), reason: line.reason.into_owned().into() },
        message: line.message.into_owned().into(),
        attempts: line.attempts,
        metrics: bytes(Some(line.record.metrics)),
        request: bytes(line.record.request),
        before_streamed_data: line.streamed_data_at.filter(|at| holds_streamed_data(&response, *at)),
        response,
    })
}

fn id(metrics: &RawValue) -> Result<Uuid, String> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let Id { id } = serde_json::from_str(metrics.get()).map_err(|error| unreadable(&error))?;
    id.parse().map_err(|_| "`record.metrics.id` is no UUID".to_owned())
}

/// Whether a response can be cut there: what is left must be JSON once it is closed.
fn holds_streamed_data(response: &[u8], at: usize) -> bool {
    let rest = response.get(at..).unwrap_or_default();
    let key: &[u8] = if at == 1 { b"\"streamed_data\":[" } else { b",\"streamed_data\":[" };
    rest.starts_with(key)
}

fn unreadable(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => "it is JSON, but not a dead letter".to_owned(),
        _ => format!("it is not JSON from column {} on", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn letter() -> DeadLetter {
        let response = br#"{"id":"c","streamed_data":[{"a":1}]}"#;
        DeadLetter {
            id: "0195668f-4d5b-7c6e-a7a3-0d8f5f0c1b2d".parse().unwrap(),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123),
            plugin: "elasticsearch".into(),
            cause: Cause { fate: "rejected".into(), reason: "record".into() },
            message: "mapper_parsing_exception: \"x\"".into(),
            attempts: 2,
            metrics: br#"{"id":"0195668f-4d5b-7c6e-a7a3-0d8f5f0c1b2d","cost":1.0e-3}"#[..].into(),
            request: br#"{"model": "m", "n":1.0}"#[..].into(),
            response: response[..].into(),
            before_streamed_data: Some(9),
        }
    }

    #[test]
    fn the_line_is_the_documented_one() {
        let line = String::from_utf8(encode(&letter()).unwrap()).unwrap();
        let expected = include_str!("golden.jsonl");
        assert_eq!(line, expected);
        let docs = include_str!("../../../../docs/operations.md");
        assert!(docs.contains(expected.trim_end()), "docs/operations.md shows another line than {expected}");
        assert_eq!(decode(expected.trim_end().as_bytes()), Ok(letter()));
    }

    #[test]
    fn absent_parts_stay_absent_and_a_body_that_is_null_stays_null() {
        for (request, response) in [("", ""), ("null", ""), ("", "[]"), ("{}", "null")] {
            let letter = DeadLetter {
                request: Bytes::copy_from_slice(request.as_bytes()),
                response: Bytes::copy_from_slice(response.as_bytes()),
                before_streamed_data: None,
                ..letter()
            };
            let line = encode(&letter).unwrap();
            let value: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(value["record"].get("request").is_some(), !request.is_empty());
            assert_eq!(decode(&line), Ok(letter), "{request} {response}");
        }
    }

    #[test]
    fn what_is_no_dead_letter_is_told_without_quoting_it() {
        let golden = include_str!("golden.jsonl");
        for (line, expected) in [
            ("", "not JSON"),
            (&golden[..golden.len() / 2], "not JSON"),
            ("{}", "not a dead letter"),
            ("[\"secret\"]", "not a dead letter"),
            (&golden.replace("\"version\":1", "\"version\":2"), "version 2"),
            (&golden.replace("\"id\":\"0195668f", "\"id\":\"secret68f"), "no UUID"),
            (&golden.replace("2025-03-05T", "secret "), "`time`"),
        ] {
            let problem = decode(line.trim_end().as_bytes()).unwrap_err();
            assert!(problem.contains(expected) && !problem.contains("secret"), "{line}: {problem}");
        }
    }

    #[test]
    fn a_later_release_may_add_keys() {
        let line = include_str!("golden.jsonl").replace("\"version\":1", "\"new\":[1],\"version\":1");
        assert_eq!(decode(line.as_bytes()), Ok(letter()));
    }

    #[test]
    fn a_place_to_cut_that_is_none_is_not_believed() {
        for at in [0, 8, 10, 1_000] {
            let line = include_str!("golden.jsonl")
                .replace("\"streamed_data_at\":9", &format!("\"streamed_data_at\":{at}"));
            assert_eq!(decode(line.as_bytes()).unwrap().before_streamed_data, None, "{at}");
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        let tree = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        tree.prop_map(|value| value.to_string())
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            request in json(), response in json(), message in any::<String>(), attempts in any::<u32>(),
            plugin in "[a-z]{1,9}", reason in any::<String>(),
        ) {
            let letter = DeadLetter {
                request: request.into(), response: response.into(), message: message.into(), attempts,
                plugin: plugin.into(), before_streamed_data: None,
                cause: Cause { fate: "dropped".into(), reason: reason.into() },
                ..letter()
            };
            let line = encode(&letter).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(decode(&line), Ok(letter));
        }
    }
}
