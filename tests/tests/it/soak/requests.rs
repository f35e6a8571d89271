//! The kinds of requests, and what is right for a client to get.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use end_to_end::{Client, client::post};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// A request of every kind that a gateway meets, by what the demo provider's model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Fast,
    NoUsage,
    Stream,
    StreamWithUsage,
    LongStream,
    GzipRequest,
    GzipAnswer,
    GzipStream,
    LargeRequest,
    LargeAnswer,
    LargeStream,
    Failed(u16),
    ErrorEvent,
    Cut,
    CutStream,
    Garbage,
    GarbageStream,
    ToolCall,
    ToolStream,
    Completion,
    Response,
    ResponseStream,
    Embedding,
    /// The client leaves while the provider stalls.
    LeavesStalled,
    /// The client leaves in the middle of a stream that comes faster than it reads.
    LeavesLarge,
}

/// How many of a thousand requests are of each kind.
const MIX: [(Kind, u32); 27] = [
    (Kind::Plain, 300),
    (Kind::Fast, 120),
    (Kind::NoUsage, 40),
    (Kind::Stream, 150),
    (Kind::StreamWithUsage, 60),
    (Kind::LongStream, 10),
    (Kind::GzipRequest, 40),
    (Kind::GzipAnswer, 30),
    (Kind::GzipStream, 10),
    (Kind::LargeRequest, 6),
    (Kind::LargeAnswer, 6),
    (Kind::LargeStream, 3),
    (Kind::Failed(500), 30),
    (Kind::Failed(429), 30),
    (Kind::ErrorEvent, 15),
    (Kind::Cut, 15),
    (Kind::CutStream, 15),
    (Kind::Garbage, 15),
    (Kind::GarbageStream, 10),
    (Kind::ToolCall, 25),
    (Kind::ToolStream, 15),
    (Kind::Completion, 10),
    (Kind::Response, 10),
    (Kind::ResponseStream, 10),
    (Kind::Embedding, 10),
    (Kind::LeavesStalled, 10),
    (Kind::LeavesLarge, 5),
];

const LARGE: usize = 128 * 1024;

/// Makes the request of this number, and sees that its answer is right. Panics when it is not.
pub(super) async fn make(client: &Client, gateway: &str, number: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed ^ number as u64);
    let kind = pick(random.u32(0..1000));
    let marker = format!("soak {number} {:016x}", random.u64(..));
    let (path, body) = kind.request(&marker);
    let url = format!("{gateway}/v1/{path}");
    let request = if kind == Kind::GzipRequest {
        post(&url, gzipped(&body.to_string()), &[("content-encoding", "gzip")])
    } else {
        post(&url, body.to_string(), &[])
    };
    let answer = client.open(request).await.unwrap_or_else(|error| panic!("{kind:?} {marker}: {error}"));
    let (head, mut body) = answer.into_parts();
    let status = if let Kind::Failed(status) = kind { status } else { 200 };
    assert_eq!(head.status, status, "{kind:?} {marker}");
    if matches!(kind, Kind::LeavesStalled | Kind::LeavesLarge) {
        // With its body the connection goes.
        end_to_end::within("a first frame", body.frame()).await.unwrap().unwrap();
        return;
    }
    let whole = end_to_end::within("an answer", body.collect()).await;
    if matches!(kind, Kind::Cut | Kind::CutStream) {
        assert!(whole.is_err(), "{kind:?} {marker}: an answer that was cut is no whole one");
        return;
    }
    let body = whole.unwrap_or_else(|error| panic!("{kind:?} {marker}: {error}")).to_bytes();
    assert!(kind.is_right(&head.headers, &body, &marker), "{kind:?} {marker}: {body:?}");
}

fn pick(number: u32) -> Kind {
    let mut below = 0;
    let found = MIX.iter().find(|(_, share)| {
        below += share;
        number < below
    });
    found.expect("the shares add up to a thousand").0
}

impl Kind {
    /// The path and the body.
    fn request(self, marker: &str) -> (&'static str, Value) {
        let messages = json!([{ "role": "user", "content": marker }]);
        let chat = |model: &str| ("chat/completions", json!({ "model": model, "messages": messages }));
        let stream = |model: &str| {
            ("chat/completions", json!({ "model": model, "stream": true, "messages": messages }))
        };
        match self {
            Self::Plain | Self::GzipRequest => chat("demo"),
            Self::Fast => chat("demo-fast"),
            Self::NoUsage => chat("demo-no-usage"),
            Self::Stream => stream("demo"),
            Self::StreamWithUsage => {
                let (path, mut body) = stream("demo");
                body["stream_options"] = json!({ "include_usage": true });
                (path, body)
            }
            Self::LongStream => stream("demo-words:200"),
            Self::GzipAnswer => chat("demo-gzip"),
            Self::GzipStream => stream("demo-gzip"),
            Self::LargeRequest => {
                let content = format!("{marker} {}", "large ".repeat(LARGE / 6));
                let messages = json!([{ "role": "user", "content": content }]);
                ("chat/completions", json!({ "model": "demo", "messages": messages }))
            }
            Self::LargeAnswer => chat(&format!("demo-big:{LARGE}")),
            Self::LargeStream => stream(&format!("demo-big:{LARGE}")),
            Self::Failed(status) => chat(&format!("demo-fail-{status}")),
            Self::ErrorEvent => stream("demo-error-event"),
            Self::Cut => chat("demo-cut"),
            Self::CutStream => stream("demo-cut"),
            Self::Garbage => chat("demo-garbage"),
            Self::GarbageStream => stream("demo-garbage"),
            Self::ToolCall | Self::ToolStream => with_tools(self == Self::ToolStream, marker),
            Self::Completion => ("completions", json!({ "model": "demo", "prompt": marker })),
            Self::Response => ("responses", json!({ "model": "demo", "input": marker })),
            Self::ResponseStream => {
                ("responses", json!({ "model": "demo", "input": marker, "stream": true }))
            }
            Self::Embedding => ("embeddings", json!({ "model": "demo", "input": marker })),
            Self::LeavesStalled => stream("demo-stall-mid"),
            Self::LeavesLarge => stream("demo-big:4MiB"),
        }
    }

    fn is_right(self, headers: &HeaderMap, body: &[u8], marker: &str) -> bool {
        let chat_text = |pointer: &str| text_at(body, pointer);
        let message = "/choices/0/message/content";
        let has_usage = || json_of(body)["usage"]["total_tokens"].is_u64();
        match self {
            Self::Plain | Self::GzipRequest | Self::LargeRequest => {
                chat_text(message).contains(marker) && has_usage()
            }
            Self::Fast => chat_text(message).starts_with("tokens ") && has_usage(),
            Self::NoUsage => chat_text(message).contains(marker) && !has_usage(),
            Self::Stream | Self::StreamWithUsage => {
                streamed_text(body).is_some_and(|text| text.contains(marker))
            }
            Self::LongStream => streamed_text(body).is_some_and(|text| text.ends_with(" word200 ")),
            Self::GzipAnswer => is_gzip(headers) && text_at(&inflated(body), message).contains(marker),
            Self::GzipStream => {
                is_gzip(headers) && streamed_text(&inflated(body)).is_some_and(|text| text.contains(marker))
            }
            Self::LargeAnswer => chat_text(message).len() == LARGE,
            Self::LargeStream => streamed_text(body).is_some_and(|text| text.len() == LARGE),
            Self::Failed(status) => {
                let has_advice = headers.contains_key("retry-after");
                json_of(body)["error"]["message"].is_string() && has_advice == (status == 429)
            }
            Self::ErrorEvent => events(body).last().is_some_and(|event| event["error"].is_object()),
            Self::Garbage => body == b"{\"choices\": [\0",
            Self::GarbageStream => body.ends_with(b"data\n\n\0"),
            Self::ToolCall => {
                chat_text("/choices/0/message/tool_calls/0/function/arguments").contains("Paris")
            }
            Self::ToolStream => {
                body.ends_with(b"data: [DONE]\n\n") && events(body).iter().any(is_part_of_a_tool_call)
            }
            Self::Completion => chat_text("/choices/0/text").contains(marker),
            Self::Response => chat_text("/output/0/content/0/text").contains(marker),
            Self::ResponseStream => events(body).last().is_some_and(|event| {
                event["type"] == "response.completed"
                    && event["response"]["output"][0].to_string().contains(marker)
            }),
            Self::Embedding => json_of(body)["data"][0]["embedding"].is_array(),
            Self::Cut | Self::CutStream | Self::LeavesStalled | Self::LeavesLarge => false,
        }
    }
}

/// A conversation in which a tool was called before.
fn with_tools(stream: bool, marker: &str) -> (&'static str, Value) {
    let function = json!({ "name": "get_weather", "arguments": "{\"city\":\"Rome\"}" });
    let body = json!({
        "model": "demo-tool-call",
        "stream": stream,
        "messages": [
            { "role": "user", "content": marker },
            { "role": "assistant", "content": null,
              "tool_calls": [{ "id": "call_1", "type": "function", "function": function }] },
            { "role": "tool", "tool_call_id": "call_1", "content": "sunny" },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "get_weather",
            "parameters": { "type": "object", "properties": { "city": { "type": "string" } } },
        } }],
    });
    ("chat/completions", body)
}

fn is_part_of_a_tool_call(event: &Value) -> bool {
    event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str() == Some("\"Paris\", ")
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

fn text_at(body: &[u8], pointer: &str) -> String {
    json_of(body).pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn events(body: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(body);
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// The text of a chat stream that came to its end.
fn streamed_text(body: &[u8]) -> Option<String> {
    let is_whole = body.ends_with(b"data: [DONE]\n\n");
    let events = events(body);
    let deltas = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    is_whole.then(|| deltas.collect())
}

fn is_gzip(headers: &HeaderMap) -> bool {
    headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip")
}

fn gzipped(text: &str) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap().into()
}

fn inflated(body: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    flate2::read::MultiGzDecoder::new(body).read_to_end(&mut inflated).unwrap();
    inflated
}
