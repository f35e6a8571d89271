//! What becomes of each record after a call: `plugin_api::judge`'s rules, with the texts and what the books need.

use plugin_api::judge::{self, is_failure};

use crate::loader::{ExportOutcome, RecordVerdict};

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

pub(crate) fn judge(outcome: &ExportOutcome, records: usize) -> Judgement {
    let status = outcome.status.code();
    let verdict_of = |index| outcome.verdicts.get(index).and_then(Option::as_ref);
    let judged = judge::judge(status, records, |index| verdict_of(index).map(RecordVerdict::code));
    let by_record = |index| match verdict_of(index) {
        Some(RecordVerdict::Rejected { reason }) => reason.clone(),
        _ => String::new(),
    };
    let rejected = judged.rejected.iter().map(|index| (*index, RejectReason::Record, by_record(*index)));
    let by_call = judged.rejected_by_call.map(|index| (index, RejectReason::Call, outcome.message.clone()));
    Judgement {
        delivered: judged.delivered,
        rejected: rejected.chain(by_call).collect(),
        retry: judged.retry,
        split: judged.split,
        shed: judged.shed,
        failed: is_failure(status),
        faults: outcome.faults + u32::try_from(judged.missing_verdicts).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::CallStatus;

    fn outcome(status: CallStatus, verdicts: Vec<Option<RecordVerdict>>) -> ExportOutcome {
        ExportOutcome { status, message: "text".into(), verdicts, faults: 1, retry_after: None }
    }

    #[test]
    fn reasons_are_those_of_the_record_or_of_the_call() {
        let verdicts = vec![Some(RecordVerdict::Rejected { reason: "bad".into() }), None];
        let judgement = judge(&outcome(CallStatus::Reject, verdicts), 2);
        let expected =
            [(0, RejectReason::Record, "bad".to_owned()), (1, RejectReason::Call, "text".to_owned())];
        assert_eq!(judgement.rejected, expected);
    }

    #[test]
    fn missing_verdicts_are_faults_beside_those_that_the_loader_saw() {
        let verdicts = vec![Some(RecordVerdict::Delivered), None, None];
        let judgement = judge(&outcome(CallStatus::PerRecord, verdicts), 3);
        assert_eq!((judgement.faults, judgement.retry, judgement.failed), (3, vec![1, 2], false));
        assert!(judge(&outcome(CallStatus::Panic, vec![]), 1).failed);
    }
}
