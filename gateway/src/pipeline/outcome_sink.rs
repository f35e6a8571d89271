//! Where the outcome of single records goes, beside the books: into a dead-letter file, or to a replay that waits for
//! it.

use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::dead_letter::{DeadLetter, DeadLetters};

/// What is told of records that have come to their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordOutcome {
    /// The backend has them.
    Delivered(Vec<Uuid>),
    /// The exporter has given it up.
    GivenUp(Box<DeadLetter>),
}

/// Who hears of it.
#[derive(Debug)]
pub(crate) enum OutcomeSink {
    /// Nobody: the books are enough.
    None,
    /// The file of the dead letters.
    DeadLetters(DeadLetters),
    /// A replay.
    Replay(mpsc::UnboundedSender<RecordOutcome>),
}

impl OutcomeSink {
    /// Whether letters are wanted at all.
    pub(super) fn wants_letters(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether deliveries are wanted record by record.
    pub(super) fn wants_deliveries(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    pub(super) fn delivered(&self, ids: Vec<Uuid>) {
        if let Self::Replay(replay) = self {
            let _ = replay.send(RecordOutcome::Delivered(ids));
        }
    }

    pub(super) fn lost(&self, letter: DeadLetter) {
        match self {
            Self::None => {}
            Self::DeadLetters(letters) => letters.send(letter),
            // One that has gone away no longer wants to know.
            Self::Replay(replay) => drop(replay.send(RecordOutcome::GivenUp(Box::new(letter)))),
        }
    }

    /// The last letters of an exporter that ends.
    pub(super) async fn finish(&self, letters: Vec<DeadLetter>, grace: Duration) {
        match self {
            Self::DeadLetters(dead_letters) => dead_letters.finish(letters, grace).await,
            Self::None | Self::Replay(_) => letters.into_iter().for_each(|letter| self.lost(letter)),
        }
    }
}
