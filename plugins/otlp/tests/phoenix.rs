//! A conversation as Arize Phoenix shows it. `PHOENIX=1 tests/setup.sh` installs Phoenix.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use exporter_testkit::{Plugin, Sample};
use otlp_exporter::Otlp;
use serde_json::{Value, json};

/// It loads for half a minute on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(400);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A Phoenix of its own. It ends when it is dropped.
struct Phoenix {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Phoenix {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let deps = std::env::var_os("MAGICAPI_DEPS").map_or_else(|| root.join(".deps"), PathBuf::from);
        let python = deps.join("phoenix/bin/python");
        assert!(python.exists(), "{} is missing; run PHOENIX=1 tests/setup.sh", python.display());
        let folder = tempfile::tempdir().unwrap();
        let (port, grpc_port) = (free_port(), free_port());
        let server = Command::new(python)
            .arg(root.join("tests/servers/phoenix/serve.py"))
            .env("PHOENIX_HOST", "127.0.0.1")
            .env("PHOENIX_PORT", port.to_string())
            .env("PHOENIX_GRPC_PORT", grpc_port.to_string())
            .env("PHOENIX_WORKING_DIR", folder.path())
            .env("PHOENIX_TELEMETRY_ENABLED", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let phoenix = Self { server, port, _folder: folder };
        phoenix.wait(|| phoenix.get("/healthz").map(drop));
        phoenix
    }

    /// The body of an answer with status 200.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    fn wait<T>(&self, mut check: impl FnMut() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = check() {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "Phoenix on port {} has nothing to show", self.port);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its spans by name, once there are so many.
    fn spans(&self, count: usize) -> Vec<Value> {
        self.wait(|| {
            let spans: Value = serde_json::from_str(&self.get("/v1/projects/default/spans")?).ok()?;
            let spans = spans["data"].as_array()?.clone();
            (spans.len() == count).then_some(spans)
        })
    }
}

impl Drop for Phoenix {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn of_the_caller(sample: Sample, span: &'static str) -> Sample {
    sample.with(|metrics| {
        metrics.trace_id = Some(TRACE.into());
        metrics.parent_span_id = Some(CALLER.into());
        metrics.span_id = Some(span.into());
        metrics.thread_id = "thread_1".into();
        metrics.user_id = Some("user_1".into());
    })
}

/// A question that the model answers with a call of a tool.
fn question() -> Sample {
    let request = json!({
        "model": "gpt-4o-mini", "temperature": 0.5,
        "messages": [{ "role": "user", "content": "Weather in Paris?" }],
        "tools": [{ "type": "function", "function": {
            "name": "weather", "description": "The weather", "parameters": { "type": "object", "properties": {} } } }],
    });
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "weather", "arguments": "{\"at\":\"Paris\"}" } });
    let message = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let response =
        json!({ "id": "r1", "choices": [{ "index": 0, "message": message, "finish_reason": "tool_calls" }] });
    Sample::chat().number(1).request(request.to_string()).response(response.to_string())
}

/// What the tool said, and the streamed answer to it.
fn answer() -> Sample {
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "weather", "arguments": "{\"at\":\"Paris\"}" } });
    let request = json!({ "model": "gpt-4o-mini", "stream": true, "messages": [
        { "role": "user", "content": "Weather in Paris?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": "rainy" },
    ] });
    let delta = json!({ "role": "assistant", "content": "It rains." });
    let response =
        json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": "stop" }], "streamed_data": [] });
    Sample::stream().number(2).request(request.to_string()).response(response.to_string())
}

#[test]
#[ignore = "needs Phoenix, which make test-all installs"]
fn a_conversation_with_tools_and_a_stream_is_what_phoenix_shows() {
    let phoenix = Phoenix::start();
    let endpoint = format!("http://127.0.0.1:{}", phoenix.port);
    let settings = json!({ "profile": "phoenix", "endpoint": endpoint, "capture_content": true });
    let otlp = Plugin::<Otlp>::create(settings.to_string()).unwrap();
    otlp.health().unwrap();
    let batch = [of_the_caller(question(), "00000000000000a1"), of_the_caller(answer(), "00000000000000a2")];
    assert!(otlp.export(batch).is_all_delivered());
    let spans = phoenix.spans(2);
    for (id, input, output) in
        [("00000000000000a1", "Weather in Paris?", "weather"), ("00000000000000a2", "rainy", "It rains.")]
    {
        let span = spans.iter().find(|span| span["context"]["span_id"] == id).unwrap();
        assert_eq!((&span["context"]["trace_id"], &span["parent_id"]), (&json!(TRACE), &json!(CALLER)));
        assert_eq!((&span["name"], &span["span_kind"]), (&json!("chat gpt-4o-mini"), &json!("LLM")));
        let attributes = &span["attributes"];
        for (name, expected) in [
            ("llm.token_count.prompt", json!(48)),
            ("llm.token_count.completion", json!(865)),
            ("session.id", json!("thread_1")),
            ("user.id", json!("user_1")),
        ] {
            assert_eq!(attributes[name], expected, "{name}: {span:#}");
        }
        let said = |side: &str| {
            let of_side = attributes.as_object().unwrap().iter().filter(|(name, _)| name.starts_with(side));
            of_side.map(|(_, value)| value.to_string()).collect::<String>()
        };
        assert!(said("llm.input_messages").contains(input), "{span:#}");
        assert!(said("llm.output_messages").contains(output), "{span:#}");
    }
    otlp.close().unwrap();
}
