//! The binary interface between the gateway and a plugin: plain C types and one table of functions. **Frozen.**
//!
//! Plugin authors in Rust need none of this: [`TelemetryExporter`](crate::TelemetryExporter) and
//! [`export_plugin!`](crate::export_plugin) are written against it. It is public because the gateway is the other
//! side, and because it is the specification for plugins in other languages.
//!
//! # Rules for the whole table
//!
//! * **Growth.** No type in this module ever changes. New abilities are *extensions*: tables of their own, asked for
//!   by name (`"scrape/1"`) from either side. A released extension never changes; a new version is a new name.
//! * **Ownership.** No memory crosses the boundary to be freed on the other side. Who receives a [`Slice`] borrows it
//!   for the call and copies what it wants to keep. What a plugin wants to say, it says through callbacks
//!   ([`Sink::write`], [`BatchV1::verdict`], [`HostV1::log`]) that copy before they return.
//! * **Threads.** The gateway gives every instance a thread of its own. `create`, `export`, `flush` and `destroy` are
//!   called from it, one at a time, never from an async context. A plugin whose descriptor says `concurrent` may see
//!   `export` from further threads at the same time. The functions of `health/1` and `scrape/1` are called from one
//!   more thread, one at a time, between `create` and `destroy`, also while an `export` is under way: nobody who asks
//!   for metrics waits for a backend that hangs. `describe`, `get_extension` and the function of `content/1` may be
//!   called from any thread, also before `create`.
//!   [`HostV1::log`] may be called by the plugin from any thread, until `destroy` returns.
//! * **Failure.** Every function that can fail returns a [`Status`]: an integer with named constants. A value that is
//!   not listed counts as [`status::FAULT`].
//! * **Panics and exceptions.** None may leave a function of this table: unwinding across it is undefined behaviour.
//!   A plugin catches its own and returns [`status::PANIC`]. `export_plugin!` does that in every function.
//! * **Time.** Durations are milliseconds in a `u64`. A call that runs past its deadline is abandoned, not
//!   cancelled: the gateway marks the instance as stuck and exports no more until the call returns.

use std::ffi::c_void;

use abi_stable::StableAbi;

/// The ABI that this crate describes. It is the major version of the crate.
pub const ABI_VERSION: u32 = 1;

/// Bytes that are borrowed for the duration of one call. Text is UTF-8, without a zero at its end.
///
/// `pointer` may be null or dangling when `length` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Slice {
    /// First byte.
    pub pointer: *const u8,
    /// Number of bytes.
    pub length: usize,
}

impl Slice {
    /// The empty slice.
    pub const EMPTY: Self = Self { pointer: std::ptr::null(), length: 0 };

    /// A view of `bytes`. The caller sees to it that it is not used after them.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self { pointer: bytes.as_ptr(), length: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    /// `pointer` is valid for `length` bytes, which are not written to, for as long as `'a`.
    #[must_use]
    pub const unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        if self.length == 0 || self.pointer.is_null() {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

/// Outcome of a call: one of the constants in [`status`].
pub type Status = u32;

/// Values of [`Status`].
pub mod status {
    use super::Status;

    /// Done. From `export`: every record without a verdict of its own is delivered.
    pub const OK: Status = 0;
    /// The backend could not take the batch now. Records without a verdict are sent again.
    pub const RETRY: Status = 1;
    /// The backend will never take the batch as it is. The gateway splits it to find the record at fault; a single
    /// record without a verdict is rejected.
    pub const REJECT: Status = 2;
    /// The batch is too large for the backend. The gateway splits it; a single record loses its bodies and is tried
    /// once more.
    pub const TOO_LARGE: Status = 3;
    /// The backend refuses the plugin's credentials. The circuit breaker opens at once; records are kept for retry.
    pub const UNAUTHORIZED: Status = 4;
    /// Every record has a verdict of its own; one without is a fault of the plugin and is sent again.
    pub const PER_RECORD: Status = 5;
    /// The settings cannot work. From `create` only.
    pub const INVALID_CONFIG: Status = 6;
    /// The plugin does not offer this.
    pub const UNSUPPORTED: Status = 7;
    /// The deadline passed inside the plugin. Treated as [`RETRY`].
    pub const TIMEOUT: Status = 8;
    /// The plugin panicked and caught it. Treated as [`RETRY`]; too many in a row disable the instance.
    pub const PANIC: Status = 9;
    /// The plugin failed in a way that is a fault of its own. Treated as [`RETRY`].
    pub const FAULT: Status = 10;
}

/// Verdict on one record.
pub type Verdict = u32;

/// Values of [`Verdict`].
pub mod verdict {
    use super::Verdict;

    /// The backend has the record, now or from an earlier attempt.
    pub const DELIVERED: Verdict = 0;
    /// The record is to be sent again.
    pub const RETRY: Verdict = 1;
    /// The backend will never take this record.
    pub const REJECTED: Verdict = 2;
}

/// Part of a record.
pub type Part = u32;

/// Values of [`Part`]. A part that the gateway does not know is empty.
pub mod part {
    use super::Part;

    /// [`RequestMetrics`](crate::RequestMetrics) without the bodies, as one JSON object.
    pub const METRICS: Part = 0;
    /// The request's body as JSON, or empty.
    pub const REQUEST: Part = 1;
    /// The response's body as JSON, or empty.
    pub const RESPONSE: Part = 2;
}

/// Level of a log line.
pub type Level = u32;

/// Values of [`Level`]. A higher number is more detail.
pub mod level {
    use super::Level;

    /// Nothing at all; only as a limit.
    pub const OFF: Level = 0;
    /// Needs a person.
    pub const ERROR: Level = 1;
    /// Something is off, and handled.
    pub const WARN: Level = 2;
    /// Changes of state.
    pub const INFO: Level = 3;
    /// For the plugin's author.
    pub const DEBUG: Level = 4;
    /// Everything.
    pub const TRACE: Level = 5;
}

/// Where a function writes bytes to: an error's text, a descriptor, a scrape.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct Sink {
    /// Passed to every call of `write`; opaque to the plugin.
    pub context: *mut c_void,
    /// Appends `bytes`. *Thread:* the caller's. *Ownership:* copied before it returns. *Failure:* none; a host may
    /// cut what is unreasonably long.
    pub write: extern "C" fn(context: *mut c_void, bytes: Slice),
}

/// What a plugin may ask of the gateway. Valid from `create` until `destroy` returns.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct HostV1 {
    /// Size of this struct in bytes.
    pub struct_size: u32,
    /// [`ABI_VERSION`] of the gateway.
    pub abi_version: u32,
    /// Passed to every function below; opaque to the plugin.
    pub context: *mut c_void,
    /// A JSON object that describes the gateway and this instance: `gateway_version`, `instance` (name of the
    /// `[[plugin]]` entry), `service_name`, `environment`. Keys may be added. Valid as long as the host.
    pub info: Slice,
    /// Most detailed [`Level`] that is wanted. Lines beyond it are thrown away: do not make them.
    pub max_level: Level,
    /// Writes one line to the gateway's log. *Thread:* any. *Ownership:* everything is copied. `target` is the
    /// module it comes from, `fields` a JSON object or empty.
    pub log: extern "C" fn(context: *mut c_void, level: Level, target: Slice, message: Slice, fields: Slice),
    /// A table of the gateway's by name, or null. *Thread:* any. The table lives as long as the host.
    pub get_extension: extern "C" fn(context: *mut c_void, name: Slice) -> *const c_void,
}

/// One batch, valid for one call of `export`.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct BatchV1 {
    /// Size of this struct in bytes.
    pub struct_size: u32,
    /// How often this batch was sent before.
    pub attempt: u32,
    /// Passed to every function below; opaque to the plugin.
    pub context: *mut c_void,
    /// Number of records.
    pub length: usize,
    /// Milliseconds from the start of the call until the gateway gives up on it.
    pub deadline_ms: u64,
    /// Bytes of one part of record `index`; empty for a part that is absent or unknown, or an index past the end.
    /// *Ownership:* valid until `export` returns.
    pub part: extern "C" fn(context: *mut c_void, index: usize, part: Part) -> Slice,
    /// Verdict on record `index`, with a reason (text; may be empty for `DELIVERED`). The last verdict on a record
    /// counts. An index past the end or an unknown verdict is a fault of the plugin, and counted.
    pub verdict: extern "C" fn(context: *mut c_void, index: usize, verdict: Verdict, reason: Slice),
    /// The backend asks to wait this long before the next attempt (`Retry-After`). The last value counts.
    pub retry_after: extern "C" fn(context: *mut c_void, milliseconds: u64),
}

/// The plugin's instance: made by `create`, ended by `destroy`, opaque to the gateway.
pub type Instance = *mut c_void;

/// The functions of a plugin, in the order of an instance's life.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ExporterV1 {
    /// Size of this struct in bytes.
    pub struct_size: u32,
    /// [`ABI_VERSION`] that the plugin was built for.
    pub abi_version: u32,
    /// Writes the descriptor, a JSON object, to `out`; after a failure, the error's text instead. See
    /// [`Description`](crate::descriptor::Description) for its fields. *Thread:* any, before any `create`.
    /// *Side effects:* none. *Failure:* `PANIC`, `FAULT`.
    pub describe: extern "C" fn(out: *const Sink) -> Status,
    /// Makes an instance from its settings, a JSON object that fits the descriptor's schema, and stores it in
    /// `instance`. *Thread:* the instance's. *Ownership:* `config` for the call, `host` until `destroy` returns.
    /// *Failure:* `INVALID_CONFIG`, `RETRY` (try again later), `PANIC`, `FAULT`, with a text in `error`; nothing is
    /// stored then. A backend that is down is no failure: start, and let `export` say `RETRY`.
    pub create: extern "C" fn(
        config: Slice,
        host: *const HostV1,
        error: *const Sink,
        instance: *mut Instance,
    ) -> Status,
    /// Delivers a batch. *Thread:* the instance's (any number of threads if `concurrent`). *Ownership:* `batch` for
    /// the call. *Failure:* every status but `INVALID_CONFIG`, with a text in `error`. No secret belongs into it.
    pub export: extern "C" fn(instance: Instance, batch: *const BatchV1, error: *const Sink) -> Status,
    /// Delivers what the plugin itself still holds, before `destroy`. *Thread:* the instance's. *Failure:* `RETRY`,
    /// `TIMEOUT`, `PANIC`, `FAULT`.
    pub flush: extern "C" fn(instance: Instance, deadline_ms: u64, error: *const Sink) -> Status,
    /// Ends the instance. Its threads have stopped and `host` is no longer used when it returns. *Thread:* the
    /// instance's. *Failure:* `PANIC`; the instance is gone all the same.
    pub destroy: extern "C" fn(instance: Instance, error: *const Sink) -> Status,
    /// A table of the plugin's by name, or null. *Thread:* any. The table is static.
    pub get_extension: extern "C" fn(name: Slice) -> *const c_void,
}

/// Name of the extension [`HealthV1`].
pub const HEALTH_V1: &str = "health/1";

/// Extension `health/1`: whether the backend can be reached.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct HealthV1 {
    /// Size of this struct in bytes.
    pub struct_size: u32,
    /// `OK` when healthy; else `RETRY` with the reason in `detail`, or `UNSUPPORTED`. *Thread:* one beside the
    /// instance's, also while it exports.
    pub health: extern "C" fn(instance: Instance, deadline_ms: u64, detail: *const Sink) -> Status,
}

/// Name of the extension [`ScrapeV1`].
pub const SCRAPE_V1: &str = "scrape/1";

/// Extension `scrape/1`: metrics for the gateway's `/metrics`.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ScrapeV1 {
    /// Size of this struct in bytes.
    pub struct_size: u32,
    /// Writes an exposition in `format` (see [`scrape_format`]) to `out`; after a failure, the error's text instead.
    /// *Thread:* one beside the instance's, also while it exports. *Failure:* `UNSUPPORTED` for a format it does not write, `PANIC`, `FAULT`.
    pub scrape: extern "C" fn(instance: Instance, format: u32, out: *const Sink) -> Status,
}

/// Name of the extension [`ContentV1`].
pub const CONTENT_V1: &str = "content/1";

/// Extension `content/1`: how much of each record an instance with certain settings needs. Without it the descriptor's
/// `content` holds for all settings.
#[repr(C)]
#[derive(Debug, Clone, Copy, StableAbi)]
pub struct ContentV1 {
    /// Size of this struct in bytes.
    pub struct_size: u32,
    /// Writes what the settings need, a JSON object (see [`ContentNeed`](crate::ContentNeed)), to `out`; after a failure,
    /// the error's text instead. *Thread:* any, also before any `create`. *Ownership:* `config` for the call; it fits the
    /// descriptor's schema. *Side effects:* none. *Failure:* `INVALID_CONFIG`, `PANIC`, `FAULT`.
    pub content: extern "C" fn(config: Slice, out: *const Sink) -> Status,
}

/// Formats of [`ScrapeV1::scrape`].
pub mod scrape_format {
    /// Prometheus text format 0.0.4, see <https://prometheus.io/docs/instrumenting/exposition_formats/>.
    pub const PROMETHEUS_TEXT: u32 = 0;
    /// OpenMetrics 1.0 text, without its closing `# EOF` (the gateway writes it), see
    /// <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>.
    pub const OPEN_METRICS: u32 = 1;
}

// The frozen sizes and offsets, on every 64-bit platform. A change that breaks one of these breaks every plugin.
#[cfg(target_pointer_width = "64")]
const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Slice>() == 16 && align_of::<Slice>() == 8);
    assert!(size_of::<Sink>() == 16 && offset_of!(Sink, write) == 8);
    assert!(size_of::<HostV1>() == 56);
    assert!(offset_of!(HostV1, context) == 8 && offset_of!(HostV1, info) == 16);
    assert!(offset_of!(HostV1, max_level) == 32 && offset_of!(HostV1, log) == 40);
    assert!(offset_of!(HostV1, get_extension) == 48);
    assert!(size_of::<BatchV1>() == 56);
    assert!(offset_of!(BatchV1, context) == 8 && offset_of!(BatchV1, length) == 16);
    assert!(offset_of!(BatchV1, deadline_ms) == 24 && offset_of!(BatchV1, part) == 32);
    assert!(offset_of!(BatchV1, verdict) == 40 && offset_of!(BatchV1, retry_after) == 48);
    assert!(size_of::<ExporterV1>() == 56);
    assert!(offset_of!(ExporterV1, describe) == 8 && offset_of!(ExporterV1, create) == 16);
    assert!(offset_of!(ExporterV1, export) == 24 && offset_of!(ExporterV1, flush) == 32);
    assert!(offset_of!(ExporterV1, destroy) == 40 && offset_of!(ExporterV1, get_extension) == 48);
    assert!(size_of::<HealthV1>() == 16 && offset_of!(HealthV1, health) == 8);
    assert!(size_of::<ScrapeV1>() == 16 && offset_of!(ScrapeV1, scrape) == 8);
    assert!(size_of::<ContentV1>() == 16 && offset_of!(ContentV1, content) == 8);
};
