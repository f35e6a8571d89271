//! From what a plugin said of a call to what becomes of each record: the gateway's rules.
//!
//! Pure, and the same as the gateway's own (`gateway/src/pipeline/judge.rs`), case by case.

use crate::{
    abi::{Status, status},
    testing::{Outcome, Verdict},
};

/// What becomes of the records of one call. Indices are places in the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub delivered: Vec<usize>,
    pub rejected: Vec<(usize, String)>,
    pub retry: Vec<usize>,
    /// To be split in two and sent again: one of them is bad, or they are too many.
    pub split: Vec<usize>,
    /// Alone in its call and still too large: to be sent without its bodies.
    pub shed: Option<usize>,
}

/// What becomes of a record that has no verdict of its own.
#[derive(Clone, Copy)]
enum Rest {
    Delivered,
    Retry,
    Reject,
    TooLarge,
}

pub(super) fn judge(outcome: &Outcome, records: usize) -> Judgement {
    let mut judgement = Judgement::default();
    let rest = rest(outcome.status);
    let mut without_verdict = Vec::new();
    for index in 0..records {
        match outcome.verdicts.get(index).and_then(Option::as_ref) {
            Some(Verdict::Delivered) => judgement.delivered.push(index),
            Some(Verdict::Retry(_)) => judgement.retry.push(index),
            Some(Verdict::Rejected(reason)) => judgement.rejected.push((index, reason.clone())),
            None => without_verdict.push(index),
        }
    }
    match (rest, without_verdict.as_slice()) {
        (_, []) => {}
        (Rest::Delivered, _) => judgement.delivered.extend(without_verdict),
        (Rest::Retry, _) => judgement.retry.extend(without_verdict),
        (Rest::Reject, &[only]) => judgement.rejected.push((only, outcome.message.clone())),
        (Rest::TooLarge, &[only]) => judgement.shed = Some(only),
        (Rest::Reject | Rest::TooLarge, _) => judgement.split = without_verdict,
    }
    judgement
}

fn rest(status: Status) -> Rest {
    match status {
        status::OK => Rest::Delivered,
        status::REJECT => Rest::Reject,
        status::TOO_LARGE => Rest::TooLarge,
        _ => Rest::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Status, verdicts: Vec<Option<Verdict>>) -> Outcome {
        Outcome { status, message: "text".to_owned(), verdicts, retry_after: None, faults: Vec::new() }
    }

    #[test]
    fn without_verdicts_all_records_share_the_fate_of_the_call() {
        let all = || vec![0, 1, 2];
        let none = Judgement::default;
        for (status, expected) in [
            (status::OK, Judgement { delivered: all(), ..none() }),
            (status::RETRY, Judgement { retry: all(), ..none() }),
            (status::UNAUTHORIZED, Judgement { retry: all(), ..none() }),
            (status::PANIC, Judgement { retry: all(), ..none() }),
            (status::TIMEOUT, Judgement { retry: all(), ..none() }),
            (4711, Judgement { retry: all(), ..none() }),
            (status::REJECT, Judgement { split: all(), ..none() }),
            (status::TOO_LARGE, Judgement { split: all(), ..none() }),
            (status::PER_RECORD, Judgement { retry: all(), ..none() }),
        ] {
            assert_eq!(judge(&outcome(status, vec![]), 3), expected, "{status}");
        }
    }

    #[test]
    fn a_verdict_on_a_record_goes_before_the_fate_of_the_call() {
        let verdicts = vec![
            Some(Verdict::Delivered),
            Some(Verdict::Retry("busy".to_owned())),
            Some(Verdict::Rejected("bad".to_owned())),
            None,
        ];
        let judgement = judge(&outcome(status::RETRY, verdicts.clone()), 4);
        assert_eq!(judgement.delivered, [0]);
        assert_eq!(judgement.retry, [1, 3]);
        assert_eq!(judgement.rejected, [(2, "bad".to_owned())]);
        assert_eq!(judge(&outcome(status::OK, verdicts), 4).delivered, [0, 3]);
    }

    #[test]
    fn a_single_record_is_rejected_or_shed_where_many_are_split() {
        let rejected = judge(&outcome(status::REJECT, vec![]), 1);
        assert_eq!(rejected.rejected, [(0, "text".to_owned())]);
        assert_eq!(judge(&outcome(status::TOO_LARGE, vec![]), 1).shed, Some(0));
    }
}
