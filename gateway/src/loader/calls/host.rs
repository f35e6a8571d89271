//! What a plugin may ask of the gateway: its log, and who it is.
//!
//! Each instance has one [`HostSide`], which is leaked: a plugin may keep the pointer in threads that nobody stops,
//! and a log line from beyond its end must find a place to go to. It is a few hundred bytes for each instance.

use std::{
    ffi::c_void,
    fmt, ptr,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use plugin_api::abi::{ABI_VERSION, HostV1, Level, Slice, level};
use serde::Serialize;
use tracing::level_filters::LevelFilter;

use super::under_way::{borrow, contained};
use crate::loader::plain_text::plain_text;

/// Lines that an instance may log in a second. The rest is counted.
const LINES_PER_SECOND: u32 = 100;
const MAX_LINE: usize = 8 * 1024;
const MAX_TARGET: usize = 256;

/// What every plugin is told about the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// Version of the gateway.
    pub gateway_version: String,
    /// `telemetry.service_name`.
    pub service_name: String,
    /// `telemetry.environment`.
    pub environment: String,
}

/// The gateway's side of one instance, never freed.
pub(super) struct HostSide {
    name: String,
    info: Vec<u8>,
    lines: Mutex<Lines>,
    table: OnceLock<Table>,
}

struct Table(HostV1);

// SAFETY: its pointers lead to the `HostSide` around it and to the text in it, which live for ever and are shared.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl HostSide {
    pub(super) fn leak(name: &str, host: &HostInfo) -> &'static Self {
        #[derive(Serialize)]
        struct Info<'a> {
            gateway_version: &'a str,
            instance: &'a str,
            service_name: &'a str,
            environment: &'a str,
        }
        let info = Info {
            gateway_version: &host.gateway_version,
            instance: name,
            service_name: &host.service_name,
            environment: &host.environment,
        };
        Box::leak(Box::new(Self {
            name: name.to_owned(),
            info: serde_json::to_vec(&info).unwrap_or_else(|_| b"{}".to_vec()),
            lines: Mutex::new(Lines::new(Instant::now())),
            table: OnceLock::new(),
        }))
    }

    pub(super) fn table(&'static self) -> *const HostV1 {
        let table = self.table.get_or_init(|| {
            Table(HostV1 {
                struct_size: const { size_of::<HostV1>() as u32 },
                abi_version: ABI_VERSION,
                context: ptr::from_ref(self).cast_mut().cast(),
                info: Slice::of(&self.info),
                max_level: max_level(),
                log,
                get_extension,
            })
        });
        &raw const table.0
    }

    /// Says what was left out, once the instance is gone.
    pub(super) fn finish(&self) {
        let dropped = std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner).dropped);
        self.tell_dropped(dropped);
    }

    fn log(&self, level: Level, target: &[u8], message: &[u8], fields: &[u8]) {
        if level == level::OFF || level > max_level() {
            return;
        }
        let admitted = self.lines.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
        let Some(dropped) = admitted else { return };
        self.tell_dropped(dropped);
        let plugin = self.name.as_str();
        let module = plain_text(target, MAX_TARGET);
        let message = plain_text(message, MAX_LINE);
        let fields = (!fields.is_empty()).then(|| tracing::field::display(plain_text(fields, MAX_LINE)));
        match level {
            level::ERROR => tracing::error!(target: "plugin", plugin, module, fields, "{message}"),
            level::WARN => tracing::warn!(target: "plugin", plugin, module, fields, "{message}"),
            level::INFO => tracing::info!(target: "plugin", plugin, module, fields, "{message}"),
            level::DEBUG => tracing::debug!(target: "plugin", plugin, module, fields, "{message}"),
            _ => tracing::trace!(target: "plugin", plugin, module, fields, "{message}"),
        }
    }

    fn tell_dropped(&self, dropped: u64) {
        if dropped > 0 {
            let plugin = self.name.as_str();
            tracing::warn!(
                target: "plugin",
                plugin,
                dropped,
                "the plugin logs more than {LINES_PER_SECOND} lines a second; {dropped} were left out"
            );
        }
    }
}

impl fmt::Debug for HostSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How many lines were written in the current second, and how many were not.
struct Lines {
    second: Instant,
    written: u32,
    dropped: u64,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self { second: now, written: 0, dropped: 0 }
    }

    /// `None` when the line is one too many; else how many were left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.written) = (now, 0);
        }
        if self.written >= LINES_PER_SECOND {
            self.dropped += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

extern "C" fn log(context: *mut c_void, level: Level, target: Slice, message: Slice, fields: Slice) {
    // SAFETY: the context is a leaked `HostSide`, and the ABI promises slices that are valid for this call.
    let (host, target, message, fields) = unsafe {
        (context.cast::<HostSide>().cast_const().as_ref(), borrow(target), borrow(message), borrow(fields))
    };
    let Some(host) = host else { return };
    contained((), || host.log(level, target, message, fields));
}

/// The gateway has no extensions yet; a plugin must do without any.
extern "C" fn get_extension(_context: *mut c_void, _name: Slice) -> *const c_void {
    ptr::null()
}

/// The most detailed level that any subscriber wants.
fn max_level() -> Level {
    match LevelFilter::current() {
        LevelFilter::OFF => level::OFF,
        LevelFilter::ERROR => level::ERROR,
        LevelFilter::WARN => level::WARN,
        LevelFilter::INFO => level::INFO,
        LevelFilter::DEBUG => level::DEBUG,
        _ => level::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_floods_the_log_is_held_to_its_share_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let written = (0..1000).filter(|_| lines.admit(start).is_some()).count();
        assert_eq!(written, LINES_PER_SECOND as usize);
        assert_eq!(lines.admit(start + Duration::from_secs(1)), Some(1000 - u64::from(LINES_PER_SECOND)));
        assert_eq!(lines.admit(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_plugin_is_told_who_it_is_and_finds_no_unknown_extension() {
        let host = HostInfo { gateway_version: "1.2.3".to_owned(), ..HostInfo::default() };
        let table = HostSide::leak("tally", &host).table();
        // SAFETY: it is never freed.
        let table = unsafe { *table };
        // SAFETY: as above.
        let info: serde_json::Value = serde_json::from_slice(unsafe { table.info.as_bytes() }).unwrap();
        assert_eq!((&info["instance"], &info["gateway_version"]), (&"tally".into(), &"1.2.3".into()));
        assert!((table.get_extension)(table.context, Slice::of(b"nothing/1")).is_null());
    }
}
