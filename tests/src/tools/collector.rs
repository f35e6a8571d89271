//! A real OpenTelemetry Collector.

use std::{
    fs::File,
    io::{self, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::{deps, file, installed, lasting_port, leash::Leash, poll};
use crate::{
    raw_provider::{RawProvider, RawRequest},
    wait::PATIENCE,
};

/// A Collector that receives OTLP by gRPC and HTTP, which can be stopped and started again on the same ports.
///
/// It hands on what it understood, as OTLP's JSON, and acknowledges nothing before that has arrived here.
#[derive(Debug)]
pub struct Collector {
    grpc_port: u16,
    http_port: u16,
    folder: TempDir,
    config: PathBuf,
    /// One that it takes.
    signal: &'static str,
    arrived: RawProvider,
    server: Option<Leash>,
}

impl Collector {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_for(&["logs", "traces", "metrics"]).await
    }

    /// The same with pipelines for these signals alone: it knows no others.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_for(signals: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arrived = RawProvider::of(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        );
        let arrived = arrived.await;
        let (grpc_port, http_port) = (lasting_port(), lasting_port());
        let config =
            file(folder.path(), "config.yaml", &config(grpc_port, http_port, &arrived.url(), signals));
        let signal = signals[0];
        let mut collector = Self { grpc_port, http_port, folder, config, signal, arrived, server: None };
        collector.start_again();
        collector
    }

    /// Ends it as an operator does: it finishes what it has begun.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.end_by(Signal::TERM);
        }
    }

    /// Kills it in the middle of what it does.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it on the same ports and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(installed(deps().join("collector/otelcol")));
        command.arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Leash::spawn_in(self.folder.path(), Signal::KILL, &mut command);
        let all_listen = || {
            TcpStream::connect(("127.0.0.1", self.grpc_port)).is_ok() && is_ready(self.http_port, self.signal)
        };
        let ready = poll(|| (server.has_ended() || all_listen()).then(|| !server.has_ended()));
        assert!(ready == Some(true), "the Collector did not start: {}", self.said());
        self.server = Some(server);
    }

    /// Where it takes OTLP by gRPC.
    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc_port)
    }

    /// Where it takes OTLP by HTTP, without `/v1/logs` and the others.
    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// The Collector's process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().map(Leash::id)
    }

    /// All that it wrote to its log: warnings and errors.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The log records so far, each with its `resource` and its `scope`. Here and below `attributes` and `body` are
    /// plain JSON, with the types that they were sent with; all else is as OTLP's JSON has it.
    pub fn logs(&self) -> Vec<Value> {
        self.arrived("/v1/logs", "resourceLogs", "scopeLogs", "logRecords")
    }

    /// The same since this was asked last. Nothing is kept of what came until now, spans and metrics included.
    pub fn take_logs(&self) -> Vec<Value> {
        items(&self.arrived.take_requests(), "/v1/logs", "resourceLogs", "scopeLogs", "logRecords")
    }

    /// The spans so far, each with its `resource` and its `scope`.
    pub fn spans(&self) -> Vec<Value> {
        self.arrived("/v1/traces", "resourceSpans", "scopeSpans", "spans")
    }

    /// The metrics so far, each with its data points, its `resource` and its `scope`.
    pub fn metrics(&self) -> Vec<Value> {
        self.arrived("/v1/metrics", "resourceMetrics", "scopeMetrics", "metrics")
    }

    fn arrived(&self, path: &str, resources: &str, scopes: &str, items: &str) -> Vec<Value> {
        self::items(&self.arrived.requests(), path, resources, scopes, items)
    }
}

/// The items of all requests to a path.
fn items(requests: &[RawRequest], path: &str, resources: &str, scopes: &str, items: &str) -> Vec<Value> {
    let of_path = requests.iter().filter(|request| request.head.split(' ').nth(1) == Some(path));
    of_path
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .flat_map(|request: Value| flat(&request, resources, scopes, items))
        .collect()
}

/// Whether it answers a request without any records as it should: it listens before its pipelines run.
fn is_ready(port: u16, signal: &str) -> bool {
    let request = format!(
        "POST /v1/{signal} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    let answer = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        io::read_to_string(stream)
    });
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// Its own metrics would be served on a port that everybody wants. Without a queue it answers a client only when what
/// the client sent has been handed on.
fn config(grpc_port: u16, http_port: u16, arrived: &str, signals: &[&str]) -> String {
    let pipeline = |signal: &&str| format!("    {signal}: {{ receivers: [otlp], exporters: [otlp_http] }}\n");
    let pipelines: String = signals.iter().map(pipeline).collect();
    format!(
        "receivers:\n  otlp:\n    protocols:\n      grpc: {{ endpoint: '127.0.0.1:{grpc_port}' }}\n      \
           http: {{ endpoint: '127.0.0.1:{http_port}' }}\n\
         exporters:\n  otlp_http:\n    endpoint: {arrived}\n    encoding: json\n    compression: none\n    \
           sending_queue: {{ enabled: false }}\n    retry_on_failure: {{ enabled: false }}\n\
         service:\n  telemetry:\n    logs: {{ level: warn }}\n    metrics: {{ level: none }}\n  \
           pipelines:\n{pipelines}"
    )
}

/// The items of a request, each with what stands above it.
fn flat(request: &Value, resources: &str, scopes: &str, items: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for resource in list(&request[resources]) {
        for scope in list(&resource[scopes]) {
            for item in list(&scope[items]) {
                let mut item = plain(item);
                item["resource"] = plain(&resource["resource"]);
                item["scope"] = plain(&scope["scope"]);
                found.push(item);
            }
        }
    }
    found
}

/// OTLP's JSON with plain attributes and bodies.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), plain_field(name, value))).collect()
        }
        Value::Array(values) => values.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn plain_field(name: &str, value: &Value) -> Value {
    match name {
        "attributes" => attributes(value).into(),
        "body" => any_value(value),
        _ => plain(value),
    }
}

/// A key that was sent twice is an error of the sender, which a map would hide.
fn attributes(list_of_pairs: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    for pair in list(list_of_pairs) {
        let name = pair["key"].as_str().unwrap();
        let before = map.insert(name.to_owned(), any_value(&pair["value"]));
        assert!(before.is_none(), "the attribute {name} was sent twice: {list_of_pairs}");
    }
    map
}

/// An `AnyValue` by its type; OTLP writes an integer as text, because JavaScript's are too short for it.
fn any_value(value: &Value) -> Value {
    let Some((kind, value)) = value.as_object().and_then(|fields| fields.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => {
            value.as_str().map_or_else(|| value.clone(), |text| text.parse::<i64>().unwrap().into())
        }
        "arrayValue" => list(&value["values"]).iter().map(any_value).collect(),
        "kvlistValue" => attributes(&value["values"]).into(),
        "bytesValue" => Map::from_iter([(kind.clone(), value.clone())]).into(),
        _ => value.clone(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_carry_what_stands_above_them_and_plain_attributes_of_their_types() {
        let request = json!({ "resourceLogs": [{
            "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "gateway" } }] },
            "scopeLogs": [{ "scope": { "name": "s" }, "logRecords": [{
                "body": { "kvlistValue": { "values": [{ "key": "a", "value": { "intValue": "7" } }] } },
                "attributes": [
                    { "key": "long", "value": { "intValue": "9007199254740993" } },
                    { "key": "real", "value": { "doubleValue": 1.5 } },
                    { "key": "list", "value": { "arrayValue": { "values": [{ "boolValue": true }, {}] } } },
                    { "key": "text", "value": { "stringValue": "7" } },
                    { "key": "bytes", "value": { "bytesValue": "AAE=" } },
                ],
            }] }],
        }] });
        let expected = json!({
            "resource": { "attributes": { "service.name": "gateway" } },
            "scope": { "name": "s" },
            "body": { "a": 7 },
            "attributes": {
                "long": 9_007_199_254_740_993_i64, "real": 1.5, "list": [true, null], "text": "7",
                "bytes": { "bytesValue": "AAE=" },
            },
        });
        assert_eq!(flat(&request, "resourceLogs", "scopeLogs", "logRecords"), [expected]);
    }
}
