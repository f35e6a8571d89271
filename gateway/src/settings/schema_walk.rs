//! Finds the part of a JSON Schema that speaks about one value.

use serde_json::{Map, Value};

use super::pointer;

/// Every subschema that may apply to the value at `pointer`, all branches of `anyOf` and the like included.
pub(crate) fn subschemas<'a>(root: &'a Value, pointer: &str) -> Vec<&'a Value> {
    let mut found = expand(root, root);
    for key in pointer::keys(pointer) {
        let children = found.iter().flat_map(|schema| children(schema, &key)).collect::<Vec<_>>();
        found.clear();
        for child in children {
            add(root, child, &mut found);
        }
    }
    found
}

/// A subschema with what it refers to and is composed of.
pub(crate) fn expand<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut found = Vec::new();
    add(root, schema, &mut found);
    found
}

/// The names in `properties`, over all subschemas.
pub(crate) fn property_names<'a>(schemas: &[&'a Value]) -> Vec<&'a str> {
    let mut names = properties(schemas).map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    names
}

/// The declared properties, over all subschemas.
pub(crate) fn properties<'a>(schemas: &[&'a Value]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schemas.iter().filter_map(|schema| schema.get("properties")?.as_object()).flat_map(Map::iter)
}

/// The value of an annotation such as `format`, from the first subschema that has it.
pub(crate) fn annotation<'a>(schemas: &[&'a Value], keyword: &str) -> Option<&'a Value> {
    schemas.iter().find_map(|schema| schema.get(keyword))
}

/// True when one of the subschemas allows a value of this JSON type by name.
pub(crate) fn allows_type(schemas: &[&Value], name: &str) -> bool {
    schemas.iter().filter_map(|schema| schema.get("type")).any(|types| match types {
        Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    })
}

/// True when the value at `pointer`, something around it or something inside it is marked `x-secret`: then no
/// part of what the user wrote there may be shown.
pub(crate) fn is_secret(root: &Value, pointer: &str) -> bool {
    let marked = |schema: &&Value| schema.get("x-secret") == Some(&Value::Bool(true));
    let around = pointer::ancestors(pointer).any(|outer| subschemas(root, outer).iter().any(marked));
    around || holds_secret(root, &subschemas(root, pointer), &mut Vec::new())
}

fn holds_secret<'a>(root: &'a Value, schemas: &[&'a Value], seen: &mut Vec<*const Value>) -> bool {
    schemas.iter().any(|schema| {
        if seen.contains(&std::ptr::from_ref(*schema)) {
            return false;
        }
        seen.push(*schema);
        let Some(object) = schema.as_object() else { return false };
        let inner = object.values().flat_map(|value| match value {
            // The entries of `properties`, `$defs` and the like are schemas; so are single values.
            Value::Object(entries) => entries.values().chain([value]).collect::<Vec<_>>(),
            Value::Array(entries) => entries.iter().collect(),
            _ => Vec::new(),
        });
        object.get("x-secret") == Some(&Value::Bool(true))
            || inner.into_iter().any(|schema| holds_secret(root, &expand(root, schema), seen))
    })
}

fn add<'a>(root: &'a Value, schema: &'a Value, found: &mut Vec<&'a Value>) {
    // A schema may refer to itself.
    if !schema.is_object() || found.iter().any(|known| std::ptr::eq(*known, schema)) {
        return;
    }
    found.push(schema);
    let target =
        schema.get("$ref").and_then(Value::as_str).and_then(|link| root.pointer(link.strip_prefix('#')?));
    let branches = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .filter_map(|keyword| schema.get(keyword)?.as_array())
        .flatten()
        .chain(["then", "else"].into_iter().filter_map(|keyword| schema.get(keyword)));
    for next in target.into_iter().chain(branches) {
        add(root, next, found);
    }
}

fn children<'a>(schema: &'a Value, key: &str) -> Vec<&'a Value> {
    let one = |keyword: &str| schema.get(keyword);
    let own = one("properties").and_then(|properties| properties.get(key));
    let by_index = key.parse::<usize>().ok().and_then(|index| one("prefixItems")?.get(index));
    if let Some(exact) = own.or(by_index) {
        return vec![exact];
    }
    let patterns = one("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let rest = ["additionalProperties", "unevaluatedProperties", "items"].into_iter().filter_map(one);
    patterns.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "properties": {
                "url": { "type": "string" },
                "auth": { "$ref": "#/$defs/auth" },
                "headers": { "additionalProperties": { "type": "string", "x-secret": true } },
                "routes": { "type": "array", "items": { "$ref": "#/$defs/route" } },
                "either": { "anyOf": [
                    { "type": "string" },
                    { "type": "object", "properties": { "depth": { "type": "integer" } } },
                ]},
            },
            "$defs": {
                "auth": { "properties": { "user": {}, "password": { "x-secret": true } } },
                "route": { "properties": { "next": { "$ref": "#/$defs/route" }, "to": { "type": "string" } } },
            },
        })
    }

    #[test]
    fn finds_types_through_references_branches_and_items() {
        let schema = schema();
        for (pointer, kind, expected) in [
            ("/url", "string", true),
            ("/url", "integer", false),
            ("/either", "string", true),
            ("/either", "object", true),
            ("/either/depth", "integer", true),
            ("/routes/3/next/next/to", "string", true),
            ("/nothing/here", "string", false),
        ] {
            assert_eq!(allows_type(&subschemas(&schema, pointer), kind), expected, "{pointer} {kind}");
        }
        assert_eq!(property_names(&subschemas(&schema, "/auth")), ["password", "user"]);
    }

    #[test]
    fn secrets_hide_what_is_around_and_inside() {
        let schema = schema();
        for (pointer, expected) in [
            ("/auth/password", true),
            ("/auth/password/deeper", true),
            ("/auth", true),
            ("/headers/x", true),
            ("", true),
            ("/url", false),
            ("/auth/user", false),
            ("/routes/0", false),
        ] {
            assert_eq!(is_secret(&schema, pointer), expected, "{pointer}");
        }
    }
}
