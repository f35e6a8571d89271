//! A plugin's own settings: `[plugin.config]`, completed from the environment and checked against the schema
//! that the plugin declares.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use setting_values::HIDDEN;

use super::places::Places;
use super::problem::SchemaProblem;
use super::{coerce, pointer, schema_check, schema_walk as walk};

/// The values of `[plugin.config]` as written. Which of them are secret only the plugin's schema knows, so
/// `Debug` and `Serialize` show the keys alone.
#[derive(Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Settings {
    values: Map<String, Value>,
    /// Pointers are relative to `[plugin.config]`.
    #[serde(skip)]
    places: Places,
}

impl Settings {
    /// The values as written, references to the environment replaced.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    pub(crate) fn set_places(&mut self, places: Places) {
        self.places = places;
    }
}

impl From<Map<String, Value>> for Settings {
    fn from(values: Map<String, Value>) -> Self {
        Self { values, places: Places::default() }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.values.keys().map(|key| (key, HIDDEN)))
    }
}

/// The settings to create a plugin with: what the file says, completed by the variables the schema names in
/// `x-env` (the first that is set; an empty one counts as not set), and checked.
///
/// # Errors
/// All mistakes; `pipeline::config::Plugin::settings_problem` adds file and line to each.
pub fn plugin_settings(
    schema: &Value,
    settings: &Settings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, Vec<SchemaProblem>> {
    let mut value = Value::Object(settings.values.clone());
    coerce::references(schema, &mut value, &settings.places);
    let filled = fill_from_variables(schema, &mut value, env);
    let variable = |at: &str| filled.get(at).cloned().or_else(|| settings.places.variable(at));
    let problems = schema_check::check(schema, &value, &variable);
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}

/// Sets what is absent and has an `x-env` from that variable; says which value came from which.
pub(crate) fn fill_from_variables(
    schema: &Value,
    value: &mut Value,
    env: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let mut filling = Filling { root: schema, env, filled: BTreeMap::new(), inside: Vec::new() };
    filling.table(&walk::expand(schema, schema), "", value);
    filling.filled
}

struct Filling<'a> {
    root: &'a Value,
    env: &'a dyn Fn(&str) -> Option<String>,
    /// The values that were set, by pointer, with their variables.
    filled: BTreeMap<String, String>,
    /// The schemas around the present table: one that contains itself is not followed for ever.
    inside: Vec<&'a Value>,
}

impl<'a> Filling<'a> {
    /// Sets the absent properties of a table, and of the tables in it.
    fn table(&mut self, schemas: &[&'a Value], at: &str, value: &mut Value) {
        let Value::Object(object) = value else { return };
        let depth = self.inside.len();
        self.inside.extend_from_slice(schemas);
        let chosen = schemas.iter().copied().filter(|form| is_chosen(form, object)).collect::<Vec<_>>();
        for (name, property) in walk::properties(&chosen) {
            let at = pointer::join(at, name);
            let schemas = walk::expand(self.root, property);
            match object.get_mut(name) {
                Some(present) => self.table(&schemas, &at, present),
                None => {
                    let value = self.take_variable(&schemas, &at).or_else(|| self.new_table(&schemas, &at));
                    value.map(|value| object.insert(name.clone(), value));
                }
            }
        }
        self.inside.truncate(depth);
    }

    fn take_variable(&mut self, schemas: &[&'a Value], at: &str) -> Option<Value> {
        let set =
            |name: &str| (self.env)(name).filter(|text| !text.is_empty()).map(|text| (name.to_owned(), text));
        let (name, text) = coerce::variables(schemas).into_iter().find_map(set)?;
        self.filled.insert(at.to_owned(), name);
        Some(coerce::variable(self.root, schemas, &text))
    }

    /// A table that was not written, if a variable sets something in it.
    fn new_table(&mut self, schemas: &[&'a Value], at: &str) -> Option<Value> {
        let contains_itself = |schema: &&Value| self.inside.iter().any(|outer| std::ptr::eq(*outer, *schema));
        if schemas.iter().any(contains_itself) {
            return None;
        }
        let mut table = Value::Object(Map::new());
        self.table(schemas, at, &mut table);
        Some(table).filter(|table| table.as_object().is_some_and(|table| !table.is_empty()))
    }
}

/// False for a form of a `oneOf` whose tag says that the author chose another one: its variables are not meant.
fn is_chosen(form: &Value, object: &Map<String, Value>) -> bool {
    let tags = form.get("properties").and_then(Value::as_object).into_iter().flatten();
    tags.filter_map(|(name, tag)| Some((name, tag.get("const")?)))
        .all(|(name, tag)| object.get(name) == Some(tag))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::document;

    fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["key"],
            "properties": {
                "key": { "type": "string", "x-secret": true, "x-env": ["X_KEY", "OLD_KEY"] },
                "site": { "type": "string", "x-env": "X_SITE" },
                "port": { "type": "integer", "x-env": "X_PORT", "maximum": 65535 },
                "on": { "type": "boolean" },
                "headers": { "type": "object", "additionalProperties": { "type": "string" }, "x-env": "X_HEADERS" },
                "tls": { "anyOf": [{ "$ref": "#/$defs/tls" }, { "type": "null" }] },
            },
            "$defs": { "tls": {
                "type": "object",
                "properties": { "ca_file": { "type": "string", "x-env": "X_CA" }, "deeper": { "$ref": "#/$defs/tls" } },
            }},
        })
    }

    fn settings(toml: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Value, Vec<String>> {
        let document = document::parse(toml, env).unwrap();
        let settings = Settings { values: document.value, places: document.places };
        plugin_settings(&schema(), &settings, env)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn absent_settings_come_from_their_variables() {
        let env = env(&[
            ("OLD_KEY", "k"),
            ("X_SITE", ""),
            ("X_PORT", "80"),
            ("X_CA", "ca.pem"),
            ("X_HEADERS", "a=b"),
        ]);
        assert_eq!(
            settings("", &env),
            Ok(json!({ "key": "k", "port": 80, "headers": { "a": "b" }, "tls": { "ca_file": "ca.pem" } }))
        );
    }

    #[test]
    fn variables_of_a_form_that_was_not_chosen_are_left_alone() {
        let form = |tag: &str, key: &str, variable: &str| {
            json!({ "type": "object", "required": ["type", key], "additionalProperties": false,
                "properties": { "type": { "const": tag }, key: { "type": "string", "x-env": variable } } })
        };
        let auth =
            json!({ "oneOf": [form("basic", "password", "X_PASSWORD"), form("bearer", "token", "X_TOKEN")] });
        let schema = json!({ "type": "object", "properties": { "auth": auth } });
        let env = env(&[("X_PASSWORD", "p"), ("X_TOKEN", "t")]);
        for (written, expected) in [
            (json!({ "auth": { "type": "bearer" } }), json!({ "auth": { "type": "bearer", "token": "t" } })),
            (json!({}), json!({})),
        ] {
            let settings = Settings::from(written.as_object().unwrap().clone());
            assert_eq!(plugin_settings(&schema, &settings, &env), Ok(expected));
        }
    }

    #[test]
    fn the_file_wins_over_variables() {
        let env = env(&[("X_KEY", "env"), ("X_PORT", "80"), ("ON", "true"), ("P", "81"), ("X_CA", "x")]);
        let toml = "key = \"file\"\nport = \"${P}\"\non = \"${ON}\"\ntls = { ca_file = \"ca\" }";
        assert_eq!(
            settings(toml, &env),
            Ok(json!({ "key": "file", "port": 81, "on": true, "tls": { "ca_file": "ca" } }))
        );
    }

    #[test]
    fn mistakes_name_the_variable_and_show_no_value() {
        for (toml, pairs, expected) in [
            ("", &[][..], vec!["key: missing; set it here or in the environment variable X_KEY or OLD_KEY"]),
            (
                "prot = 1\nkey = 5",
                &[("X_PORT", "s3cret")],
                vec![
                    "key: expected a string, got a number",
                    "port: expected an integer, got the value of the environment variable X_PORT",
                    "prot: unknown key; did you mean \"port\"?",
                ],
            ),
            (
                "key = \"k\"\nport = \"${P}\"",
                &[("P", "99999")],
                vec!["port: must be at most 65535, got the value of the environment variable P"],
            ),
        ] {
            assert_eq!(settings(toml, &env(pairs)).unwrap_err(), expected);
        }
    }

    #[test]
    fn nothing_shows_the_values() {
        let settings = Settings::from(json!({ "key": "hunter2", "site": "eu" }).as_object().unwrap().clone());
        assert_eq!(format!("{settings:?}"), "{\"key\", \"site\"}");
        assert_eq!(serde_json::to_value(&settings).unwrap(), json!({ "key": "***", "site": "***" }));
    }
}
