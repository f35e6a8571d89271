//! Settings that no text of the plugin's may show.

use schemars::Schema;
use serde_json::Value;

/// Shorter ones are found in any text.
const SHORTEST: usize = 4;

/// The values in `config` that the schema of the exporter's settings marks with `x-secret`.
pub(super) fn of(config: &str, schema: &Schema) -> Vec<String> {
    let mut names = Vec::new();
    marked(schema.as_value(), &mut names);
    let mut values = Vec::new();
    if let Ok(config) = serde_json::from_str(config) {
        texts_at(&config, &names, &mut values);
    }
    values
}

/// Names of properties that carry the mark, at any depth.
fn marked(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                if member.get("x-secret") == Some(&Value::Bool(true)) {
                    names.push(name.clone());
                }
                marked(member, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| marked(item, names)),
        _ => {}
    }
}

fn texts_at(config: &Value, names: &[String], texts: &mut Vec<String>) {
    match config {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if names.contains(name) && text.len() >= SHORTEST => {
                        texts.push(text.clone());
                    }
                    member => texts_at(member, names, texts),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts_at(item, names, texts)),
        _ => {}
    }
}
