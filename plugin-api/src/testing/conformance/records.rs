//! The records that the suite sends: plain ones, and those that only clients can think of.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::testing::Sample;

/// Numbers records so that no other run has the same ids, and stamps them with the time of now: some backends refuse
/// what is old.
#[derive(Debug)]
pub(super) struct Numbering {
    prefix: String,
    milliseconds: u64,
}

impl Numbering {
    pub(super) fn new() -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        // A UUID of version 7: 48 bits of time, and what tells processes and runs of the same millisecond apart.
        let (high, low) = (milliseconds >> 16 & 0xffff_ffff, milliseconds & 0xffff);
        let (process, run) = (std::process::id() & 0xfff, 0x8000 | run & 0x3fff);
        Self { prefix: format!("{high:08x}-{low:04x}-7{process:03x}-{run:04x}"), milliseconds }
    }

    pub(super) fn give(&self, number: u32, sample: Sample) -> Sample {
        sample.with(|metrics| {
            metrics.id = Cow::Owned(format!("{}-{number:012x}", self.prefix));
            metrics.timestamp = Cow::Owned(timestamp(self.milliseconds));
        })
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
            &mut metrics.provider,
            &mut metrics.model,
            &mut metrics.request_model,
            &mut metrics.error_type,
            &mut metrics.provider_error_type,
            &mut metrics.provider_request_id,
        ] {
            *text = None;
        }
        (metrics.status_code, metrics.provider_status_code) = (None, None);
        (metrics.provider_latency, metrics.ttfb, metrics.gateway_overhead) = (None, None, None);
        (metrics.request_size, metrics.response_size) = (0, 0);
    })
}

fn many_keys(count: u32) -> String {
    let members: Vec<String> = (0..count).map(|key| format!(r#""key_{key}":{key}"#)).collect();
    format!("{{{}}}", members.join(","))
}

/// RFC 3339 in UTC, from milliseconds since 1970.
fn timestamp(milliseconds: u64) -> String {
    let (days, of_day) = (milliseconds / 86_400_000, milliseconds % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::value::RawValue;

    use super::*;
    use crate::RequestMetrics;

    #[test]
    fn a_time_stamp_is_that_of_the_calendar() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_741_190_600_123, "2025-03-05T16:03:20.123Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(milliseconds), expected);
        }
    }

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
