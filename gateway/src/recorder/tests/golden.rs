//! Recorded streams and answers, and the records that must come of them.
//!
//! `testdata/NAME.sse` is a stream as a provider sends it; `testdata/NAME.json` says where it came from, what stands in
//! the record's metrics, and the folded answer.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use exporter_pipeline::Shed;
use http::Method;
use plugin_api::{EndReason, RequestMetrics};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    budget::Reservation,
    providers,
    recorder::{
        assemble::{Settings, assemble},
        exchange::{Captured, Exchange, Identity, Kept, Times, Trace},
        marked_bytes::MarkedBytes,
        record::Record,
    },
};

const REQUEST: &str = r#"{"model":"asked-for","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;

#[derive(Deserialize)]
struct Expected {
    path: String,
    provider: String,
    metrics: Map<String, Value>,
    response: Value,
    /// What the first content event has in it.
    content: String,
    /// The stream ends before the provider says that it does.
    #[serde(default)]
    breaks_off: bool,
}

macro_rules! golden {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../testdata/", $name, ".sse")), include_str!(concat!("../testdata/", $name, ".json")))),*]
    };
}

const GOLDEN: &[(&str, &str, &str)] = golden![
    "chat",
    "chat-usage",
    "completions",
    "continuous-usage",
    "error",
    "error-event",
    "groq",
    "llama-cpp",
    "logprobs",
    "reasoning",
    "responses",
    "responses-cut",
    "responses-failed",
    "tool-calls",
    "two-choices",
    "xai",
];

fn goldens() -> impl Iterator<Item = (&'static str, &'static str, Expected)> {
    GOLDEN.iter().map(|(name, stream, expected)| (*name, *stream, serde_json::from_str(expected).unwrap()))
}

impl Expected {
    fn exchange(&self, pieces: Vec<Piece>) -> Exchange {
        let mut exchange = exchange(&self.provider, &self.path, captured("text/event-stream", pieces));
        if self.breaks_off {
            exchange.response.complete = false;
            exchange.end = EndReason::ProviderError;
        }
        exchange
    }

    fn check(&self, name: &str, record: &Record) {
        let (metrics, mut response) = (value(&record.metrics), value(&record.response));
        for (key, expected) in &self.metrics {
            assert_eq!(&metrics[key], expected, "{name}: {key}");
        }
        assert_eq!(metrics["request_model"], "asked-for", "{name}");
        for chunks in ["streamed_data", "streamed_data_ms"] {
            response.as_object_mut().unwrap().remove(chunks).expect(name);
        }
        assert_eq!(response, self.response, "{name}");
    }
}

pub(in crate::recorder) fn settings() -> Settings {
    Settings {
        service_name: "noveum_ai_gateway".to_owned(),
        environment: "test".to_owned(),
        capture_request: true,
        capture_response: true,
        capture_streamed_data: true,
        capture_chunk_times: true,
        max_body_bytes: 64 * 1024,
        mask: Arc::default(),
    }
}

pub(in crate::recorder) fn exchange(provider: &str, path: &str, response: Captured) -> Exchange {
    Exchange {
        id: Uuid::from_u128(0x0195_6e2f_0a4b_7000_8000_0000_0000_0001),
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123),
        identity: Identity::default(),
        trace: Trace { trace_id: [0xab; 16], span_id: [0x01; 8], parent_span_id: Some([0x02; 8]), flags: 3 },
        provider: Some(Arc::from(provider)),
        dialect: providers::find(provider).unwrap().dialect,
        method: Method::POST,
        path: path.to_owned(),
        times: Times {
            total: Duration::from_millis(900),
            sent: Some(Duration::from_micros(250)),
            provider_headers: Some(Duration::from_micros(100_250)),
        },
        request: captured("application/json", vec![piece(REQUEST, 0)]),
        response,
        status_code: Some(200),
        provider_status_code: Some(200),
        provider_request_id: None,
        end: EndReason::Complete,
        error: None,
        credential: None,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "most pieces are made for the call")]
pub(in crate::recorder) fn captured(content_type: &'static str, pieces: Vec<Piece>) -> Captured {
    Captured {
        content_type: Some(content_type.to_owned()),
        content_encoding: None,
        size: pieces.iter().map(|piece| piece.bytes.len() as u64).sum(),
        first_byte: pieces.first().map(|piece| piece.at),
        complete: true,
        kept: Kept::Whole(marked(&pieces)),
        model: None,
    }
}

/// Bytes that passed together.
#[derive(Debug, Clone)]
pub(in crate::recorder) struct Piece {
    bytes: Bytes,
    at: Duration,
}

pub(in crate::recorder) fn marked(pieces: &[Piece]) -> MarkedBytes {
    let mut marked = MarkedBytes::with_marks(Reservation::default());
    pieces.iter().for_each(|piece| marked.push(&piece.bytes, piece.at, None).unwrap());
    marked
}

pub(in crate::recorder) fn piece(bytes: impl AsRef<[u8]>, milliseconds: u64) -> Piece {
    Piece { bytes: Bytes::copy_from_slice(bytes.as_ref()), at: Duration::from_millis(milliseconds) }
}

pub(in crate::recorder) fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}

fn record(exchange: Exchange) -> Record {
    assemble(exchange, &settings())
}

/// Everything of a record that a plugin gets.
fn parts(record: &Record) -> [&str; 3] {
    [&record.metrics, &record.request, &record.response].map(|part| std::str::from_utf8(part).unwrap())
}

#[test]
fn a_recorded_stream_gives_the_expected_record() {
    for (name, stream, expected) in goldens() {
        let record = record(expected.exchange(vec![piece(stream, 300)]));
        expected.check(name, &record);
        assert_eq!(value(&record.metrics)["ttft"], 300.0, "{name}");
        assert_eq!(value(&record.metrics)["ttfb"], 300.0, "{name}");
        assert_eq!(value(&record.request), serde_json::from_str::<Value>(REQUEST).unwrap());
        serde_json::from_slice::<RequestMetrics<'_>>(&record.metrics).expect(name);
    }
}

#[test]
fn streamed_data_is_every_chunk_as_it_came_with_its_time_and_the_end_of_the_answer() {
    for (name, stream, expected) in goldens() {
        let times = vec!["0"; chunks(stream).count()].join(",");
        let chunks = chunks(stream).collect::<Vec<_>>().join(",");
        let end = |chunk_times| {
            let settings = Settings { capture_chunk_times: chunk_times, ..settings() };
            assemble(expected.exchange(vec![piece(stream, 0)]), &settings)
        };
        for (record, end) in [
            (end(true), format!(",\"streamed_data\":[{chunks}],\"streamed_data_ms\":[{times}]}}")),
            (end(false), format!(",\"streamed_data\":[{chunks}]}}")),
        ] {
            let text = parts(&record)[2];
            assert!(text.ends_with(&end), "{name}: {text}");
        }
    }
}

/// Data of the events that are chunks.
fn chunks(stream: &str) -> impl Iterator<Item = &str> {
    stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]")
}

#[test]
fn a_chunk_came_when_the_piece_came_that_ends_it() {
    for (name, stream, expected) in goldens() {
        let pieces = stream.bytes().enumerate().map(|(at, byte)| piece([byte], at as u64)).collect();
        let times = value(&record(expected.exchange(pieces)).response)["streamed_data_ms"].clone();
        // An event passes with the blank line behind its data.
        let ends =
            chunks(stream).map(|data| data.as_ptr() as usize - stream.as_ptr() as usize + data.len() + 1);
        assert_eq!(times, json!(ends.collect::<Vec<_>>()), "{name}");
    }
}

#[test]
fn a_stream_cut_into_pieces_at_any_byte_gives_the_same_record() {
    for (name, stream, expected) in goldens() {
        let whole = record(expected.exchange(vec![piece(stream, 5)]));
        let at = |pieces: Vec<&[u8]>| {
            let pieces = pieces.into_iter().map(|bytes| piece(bytes, 5)).collect();
            record(expected.exchange(pieces))
        };
        for cut in 0..stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            assert!(parts(&at(vec![head, tail])) == parts(&whole), "{name} cut at {cut}");
        }
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(
                parts(&at(stream.as_bytes().chunks(size).collect())),
                parts(&whole),
                "{name} by {size}"
            );
        }
    }
}

#[test]
fn a_stream_with_other_line_ends_gives_the_same_record() {
    for (name, stream, expected) in goldens() {
        for ending in ["\r\n", "\r"] {
            let other = format!("\u{FEFF}: hello\n\n{stream}").replace('\n', ending);
            for size in [other.len(), 1] {
                let pieces = other.as_bytes().chunks(size).map(|bytes| piece(bytes, 5)).collect();
                expected.check(name, &record(expected.exchange(pieces)));
            }
        }
    }
}

#[test]
fn time_to_first_token_is_when_the_first_content_passed() {
    for (name, stream, expected) in goldens() {
        let content = stream.find(&expected.content).expect(name);
        // The event passes with the piece that ends it.
        let end = content + stream[content..].find("\n\n").unwrap() + 1;
        let pieces = stream.bytes().enumerate().map(|(at, byte)| piece([byte], at as u64)).collect();
        let record = record(expected.exchange(pieces));
        assert_eq!(value(&record.metrics)["ttft"], end as f64, "{name}");
    }
}

#[test]
fn a_stream_broken_off_at_any_byte_still_makes_a_record() {
    for (name, stream, expected) in goldens() {
        let whole = record(expected.exchange(vec![piece(stream, 0)]));
        let whole = value(&whole.response)["streamed_data"].as_array().unwrap().clone();
        let mut last = Bytes::new();
        for cut in 0..stream.len() {
            let mut exchange = expected.exchange(vec![piece(&stream.as_bytes()[..cut], 0)]);
            exchange.response.complete = false;
            exchange.end = EndReason::ClientDisconnect;
            let record = record(exchange);
            let metrics = value(&record.metrics);
            let (source, input) = (metrics["usage_source"].as_str(), metrics["input_tokens"].as_u64());
            assert!(
                matches!((source, input), (Some("none"), None) | (Some("partial" | "provider"), Some(_))),
                "{name} at {cut}"
            );
            assert_eq!(record.response.is_empty(), cut == 0, "{name} cut at {cut}");
            if record.response == last {
                continue;
            }
            let chunks = value(&record.response)["streamed_data"].as_array().unwrap().clone();
            assert_eq!(chunks, whole[..chunks.len()], "{name} cut at {cut}");
            assert_eq!(value(&record.metrics)["truncated"], json!([]), "{name} cut at {cut}");
            last = record.response;
        }
    }
}

#[test]
fn a_client_that_leaves_before_the_end_is_a_disconnect_and_one_that_leaves_at_the_last_event_is_not() {
    let leave = |name: &str, stream: &str| {
        let (_, _, expected) = goldens().find(|(golden, ..)| *golden == name).unwrap();
        let mut exchange = expected.exchange(vec![piece(stream, 0)]);
        exchange.response.complete = false;
        exchange.end = EndReason::ClientDisconnect;
        let record = record(exchange);
        let metrics = value(&record.metrics);
        (
            metrics["end_reason"].as_str().unwrap().to_owned(),
            metrics["usage_source"].as_str().unwrap().to_owned(),
            metrics["output_tokens"].as_u64(),
        )
    };
    let stream = |name: &str| GOLDEN.iter().find(|(golden, ..)| *golden == name).unwrap().1;
    let complete = EndReason::Complete.as_str().to_owned();
    assert_eq!(leave("groq", stream("groq")), (complete.clone(), "provider".to_owned(), Some(256)));
    assert_eq!(leave("responses", stream("responses")), (complete, "provider".to_owned(), Some(11)));
    let gone = EndReason::ClientDisconnect.as_str().to_owned();
    let early = stream("continuous-usage").split_inclusive("\n\n").take(3).collect::<String>();
    assert_eq!(leave("continuous-usage", &early), (gone.clone(), "partial".to_owned(), Some(2)));
    let early = stream("chat-usage").split_inclusive("\n\n").take(9).collect::<String>();
    assert!(early.contains("\"stop\"") && !early.contains("\"prompt_tokens\""));
    assert_eq!(leave("chat-usage", &early), (gone.clone(), "none".to_owned(), None));
    let early = stream("groq").split_inclusive("\n\n").take(3).collect::<String>();
    assert_eq!(leave("groq", &early), (gone, "none".to_owned(), None));
}

#[test]
fn a_compressed_stream_gives_the_same_record() {
    for (name, stream, expected) in goldens() {
        for (coding, bytes) in crate::recorder::body::tests::encoded(stream.as_bytes()) {
            for size in [bytes.len(), 1] {
                let pieces = bytes.chunks(size).map(|bytes| piece(bytes, 5)).collect();
                let mut exchange = expected.exchange(pieces);
                exchange.response.content_encoding = Some(coding.to_owned());
                let record = record(exchange);
                expected.check(&format!("{name} in {coding} by {size}"), &record);
                assert_eq!(value(&record.metrics)["response_size"], bytes.len(), "{name}");
                assert_eq!(value(&record.metrics)["ttft"], 5.0, "{name}");
            }
        }
    }
}

#[test]
fn a_stream_of_which_only_the_ends_were_kept_still_has_its_facts() {
    for (name, stream, expected) in goldens() {
        let events: Vec<&str> = stream.split_inclusive("\n\n").collect();
        let head: String = events[..4.min(events.len())].concat();
        // The tail begins inside of an event that is not kept whole.
        let tail = &stream[stream.len() - events[events.len().saturating_sub(4)..].concat().len() + 9..];
        let mut exchange = expected.exchange(Vec::new());
        exchange.response.size = stream.len() as u64 + 1_000_000;
        exchange.response.kept =
            Kept::Ends { head: marked(&[piece(&head, 7)]), tail: tail.as_bytes().to_vec() };
        let record = record(exchange);
        let metrics = value(&record.metrics);
        for key in
            ["model", "input_tokens", "output_tokens", "usage_source", "error_type", "end_reason", "status"]
        {
            let Some(expected) = expected.metrics.get(key) else { continue };
            assert_eq!(&metrics[key], expected, "{name}: {key}");
        }
        let ttft = if head.contains(&expected.content) { json!(7.0) } else { Value::Null };
        assert_eq!(metrics["ttft"], ttft, "{name}");
        assert_eq!(metrics["truncated"], json!(["response"]), "{name}");
        assert!(record.response.is_empty() && !record.request.is_empty(), "{name}");
    }
}

#[test]
fn a_record_sheds_streamed_data_then_the_response_then_the_request() {
    for (name, stream, expected) in goldens() {
        let whole = record(expected.exchange(vec![piece(stream, 0)]));
        let mut sizes = vec![whole.size()];
        let mut named = Vec::new();
        for level in Shed::ORDER {
            let shed = whole.shed(level).unwrap();
            named.push(level.name());
            assert_eq!(value(&shed.metrics)["truncated"], json!(named), "{name}");
            let mut metrics = [value(&whole.metrics), value(&shed.metrics)];
            metrics.iter_mut().for_each(|metrics| drop(metrics.as_object_mut().unwrap().remove("truncated")));
            assert_eq!(metrics[0], metrics[1], "{name}");
            assert_eq!(shed.request.is_empty(), level == Shed::Request, "{name}");
            if level == Shed::StreamedData {
                assert_eq!(value(&shed.response), expected.response, "{name}");
            } else {
                assert!(shed.response.is_empty(), "{name}");
            }
            assert!(shed.shed(level).is_none(), "{name}: nothing of {level:?} is left");
            sizes.push(shed.size());
        }
        assert!(sizes.is_sorted_by(|a, b| a > b), "{name}: {sizes:?}");
        let step_by_step =
            Shed::ORDER.iter().fold(whole.clone(), |record, level| record.shed(*level).unwrap());
        assert_eq!(parts(&step_by_step), parts(&whole.shed(Shed::Request).unwrap()), "{name}");
    }
}

#[test]
fn what_is_not_to_be_captured_is_not_in_the_record_and_its_facts_are() {
    let (_, stream, expected) = goldens().find(|(name, ..)| *name == "groq").unwrap();
    let assembled = |settings: &Settings| assemble(expected.exchange(vec![piece(stream, 0)]), settings);
    let no_chunks = assembled(&Settings { capture_streamed_data: false, ..settings() });
    assert_eq!(value(&no_chunks.response), expected.response);
    assert!(no_chunks.shed(Shed::StreamedData).is_none());
    let nothing = assembled(&Settings { capture_request: false, capture_response: false, ..settings() });
    assert!(nothing.request.is_empty() && nothing.response.is_empty());
    let metrics = value(&nothing.metrics);
    assert_eq!(metrics["truncated"], json!([]), "what was not wanted was not truncated");
    assert_eq!((&metrics["output_tokens"], &metrics["request_model"]), (&json!(256), &json!("asked-for")));
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn whatever_came_makes_a_record_of_well_formed_json(
            which in 0..GOLDEN.len(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), 0..40_usize, any::<Vec<u8>>()), 0..4),
            content_type in prop::sample::select(vec!["text/event-stream", "application/json", "audio/mpeg", ""]),
            coding in prop::sample::select(vec!["", "", "gzip", "deflate", "br", "zstd"]),
            ends in any::<Option<prop::sample::Index>>(),
            provider in 0..providers::built_in().len(),
        ) {
            let (_, stream, expected) = goldens().nth(which).unwrap();
            let mut bytes = stream.as_bytes().to_vec();
            for (at, length, with) in damage {
                let at = at.index(bytes.len() + 1);
                let end = (at + length).min(bytes.len());
                bytes.splice(at..end, with);
            }
            let pieces: Vec<Piece> = bytes.chunks(100).map(|bytes| piece(bytes, 1)).collect();
            let mut exchange = exchange(providers::built_in()[provider].name, &expected.path, captured(content_type, pieces.clone()));
            exchange.response.content_encoding = (!coding.is_empty()).then(|| coding.to_owned());
            exchange.request.kept = Kept::Whole(marked(&pieces));
            if let Some(cut) = ends {
                let cut = cut.index(bytes.len() + 1);
                let tail = bytes[cut..].to_vec();
                exchange.response.kept = Kept::Ends { head: marked(&[piece(&bytes[..cut / 2], 1)]), tail: tail.clone() };
                exchange.request.kept = Kept::Ends { head: marked(&[piece(&bytes[..cut / 2], 1)]), tail };
            }
            let record = record(exchange);
            serde_json::from_slice::<RequestMetrics<'_>>(&record.metrics).unwrap();
            for body in [&record.request, &record.response] {
                prop_assert!(body.is_empty() || serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok());
                prop_assert!(!body.contains(&b'\n') && !body.contains(&b'\r'));
            }
        }
    }
}
