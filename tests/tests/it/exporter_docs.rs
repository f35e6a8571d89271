//! `docs/exporters/*.md`: the table of options is the schema's, and every example is a configuration that the gateway
//! takes.
//!
//! `UPDATE_DOCS=1 cargo test -p end-to-end --test it exporter_docs` writes the tables anew.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::artifacts;
use serde_json::Value;

const EXPORTERS: [&str; 8] =
    ["console", "datadog", "elasticsearch", "file", "newrelic", "otlp", "postgres", "prometheus"];

const BEGIN: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->";

fn page(exporter: &str) -> PathBuf {
    artifacts::checkout().join(format!("docs/exporters/{exporter}.md"))
}

/// What the plugin's own file says of its settings.
fn schema(exporter: &str) -> Value {
    let output = Command::new(artifacts::gateway())
        .args(["plugin", "inspect", "--json"])
        .arg(artifacts::plugin(exporter))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    seen["description"]["config_schema"].clone()
}

fn options(schema: &Value) -> String {
    let mut table =
        String::from("\n| option | type | default | variable | meaning |\n|---|---|---|---|---|\n");
    rows(schema, schema, "", &mut table);
    table.push('\n');
    table
}

/// A row for each property, those of tables inside as `outer.inner`.
fn rows(root: &Value, table: &Value, prefix: &str, out: &mut String) {
    let Some(properties) = table["properties"].as_object() else { return };
    for (name, property) in properties {
        let target = resolve(root, property);
        let name = format!("{prefix}{name}");
        if target["properties"].is_object() {
            rows(root, target, &format!("{name}."), out);
            continue;
        }
        let is_required = table["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|it| name.ends_with(it.as_str().unwrap())));
        let default = match property.get("default").or_else(|| target.get("default")) {
            _ if is_required => "required".to_owned(),
            None | Some(Value::Null) => "—".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        let text =
            ["description"].iter().find_map(|key| property[key].as_str().or_else(|| target[key].as_str()));
        let meaning = format!("{}{}", text.unwrap_or_default(), choices(root, target));
        writeln!(
            out,
            "| `{name}` | {} | {default} | {} | {} |",
            kind(root, target),
            variables(property, target),
            cell(&meaning)
        )
        .unwrap();
    }
}

/// Follows a reference, and the one real branch of an optional value.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(link) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(link.trim_start_matches('#')).unwrap());
    }
    match schema["anyOf"].as_array().map(Vec::as_slice) {
        Some([one, other]) if other["type"] == "null" => resolve(root, one),
        _ => schema,
    }
}

fn kind(root: &Value, schema: &Value) -> String {
    match schema["format"].as_str() {
        Some("human-duration") => return "duration".to_owned(),
        Some("byte-size") => return "size".to_owned(),
        _ if schema["x-secret"] == true => return "secret".to_owned(),
        _ => {}
    }
    let name = |kind: &str| match kind {
        "array" => match schema.get("items") {
            Some(items) => format!("list of {}", kind_plural(root, items)),
            None => "list".to_owned(),
        },
        "object" => "table".to_owned(),
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(one) => name(one),
        Value::Array(several) => {
            let kinds = several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.map(name).collect::<Vec<_>>().join(" or ")
        }
        _ if schema["oneOf"].is_array() || schema["enum"].is_array() => "string".to_owned(),
        _ => match schema["anyOf"].as_array() {
            Some(forms) => {
                let mut kinds: Vec<_> = forms.iter().map(|form| kind_plural(root, form)).collect();
                kinds.dedup();
                kinds.join(" or ")
            }
            None => "any".to_owned(),
        },
    }
}

fn kind_plural(root: &Value, schema: &Value) -> String {
    kind(root, resolve(root, schema))
}

/// The values that a string may have, each with its meaning.
fn choices(root: &Value, schema: &Value) -> String {
    let one_of = schema["oneOf"].as_array().into_iter().flatten().filter_map(|choice| {
        let choice = resolve(root, choice);
        let value = choice.get("const").or_else(|| choice["enum"].get(0))?;
        let meaning = choice["description"].as_str().map(|text| format!(": {}", text.trim_end_matches('.')));
        Some(format!("`{value}`{}", meaning.unwrap_or_default()))
    });
    let plain = schema["enum"].as_array().into_iter().flatten().map(|value| format!("`{value}`"));
    let all = one_of.chain(plain).collect::<Vec<_>>();
    if all.is_empty() { String::new() } else { format!(" {}.", all.join("; ")) }
}

fn variables(property: &Value, target: &Value) -> String {
    let names = property.get("x-env").or_else(|| target.get("x-env"));
    let names = match names {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(name) => name.as_str().into_iter().collect(),
        None => Vec::new(),
    };
    if names.is_empty() {
        return "—".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A text as one cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_options_of_every_exporter_are_those_of_its_schema() {
    let mut stale = Vec::new();
    for exporter in EXPORTERS {
        let path = page(exporter);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (before, rest) =
            text.split_once(BEGIN).unwrap_or_else(|| panic!("{} has no {BEGIN}", path.display()));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{} has no {END}", path.display()));
        let wanted = format!("{before}{BEGIN}{}{END}{after}", options(&schema(exporter)));
        if wanted != text {
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&path, wanted).unwrap();
            } else {
                stale.push(exporter);
            }
        }
    }
    assert!(
        stale.is_empty(),
        "the option tables of {stale:?} are not what the plugins say; run with UPDATE_DOCS=1"
    );
}

#[test]
fn every_option_says_what_it_means() {
    for exporter in EXPORTERS {
        let table = options(&schema(exporter));
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            assert!(!row.ends_with("|  |"), "{exporter}: {row}");
        }
    }
}

/// Variables that the pages take for granted.
const KEYS: [&str; 5] =
    ["DD_API_KEY", "NEW_RELIC_LICENSE_KEY", "ELASTICSEARCH_API_KEY", "OTLP_API_KEY", "POSTGRES_PASSWORD"];

/// The example with every absolute path of a `…_file` made one in this folder, and a secret in it.
fn with_files(example: &str, folder: &Path) -> String {
    let lines = example.lines().map(|line| match line.split_once("_file = \"/") {
        Some((key, rest)) => {
            let file = if key.trim() == "ca" {
                PathBuf::from("/etc/ssl/certs/ca-certificates.crt")
            } else {
                folder.join(key.trim())
            };
            if file.starts_with(folder) {
                std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
            }
            format!("{key}_file = \"{}\"{}", file.display(), rest.split_once('"').unwrap().1)
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every example in the pages, put into a file of its own, is taken by `check` with the real plugin.
#[test]
fn every_example_in_the_pages_is_a_configuration_that_works() {
    for exporter in EXPORTERS {
        let text = std::fs::read_to_string(page(exporter)).unwrap();
        let examples: Vec<&str> =
            text.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
        assert!(!examples.is_empty(), "{exporter}: the page has no example");
        for example in examples.into_iter().filter(|example| example.contains("[[plugin]]")) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("gateway.toml");
            std::fs::write(&file, with_files(example, folder.path())).unwrap();
            let mut check = Command::new(artifacts::gateway());
            check.arg("check").arg("--config").arg(&file).current_dir(folder.path()).env_clear();
            check.arg("--plugin-dir").arg(artifacts::plugin(exporter).parent().unwrap());
            if !example.contains("_key_file") {
                for variable in KEYS {
                    check.env(variable, "0123456789abcdef0123456789abcdef");
                }
            }
            let output = check.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{exporter}: {said}\n{example}");
        }
    }
}
