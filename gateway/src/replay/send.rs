//! A replay put together: files in, one exporter's pipeline out, and the note beside the files.
//!
//! It reads files and writes its note between two steps of the exporter, on the same thread: there is nobody else here
//! who would have to wait for the disk.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{
    Plan, ReplayError, Tally,
    note::{self, Note, Noted},
    plan::Verdict,
    progress::Progress,
    source::{Content, Line, Source},
};
use crate::{
    loader::Plugin,
    pipeline::{
        Exporter, Exporters, Instruments, OutcomeSink, RecordOutcome, config,
        dead_letter::{DeadLetter, family, members},
    },
    recorder::Record,
};

/// All records are here already: there is no use in waiting for more of them.
const MAX_DELAY: Duration = Duration::from_millis(50);
/// How often progress is shown while nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// What is in the files, before anything is sent.
#[derive(Debug)]
pub(crate) struct Survey {
    sources: Vec<Source>,
    families: Vec<PathBuf>,
    plugin: String,
    delivered: HashSet<uuid::Uuid>,
    /// What a replay would begin with: nothing is delivered yet.
    pub tally: Tally,
    /// What there is to say about single lines.
    pub remarks: Vec<String>,
}

impl Survey {
    /// Reads the files, and what earlier replays have noted. Nothing is written.
    pub(crate) fn of(files: &[PathBuf], plugin: &str) -> Result<Self, ReplayError> {
        let sources = files.iter().map(|file| Source::open(file)).collect::<Result<Vec<_>, _>>()?;
        let mut families: Vec<PathBuf> = sources.iter().map(|source| family(&source.real)).collect();
        families.sort_unstable();
        families.dedup();
        let plugin = plugin.to_owned();
        let (tally, remarks) = (Tally::default(), Vec::new());
        let delivered = HashSet::new();
        let mut survey = Self { sources, families, plugin, delivered, tally, remarks };
        survey.read_notes()?;
        survey.count()?;
        Ok(survey)
    }

    fn read_notes(&mut self) -> Result<(), ReplayError> {
        for family in &self.families {
            let path = note::path(family);
            let Noted { ids, damaged } = note::read(&path, &self.plugin)?;
            self.delivered.extend(ids);
            if damaged > 0 {
                self.remarks.push(damage(&path, damaged));
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), ReplayError> {
        let mut plan = Plan::new(self.delivered.clone(), 0, 0);
        let mut remarks = std::mem::take(&mut self.remarks);
        for (source, line) in lines(&self.sources) {
            let Line { number, content } = line?;
            let at = format!("{}:{number}", source.path.display());
            match content {
                Content::Letter(letter) => {
                    plan.look_at(letter.id);
                }
                Content::Unreadable(why) => {
                    plan.tally.unreadable += 1;
                    remarks
                        .push(format!("{at}: not a dead letter that can be read, and left as it is: {why}"));
                }
                Content::Torn => {
                    plan.tally.torn += 1;
                    remarks.push(format!(
                        "{at}: ends in the middle, and is left as it is: still being written, or torn by a crash"
                    ));
                }
            }
        }
        (self.tally, self.remarks) = (plan.tally, remarks);
        Ok(())
    }
}

/// A replay that may begin.
#[derive(Debug)]
pub(crate) struct Replay {
    survey: Survey,
    notes: Vec<Note>,
    plan: Plan,
    exporter: Arc<Exporter>,
    outcomes: mpsc::UnboundedReceiver<RecordOutcome>,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    /// The backend does not take records.
    Down,
    Interrupted,
}

impl Replay {
    /// Locks the notes and puts the exporter together.
    ///
    /// # Errors
    /// When the notes cannot be written, or belong to another replay.
    pub(crate) fn new(
        mut survey: Survey,
        plugin: Plugin,
        mut entry: config::Plugin,
        instruments: &Instruments,
    ) -> Result<Self, ReplayError> {
        let notes = survey.families.iter().map(|family| Note::open(&note::path(family)));
        let notes = notes.collect::<Result<Vec<_>, _>>()?;
        // Another replay may have ended since they were read.
        survey.read_notes()?;
        let batch = entry.batch.max_delay.unwrap_or(plugin.description().batch.max_delay);
        entry.batch.max_delay = Some(batch.min(MAX_DELAY));
        let (sender, outcomes) = mpsc::unbounded_channel();
        let exporter = Exporter::with(plugin, &entry, instruments, OutcomeSink::Replay(sender));
        let capacity = exporter.policy.capacity;
        let delivered = std::mem::take(&mut survey.delivered);
        let plan = Plan::new(delivered, capacity.records, capacity.bytes);
        Ok(Self { survey, notes, plan, exporter, outcomes })
    }

    /// Sends everything that is to be sent, or as much as can be until `interrupted`. What is under way then has
    /// `drain_timeout`.
    ///
    /// # Errors
    /// When a file cannot be read or the note not written; what was delivered by then is noted.
    pub(crate) async fn run(
        mut self,
        interrupted: impl Future<Output = ()>,
        drain_timeout: Duration,
    ) -> Result<Tally, ReplayError> {
        let drivers = Exporters::new(vec![self.exporter.clone()]).start().map_err(ReplayError::Thread)?;
        let mut progress = Progress::of(self.survey.tally.wanted);
        let end = self.send(&mut progress, interrupted).await;
        let timeout = match end {
            Ok(End::Interrupted) => drain_timeout,
            Ok(End::Done) => Duration::from_secs(1),
            Ok(End::Down) | Err(_) => Duration::ZERO,
        };
        drivers.shutdown(timeout).await;
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.settle(vec![outcome])?;
        }
        progress.finish();
        let end = end?;
        match end {
            End::Done => self.tidy(),
            End::Down => warn!("stopped, since the backend does not take records; try again later"),
            End::Interrupted => warn!("stopped by a signal; the next replay goes on from here"),
        }
        if end != End::Done {
            self.plan.tally.wanted = self.survey.tally.wanted;
        }
        self.plan.tally.unreadable = self.survey.tally.unreadable;
        self.plan.tally.torn = self.survey.tally.torn;
        Ok(self.plan.tally)
    }

    async fn send(
        &mut self,
        progress: &mut Progress,
        interrupted: impl Future<Output = ()>,
    ) -> Result<End, ReplayError> {
        tokio::pin!(interrupted);
        let sources = std::mem::take(&mut self.survey.sources);
        let mut lines = lines(&sources);
        let mut next = None;
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        let end = loop {
            self.submit(&mut next, &mut lines)?;
            if next.is_none() {
                // Nothing comes after the last record by which a refused one could be judged.
                self.exporter.close();
                if self.plan.is_idle() {
                    break End::Done;
                }
            }
            tokio::select! {
                Some(outcome) = self.outcomes.recv() => {
                    let mut outcomes = vec![outcome];
                    outcomes.extend(std::iter::from_fn(|| self.outcomes.try_recv().ok()));
                    self.settle(outcomes)?;
                }
                () = &mut interrupted => break End::Interrupted,
                _ = tick.tick() => {}
            }
            let Tally { delivered, rejected, given_up, .. } = self.plan.tally;
            progress.show(delivered + rejected + given_up, rejected + given_up);
            if self.plan.backend_is_down() {
                break End::Down;
            }
        };
        drop(lines);
        self.survey.sources = sources;
        Ok(end)
    }

    /// Hands over as many records as there is room for; `next` is the one that has to wait.
    fn submit<'a>(
        &mut self,
        next: &mut Option<Box<DeadLetter>>,
        lines: &mut impl Iterator<Item = (&'a Source, Result<Line, ReplayError>)>,
    ) -> Result<(), ReplayError> {
        loop {
            if next.is_none() {
                *next = self.next_letter(lines)?;
            }
            let Some(letter) = next.take_if(|letter| self.plan.has_room(letter.size() as u64)) else {
                return Ok(());
            };
            self.plan.sent(letter.id, letter.size() as u64);
            let record: Record = letter.into_record();
            self.exporter.submit(&[Arc::new(record)]);
        }
    }

    fn next_letter<'a>(
        &mut self,
        lines: &mut impl Iterator<Item = (&'a Source, Result<Line, ReplayError>)>,
    ) -> Result<Option<Box<DeadLetter>>, ReplayError> {
        for (_, line) in lines {
            if let Content::Letter(letter) = line?.content
                && self.plan.look_at(letter.id) == Verdict::Send
            {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Notes what was delivered, before anything else is made of it.
    fn settle(&mut self, outcomes: Vec<RecordOutcome>) -> Result<(), ReplayError> {
        let delivered: Vec<_> = outcomes.into_iter().flat_map(|outcome| self.plan.settle(outcome)).collect();
        if delivered.is_empty() {
            return Ok(());
        }
        // In every note: the same record may be in the files of two families.
        let plugin = &self.survey.plugin;
        self.notes.iter_mut().try_for_each(|note| note.append(plugin, &delivered))
    }

    /// Shortens a note when all files that it speaks of were read.
    fn tidy(&mut self) {
        for (family, note) in self.survey.families.iter().zip(std::mem::take(&mut self.notes)) {
            if self.survey.holds_all_of(family).unwrap_or(false)
                && let Err(error) = note.keep_only(self.plan.seen())
            {
                warn!("{} could not be shortened: {error}", note::path(family).display());
            }
        }
    }
}

impl Survey {
    fn holds_all_of(&self, family: &Path) -> io::Result<bool> {
        let mut read = HashSet::new();
        for source in &self.sources {
            let found = source.file.metadata()?;
            read.insert((found.dev(), found.ino()));
        }
        let mut all = true;
        for file in members(family)? {
            let found = fs::metadata(file)?;
            all &= read.contains(&(found.dev(), found.ino()));
        }
        Ok(all)
    }
}

fn damage(note: &Path, lines: usize) -> String {
    format!(
        "{}: {lines} lines of what was delivered cannot be read, and their records are sent again: to prevent it, \
         mend them (each is an exporter's name, a space and a record's id)",
        note.display()
    )
}

/// All lines of all files. A file that fails ends with its error.
fn lines(sources: &[Source]) -> impl Iterator<Item = (&Source, Result<Line, ReplayError>)> {
    sources.iter().flat_map(|source| {
        let unreadable = |error| ReplayError::Unreadable { path: source.path.clone(), error };
        let (lines, error) = match source.lines() {
            Ok(lines) => (Some(lines), None),
            Err(error) => (None, Some(Err(error))),
        };
        let mut is_over = false;
        let lines = lines.into_iter().flatten().chain(error);
        lines.map_while(move |line| {
            let over = std::mem::replace(&mut is_over, line.is_err());
            (!over).then(|| (source, line.map_err(unreadable)))
        })
    })
}
