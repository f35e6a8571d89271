//! The JSON Schema of the configuration file, made from the sections' types and their doc comments.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::Config;

/// The JSON Schema (draft 2020-12) of the configuration file.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SchemaGenerator::new(settings.with_transform(without_null)).into_root_schema_for::<Config>().to_value()
}

/// TOML has no `null`: an optional key is one that may be absent.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(options)) = schema.get_mut("enum") {
        options.retain(|option| !option.is_null());
    }
    if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
        forms.retain(|form| form.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = forms.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                // What the field says about itself goes before what its type says.
                if schema.get(&key).is_none() {
                    schema.insert(key, value);
                }
            }
        }
    }
    // A table's default is made of those of its keys.
    if schema.get("default") == Some(&Value::Null) || schema.get("properties").is_some() {
        schema.remove("default");
    }
    transform_subschemas(&mut without_null, schema);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::schema_walk as walk;

    fn check_documented(schema: &Value, path: &str) {
        for (name, property) in walk::properties(&[schema]) {
            let path = format!("{path}.{name}");
            assert!(property.get("description").is_some(), "{path} has no documentation");
            for inner in [Some(property), property.get("items"), property.get("additionalProperties")] {
                inner.into_iter().for_each(|inner| check_documented(inner, &path));
            }
        }
    }

    #[test]
    fn every_key_is_documented() {
        let schema = schema();
        check_documented(&schema, "");
    }

    #[test]
    fn optional_keys_are_absent_and_not_null() {
        let schema = schema();
        let text = schema.to_string();
        assert!(!text.contains("null") && !text.contains("$ref"), "{text}");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["properties"]["admin"]["properties"]["token"]["x-secret"], true);
    }

    #[test]
    fn the_defaults_are_those_of_the_types() {
        let server = &schema()["properties"]["server"]["properties"];
        for (key, expected) in
            [("listen", "127.0.0.1:3000"), ("max_request_bytes", "20 MiB"), ("shutdown_grace", "30s")]
        {
            assert_eq!(server[key]["default"], expected);
        }
    }
}
