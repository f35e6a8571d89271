//! What an answer says of itself beside model and usage: its id, why the model stopped, the tier, the searches made for it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    dialect::Api,
    exchange::id,
    json::{self, Fields, each_element},
};

/// Choices beyond this number are no answer of a model.
const MAX_REASONS: usize = 256;

/// What an answer says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AnswerFacts {
    pub(crate) response_id: Option<String>,
    /// One for each choice that has one.
    pub(crate) finish_reasons: Option<Vec<String>>,
    pub(crate) service_tier: Option<String>,
    pub(crate) searches: Option<u64>,
}

impl AnswerFacts {
    /// Of a plain answer's fields, or of a folded stream's. A fold keeps no `choices` among its fields: `folded_reasons`
    /// are theirs, as JSON.
    pub(crate) fn of(api: Api, answer: &Fields<'_>, folded_reasons: &[&str]) -> Self {
        let reasons = match api {
            Api::ChatCompletions | Api::Completions => {
                let mut reasons = texts(folded_reasons.iter().copied());
                if reasons.is_empty() {
                    reasons = answer.get("choices").map(reasons_of_choices).unwrap_or_default();
                }
                reasons
            }
            Api::Responses => reason_of_response(answer).into_iter().collect(),
            Api::Embeddings | Api::Media | Api::Unknown => Vec::new(),
        };
        let output = answer.get("output").filter(|_| api == Api::Responses);
        Self {
            response_id: name(answer, "id"),
            finish_reasons: (!reasons.is_empty()).then_some(reasons),
            service_tier: name(answer, "service_tier"),
            searches: output.and_then(searches),
        }
    }
}

fn name(answer: &Fields<'_>, field: &str) -> Option<String> {
    id(answer.text(field)).filter(|text| !text.is_empty())
}

fn texts<'a>(raw: impl Iterator<Item = &'a str>) -> Vec<String> {
    let texts = raw.filter_map(|raw| id(json::text(raw)));
    texts.filter(|text| !text.is_empty()).take(MAX_REASONS).collect()
}

fn reasons_of_choices(choices: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow, default)]
        finish_reason: Option<&'a RawValue>,
    }
    let mut reasons = Vec::new();
    // What stands before an error counts all the same, here and below.
    let _ = each_element(choices, |choice: Choice<'_>| {
        if reasons.len() < MAX_REASONS {
            reasons.extend(choice.finish_reason.map(RawValue::get));
        }
    });
    texts(reasons.into_iter())
}

/// Why it is incomplete, else its status, unless it is still being made.
fn reason_of_response(answer: &Fields<'_>) -> Option<String> {
    let incomplete = name(&answer.object("incomplete_details"), "reason");
    let status = || name(answer, "status").filter(|status| !matches!(&**status, "in_progress" | "queued"));
    incomplete.or_else(status)
}

/// Searches among the items of an answer's output; `None` where there are none. To open a page that a search has found
/// is a call, and no search.
fn searches(output: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        action: Option<&'a RawValue>,
    }
    let is_search = |item: &Item<'_>| match item.kind.map(RawValue::get) {
        Some(r#""file_search_call""#) => true,
        Some(r#""web_search_call""#) => item.action.is_none_or(|action| {
            Fields::read(action.get()).0.text("type").is_none_or(|action| action == "search")
        }),
        _ => false,
    };
    let mut count = 0;
    let _ = each_element(output, |item: Item<'_>| count += u64::from(is_search(&item)));
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(api: Api, answer: &str) -> AnswerFacts {
        AnswerFacts::of(api, &Fields::read(answer).0, &[])
    }

    #[test]
    fn every_choice_that_says_it_has_its_reason() {
        for (choices, expected) in [
            (r#"[{"index":0,"finish_reason":"stop"}]"#, &["stop"][..]),
            (
                r#"[{"finish_reason":"length","message":{"content":"\"finish_reason\":\"no\""}},{"finish_reason":"tool_calls"}]"#,
                &["length", "tool_calls"],
            ),
            (
                r#"[{"finish_reason":null},{"finish_reason":"stop"},{"finish_reason":""},{"finish_reason":7},{}]"#,
                &["stop"],
            ),
            (r#"[{"finish_reason":"stop"},"odd",{"finish_reason":"lost"}]"#, &["stop"]),
            (r#"[{"message":{"finish_reason":"inner"}}]"#, &[]),
            ("[]", &[]),
            ("{}", &[]),
        ] {
            let found = facts(Api::ChatCompletions, &format!(r#"{{"choices":{choices}}}"#)).finish_reasons;
            assert_eq!(found.unwrap_or_default(), expected, "{choices}");
        }
        let many = format!("[{}]", vec![r#"{"finish_reason":"stop"}"#; 1000].join(","));
        let found = facts(Api::Completions, &format!(r#"{{"choices":{many}}}"#)).finish_reasons;
        assert_eq!(found.map(|reasons| reasons.len()), Some(MAX_REASONS));
    }

    #[test]
    fn a_fold_brings_its_reasons() {
        let facts =
            AnswerFacts::of(Api::ChatCompletions, &Fields::default(), &["\"stop\"", "null", "\"length\""]);
        assert_eq!(facts.finish_reasons.unwrap(), ["stop", "length"]);
    }

    #[test]
    fn a_response_ended_by_its_status_or_for_the_reason_that_it_is_incomplete() {
        for (answer, expected) in [
            (r#"{"status":"completed","incomplete_details":null}"#, Some("completed")),
            (
                r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#,
                Some("max_output_tokens"),
            ),
            (r#"{"status":"failed"}"#, Some("failed")),
            (r#"{"status":"in_progress"}"#, None),
            (r#"{"status":"queued"}"#, None),
            (r#"{"choices":[{"finish_reason":"stop"}]}"#, None),
            ("{}", None),
        ] {
            let found = facts(Api::Responses, answer).finish_reasons;
            assert_eq!(found, expected.map(|reason| vec![reason.to_owned()]), "{answer}");
        }
    }

    #[test]
    fn searches_are_counted_and_what_is_no_search_is_not() {
        for (output, expected) in [
            (r#"[{"type":"message"}]"#, None),
            (
                r#"[{"type":"web_search_call"},{"type":"file_search_call","action":null},{"type":"message"}]"#,
                Some(2),
            ),
            (
                r#"[{"type":"web_search_call","action":{"type":"search"}},{"type":"web_search_call","action":{"type":"open_page"}},
                    {"type":"web_search_call","action":{"type":"find_in_page"}},{"type":"local_shell_call","action":{"type":"search"}}]"#,
                Some(1),
            ),
            ("{}", None),
        ] {
            let answer = format!(r#"{{"output":{output}}}"#);
            assert_eq!(facts(Api::Responses, &answer).searches, expected, "{output}");
            assert_eq!(facts(Api::ChatCompletions, &answer).searches, None, "{output}");
        }
    }

    #[test]
    fn an_empty_id_or_tier_is_none() {
        let found = facts(Api::Embeddings, r#"{"id":"","service_tier":null}"#);
        assert_eq!(found, AnswerFacts::default());
        let found = facts(Api::ChatCompletions, r#"{"id":"chatcmpl-1","service_tier":"flex"}"#);
        assert_eq!(
            (found.response_id.as_deref(), found.service_tier.as_deref()),
            (Some("chatcmpl-1"), Some("flex"))
        );
    }
}
