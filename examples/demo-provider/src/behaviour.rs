//! What the model's name asks for. Every name works that does not start with `demo-`, and answers normally.

use std::{fmt::Write as _, time::Duration};

use bytesize::ByteSize;
use http::StatusCode;

/// What to do with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// A short answer, streamed at the configured pace.
    Normal,
    /// An answer prepared at start-up: 0.6 KB plain, or 32 chunks with this pause before each. For load tests.
    Fast(Duration),
    /// An answer of so many words, at most a million, one word a chunk.
    Words(u64),
    /// An answer whose text has so many bytes.
    Big(u64),
    /// An error with this status.
    Fail(StatusCode),
    /// Never a byte.
    Stall,
    /// Headers and some chunks (or half of the body), then nothing more.
    StallMid,
    /// The same with an answer of so many words: a stream stalls after as many chunks.
    StallAfter(u64),
    /// Headers and some chunks (or half of the body), then the connection is cut.
    Cut,
    /// A stream that ends with an error event after its 200; a plain request gets a 500.
    ErrorEvent,
    /// A normal answer whose headers take this long.
    SlowHeaders(Duration),
    /// A normal answer, gzip-compressed whether asked for or not.
    Gzip,
    /// A normal answer that leaves `usage` out.
    NoUsage,
    /// A chat answer that calls a tool and says nothing; the other endpoints answer normally.
    ToolCall,
    /// A 200 whose body is neither JSON nor a well-formed event stream.
    Garbage,
}

const MAX_WORDS: u64 = 1_000_000;

/// The models as `GET /v1/models` and `--help` name them; a colon is followed by an example value.
pub const MODELS: &[(&str, &str)] = &[
    ("demo", "a short answer, one word a chunk"),
    ("demo-fast", "an answer prepared at start-up, for load tests; demo-fast:2ms streams slower"),
    ("demo-words:200", "an answer of 200 words"),
    ("demo-big:50MiB", "an answer, or a stream, of this size"),
    ("demo-fail-500", "status 500; any status from 400 to 599 works"),
    ("demo-fail-429", "status 429 with retry-after"),
    ("demo-stall", "never answers"),
    ("demo-stall-mid", "begins to answer, then stalls; demo-stall-mid:500 after 500 chunks"),
    ("demo-cut", "begins to answer, then cuts the connection"),
    ("demo-error-event", "a stream that ends in an error event"),
    ("demo-slow-headers:2s", "headers take 2 seconds"),
    ("demo-gzip", "a gzip-compressed answer"),
    ("demo-no-usage", "an answer without usage"),
    ("demo-tool-call", "an answer that calls a tool"),
    ("demo-garbage", "status 200 with a body that is not JSON"),
];

/// Reads a model's name; `None` when it starts with `demo-` and means nothing.
#[must_use]
pub fn parse(model: &str) -> Option<Behaviour> {
    let Some(rest) = model.strip_prefix("demo-") else { return Some(Behaviour::Normal) };
    let (name, value) = rest.split_once(':').map_or((rest, None), |(name, value)| (name, Some(value)));
    if let Some(status) = name.strip_prefix("fail-") {
        return status.parse().ok().and_then(failure).map(Behaviour::Fail);
    }
    Some(match (name, value) {
        ("fast", None) => Behaviour::Fast(Duration::ZERO),
        ("fast", Some(pause)) => Behaviour::Fast(humantime::parse_duration(pause).ok()?),
        ("words", Some(count)) => Behaviour::Words(words(count)?),
        ("big", Some(size)) => Behaviour::Big(size.parse::<ByteSize>().ok()?.as_u64()),
        ("stall", None) => Behaviour::Stall,
        ("stall-mid", None) => Behaviour::StallMid,
        ("stall-mid", Some(count)) => Behaviour::StallAfter(words(count)?),
        ("cut", None) => Behaviour::Cut,
        ("error-event", None) => Behaviour::ErrorEvent,
        ("slow-headers", None) => Behaviour::SlowHeaders(Duration::from_secs(2)),
        ("slow-headers", Some(pause)) => Behaviour::SlowHeaders(humantime::parse_duration(pause).ok()?),
        ("gzip", None) => Behaviour::Gzip,
        ("no-usage", None) => Behaviour::NoUsage,
        ("tool-call", None) => Behaviour::ToolCall,
        ("garbage", None) => Behaviour::Garbage,
        _ => return None,
    })
}

fn words(count: &str) -> Option<u64> {
    count.parse().ok().filter(|count| *count <= MAX_WORDS)
}

fn failure(status: u16) -> Option<StatusCode> {
    StatusCode::from_u16(status).ok().filter(|status| status.is_client_error() || status.is_server_error())
}

/// The table of models, for `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = "Models (any other name answers like `demo`):\n".to_owned();
    for (name, meaning) in MODELS {
        // Writing to a String cannot fail.
        writeln!(text, "  {name:<22} {meaning}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ask_for_what_they_say() {
        let check = |name: &str, expect: Option<Behaviour>| assert_eq!(parse(name), expect, "{name}");
        check("gpt-4o", Some(Behaviour::Normal));
        check("demo", Some(Behaviour::Normal));
        check("demo-fast", Some(Behaviour::Fast(Duration::ZERO)));
        check("demo-fast:2ms", Some(Behaviour::Fast(Duration::from_millis(2))));
        check("demo-words:3", Some(Behaviour::Words(3)));
        check("demo-stall-mid:3", Some(Behaviour::StallAfter(3)));
        check("demo-big:50MiB", Some(Behaviour::Big(50 << 20)));
        check("demo-big:1000", Some(Behaviour::Big(1000)));
        check("demo-fail-429", Some(Behaviour::Fail(StatusCode::TOO_MANY_REQUESTS)));
        check("demo-slow-headers", Some(Behaviour::SlowHeaders(Duration::from_secs(2))));
        check("demo-slow-headers:5ms", Some(Behaviour::SlowHeaders(Duration::from_millis(5))));
    }

    #[test]
    fn a_misspelt_demo_model_is_unknown() {
        for name in [
            "demo-",
            "demo-fial-500",
            "demo-fail-200",
            "demo-fail-",
            "demo-big",
            "demo-big:many",
            "demo-cut:1",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn every_listed_model_is_known() {
        for (name, _) in MODELS {
            assert!(parse(name).is_some(), "{name}");
        }
    }
}
