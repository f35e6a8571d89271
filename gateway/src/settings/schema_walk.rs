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

/// True when the value at `pointer`, or something around it, is marked `x-secret`.
pub(crate) fn is_marked(root: &Value, pointer: &str) -> bool {
    let marked = |schema: &&Value| schema.get("x-secret") == Some(&Value::Bool(true));
    pointer::ancestors(pointer).any(|outer| subschemas(root, outer).iter().any(marked))
}

/// True when no part of what the user wrote at `pointer` may be shown: it is marked, or it stands where something
/// belongs that may hold a secret: a table, or a list of tables, lists or secrets.
pub(crate) fn is_secret(root: &Value, pointer: &str) -> bool {
    let item = pointer::join(pointer, "0");
    let (own, items) = (subschemas(root, pointer), subschemas(root, &item));
    let may_hold = |schemas: &[&Value], kind: &str, keywords: &[&str]| {
        allows_type(schemas, kind) || keywords.iter().any(|word| annotation(schemas, word).is_some())
    };
    let may_be_table =
        |schemas| may_hold(schemas, "object", &["properties", "patternProperties", "additionalProperties"]);
    is_marked(root, &item)
        || may_be_table(&own)
        || may_be_table(&items)
        || may_hold(&items, "array", &["items", "prefixItems"])
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
                "keys": { "type": "array", "items": { "x-secret": true } },
                "tags": { "type": "array", "items": { "type": "string" } },
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
    fn what_is_secret_or_may_hold_a_secret_is_hidden() {
        let schema = schema();
        for (pointer, expected) in [
            ("/auth/password", true),
            ("/auth/password/deeper", true),
            ("/auth", true),
            ("/headers/x", true),
            ("", true),
            ("/url", false),
            ("/auth/user", false),
            ("/routes", true),
            ("/routes/0/to", false),
            ("/keys", true),
            ("/tags", false),
        ] {
            assert_eq!(is_secret(&schema, pointer), expected, "{pointer}");
        }
    }
}
