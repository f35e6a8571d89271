//! Checks a value against a JSON Schema and reports every mistake, in sentences for the author of a config.
//!
//! Serves the gateway's own file and the settings of every plugin. On top of the standard it knows the formats
//! of `setting_values` and [`address`], `x-min` and `x-max` (bounds of durations and sizes), `x-secret` (never shown) and `x-env` (the
//! variable that sets a value).

use std::cmp::Ordering;

use jsonschema::{Keyword, ValidationError, Validator};
use serde_json::{Map, Value};

use super::format::{self, FORMATS, Format};
use super::problem::SchemaProblem;
use super::sentence::Reporter;
use super::without_null;

/// Checks `value` against `schema`; no problem means that it fits. Values marked `x-secret` are never shown.
/// `variable` names the environment variable that a value came from. Such a value is not shown either: what is in the
/// environment may be a secret that went to the wrong key.
pub(crate) fn check(
    schema: &Value,
    value: &Value,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<SchemaProblem> {
    let schema = &without_null::schema(schema.clone());
    let validator = match compile(schema) {
        Ok(validator) => validator,
        // The text is about the schema, which its author wrote into the program: nothing of the user's is in it.
        Err(error) => {
            let message = format!("the settings cannot be checked, their JSON Schema is not valid: {error}");
            return vec![SchemaProblem::new("", message, "report this to the author of the plugin")];
        }
    };
    let reporter = Reporter::new(schema, variable);
    let mut problems = validator.iter_errors(value).flat_map(|e| reporter.report(&e)).collect::<Vec<_>>();
    problems.sort();
    problems.dedup();
    problems
}

fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    let options = jsonschema::options()
        .should_validate_formats(true)
        .with_keyword("x-min", |parent, limit, _| bound(parent, limit, Ordering::Less))
        .with_keyword("x-max", |parent, limit, _| bound(parent, limit, Ordering::Greater));
    let with_format = |options: jsonschema::ValidationOptions<'static>, format: &'static Format| {
        options.with_format(format.name, |text: &str| (format.read)(text).is_some())
    };
    FORMATS.iter().fold(options, with_format).build(schema)
}

/// A bound on a duration or a size, in the same notation as the value: `"x-min": "1ms"`.
struct Bound {
    format: &'static Format,
    limit: u128,
    /// The limit as it is written.
    text: String,
    /// How a value compares to the limit when it is out of range.
    outside: Ordering,
}

fn bound<'a>(
    parent: &'a Map<String, Value>,
    limit: &'a Value,
    outside: Ordering,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    let format = parent.get("format").and_then(Value::as_str).and_then(format::named);
    let read = |text: &str, format: &'static Format| {
        let limit = (format.read)(text)?;
        Some(Bound { format, limit, text: text.to_owned(), outside })
    };
    let measured = format.filter(|format| format.unit.is_some());
    match limit.as_str().zip(measured).and_then(|(text, format)| read(text, format)) {
        Some(bound) => Ok(Box::new(bound)),
        None => {
            Err(ValidationError::schema("x-min and x-max need a duration or a size, as the value's format"))
        }
    }
}

impl<'i> Keyword<'i> for Bound {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        // The limit travels as the error's message; the sentence around it is made in `sentence`.
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom(&self.text)) }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        // A text that does not follow the format is reported as that.
        let quantity = instance.as_str().and_then(self.format.read);
        quantity.is_none_or(|quantity| quantity.cmp(&self.limit) != self.outside)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn expect(schema: &Value, value: &Value, expected: &[&str]) {
        let problems = check(schema, value, &|_| None).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(problems, expected, "{value}");
    }

    fn settings_schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["url"],
            "properties": {
                "url": { "type": "string", "format": "uri", "x-env": ["A_URL", "B_URL"] },
                "size": { "type": "integer", "minimum": 1, "maximum": 100 },
                "on": { "type": ["boolean", "null"] },
                "mode": { "oneOf": [{ "const": "plain" }, { "const": "bulk" }] },
                "level": { "enum": ["low", "high", null] },
                "name": { "type": "string", "minLength": 1, "pattern": "^[a-z]+$" },
                "tags": { "type": "array", "items": { "type": "string" }, "uniqueItems": true, "maxItems": 2 },
                "wait": { "type": "string", "format": "human-duration", "x-min": "1s", "x-max": "1m" },
                "room": { "type": "string", "format": "byte-size", "x-min": "1 KiB" },
                "tls": { "type": "object", "properties": { "ca": {} }, "additionalProperties": false },
            },
        })
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let schema = settings_schema();
        expect(
            &schema,
            &json!({ "url": "http://x", "size": 5, "wait": "30s", "room": "2 KiB", "on": true }),
            &[],
        );
        expect(
            &schema,
            &json!({ "sise": 5, "zzz": 1, "tls": { "cs": 1 } }),
            &[
                "sise: unknown key; did you mean \"size\"?",
                "tls.cs: unknown key; did you mean \"ca\"?",
                "url: missing; set it here or in the environment variable A_URL or B_URL",
                "zzz: unknown key; known here are level, mode, name, on, room, size, tags, tls, url, wait",
            ],
        );
        expect(
            &schema,
            &json!({ "url": "http://x", "name": "" }),
            &["name: must match the pattern ^[a-z]+$, got \"\"", "name: must not be empty"],
        );
    }

    #[test]
    fn each_wrong_value_is_explained() {
        let duration = "expected a duration with a unit such as \"30s\"";
        let size = "expected a size with a unit such as \"20 MiB\"";
        for (key, value, expected) in [
            ("size", json!("5"), "expected an integer, got \"5\"; write 5, without quotes".to_owned()),
            ("size", json!(500), "must be at most 100, got 500".to_owned()),
            ("on", json!("yes"), "expected true or false, got \"yes\"".to_owned()),
            (
                "mode",
                json!("bluk"),
                "expected \"plain\" or \"bulk\", got \"bluk\"; did you mean \"bulk\"?".to_owned(),
            ),
            ("level", json!("mid"), "expected \"low\" or \"high\", got \"mid\"".to_owned()),
            ("tags", json!("a"), "expected an array, got \"a\"; write [\"a\"]".to_owned()),
            ("tags", json!(["a", "a"]), "an array has non-unique elements".to_owned()),
            ("wait", json!("30"), format!("{duration}, got \"30\"; write \"30s\" for seconds")),
            ("wait", json!(30), format!("{duration}, got 30; write \"30s\" for seconds")),
            ("wait", json!("2m"), "must be at most 1m, got \"2m\"".to_owned()),
            ("room", json!("1 B"), "must be at least 1 KiB, got \"1 B\"".to_owned()),
            ("room", json!(1024), format!("{size}, got 1024; write \"1024 B\" for bytes")),
            ("url", json!("nope"), "expected a URI, got \"nope\"".to_owned()),
            ("url", json!("a://u:hunter2@h h"), "expected a URI, got \"a://***@h h\"".to_owned()),
            (
                "tls",
                json!([{}]),
                "expected a table, got an array; write it with single brackets, [tls]".to_owned(),
            ),
        ] {
            let mut settings = json!({ "url": "http://x" });
            settings[key] = value;
            expect(&settings_schema(), &settings, &[&format!("{key}: {expected}")]);
        }
    }

    #[test]
    fn secrets_and_values_from_the_environment_are_never_shown() {
        let schema = json!({ "properties": {
            "key": { "type": "string", "pattern": "^sk-", "enum": ["sk-1"], "x-secret": true },
            "auth": { "type": "object", "properties": { "password": { "type": "string", "x-secret": true } } },
            "site": { "type": "integer" },
        }});
        let value = json!({ "key": "hunter2", "auth": "hunter2", "site": "hunter2" });
        let problems = check(&schema, &value, &|pointer| (pointer == "/site").then(|| "SITE".to_owned()));
        let text = format!("{problems:?}");
        assert!(problems.len() >= 4 && !text.contains("hunter2") && !text.contains("sk-1"), "{text}");
        assert!(
            text.contains("expected an integer, got the value of the environment variable SITE"),
            "{text}"
        );
    }

    #[test]
    fn of_several_forms_the_nearest_is_explained() {
        let auth = |kind: &str, key: &str| {
            json!({ "type": "object", "required": ["type", key], "additionalProperties": false,
                "properties": { "type": { "const": kind }, key: { "type": "string" } } })
        };
        let schema = json!({ "properties": {
            "auth": { "oneOf": [auth("basic", "password"), auth("bearer", "token")] },
            "either": { "anyOf": [{ "type": "string" }, { "type": "integer" }, { "type": "null" }] },
            "tls": { "oneOf": [{ "const": "off" }, auth("mutual", "key")] },
            "maybe": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
        }});
        for (value, expected) in [
            (json!({ "auth": { "type": "bearer" } }), vec!["auth.token: missing; give it a value"]),
            (
                json!({ "auth": { "type": "bearer", "token": 1 } }),
                vec!["auth.token: expected a string, got 1; write \"1\", in quotes"],
            ),
            (
                json!({ "auth": { "type": "digest" } }),
                vec!["auth.type: expected \"basic\" or \"bearer\", got \"digest\""],
            ),
            (json!({ "either": true }), vec!["either: expected a string or an integer, got true"]),
            // Where a table belongs, what is written may be a secret of it.
            (json!({ "tls": "of" }), vec!["tls: expected \"off\", got a string"]),
            (json!({ "maybe": "x" }), vec!["maybe: expected an integer, got \"x\""]),
        ] {
            expect(&schema, &value, &expected);
        }
    }

    #[test]
    fn a_schema_that_is_not_one_is_the_authors_problem() {
        let schema_check = |schema| check(&schema, &json!({}), &|_| None);
        let problems = schema_check(json!({ "type": "strnig" }));
        assert!(problems[0].message.contains("JSON Schema is not valid"), "{problems:?}");
        assert_eq!(schema_check(json!({ "$ref": "https://example.org/x.json" })).len(), 1);
    }
}
