//! From what a plugin said of a call to what becomes of each record.

use crate::loader::{CallStatus, ExportOutcome, RecordVerdict};

use super::books::RejectReason;

/// What becomes of the records of one call. Indices are places in the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub delivered: Vec<usize>,
    pub rejected: Vec<(usize, RejectReason, String)>,
    pub retry: Vec<usize>,
    /// To be split in two and sent again: one of them is bad, or they are too many.
    pub split: Vec<usize>,
    /// Alone in its call and still too large: to be sent without its bodies.
    pub shed: Option<usize>,
    /// The call failed as far as the circuit breaker is concerned.
    pub failed: bool,
    /// What the plugin got wrong: verdicts on records that are not there, or none where one is due.
    pub faults: u32,
}

/// What becomes of a record that has no verdict of its own.
enum Rest {
    Delivered,
    Retry,
    Reject,
    TooLarge,
}

pub(crate) fn judge(outcome: &ExportOutcome, records: usize) -> Judgement {
    let mut judgement = Judgement { faults: outcome.faults, ..Judgement::default() };
    let rest = rest(outcome.status);
    judgement.failed = is_failure(outcome.status);
    let mut without_verdict = Vec::new();
    for index in 0..records {
        match outcome.verdicts.get(index).and_then(Option::as_ref) {
            Some(RecordVerdict::Delivered) => judgement.delivered.push(index),
            Some(RecordVerdict::Retry { .. }) => judgement.retry.push(index),
            Some(RecordVerdict::Rejected { reason }) => {
                judgement.rejected.push((index, RejectReason::Record, reason.clone()));
            }
            None if matches!(rest, Rest::Delivered) => judgement.delivered.push(index),
            None => without_verdict.push(index),
        }
    }
    if outcome.status == CallStatus::PerRecord {
        judgement.faults += u32::try_from(without_verdict.len()).unwrap_or(u32::MAX);
    }
    judgement.place(&rest, without_verdict, &outcome.message);
    judgement
}

impl Judgement {
    fn place(&mut self, rest: &Rest, records: Vec<usize>, message: &str) {
        match (rest, records.as_slice()) {
            (_, []) | (Rest::Delivered, _) => {}
            (Rest::Retry, _) => self.retry.extend(records),
            (Rest::Reject, &[only]) => self.rejected.push((only, RejectReason::Call, message.to_owned())),
            (Rest::TooLarge, &[only]) => self.shed = Some(only),
            (Rest::Reject | Rest::TooLarge, _) => self.split = records,
        }
    }
}

fn rest(status: CallStatus) -> Rest {
    match status {
        CallStatus::Ok => Rest::Delivered,
        CallStatus::Reject => Rest::Reject,
        CallStatus::TooLarge => Rest::TooLarge,
        _ => Rest::Retry,
    }
}

/// A rejected or oversized call shows a backend that answers; only what may heal by waiting opens the breaker.
fn is_failure(status: CallStatus) -> bool {
    !matches!(status, CallStatus::Ok | CallStatus::PerRecord | CallStatus::Reject | CallStatus::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: CallStatus, verdicts: Vec<Option<RecordVerdict>>) -> ExportOutcome {
        ExportOutcome { status, message: "text".into(), verdicts, faults: 0, retry_after: None }
    }

    #[test]
    fn without_verdicts_all_records_share_the_fate_of_the_call() {
        let all = || vec![0, 1, 2];
        let none = Judgement::default;
        for (status, expected) in [
            (CallStatus::Ok, Judgement { delivered: all(), ..none() }),
            (CallStatus::Retry, Judgement { retry: all(), failed: true, ..none() }),
            (CallStatus::Unauthorized, Judgement { retry: all(), failed: true, ..none() }),
            (CallStatus::Panic, Judgement { retry: all(), failed: true, ..none() }),
            (CallStatus::Reject, Judgement { split: all(), ..none() }),
            (CallStatus::TooLarge, Judgement { split: all(), ..none() }),
            (CallStatus::PerRecord, Judgement { retry: all(), faults: 3, ..none() }),
        ] {
            assert_eq!(judge(&outcome(status, vec![]), 3), expected, "{status:?}");
        }
    }

    #[test]
    fn a_verdict_on_a_record_goes_before_the_fate_of_the_call() {
        let verdicts = vec![
            Some(RecordVerdict::Delivered),
            Some(RecordVerdict::Retry { reason: "busy".into() }),
            Some(RecordVerdict::Rejected { reason: "bad".into() }),
            None,
        ];
        let judgement = judge(&outcome(CallStatus::Retry, verdicts.clone()), 4);
        assert_eq!(judgement.delivered, [0]);
        assert_eq!(judgement.retry, [1, 3]);
        assert_eq!(judgement.rejected, [(2, RejectReason::Record, "bad".to_owned())]);
        assert_eq!(judge(&outcome(CallStatus::Ok, verdicts), 4).delivered, [0, 3]);
    }

    #[test]
    fn a_single_record_is_rejected_or_shed_where_many_are_split() {
        let rejected = judge(&outcome(CallStatus::Reject, vec![]), 1);
        assert_eq!(rejected.rejected, [(0, RejectReason::Call, "text".to_owned())]);
        assert_eq!(judge(&outcome(CallStatus::TooLarge, vec![]), 1).shed, Some(0));
    }

    #[test]
    fn every_record_ends_in_exactly_one_place() {
        let verdicts = vec![
            None,
            Some(RecordVerdict::Rejected { reason: "bad".into() }),
            None,
            Some(RecordVerdict::Delivered),
        ];
        for status in [CallStatus::Ok, CallStatus::Retry, CallStatus::Reject, CallStatus::PerRecord] {
            let judgement = judge(&outcome(status, verdicts.clone()), 5);
            let placed = judgement.delivered.len()
                + judgement.rejected.len()
                + judgement.retry.len()
                + judgement.split.len()
                + usize::from(judgement.shed.is_some());
            assert_eq!(placed, 5, "{status:?}");
        }
    }
}
