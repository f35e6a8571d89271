//! The gateway's own log, on standard error.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

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
        Format::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
        Format::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour);
            registry.with(layer).try_init()
        }
    };
}
