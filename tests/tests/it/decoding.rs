//! Bodies in a content coding that are made to cost far more than they weigh.

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
