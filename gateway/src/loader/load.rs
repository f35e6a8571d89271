//! The steps of loading, in their order, and the thread and deadline that they run under.

use std::{
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use plugin_api::{Description, abi::ABI_VERSION};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    calls::Library,
    door,
    elf::{self, Door, Elf, ElfError, HostPlatform, Note},
    error::{LoadError, Stage},
    file::{self, FileRequest, PluginFile},
    last_words::{self, Origin},
    memfile, trial,
};

/// What is known of a plugin's file without running it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileFacts {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// How it hands over its table.
    pub door: Door,
    /// Its note, if it has one.
    pub note: Option<Note>,
}

/// Looks at a file as closely as possible without running any of its code.
///
/// # Errors
/// What is wrong with it.
pub fn examine(request: &FileRequest) -> Result<FileFacts, LoadError> {
    check(request).map(|(_, facts)| facts)
}

/// Loads a plugin far enough to ask what it is, on a thread of its own. It stays mapped.
///
/// # Errors
/// What is wrong with it, or that it did not answer within `timeout`.
pub async fn describe(
    request: FileRequest,
    timeout: Duration,
) -> Result<(FileFacts, Description), LoadError> {
    let path = request.path.clone();
    let name = file_name(&path);
    let work = move |progress: &Progress| {
        let (library, facts) = open(&request, &name, progress)?;
        progress.enter(Stage::Describe);
        Ok(((facts, library.describe()?), || ()))
    };
    on_thread("describe", path, timeout, work).await
}

/// Steps 1 to 5, up to the table. The caller is the thread that the plugin will live on.
pub(super) fn open(
    request: &FileRequest,
    name: &str,
    progress: &Progress,
) -> Result<(Library, FileFacts), LoadError> {
    let (file, facts) = check(request)?;
    if facts.door == Door::C {
        return Err(LoadError::CDoor { path: request.path.clone() });
    }
    let plugin = facts.note.as_ref().map_or_else(|| file_name(&request.path), |note| note.name.clone());
    progress.enter(Stage::Open);
    let shown = format!("{name}:{}", file_name(&request.path));
    let copy = memfile::copy(&file.bytes, &shown, &request.path)?;
    drop(file);
    trial::run(&copy, &facts.sha256, &request.path, progress)?;
    let (origin, inode) = (Origin::leak(name, &request.path), copy.inode());
    progress.enter(Stage::Open);
    let opened = last_words::during(origin, "a constructor", || memfile::open(copy, &shown, &request.path))?;
    origin.locate(inode);
    progress.enter(Stage::Enter);
    let enter = || door::enter(opened, &plugin, &request.path);
    let table = last_words::during(origin, "its entry function", enter)?;
    Ok((Library::new(table, request.path.clone(), origin), facts))
}

/// Steps 1 to 3.
fn check(request: &FileRequest) -> Result<(PluginFile, FileFacts), LoadError> {
    let path = &request.path;
    let file = file::read(request)?;
    let elf = inspect(&file.bytes).map_err(|source| LoadError::Elf { path: path.clone(), source })?;
    if let Some(note) = elf.note.as_ref().filter(|note| note.abi_version != ABI_VERSION) {
        let (plugin, found) = (note.name.clone(), note.abi_version);
        return Err(LoadError::AbiVersion { path: path.clone(), plugin, found });
    }
    let facts = FileFacts {
        path: path.clone(),
        size: file.bytes.len() as u64,
        sha256: file.sha256.clone(),
        door: elf.door,
        note: elf.note,
    };
    Ok((file, facts))
}

/// Elsewhere than on Linux libraries have other formats, and nothing is known of them before they are loaded.
fn inspect(bytes: &[u8]) -> Result<Elf, ElfError> {
    if cfg!(target_os = "linux") {
        elf::check(bytes, &HostPlatform::this())
    } else {
        Ok(Elf { door: Door::Rust, note: None })
    }
}

/// A thread's name cannot hold a zero.
pub(super) fn thread_name(name: &str) -> String {
    name.replace('\0', "")
}

/// Which step a thread is at, for whoever waits for it, and how long it may take.
#[derive(Debug)]
pub(super) struct Progress {
    stage: AtomicU8,
    /// The step is taken in another process.
    on_trial: AtomicBool,
    begun: Instant,
    timeout: Duration,
}

impl Progress {
    fn new(timeout: Duration) -> Self {
        let (stage, on_trial) = (AtomicU8::new(Stage::Read as u8), AtomicBool::new(false));
        Self { stage, on_trial, begun: Instant::now(), timeout }
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn begin_trial(&self) {
        self.on_trial.store(true, Ordering::Relaxed);
    }

    pub(super) fn end_trial(&self) {
        self.on_trial.store(false, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> Stage {
        use Stage::{Create, Describe, End, Enter, Open, Read, Settings};
        const STAGES: [Stage; 7] = [Read, Open, Enter, Describe, Settings, Create, End];
        STAGES[usize::from(self.stage.load(Ordering::Relaxed)).min(STAGES.len() - 1)]
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.timeout
    }

    /// What is said then.
    pub(super) fn timed_out(&self, path: PathBuf) -> LoadError {
        let held_by = memfile::opening().filter(|other| *other != path);
        let on_trial = self.on_trial.load(Ordering::Relaxed);
        LoadError::TimedOut { path, stage: self.stage(), after: self.timeout, on_trial, held_by }
    }
}

/// Runs `work` on a thread of its own and waits for its result, for as long as `timeout`. Then the thread goes on with
/// what `work` returned beside the result, which is where an instance lives.
///
/// A thread that takes longer is left to itself. Should it come back after all, its result is dropped, and so is
/// whatever hangs on it.
pub(super) async fn on_thread<T: Send + 'static, Next: FnOnce()>(
    name: &str,
    path: PathBuf,
    timeout: Duration,
    work: impl FnOnce(&Progress) -> Result<(T, Next), LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let progress = Arc::new(Progress::new(timeout));
    let (sender, receiver) = oneshot::channel();
    let body = {
        let (progress, path) = (Arc::clone(&progress), path.clone());
        move || match work(&progress) {
            Ok((made, next)) => {
                if sender.send(Ok(made)).is_err() {
                    tracing::warn!(path = %path.display(), "the plugin is there after its time was up; it is ended");
                }
                next();
            }
            // Nobody may wait any more.
            Err(error) => drop(sender.send(Err(error))),
        }
    };
    let body = move || {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(body)) {
            tracing::error!("a plugin's thread ended by a bug of the gateway's; please report it");
            std::mem::forget(payload);
        }
    };
    thread::Builder::new()
        .name(thread_name(name))
        .spawn(body)
        .map_err(|source| LoadError::Thread { path: path.clone(), source })?;
    match tokio::time::timeout(timeout, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(LoadError::Internal { path, stage: progress.stage() }),
        Err(_) => Err(progress.timed_out(path)),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "plugin".to_owned(), |name| name.to_string_lossy().into_owned())
}
