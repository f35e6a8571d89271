//! What happens beside the batches: forcing lines to the disk at intervals, and tidying rotated files.

use std::{
    fs::File,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tracing::{error, warn};

use crate::rotation::Rotated;

/// Forces a file to the disk at the latest one interval after it was marked. Asleep while nothing is written.
#[derive(Debug)]
pub struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    dirty: Option<Arc<File>>,
    failure: Option<String>,
    stop: bool,
}

impl Syncer {
    /// Starts its thread.
    #[must_use]
    pub fn start(interval: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(interval)
        });
        Self { shared, thread: Some(thread) }
    }

    /// `file` has lines that are not on the disk.
    pub fn mark(&self, file: &Arc<File>) {
        let mut state = self.shared.lock();
        if state.dirty.replace(Arc::clone(file)).is_none() {
            self.shared.changed.notify_all();
        }
    }

    /// Why the last attempt failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, interval: Duration) {
        let mut state = self.lock();
        loop {
            state = self
                .changed
                .wait_while(state, |state| state.dirty.is_none() && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            let waited = self.changed.wait_timeout_while(state, interval, |state| !state.stop);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some(file) = state.dirty.take() else {
                if state.stop {
                    return;
                }
                continue;
            };
            drop(state);
            let failure = file.sync_data().err().map(|error| error.to_string());
            if let Some(error) = &failure {
                error!(error, "fsync failed: lines that were taken may be lost if the machine goes down");
            }
            state = self.lock();
            state.failure = failure;
        }
    }
}

/// Tidies rotated files: at once where that is only deleting, on a thread of its own where it is compressing.
#[derive(Debug)]
pub struct Archiver {
    rotated: Rotated,
    keep: u32,
    compress: Option<u32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    /// `compress` is the mode of compressed files, if there are to be any.
    #[must_use]
    pub fn new(rotated: Rotated, keep: u32, compress: Option<u32>) -> Self {
        Self { rotated, keep, compress, stop: Arc::default(), thread: None }
    }

    /// Brings the rotated files in order. While an earlier compression runs nothing is done: it is made up for at the
    /// next rotation.
    pub fn tidy(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (rotated, keep, compress) = (self.rotated.clone(), self.keep, self.compress);
        let stop = Arc::clone(&self.stop);
        let tidy = move || {
            if let Err(error) = rotated.tidy(keep, compress, &stop) {
                warn!(%error, "cannot tidy the rotated files");
            }
        };
        if compress.is_some() {
            self.thread = Some(std::thread::spawn(tidy));
        } else {
            tidy();
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
