//! The logs of an exporter: one, or one for each value in the path; so many are open at once, and all together are kept
//! below a size.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use plugin_api::InitError;
use tracing::warn;

use crate::{
    append::Appended,
    config::Config,
    log::{Log, Shared},
    pattern::Pattern,
    total,
};

/// All logs.
#[derive(Debug)]
pub struct Logs {
    pattern: Pattern,
    shared: Arc<Shared>,
    open: HashMap<PathBuf, Used>,
    /// Goes up with every batch.
    clock: u64,
    /// Bytes since the files were last looked at as a whole.
    unseen: u64,
}

#[derive(Debug)]
struct Used {
    log: Log,
    /// The clock at its last batch.
    at: u64,
}

/// The files are looked at as a whole each time that so much of the whole has been written.
const LOOKS: u64 = 32;

impl Logs {
    /// Those of these settings; none is open yet.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn new(config: Config) -> Result<Self, InitError> {
        let pattern = config.pattern()?;
        let shared = Arc::new(Shared::new(config));
        Ok(Self { pattern, shared, open: HashMap::new(), clock: 0, unseen: 0 })
    }

    /// Where lines go.
    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Opens the log, where there is one; else makes the folder for those to come.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn open(&mut self, now: SystemTime) -> io::Result<()> {
        match self.pattern.single() {
            Some(path) => self.log(&path).open(now)?,
            None => {
                let root = self.pattern.root();
                fs::create_dir_all(&root)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", root.display())))?;
            }
        }
        self.keep_below_total();
        Ok(())
    }

    /// How large a file may become; 0 is no limit.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.shared.config().max_bytes.bytes()
    }

    /// Appends whole lines to the log of this path.
    pub fn append(&mut self, path: &Path, lines: &[u8], now: SystemTime) -> Appended {
        let log = self.log(path);
        let appended = log.append(lines, now);
        let was_opened = log.was_opened();
        self.unseen += appended.bytes as u64;
        if was_opened || self.unseen > self.shared.config().max_total_bytes.bytes() / LOOKS {
            self.keep_below_total();
        }
        appended
    }

    /// Forces what was written to the disk, unless the policy leaves that to the system.
    ///
    /// # Errors
    /// The first one; the others were still forced.
    pub fn sync(&self) -> io::Result<()> {
        self.open.values().map(|used| used.log.sync()).fold(Ok(()), Result::and)
    }

    /// Why lines that were taken may not be on the disk.
    #[must_use]
    pub fn sync_failure(&self) -> Option<String> {
        self.shared.sync_failure()
    }

    fn log(&mut self, path: &Path) -> &mut Log {
        self.clock += 1;
        if !self.open.contains_key(path) {
            self.make_room();
        }
        let new = || Used { log: Log::new(path.to_owned(), Arc::clone(&self.shared)), at: 0 };
        let used = self.open.entry(path.to_owned()).or_insert_with(new);
        used.at = self.clock;
        &mut used.log
    }

    /// Closes the log that was not written to for longest, where as many are open as may be.
    fn make_room(&mut self) {
        if self.open.len() < self.shared.config().max_open_files {
            return;
        }
        let oldest = self.open.iter().min_by_key(|(_, used)| used.at).map(|(path, _)| path.clone());
        if let Some(used) = oldest.and_then(|path| self.open.remove(&path))
            && let Err(error) = used.log.sync()
        {
            warn!(%error, "fsync failed: lines that were taken may be lost if the machine goes down");
        }
    }

    fn keep_below_total(&mut self) {
        self.unseen = 0;
        let max_bytes = self.shared.config().max_total_bytes.bytes();
        if max_bytes == 0 {
            return;
        }
        let open: HashSet<PathBuf> = self.open.keys().cloned().collect();
        if let Err(error) = total::keep_below(max_bytes, &self.pattern, &open) {
            warn!(%error, "not all files could be looked at or deleted, so they may have more than max_total_bytes");
        }
    }
}
