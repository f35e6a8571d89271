//! A request as one line of text, in columns that do not move:
//!
//! ```text
//! 16:03:20.123  200  POST /v1/chat/completions        openai/gpt-4o-mini-2024-07-18            48 → 865      6.25s
//! 16:03:21.907  200  POST /v1/chat/completions        groq/llama-3.1-8b-instant                38 → 256      1.24s  ttft  412ms
//! 16:03:22.004  429  POST /v1/chat/completions        openai/gpt-4o-mini                        - → -        255ms  rate_limit_exceeded
//! ```
//!
//! Time is UTC. Tokens are those of the prompt and of the answer: `-` unknown, `~48` estimated, `≥48` counted until
//! the stream broke off.

use std::{borrow::Cow, fmt::Display, io::Write as _};

use serde::Deserialize;

/// The fields of a record that a line shows.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub struct Request<'a> {
    #[serde(borrow)]
    timestamp: Text<'a>,
    #[serde(borrow)]
    method: Text<'a>,
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(borrow)]
    provider: Option<Text<'a>>,
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    request_model: Option<Text<'a>>,
    status_code: Option<u16>,
    is_streaming: bool,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    #[serde(borrow)]
    usage_source: Text<'a>,
    total_latency: f64,
    ttft: Option<f64>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    end_reason: Text<'a>,
    #[serde(borrow)]
    error_type: Option<Text<'a>>,
}

/// Text that is borrowed where it has no escapes. (serde copies a `Cow` inside an `Option`, but not this.)
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

const PATH_WIDTH: usize = 26;
const MODEL_WIDTH: usize = 36;
const TOKEN_WIDTH: usize = 7;
const LATENCY_WIDTH: usize = 7;

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Appends the line of `request`, without its newline.
pub fn write(out: &mut Vec<u8>, request: &Request<'_>, color: bool) {
    let paint = |code: &'static str| if color { code } else { "" };
    let reset = paint(RESET);
    put(out, format_args!("{}{}{reset}  ", paint(DIM), time_of_day(&request.timestamp.0)));

    put(out, paint(status_color(request)));
    match request.status_code {
        Some(code) => put(out, format_args!("{code:>3}{reset}  ")),
        None => put(out, format_args!("---{reset}  ")),
    }

    pad(out, &request.method.0, 4, Cut::Tail);
    out.push(b' ');
    // Of a long path the end says what was asked for.
    pad(out, &request.path.0, PATH_WIDTH, Cut::Head);
    out.extend_from_slice(b"  ");
    pad(out, &target(request), MODEL_WIDTH, Cut::Tail);

    let mark = match &*request.usage_source.0 {
        "estimated" => "~",
        "partial" => "≥",
        _ => "",
    };
    let (input, output) = (tokens(request.input_tokens, mark), tokens(request.output_tokens, mark));
    put(out, format_args!("{input:>TOKEN_WIDTH$} → {output:<TOKEN_WIDTH$}"));
    put(out, format_args!("{:>LATENCY_WIDTH$}", milliseconds(request.total_latency)));
    write_tail(out, request, &paint);
}

/// What only some requests have: it stands at the end, where nothing moves because of it.
fn write_tail(out: &mut Vec<u8>, request: &Request<'_>, paint: &impl Fn(&'static str) -> &'static str) {
    let reset = paint(RESET);
    if let (true, Some(ttft)) = (request.is_streaming, request.ttft) {
        put(out, format_args!("  {}ttft{reset} {:>6}", paint(DIM), milliseconds(ttft)));
    }
    let end = &*request.end_reason.0;
    let error = request.error_type.as_ref().map(|text| &*text.0);
    if end != "complete" {
        put(out, format_args!("  {}", paint(YELLOW)));
        plain(out, end.chars());
        put(out, reset);
    }
    if let Some(error) = error.filter(|error| *error != end) {
        put(out, format_args!("  {}", paint(RED)));
        plain(out, error.chars().take(80));
        put(out, reset);
    }
}

fn status_color(request: &Request<'_>) -> &'static str {
    match request.status_code {
        _ if request.status.0 == "success" => GREEN,
        Some(code) if code < 500 => YELLOW,
        _ => RED,
    }
}

/// `provider/model`, with the model that was asked for where the answer names none.
fn target<'a>(request: &'a Request<'_>) -> Cow<'a, str> {
    let provider = request.provider.as_ref().map_or("-", |text| &*text.0);
    match request.model.as_ref().or(request.request_model.as_ref()) {
        Some(model) => Cow::Owned(format!("{provider}/{}", model.0)),
        None => Cow::Borrowed(provider),
    }
}

/// `16:03:20.123` of an RFC 3339 time stamp; all of it when it is something else.
fn time_of_day(timestamp: &str) -> &str {
    timestamp.split_once('T').map_or(timestamp, |(_, time)| time.trim_end_matches('Z'))
}

fn tokens(count: Option<u64>, mark: &str) -> String {
    match count {
        None => "-".to_owned(),
        Some(count) if count < 1_000_000 => format!("{mark}{count}"),
        Some(count) => format!("{mark}{}.{:02}M", count / 1_000_000, count % 1_000_000 / 10_000),
    }
}

/// At most 7 characters up to 99 hours: `0.4ms`, `412ms`, `6.25s`, `1m04s`, `2h05m`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a latency is small and not negative"
)]
fn milliseconds(milliseconds: f64) -> String {
    let seconds = (milliseconds / 1000.0).round() as u64;
    match milliseconds {
        ..9.95 => format!("{milliseconds:.1}ms"),
        ..999.5 => format!("{milliseconds:.0}ms"),
        ..59_995.0 => format!("{:.2}s", milliseconds / 1000.0),
        ..3_599_500.0 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Which end of a text gives way when it is too long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Head,
    Tail,
}

/// Appends `text` in exactly `width` characters.
fn pad(out: &mut Vec<u8>, text: &str, width: usize, cut: Cut) {
    let length = text.chars().count();
    if length <= width {
        plain(out, text.chars());
        out.resize(out.len() + width - length, b' ');
    } else if cut == Cut::Head {
        put(out, '…');
        plain(out, text.chars().skip(length - width + 1));
    } else {
        plain(out, text.chars().take(width - 1));
        put(out, '…');
    }
}

/// Appends what came from outside. A control character would let a client's model name move the cursor, and a
/// direction mark would turn the rest of the line around.
fn plain(out: &mut Vec<u8>, text: impl Iterator<Item = char>) {
    for character in text {
        let harmless = !character.is_control()
            && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        put(out, if harmless { character } else { '?' });
    }
}

/// A `Vec` takes every write.
fn put(out: &mut Vec<u8>, what: impl Display) {
    let _ = write!(out, "{what}");
}

#[cfg(test)]
mod tests {
    use plugin_api::{EndReason, RequestMetrics, UsageSource, testing::Sample};

    use super::*;

    fn line(sample: &Sample, color: bool) -> String {
        let json = sample.metrics_json();
        let mut out = Vec::new();
        write(&mut out, &serde_json::from_slice(&json).unwrap(), color);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_kind_of_request_has_its_line() {
        for (sample, expected) in [
            (
                Sample::chat(),
                "16:03:20.123  200  POST /v1/chat/completions        openai/gpt-4o-mini-2024-07-18            48 → 865      6.25s",
            ),
            (
                Sample::stream(),
                "16:03:20.123  200  POST /v1/chat/completions        openai/gpt-4o-mini-2024-07-18            48 → 865      6.25s  ttft  412ms",
            ),
            (
                Sample::failed(),
                "16:03:20.123  429  POST /v1/chat/completions        openai/gpt-4o-mini                        - → -        6.25s  rate_limit_exceeded",
            ),
            (
                Sample::disconnected(),
                "16:03:20.123  200  POST /v1/chat/completions        openai/gpt-4o-mini-2024-07-18             - → -        6.25s  ttft  412ms  client_disconnect",
            ),
        ] {
            assert_eq!(line(&sample, false), expected);
        }
    }

    #[test]
    fn columns_stand_still_whatever_comes() {
        let plain = line(&Sample::chat(), false);
        let width = plain.chars().count();
        let changes: [fn(&mut RequestMetrics<'static>); 13] = [
            |m| m.path = "/openai/deployments/a/b/chat/completions".into(),
            |m| m.path = "/".into(),
            |m| m.model = Some("meta-llama/Llama-3.3-70B-Instruct-Turbo-Free-and-then-some".into()),
            |m| m.provider = None,
            |m| (m.model, m.request_model) = (None, None),
            |m| m.status_code = None,
            |m| (m.input_tokens, m.output_tokens) = (Some(123_456), Some(9_876_543)),
            |m| m.usage_source = UsageSource::Estimated,
            |m| m.total_latency = 0.04,
            |m| m.total_latency = 59_994.9,
            |m| m.total_latency = 3_599_499.0,
            |m| m.total_latency = 86_400_000.0,
            |m| m.method = "OPTIONS".into(),
        ];
        for change in changes {
            let other = line(&Sample::chat().with(change), false);
            assert_eq!(other.chars().count(), width, "{plain}\n{other}");
        }
    }

    #[test]
    fn a_long_path_keeps_its_end_and_a_long_model_its_start() {
        let text = line(
            &Sample::chat().with(|m| {
                m.path = "/openai/deployments/a/b/chat/completions".into();
                m.model = Some("meta-llama/Llama-3.3-70B-Instruct-Turbo".into());
            }),
            false,
        );
        assert!(text.contains("POST …ents/a/b/chat/completions  "), "{text}");
        assert!(text.contains("openai/meta-llama/Llama-3.3-70B-Ins…"), "{text}");
    }

    #[test]
    fn a_count_says_when_it_is_not_the_providers() {
        let with = |source: UsageSource| line(&Sample::chat().with(|m| m.usage_source = source), false);
        assert!(with(UsageSource::Estimated).contains(" ~48 → ~865 "));
        assert!(with(UsageSource::Partial).contains(" ≥48 → ≥865 "));
    }

    #[test]
    fn latencies_are_short() {
        for (given, expected) in [
            (0.0, "0.0ms"),
            (0.42, "0.4ms"),
            (9.94, "9.9ms"),
            (9.96, "10ms"),
            (999.4, "999ms"),
            (999.6, "1.00s"),
            (6250.25, "6.25s"),
            (59_996.0, "1m00s"),
            (64_000.0, "1m04s"),
            (7_500_000.0, "2h05m"),
        ] {
            assert_eq!(milliseconds(given), expected, "{given}");
        }
    }

    #[test]
    fn a_hostile_name_cannot_reach_the_terminal() {
        let text = line(
            &Sample::chat().with(|m| {
                m.model = Some("a\x1b[2Jb\nc\u{202e}d".into());
                m.error_type = Some("x\ty".into());
                m.end_reason = EndReason::Other("\x07bell".into());
            }),
            false,
        );
        assert!(text.contains("openai/a?[2Jb?c?d ") && text.contains("  ?bell  x?y"), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        for (sample, code) in
            [(Sample::chat(), GREEN), (Sample::failed(), YELLOW), (Sample::disconnected(), YELLOW)]
        {
            let colored = line(&sample, true);
            assert!(colored.contains(&format!("{code}{}", &line(&sample, false)[14..17])), "{colored:?}");
            let mut stripped = colored;
            for code in [DIM, RED, GREEN, YELLOW, RESET] {
                stripped = stripped.replace(code, "");
            }
            assert_eq!(stripped, line(&sample, false));
        }
    }
}
