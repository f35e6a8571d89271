//! The credentials among a plugin's settings, as its schema tells them.

use std::path::Path;

use serde_json::{Map, Value};
use setting_values::regular_file;

use super::{pointer, schema_walk as walk};
use crate::mask::{self, Credential};

/// The largest file that is read for a secret.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is marked `x-secret`, what a `*_file` beside such a setting holds, and what URLs hold.
pub(crate) fn of(schema: &Value, settings: &Value) -> Vec<Credential> {
    let mut found = Vec::new();
    collect(schema, "", settings, &mut found);
    found
}

fn collect(schema: &Value, at: &str, value: &Value, found: &mut Vec<Credential>) {
    match value {
        Value::String(text) => {
            let marked = walk::is_marked(schema, at).then(|| text.clone());
            let texts = marked.into_iter().chain(mask::in_url(text)).chain(in_file(schema, at, text));
            let setting = at.trim_start_matches('/').replace('/', ".");
            found.extend(texts.map(|text| Credential { setting: setting.clone(), text }));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(schema, &pointer::join(at, &index.to_string()), item, found);
            }
        }
        Value::Object(table) => table_of(schema, at, table, found),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn table_of(schema: &Value, at: &str, table: &Map<String, Value>, found: &mut Vec<Credential>) {
    for (key, value) in table {
        collect(schema, &pointer::join(at, key), value, found);
    }
}

/// The secrets in the file that a plugin reads instead of a setting: one, or `NAME=VALUE` by lines or commas. One that cannot
/// be read is the plugin's to complain of.
fn in_file(schema: &Value, at: &str, path: &str) -> Vec<String> {
    let is_secret = |setting: &&str| walk::is_marked(schema, &pointer::join(setting, "0"));
    if at.strip_suffix("_file").filter(is_secret).is_none() {
        return Vec::new();
    }
    let text = regular_file::read_text(Path::new(path), MAX_FILE_BYTES).unwrap_or_default();
    let values = text.split([',', '\n']).filter_map(|pair| pair.split_once('='));
    let values = values.map(|(_, value)| value.trim().to_owned());
    std::iter::once(text.trim().to_owned()).chain(values).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "from-a-file\n").unwrap();
        let pairs = folder.path().join("pairs");
        std::fs::write(&pairs, "one=first, two=second=2\n").unwrap();
        let schema = json!({ "properties": {
            "url": { "type": "string" },
            "password": { "type": "string", "x-secret": true },
            "password_file": { "type": "string" },
            "note_file": { "type": "string" },
            "headers_file": { "type": "string" },
            "headers": { "additionalProperties": { "type": "string", "x-secret": true } },
            "keys": { "type": "array", "items": { "x-secret": true } },
            "auth": { "properties": { "token": { "x-secret": true }, "user": { "type": "string" } } },
        }});
        let settings = json!({
            "url": "https://u:in-the-url@host", "password_file": file, "note_file": file,
            "headers_file": pairs, "headers": { "x": "a-header" },
            "keys": ["one", "two"], "auth": { "token": "a-token", "user": "somebody" },
        });
        let found = of(&schema, &settings);
        let setting = |text: &str| &found.iter().find(|found| found.text == text).unwrap().setting;
        assert_eq!((&**setting("a-header"), &**setting("a-token")), ("headers.x", "auth.token"));
        let mut texts: Vec<_> = found.iter().map(|found| &*found.text).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(
            texts,
            [
                "a-header",
                "a-token",
                "first",
                "from-a-file",
                "in-the-url",
                "one",
                "one=first, two=second=2",
                "second=2",
                "two"
            ]
        );
    }
}
