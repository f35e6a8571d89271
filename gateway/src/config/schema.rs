//! The JSON Schema of the configuration file, made from the sections' types and their doc comments.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;
use crate::settings::without_null;

/// The JSON Schema (draft 2020-12) of the configuration file.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SchemaGenerator::new(settings.with_transform(without_null::transform))
        .into_root_schema_for::<Config>()
        .to_value()
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
            [("listen", "127.0.0.1:3000"), ("max_request_bytes", "32 MiB"), ("shutdown_grace", "30s")]
        {
            assert_eq!(server[key]["default"], expected);
        }
    }
}
