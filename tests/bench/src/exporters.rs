//! What each exporter costs against a backend on the same machine, and how large its library is.
//!
//! The backend is a process of its own (`test-server`), so that its CPU time is not counted.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use exporter_testkit::Sample;
use serde_json::{Value, json};

use crate::{
    Error,
    instance::{self, Exported, Records},
    process::Process,
};

/// One exporter's figures.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) name: &'static str,
    /// Bytes of the library without symbols, as it is shipped.
    pub(crate) size: u64,
    pub(crate) has_backend: bool,
    /// From the file to an instance that is ready, while its backend is away: a backend that answers is not counted.
    pub(crate) load: Duration,
    pub(crate) exported: Exported,
}

/// What an exporter sends to.
enum Backend {
    /// A process of its own.
    Server(&'static str),
    /// Nothing but these settings.
    None(Value),
}

/// Measures every exporter that has a library in `folder`; one that cannot be measured is named, with the reason.
pub(crate) fn measure(
    test_server: &Path,
    folder: &Path,
    window: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Exporter>, Error> {
    let scratch = tempfile::tempdir()?;
    let exporters = [
        ("file", Backend::None(json!({ "path": scratch.path().join("records.jsonl") }))),
        ("prometheus", Backend::None(json!({}))),
        ("postgres", Backend::Server("postgres")),
        ("elasticsearch", Backend::Server("elasticsearch")),
        ("otlp", Backend::Server("otlp")),
        ("datadog", Backend::Server("datadog")),
        ("newrelic", Backend::Server("newrelic")),
    ];
    let mut measured = Vec::new();
    for (name, backend) in exporters {
        say(&format!("exporter {name}"));
        let library = folder.join(format!("lib{name}_exporter.so"));
        let has_backend = matches!(backend, Backend::Server(_));
        match one(&library, test_server, backend, window) {
            Ok((exported, load)) => {
                let size = stripped_size(&library, scratch.path())?;
                measured.push(Exporter { name, size, has_backend, load, exported });
            }
            Err(error) => say(&format!("{name} is not measured: {error}")),
        }
    }
    Ok(measured)
}

fn one(
    library: &Path,
    test_server: &Path,
    backend: Backend,
    window: Duration,
) -> Result<(Exported, Duration), Error> {
    let mut number = 0;
    let records = |count: usize| {
        let first = number;
        number += u32::try_from(count).unwrap_or_default();
        Records((first..number).map(record).collect())
    };
    let (settings, server) = match backend {
        Backend::None(settings) => (settings, None),
        Backend::Server(name) => {
            let (settings, server) = start(test_server, name)?;
            (settings, Some(server))
        }
    };
    let exported = instance::export(library, settings.clone(), records, window)?;
    drop(server);
    Ok((exported, instance::load_time(library, &settings)?))
}

/// Starts a backend; the settings with which its exporter reaches it.
fn start(test_server: &Path, name: &str) -> Result<(Value, Process), Error> {
    let mut command = Command::new(test_server);
    let mut server = Process::spawn(command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    BufReader::new(server.stdout().ok_or("no standard output")?).read_line(&mut line)?;
    let settings = serde_json::from_str(&line).map_err(|_| format!("test-server {name} did not start"))?;
    Ok((settings, server))
}

/// A plausible record of 2 KB as its three parts.
fn record(number: u32) -> [Vec<u8>; 3] {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(8);
    let request = json!({ "model": "gpt-4o-mini", "messages": [{ "role": "user", "content": text }] });
    let response =
        json!({ "id": format!("chatcmpl-{number}"), "choices": [{ "message": { "content": text } }] });
    // Some backends refuse what is a day old.
    let sample = Sample::chat().number(number).started(SystemTime::now());
    [sample.metrics_json(), request.to_string().into(), response.to_string().into()]
}

/// The size after `strip`, which a release leaves with the symbols that backtraces use.
fn stripped_size(library: &Path, scratch: &Path) -> Result<u64, Error> {
    let copy: PathBuf = scratch.join("stripped.so");
    let status = Command::new("strip").arg("-o").arg(&copy).arg(library).status()?;
    if !status.success() {
        return Err(format!("strip {} failed", library.display()).into());
    }
    Ok(fs::metadata(copy)?.len())
}
