//! JSON Schemas for what is written in TOML, which has no `null`.

use schemars::{Schema, transform::transform_subschemas};
use serde_json::Value;

/// The same schema without `null`; as it is when it is none.
pub(crate) fn schema(value: Value) -> Value {
    match Schema::try_from(value.clone()) {
        Ok(mut schema) => {
            transform(&mut schema);
            schema.to_value()
        }
        Err(_) => value,
    }
}

/// An optional key is one that may be absent.
pub(crate) fn transform(schema: &mut Schema) {
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
    transform_subschemas(&mut transform, schema);
}
