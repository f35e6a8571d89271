//! What a request asks of the model: `metadata` of a span. Its values are numbers, truths and texts
//! (<https://docs.datadoghq.com/llm_observability/instrumentation/api/#meta>).

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, value::RawValue};

use crate::tag;

/// Parameters by their name at Datadog, and those that they have in requests: a member of the body, or one of an object in
/// it.
const PARAMETERS: [(&str, &[(&str, &str)]); 16] = [
    ("temperature", &[("temperature", "")]),
    ("top_p", &[("top_p", "")]),
    ("top_k", &[("top_k", "")]),
    ("max_tokens", &[("max_tokens", ""), ("max_completion_tokens", ""), ("max_output_tokens", "")]),
    ("frequency_penalty", &[("frequency_penalty", "")]),
    ("presence_penalty", &[("presence_penalty", "")]),
    ("seed", &[("seed", "")]),
    ("n", &[("n", "")]),
    ("stop", &[("stop", "")]),
    ("tool_choice", &[("tool_choice", ""), ("tool_choice", "type")]),
    ("parallel_tool_calls", &[("parallel_tool_calls", "")]),
    ("response_format", &[("response_format", ""), ("response_format", "type")]),
    ("reasoning_effort", &[("reasoning_effort", ""), ("reasoning", "effort")]),
    ("service_tier", &[("service_tier", "")]),
    ("dimensions", &[("dimensions", "")]),
    ("encoding_format", &[("encoding_format", "")]),
];

/// Those of a request's body; none where it is no JSON object.
#[must_use]
pub fn of(request: &[u8]) -> Map<String, Value> {
    let Ok(members) = serde_json::from_slice::<Members<'_>>(request) else { return Map::new() };
    let known = PARAMETERS.iter().filter_map(|(name, places)| {
        let value = places.iter().find_map(|(key, inner)| value(members.get(*key)?, inner))?;
        Some(((*name).to_owned(), value))
    });
    known.collect()
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// The value, or a member of it; `None` for what cannot stand in `metadata`.
fn value(raw: &RawValue, inner: &str) -> Option<Value> {
    let raw = match inner {
        "" => raw,
        inner => serde_json::from_str::<Members<'_>>(raw.get()).ok()?.remove(inner)?,
    };
    match serde_json::from_str(raw.get()).ok()? {
        Value::String(text) => Some(tag::cut(&text, tag::MAX_LENGTH).into()),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_have_one_name_whatever_the_request_calls_them() {
        for (request, expected) in [
            (
                json!({ "temperature": 0.2, "max_completion_tokens": 100, "stop": ["a"], "model": "m", "messages": [] }),
                json!({ "temperature": 0.2, "max_tokens": 100 }),
            ),
            (
                json!({ "max_tokens": 5, "max_output_tokens": 7, "parallel_tool_calls": false, "tool_choice": "auto" }),
                json!({ "max_tokens": 5, "parallel_tool_calls": false, "tool_choice": "auto" }),
            ),
            (
                json!({
                    "reasoning": { "effort": "low" }, "response_format": { "type": "json_schema", "json_schema": {} },
                    "tool_choice": { "type": "function", "function": { "name": "f" } }, "temperature": null,
                }),
                json!({ "reasoning_effort": "low", "response_format": "json_schema", "tool_choice": "function" }),
            ),
            (json!([1]), json!({})),
            (json!({ "reasoning": 5, "seed": "x".repeat(500) }), json!({ "seed": "x".repeat(200) })),
        ] {
            assert_eq!(Value::from(of(request.to_string().as_bytes())), expected, "{request}");
        }
        assert!(of(b"").is_empty() && of(b"{torn").is_empty());
    }
}
