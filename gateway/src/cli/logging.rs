//! The gateway's own log, on standard error, without credentials.

use std::io::{self, Write};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

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

/// Starts the log. `MAGICAPI_LOG`, else `RUST_LOG`, filters it; the default is `info`.
pub(super) fn start(format: Format) {
    let filter = ["MAGICAPI_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
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
