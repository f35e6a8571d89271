//! `filter_path`: <https://www.elastic.co/docs/reference/elasticsearch/rest-apis/common-options#common-options-response-filtering>.

use serde_json::{Map, Value};

/// What the comma-separated paths select. `*` is any one name, `**` any number of them; arrays are looked through, and
/// what is empty afterwards is left out, elements of arrays too. Excluding filters (`-name`) are not known
/// here, and the caller refuses them.
pub(super) fn filter(value: &Value, paths: &str) -> Value {
    let paths: Vec<Vec<&str>> = paths.split(',').map(|path| path.trim().split('.').collect()).collect();
    let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
    keep(value, &paths).unwrap_or_else(|| Value::Object(Map::new()))
}

fn keep(value: &Value, paths: &[&[&str]]) -> Option<Value> {
    match value {
        Value::Object(object) => {
            let kept: Map<_, _> = object
                .iter()
                .filter_map(|(name, v)| Some((name.clone(), keep_field(name, v, paths)?)))
                .collect();
            (!kept.is_empty()).then(|| kept.into())
        }
        Value::Array(items) => {
            let kept: Vec<_> = items.iter().filter_map(|item| keep(item, paths)).collect();
            (!kept.is_empty()).then(|| kept.into())
        }
        _ => None,
    }
}

fn keep_field(name: &str, value: &Value, paths: &[&[&str]]) -> Option<Value> {
    let mut below = Vec::new();
    for path in paths {
        step(name, path, &mut below);
    }
    if below.iter().any(|path| path.is_empty()) { Some(value.clone()) } else { keep(value, &below) }
}

/// What is left of a path once this name was passed.
fn step<'a>(name: &str, path: &'a [&'a str], below: &mut Vec<&'a [&'a str]>) {
    match path {
        ["**", rest @ ..] => {
            below.push(path);
            step(name, rest, below);
        }
        [pattern, rest @ ..] if matches(pattern, name) => below.push(rest),
        _ => {}
    }
}

/// `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => match name.strip_prefix(before) {
            None => false,
            Some(rest) => {
                (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(after, &rest[at..]))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_select() {
        let bulk = json!({
            "took": 1, "errors": true,
            "items": [{ "create": { "_id": "a", "status": 201 } }, { "create": { "status": 400, "error": { "type": "t" } } }],
        });
        for (paths, expect) in [
            ("errors", json!({ "errors": true })),
            ("took,errors", json!({ "took": 1, "errors": true })),
            (
                "errors,items.*.status,items.*.error",
                json!({ "errors": true, "items": [
                    { "create": { "status": 201 } }, { "create": { "status": 400, "error": { "type": "t" } } },
                ] }),
            ),
            // The trap: an item without an error is gone, and the places no longer tell the record.
            ("items.*.error.type", json!({ "items": [{ "create": { "error": { "type": "t" } } }] })),
            ("**.type", json!({ "items": [{ "create": { "error": { "type": "t" } } }] })),
            ("err*", json!({ "errors": true })),
            ("nothing", json!({})),
        ] {
            assert_eq!(filter(&bulk, paths), expect, "{paths}");
        }
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name, expect) in [
            ("logs-*", "logs-1", true),
            ("logs-*", "log", false),
            ("*", "", true),
            ("*-a-*", "x-a-y", true),
            ("a*b", "ab", true),
            ("a*b", "abc", false),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        }
    }
}
