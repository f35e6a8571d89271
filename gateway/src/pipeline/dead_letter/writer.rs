//! The thread that writes: nothing that delivers ever waits for the disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{append::Appender, letter::DeadLetter, line};
use crate::{clock, pipeline::notice::Notices};

/// Letters that are written together.
const GROUP: usize = 256;

/// Where dead letters go, and how much of them is kept.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub path: PathBuf,
    /// A file that would grow beyond this is rotated.
    pub max_bytes: u64,
    /// Rotated files that are kept.
    pub keep: usize,
    /// Bytes of letters that may wait for the disk.
    pub pending_bytes: u64,
}

/// What became of dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Written.
    pub records: u64,
    /// Not written: the file failed, or the disk did not keep up.
    pub failures: u64,
}

/// The dead letters of one exporter.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: PathBuf,
    /// Bytes for which there is room.
    room: Arc<Semaphore>,
    capacity: usize,
    state: Mutex<Option<mpsc::UnboundedSender<Pending>>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    tally: Arc<Tally>,
}

/// A letter that waits, and the room that it takes.
type Pending = (DeadLetter, OwnedSemaphorePermit);

#[derive(Debug)]
struct Tally {
    records: AtomicU64,
    failures: AtomicU64,
    notices: Notices,
}

impl DeadLetters {
    /// Starts the thread. The file is made with the first letter.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(plugin: &Arc<str>, settings: &Settings) -> io::Result<Self> {
        let capacity = usize::try_from(settings.pending_bytes).unwrap_or(usize::MAX);
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let (sender, receiver) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let tally = Arc::new(Tally {
            records: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            notices: Notices::new(plugin.clone()),
        });
        let appender = Appender::new(settings.path.clone(), settings.max_bytes, settings.keep);
        let counted = tally.clone();
        thread::Builder::new().name("dead-letters".to_owned()).spawn(move || {
            write(receiver, appender, &counted);
            let _ = end.send(());
        })?;
        Ok(Self {
            path: settings.path.clone(),
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
            state: Mutex::new(Some(sender)),
            ended: Mutex::new(Some(ended)),
            tally,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            records: self.tally.records.load(Ordering::Relaxed),
            failures: self.tally.failures.load(Ordering::Relaxed),
        }
    }

    /// Hands a letter to the writer. Never waits: one for which there is no room is counted as failed.
    pub(crate) fn send(&self, letter: DeadLetter) {
        match self.room.clone().try_acquire_many_owned(self.permits(&letter)) {
            Ok(room) => self.hand_over((letter, room)),
            Err(_) => self.tally.failed(1, "the disk does not keep up"),
        }
    }

    /// Hands over the last letters, waiting for room, and waits until all are written, but not longer than `grace`.
    pub(crate) async fn finish(&self, letters: Vec<DeadLetter>, grace: Duration) {
        let handed_over = AtomicU64::new(0);
        let all = letters.len() as u64;
        let written = async {
            for letter in letters {
                let Ok(room) = self.room.clone().acquire_many_owned(self.permits(&letter)).await else {
                    break;
                };
                self.hand_over((letter, room));
                handed_over.fetch_add(1, Ordering::Relaxed);
            }
            drop(self.state.lock().unwrap_or_else(PoisonError::into_inner).take());
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(ended) = ended {
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(grace, written).await.is_err() {
            let waiting = self.capacity.saturating_sub(self.room.available_permits());
            let left = all - handed_over.load(Ordering::Relaxed);
            self.tally.failed(left, &format!("not written in time: {waiting} bytes and {left} records"));
        }
    }

    /// A letter larger than all the room there is takes all of it.
    fn permits(&self, letter: &DeadLetter) -> u32 {
        u32::try_from(letter.size().min(self.capacity)).unwrap_or(u32::MAX)
    }

    fn hand_over(&self, pending: Pending) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.as_ref().is_none_or(|sender| sender.send(pending).is_err()) {
            self.tally.failed(1, "the writer has ended");
        }
    }
}

impl Tally {
    fn failed(&self, records: u64, why: &str) {
        self.failures.fetch_add(records, Ordering::Relaxed);
        self.notices.dead_letters_failed(records, why);
    }
}

fn write(mut letters: mpsc::UnboundedReceiver<Pending>, mut appender: Appender, tally: &Tally) {
    let mut group = Vec::with_capacity(GROUP);
    while letters.blocking_recv_many(&mut group, GROUP) > 0 {
        let mut lines = Vec::with_capacity(group.len());
        for (letter, _) in &group {
            match line::encode(letter) {
                Ok(line) => lines.push(line),
                Err(error) => tally.failed(1, &format!("a record is not JSON: {error}")),
            }
        }
        let appended = appender.append(&lines, clock::now());
        tally.records.fetch_add(appended.lines as u64, Ordering::Relaxed);
        if let Some(error) = appended.error {
            tally.failed((lines.len() - appended.lines) as u64, &error.to_string());
        }
        group.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pipeline::dead_letter::decode, recorder::Record};

    fn letter(bytes: usize) -> DeadLetter {
        let id = uuid::Uuid::now_v7();
        let metrics = format!("{{\"id\":\"{id}\"}}");
        let body = format!("\"{}\"", "x".repeat(bytes));
        let record = Record { id, ..Record::of_parts(metrics.into(), body.into(), bytes::Bytes::new()) };
        let cause = exporter_pipeline::Cause::Rejected(exporter_pipeline::RejectReason::Record);
        DeadLetter::new(&"x".into(), &record, cause.into(), "no", 1)
    }

    fn start(path: PathBuf, pending_bytes: u64) -> DeadLetters {
        let settings = Settings { path, max_bytes: 1 << 20, keep: 5, pending_bytes };
        DeadLetters::start(&"x".into(), &settings).unwrap()
    }

    #[tokio::test]
    async fn all_letters_are_written_before_the_end_the_last_ones_too() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.jsonl");
        // Room for about three letters: the last ones wait for it.
        let letters = start(path.clone(), 8_000);
        letters.send(letter(2_000));
        letters.finish((0..50).map(|_| letter(2_000)).collect(), Duration::from_secs(30)).await;
        assert_eq!(letters.counts(), Counts { records: 51, failures: 0 });
        let text = std::fs::read_to_string(path).unwrap();
        let ids: std::collections::HashSet<_> =
            text.lines().map(|line| decode(line.as_bytes()).unwrap().id).collect();
        assert_eq!(ids.len(), 51);
        letters.send(letter(1));
        assert_eq!(letters.counts().failures, 1, "it has ended");
    }

    #[tokio::test]
    async fn letters_for_which_there_is_no_room_are_counted_and_nobody_waits() {
        let root = tempfile::tempdir().unwrap();
        let letters = start(root.path().join("x.jsonl"), 4_000);
        let room = letters.room.clone().acquire_many_owned(4_000).await.unwrap();
        letters.send(letter(1));
        assert_eq!(letters.counts().failures, 1);
        drop(room);
        letters.send(letter(1_000_000));
        letters.finish(Vec::new(), Duration::from_secs(30)).await;
        assert_eq!(letters.counts(), Counts { records: 1, failures: 1 }, "a large one takes all the room");
    }

    #[tokio::test]
    async fn a_file_that_fails_is_counted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let letters = start(root.path().join("file/x.jsonl"), 1 << 20);
        letters.send(letter(1));
        letters.send(letter(1));
        letters.finish(Vec::new(), Duration::from_secs(30)).await;
        assert_eq!(letters.counts(), Counts { records: 0, failures: 2 });
    }
}
