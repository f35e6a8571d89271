//! From what a plugin said of a call to what becomes of each record: the gateway's rules, as a pure function.
//!
//! The gateway decides by it, and so does the conformance suite that plays the gateway's part.

use crate::abi::{Status, Verdict, status, verdict};

/// What becomes of the records of one call. Every record is in exactly one of these; indices are places in the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The backend has them.
    pub delivered: Vec<usize>,
    /// The backend will never take them: by a verdict on the record itself.
    pub rejected: Vec<usize>,
    /// Alone without a verdict in a call that was rejected: the call's error is its reason.
    pub rejected_by_call: Option<usize>,
    /// To be sent again.
    pub retry: Vec<usize>,
    /// To be split in two and sent again: one of them is bad, or they are too many.
    pub split: Vec<usize>,
    /// Alone without a verdict in a call that was too large: to be sent without its bodies.
    pub shed: Option<usize>,
    /// How many had no verdict where every record should have had its own; they are among those to be sent again.
    pub missing_verdicts: usize,
}

/// Judges a call with so many records. `verdict_of` gives the last verdict on a record, if there was one.
///
/// A verdict on a record goes before the status of the call. Records without one share the call's fate: delivered
/// after `OK`, split after `REJECT` and `TOO_LARGE`, else sent again; an unknown status or verdict is a fault of the
/// plugin's, and its record is sent again.
#[must_use]
pub fn judge(status: Status, records: usize, verdict_of: impl Fn(usize) -> Option<Verdict>) -> Judgement {
    let mut judgement = Judgement::default();
    let mut without_verdict = Vec::new();
    for index in 0..records {
        match verdict_of(index) {
            Some(verdict::DELIVERED) => judgement.delivered.push(index),
            Some(verdict::REJECTED) => judgement.rejected.push(index),
            Some(_) => judgement.retry.push(index),
            None if status == status::OK => judgement.delivered.push(index),
            None => without_verdict.push(index),
        }
    }
    if status == status::PER_RECORD {
        judgement.missing_verdicts = without_verdict.len();
    }
    match (status, without_verdict.as_slice()) {
        (status::REJECT, &[only]) => judgement.rejected_by_call = Some(only),
        (status::TOO_LARGE, &[only]) => judgement.shed = Some(only),
        (status::REJECT | status::TOO_LARGE, _) => judgement.split = without_verdict,
        _ => judgement.retry.extend(without_verdict),
    }
    judgement
}

/// Whether a call with this status counts as failed for the circuit breaker: only what may heal by waiting does. A
/// rejected or oversized call shows a backend that answers.
#[must_use]
pub const fn is_failure(status: Status) -> bool {
    !matches!(status, status::OK | status::PER_RECORD | status::REJECT | status::TOO_LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: Status, verdicts: &[Option<Verdict>]) -> Judgement {
        judge(status, verdicts.len(), |index| verdicts[index])
    }

    #[test]
    fn without_verdicts_all_records_share_the_fate_of_the_call() {
        let all = || vec![0, 1, 2];
        let none = Judgement::default;
        for (status, expected, fails) in [
            (status::OK, Judgement { delivered: all(), ..none() }, false),
            (status::RETRY, Judgement { retry: all(), ..none() }, true),
            (status::UNAUTHORIZED, Judgement { retry: all(), ..none() }, true),
            (status::PANIC, Judgement { retry: all(), ..none() }, true),
            (status::TIMEOUT, Judgement { retry: all(), ..none() }, true),
            (4711, Judgement { retry: all(), ..none() }, true),
            (status::REJECT, Judgement { split: all(), ..none() }, false),
            (status::TOO_LARGE, Judgement { split: all(), ..none() }, false),
            (status::PER_RECORD, Judgement { retry: all(), missing_verdicts: 3, ..none() }, false),
        ] {
            assert_eq!(judged(status, &[None; 3]), expected, "{status}");
            assert_eq!(is_failure(status), fails, "{status}");
        }
    }

    #[test]
    fn a_verdict_on_a_record_goes_before_the_fate_of_the_call() {
        let verdicts =
            [Some(verdict::DELIVERED), Some(verdict::RETRY), Some(verdict::REJECTED), None, Some(99)];
        let judgement = judged(status::RETRY, &verdicts);
        assert_eq!((&*judgement.delivered, &*judgement.rejected), (&[0][..], &[2][..]));
        assert_eq!(judgement.retry, [1, 4, 3]);
        assert_eq!(judged(status::OK, &verdicts).delivered, [0, 3]);
    }

    #[test]
    fn a_single_record_is_rejected_or_shed_where_many_are_split() {
        assert_eq!(judged(status::REJECT, &[None]).rejected_by_call, Some(0));
        assert_eq!(judged(status::TOO_LARGE, &[None]).shed, Some(0));
        let others = [Some(verdict::DELIVERED), None, Some(verdict::REJECTED)];
        assert_eq!(judged(status::REJECT, &others).rejected_by_call, Some(1));
    }

    #[test]
    fn every_record_ends_in_exactly_one_place() {
        let verdicts = [None, Some(verdict::REJECTED), None, Some(verdict::DELIVERED), Some(verdict::RETRY)];
        for status in 0..20 {
            for records in 0..=verdicts.len() {
                let judgement = judged(status, &verdicts[..records]);
                let mut placed = [
                    judgement.delivered,
                    judgement.rejected,
                    judgement.retry,
                    judgement.split,
                    judgement.rejected_by_call.into_iter().collect(),
                    judgement.shed.into_iter().collect(),
                ]
                .concat();
                placed.sort_unstable();
                assert_eq!(placed, (0..records).collect::<Vec<_>>(), "{status}");
            }
        }
    }
}
