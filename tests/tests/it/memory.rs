//! What the gateway holds of bodies and requests stays within its bounds, and its figures say what it holds.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use end_to_end::{Client, Gateway, Provider, RawProvider, Running, Step, client::post, wait_for, within};
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::watch, task::JoinSet};

const PATH: &str = "/v1/chat/completions";
const MIB: u64 = 1024 * 1024;
const EMPTY_ANSWER: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
/// Long enough that each chunk is read by itself, also on a busy machine.
const BETWEEN_CHUNKS: Duration = Duration::from_millis(5);
/// What may be resident beside the bytes that are held: connections, and what the allocator keeps around them.
const SLACK_KIB: u64 = 40 * 1024;
const CAPTURED: &str = "magicapi_gateway_captured_bytes";

fn question() -> String {
    json!({ "model": "demo-fast", "messages": [{ "role": "user", "content": "Hello" }] }).to_string()
}

/// One token, with as much around it as is usual.
fn event(text: &str) -> String {
    let chunk = json!({
        "id": "chatcmpl-B7nQ2mXkP4vL8sR1tY6wZ3cD5fG9h", "object": "chat.completion.chunk", "created": 1_741_190_600,
        "model": "gpt-4o-2024-08-06", "service_tier": "default", "system_fingerprint": "fp_eb9dce56a8",
        "choices": [{ "index": 0, "delta": { "content": text }, "logprobs": null, "finish_reason": null }],
        "usage": null, "obfuscation": "aB3dE5fG7h",
    });
    format!("data: {chunk}\n\n")
}

/// A body of that many bytes, in a few.
fn zipped(length: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    write!(encoder, "{{\"model\":\"demo-fast\",\"text\":\"{}\"}}", "0".repeat(length)).unwrap();
    encoder.finish().unwrap()
}

async fn warm(gateway: &Running) {
    for _ in 0..20 {
        gateway.post(PATH, question()).await;
    }
}

fn grown(before: u64, now: u64) -> u64 {
    now.saturating_sub(before) / 1024
}

/// Chunks that come one by one, and an end that waits for the test.
fn slow_stream(chunks: usize, end: &watch::Receiver<bool>) -> Vec<Step> {
    let mut steps = vec![Step::chunked_head("text/event-stream")];
    for _ in 0..chunks {
        steps.push(Step::chunk(event("word ").as_bytes()));
        steps.push(Step::wait(async { tokio::time::sleep(BETWEEN_CHUNKS).await }));
    }
    let mut end = end.clone();
    steps.push(Step::wait(async move { drop(end.wait_for(|is_over| *is_over).await) }));
    steps.push(Step::end());
    steps
}

#[tokio::test]
async fn an_open_stream_of_many_chunks_takes_the_memory_that_is_said_and_that_is_of_the_size_of_its_bytes() {
    const STREAMS: usize = 50;
    const CHUNKS: usize = 500;
    let (over, end) = watch::channel(false);
    let provider = RawProvider::start(move |request| {
        if request.body.starts_with(b"{\"stream") {
            slow_stream(CHUNKS, &end)
        } else {
            slow_stream(0, &watch::channel(true).1)
        }
    })
    .await;
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", "", "").start().await;
    warm(&gateway).await;
    let before = gateway.resident_bytes();
    let bytes = CHUNKS * event("word ").len();
    let mut clients = JoinSet::new();
    for _ in 0..STREAMS {
        let request = post(&format!("{}{PATH}", gateway.url), "{\"stream\":true}", &[]);
        let client = gateway.client.clone();
        clients.spawn(async move {
            let mut answer = client.open(request).await.unwrap();
            let mut read = 0;
            while read < bytes {
                read += within("a chunk", answer.frame()).await.unwrap().unwrap().data_ref().unwrap().len();
            }
            answer
        });
    }
    let answers = clients.join_all().await;
    let all = (STREAMS * bytes) as u64;
    let captured = gateway.metric(CAPTURED, &[]).await as u64;
    let resident = grown(before, gateway.resident_bytes());
    println!(
        "{} KiB passed, {} KiB are said to be held, {resident} KiB are resident",
        all / 1024,
        captured / 1024
    );
    assert!(captured >= all && captured <= 2 * all + STREAMS as u64 * 16 * 1024, "{captured} for {all}");
    assert!(resident <= captured / 1024 + SLACK_KIB, "{resident} KiB for {} KiB", captured / 1024);
    over.send(true).unwrap();
    drop(answers);
    wait_for("the memory to be given back", || async {
        (gateway.metric(CAPTURED, &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_in_chunks_of_one_byte_take_little_more_than_their_bytes() {
    const REQUESTS: usize = 30;
    const CHUNKS: usize = 500;
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", "", "").start().await;
    warm(&gateway).await;
    let before = gateway.resident_bytes();
    let mut clients = JoinSet::new();
    for _ in 0..REQUESTS {
        let address = gateway.url.strip_prefix("http://").unwrap().to_owned();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..CHUNKS {
                stream.write_all(b"1\r\nx\r\n").await.unwrap();
                tokio::time::sleep(BETWEEN_CHUNKS).await;
            }
            stream
        });
    }
    let streams = clients.join_all().await;
    let all = (REQUESTS * CHUNKS) as f64;
    let captured = wait_for("all bytes to have come", || async {
        Some(gateway.metric(CAPTURED, &[]).await).filter(|captured| *captured >= all)
    })
    .await;
    let resident = grown(before, gateway.resident_bytes());
    println!("{all} bytes passed, {captured} are said to be held, {resident} KiB are resident");
    assert!(captured <= 8.0 * all, "{captured} for {all}");
    assert!(resident <= SLACK_KIB, "{resident} KiB");
    drop(streams);
}

#[tokio::test]
async fn bodies_that_grow_when_they_are_decoded_are_not_held_together() {
    const REQUESTS: usize = 60;
    const DECODED: usize = 2 * MIB as usize;
    let provider = Provider::start().await;
    let queue = "queue.max_bytes = \"4 MiB\"\nqueue.on_full = \"drop_newest\"";
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", queue, "").start().await;
    warm(&gateway).await;
    gateway.settled("probe", 20).await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    let body = Bytes::from(zipped(DECODED));
    for _ in 0..REQUESTS {
        gateway.post_with(PATH, body.clone(), &[("content-encoding", "gzip")]).await;
    }
    gateway.wait_for_books("probe", |books| books["accepted"] == 20 + REQUESTS).await;
    let peak = grown(before, gateway.peak_resident_bytes());
    println!("{REQUESTS} × {} bytes, {DECODED} each when decoded: {peak} KiB", body.len());
    assert!(peak <= 2 * SLACK_KIB, "{peak} KiB");
}

#[tokio::test]
async fn an_answer_of_20_000_tokens_keeps_its_text_and_lets_its_chunks_go() {
    const TOKENS: usize = 20_000;
    let stream: String = (0..TOKENS).map(|number| event(&format!("t{number} "))).collect();
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": TOKENS, "total_tokens": TOKENS + 7 });
    let last = json!({ "id": "c", "model": "gpt-4o-2024-08-06", "choices": [], "usage": usage });
    let stream = Bytes::from(format!("{stream}data: {last}\n\ndata: [DONE]\n\n"));
    assert!(stream.len() > 6_000_000);
    let provider = RawProvider::start({
        let stream = stream.clone();
        move |_| {
            let chunks = stream.chunks(16 * 1024).map(Step::chunk);
            [Step::chunked_head("text/event-stream")].into_iter().chain(chunks).chain([Step::end()]).collect()
        }
    })
    .await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let answer = gateway.post(PATH, "{\"stream\":true}").await;
    assert!(answer.body == stream);
    let record = gateway.record().await;
    let metadata = &record["attributes"]["metadata"];
    assert_eq!(
        (&metadata["truncated"], &metadata["tokens"]["output"]),
        (&json!(["streamed_data"]), &json!(TOKENS))
    );
    let text = record["attributes"]["response"]["choices"][0]["delta"]["content"].as_str().unwrap();
    assert_eq!(text, (0..TOKENS).map(|number| format!("t{number} ")).collect::<String>());
    assert!(record["attributes"]["response"]["streamed_data"].is_null());
}

/// Requests whose records take a while, all at once.
async fn post_costly(gateway: &Running, requests: usize) {
    let body = Bytes::from(zipped(3 * MIB as usize));
    let mut clients = JoinSet::new();
    for _ in 0..requests {
        let request = post(&format!("{}{PATH}", gateway.url), body.clone(), &[("content-encoding", "gzip")]);
        let client = gateway.client.clone();
        clients.spawn(async move { client.send(request).await });
    }
    assert!(clients.join_all().await.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn requests_are_counted_when_they_are_answered_and_not_when_they_are_recorded() {
    const REQUESTS: usize = 200;
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", "", "").start().await;
    post_costly(&gateway, REQUESTS).await;
    let labels = [("provider", "demo"), ("status_code", "200"), ("end_reason", "complete")];
    let counted = gateway.metric("magicapi_gateway_requests_total", &labels).await;
    let recorded = gateway.plugin("probe").await["books"]["accepted"].as_u64().unwrap();
    assert!(recorded < REQUESTS as u64 / 2, "the recorder was not behind");
    // The last ones may be read by their client a moment before they are over for the gateway.
    assert!(counted > REQUESTS as f64 - 10.0, "{counted} of {REQUESTS} were counted, {recorded} recorded");
}

#[tokio::test]
async fn requests_that_are_costly_to_record_do_not_keep_others_waiting() {
    const COSTLY: usize = 100;
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", "", "").start().await;
    post_costly(&gateway, COSTLY).await;
    // Without an id of the provider's, the answer carries the record's.
    let id = gateway.post(PATH, question()).await.header("x-request-id").to_owned();
    let before_it = wait_for("the record of the cheap one", || async {
        gateway.delivered("probe").iter().position(|delivered| *delivered == id)
    })
    .await;
    assert!(before_it < COSTLY * 3 / 4, "{before_it} of {COSTLY} costly records were made first");
}

#[tokio::test]
async fn paths_and_ids_of_any_length_are_cut_in_the_record() {
    let provider = RawProvider::start(|_| {
        let long = "i".repeat(9000);
        vec![Step::send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: {long}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        ))]
    })
    .await;
    let gateway = Gateway::new().provider("demo", &provider.url()).server("max_header_bytes = \"256 KiB\"");
    let gateway = gateway.file_exporter().start().await;
    let long = "ä".repeat(5000);
    let headers = ["x-thread-id", "x-organisation-id", "x-user-id", "x-request-id", "x-project-name"];
    let headers = headers.map(|name| (name, long.as_str()));
    let path = format!("/v1/{}", "p".repeat(20_000));
    let body = json!({ "model": long, "metadata": { "project_id": long } }).to_string();
    assert_eq!(gateway.post_with(&path, body, &headers).await.status, 200);
    let record = gateway.record().await;
    let metadata = &record["attributes"]["metadata"];
    assert_eq!(metadata["path"].as_str().unwrap(), &path[..4096]);
    let length = |value: &Value| value.as_str().unwrap().len();
    for id in [
        &record["attributes"]["thread_id"],
        &record["attributes"]["org_id"],
        &record["attributes"]["user_id"],
    ] {
        assert_eq!(length(id), 1024);
    }
    for id in ["client_request_id", "project_name", "provider_request_id", "request_model", "project_id"] {
        assert_eq!(length(&metadata[id]), 1024, "{id}");
    }
    assert_eq!(record["attributes"]["request"]["model"], long, "the body itself is as it was sent");
}

#[tokio::test]
async fn memory_goes_back_to_the_system_when_the_load_is_over() {
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", "", "").start().await;
    gateway.post(PATH, question()).await;
    gateway.settled("probe", 1).await;
    let before = gateway.resident_bytes();
    gateway.forget_peak();
    let body = Bytes::from(json!({ "model": "m", "text": "x".repeat(400_000) }).to_string());
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let request = post(&format!("{}{PATH}", gateway.url), body.clone(), &[]);
        // Each over a connection of its own, which ends with it: what an open one holds is not of concern here.
        clients.spawn(async move { Client::default().send(request).await });
    }
    clients.join_all().await;
    let peak = grown(before, gateway.peak_resident_bytes());
    assert!(peak > 24 * 1024, "{peak} KiB are no load");
    wait_for("the memory to be given back", || {
        let resident = grown(before, gateway.resident_bytes());
        async move { (resident < 16 * 1024).then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn what_an_exporter_may_not_see_is_not_kept_for_it_while_its_backend_is_down() {
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let capture = "[telemetry.capture]\nmax_body_bytes = \"4 MiB\"\n";
    let mut gateway = Gateway::new().provider("demo", &provider.url()).section(capture);
    for content in ["metadata", "none"] {
        let keys = format!("content = \"{content}\"\nqueue.max_records = 10000");
        gateway = gateway.probe(content, &keys, r#"script = ["retry"]"#);
    }
    let gateway = gateway.start().await;
    warm(&gateway).await;
    let before = gateway.resident_bytes();
    let body = json!({ "model": "demo", "text": "x".repeat(1_800_000) }).to_string();
    for _ in 0..150 {
        assert_eq!(gateway.post(PATH, body.clone()).await.status, 200);
    }
    for plugin in ["metadata", "none"] {
        let books = gateway.wait_for_books(plugin, |books| books["accepted"] == 170).await;
        assert_eq!(books["dropped"]["queue_full"], 0, "{books}");
    }
    wait_for("memory that is not of bodies", || async {
        let grown = grown(before, gateway.resident_bytes());
        (grown < SLACK_KIB).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_answers_without_end_takes_little_memory() {
    let provider = RawProvider::of(EMPTY_ANSWER).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let backend =
        RawProvider::start(move |_| vec![Step::send(head), Step::Flood(Bytes::from(vec![b' '; 256 * 1024]))])
            .await;
    let keys =
        format!("[plugin.config]\nurl = \"{}\"\nindex = \"llm\"\nsetup_template = false\n", backend.url());
    let gateway = Gateway::new().provider("demo", &provider.url());
    let gateway = gateway.plugin("elasticsearch", "elasticsearch", &keys).start().await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    for _ in 0..20 {
        gateway.post(PATH, question()).await;
    }
    wait_for("an answer to be given up", || async {
        gateway.log().contains("with more than 16777216 bytes").then_some(())
    })
    .await;
    let grown = grown(before, gateway.peak_resident_bytes());
    assert!(grown < 100 * 1024, "{grown} KiB");
}
