//! One batch for a backend that wants several requests for a record, and knows no idempotency key.
//!
//! A record is delivered when the backend has all of its [parts](Part): a log, metrics, a span. What it has of a record
//! that is tried again is remembered in [`Progress`], so that a log is not sent again because the metrics failed. When
//! nobody knows whether a request arrived, its part is sent again or given up, as its [`Delivery`] says.
//!
//! ```
//! use exporter_kit::{
//!     http::NoAnswer,
//!     pack::{Frame, Limits, Packer},
//!     progress::Progress,
//!     round::{Delivery, Part, Round},
//! };
//! use plugin_api::{Batch, ExportError, Field, Fields};
//!
//! const LOGS: Part =
//!     Part { name: "logs", bit: 1, delivery: Delivery::AtLeastOnce, can_shed_bodies: true };
//! const COST: Part =
//!     Part { name: "metrics", bit: 2, delivery: Delivery::AtMostOnce, can_shed_bodies: false };
//!
//! async fn export(progress: &Progress, batch: Batch<'_>) -> Result<(), ExportError> {
//!     let mut round: Round<'_, Fields<'_>> = Round::new(batch, progress, "Acme");
//!     for record in batch.iter() {
//!         let fields = record.fields()?;
//!         let id = fields.text(Field::Id).unwrap_or_default();
//!         round.add(record, id, LOGS.bit | COST.bit, fields);
//!     }
//!     for part in [LOGS, COST] {
//!         let mut packer = Packer::new(Frame::JSON_ARRAY, Limits { max_records: 1_000, max_bytes: 5_000_000 });
//!         for item in round.due(part) {
//!             let piece = item.data.raw(if part.bit == LOGS.bit { Field::Path } else { Field::Cost });
//!             if !packer.add(item.record.index(), piece.unwrap_or("null").as_bytes()) {
//!                 item.reject("larger than Acme takes in one request");
//!             }
//!         }
//!         let send = async |_to_be_posted: Vec<u8>| Ok::<(), NoAnswer>(());
//!         round.send(part, packer.finish(), send).await;
//!     }
//!     round.finish()
//! }
//! ```

use std::borrow::Cow;

use plugin_api::{Batch, ErrorKind, ExportError, Record};
use tracing::warn;

use crate::{
    http::NoAnswer,
    pack::{Ending, Packed},
    progress::{Parts, Progress},
};

/// One of the requests that a record needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it is called in the log, in the plural.
    pub name: &'static str,
    /// Its one bit among the plugin's [`Parts`]. A record's parts are sent in the order of their bits.
    pub bit: Parts,
    /// What is done when nobody knows whether the backend has it.
    pub delivery: Delivery,
    /// Whether a record that is too large by itself may be tried again without its bodies, as the gateway does it then.
    /// Otherwise it counts as refused: the part has no bodies, or the plugin has cut them to the backend's limits.
    pub can_shed_bodies: bool,
}

/// What is done when nobody knows whether a request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is sent again: the part may be there twice. It is noted when it was accepted.
    AtLeastOnce,
    /// It is never sent again: the part may be lost, with a warning. It is noted *before* it is sent, since the call may
    /// be given up on, and the note is taken back when the backend refused it or was never reached.
    AtMostOnce,
}

/// A batch under way.
#[derive(Debug)]
pub struct Round<'a, T> {
    batch: Batch<'a>,
    progress: &'a Progress,
    backend: &'static str,
    ending: Ending,
    items: Vec<Item<'a, T>>,
}

/// A record that has no verdict yet, with what the plugin has read of it.
#[derive(Debug)]
pub struct Item<'a, T> {
    /// The record.
    pub record: Record<'a>,
    /// The plugin's own.
    pub data: T,
    id: Cow<'a, str>,
    /// Parts that the backend lacks.
    missing: Parts,
    /// False once the record was rejected, or a request with it has failed: its fate is sealed for this call.
    is_open: bool,
}

impl<'a, T> Round<'a, T> {
    /// A round without records. `backend` is its name for people.
    #[must_use]
    pub fn new(batch: Batch<'a>, progress: &'a Progress, backend: &'static str) -> Self {
        let items = Vec::with_capacity(batch.len());
        Self { batch, progress, backend, ending: Ending::default(), items }
    }

    /// Adds a record that is to have the parts in `wanted`; records are added in the order of the batch. One that is
    /// not added has its verdict from the plugin.
    pub fn add(&mut self, record: Record<'a>, id: Cow<'a, str>, wanted: Parts, data: T) -> &mut Item<'a, T> {
        let place = self.items.len();
        debug_assert!(self.items.last().is_none_or(|last| last.record.index() < record.index()));
        let missing = wanted & !self.progress.of(&id);
        self.items.push(Item { record, data, id, missing, is_open: true });
        &mut self.items[place]
    }

    /// The records whose next part this is: they lack it, and have those before it.
    pub fn due(&mut self, part: Part) -> impl Iterator<Item = &mut Item<'a, T>> {
        let before = part.bit - 1;
        self.items.iter_mut().filter(move |item| item.lacks(part) && item.missing & before == 0)
    }

    /// Rejects the record at this place in the batch.
    ///
    /// # Panics
    /// When it was never added.
    pub fn reject(&mut self, index: usize, reason: &str) {
        self.item(index).reject(reason);
    }

    /// Whether a request failed in a way that waiting heals, so that none is to be sent after it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ending.is_over()
    }

    /// Sends the requests of one part, one after the other, until the round [is over](Self::is_over).
    ///
    /// # Panics
    /// When a request has a record that was never added.
    pub async fn send(
        &mut self,
        part: Part,
        requests: Vec<Packed>,
        mut send: impl AsyncFnMut(Vec<u8>) -> Result<(), NoAnswer>,
    ) {
        let is_noted_before = part.delivery == Delivery::AtMostOnce;
        for Packed { body, records } in requests {
            if self.is_over() {
                return;
            }
            if is_noted_before {
                self.note(&records, part);
            }
            match send(body).await {
                Ok(()) if is_noted_before => {}
                Ok(()) => self.note(&records, part),
                Err(failure) => self.failed(part, records, failure),
            }
        }
    }

    /// Gives the remaining verdicts: a record that lacks nothing is delivered, and forgotten; others are tried again.
    ///
    /// # Errors
    /// When not everything was delivered or judged.
    pub fn finish(mut self) -> Result<(), ExportError> {
        for item in self.items.iter().filter(|item| item.is_open) {
            if item.missing == 0 {
                item.record.delivered();
                self.progress.settle(&item.id);
            } else {
                self.ending.unsent([item.record.index()]);
            }
        }
        self.ending.into_outcome(self.batch)
    }

    fn failed(&mut self, part: Part, records: Vec<usize>, failure: NoAnswer) {
        let NoAnswer { error, may_have_arrived } = failure;
        if part.delivery == Delivery::AtMostOnce {
            if may_have_arrived {
                self.warn_of_loss(part, &records, &error);
            } else {
                self.take_back(&records, part);
            }
        }
        for index in &records {
            self.item(*index).is_open = false;
        }
        let error = match (error.kind(), records.as_slice()) {
            (ErrorKind::TooLarge, [_]) if !part.can_shed_bodies => ExportError::reject(error.to_string()),
            _ => error,
        };
        self.ending.failed(self.batch, records, error);
    }

    fn warn_of_loss(&self, part: Part, records: &[usize], error: &ExportError) {
        let (reason, records) = (error.to_string(), records.len());
        let (parts, backend) = (part.name, self.backend);
        warn!(
            reason,
            records, "{parts} may be lost: nobody knows whether {backend} has them, and none is sent twice"
        );
    }

    /// The backend has this part of these records, or may have it.
    fn note(&mut self, records: &[usize], part: Part) {
        let progress = self.progress;
        for index in records {
            let item = self.item(*index);
            item.missing &= !part.bit;
            progress.note(&item.id, part.bit);
        }
    }

    fn take_back(&mut self, records: &[usize], part: Part) {
        let progress = self.progress;
        for index in records {
            let item = self.item(*index);
            item.missing |= part.bit;
            progress.take_back(&item.id, part.bit);
        }
    }

    /// Items are in the order of their records.
    fn item(&mut self, index: usize) -> &mut Item<'a, T> {
        let place = self.items.binary_search_by_key(&index, |item| item.record.index());
        &mut self.items[place.expect("a record of a request was added to the round")]
    }
}

impl<T> Item<'_, T> {
    /// Whether this part is still to be sent.
    #[must_use]
    pub fn lacks(&self, part: Part) -> bool {
        self.is_open && self.missing & part.bit != 0
    }

    /// Rejects the record; nothing more of it is sent.
    pub fn reject(&mut self, reason: &str) {
        self.record.reject(reason);
        self.is_open = false;
    }
}

#[cfg(test)]
mod tests;
