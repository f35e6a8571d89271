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

use crate::rotation::{Keeping, Rotated};

/// Forces files to the disk at the latest one interval after the first was marked. Asleep while nothing is written.
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
    dirty: Vec<Arc<File>>,
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
        if !state.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, file)) {
            state.dirty.push(Arc::clone(file));
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
                .wait_while(state, |state| state.dirty.is_empty() && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            let waited = self.changed.wait_timeout_while(state, interval, |state| !state.stop);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let files = std::mem::take(&mut state.dirty);
            if files.is_empty() && state.stop {
                return;
            }
            drop(state);
            // Each is forced, also after one that failed.
            let failure = files.iter().fold(None, |failure, file| file.sync_data().err().or(failure));
            let failure = failure.map(|error| error.to_string());
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
    keeping: Keeping,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Logs whose rotated files are to be looked at.
    waiting: Mutex<Vec<Rotated>>,
    stop: AtomicBool,
}

impl Archiver {
    /// One that keeps so many, in that way.
    #[must_use]
    pub fn new(keeping: Keeping) -> Self {
        Self { keeping, queue: Arc::default(), thread: Mutex::default() }
    }

    /// Brings the rotated files of a log in order.
    pub fn tidy(&self, rotated: Rotated) {
        if self.keeping.compress.is_none() {
            return tidy(&rotated, self.keeping, &self.queue.stop);
        }
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = self.queue.waiting();
        if !waiting.contains(&rotated) {
            waiting.push(rotated);
        }
        drop(waiting);
        if thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (queue, keeping) = (Arc::clone(&self.queue), self.keeping);
            *thread = Some(std::thread::spawn(move || queue.run(keeping)));
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Vec<Rotated>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there is nothing more to do. What is added as it ends is done with the next.
    fn run(&self, keeping: Keeping) {
        loop {
            let next = self.waiting().pop();
            match next {
                Some(rotated) if !self.stop.load(Ordering::Relaxed) => tidy(&rotated, keeping, &self.stop),
                _ => return,
            }
        }
    }
}

fn tidy(rotated: &Rotated, keeping: Keeping, stop: &AtomicBool) {
    if let Err(error) = rotated.tidy(keeping, stop) {
        warn!(%error, "cannot tidy the rotated files");
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.queue.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}
