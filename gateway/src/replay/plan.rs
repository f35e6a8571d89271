//! What a replay sends, and what became of it: a pure state machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use crate::pipeline::{
    RecordOutcome,
    dead_letter::{Cause, DeadLetter},
};

/// Reasons that are told apart in the report.
const MAX_REASONS: usize = 20;

/// What to do with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    /// An earlier replay has delivered it.
    Delivered,
    /// The same record was met before in this replay.
    Repeated,
}

/// How a replay ended, in records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// By this replay.
    pub delivered: u64,
    /// By an earlier one.
    pub delivered_before: u64,
    /// Met more than once.
    pub repeated: u64,
    /// The backend refused them once more.
    pub rejected: u64,
    /// Sent, and given up.
    pub given_up: u64,
    /// Lines that cannot be read.
    pub unreadable: u64,
    /// Lines that end in the middle, at the end of a file.
    pub torn: u64,
    /// To be sent, in all.
    pub wanted: u64,
    /// Why records were not delivered: cause and message, and how many.
    pub reasons: BTreeMap<(Cause, String), u64>,
}

impl Tally {
    /// Records that are still only in the file.
    pub(crate) fn left(&self) -> u64 {
        self.wanted.saturating_sub(self.delivered) + self.unreadable + self.torn
    }
}

/// What was delivered, what is under way, and what there is room for.
#[derive(Debug)]
pub(crate) struct Plan {
    delivered: HashSet<Uuid>,
    seen: HashSet<Uuid>,
    outstanding: HashMap<Uuid, u64>,
    outstanding_bytes: u64,
    max_records: usize,
    max_bytes: u64,
    backend_is_down: bool,
    pub(super) tally: Tally,
}

impl Plan {
    /// `delivered` are the ids that earlier replays have noted; the bounds are those of the exporter's queue.
    pub(crate) fn new(delivered: HashSet<Uuid>, max_records: usize, max_bytes: u64) -> Self {
        Self {
            delivered,
            seen: HashSet::new(),
            outstanding: HashMap::new(),
            outstanding_bytes: 0,
            max_records,
            max_bytes,
            backend_is_down: false,
            tally: Tally::default(),
        }
    }

    /// Looks at the next letter of the files.
    pub(crate) fn look_at(&mut self, id: Uuid) -> Verdict {
        if !self.seen.insert(id) {
            self.tally.repeated += 1;
            return Verdict::Repeated;
        }
        if self.delivered.contains(&id) {
            self.tally.delivered_before += 1;
            return Verdict::Delivered;
        }
        self.tally.wanted += 1;
        Verdict::Send
    }

    /// Whether the queue takes a record of so many bytes, whatever it has done with those before. One that is larger
    /// than the queue goes alone.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.outstanding.is_empty()
            || (self.outstanding.len() < self.max_records && self.outstanding_bytes + bytes <= self.max_bytes)
    }

    pub(crate) fn sent(&mut self, id: Uuid, bytes: u64) {
        self.outstanding.insert(id, bytes);
        self.outstanding_bytes += bytes;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether it is no use to go on: a record ran out of retries.
    pub(crate) fn backend_is_down(&self) -> bool {
        self.backend_is_down
    }

    /// Enters what became of records; the ids that are delivered now.
    pub(crate) fn settle(&mut self, outcome: RecordOutcome) -> Vec<Uuid> {
        match outcome {
            RecordOutcome::Delivered(mut ids) => {
                ids.retain(|id| self.take(*id));
                self.tally.delivered += ids.len() as u64;
                ids
            }
            RecordOutcome::GivenUp(letter) => {
                if self.take(letter.id) {
                    self.count_lost(*letter);
                }
                Vec::new()
            }
        }
    }

    fn take(&mut self, id: Uuid) -> bool {
        let bytes = self.outstanding.remove(&id);
        self.outstanding_bytes -= bytes.unwrap_or_default();
        bytes.is_some()
    }

    fn count_lost(&mut self, letter: DeadLetter) {
        if letter.cause.fate == "rejected" {
            self.tally.rejected += 1;
        } else {
            self.tally.given_up += 1;
        }
        self.backend_is_down |= matches!(&*letter.cause.reason, "retry_exhausted" | "breaker_open_timeout");
        let key = (letter.cause, letter.message.into_owned());
        if self.tally.reasons.len() < MAX_REASONS || self.tally.reasons.contains_key(&key) {
            *self.tally.reasons.entry(key).or_default() += 1;
        }
    }

    /// Ids that were met in the files of this replay.
    pub(crate) fn seen(&self) -> &HashSet<Uuid> {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exporter_pipeline::{DropReason, RejectReason};

    use crate::pipeline::dead_letter::decode;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn lost(number: u128, cause: impl Into<Cause>) -> RecordOutcome {
        let line = include_str!("../pipeline/dead_letter/golden.jsonl");
        let letter = decode(line.as_bytes()).unwrap();
        RecordOutcome::GivenUp(Box::new(DeadLetter { id: id(number), cause: cause.into(), ..letter }))
    }

    fn plan(delivered: &[u128], records: usize, bytes: u64) -> Plan {
        Plan::new(delivered.iter().copied().map(id).collect(), records, bytes)
    }

    #[test]
    fn a_record_is_sent_unless_it_was_delivered_or_met_before() {
        let mut plan = plan(&[1], 10, 1_000);
        for (number, expected) in
            [(1, Verdict::Delivered), (2, Verdict::Send), (2, Verdict::Repeated), (1, Verdict::Repeated)]
        {
            assert_eq!(plan.look_at(id(number)), expected, "{number}");
        }
        let Tally { wanted, delivered_before, repeated, .. } = plan.tally;
        assert_eq!((wanted, delivered_before, repeated), (1, 1, 2));
    }

    #[test]
    fn no_more_is_under_way_than_the_queue_holds() {
        let mut plan = plan(&[], 2, 100);
        assert!(plan.has_room(5_000), "one that is larger than the queue goes alone");
        plan.sent(id(1), 60);
        assert!(plan.has_room(40) && !plan.has_room(41));
        plan.sent(id(2), 10);
        assert!(!plan.has_room(1), "two are all the records it holds");
        assert_eq!(plan.settle(RecordOutcome::Delivered(vec![id(1)])), [id(1)]);
        assert!(plan.has_room(90) && !plan.has_room(91) && !plan.is_idle());
        plan.settle(lost(2, RejectReason::Record));
        assert!(plan.is_idle());
    }

    #[test]
    fn every_record_ends_in_one_place_and_an_outcome_that_comes_twice_counts_once() {
        let mut plan = plan(&[], 10, 1_000);
        for number in 1..=5 {
            plan.look_at(id(number));
            plan.sent(id(number), 1);
        }
        plan.settle(RecordOutcome::Delivered(vec![id(1), id(2), id(9)]));
        assert!(plan.settle(RecordOutcome::Delivered(vec![id(1)])).is_empty());
        plan.settle(lost(3, RejectReason::Call));
        plan.settle(lost(3, RejectReason::Call));
        assert!(!plan.backend_is_down());
        plan.settle(lost(4, DropReason::RetryExhausted));
        assert!(plan.backend_is_down());
        let tally = &plan.tally;
        assert_eq!((tally.delivered, tally.rejected, tally.given_up, tally.left()), (2, 1, 1, 3));
        assert_eq!(tally.reasons.values().sum::<u64>(), 2);
    }
}
