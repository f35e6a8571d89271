//! The client gets the provider's bytes, whatever they are and however they come; the record says what happened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use end_to_end::{
    Answer, Client, Gateway, Provider, RawProvider, Running, Step, client::post, wait_for, within,
};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

const PATH: &str = "/v1/chat/completions";
const EVENT_STREAM: &str = "text/event-stream";
/// With umlauts, an emoji, and usage in the last chunk.
const GOLDEN: &str = include_str!("../../../gateway/src/recorder/testdata/chat-usage.sse");
const GOLDEN_RECORD: &str = include_str!("../../../gateway/src/recorder/testdata/chat-usage.json");
const MIB: u64 = 1024 * 1024;

fn question(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Hello" }] }).to_string()
}

fn streamed(model: &str) -> String {
    let options = json!({ "include_usage": true });
    let messages = json!([{ "role": "user", "content": "Hello" }]);
    json!({ "model": model, "messages": messages, "stream": true, "stream_options": options }).to_string()
}

async fn open(gateway: &Running, body: String, headers: &[(&str, &str)]) -> Response<Incoming> {
    gateway.client.open(post(&format!("{}{PATH}", gateway.url), body, headers)).await.unwrap()
}

/// Reads on until there are at least so many bytes, or the body ends.
async fn read_up_to(answer: &mut Response<Incoming>, length: usize, read: &mut Vec<u8>) {
    while read.len() < length {
        let Some(frame) = within("a frame", answer.frame()).await else { return };
        read.extend_from_slice(frame.unwrap().data_ref().unwrap());
    }
}

/// Whether the body breaks off: no client can take it for a whole answer.
async fn is_broken(answer: Response<Incoming>) -> bool {
    within("the body", answer.into_body().collect()).await.is_err()
}

fn metadata(record: &Value) -> &Value {
    &record["attributes"]["metadata"]
}

fn texts(metadata: &Value) -> [&str; 2] {
    ["end_reason", "status"].map(|key| metadata[key].as_str().unwrap())
}

/// What two records of the same exchange have in common.
fn without_time_and_ids(mut record: Value) -> Value {
    for key in ["timestamp", "trace_id", "span_id"] {
        record[key].take();
    }
    for key in ["id", "thread_id"] {
        record["attributes"][key].take();
    }
    for key in ["latency", "provider_latency", "ttfb", "ttft", "gateway_overhead"] {
        record["attributes"]["metadata"][key].take();
    }
    record["attributes"]["response"]["streamed_data_ms"].take();
    record
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_reaches_client_and_record_unchanged() {
    let gates: Arc<[Semaphore]> = GOLDEN.bytes().map(|_| Semaphore::new(0)).collect();
    let provider = RawProvider::start({
        let gates = gates.clone();
        move |request| {
            let cut: usize = request.header("x-cut").unwrap().parse().unwrap();
            let (gates, (head, tail)) = (gates.clone(), GOLDEN.as_bytes().split_at(cut));
            let opened = Step::wait(async move { gates[cut].acquire().await.unwrap().forget() });
            vec![Step::chunked_head(EVENT_STREAM), Step::chunk(head), opened, Step::chunk(tail), Step::end()]
        }
    })
    .await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter().start().await;
    let gateway = Arc::new(gateway);
    let mut clients = JoinSet::new();
    for first in 1..=16 {
        let (gateway, gates) = (gateway.clone(), gates.clone());
        clients.spawn(async move {
            for cut in (first..GOLDEN.len()).step_by(16) {
                let mut answer = open(&gateway, streamed("asked-for"), &[("x-cut", &cut.to_string())]).await;
                let mut read = Vec::new();
                read_up_to(&mut answer, cut, &mut read).await;
                // The rest has not been sent yet: nothing of what has come is held back.
                assert!(read == GOLDEN.as_bytes()[..cut], "cut at {cut}");
                gates[cut].add_permits(1);
                read_up_to(&mut answer, usize::MAX, &mut read).await;
                assert!(read == GOLDEN.as_bytes(), "cut at {cut}");
            }
        });
    }
    clients.join_all().await;
    assert_all_alike(&gateway, GOLDEN.len() - 1).await;
}

async fn assert_all_alike(gateway: &Running, count: usize) {
    gateway.wait_for_books("file", |books| books["delivered"] == count).await;
    let mut records = gateway.records().into_iter().map(without_time_and_ids);
    let first = records.next().unwrap();
    assert_eq!(1 + records.filter(|record| assert_alike(record, &first)).count(), count);
    let expected: Value = serde_json::from_str(GOLDEN_RECORD).unwrap();
    let mut response = first["attributes"]["response"].clone();
    assert_eq!(response["streamed_data"].as_array().unwrap().len(), GOLDEN.matches("data: {").count());
    for chunks in ["streamed_data", "streamed_data_ms"] {
        response.as_object_mut().unwrap().remove(chunks);
    }
    assert_eq!(response, expected["response"]);
    assert_eq!(metadata(&first)["tokens"], json!({ "input": 19, "output": 10, "total": 29 }));
    assert_eq!(metadata(&first)["response_size"], GOLDEN.len());
}

fn assert_alike(record: &Value, first: &Value) -> bool {
    assert!(record == first, "{record}\n{first}");
    true
}

#[tokio::test]
async fn an_answer_of_50_mib_passes_whole_and_takes_no_memory() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    gateway.post(PATH, question("demo-fast")).await;
    gateway.wait_for_records(1).await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    let answer = gateway.post(PATH, question("demo-big:50MiB")).await;
    let body = answer.json();
    let text = body["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.len() as u64 == 50 * MIB && text.replace("filling ", "").is_empty());
    let record = gateway.wait_for_records(2).await.remove(1);
    assert_flat(&gateway, before);
    assert!(record["attributes"]["response"].is_null());
    assert_eq!(metadata(&record)["truncated"], json!(["response"]));
    assert_eq!(metadata(&record)["response_size"], answer.body.len());
    assert_eq!(record["attributes"]["model"], "demo-big:50MiB");
    assert_eq!(metadata(&record)["tokens"]["total"], body["usage"]["total_tokens"]);
    assert_eq!(texts(metadata(&record)), ["complete", "success"]);
}

#[tokio::test]
async fn a_stream_of_50_mib_passes_whole_and_takes_no_memory() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    gateway.post(PATH, question("demo-fast")).await;
    gateway.wait_for_records(1).await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    let answer = gateway.post(PATH, streamed("demo-big:50MiB")).await;
    let chunks = answer.body.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: {"));
    let chunks: Vec<Value> =
        chunks.map(|rest| serde_json::from_slice(&[b"{", rest].concat()).unwrap()).collect();
    let text = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map_or(0, str::len);
    assert_eq!(chunks.iter().map(text).sum::<usize>() as u64, 50 * MIB);
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"));
    let record = gateway.wait_for_records(2).await.remove(1);
    assert_flat(&gateway, before);
    assert!(record["attributes"]["response"].is_null());
    assert_eq!(metadata(&record)["truncated"], json!(["response"]));
    assert_eq!(metadata(&record)["response_size"], answer.body.len());
    assert_eq!(record["attributes"]["model"], "demo-big:50MiB");
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(metadata(&record)["tokens"]["output"], usage["completion_tokens"]);
    assert_eq!(metadata(&record)["usage_source"], "provider");
    assert_eq!(texts(metadata(&record)), ["complete", "success"]);
}

/// The copy is capped at 4 MiB; the rest is what the connections' buffers and the allocator take.
fn assert_flat(gateway: &Running, before: u64) {
    let grown = gateway.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "the gateway grew by {} KiB", grown / 1024);
}

#[tokio::test]
async fn a_slow_reader_holds_back_the_provider_and_fills_no_memory() {
    for client in [Client::default(), Client::http2()] {
        let chunk = [b"100000\r\n".as_slice(), &[b'x'; MIB as usize], b"\r\n"].concat();
        let flood = move |_: &_| vec![Step::chunked_head(EVENT_STREAM), Step::Flood(chunk.clone().into())];
        let provider = RawProvider::start(flood).await;
        let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
        gateway.forget_peak();
        let before = gateway.resident_bytes();
        let request = post(&format!("{}{PATH}", gateway.url), streamed("any"), &[]);
        let answer = client.open(request).await.unwrap();
        let stalled = wait_until_still(&provider).await;
        // All of it is in the kernel's buffers, of two connections.
        assert!(stalled > 0 && stalled < 64 * MIB, "{stalled} bytes came although nobody reads");
        assert_flat(&gateway, before);
        drop(answer);
        assert_eq!(texts(metadata(&gateway.record().await)), ["client_disconnect", "error"]);
    }
}

/// Waits until the provider could send nothing for a while; what it sent until then.
async fn wait_until_still(provider: &RawProvider) -> u64 {
    let mut last = (0, 0);
    wait_for("the provider to be held back", || {
        let written = provider.written();
        last = if written == last.0 { (written, last.1 + 1) } else { (written, 0) };
        let is_still = written > 0 && last.1 == 50;
        async move { is_still.then_some(written) }
    })
    .await
}

#[tokio::test]
async fn a_client_that_goes_away_makes_one_record_with_what_was_seen() {
    let provider = Provider::with_pause(Duration::from_millis(10)).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let mut answer = open(&gateway, streamed("demo-words:2000"), &[]).await;
    let mut read = Vec::new();
    read_up_to(&mut answer, 1000, &mut read).await;
    drop(answer);
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["client_disconnect", "error"]);
    assert_eq!(metadata(&record)["status_code"], 200);
    let text = record["attributes"]["response"]["choices"][0]["delta"]["content"].as_str().unwrap();
    assert!(text.starts_with("word1 word2 "), "{text}");
    assert_eq!(metadata(&record)["usage_source"], "none", "the provider had not told any");
    wait_for_connections(&gateway, 0.0).await;
}

async fn wait_for_connections(gateway: &Running, count: f64) {
    wait_for(&format!("{count} connections"), || async {
        (gateway.metric("magicapi_gateway_open_connections", &[]).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn usage_that_came_before_the_client_went_away_is_partial() {
    let chunk = br#"data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}

"#;
    let steps = |_: &_| {
        vec![Step::chunked_head(EVENT_STREAM), Step::chunk(chunk), Step::wait(std::future::pending())]
    };
    let provider = RawProvider::start(steps).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let mut answer = open(&gateway, streamed("m"), &[]).await;
    read_up_to(&mut answer, chunk.len(), &mut Vec::new()).await;
    drop(answer);
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["client_disconnect", "error"]);
    assert_eq!(metadata(&record)["usage_source"], "partial");
    assert_eq!(metadata(&record)["tokens"], json!({ "input": 3, "output": 1, "total": 4 }));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_makes_one_record() {
    let provider = RawProvider::start(|_| vec![Step::wait(std::future::pending())]).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let stream = send_raw(&gateway, &question("demo")).await;
    wait_for("the provider to have it", || async { provider.requests().pop() }).await;
    drop(stream);
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["client_disconnect", "error"]);
    assert!(metadata(&record)["status_code"].is_null());
    assert_eq!(metadata(&record)["request_model"], "demo");
}

#[tokio::test]
async fn clients_that_hang_up_at_once_make_one_record_each() {
    let provider = RawProvider::start(|_| vec![Step::wait(std::future::pending())]).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    for _ in 0..20 {
        drop(send_raw(&gateway, &question("demo")).await);
    }
    let records = gateway.wait_for_records(20).await;
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|record| texts(metadata(record)) == ["client_disconnect", "error"]));
}

async fn send_raw(gateway: &Running, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_provider_that_breaks_off_gives_the_client_a_broken_body() {
    for body in [streamed("demo-cut"), question("demo-cut")] {
        let provider = Provider::start().await;
        let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
        let answer = open(&gateway, body, &[]).await;
        assert_eq!(answer.status(), 200);
        assert!(is_broken(answer).await, "the client must not take it for a whole answer");
        let record = gateway.record().await;
        assert_eq!(texts(metadata(&record)), ["provider_error", "error"]);
        assert_eq!(metadata(&record)["error_type"], "upstream_broken");
        assert_eq!(metadata(&record)["provider_error_count"], 1);
        assert!(metadata(&record)["response_size"].as_u64() > Some(0));
    }
}

#[tokio::test]
async fn an_error_event_after_200_is_the_providers_error() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let answer = gateway.post(PATH, streamed("demo-error-event")).await;
    assert_eq!(answer.status, 200);
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["provider_error", "error"]);
    assert_eq!(metadata(&record)["provider_status_code"], 200);
    assert_eq!(metadata(&record)["provider_error_count"], 1);
    assert!(answer.text().contains(metadata(&record)["provider_error_type"].as_str().unwrap()));
}

#[tokio::test]
async fn an_error_of_the_provider_passes_as_it_is() {
    for status in [400, 429, 503] {
        let provider = Provider::start().await;
        let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
        let body = question(&format!("demo-fail-{status}"));
        let direct =
            Client::default().send(post(&format!("{}{PATH}", provider.url()), body.clone(), &[])).await;
        let answer = gateway.post(PATH, body).await;
        assert_eq!((answer.status, &answer.body), (direct.status, &direct.body));
        assert_eq!(answer.header("retry-after"), direct.header("retry-after"));
        let record = gateway.record().await;
        assert_eq!(texts(metadata(&record)), ["complete", "error"]);
        assert_eq!(metadata(&record)["provider_status_code"], status);
        assert_eq!(record["attributes"]["response"], direct.json());
        assert_eq!(metadata(&record)["provider_request_id"], answer.header("x-request-id"));
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut_and_recorded_as_a_timeout() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider_with("demo", &provider.url(), "timeout.idle = \"200ms\"")
        .file_exporter()
        .start()
        .await;
    let answer = open(&gateway, streamed("demo-stall-mid"), &[]).await;
    assert_eq!(answer.status(), 200);
    assert!(is_broken(answer).await);
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["timeout", "error"]);
    assert_eq!(metadata(&record)["error_type"], "upstream_idle_timeout");
    assert!(!record["attributes"]["response"]["streamed_data"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_longer_than_every_timeout_is_not_cut() {
    let provider = Provider::with_pause(Duration::from_millis(20)).await;
    let gateway = Gateway::new()
        .provider_with("demo", &provider.url(), "timeout.idle = \"500ms\"\ntimeout.first_byte = \"500ms\"")
        .file_exporter()
        .start()
        .await;
    let answer = gateway.post(PATH, streamed("demo-words:60")).await;
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["complete", "success"]);
    assert!(
        metadata(&record)["latency"].as_u64() > Some(1000),
        "longer than both timeouts together: {record}"
    );
}

/// The gateway's own error: in OpenAI's shape, and in one record.
async fn assert_own_error(gateway: &Running, answer: &Answer, status: u16, code: &str, end_reason: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code);
    assert!(error["message"].is_string() && error["type"].is_string() && error["param"].is_null(), "{error}");
    assert!(!answer.header("x-request-id").is_empty());
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), [end_reason, "error"]);
    assert_eq!(metadata(&record)["status_code"], status);
    assert_eq!(metadata(&record)["error_type"], code);
    assert_eq!(metadata(&record)["response_size"], answer.body.len());
}

#[tokio::test]
async fn a_provider_that_never_answers_is_a_504() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider_with("demo", &provider.url(), "timeout.first_byte = \"200ms\"")
        .file_exporter()
        .start()
        .await;
    let answer = gateway.post(PATH, question("demo-stall")).await;
    assert_own_error(&gateway, &answer, 504, "upstream_timeout", "timeout").await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_a_502() {
    // Bound, and so nobody else's; not listening, and so refused.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let gateway = Gateway::new().provider("demo", &url).file_exporter().start().await;
    let answer = gateway.post(PATH, question("demo")).await;
    assert_own_error(&gateway, &answer, 502, "upstream_connect_failed", "provider_error").await;
}

#[tokio::test]
async fn a_provider_that_hangs_up_without_an_answer_is_a_502() {
    let provider = RawProvider::of("").await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let answer = gateway.post(PATH, question("demo")).await;
    assert_own_error(&gateway, &answer, 502, "upstream_broken", "provider_error").await;
}

#[tokio::test]
async fn a_request_over_the_limit_is_a_413() {
    let long = question(&"x".repeat(200_000));
    for (client, limit) in
        [(Client::default(), "1 KiB"), (Client::default(), "128 KiB"), (Client::http2(), "1 KiB")]
    {
        let provider = Provider::start().await;
        let gateway = Gateway::new()
            .provider("demo", &provider.url())
            .server(&format!("max_request_bytes = \"{limit}\""))
            .file_exporter()
            .start()
            .await;
        let answer = client.send(post(&format!("{}{PATH}", gateway.url), long.clone(), &[])).await;
        assert_own_error(&gateway, &answer, 413, "request_too_large", "gateway_error").await;
    }
}

#[tokio::test]
async fn a_chunked_request_over_the_limit_is_a_413() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .server("max_request_bytes = \"1 KiB\"")
        .file_exporter()
        .start()
        .await;
    let body = question(&"x".repeat(2000));
    let answer = post_chunked(&gateway, &[body.as_bytes()]).await;
    assert_own_error(&gateway, &answer, 413, "request_too_large", "gateway_error").await;
}

#[tokio::test]
async fn a_chunked_request_passes_and_is_recorded() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let body = question("demo");
    let answer = post_chunked(&gateway, &body.as_bytes().chunks(7).collect::<Vec<_>>()).await;
    assert_eq!(answer.status, 200);
    let record = gateway.record().await;
    assert_eq!(record["attributes"]["request"], serde_json::from_str::<Value>(&body).unwrap());
    assert_eq!(metadata(&record)["request_size"], body.len());
    assert_eq!(record["attributes"]["response"], answer.json());
}

/// A request whose length is not announced. HTTP/1.1 by hand: the client of these tests always knows the length.
async fn post_chunked(gateway: &Running, pieces: &[&[u8]]) -> Answer {
    let mut stream = TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in pieces {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Answer { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// Whether the client gets what the provider sends, plain and streamed, and the records say the same.
async fn assert_passes(gateway: &Running, client: &Client, provider: &Provider) {
    for (number, body) in [question("demo-fast"), streamed("demo-fast")].into_iter().enumerate() {
        let direct =
            Client::default().send(post(&format!("{}{PATH}", provider.url()), body.clone(), &[])).await;
        let answer = client.send(post(&format!("{}{PATH}", gateway.url), body, &[])).await;
        assert_eq!((answer.status, &answer.body), (direct.status, &direct.body));
        let record = gateway.wait_for_records(number + 1).await.remove(number);
        assert_eq!(texts(metadata(&record)), ["complete", "success"]);
        assert_eq!(metadata(&record)["response_size"], answer.body.len());
        assert_eq!(metadata(&record)["tokens"]["output"], 30);
    }
}

#[tokio::test]
async fn http2_clients_are_served() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    assert_passes(&gateway, &Client::http2(), &provider).await;
}

#[tokio::test]
async fn http2_is_spoken_to_a_provider_by_prior_knowledge() {
    let provider = Provider::start().await;
    let door = Door::plain(&provider).await;
    let gateway = Gateway::new().provider_with("demo", &door.url, "http2 = \"always\"").file_exporter();
    assert_passes(&gateway.start().await, &Client::default(), &provider).await;
    assert!(door.saw_http2());
}

#[tokio::test]
async fn providers_behind_tls_are_reached_by_what_tls_negotiates() {
    for (alpn, http2, is_http2) in [
        ("h2", "auto", true),
        ("http/1.1", "auto", false),
        ("h2", "always", true),
        ("http/1.1", "never", false),
    ] {
        let provider = Provider::start().await;
        let door = Door::tls(&provider, alpn).await;
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &door.certificate).unwrap();
        let keys = format!("http2 = \"{http2}\"\nca_file = \"{}\"", ca_file.display());
        let gateway = Gateway::new().provider_with("demo", &door.url, &keys).file_exporter().start().await;
        assert_passes(&gateway, &Client::default(), &provider).await;
        assert_eq!(door.saw_http2(), is_http2, "{alpn}, {http2}");
    }
}

/// Before the first handshake nobody knows what it will negotiate.
#[tokio::test]
async fn requests_that_come_at_once_share_the_connection_if_tls_negotiates_http2() {
    // The first of them may not be ready yet when the others ask for it.
    for (alpn, connections) in [("h2", 1..=1), ("http/1.1", 2..=21)] {
        let provider = Provider::start().await;
        let door = Door::tls(&provider, alpn).await;
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &door.certificate).unwrap();
        let keys = format!("ca_file = \"{}\"", ca_file.display());
        let gateway = Gateway::new().provider_with("demo", &door.url, &keys).server("workers = 1");
        let gateway = gateway.start().await;
        let mut asked = JoinSet::new();
        for _ in 0..20 {
            let (client, url) = (gateway.client.clone(), format!("{}{PATH}", gateway.url));
            asked.spawn(async move { client.send(post(&url, question("demo-fast:20ms"), &[])).await.status });
        }
        assert!(asked.join_all().await.iter().all(|status| *status == 200));
        let made = door.connections.load(Ordering::Relaxed);
        assert!(connections.contains(&made), "{alpn}: {made}");
    }
}

#[tokio::test]
async fn a_provider_that_nobody_vouches_for_is_not_trusted() {
    let provider = Provider::start().await;
    let door = Door::tls(&provider, "http/1.1").await;
    let gateway = Gateway::new().provider("demo", &door.url).file_exporter().start().await;
    let answer = gateway.post(PATH, question("demo")).await;
    assert_own_error(&gateway, &answer, 502, "upstream_connect_failed", "provider_error").await;
    assert!(gateway.log().contains("UnknownIssuer"), "the cause is in the log");
    assert!(!answer.text().contains("UnknownIssuer"), "and not in the answer");
}

/// What stands before a provider: it takes TLS off, and sees which HTTP is spoken.
struct Door {
    url: String,
    certificate: String,
    http2: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

impl Door {
    async fn plain(provider: &Provider) -> Self {
        Self::open(provider, None, String::new(), "http").await
    }

    async fn tls(provider: &Provider, alpn: &str) -> Self {
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::open(provider, Some(acceptor), pair.cert.pem(), "https").await
    }

    async fn open(
        provider: &Provider,
        acceptor: Option<tokio_rustls::TlsAcceptor>,
        certificate: String,
        scheme: &str,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (http2, behind) = (Arc::<AtomicBool>::default(), provider.url().replace("http://", ""));
        let seen = http2.clone();
        let count = Arc::<AtomicUsize>::default();
        let counted = count.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, behind, seen) = (acceptor.clone(), behind.clone(), seen.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => pass(stream, &behind, &seen).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                pass(stream, &behind, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, certificate, http2, connections: count, task }
    }

    fn saw_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut front: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    behind: &str,
    http2: &AtomicBool,
) {
    let mut first = [0; HTTP2_PREFACE.len()];
    if front.read_exact(&mut first).await.is_err() {
        return;
    }
    http2.store(first == HTTP2_PREFACE, Ordering::Relaxed);
    let mut back = TcpStream::connect(behind).await.unwrap();
    back.write_all(&first).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
}

/// A chat completion of "zipped, zipped, zipped, zipped" and 7 tokens, by gzip -9.
const ZIPPED: &str = "1f8b08000000000002036d4fcb6ac33010fc95326735d8d4d4449f925082226f62b58a5678371062fcef5d43e3534f03f3\
    dad9196980471c83c65bcdef0738f0f99ba2feb1bbc8c693262e26c589829225dabe6bdb7df3d9340e371e289bfd996a35cd5c23a748027f9c9\
    1ca400ff8d54622e14af03326ce8608224934145d335c948a6e35eeed7fc4e2704925c978b22d62ab3c44b962f972b8bf0ed4c956eb49f98\
    78aedf858fb5f6f6c6ce7a0ac216f44bf2cbf4cea4c0f10010000";

#[tokio::test]
async fn a_compressed_answer_passes_byte_for_byte_and_is_recorded_readable() {
    let digits: Vec<u8> = ZIPPED.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    let zipped: Vec<u8> = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    let headers = "content-type: application/json\r\ncontent-encoding: gzip\r\nconnection: close";
    let head = format!("HTTP/1.1 200 OK\r\n{headers}\r\ncontent-length: {}\r\n\r\n", zipped.len());
    let provider = RawProvider::of([head.as_bytes(), &zipped].concat()).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let answer = gateway.post_with(PATH, question("zipped"), &[("accept-encoding", "gzip")]).await;
    assert_eq!(answer.body, zipped);
    assert_eq!((answer.header("content-encoding"), answer.header("content-length")), ("gzip", "189"));
    assert_eq!(provider.requests()[0].header("accept-encoding"), Some("gzip"));
    let record = gateway.record().await;
    let text = &record["attributes"]["response"]["choices"][0]["message"]["content"];
    assert_eq!(text, "zipped, zipped, zipped, zipped");
    assert_eq!(metadata(&record)["tokens"]["total"], 7);
    assert_eq!(metadata(&record)["response_size"], 189, "as it passed on the wire");
}

#[tokio::test]
async fn a_compressed_stream_is_folded_as_one_that_is_not() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let answer = gateway.post(PATH, streamed("demo-gzip")).await;
    assert!(answer.body.starts_with(b"\x1f\x8b") && answer.header("content-encoding") == "gzip");
    let record = gateway.record().await;
    let text = record["attributes"]["response"]["choices"][0]["delta"]["content"].as_str().unwrap();
    assert!(text.starts_with("You said: Hello The demo provider"), "{text}");
    assert_eq!(metadata(&record)["tokens"]["output"], text.split_whitespace().count());
    assert_eq!(metadata(&record)["response_size"], answer.body.len());
}

const EMPTY_ANSWER: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

#[tokio::test]
async fn telemetry_headers_are_for_the_record_and_not_for_the_provider() {
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let telemetry = ["x-thread-id", "x-organisation-id", "x-user-id", "x-project-id", "x-project-name"];
    let telemetry = [&telemetry[..], &["x-experiment-id", "x-request-id", "x-provider"]].concat();
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut headers = vec![("traceparent", caller), ("x-custom", "kept"), ("x-provider", "demo")];
    headers.extend(telemetry.iter().filter(|name| **name != "x-provider").map(|name| (*name, &name[2..])));
    gateway.post_with(PATH, question("demo"), &headers).await;
    let request = &provider.requests()[0];
    for name in telemetry {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("x-custom"), Some("kept"));
    assert_eq!(request.body, question("demo"));
    let record = gateway.record().await;
    let attributes = &record["attributes"];
    for (key, name) in [("thread_id", "thread-id"), ("org_id", "organisation-id"), ("user_id", "user-id")] {
        assert_eq!(attributes[key], name);
    }
    for (key, name) in [("project_name", "project-name"), ("experiment_id", "experiment-id")] {
        assert_eq!(attributes["metadata"][key], name);
    }
    let span = record["span_id"].as_str().unwrap();
    assert_ne!(span, "b7ad6b7169203331");
    let child = format!("00-0af7651916cd43dd8448eb211c80319c-{span}-01");
    assert_eq!(request.header("traceparent"), Some(&*child));
}

#[tokio::test]
async fn the_clients_key_goes_first_and_the_configured_one_fills_in() {
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let keys = "api_key = \"${SECRET_OF_PROVIDER}\"";
    let gateway = Gateway::new()
        .provider_with("demo", &provider.url(), keys)
        .environment("SECRET_OF_PROVIDER", "sk-configured-0123456789")
        .environment("MAGICAPI_LOG", "trace")
        .file_exporter()
        .start()
        .await;
    gateway.post(PATH, question("demo")).await;
    let theirs = [("authorization", "Bearer sk-theirs-0123456789"), ("cookie", "session=crumbs-0123456789")];
    gateway.post_with(PATH, question("demo"), &theirs).await;
    let sent: Vec<_> = provider
        .requests()
        .iter()
        .map(|request| request.header("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(sent, ["Bearer sk-configured-0123456789", "Bearer sk-theirs-0123456789"]);
    gateway.wait_for_records(2).await;
    let places = [
        std::fs::read_to_string(gateway.folder().join("records.jsonl")).unwrap(),
        gateway.log(),
        gateway.output(),
        gateway.admin("/plugins").await.text(),
        gateway.admin("/metrics").await.text(),
    ];
    for secret in ["sk-configured", "sk-theirs", "crumbs"] {
        assert!(places.iter().all(|place| !place.contains(secret)), "{secret} was told");
    }
}

#[tokio::test]
async fn a_stream_under_way_is_finished_after_sigterm() {
    let provider = Provider::with_pause(Duration::from_millis(20)).await;
    let mut gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let mut answer = open(&gateway, streamed("demo-words:30"), &[]).await;
    let mut read = Vec::new();
    read_up_to(&mut answer, 1, &mut read).await;
    gateway.signal(rustix::process::Signal::TERM);
    read_up_to(&mut answer, usize::MAX, &mut read).await;
    assert!(read.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(gateway.exit_code().await, Some(0));
    assert_eq!(texts(metadata(&gateway.record().await)), ["complete", "success"]);
}

#[tokio::test]
async fn a_stream_that_outlasts_the_grace_is_cut_and_recorded_as_the_gateways_doing() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).server("shutdown_grace = \"200ms\"");
    let mut gateway = gateway.file_exporter().start().await;
    let answer = open(&gateway, streamed("demo-stall-mid"), &[]).await;
    assert_eq!(gateway.stop().await, Some(0));
    assert!(is_broken(answer).await);
    let record = gateway.record().await;
    assert_eq!(texts(metadata(&record)), ["gateway_error", "error"]);
    assert_eq!(metadata(&record)["error_type"], "shutting_down");
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_copies_are_left_out_and_the_requests_go_on() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .section("[telemetry.capture]\nmax_body_bytes = \"1 KiB\"\nmax_in_flight_bytes = \"1 KiB\"")
        .file_exporter()
        .start()
        .await;
    assert_passes(&gateway, &Client::default(), &provider).await;
    let records = gateway.records();
    assert_eq!(metadata(&records[0])["truncated"], json!([]), "a small answer fits");
    assert_eq!(metadata(&records[1])["truncated"], json!(["response"]));
    assert!(
        records[1]["attributes"]["response"].is_null() && records[1]["attributes"]["request"].is_object()
    );
}
