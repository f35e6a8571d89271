//! What is to be done about a step of a pipeline, after it.

use std::time::Duration;

use crate::books::{DropReason, RejectReason};

/// What is to be done about a step, once no lock is held.
#[derive(Debug)]
#[must_use = "records that were given up are in here"]
pub struct Effects<T> {
    /// Records that the backend has.
    pub delivered: Vec<T>,
    /// Records that have come to another end.
    pub given_up: Vec<GivenUp<T>>,
    /// What there is to tell, in order.
    pub notices: Vec<Notice>,
    /// Records or batches that will be sent again.
    pub retries: u64,
    /// What the plugin got wrong: verdicts that are missing.
    pub faults: u64,
    /// Why the plugin is to be taken out of service.
    pub disable: Option<String>,
    /// Whether somebody who waits for [`crate::Next::Wait`] should ask again.
    pub wake: bool,
    /// What is no longer needed: freed with the effects, not before.
    pub(crate) freed: Vec<T>,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self {
            delivered: Vec::new(),
            given_up: Vec::new(),
            notices: Vec::new(),
            retries: 0,
            faults: 0,
            disable: None,
            wake: false,
            freed: Vec::new(),
        }
    }
}

/// A record that has come to its end undelivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp<T> {
    /// The record, with its bodies where they were kept.
    pub item: T,
    /// Who gave it up, and why.
    pub cause: Cause,
    /// In the words of the backend, the plugin or the pipeline; may be empty.
    pub message: String,
    /// Calls that it was part of.
    pub attempts: u32,
}

/// Who gave a record up, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The backend will never take it.
    Rejected(RejectReason),
    /// It was given up on this side.
    Dropped(DropReason),
}

/// Something to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A call failed; what was in it is sent again.
    CallFailed {
        /// The call's error.
        message: String,
        /// How long the backend asked to be left alone, as far as that is granted.
        pause: Option<Duration>,
        /// Whether it was a probe of an open breaker.
        is_probe: bool,
    },
    /// The breaker has opened.
    BreakerOpened {
        /// Why.
        why: Opened,
        /// The error of the last call.
        message: String,
    },
    /// Calls succeed again, the breaker is closed.
    Recovered,
    /// A record was refused alone, before the backend has taken any other: it waits until that is settled.
    Refused {
        /// The call's error.
        message: String,
    },
    /// Records that the backend will never take.
    Rejected {
        /// Who said so.
        reason: RejectReason,
        /// How many.
        records: u64,
        /// Why the first of them.
        message: String,
    },
    /// Records that were given up on this side.
    Dropped {
        /// Why.
        reason: DropReason,
        /// How many.
        records: u64,
    },
}

/// Why a breaker has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// So many failed calls in a row.
    Failures,
    /// The backend refuses the credentials.
    Unauthorized,
    /// The backend refuses every record, each alone: a wrong address, say.
    SetUp,
}

impl<T> Effects<T> {
    /// One notice for each cause for which records were given up.
    pub(crate) fn tell_losses(&mut self) {
        let mut causes: Vec<(Cause, u64, &str)> = Vec::new();
        for lost in &self.given_up {
            match causes.iter_mut().find(|(cause, _, _)| *cause == lost.cause) {
                Some((_, records, _)) => *records += 1,
                None => causes.push((lost.cause, 1, &lost.message)),
            }
        }
        let notices = causes.into_iter().map(|(cause, records, message)| match cause {
            Cause::Rejected(reason) => Notice::Rejected { reason, records, message: message.to_owned() },
            Cause::Dropped(reason) => Notice::Dropped { reason, records },
        });
        self.notices.extend(notices.collect::<Vec<_>>());
    }

    pub(crate) fn give_up(&mut self, item: T, cause: Cause, message: String, attempts: u32) {
        self.given_up.push(GivenUp { item, cause, message, attempts });
    }
}
