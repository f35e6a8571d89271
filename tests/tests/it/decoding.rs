//! Bodies that are made to cost far more than they weigh: by a content coding, or by being nothing but framing.

use std::io::Write as _;

use end_to_end::{Gateway, RawProvider, Running, Step};
use flate2::{Compression, write::GzEncoder};
use rustix::process::Resource;
use serde_json::Value;

const PATH: &str = "/v1/chat/completions";
const QUESTION: &str = r#"{"model":"demo-fast","messages":[]}"#;

/// A provider whose answer is in a coding, where the request asks for it by its `x-case`, and `{}` otherwise.
async fn start(coding: &'static str, body: Vec<u8>) -> (RawProvider, Running) {
    let provider = RawProvider::start(move |request| {
        let is_odd = request.head.to_ascii_lowercase().contains("x-case: odd");
        let (header, body) = if is_odd {
            (format!("content-encoding: {coding}\r\n"), &*body)
        } else {
            (String::new(), &b"{}"[..])
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{header}content-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        vec![Step::send([head.as_bytes(), body].concat())]
    })
    .await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    (provider, gateway)
}

async fn ask_odd(gateway: &Running, times: usize) {
    for _ in 0..times {
        assert_eq!(gateway.post_with(PATH, QUESTION, &[("x-case", "odd")]).await.status, 200);
    }
}

fn metadata(record: &Value) -> &Value {
    &record["attributes"]["metadata"]
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 9, 22);
    encoder.write_all(bytes).unwrap();
    encoder.into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_brotli_window_of_a_gigabyte_is_not_allocated() {
    // "Large window", 2^30, and a block of 31 bytes as they are, behind which more is to come.
    let large = [&[0x11, 0x1e, 0x3c, 0, 2][..], &[b'x'; 31]].concat();
    let (_provider, mut gateway) = start("br", large.clone()).await;
    gateway.post(PATH, QUESTION).await;
    gateway.wait_for_records(1).await;
    gateway.limit(Resource::As, Some(gateway.address_bytes() + (256 << 20)));
    ask_odd(&gateway, 500).await;
    gateway.post(PATH, QUESTION).await;
    let records = gateway.wait_for_records(502).await;
    assert!(gateway.is_alive());
    let described = &metadata(&records[1])["response_body"];
    assert_eq!(described["size"], large.len(), "{}", records[1]);
    assert_eq!(described["sha256"].as_str().map(str::len), Some(64));
    assert!(records[501]["attributes"]["response"].is_object(), "{}", records[501]);
}

#[tokio::test]
async fn a_body_that_decodes_to_far_more_than_it_weighs_is_described_and_named() {
    let inflated = format!(r#"{{"model":"m","text":"{}"}}"#, "a".repeat(7 << 20));
    for (coding, body) in [("gzip", gzip(inflated.as_bytes())), ("br", brotli(inflated.as_bytes()))] {
        let (_provider, gateway) = start(coding, body.clone()).await;
        gateway.forget_peak();
        let before = gateway.resident_bytes();
        ask_odd(&gateway, 100).await;
        let records = gateway.wait_for_records(100).await;
        let grown = gateway.peak_resident_bytes().saturating_sub(before);
        assert!(grown < 40 << 20, "{coding}: {grown} bytes");
        for record in records {
            assert_eq!(metadata(&record)["truncated"], serde_json::json!(["response"]), "{coding}: {record}");
            assert_eq!(metadata(&record)["response_body"]["size"], body.len(), "{coding}: {record}");
            assert!(record["attributes"]["response"].is_null(), "{coding}");
        }
    }
}

#[tokio::test]
async fn nine_hundred_kilobytes_of_empty_gzip_members_hold_up_no_other_record() {
    let empty = gzip(b"");
    let (_provider, gateway) = start("gzip", empty.repeat(900_000 / empty.len())).await;
    ask_odd(&gateway, 30).await;
    let begin = std::time::Instant::now();
    gateway.post(PATH, QUESTION).await;
    gateway.wait_for_records(31).await;
    assert!(begin.elapsed().as_millis() < 2_500, "{:?}", begin.elapsed());
}

/// `{}` in so many events, then an event of a chat stream with its usage.
fn events(data: &str, count: usize) -> Vec<u8> {
    let last = r#"data: {"object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    format!("{}{last}\n\ndata: [DONE]\n\n", format!("data: {data}\n\n").repeat(count)).into_bytes()
}

async fn streaming(body: Vec<u8>, capture: &str) -> (RawProvider, Running) {
    let provider = RawProvider::start(move |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        vec![Step::send([head.as_bytes(), &body].concat())]
    })
    .await;
    let gateway = Gateway::new().provider("demo", &provider.url()).section(capture).file_exporter();
    (provider, gateway.start().await)
}

#[tokio::test]
async fn a_stream_that_is_all_framing_costs_what_it_weighs_and_keeps_its_usage() {
    let body = events("", 7 << 20);
    let size = body.len() as u64;
    let (_provider, gateway) = streaming(body, "").await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    assert_eq!(gateway.post(PATH, QUESTION).await.body.len() as u64, size);
    let record = gateway.record().await;
    let grown = gateway.peak_resident_bytes().saturating_sub(before);
    // The buffer of what is captured grows by doubling, and is there twice while it moves.
    assert!(grown < 3 * size + (64 << 20), "{} MiB for {} MiB", grown >> 20, size >> 20);
    assert_eq!(metadata(&record)["truncated"], serde_json::json!(["response"]), "{record}");
    assert_eq!(metadata(&record)["tokens"]["total"], 7, "{record}");
}

#[tokio::test]
async fn a_stream_has_as_many_events_as_its_cap_allows_and_one_more_is_left_out_and_named() {
    const CAP: usize = 64 * 1024;
    // Two lines each, of which every one counts as ten bytes.
    let most = CAP / 10 / 2 - 2;
    for (count, is_whole) in [(most - 1, true), (most, true), (most + 1, false), (10 * most, false)] {
        let capture = format!("[telemetry.capture]\nmax_body_bytes = \"{CAP} B\"\n");
        let (_provider, gateway) = streaming(events("{}", count), &capture).await;
        gateway.post(PATH, QUESTION).await;
        let record = gateway.record().await;
        let truncated = metadata(&record)["truncated"].as_array().map_or(0, Vec::len);
        assert_eq!(truncated == 0, is_whole, "{count} of {most}: {}", metadata(&record));
        let chunks = record["attributes"]["response"]["streamed_data"].as_array().map_or(0, Vec::len);
        assert_eq!(chunks, if is_whole { count + 1 } else { 0 }, "{count} of {most}");
        assert_eq!(metadata(&record)["tokens"]["total"], 7, "{count}: {record}");
    }
}
