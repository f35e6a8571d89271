//! The log file: opened, locked, repaired, written to, rotated, and noticed when somebody moves it away.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tracing::{info, warn};

use crate::{
    append::{Appended, append},
    background::{Archiver, Syncer},
    config::{Config, Fsync},
    repair::{Found, repair},
    rotation::Rotated,
};

/// The log that `path` names, whichever file that is at the moment.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    shared: Arc<Shared>,
    open: Option<Open>,
    /// Half a line was left behind by a failed write.
    is_torn: bool,
    /// A failing rotation is said once, not once per batch.
    rotation_failed: bool,
    /// A file was opened, after a rotation for instance.
    was_opened: bool,
}

/// What all logs of an exporter have in common.
#[derive(Debug)]
pub struct Shared {
    config: Config,
    syncer: Option<Syncer>,
    archiver: Archiver,
}

#[derive(Debug)]
struct Open {
    file: Arc<File>,
    /// Device and inode: what the path named when it was opened.
    identity: (u64, u64),
    born: SystemTime,
}

impl Shared {
    /// What these settings say.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let syncer = match config.fsync {
            Fsync::Interval(interval) => Some(Syncer::start(interval)),
            Fsync::Never | Fsync::Batch => None,
        };
        let archiver = Archiver::new(config.keeping());
        Self { config, syncer, archiver }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Why lines that were taken may not be on the disk.
    #[must_use]
    pub fn sync_failure(&self) -> Option<String> {
        self.syncer.as_ref().and_then(Syncer::failure)
    }
}

impl Log {
    /// A log that is not open yet.
    #[must_use]
    pub fn new(path: PathBuf, shared: Arc<Shared>) -> Self {
        let (is_torn, rotation_failed, was_opened) = (false, false, false);
        Self { path, shared, open: None, is_torn, rotation_failed, was_opened }
    }

    /// Whether a file was opened since the last time that this was asked.
    pub fn was_opened(&mut self) -> bool {
        std::mem::take(&mut self.was_opened)
    }

    /// Opens the file if it is not open: creates it, locks it, repairs a torn last line.
    ///
    /// # Errors
    /// The system's, with the path; `WouldBlock` when another process holds the lock.
    pub fn open(&mut self, now: SystemTime) -> io::Result<()> {
        if self.open.is_none() {
            let path = &self.path;
            let open = Open::at(path, &self.shared.config, now)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            self.open = Some(open);
            (self.is_torn, self.was_opened) = (false, true);
            self.shared.archiver.tidy(Rotated::of(path));
        }
        Ok(())
    }

    /// Appends whole lines, after what the file needs first.
    pub fn append(&mut self, lines: &[u8], now: SystemTime) -> Appended {
        match self.prepare(lines.len() as u64, now).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((length, file)) => {
                let appended = append(&*file, length, lines);
                self.is_torn = appended.is_torn;
                self.settle(&file, length, appended)
            }
            Err(error) => Appended { bytes: 0, error: Some(error), is_torn: false },
        }
    }

    /// Forces what was written to the disk, unless the policy leaves that to the system.
    ///
    /// # Errors
    /// Those of `fdatasync(2)`.
    pub fn sync(&self) -> io::Result<()> {
        match (&self.open, self.shared.config.fsync) {
            (None, _) | (_, Fsync::Never) => Ok(()),
            (Some(open), _) => open.file.sync_data(),
        }
    }

    /// The file to write `more` bytes to.
    fn prepare(&mut self, more: u64, now: SystemTime) -> io::Result<Arc<File>> {
        if self.open.as_ref().is_some_and(|open| !open.is_in_place(&self.path)) {
            info!(path = %self.path.display(), "the file was moved or deleted; starting a new one");
            self.sync()?;
            self.open = None;
        }
        self.open(now)?;
        if self.is_torn {
            self.repair()?;
        }
        if self.is_due(more, now)? && self.rotate(now) {
            self.open(now)?;
        }
        let open = self.open.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(&open.file))
    }

    fn repair(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open {
            repair(&open.file, &self.path, self.shared.config.mode.0)?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn is_due(&self, more: u64, now: SystemTime) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(false) };
        let length = open.file.metadata()?.len();
        let (max_bytes, max_age) = (self.shared.config.max_bytes.bytes(), self.shared.config.max_age.0);
        let is_full = max_bytes > 0 && length + more > max_bytes;
        let is_old = !max_age.is_zero() && now.duration_since(open.born).is_ok_and(|age| age >= max_age);
        Ok(length > 0 && (is_full || is_old))
    }

    /// Gives the file its rotated name. Where that fails the log goes on in the same file: lines matter more.
    fn rotate(&mut self, now: SystemTime) -> bool {
        let name = Rotated::of(&self.path).name(now);
        let rotated = self.sync().and_then(|()| fs::rename(&self.path, &name));
        match rotated {
            Ok(()) => {
                self.open = None;
                self.rotation_failed = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.rotation_failed, true) {
                    warn!(%error, to = %name.display(), "cannot rotate the file; it grows on");
                }
                false
            }
        }
    }

    /// What the policy asks for after a write.
    fn settle(&self, file: &Arc<File>, length: u64, appended: Appended) -> Appended {
        match (self.shared.config.fsync, &self.shared.syncer) {
            (Fsync::Batch, _) => match file.sync_data() {
                Ok(()) => appended,
                Err(error) => {
                    // What the disk has is unknown. The lines are taken back, so that sending them again leaves no
                    // line twice; where even that fails, twice is better than never.
                    let _ = file.set_len(length);
                    Appended { bytes: 0, error: Some(error), is_torn: appended.is_torn }
                }
            },
            (_, Some(syncer)) => {
                syncer.mark(file);
                appended
            }
            _ => appended,
        }
    }
}

impl Open {
    fn at(path: &Path, config: &Config, now: SystemTime) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let text = "this is no regular file (for a terminal or a pipe there is the console exporter)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let file = open_or_create(path, config)?;
        lock(&file)?;
        let metadata = file.metadata()?;
        let open = Self {
            identity: (metadata.dev(), metadata.ino()),
            born: metadata.created().unwrap_or(now),
            file: Arc::new(file),
        };
        if !open.is_in_place(path) {
            // Somebody moved it between the opening and the lock. The next batch finds the new one.
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "the file was moved while it was opened"));
        }
        match repair(&open.file, path, config.mode.0)? {
            Found::Whole => {}
            Found::NoNewline => {
                info!(path = %path.display(), "the last line lacked its newline, which was added");
            }
            Found::Torn(bytes, torn) => {
                warn!(path = %path.display(), bytes, moved_to = %torn.display(), "the last line was torn and was moved away");
            }
        }
        Ok(open)
    }

    /// Whether the path still names this file.
    fn is_in_place(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }
}

/// A file that is there keeps its permissions; a new one gets those of the settings, whatever the umask.
fn open_or_create(path: &Path, config: &Config) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(config.mode.0);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(config.mode.0))?;
            if config.fsync != Fsync::Never {
                sync_directory(path)?;
            }
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.create(true).open(path),
        Err(error) => Err(error),
    }
}

/// A new file survives a power cut only when its directory entry does.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Two writers would repair and cut each other's lines. A file system without locks is trusted.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "another gateway or plugin is writing to this file; give each its own path",
        )),
    }
}
