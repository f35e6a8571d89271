//! Why a plugin was not loaded. Every variant is one refusal, and a sentence: which file, what was expected, what was
//! found, what to do.

use std::{fmt, io, path::PathBuf, time::Duration};

use plugin_api::{Content, abi::ABI_VERSION};

use super::{calls::CallStatus, elf::ElfError};

/// Why a plugin was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The path leads nowhere, or may not be followed.
    #[error("{}: cannot open it: {source}; check `path` of the plugin and the permissions of its folders", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("{}: it is {found}, not a regular file; `path` must name the plugin's .so file", .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Somebody else's file.
    #[error(
        "{}: it belongs to user {found}, not to root or to user {expected} that the gateway runs as; \
         `chown` it, or allow it with `--allow-insecure-plugins`",
        .path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// The gateway's user.
        expected: u32,
        /// The file's owner.
        found: u32,
    },
    /// Somebody else's folder on the way to it, or a link that somebody else has made.
    #[error(
        "{}: {what} {} belongs to user {found}, not to root or to user {expected} that the gateway runs as, so its owner \
         can put another file there; move the plugin elsewhere, or allow it with `--allow-insecure-plugins`",
        .path.display(),
        .place.display()
    )]
    PlaceOwner {
        /// The file.
        path: PathBuf,
        /// `the folder` or `the symbolic link`.
        what: &'static str,
        /// Where it is.
        place: PathBuf,
        /// The gateway's user.
        expected: u32,
        /// Its owner.
        found: u32,
    },
    /// A folder on the way to it in which others can rename files.
    #[error(
        "{}: others can write to the folder {} (mode {mode:04o}) and put another file there; `chmod go-w` it, move the \
         plugin elsewhere, or allow it with `--allow-insecure-plugins`",
        .path.display(),
        .place.display()
    )]
    OpenFolder {
        /// The file.
        path: PathBuf,
        /// The folder.
        place: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Somebody else could change it.
    #[error(
        "{}: others can write to it (mode {mode:04o}); `chmod go-w` it, or allow it with `--allow-insecure-plugins`",
        .path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The administrator said that nothing on that file system is to be run.
    #[error("{}: it is on a file system mounted with `noexec`; install it elsewhere", .path.display())]
    NoExec {
        /// The file.
        path: PathBuf,
    },
    /// No plugin is that large.
    #[error("{}: it has {size} bytes, a plugin may have {limit}; strip it of debug information", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// The disk failed.
    #[error("{}: cannot read it: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was being written to.
    #[error("{}: it changed while it was read; install plugins by renaming a complete file", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The pin is not a hash.
    #[error("{}: `sha256` is `{pin}`, not 64 hexadecimal digits; take them from `sha256sum`", .path.display())]
    BadPin {
        /// The file.
        path: PathBuf,
        /// What the configuration says.
        pin: String,
    },
    /// Another file than the one that was pinned.
    #[error(
        "{}: its SHA-256 is {found}, the configuration expects {expected}; if the plugin was replaced on purpose, \
         change `sha256`",
        .path.display()
    )]
    Pin {
        /// The file.
        path: PathBuf,
        /// The configuration's.
        expected: String,
        /// The file's.
        found: String,
    },
    /// Not a library for this machine, damaged, or no plugin.
    #[error("{}: {source}", .path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// It speaks another version of the contract.
    #[error("{}: {}", .path.display(), OtherAbi(plugin, *found))]
    AbiVersion {
        /// The file.
        path: PathBuf,
        /// The plugin's name, as far as it is known.
        plugin: String,
        /// Its ABI.
        found: u32,
    },
    /// It comes through the door that is not open yet.
    #[error(
        "{}: it exports `magicapi_exporter_v1`, and this gateway does not open plugins in C yet; \
         use a gateway that does",
        .path.display()
    )]
    CDoor {
        /// The file.
        path: PathBuf,
    },
    /// A gateway that cannot load anything.
    #[error(
        "{}: this gateway is statically linked and cannot load plugins; use a build for glibc",
        .path.display()
    )]
    StaticGateway {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no memory file.
    #[error("{}: cannot make a copy in memory ({step}): {source}", .path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The process in which it was tried did not survive it.
    #[error(
        "{}: tried in a process of its own, it was the end of that: the process {end} while {stage}{}; build or copy \
         the plugin again, or tell its author",
        .path.display(),
        LastLine(words)
    )]
    Trial {
        /// The file.
        path: PathBuf,
        /// Where it was.
        stage: Stage,
        /// How the process ended.
        end: String,
        /// The last that it wrote to its standard error.
        words: String,
    },
    /// The dynamic loader refused.
    #[error("{}: the system's loader refused it: {message}", .path.display())]
    Dlopen {
        /// The file.
        path: PathBuf,
        /// The loader's own text.
        message: String,
    },
    /// Its door was made by another generation of `abi_stable`.
    #[error(
        "{}: its entry symbol is not of the kind that this gateway reads ({message}); rebuild it with plugin-api 1.x",
        .path.display()
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// What differs.
        message: String,
    },
    /// The types do not agree, although the version does.
    #[error(
        "{}: its function table differs from that of ABI {ABI_VERSION} (the debug log says where); rebuild it with \
         an unchanged plugin-api 1.x",
        .path.display()
    )]
    Layout {
        /// The file.
        path: PathBuf,
    },
    /// The plugin failed while it handed over its table.
    #[error("{}: its entry function failed: {message}", .path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The table is not what it says it is.
    #[error("{}: its function table has {found} bytes, ABI {ABI_VERSION} has {expected}; rebuild it", .path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Size of the frozen table.
        expected: u32,
        /// Size by its own account.
        found: u32,
    },
    /// It could not say what it is.
    #[error("{}: `describe` failed ({status}): {message}; tell the plugin's author", .path.display())]
    Describe {
        /// The file.
        path: PathBuf,
        /// What it returned.
        status: CallStatus,
        /// What it said.
        message: String,
    },
    /// It said what it is, and nobody understands it.
    #[error("{}: its descriptor is wrong: {message}; tell the plugin's author", .path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The gateway's own check of the settings failed.
    #[error("{}: {message}", .path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        message: String,
    },
    /// It could not say how much of a record it needs.
    #[error("{}: `content` failed ({status}): {message}; tell the plugin's author", .path.display())]
    ContentNeed {
        /// The file.
        path: PathBuf,
        /// What it returned.
        status: CallStatus,
        /// What it said.
        message: String,
    },
    /// The operator keeps from the plugin what its settings need.
    #[error(
        "{}: {reason}, for which it needs `content = \"{}\"`, and is allowed \"{}\"",
        .path.display(),
        .needed.as_str(),
        .allowed.as_str()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The entry's `content`.
        allowed: Content,
        /// The least that will do.
        needed: Content,
        /// Which setting it is.
        reason: String,
    },
    /// The plugin does not accept its settings.
    #[error("{}: the plugin refuses its settings: {message}; change `[plugin.config]`", .path.display())]
    InvalidConfig {
        /// The file.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The instance could not be made.
    #[error("{}: the plugin could not start ({status}): {message}{}", .path.display(), blame(*status))]
    Create {
        /// The file.
        path: PathBuf,
        /// What it returned.
        status: CallStatus,
        /// What it said.
        message: String,
    },
    /// It never came back.
    #[error("{}: {}", .path.display(), Overdue(*stage, *after, *on_trial, held_by.as_ref()))]
    TimedOut {
        /// The file.
        path: PathBuf,
        /// Where it was.
        stage: Stage,
        /// How long it was given.
        after: Duration,
        /// It was tried in a process of its own, and only that had to be ended.
        on_trial: bool,
        /// The file whose constructor keeps the system's loader to itself.
        held_by: Option<PathBuf>,
    },
    /// The system gave no thread.
    #[error("{}: cannot start a thread for it: {source}", .path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A mistake of the gateway's.
    #[error("{}: the gateway failed while it was {stage}; this is a bug of the gateway's, please report it", .path.display())]
    Internal {
        /// The file.
        path: PathBuf,
        /// Where it was.
        stage: Stage,
    },
}

impl LoadError {
    /// Whether a constructor that never returned keeps the system's loader locked: one that returned when it was tried.
    ///
    /// Such a process is past saving, whatever `required` says: no library can be loaded any more (not even by the C
    /// library's name service), new threads block where they first need a destructor for a thread-local, and even
    /// `exit` blocks, in the destructors. Say what happened, then [`exit_at_once`](super::exit_at_once).
    #[must_use]
    pub fn holds_the_loader(&self) -> bool {
        matches!(self, Self::TimedOut { stage: Stage::Open, on_trial: false, .. })
    }
}

/// Steps of loading a plugin, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Reading and checking the file.
    Read,
    /// In `dlopen`, where its constructors run.
    Open,
    /// Taking over the table.
    Enter,
    /// In `describe`.
    Describe,
    /// Checking the settings.
    Settings,
    /// In `create`.
    Create,
    /// At the process's end, where its destructors run. Only tried.
    End,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading the file",
            Self::Open => "opening the library",
            Self::Enter => "taking over its function table",
            Self::Describe => "reading its descriptor",
            Self::Settings => "checking its settings",
            Self::Create => "creating its instance",
            Self::End => "running its destructors",
        })
    }
}

/// What to do about a plugin that failed while it started. What failed by its own account says so itself.
fn blame(status: CallStatus) -> &'static str {
    if status == CallStatus::Panic { "; tell the plugin's author" } else { "" }
}

/// The sentence for another ABI.
struct OtherAbi<'a>(&'a str, u32);

impl fmt::Display for OtherAbi<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(plugin, found) = self;
        write!(f, "plugin {plugin} was built for ABI {found}, this gateway speaks ABI {ABI_VERSION}; ")?;
        write!(f, "use a plugin build for {ABI_VERSION}.x")?;
        if *found > ABI_VERSION { write!(f, ", or gateway \u{2265} {found}.0") } else { Ok(()) }
    }
}

/// What a process wrote last, in brackets.
struct LastLine<'a>(&'a str);

impl fmt::Display for LastLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (it wrote: {})", self.0) }
    }
}

/// The sentence for a plugin that never came back.
struct Overdue<'a>(Stage, Duration, bool, Option<&'a PathBuf>);

impl fmt::Display for Overdue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(stage, after, on_trial, held_by) = self;
        if let Some(other) = held_by {
            return write!(
                f,
                "not loaded within {after:?}: a constructor of {} never returned and keeps the system's loader \
                 locked; take that plugin out and restart the gateway",
                other.display()
            );
        }
        match stage {
            Stage::Open => write!(f, "a constructor of the library did not return within {after:?}")?,
            Stage::Describe => write!(f, "`describe` did not return within {after:?}")?,
            Stage::Create => write!(f, "`create` did not return within {after:?}")?,
            other => write!(f, "{other} took longer than {after:?}")?,
        }
        f.write_str(match stage {
            Stage::Open if !on_trial => {
                "; nothing can be loaded beside it: take the plugin out, and tell its author"
            }
            Stage::Create => {
                "; a plugin must not wait for its backend there, tell its author, or raise `create_timeout`"
            }
            _ => "; tell the plugin's author",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &LoadError) -> String {
        error.to_string()
    }

    #[test]
    fn another_abi_is_told_in_one_sentence_with_its_cure() {
        let error = |found| LoadError::AbiVersion { path: "/p/x.so".into(), plugin: "tally".into(), found };
        assert_eq!(
            text(&error(2)),
            "/p/x.so: plugin tally was built for ABI 2, this gateway speaks ABI 1; use a plugin build for 1.x, or \
             gateway ≥ 2.0"
        );
        assert!(text(&error(0)).ends_with("use a plugin build for 1.x"), "no gateway is older than ABI 1");
    }

    #[test]
    fn a_plugin_that_hangs_is_told_apart_from_one_that_waits_for_it() {
        let error = |stage, held_by| LoadError::TimedOut {
            path: "/p/x.so".into(),
            stage,
            after: Duration::from_secs(30),
            on_trial: false,
            held_by,
        };
        let own = error(Stage::Open, None);
        assert!(text(&own).contains("a constructor of the library did not return within 30s"), "{own}");
        assert!(own.holds_the_loader());
        assert!(!error(Stage::Create, None).holds_the_loader());
        let waiting = error(Stage::Open, Some("/p/other.so".into()));
        assert!(text(&waiting).contains("/p/other.so never returned"), "{waiting}");
    }

    #[test]
    fn what_does_not_survive_its_trial_is_told_with_its_last_words() {
        let error = |words: &str| LoadError::Trial {
            path: "/p/x.so".into(),
            stage: Stage::Open,
            end: "was ended by SIGSEGV".to_owned(),
            words: words.to_owned(),
        };
        assert_eq!(
            text(&error("")),
            "/p/x.so: tried in a process of its own, it was the end of that: the process was ended by SIGSEGV while \
             opening the library; build or copy the plugin again, or tell its author"
        );
        assert!(text(&error("no!")).contains("opening the library (it wrote: no!); "));
    }
}
