//! The commented default file, written from the schema.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::schema::schema;

/// Longest line of a comment.
const WIDTH: usize = 100;

const HEADER: &str = "\
# MagicAPI Gateway configuration. Every key is here with its default; a file needs only what it changes.
#
# A comment has a space after its \"#\". A line without one is a setting to uncomment: \"#\" for an entry, \"##\"
# for an optional key inside such an entry.
# Durations and sizes have units: \"250ms\", \"30s\", \"5m\"; \"64 KiB\", \"20 MiB\". Relative paths start at the
# folder of this file. ${NAME} and ${NAME:-default} in a string take environment variables; \"$${\" is a plain \"${\".
";

/// A TOML file with every key, its documentation and its default; entries that a file may add are commented out.
pub fn default_file() -> String {
    let schema = schema();
    let mut text = HEADER.to_owned();
    for (name, section) in schema["properties"].as_object().into_iter().flatten() {
        let examples = section.get("items").or_else(|| section.get("additionalProperties"));
        match examples.filter(|entry| entry.is_object()) {
            Some(entry) => write_example(&mut text, name, section, entry),
            None => Table { path: name.clone(), prefix: "" }.write(&mut text, section, &format!("[{name}]")),
        }
    }
    text
}

/// An entry of a list or a map, commented out.
fn write_example(text: &mut String, name: &str, section: &Value, entry: &Value) {
    let (path, header) = match section.get("x-example-key").and_then(Value::as_str) {
        Some(key) => (format!("{name}.{key}"), format!("[{name}.{key}]")),
        None => (name.to_owned(), format!("[[{name}]]")),
    };
    let mut entry = entry.clone();
    // The section's sentence says more than that of its entry's type.
    entry["description"] = section["description"].clone();
    Table { path, prefix: "#" }.write(text, &entry, &header);
}

/// One table: its header, its keys, then the tables in it.
struct Table {
    path: String,
    /// What makes its lines comments, or nothing.
    prefix: &'static str,
}

impl Table {
    fn write(&self, text: &mut String, schema: &Value, header: &str) {
        text.push('\n');
        comment(text, &describe(schema));
        line(text, self.prefix, header);
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let (tables, keys): (Vec<_>, Vec<_>) =
            properties.iter().partition(|(_, property)| is_table(property));
        for (name, property) in keys {
            comment(text, &describe(property));
            self.write_key(text, name, property);
        }
        for (name, property) in tables {
            let path = format!("{}.{name}", self.path);
            let header = format!("[{path}]");
            Table { path, prefix: self.prefix }.write(text, property, &header);
        }
        // A table without declared keys, such as a plugin's own settings.
        for (name, value) in example(schema).and_then(Value::as_object).into_iter().flatten() {
            line(text, self.prefix, &format!("{name} = {}", toml(value)));
        }
    }

    fn write_key(&self, text: &mut String, name: &str, property: &Value) {
        let default = property.get("default");
        let Some(value) = default.or_else(|| example(property)) else { return };
        // An example without these would not load.
        let needed = property.get("x-in-example").is_some();
        let optional = default.is_none() && !needed;
        let prefix = format!("{}{}", self.prefix, if optional { "#" } else { "" });
        // Written out, a default would end what the variable can do.
        let from_variable = |variable: &str| Value::from(format!("${{{variable}:-{}}}", plain(value)));
        let value = property["x-env"].as_str().map_or_else(|| value.clone(), from_variable);
        let content = format!("{name} = {}", toml(&value));
        match value.as_array() {
            Some(items) if content.len() > WIDTH => long_list(text, &prefix, name, items),
            _ => line(text, &prefix, &content),
        }
    }
}

/// A list that fits no line, an item in each.
fn long_list(text: &mut String, prefix: &str, name: &str, items: &[Value]) {
    // A comment that begins with a space would be no setting to uncomment.
    let indent = if prefix.is_empty() { "    " } else { "" };
    line(text, prefix, &format!("{name} = ["));
    for item in items {
        line(text, prefix, &format!("{indent}{},", toml(item)));
    }
    line(text, prefix, "]");
}

fn is_table(schema: &Value) -> bool {
    schema["type"] == "object"
}

fn example(schema: &Value) -> Option<&Value> {
    schema.get("examples")?.get(0)
}

/// The documentation, with allowed values and bounds.
fn describe(schema: &Value) -> String {
    let mut text = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let mut choices = Vec::new();
    for choice in schema["oneOf"].as_array().into_iter().flatten() {
        let meaning = choice["description"].as_str().unwrap_or_default().trim_end_matches('.');
        choices.push(format!("{}: {}", toml(&choice["const"]), lower_first(meaning)));
    }
    if choices.len() > 1 {
        let _ = write!(text, " {}.", choices.join("; "));
    }
    let bound = |keywords: [&str; 2]| keywords.iter().find_map(|keyword| schema.get(*keyword)).map(plain);
    let (low, high) = (bound(["x-min", "minimum"]), bound(["x-max", "maximum"]));
    // Bounds that guard against slips, not choices, are left out.
    let low = low.filter(|low| low != "0" && low != "1ms" && low != "0.001");
    let high = high.filter(|high| high != "365days" && !is_type_bound(high));
    let _ = match (low, high) {
        (Some(low), Some(high)) => write!(text, " From {low} to {high}."),
        (Some(low), None) => write!(text, " At least {low}."),
        (None, Some(high)) => write!(text, " At most {high}."),
        (None, None) => Ok(()),
    };
    text
}

/// Bounds that schemars derives from the width of an integer.
fn is_type_bound(bound: &str) -> bool {
    [u64::from(u8::MAX), u64::from(u16::MAX), u64::from(u32::MAX)].iter().any(|max| bound == max.to_string())
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // "HTTP/2 only" keeps its capitals.
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn toml(value: &Value) -> String {
    match toml::Value::try_from(value) {
        Ok(value) => value.to_string(),
        // Schemas hold what TOML can say; `every_key_is_in_the_file` would find the exception.
        Err(_) => String::new(),
    }
}

fn line(text: &mut String, prefix: &str, content: &str) {
    text.push_str(prefix);
    text.push_str(content);
    text.push('\n');
}

/// Writes a paragraph as comment lines.
fn comment(text: &mut String, paragraph: &str) {
    let mut current = String::new();
    for word in paragraph.split_whitespace() {
        if !current.is_empty() && current.len() + word.len() + 1 > WIDTH {
            line(text, "# ", &std::mem::take(&mut current));
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    if !current.is_empty() {
        line(text, "# ", &current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Source, load};
    use crate::settings::schema_walk as walk;

    #[track_caller]
    fn load_text(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let source =
            Source { path: Some(path), env: &|_| None, plugin_dir: None, known_providers: &["openai"] };
        let loaded = load(&source);
        let lines = loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        loaded.config.unwrap_or_else(|| panic!("{lines:#?}\n{text}"))
    }

    #[test]
    fn the_default_file_says_the_defaults() {
        let config = load_text(&default_file());
        assert_eq!(config, Config { plugins: config.plugins.clone(), ..Config::default() });
    }

    #[test]
    fn a_setting_with_a_variable_still_follows_it() {
        assert!(default_file().contains("environment = \"${DEPLOYMENT_ENVIRONMENT:-production}\"\n"));
    }

    #[test]
    fn every_setting_can_be_uncommented() {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        // Files that are not there, and both ways to give a secret at once, are mistakes of their own.
        let plausible = |line: &&str| !line.contains("_file =");
        let once = default_file().lines().filter(plausible).map(uncomment).collect::<String>();
        let config = load_text(&once);
        assert_eq!((config.providers.len(), config.plugin.len()), (1, 1));
        assert_eq!(config.plugin[0].batch, Default::default());
        let twice = once.lines().map(uncomment).collect::<String>();
        let config = load_text(&twice.replace("ca_file", "#"));
        assert!(config.plugin[0].batch.max_records.is_some());
    }

    fn check_present(text: &str, schema: &Value) {
        for (name, property) in walk::properties(&[schema]) {
            assert!(
                text.contains(&format!("{name} = "))
                    || text.contains(&format!("{name}]"))
                    || text.contains(&format!("[{name}.")),
                "{name}"
            );
            for inner in [Some(property), property.get("items"), property.get("additionalProperties")] {
                inner.into_iter().for_each(|inner| check_present(text, inner));
            }
        }
    }

    #[test]
    fn every_key_is_in_the_file() {
        let text = default_file();
        check_present(&text, &schema());
        assert!(text.lines().all(|line| line.len() <= WIDTH + 20), "lines fit a screen");
    }
}
