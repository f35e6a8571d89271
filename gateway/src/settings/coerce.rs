//! Text from the environment as a value of the type a schema asks for.

use jsonschema::JsonType;
use serde_json::{Number, Value};

use super::places::Places;
use super::{pointer, schema_walk as walk};

/// The environment variables that may set a value (`x-env`: a name or a list of names).
pub(crate) fn variables<'a>(schemas: &[&'a Value]) -> Vec<&'a str> {
    match walk::annotation(schemas, "x-env") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Gives each `"${NAME}"` in a file the type that the schema has for it.
pub(crate) fn references(schema: &Value, value: &mut Value, places: &Places) {
    for at in places.references() {
        if let Some(slot) = value.pointer_mut(at)
            && let Some(typed) = slot.as_str().and_then(|text| reference(&walk::subschemas(schema, at), text))
        {
            *slot = typed;
        }
    }
    whole_numbers(schema, value, "");
}

/// `2.0` is an integer to JSON Schema and none to serde.
fn whole_numbers(schema: &Value, value: &mut Value, at: &str) {
    match value {
        Value::Object(object) => {
            object.iter_mut().for_each(|(key, value)| whole_numbers(schema, value, &pointer::join(at, key)));
        }
        Value::Array(items) => {
            items
                .iter_mut()
                .enumerate()
                .for_each(|(i, item)| whole_numbers(schema, item, &format!("{at}/{i}")));
        }
        Value::Number(number) if number.is_f64() => {
            let schemas = walk::subschemas(schema, at);
            let integer = walk::allows_type(&schemas, "integer") && !walk::allows_type(&schemas, "number");
            let whole =
                number.as_f64().filter(|number| number.fract() == 0.0).map(|number| number.to_string());
            if let Some(typed) = whole.filter(|_| integer).and_then(|text| scalar(JsonType::Integer, &text)) {
                *value = typed;
            }
        }
        _ => {}
    }
}

/// A reference's text as the schema's type. Where a string is allowed it stays one; a text that does not fit
/// stays as it is too, for the schema check to report.
pub(crate) fn reference(schemas: &[&Value], text: &str) -> Option<Value> {
    if walk::allows_type(schemas, "string") {
        return None;
    }
    [JsonType::Boolean, JsonType::Integer, JsonType::Number]
        .into_iter()
        .filter(|kind| walk::allows_type(schemas, kind.as_str()))
        .find_map(|kind| scalar(kind, text))
}

/// An environment variable's text as the schema's type. Beyond single values, lists are written `a,b` and
/// tables `name=value,name=value`, as other programs' variables are.
pub(crate) fn variable(root: &Value, schemas: &[&Value], text: &str) -> Value {
    if let Some(value) = reference(schemas, text) {
        return value;
    }
    let inner = |keyword: &str| {
        walk::annotation(schemas, keyword).map(|schema| walk::expand(root, schema)).unwrap_or_default()
    };
    let single =
        |schemas: &[&Value], text: &str| reference(schemas, text).unwrap_or_else(|| Value::from(text));
    let may_be = |kind| walk::allows_type(schemas, kind) && !walk::allows_type(schemas, "string");
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    if may_be("array") {
        let items = inner("items");
        return parts.map(|part| single(&items, part)).collect();
    }
    if may_be("object") {
        let entries = inner("additionalProperties");
        let pairs = parts.map(|part| part.split_once('=')).collect::<Option<Vec<_>>>();
        let entry = |(name, text): (&str, &str)| (name.trim().to_owned(), single(&entries, text.trim()));
        return pairs.map_or_else(|| Value::from(text), |pairs| pairs.into_iter().map(entry).collect());
    }
    Value::from(text)
}

/// The text as one value of a type, if it is one.
pub(crate) fn scalar(kind: JsonType, text: &str) -> Option<Value> {
    let text = text.trim();
    let integer = || {
        let signed = text.parse::<i64>().ok().map(Number::from);
        signed.or_else(|| text.parse::<u64>().ok().map(Number::from)).map(Value::Number)
    };
    match kind {
        JsonType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
            "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
            _ => None,
        },
        JsonType::Integer => integer(),
        JsonType::Number => {
            integer().or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_becomes_what_the_schema_asks_for() {
        for (schema, text, expected) in [
            (json!({ "type": "integer" }), " 42 ", json!(42)),
            (json!({ "type": ["integer", "null"] }), "-1", json!(-1)),
            (json!({ "type": "integer" }), "18446744073709551615", json!(u64::MAX)),
            (json!({ "type": "integer" }), "many", json!("many")),
            (json!({ "type": "number" }), "0.5", json!(0.5)),
            (json!({ "type": "number" }), "inf", json!("inf")),
            (json!({ "type": "boolean" }), "TRUE", json!(true)),
            (json!({ "type": "boolean" }), "0", json!(false)),
            (json!({ "type": "string" }), "42", json!("42")),
            (json!({ "type": ["string", "integer"] }), "42", json!("42")),
            (json!({}), "42", json!("42")),
            (json!({ "type": "array", "items": { "type": "integer" } }), "1, 2,", json!([1, 2])),
            (json!({ "type": ["boolean", "array"] }), "true", json!(true)),
            (json!({ "type": "array", "items": { "type": "string" } }), "a,b", json!(["a", "b"])),
            (
                json!({ "type": "object", "additionalProperties": { "type": "string" } }),
                "a=b, c=d=e",
                json!({ "a": "b", "c": "d=e" }),
            ),
            (json!({ "type": "object" }), "nonsense", json!("nonsense")),
        ] {
            assert_eq!(variable(&schema, &walk::expand(&schema, &schema), text), expected, "{schema} {text}");
        }
    }

    #[test]
    fn a_whole_number_with_a_point_is_an_integer_where_one_is_wanted() {
        let schema = json!({ "properties": { "n": { "type": "integer" }, "f": { "type": "number" } } });
        let mut value = json!({ "n": 2.0, "f": 2.0, "other": 2.0 });
        references(&schema, &mut value, &Places::default());
        assert_eq!(value, json!({ "n": 2, "f": 2.0, "other": 2.0 }));
    }
}
