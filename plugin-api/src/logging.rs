//! Forwards what the plugin logs through `tracing` to the gateway's log.

use std::{
    fmt::{self, Write as _},
    sync::{
        Once, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use crate::abi::{HostV1, Slice, level};

/// Where lines go. A library has one instance (every `[[plugin]]` entry is loaded as a library of its own).
static HOST: RwLock<Option<Target>> = RwLock::new(None);
static MAX_LEVEL: AtomicU32 = AtomicU32::new(level::OFF);

struct Target(HostV1);

// SAFETY: the ABI lets `log` be called from any thread until `destroy` returns, and `disconnect` runs before that.
unsafe impl Send for Target {}
// SAFETY: as above; `log` may run on several threads at once.
unsafe impl Sync for Target {}

/// Sends all log lines of this library to `host`, until [`disconnect`].
pub(crate) fn connect(host: &HostV1) {
    static INSTALL: Once = Once::new();
    *HOST.write().unwrap_or_else(PoisonError::into_inner) = Some(Target(*host));
    MAX_LEVEL.store(host.max_level, Ordering::Relaxed);
    INSTALL.call_once(|| {
        // Fails where a subscriber is there already, as in a test that links the plugin: its lines go there then.
        let _ = tracing::subscriber::set_global_default(Forward);
    });
    tracing_core::callsite::rebuild_interest_cache();
}

/// Waits for lines under way; after it, none is sent.
pub(crate) fn disconnect() {
    MAX_LEVEL.store(level::OFF, Ordering::Relaxed);
    *HOST.write().unwrap_or_else(PoisonError::into_inner) = None;
}

struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) <= MAX_LEVEL.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match MAX_LEVEL.load(Ordering::Relaxed) {
            level::OFF => LevelFilter::OFF,
            level::ERROR => LevelFilter::ERROR,
            level::WARN => LevelFilter::WARN,
            level::INFO => LevelFilter::INFO,
            level::DEBUG => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let fields = if line.fields.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(&line.fields).unwrap_or_default()
        };
        let host = HOST.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Target(host)) = &*host {
            let metadata = event.metadata();
            (host.log)(
                host.context,
                number(*metadata.level()),
                Slice::of(metadata.target().as_bytes()),
                Slice::of(line.message.as_bytes()),
                Slice::of(&fields),
            );
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

impl Line {
    fn set(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.set(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.set(field, value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}

const fn number(level: Level) -> u32 {
    match level {
        Level::ERROR => level::ERROR,
        Level::WARN => level::WARN,
        Level::INFO => level::INFO,
        Level::DEBUG => level::DEBUG,
        Level::TRACE => level::TRACE,
    }
}
