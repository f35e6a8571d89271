//! The gateway's own log, on standard error, without credentials.

use std::{
    env,
    io::{self, Write},
};

use tracing::warn;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::mask;

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `MAGICAPI_LOG`, else `RUST_LOG`, filters it.
pub(super) fn start(format: Format) {
    let asked = ["MAGICAPI_LOG", "RUST_LOG"].iter().find_map(|name| Some((name, env::var(name).ok()?)));
    let (filter, mistake) = match asked.as_ref().map(|(name, text)| (name, text, filter(text))) {
        None => (filter("").unwrap_or_default(), None),
        Some((_, _, Ok(filter))) => (filter, None),
        Some((name, text, Err(error))) => {
            (filter("").unwrap_or_default(), Some(format!("{name}={text:?} is not understood: {error}")))
        }
    };
    let registry = tracing_subscriber::registry().with(filter);
    // Fails where a test has a subscriber already.
    let _ = match format {
        Format::Json => registry.with(fmt::layer().json().with_writer(|| Masked { json: true })).try_init(),
        Format::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr());
            let layer =
                fmt::layer().with_writer(|| Masked { json: false }).with_target(false).with_ansi(colour);
            registry.with(layer).try_init()
        }
    };
    if let Some(mistake) = mistake {
        warn!("{mistake}; logging at info. Write a level (error, warn, info, debug), or module=level");
    }
}

/// Without a level for everything the rest is logged at `info`: a word that is no level, which names a module then, would
/// silence all.
fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let mut directives: Vec<&str> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    if !directives.iter().any(|directive| directive.parse::<LevelFilter>().is_ok()) {
        directives.push("info");
    }
    EnvFilter::try_new(directives.join(","))
}

/// Standard error. Each event comes in one piece.
struct Masked {
    json: bool,
}

impl Write for Masked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mask = mask::known();
        let mut errors = io::stderr().lock();
        match self.json {
            true => errors.write_all(mask.json(line).as_deref().unwrap_or(line))?,
            false => errors.write_all(&mask.bytes(line))?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_level_silences_the_log() {
        for (text, expected) in [
            ("", "info"),
            ("warn", "warn"),
            ("OFF", "off"),
            ("verbose", "verbose=trace,info"),
            ("magicapi_gateway::loader=debug", "magicapi_gateway::loader=debug,info"),
            ("hyper=debug, error", "hyper=debug,error"),
        ] {
            assert_eq!(filter(text).unwrap().to_string(), expected, "{text}");
        }
        assert!(filter("a=b=c").is_err());
    }
}
