//! `magicapi-gateway plugin inspect FILE`

use std::{fmt::Write as _, path::Path, time::Duration};

use plugin_api::Description;
use serde_json::{Value, json};

use super::{block_on, complain, print};
use crate::loader::{self, FileFacts, FileRequest, LoadError};

const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn inspect(file: &Path, as_json: bool, load: bool, allow_insecure: bool) -> u8 {
    block_on(async { report(look(file, load, allow_insecure).await, as_json) })
}

fn report(seen: Result<(FileFacts, Option<Description>), LoadError>, as_json: bool) -> u8 {
    match seen {
        Ok((facts, description)) if as_json => {
            let report = json!({ "file": facts, "description": description });
            print(&format!("{report:#}\n"))
        }
        Ok((facts, description)) => print(&text(&facts, description.as_ref())),
        Err(error) => {
            complain(&format!("error: {error}"));
            1
        }
    }
}

async fn look(
    file: &Path,
    load: bool,
    allow_insecure: bool,
) -> Result<(FileFacts, Option<Description>), LoadError> {
    let request = FileRequest { path: file.to_owned(), sha256: None, allow_insecure };
    if load {
        let (facts, description) = loader::describe(request, DEADLINE).await?;
        Ok((facts, Some(description)))
    } else {
        Ok((loader::examine(&request)?, None))
    }
}

fn text(facts: &FileFacts, description: Option<&Description>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12} {value}");
        }
    };
    line("file", &facts.path.display().to_string());
    line("size", &format!("{} bytes", facts.size));
    line("sha256", &facts.sha256);
    if let Some(note) = &facts.note {
        let language = note.language.as_deref().unwrap_or("unknown language");
        line("note", &format!("{} {}, ABI {}, {language}", note.name, note.version, note.abi_version));
    }
    let Some(description) = description else { return out };
    line("name", &description.name);
    line("version", &description.version);
    line("description", &description.description);
    line("author", &description.author);
    line("license", &description.license);
    line("api", &description.api_version);
    line("content", json!(description.content).as_str().unwrap_or_default());
    let batch = &description.batch;
    let (records, bytes) = (batch.max_records, batch.max_bytes);
    line("batch", &format!("{records} records, {bytes} bytes, {:?}", batch.max_delay));
    out.push_str(&settings(description.config_schema.as_value()));
    out
}

/// Each setting in a line of its own, and what it means below.
fn settings(schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return String::new() };
    let mut out = String::from("settings\n");
    for (name, property) in properties {
        let is_required =
            schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
        let default = property.get("default").map(|value| format!(" = {value}"));
        let default = default.unwrap_or_else(|| if is_required { ", required" } else { "" }.to_owned());
        let _ = writeln!(out, "  {name}{default}{}", variables(&property["x-env"]));
        // A doc comment's line breaks are those of its source file.
        let description = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        if !description.is_empty() {
            let _ = writeln!(out, "      {description}");
        }
    }
    out
}

/// The environment variables that set it: one name, or several in their order.
fn variables(names: &Value) -> String {
    let names: Vec<&str> = match names {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    };
    if names.is_empty() { String::new() } else { format!(" [${}]", names.join(", $")) }
}
