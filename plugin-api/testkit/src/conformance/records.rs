//! The records that the suite sends: plain ones, and those that only clients can think of.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::Sample;

/// Numbers records so that no other run has the same ids, and stamps them with the time of now: some backends refuse
/// what is old.
#[derive(Debug)]
pub(super) struct Numbering {
    prefix: String,
    started: SystemTime,
}

impl Numbering {
    pub(super) fn new() -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let started = SystemTime::now();
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        // A UUID of version 7: 48 bits of time, and what tells processes and runs of the same millisecond apart.
        let (high, low) = (milliseconds >> 16 & 0xffff_ffff, milliseconds & 0xffff);
        let (process, run) = (std::process::id() & 0xfff, 0x8000 | run & 0x3fff);
        Self { prefix: format!("{high:08x}-{low:04x}-7{process:03x}-{run:04x}"), started }
    }

    pub(super) fn give(&self, number: u32, sample: Sample) -> Sample {
        let id = format!("{}-{number:012x}", self.prefix);
        sample.started(self.started).with(|metrics| metrics.id = Cow::Owned(id))
    }

    /// `count` records as any gateway makes them: answers, streams, errors, requests that a client left.
    pub(super) fn plain(&self, count: u32) -> Vec<Sample> {
        (0..count).map(|number| self.give(number, plain(number))).collect()
    }
}

fn plain(number: u32) -> Sample {
    let sample = match number % 4 {
        0 => Sample::chat(),
        1 => Sample::stream(),
        2 => Sample::failed(),
        _ => Sample::disconnected(),
    };
    sample.with(|metrics| metrics.thread_id = Cow::Owned(format!("thread_{number}")))
}

/// Odd records, each with what is odd about it.
pub(super) fn odd() -> Vec<(&'static str, Sample)> {
    let body = |json: &str| Sample::chat().request(json).response(json);
    let nested = |depth: usize| body(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    let text = |text: &'static str| {
        Sample::chat().with(|metrics| {
            metrics.user_id = Some(Cow::Borrowed(text));
            metrics.project_name = Some(Cow::Borrowed(text));
            metrics.request_model = Some(Cow::Borrowed(text));
            metrics.finish_reasons = Some(vec![Cow::Borrowed(text), Cow::Borrowed("")]);
        })
    };
    vec![
        ("zero bytes in names", text("a\0b")),
        ("control characters in names", text("\u{1}\u{8}\u{b}\u{1f}\u{7f}\u{85}\u{2028}\t\r\n\"\\")),
        ("emoji and writing from right to left in names", text("👩‍👩‍👧‍👦 שלום \u{202e}مرحبا e\u{301} \u{10ffff}")),
        ("zero bytes in the bodies", body(r#"{"content":"a\u0000b","\u0000":1}"#)),
        ("lone surrogates in the bodies", body(r#"{"content":"\ud800 \udc00\ud83d","\udfff":1}"#)),
        ("emoji as escapes in the bodies", body(r#"{"content":"\ud83d\ude00 \u00e9 \/ \b\f"}"#)),
        ("line breaks between the bodies' tokens", body("{\n  \"a\": 1,\r\n\t\"b\": [\n1 ,\n2\n]\n}\n")),
        (
            "numbers beyond 64 bits",
            body(
                r#"{"a":18446744073709551616,"b":-9223372036854775809,"c":1e400,"d":-0,"e":0.1e-400,"f":123456789012345678901234567890.5}"#,
            ),
        ),
        (
            "one key twice, empty keys, keys with dots",
            body(r#"{"a":1,"a":{"b":2},"":{"":3},"a.b":4,".":5,"$ref":"x","_id":6}"#),
        ),
        (
            "one place with several types",
            body(r#"{"content":[{"type":"text","text":"a"},"b",3,null,true,[[]],{}]}"#),
        ),
        ("bodies that are no objects", Sample::chat().request("null").response(r#""text""#)),
        ("a body that is a number, and none", Sample::chat().request("-1.5e3").response("")),
        ("no bodies", Sample::chat().request("").response("")),
        ("64 brackets", nested(64)),
        ("3,000 brackets", nested(3000)),
        ("2,000 keys", body(&many_keys(2000))),
        ("a body of 1 MB", body(&format!(r#"{{"content":"{}"}}"#, "x".repeat(500 * 1024)))),
        (
            "long names",
            Sample::chat().with(|metrics| metrics.request_model = Some(Cow::Owned("m".repeat(10_000)))),
        ),
        ("everything null that may be", bare()),
        (
            "the largest counts",
            Sample::chat().with(|metrics| {
                metrics.input_tokens = Some(u64::MAX);
                metrics.output_tokens = Some(u64::MAX);
                metrics.search_queries = Some(u64::MAX);
                metrics.response_size = u64::MAX;
            }),
        ),
        (
            "a latency of years",
            Sample::chat().with(|metrics| {
                metrics.total_latency = 1e15;
                metrics.ttfb = Some(0.0);
            }),
        ),
    ]
}

/// The least that a record has: a request that came to nothing.
fn bare() -> Sample {
    Sample::failed().request("").response("").with(|metrics| {
        for text in [
            &mut metrics.org_id,
            &mut metrics.user_id,
            &mut metrics.project_id,
            &mut metrics.project_name,
            &mut metrics.trace_id,
            &mut metrics.span_id,
            &mut metrics.parent_span_id,
            &mut metrics.provider,
            &mut metrics.model,
            &mut metrics.request_model,
            &mut metrics.error_type,
            &mut metrics.provider_error_type,
            &mut metrics.provider_error_code,
            &mut metrics.provider_request_id,
        ] {
            *text = None;
        }
        metrics.trace_flags = None;
        (metrics.status_code, metrics.provider_status_code) = (None, None);
        (metrics.provider_latency, metrics.ttfb, metrics.gateway_overhead) = (None, None, None);
        (metrics.request_size, metrics.response_size) = (0, 0);
    })
}

fn many_keys(count: u32) -> String {
    let members: Vec<String> = (0..count).map(|key| format!(r#""key_{key}":{key}"#)).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use plugin_api::RequestMetrics;
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn no_two_runs_share_an_id_and_every_id_is_a_uuid_of_version_7() {
        let runs = [Numbering::new(), Numbering::new()];
        let ids: HashSet<String> =
            runs.iter().flat_map(|run| run.plain(10)).map(|sample| sample.id().to_owned()).collect();
        assert_eq!(ids.len(), 20);
        for id in &ids {
            let groups: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
            assert!(id.as_bytes()[14] == b'7' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
    }

    #[test]
    fn odd_records_are_records_that_a_gateway_would_send() {
        for (name, sample) in odd() {
            let json = sample.metrics_json();
            serde_json::from_slice::<RequestMetrics<'_>>(&json).expect(name);
            for body in [&sample.request, &sample.response].into_iter().filter(|body| !body.is_empty()) {
                serde_json::from_slice::<&RawValue>(body).expect(name);
            }
        }
    }
}
