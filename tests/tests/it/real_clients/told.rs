//! What a record says of an exchange, in the words of the clients' programs.

use serde_json::{Value, json};

/// The keys of an exchange that a client may tell.
pub(super) const KEYS: [&str; 6] = ["text", "tool_calls", "finish_reason", "id", "model", "usage"];

pub(super) fn told(record: &Value) -> Value {
    let (attributes, metadata) = (&record["attributes"], &record["attributes"]["metadata"]);
    let response = &attributes["response"];
    let (text, tool_calls, finish_reason) = if response["output"].is_array() {
        of_response(response)
    } else if response["choices"].is_array() {
        of_chat(&response["choices"][0])
    } else {
        (response["text"].clone(), Value::Null, Value::Null)
    };
    let tokens = &metadata["tokens"];
    json!({
        "text": if text == "" { Value::Null } else { text },
        "tool_calls": tool_calls, "finish_reason": finish_reason, "id": response["id"], "model": attributes["model"],
        "usage": {
            "input": tokens["input"], "output": tokens["output"], "total": tokens["total"],
            "cached": metadata["cached_read_tokens"], "reasoning": metadata["reasoning_tokens"]
        }
    })
}

fn of_chat(choice: &Value) -> (Value, Value, Value) {
    let message = choice.get("message").unwrap_or(&choice["delta"]);
    let calls = message["tool_calls"].as_array().map(|calls| {
        let call =
            |call: &Value| tool_call(&call["id"], &call["function"]["name"], &call["function"]["arguments"]);
        calls.iter().map(call).collect::<Vec<_>>()
    });
    (message["content"].clone(), json!(calls), choice["finish_reason"].clone())
}

fn of_response(response: &Value) -> (Value, Value, Value) {
    let items = response["output"].as_array().unwrap();
    let of = |kind: &'static str| items.iter().filter(move |item| item["type"] == kind);
    let text: String = of("message").filter_map(|item| item["content"][0]["text"].as_str()).collect();
    let calls: Vec<_> = of("function_call")
        .map(|item| tool_call(&item["call_id"], &item["name"], &item["arguments"]))
        .collect();
    let calls = if calls.is_empty() { Value::Null } else { json!(calls) };
    (json!(text), calls, response["status"].clone())
}

fn tool_call(id: &Value, name: &Value, arguments: &Value) -> Value {
    let arguments: Value = serde_json::from_str(arguments.as_str().unwrap_or_default()).unwrap_or_default();
    json!({ "id": id, "name": name, "arguments": arguments })
}

/// Where a client and a record differ, by key; and the keys of which the record speaks and the client does not.
pub(super) fn differences(told: &Value, seen: &Value) -> (Vec<String>, Vec<&'static str>) {
    let (mut different, mut silent) = (Vec::new(), Vec::new());
    for key in KEYS {
        match (&told[key], &seen[key]) {
            (Value::Null, Value::Null) => {}
            (Value::Object(said), Value::Null) if said.values().all(Value::is_null) => {}
            (_, Value::Null) => silent.push(key),
            (told, seen) if !agrees(told, seen) => {
                different.push(format!("{key}: record {told}, client {seen}"));
            }
            _ => {}
        }
    }
    (different, silent)
}

/// Of an object the client may leave things out.
fn agrees(told: &Value, seen: &Value) -> bool {
    match (told, seen) {
        (Value::Object(told), Value::Object(seen)) => {
            !seen.is_empty() && seen.iter().all(|(key, value)| told.get(key) == Some(value))
        }
        _ => told == seen,
    }
}

#[test]
fn a_difference_in_any_key_is_seen() {
    let told = json!({
        "text": "a", "tool_calls": [{ "id": "1", "name": "f", "arguments": {} }], "finish_reason": "stop", "id": "x",
        "model": "m", "usage": { "input": 1, "output": 2, "total": 3, "cached": null, "reasoning": null }
    });
    assert_eq!(differences(&told, &told), (vec![], vec![]));
    for key in KEYS {
        let mut other = told.clone();
        other[key] = if key == "usage" { json!({ "input": 2 }) } else { json!("other") };
        assert_eq!(differences(&told, &other).0.len(), 1, "{key}");
        other[key] = Value::Null;
        assert_eq!(differences(&told, &other), (vec![], vec![key]));
    }
    assert_eq!(
        differences(&told, &json!({ "usage": { "input": 1 } })).1,
        ["text", "tool_calls", "finish_reason", "id", "model"]
    );
}
