//! Clients that send nothing, halves, or read nothing: each ends by its limit, and by no other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use end_to_end::{
    Gateway, Provider, RawClient, RawProvider, Running, Step,
    raw_client::{
        self, CHAT, PREFACE, RST_STREAM, begin_http2, http1_post, http2_post, question, take_frames,
    },
    wait_for,
};
use tokio::{sync::oneshot, task::JoinSet};

const QUICK: Duration = Duration::from_millis(500);
/// A busy machine is late. It is never early.
const LATE: Duration = Duration::from_secs(15);

async fn gateway(keys: &str, provider: &Provider) -> Running {
    Gateway::new().server(keys).provider("demo", &provider.url()).file_exporter().start().await
}

fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"}") || answer.ends_with(b"\r\n0\r\n\r\n")
}

async fn wait_until_nobody_is_connected(gateway: &Running) {
    wait_for("every connection's end", || async {
        (gateway.metric("magicapi_gateway_open_connections", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_sends_no_whole_head_is_closed_after_the_header_timeout() {
    let provider = Provider::start().await;
    let gateway = gateway("header_timeout = \"500ms\"", &provider).await;
    let mut clients = JoinSet::new();
    for beginning in [&b""[..], b"P", b"PR", &PREFACE[..20], PREFACE, b"GET /v1/models HTTP/1.1\r\nHo"] {
        for url in [gateway.url.clone(), gateway.admin.clone()] {
            clients.spawn(async move {
                let mut client = RawClient::connect(&url).await;
                client.send(beginning).await;
                (beginning, url, client.end().await)
            });
        }
    }
    while let Some(ended) = clients.join_next().await {
        let (beginning, url, open) = ended.unwrap();
        assert!(open >= QUICK && open < LATE, "{:?} at {url}: {open:?}", String::from_utf8_lossy(beginning));
    }
    assert!(gateway.metric("magicapi_gateway_client_timeouts_total", &[("limit", "header")]).await >= 5.0);
}

#[tokio::test]
async fn a_head_that_drips_is_closed_after_the_header_timeout() {
    let provider = Provider::start().await;
    let gateway = gateway("header_timeout = \"500ms\"", &provider).await;
    let mut client = RawClient::connect(&gateway.url).await;
    client.send("GET /v1/models HTTP/1.1\r\n").await;
    let mut dripping = 0;
    while client.is_left_alone_for(Duration::from_millis(50)).await {
        client.send("a: b\r\n").await;
        dripping += 1;
        assert!(dripping < 300, "it drips for ever");
    }
    assert!(client.end().await >= QUICK);
}

#[tokio::test]
async fn an_idle_connection_has_a_limit_of_its_own() {
    let provider = Provider::start().await;
    let gateway = gateway("header_timeout = \"300ms\"\nidle_timeout = \"2s\"", &provider).await;
    let mut client = RawClient::connect(&gateway.url).await;
    for _ in 0..2 {
        client.send(http1_post(&question("demo"))).await;
        client.read_until(is_whole).await;
        assert!(client.is_left_alone_for(Duration::from_secs(1)).await, "closed after the header timeout");
    }
    assert!(client.end().await >= Duration::from_secs(3));
    assert_eq!(gateway.metric("magicapi_gateway_client_timeouts_total", &[("limit", "idle")]).await, 1.0);
    // A head that begins after that time has the header timeout, not the rest of the idle one.
    let mut client = RawClient::connect(&gateway.url).await;
    client.send(http1_post(&question("demo"))).await;
    client.read_until(is_whole).await;
    client.send("GET /v1/mo").await;
    assert!(client.end().await < Duration::from_secs(2));
}

#[tokio::test]
async fn the_idle_time_is_75_seconds_unless_it_is_set() {
    let defaults = end_to_end::Ended::of(end_to_end::magicapi_gateway(&["config", "default"])).await.output;
    assert!(
        defaults.contains("idle_timeout = \"1m 15s\"") || defaults.contains("idle_timeout = \"75s\""),
        "{defaults}"
    );
}

#[tokio::test]
async fn http2_that_only_answers_pings_is_told_to_go_after_the_idle_time() {
    let provider = Provider::start().await;
    let gateway = gateway("idle_timeout = \"500ms\"", &provider).await;
    let mut with_a_request = RawClient::connect(&gateway.url).await;
    with_a_request.send(begin_http2(65_535)).await;
    with_a_request.send(http2_post(1, CHAT, &question("demo"))).await;
    let (open, was_told) = with_a_request.answer_pings().await;
    assert!(was_told && open >= QUICK && open < LATE, "{open:?}");
    // One that does not even answer pings goes as well.
    let mut deaf = RawClient::connect(&gateway.url).await;
    deaf.send(begin_http2(65_535)).await;
    deaf.send(http2_post(1, CHAT, &question("demo"))).await;
    assert!(deaf.end().await < LATE);
    wait_until_nobody_is_connected(&gateway).await;
}

#[tokio::test]
async fn no_limit_ends_a_request_that_waits_for_its_provider() {
    let (go_on, waits) = oneshot::channel::<()>();
    let waits = std::sync::Mutex::new(Some(waits));
    let provider = RawProvider::start(move |_| {
        let waits = waits.lock().unwrap().take().unwrap();
        let body = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        vec![Step::wait(async { drop(waits.await) }), Step::send(body)]
    })
    .await;
    let keys = "header_timeout = \"300ms\"\nidle_timeout = \"300ms\"\nwrite_timeout = \"300ms\"";
    let gateway = Gateway::new().server(keys).provider("raw", &provider.url()).start().await;
    let mut client = RawClient::connect(&gateway.url).await;
    client.send(http1_post(&question("m"))).await;
    assert!(client.is_left_alone_for(Duration::from_secs(1)).await);
    go_on.send(()).unwrap();
    client.read_until(is_whole).await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_answer_is_cut_after_the_write_timeout() {
    let provider = Provider::start().await;
    let gateway = gateway("write_timeout = \"500ms\"", &provider).await;
    let mut client = RawClient::connect_narrow(&gateway.url).await;
    client.send(http1_post(&question("demo-big:50MiB"))).await;
    // Its records says that it is over, and is there before the client has read anything.
    let record = gateway.record().await;
    assert_eq!(record["attributes"]["metadata"]["end_reason"], "client_disconnect", "{record}");
    wait_until_nobody_is_connected(&gateway).await;
    assert_eq!(gateway.metric("magicapi_gateway_client_timeouts_total", &[("limit", "write")]).await, 1.0);
    client.end().await;
}

#[tokio::test]
async fn a_stream_of_http2_that_is_not_taken_is_reset_and_the_others_go_on() {
    let provider = Provider::start().await;
    let gateway = gateway("write_timeout = \"500ms\"", &provider).await;
    let mut client = RawClient::connect(&gateway.url).await;
    client.send(begin_http2(0)).await;
    client.send(http2_post(1, CHAT, &question("demo-big:1MiB"))).await;
    let mut unread = Vec::new();
    let reset = loop {
        unread.extend(client.read().await);
        let frames = take_frames(&mut unread);
        if let Some(reset) = frames.into_iter().find(|frame| frame.kind == RST_STREAM) {
            break reset;
        }
    };
    assert_eq!(reset.stream, 1);
    // The connection lives: it takes another request, and has that one's answer when its client wants it.
    client.send(http2_post(3, CHAT, &question("demo"))).await;
    let window_update = |stream| raw_client::frame(8, 0, stream, &65_535_u32.to_be_bytes());
    client.send([window_update(0), window_update(3)].concat()).await;
    let is_end = |frame: &raw_client::Frame| frame.stream == 3 && frame.kind == 0 && frame.flags & 1 == 1;
    loop {
        let bytes = client.read().await;
        assert!(!bytes.is_empty(), "the connection ended with the stream");
        unread.extend(bytes);
        if take_frames(&mut unread).iter().any(is_end) {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let provider = Provider::start().await;
    let gateway = gateway("write_timeout = \"2s\"\nidle_timeout = \"1s\"", &provider).await;
    let mut client = RawClient::connect_with_buffer(&gateway.url, 16 * 1024).await;
    client.send(http1_post(&question("demo-big:16MiB"))).await;
    let (mut read, begun) = (0, Instant::now());
    while read < 16 << 20 {
        let bytes = client.read().await;
        assert!(!bytes.is_empty(), "cut after {read} bytes and {:?}", begun.elapsed());
        read += bytes.len();
        // Slower than the limit in all, and never as slow between two pieces.
        if begun.elapsed() < Duration::from_secs(6) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(begun.elapsed() > Duration::from_secs(5), "too quick to show anything: {:?}", begun.elapsed());
}

#[tokio::test]
async fn silent_connections_to_the_admin_port_keep_no_probe_waiting() {
    let gateway = Gateway::new().start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(RawClient::connect(&gateway.admin).await);
    }
    // And some that ask and never read.
    for _ in 0..70 {
        let mut deaf = RawClient::connect_narrow(&gateway.admin).await;
        deaf.send(Bytes::from("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n".repeat(2_000))).await;
        silent.push(deaf);
    }
    for path in ["/healthz", "/readyz"] {
        // Half of the time after which the others are ended.
        let answer = tokio::time::timeout(Duration::from_secs(30), gateway.admin(path)).await;
        assert_eq!(answer.expect("a probe waits for others").status, 200);
    }
    drop(silent);
}
