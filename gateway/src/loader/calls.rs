//! The calls into a plugin, made safe: a [`Library`] describes itself and makes an [`Instance`]; the rest of the
//! gateway sees Rust values on both sides.
//!
//! Nothing here knows threads or deadlines: a call takes as long as the plugin takes. `thread.rs` gives every
//! instance a thread of its own, and gives up on calls that never return.

mod host;
mod under_way;

use std::{ffi::c_void, fmt, path::PathBuf, ptr, time::Duration};

use plugin_api::{
    ContentNeed, Description,
    abi::{
        self, CONTENT_V1, ContentV1, ExporterV1, HEALTH_V1, HealthV1, SCRAPE_V1, ScrapeV1, Slice, Status,
        status, verdict,
    },
};

pub use self::host::HostInfo;
use self::{
    host::HostSide,
    under_way::{Said, UnderWay},
};
use super::{
    error::LoadError,
    last_words::{Origin, during},
    plain_text::plain_text,
};
use crate::mask;

/// Longest message that is kept of a failed call.
const MAX_MESSAGE: usize = 4 * 1024;
/// Longest descriptor, with its JSON Schema.
const MAX_DESCRIPTION: usize = 4 * 1024 * 1024;
/// Largest scrape.
const MAX_SCRAPE: usize = 32 * 1024 * 1024;

/// Records that a plugin is to deliver. It is read while the call runs, from any thread.
pub trait BatchSource: Send + Sync {
    /// Number of records.
    fn len(&self) -> usize;

    /// Whether there is no record.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one part (see [`plugin_api::abi::part`]) of record `index`, which is less than [`len`](Self::len).
    /// Empty for a part that is absent or unknown. The same bytes each time, for as long as the batch lives.
    fn part(&self, index: usize, part: u32) -> &[u8];
}

/// What a call returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallStatus {
    /// Done.
    Ok,
    /// Not now.
    Retry,
    /// Never as it is.
    Reject,
    /// The batch is too large for the backend.
    TooLarge,
    /// The backend refuses the credentials.
    Unauthorized,
    /// See the verdicts.
    PerRecord,
    /// The settings cannot work.
    InvalidConfig,
    /// The plugin does not offer this.
    Unsupported,
    /// The deadline passed inside the plugin.
    Timeout,
    /// The plugin panicked, and caught it.
    Panic,
    /// A fault of the plugin's own, or a status that does not exist.
    Fault,
}

impl CallStatus {
    /// Its number in the ABI.
    pub(crate) fn code(self) -> Status {
        match self {
            Self::Ok => status::OK,
            Self::Retry => status::RETRY,
            Self::Reject => status::REJECT,
            Self::TooLarge => status::TOO_LARGE,
            Self::Unauthorized => status::UNAUTHORIZED,
            Self::PerRecord => status::PER_RECORD,
            Self::InvalidConfig => status::INVALID_CONFIG,
            Self::Unsupported => status::UNSUPPORTED,
            Self::Timeout => status::TIMEOUT,
            Self::Panic => status::PANIC,
            Self::Fault => status::FAULT,
        }
    }

    /// `None` for a number that is no status.
    fn known(status: Status) -> Option<Self> {
        Some(match status {
            status::OK => Self::Ok,
            status::RETRY => Self::Retry,
            status::REJECT => Self::Reject,
            status::TOO_LARGE => Self::TooLarge,
            status::UNAUTHORIZED => Self::Unauthorized,
            status::PER_RECORD => Self::PerRecord,
            status::INVALID_CONFIG => Self::InvalidConfig,
            status::UNSUPPORTED => Self::Unsupported,
            status::TIMEOUT => Self::Timeout,
            status::PANIC => Self::Panic,
            status::FAULT => Self::Fault,
            _ => return None,
        })
    }

    /// The status as it stands in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::PerRecord => "per_record",
            Self::InvalidConfig => "invalid_config",
            Self::Unsupported => "unsupported",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Fault => "fault",
        }
    }
}

impl fmt::Display for CallStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the plugin said about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordVerdict {
    /// The backend has it.
    Delivered,
    /// It is to be sent again.
    Retry {
        /// Why; may be empty.
        reason: String,
    },
    /// The backend will never take it.
    Rejected {
        /// Why; may be empty.
        reason: String,
    },
}

impl RecordVerdict {
    /// Its number in the ABI.
    pub(crate) fn code(&self) -> abi::Verdict {
        match self {
            Self::Delivered => verdict::DELIVERED,
            Self::Retry { .. } => verdict::RETRY,
            Self::Rejected { .. } => verdict::REJECTED,
        }
    }
}

/// What became of one call of `export`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOutcome {
    /// What the call returned.
    pub status: CallStatus,
    /// What it said: bounded, one line, without control characters. Empty after `Ok`.
    pub message: String,
    /// Verdicts by index: empty when the plugin gave none, else one entry for each record. A record without one
    /// shares the fate of the call; after [`CallStatus::PerRecord`] that is a fault of the plugin's.
    pub verdicts: Vec<Option<RecordVerdict>>,
    /// Verdicts on records that are not in the batch, and verdicts that do not exist.
    pub faults: u32,
    /// The least time to wait before the next attempt, as the backend asks for it.
    pub retry_after: Option<Duration>,
}

/// What became of a call without a result of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReport {
    /// What the call returned.
    pub status: CallStatus,
    /// What it said: bounded, one line, without control characters. Empty after `Ok`.
    pub message: String,
}

impl CallReport {
    /// Unknown statuses are faults, and so is a status that the call cannot have.
    fn new(raw: Status, said: &Said, impossible: &[CallStatus]) -> Self {
        match CallStatus::known(raw) {
            Some(CallStatus::Ok) => Self { status: CallStatus::Ok, message: String::new() },
            Some(status) if !impossible.contains(&status) => {
                let mut message = plain_text(&said.text, MAX_MESSAGE);
                if said.cut {
                    message.push('…');
                }
                Self { status, message }
            }
            _ => {
                let message = format!("it returned status {raw}, which this call does not have");
                Self { status: CallStatus::Fault, message }
            }
        }
    }
}

/// The function table of a loaded library. The library stays mapped for ever, so the table is always valid.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    table: ExporterV1,
    path: PathBuf,
    origin: &'static Origin,
}

impl Library {
    /// `table` came out of a door of a library that is never closed.
    pub(super) fn new(table: ExporterV1, path: PathBuf, origin: &'static Origin) -> Self {
        Self { table, path, origin }
    }

    /// What the plugin says about itself.
    pub(crate) fn describe(&self) -> Result<Description, LoadError> {
        let (raw, said) = UnderWay::run(None, MAX_DESCRIPTION, |call| {
            during(self.origin, "`describe`", || (self.table.describe)(call.sink))
        });
        let report = CallReport::new(raw, &said, &[CallStatus::InvalidConfig]);
        if report.status != CallStatus::Ok {
            let CallReport { status, message } = report;
            return Err(LoadError::Describe { path: self.path.clone(), status, message });
        }
        read_description(&said).map_err(|message| LoadError::Description { path: self.path.clone(), message })
    }

    /// How much of a record these settings need; `None` for a plugin that leaves it to its descriptor, or whose answer is
    /// one of a later release.
    pub(crate) fn content(&self, config: &serde_json::Value) -> Result<Option<ContentNeed>, LoadError> {
        // SAFETY: the ABI says that this name stands for that table.
        let extension = during(self.origin, "`get_extension`", || unsafe {
            extension::<ContentV1>(&self.table, CONTENT_V1)
        });
        let Some(extension) = extension else { return Ok(None) };
        let config = config.to_string();
        let (raw, said) = UnderWay::run(None, MAX_MESSAGE, |call| {
            during(self.origin, "`content`", || (extension.content)(Slice::of(config.as_bytes()), call.sink))
        });
        let path = self.path.clone();
        match CallReport::new(raw, &said, &[]) {
            CallReport { status: CallStatus::Ok, .. } => {}
            CallReport { status: CallStatus::InvalidConfig, message } => {
                return Err(LoadError::InvalidConfig { path, message });
            }
            CallReport { status, message } => return Err(LoadError::ContentNeed { path, status, message }),
        }
        Ok(read_need(&said))
    }

    /// Makes an instance. `host` is told to the plugin; `name` is that of the `[[plugin]]` entry.
    pub(crate) fn create(
        &self,
        name: &str,
        config: &serde_json::Value,
        host: &HostInfo,
    ) -> Result<Instance, LoadError> {
        let config = config.to_string();
        let host = HostSide::leak(name, host);
        // Leaked, since nothing keeps a plugin from writing to it later.
        let place: *mut abi::Instance = Box::into_raw(Box::new(ptr::null_mut()));
        let (raw, said) = UnderWay::run(None, MAX_MESSAGE, |call| {
            let create = || (self.table.create)(Slice::of(config.as_bytes()), host.table(), call.sink, place);
            during(self.origin, "`create`", create)
        });
        let path = || self.path.clone();
        match CallReport::new(raw, &said, &[]) {
            CallReport { status: CallStatus::Ok, .. } => {}
            CallReport { status: CallStatus::InvalidConfig, message } => {
                return Err(LoadError::InvalidConfig { path: path(), message });
            }
            CallReport { status, message } => {
                return Err(LoadError::Create { path: path(), status, message });
            }
        }
        // SAFETY: `place` is a leaked box, and `create` has returned.
        let instance = unsafe { place.read_volatile() };
        if instance.is_null() {
            let message = "it said that all is well and stored no instance".to_owned();
            return Err(LoadError::Create { path: path(), status: CallStatus::Fault, message });
        }
        // SAFETY: the ABI says that each name stands for that table.
        let (health, scrape) = during(self.origin, "`get_extension`", || unsafe {
            (extension::<HealthV1>(&self.table, HEALTH_V1), extension::<ScrapeV1>(&self.table, SCRAPE_V1))
        });
        Ok(Instance { table: self.table, raw: instance, health, scrape, host, origin: self.origin })
    }
}

/// Whether the backend can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It cannot, with the reason.
    Unhealthy(String),
    /// The plugin cannot tell.
    Unknown,
}

/// An instance, from `create` to `destroy`.
pub(crate) struct Instance {
    table: ExporterV1,
    raw: *mut c_void,
    health: Option<HealthV1>,
    scrape: Option<ScrapeV1>,
    host: &'static HostSide,
    origin: &'static Origin,
}

// SAFETY: the ABI lets the functions be called from the threads that the gateway gave to the instance, and `raw` is
// passed to nothing else.
unsafe impl Send for Instance {}
// SAFETY: `health` and `scrape` are called from a thread of their own beside an `export`, as the ABI lets them be;
// `export` is called from several threads at once only for plugins that say `concurrent`: `thread.rs` sees to that.
unsafe impl Sync for Instance {}

impl Instance {
    /// Delivers a batch. Allocates nothing for a record without a verdict.
    pub(crate) fn export(&self, batch: &dyn BatchSource, attempt: u32, deadline: Duration) -> ExportOutcome {
        let (raw, said) = UnderWay::run(Some(batch), MAX_MESSAGE, |call| {
            let batch = call.batch(attempt, milliseconds(deadline));
            during(self.origin, "`export`", || (self.table.export)(self.raw, batch, call.sink))
        });
        let CallReport { status, message } = CallReport::new(raw, &said, &[CallStatus::InvalidConfig]);
        ExportOutcome {
            status,
            message,
            verdicts: said.verdicts.given,
            faults: said.verdicts.faults,
            retry_after: said.verdicts.retry_after,
        }
    }

    pub(crate) fn flush(&self, deadline: Duration) -> CallReport {
        let (raw, said) = UnderWay::run(None, MAX_MESSAGE, |call| {
            during(self.origin, "`flush`", || (self.table.flush)(self.raw, milliseconds(deadline), call.sink))
        });
        CallReport::new(raw, &said, &[CallStatus::InvalidConfig])
    }

    pub(crate) fn health(&self, deadline: Duration) -> Result<Health, CallReport> {
        let Some(extension) = self.health else { return Ok(Health::Unknown) };
        let (raw, said) = UnderWay::run(None, MAX_MESSAGE, |call| {
            during(self.origin, "`health`", || {
                (extension.health)(self.raw, milliseconds(deadline), call.sink)
            })
        });
        match CallReport::new(raw, &said, &[CallStatus::InvalidConfig]) {
            CallReport { status: CallStatus::Ok, .. } => Ok(Health::Healthy),
            CallReport { status: CallStatus::Retry | CallStatus::Timeout, message } => {
                Ok(Health::Unhealthy(message))
            }
            CallReport { status: CallStatus::Unsupported, .. } => Ok(Health::Unknown),
            report => Err(report),
        }
    }

    /// `None` when the plugin has no metrics in this format.
    pub(crate) fn scrape(&self, format: u32) -> Result<Option<Vec<u8>>, CallReport> {
        let Some(extension) = self.scrape else { return Ok(None) };
        let (raw, said) = UnderWay::run(None, MAX_SCRAPE, |call| {
            during(self.origin, "`scrape`", || (extension.scrape)(self.raw, format, call.sink))
        });
        match CallReport::new(raw, &said, &[CallStatus::InvalidConfig]) {
            CallReport { status: CallStatus::Unsupported, .. } => Ok(None),
            CallReport { status: CallStatus::Ok, .. } if said.cut => {
                let message = format!("its metrics are larger than {MAX_SCRAPE} bytes");
                Err(CallReport { status: CallStatus::Fault, message })
            }
            CallReport { status: CallStatus::Ok, .. } => {
                Ok(Some(mask::known().bytes(&said.text).into_owned()))
            }
            report => Err(report),
        }
    }

    /// Ends the instance. No other call is under way.
    pub(crate) fn destroy(self) -> CallReport {
        let (raw, said) = UnderWay::run(None, MAX_MESSAGE, |call| {
            during(self.origin, "`destroy`", || (self.table.destroy)(self.raw, call.sink))
        });
        self.host.finish();
        CallReport::new(raw, &said, &[CallStatus::InvalidConfig])
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("host", &self.host).finish_non_exhaustive()
    }
}

fn read_description(said: &Said) -> Result<Description, String> {
    if said.cut {
        return Err(format!("it is longer than {MAX_DESCRIPTION} bytes"));
    }
    let mut description: Description =
        serde_json::from_slice(&said.text).map_err(|error| plain_text(error.to_string().as_bytes(), 500))?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if description.name.is_empty() || !description.name.chars().all(is_name) {
        return Err("its `name` is not of lower-case letters, digits, `-` and `_`".to_owned());
    }
    if description.batch.max_records == 0 {
        return Err("its `batch.max_records` is 0".to_owned());
    }
    let Description { version, author, description: about, license, api_version, .. } = &mut description;
    for (text, longest) in [(version, 100), (author, 500), (about, 1000), (license, 200), (api_version, 100)]
    {
        *text = plain_text(text.as_bytes(), longest);
    }
    Ok(description)
}

fn read_need(said: &Said) -> Option<ContentNeed> {
    let read = serde_json::from_slice::<ContentNeed>(&said.text);
    let mut need = read.inspect_err(|error| {
        tracing::warn!("what the plugin needs of a record cannot be read, its descriptor holds: {error}");
    });
    if let Ok(ContentNeed { required: Some(required), .. }) = &mut need {
        required.reason = plain_text(required.reason.as_bytes(), 500);
    }
    need.ok()
}

/// The plugin's extension `name`, if it has one.
///
/// # Safety
/// `T` is the table that `name` stands for: `repr(C)`, and its first field is its size as a `u32`.
unsafe fn extension<T: Copy>(table: &ExporterV1, name: &str) -> Option<T> {
    let found: *const T = (table.get_extension)(Slice::of(name.as_bytes())).cast();
    if found.is_null() || !found.is_aligned() {
        return None;
    }
    // SAFETY: a table is static and begins with its size, as the ABI and the caller promise.
    let size = unsafe { found.cast::<u32>().read() };
    if (size as usize) < size_of::<T>() {
        tracing::warn!("the plugin's extension {name} is smaller than it must be, and is not used");
        return None;
    }
    // SAFETY: as above; it is large enough.
    Some(unsafe { found.read() })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests;
