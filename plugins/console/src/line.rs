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

use std::{borrow::Cow, fmt::Display, io, io::Write as _};

use plugin_api::{Field, Fields};

/// The fields of a record that a line shows.
#[derive(Debug)]
pub struct Request<'a> {
    timestamp: Cow<'a, str>,
    method: Cow<'a, str>,
    path: Cow<'a, str>,
    provider: Option<Cow<'a, str>>,
    model: Option<Cow<'a, str>>,
    status_code: Option<u64>,
    is_streaming: bool,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    usage_source: Cow<'a, str>,
    total_latency: f64,
    ttft: Option<f64>,
    status: Cow<'a, str>,
    end_reason: Cow<'a, str>,
    error_type: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// When one is missing that every record has.
    pub fn of(fields: &Fields<'a>) -> io::Result<Self> {
        let text = |field| fields.text(field).ok_or_else(|| missing(field));
        let latency = fields.number(Field::TotalLatency);
        Ok(Self {
            timestamp: text(Field::Timestamp)?,
            method: text(Field::Method)?,
            path: text(Field::Path)?,
            provider: fields.text(Field::Provider),
            model: fields.text(Field::Model).or_else(|| fields.text(Field::RequestModel)),
            status_code: fields.whole(Field::StatusCode),
            is_streaming: fields.flag(Field::IsStreaming).ok_or_else(|| missing(Field::IsStreaming))?,
            input_tokens: fields.whole(Field::InputTokens),
            output_tokens: fields.whole(Field::OutputTokens),
            usage_source: text(Field::UsageSource)?,
            total_latency: latency.ok_or_else(|| missing(Field::TotalLatency))?,
            ttft: fields.number(Field::Ttft),
            status: text(Field::Status)?,
            end_reason: text(Field::EndReason)?,
            error_type: fields.text(Field::ErrorType),
        })
    }
}

fn missing(field: Field) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the record has no usable `{}`", field.name()))
}

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
    add(out, &[paint(DIM), time_of_day(&request.timestamp), reset, "  ", paint(status_color(request))]);
    match request.status_code {
        Some(code) => right(out, 3, |out| put(out, code)),
        None => add(out, &["---"]),
    }
    add(out, &[reset, "  "]);

    pad(out, &request.method, 4, Cut::Tail);
    out.push(b' ');
    // Of a long path the end says what was asked for.
    pad(out, &request.path, PATH_WIDTH, Cut::Head);
    out.extend_from_slice(b"  ");
    write_target(out, request);

    let mark = match &*request.usage_source {
        "estimated" => "~",
        "partial" => "≥",
        _ => "",
    };
    right(out, TOKEN_WIDTH, |out| tokens(out, request.input_tokens, mark));
    add(out, &[" → "]);
    left(out, TOKEN_WIDTH, |out| tokens(out, request.output_tokens, mark));
    right(out, LATENCY_WIDTH, |out| milliseconds(out, request.total_latency));
    write_tail(out, request, &paint);
}

/// What only some requests have: it stands at the end, where nothing moves because of it.
fn write_tail(out: &mut Vec<u8>, request: &Request<'_>, paint: &impl Fn(&'static str) -> &'static str) {
    let reset = paint(RESET);
    if let (true, Some(ttft)) = (request.is_streaming, request.ttft) {
        add(out, &["  ", paint(DIM), "ttft", reset, " "]);
        right(out, 6, |out| milliseconds(out, ttft));
    }
    let end = &*request.end_reason;
    if end != "complete" {
        add(out, &["  ", paint(YELLOW)]);
        plain(out, end);
        add(out, &[reset]);
    }
    if let Some(error) = request.error_type.as_deref().filter(|error| *error != end) {
        add(out, &["  ", paint(RED)]);
        plain(out, &error[..first(error, 80)]);
        add(out, &[reset]);
    }
}

fn status_color(request: &Request<'_>) -> &'static str {
    match request.status_code {
        _ if request.status == "success" => GREEN,
        Some(code) if code < 500 => YELLOW,
        _ => RED,
    }
}

/// `provider/model`, with the model that was asked for where the answer names none.
fn write_target(out: &mut Vec<u8>, request: &Request<'_>) {
    let provider = request.provider.as_deref().unwrap_or("-");
    match &request.model {
        Some(model) => match MODEL_WIDTH.checked_sub(provider.chars().count() + 1) {
            Some(width) if width > 0 => {
                plain(out, provider);
                out.push(b'/');
                pad(out, model, width, Cut::Tail);
            }
            _ => pad(out, &format!("{provider}/{model}"), MODEL_WIDTH, Cut::Tail),
        },
        None => pad(out, provider, MODEL_WIDTH, Cut::Tail),
    }
}

/// `16:03:20.123` of an RFC 3339 time stamp; all of it when it is something else.
fn time_of_day(timestamp: &str) -> &str {
    timestamp.split_once('T').map_or(timestamp, |(_, time)| time.trim_end_matches('Z'))
}

fn tokens(out: &mut Vec<u8>, count: Option<u64>, mark: &str) {
    match count {
        None => add(out, &["-"]),
        Some(count) if count < 1_000_000 => put(out, format_args!("{mark}{count}")),
        Some(count) => {
            put(out, format_args!("{mark}{}.{:02}M", count / 1_000_000, count % 1_000_000 / 10_000));
        }
    }
}

/// At most 7 characters up to 99 hours: `0.4ms`, `412ms`, `6.25s`, `1m04s`, `2h05m`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a latency is small and not negative"
)]
fn milliseconds(out: &mut Vec<u8>, milliseconds: f64) {
    let seconds = (milliseconds / 1000.0).round() as u64;
    match milliseconds {
        ..9.95 => put(out, format_args!("{milliseconds:.1}ms")),
        ..999.5 => put(out, format_args!("{milliseconds:.0}ms")),
        ..59_995.0 => put(out, format_args!("{:.2}s", milliseconds / 1000.0)),
        ..3_599_500.0 => put(out, format_args!("{}m{:02}s", seconds / 60, seconds % 60)),
        _ => put(out, format_args!("{}h{:02}m", seconds / 3600, seconds / 60 % 60)),
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
        plain(out, text);
        out.resize(out.len() + width - length, b' ');
    } else if cut == Cut::Head {
        add(out, &["…"]);
        plain(out, &text[first(text, length - width + 1)..]);
    } else {
        plain(out, &text[..first(text, width - 1)]);
        add(out, &["…"]);
    }
}

/// Length in bytes of the first `count` characters.
fn first(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(index, _)| index)
}

/// Appends what `write` writes, at the right of `width` characters.
fn right(out: &mut Vec<u8>, width: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let missing = left(out, width, write);
    out[start..].rotate_right(missing);
}

/// Appends what `write` writes, at the left of `width` characters. Returns how many spaces follow.
fn left(out: &mut Vec<u8>, width: usize, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    write(out);
    let is_start_of_character = |byte: &&u8| **byte & 0xC0 != 0x80;
    let missing = width.saturating_sub(out[start..].iter().filter(is_start_of_character).count());
    out.resize(out.len() + missing, b' ');
    missing
}

/// Appends what came from outside. A control character would let a client's model name move the cursor, and a
/// direction mark would turn the rest of the line around.
fn plain(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        let harmless = !character.is_control()
            && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        put(out, if harmless { character } else { '?' });
    }
}

/// Appends texts as they are.
fn add(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// A `Vec` takes every write.
fn put(out: &mut Vec<u8>, what: impl Display) {
    let _ = write!(out, "{what}");
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;
    use plugin_api::{EndReason, RequestMetrics, UsageSource};

    use super::*;

    fn line(sample: &Sample, color: bool) -> String {
        let json = sample.metrics_json();
        let mut out = Vec::new();
        write(&mut out, &Request::of(&Fields::parse(&json).unwrap()).unwrap(), color);
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
            let mut out = Vec::new();
            milliseconds(&mut out, given);
            assert_eq!(out, expected.as_bytes(), "{given}");
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
