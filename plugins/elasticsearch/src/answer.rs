//! What `_bulk` answers: a verdict on each record, in order.

use std::fmt;

use exporter_kit::excerpt::excerpt;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// What became of the records of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdicts {
    /// The cluster has all of so many.
    AllDelivered(usize),
    /// One for each, in the order sent.
    Each(Vec<Fate>),
}

/// What became of a record, with the cluster's own words where it was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The cluster has it, from now or from before.
    Delivered,
    /// Later.
    Retry(String),
    /// Never.
    Rejected(String),
    /// Not with these credentials.
    Unauthorized(String),
}

#[derive(Deserialize)]
struct Bulk<'a> {
    errors: bool,
    #[serde(borrow)]
    items: &'a RawValue,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    create: Create<'a>,
}

#[derive(Deserialize)]
struct Create<'a> {
    status: u16,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Reads a whole answer; where there are no errors, the items are only counted.
///
/// # Errors
/// When it is none, or half of one.
pub fn read(body: &[u8]) -> serde_json::Result<Verdicts> {
    let Bulk { errors, items } = serde_json::from_slice(body)?;
    if !errors {
        return Ok(Verdicts::AllDelivered(serde_json::from_str::<Count>(items.get())?.0));
    }
    let items: Vec<Item<'_>> = serde_json::from_str(items.get())?;
    Ok(Verdicts::Each(items.into_iter().map(|item| fate(item.create.status, item.create.error)).collect()))
}

/// Number of elements of an array.
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// Errors with status 400 or 403 that are the cluster's state and not the record's fault: too many shards, a name that
/// is no index's, a closed index, an index that is read-only because the disk is full.
const OF_THE_CLUSTER: [&str; 4] = [
    "validation_exception",
    "invalid_index_name_exception",
    "index_closed_exception",
    "cluster_block_exception",
];

fn fate(status: u16, error: Option<&RawValue>) -> Fate {
    if matches!(status, 200..=299 | 409) {
        // A conflict means that the record is there already: it was taken by a request whose answer was lost.
        return Fate::Delivered;
    }
    let problem = Problem::read(error);
    let text = format!("{status} {problem}");
    match status {
        400..=403 if OF_THE_CLUSTER.contains(&&*problem.kind) => Fate::Retry(text),
        401 | 403 => Fate::Unauthorized(text),
        404 => Fate::Retry(format!(
            "{text} (create the index, or allow the cluster to: action.auto_create_index)"
        )),
        408 | 425 | 429 | 500.. => Fate::Retry(text),
        _ => Fate::Rejected(text),
    }
}

/// An item's `error`.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Box<Problem>>,
}

impl Problem {
    /// A form that is not known is quoted as it is.
    fn read(error: Option<&RawValue>) -> Self {
        let Some(error) = error else { return Self::default() };
        serde_json::from_str(error.get())
            .unwrap_or_else(|_| Self { reason: Some(error.get().to_owned()), ..Self::default() })
    }
}

/// Characters of a reason that are passed on: it may quote what a user wrote.
const QUOTED: usize = 200;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason.as_deref().unwrap_or("no reason given");
        if !self.kind.is_empty() {
            write!(f, "{}: ", excerpt(&self.kind, QUOTED))?;
        }
        f.write_str(&excerpt(reason, QUOTED))?;
        match &self.caused_by {
            Some(cause) if cause.reason != self.reason => {
                let reason = cause.reason.as_deref().unwrap_or_default();
                write!(f, "; caused by {}: {}", excerpt(&cause.kind, QUOTED), excerpt(reason, QUOTED))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fate_of(status: u16, error: impl serde::Serialize) -> Fate {
        let answer = json!({ "errors": true, "items": [{ "create": { "status": status, "error": error } }] });
        match read(answer.to_string().as_bytes()).unwrap() {
            Verdicts::Each(mut fates) => fates.remove(0),
            all @ Verdicts::AllDelivered(_) => panic!("{all:?}"),
        }
    }

    #[test]
    fn each_item_has_its_own_fate() {
        let error = json!({ "type": "t", "reason": "r" });
        let text = |status: u16| format!("{status} t: r");
        for (status, expected) in [
            (200, Fate::Delivered),
            (201, Fate::Delivered),
            (409, Fate::Delivered),
            (408, Fate::Retry(text(408))),
            (429, Fate::Retry(text(429))),
            (500, Fate::Retry(text(500))),
            (502, Fate::Retry(text(502))),
            (503, Fate::Retry(text(503))),
            (504, Fate::Retry(text(504))),
            (400, Fate::Rejected(text(400))),
            (413, Fate::Rejected(text(413))),
            (401, Fate::Unauthorized(text(401))),
            (403, Fate::Unauthorized(text(403))),
        ] {
            assert_eq!(fate_of(status, &error), expected);
        }
        let missing = json!({ "type": "index_not_found_exception", "reason": "no such index [llm]" });
        let Fate::Retry(text) = fate_of(404, missing) else { panic!("an index can be made") };
        assert!(
            text.starts_with("404 index_not_found_exception: no such index [llm] (create the index"),
            "{text}"
        );
    }

    #[test]
    fn what_is_the_clusters_fault_is_not_the_records() {
        for (status, kind) in [
            (400, "validation_exception"),
            (400, "index_closed_exception"),
            (400, "invalid_index_name_exception"),
            (403, "cluster_block_exception"),
        ] {
            let fate = fate_of(status, json!({ "type": kind, "reason": "r" }));
            assert_eq!(fate, Fate::Retry(format!("{status} {kind}: r")));
        }
    }

    #[test]
    fn the_clusters_own_words_are_kept_short_and_on_one_line() {
        for (error, expected) in [
            (
                json!({ "type": "document_parsing_exception", "reason": "failed\n to parse",
                    "caused_by": { "type": "illegal_argument_exception", "reason": "no boolean" } }),
                "400 document_parsing_exception: failed to parse; caused by illegal_argument_exception: no boolean",
            ),
            (json!({ "type": "t", "reason": null, "caused_by": null }), "400 t: no reason given"),
            (json!("old form"), "400 \"old form\""),
            (json!(null), "400 no reason given"),
        ] {
            assert_eq!(fate_of(400, error), Fate::Rejected(expected.to_owned()));
        }
        let Fate::Rejected(long) = fate_of(400, json!({ "type": "t", "reason": "é".repeat(9999) })) else {
            panic!()
        };
        assert_eq!(long, format!("400 t: {}…", "é".repeat(QUOTED)));
    }

    #[test]
    fn without_errors_items_are_counted() {
        let answer =
            |items: &str| read(format!(r#"{{"errors":false,"items":[{items}]}}"#).as_bytes()).unwrap();
        assert_eq!(answer(""), Verdicts::AllDelivered(0));
        let items = r#"{"create":{"status":201}}, {"create":{"status":201}}"#;
        assert_eq!(answer(items), Verdicts::AllDelivered(2));
        let reordered = r#"{"items":[{"create":{"_id":"a","status":201}}],"took":3,"errors":false}"#;
        assert_eq!(read(reordered.as_bytes()).unwrap(), Verdicts::AllDelivered(1));
    }

    #[test]
    fn half_an_answer_is_none() {
        for errors in [true, false] {
            let whole = json!({ "errors": errors, "items": [{ "create": { "status": 201 } }] }).to_string();
            assert!(read(whole.as_bytes()).is_ok());
            for end in 0..whole.len() {
                assert!(read(&whole.as_bytes()[..end]).is_err(), "cut at {end}");
            }
        }
        for junk in [
            "<html>",
            "{}",
            r#"{"errors":false}"#,
            r#"{"errors":false,"items":7}"#,
            r#"{"errors":true,"items":[{}]}"#,
        ] {
            assert!(read(junk.as_bytes()).is_err(), "{junk}");
        }
    }
}
