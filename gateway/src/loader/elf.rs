//! Step 3 of loading: is this file a plugin for this machine? Decided from its bytes, before any of its code runs.
//!
//! `dlopen` runs constructors, and it kills the process with SIGBUS when a segment reaches past the end of the file.
//! So whatever fails here must never get there. The check finds damage and mistakes; it is no proof against a file
//! that was crafted: such a file need only be a valid plugin. That is what owner, permissions and the `sha256` pin
//! are for.
//!
//! A plugin without a note is accepted: a C plugin made by hand, or a library whose note sections were removed,
//! is still a plugin when it exports a door, and the door checks the version too. A note that is there must be
//! sound, and what it says is believed, so that a plugin of another ABI is refused without running it.

mod image;
mod note;

use abi_stable::library::AbiHeader;
use object::elf;
use plugin_api::abi::ExporterV1;
use serde::Serialize;

use self::image::Image;
pub use self::note::Note;

/// Symbol of the Rust door.
pub(crate) const RUST_DOOR: &str = abi_stable::library::ROOT_MODULE_LOADER_NAME;
/// Symbol of the C door.
pub(crate) const C_DOOR: &str = "magicapi_exporter_v1";
/// Thread-local storage that glibc keeps free for libraries that need it at a fixed place
/// (`glibc.rtld.optional_static_tls`).
const STATIC_TLS_BYTES: u64 = 512;

/// What a plugin has to be built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPlatform {
    machine: elf::Machine,
    /// Version of the C library; `None` where it is not glibc.
    glibc: Option<GlibcVersion>,
}

impl HostPlatform {
    /// The machine that this gateway runs on.
    pub(crate) fn this() -> Self {
        let machine = if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 };
        Self { machine, glibc: glibc_of_host() }
    }
}

/// `2.36`, as it is written in `GLIBC_2.36`. Some versions have a third number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GlibcVersion(u32, u32, u32);

impl GlibcVersion {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse::<u32>);
        let (first, second) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self(first, second, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }
}

impl std::fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self(first, second, 0) => write!(f, "{first}.{second}"),
            Self(first, second, third) => write!(f, "{first}.{second}.{third}"),
        }
    }
}

/// How a plugin hands over its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// An `abi_stable` root module, made by `export_plugin!`.
    Rust,
    /// The constant `magicapi_exporter_v1`.
    C,
}

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) door: Door,
    pub(crate) note: Option<Note>,
}

/// Why a file cannot be a plugin of this gateway. Each text is the end of a sentence that begins with the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Nothing in it. The build or the copy failed.
    #[error("the file is empty; build or copy the plugin again")]
    Empty,
    /// Something else than a library.
    #[error("it is {0}, not an ELF shared library; `path` must name the plugin's .so file")]
    NotElf(&'static str),
    /// Cut off within the first tables.
    #[error("truncated: {what} needs {needed} bytes, the file has {size}; copy the plugin again")]
    Truncated {
        /// Which piece does not fit.
        what: &'static str,
        /// Where the piece would end.
        needed: u64,
        /// Where the file ends.
        size: u64,
    },
    /// For a machine with another width.
    #[error("it is a {found}-bit library, this gateway is 64-bit; use a plugin build for 64 bits")]
    Class {
        /// Bits, or 0.
        found: u8,
    },
    /// For a machine with another byte order.
    #[error("it is a big-endian library, this machine is little-endian; use a plugin build for this machine")]
    Endianness,
    /// For another processor.
    #[error("built for {found}, this is {expected}; use a plugin build for {expected}")]
    Machine {
        /// The file's.
        found: String,
        /// The gateway's.
        expected: String,
    },
    /// Linked as something else than a library.
    #[error("it is {0}, not a shared library; build the plugin with `crate-type = [\"cdylib\"]`")]
    Kind(&'static str),
    /// Its tables contradict each other.
    #[error("damaged: {0}; build or copy the plugin again")]
    Damaged(&'static str),
    /// A library, but no plugin.
    #[error(
        "no exporter entry symbol: it is a shared library, but no exporter plugin; build it with `export_plugin!`"
    )]
    NoEntry,
    /// Built on a newer system.
    #[error(
        "it needs GLIBC_{needed}, this system has {found}; build the plugin on a system with glibc {found} or older"
    )]
    Glibc {
        /// Newest version that the plugin needs.
        needed: String,
        /// The host's.
        found: String,
    },
    /// Brings a search path for libraries: nobody looks at what lies there, and `$ORIGIN` means nothing in memory.
    #[error(
        "its RUNPATH `{0}` names folders of its own for the libraries it needs, which neither `sha256` nor the checks of \
         the file cover; link what it needs into it, or install the libraries where the system finds them, and take the \
         path out (`patchelf --remove-rpath`)"
    )]
    RunPath(String),
    /// Names a library by its path.
    #[error(
        "it needs the library `{0}` by its path, which neither `sha256` nor the checks of the file cover; link it into \
         the plugin, or install it where the system finds it by its name"
    )]
    NeedsPath(String),
    /// Wants more thread-local storage at a fixed place than there is.
    #[error(
        "it needs {size} bytes of static thread-local storage, a plugin can have {limit}; leave out the allocator \
         (jemalloc, for instance) that is linked into it, or build it with a dynamic TLS model"
    )]
    StaticTls {
        /// What it asks for.
        size: u64,
        /// What there is.
        limit: u64,
    },
    /// The note is not what `export_plugin!` writes.
    #[error("damaged: its MagicAPI note cannot be read ({0}); build or copy the plugin again")]
    Note(String),
    /// A panic would end the gateway.
    #[error(
        "plugin {0} was built with `panic = \"abort\"`, so its first panic would end the gateway; build it with \
         `panic = \"unwind\"`"
    )]
    PanicAborts(String),
}

/// Whether `bytes` can be loaded by `host`, and how. Never panics, whatever the bytes.
pub(crate) fn check(bytes: &[u8], host: &HostPlatform) -> Result<Elf, ElfError> {
    let image = Image::parse(bytes, host.machine)?;
    let door = door(&image)?;
    check_glibc(&image, host.glibc)?;
    check_run_path(&image)?;
    check_static_tls(&image)?;
    let note = Note::find(&image)?;
    if let Some(note) = &note
        && note.panic.as_deref() == Some("abort")
    {
        return Err(ElfError::PanicAborts(note.name.clone()));
    }
    Ok(Elf { door, note })
}

fn door(image: &Image<'_>) -> Result<Door, ElfError> {
    // A position-independent executable is a shared library too, as far as its type goes.
    let is_executable = image.dynamic(elf::DT_FLAGS_1).is_some_and(|flags| flags & elf::DF_1_PIE.0 != 0);
    if is_executable {
        return Err(ElfError::Kind("an executable"));
    }
    if image.exports_object(RUST_DOOR, size_of::<AbiHeader>())? {
        Ok(Door::Rust)
    } else if image.exports_object(C_DOOR, size_of::<ExporterV1>())? {
        Ok(Door::C)
    } else {
        Err(ElfError::NoEntry)
    }
}

fn check_glibc(image: &Image<'_>, host: Option<GlibcVersion>) -> Result<(), ElfError> {
    let Some(host) = host else { return Ok(()) };
    let needed = image.needed_versions()?;
    let newest = needed.filter_map(|name| GlibcVersion::parse(name.strip_prefix("GLIBC_")?)).max();
    match newest {
        Some(newest) if newest > host => {
            Err(ElfError::Glibc { needed: newest.to_string(), found: host.to_string() })
        }
        _ => Ok(()),
    }
}

/// What else the loader would open because of it is found by name in the folders of the system: those that its
/// administrator answers for.
fn check_run_path(image: &Image<'_>) -> Result<(), ElfError> {
    let shown = |text: &str| text.escape_debug().take(200).collect();
    for tag in [elf::DT_RPATH, elf::DT_RUNPATH] {
        let Some(offset) = image.dynamic(tag) else { continue };
        let path =
            image.text(offset).ok_or(ElfError::Damaged("its RUNPATH lies outside of the string table"))?;
        if !path.is_empty() {
            return Err(ElfError::RunPath(shown(path)));
        }
    }
    for tag in [elf::DT_NEEDED, elf::DT_AUXILIARY, elf::DT_FILTER, elf::DT_AUDIT, elf::DT_DEPAUDIT] {
        for offset in image.all_dynamic(tag) {
            let name = image.text(offset).ok_or(ElfError::Damaged(
                "the name of a library that it needs lies outside of the string table",
            ))?;
            // The loader expands `$ORIGIN` and its like in these names too.
            if name.contains(['/', '$']) {
                return Err(ElfError::NeedsPath(shown(name)));
            }
        }
    }
    Ok(())
}

fn check_static_tls(image: &Image<'_>) -> Result<(), ElfError> {
    let wants_static = image.dynamic(elf::DT_FLAGS).is_some_and(|flags| flags & elf::DF_STATIC_TLS.0 != 0);
    let size = image.thread_local_bytes();
    if wants_static && size > STATIC_TLS_BYTES {
        return Err(ElfError::StaticTls { size, limit: STATIC_TLS_BYTES });
    }
    Ok(())
}

#[cfg(target_env = "gnu")]
fn glibc_of_host() -> Option<GlibcVersion> {
    use std::ffi::{CStr, c_char};

    unsafe extern "C" {
        safe fn gnu_get_libc_version() -> *const c_char;
    }
    // SAFETY: glibc returns a static string that ends with a zero.
    let text = unsafe { CStr::from_ptr(gnu_get_libc_version()) };
    GlibcVersion::parse(text.to_str().ok()?)
}

#[cfg(not(target_env = "gnu"))]
fn glibc_of_host() -> Option<GlibcVersion> {
    None
}

#[cfg(test)]
mod tests;
