//! The faults as a client sees them on the wire.

#![forbid(unsafe_code)]

use std::{io::Write as _, net::SocketAddr, time::Duration};

use demo_provider::{Options, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

async fn start(api_key: Option<&str>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let options =
        Options { chunk_delay: Duration::ZERO, api_key: api_key.map(str::to_owned), ..Options::default() };
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(serve(listener, options, async { drop(stopped.await) }));
    Running { address, stop, server }
}

async fn send(address: SocketAddr, model: &str, stream: bool) -> TcpStream {
    let body =
        format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    connection.write_all((head + &body).as_bytes()).await.expect("sent");
    connection
}

/// All bytes until the connection ends, however it ends.
async fn ask(address: SocketAddr, model: &str, stream: bool) -> String {
    let mut connection = send(address, model, stream).await;
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), connection.read_to_end(&mut answer)).await.expect("an end").ok();
    String::from_utf8(answer).expect("UTF-8")
}

fn announced(answer: &str) -> usize {
    let (_, rest) = answer.split_once("content-length: ").expect(answer);
    rest.lines().next().and_then(|line| line.parse().ok()).expect("a length")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect(answer).1
}

const LAST_CHUNK: &str = "\r\n0\r\n\r\n";

#[tokio::test]
async fn a_whole_stream_ends_with_its_last_chunk_and_a_cut_one_does_not() {
    let provider = start(None).await;
    let whole = ask(provider.address, "demo", true).await;
    assert!(whole.contains("data: [DONE]\n\n") && whole.ends_with(LAST_CHUNK), "{whole}");
    assert!(whole.contains("\r\nx-request-id: req_"), "{whole}");
    let cut = ask(provider.address, "demo-cut", true).await;
    assert!(cut.starts_with("HTTP/1.1 200") && cut.contains("data: {"), "{cut}");
    assert!(!cut.contains("[DONE]") && !cut.ends_with(LAST_CHUNK), "{cut}");
}

#[tokio::test]
async fn a_cut_answer_is_shorter_than_announced() {
    let provider = start(None).await;
    let whole = ask(provider.address, "demo", false).await;
    assert_eq!(body(&whole).len(), announced(&whole));
    let cut = ask(provider.address, "demo-cut", false).await;
    assert_eq!(body(&cut).len(), announced(&cut) / 2);
}

#[tokio::test]
async fn a_stream_stalls_after_as_many_chunks_as_were_asked_for() {
    let provider = start(None).await;
    let mut connection = send(provider.address, "demo-stall-mid:3", true).await;
    let mut text = Vec::new();
    let ended = timeout(Duration::from_millis(200), connection.read_to_end(&mut text)).await;
    assert!(ended.is_err(), "the stream ended: {text:?}");
    assert_eq!(String::from_utf8(text).expect("UTF-8").matches("data: {").count(), 3);
}

#[tokio::test]
async fn a_compressed_request_is_read() {
    let provider = start(None).await;
    let body = br#"{"model":"demo","messages":[{"role":"user","content":"squeezed"}]}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let body = encoder.write_all(body).and_then(|()| encoder.finish()).expect("gzip");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-encoding: gzip\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(provider.address).await.expect("a connection");
    connection.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("You said: squeezed"), "{answer}");
}

#[tokio::test]
async fn a_stalled_stream_sends_something_and_then_nothing_until_the_server_stops() {
    let provider = start(None).await;
    let mut connection = send(provider.address, "demo-stall-mid", true).await;
    let mut begun = vec![0; 12];
    connection.read_exact(&mut begun).await.expect("the beginning");
    assert_eq!(begun, b"HTTP/1.1 200");
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_millis(100), connection.read_to_end(&mut rest)).await;
    assert!(ended.is_err(), "the stream ended: {rest:?}");
    let stopped = Instant::now();
    provider.stop.send(()).expect("running");
    provider.server.await.expect("no panic").expect("no error");
    assert!(stopped.elapsed() < Duration::from_secs(5));
    connection.read_to_end(&mut rest).await.ok();
    assert!(!rest.ends_with(LAST_CHUNK.as_bytes()));
}

#[tokio::test]
async fn failures_have_openais_shape_and_advice() {
    let provider = start(None).await;
    let limited = ask(provider.address, "demo-fail-429", true).await;
    assert!(limited.starts_with("HTTP/1.1 429") && limited.contains("\r\nretry-after: 1\r\n"), "{limited}");
    let error: serde_json::Value = serde_json::from_str(body(&limited)).expect("JSON");
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    assert!(ask(provider.address, "demo-fail-503", false).await.starts_with("HTTP/1.1 503"));
    let broken = ask(provider.address, "demo-error-event", true).await;
    assert!(broken.starts_with("HTTP/1.1 200") && broken.contains("data: {\"error\":"), "{broken}");
}

#[tokio::test]
async fn a_big_answer_has_its_size() {
    let provider = start(None).await;
    let answer = ask(provider.address, "demo-big:5MiB", false).await;
    assert_eq!(body(&answer).len(), announced(&answer));
    assert!(announced(&answer) > 5 << 20);
}

#[tokio::test]
async fn a_key_is_asked_for_where_one_is_set() {
    let provider = start(Some("secret")).await;
    assert!(ask(provider.address, "demo", false).await.starts_with("HTTP/1.1 401"));
}
