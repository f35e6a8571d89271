//! From what a plugin said of a call to what becomes of each record, as a pure function.

use plugin_api::abi::{Status, Verdict, status, verdict};

/// What becomes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// The backend has it.
    Delivered,
    /// The backend will never take it, by a verdict on the record itself.
    Rejected,
    /// To be sent again, by a verdict on the record itself.
    Retry,
    /// The same, since it has no verdict where every record should have its own: a fault of the plugin's.
    Missing,
    /// What becomes of the call.
    OfTheCall,
}

/// What a status says of the call as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallDisposition {
    /// The backend answered for the records.
    Answered,
    /// It refused all of them together.
    Refused,
    /// They are too many, or too large.
    TooLarge,
    /// It could not take them now.
    Failed,
}

impl CallDisposition {
    /// An unknown status is a failure.
    pub(crate) const fn of(status: Status) -> Self {
        match status {
            status::OK | status::PER_RECORD => Self::Answered,
            status::REJECT => Self::Refused,
            status::TOO_LARGE => Self::TooLarge,
            _ => Self::Failed,
        }
    }
}

impl Disposition {
    /// A verdict on a record goes before the status of the call; an unknown one sends the record again.
    pub(crate) const fn of(status: Status, verdict: Option<Verdict>) -> Self {
        match verdict {
            Some(verdict::DELIVERED) => Self::Delivered,
            Some(verdict::REJECTED) => Self::Rejected,
            Some(_) => Self::Retry,
            None => match status {
                status::OK => Self::Delivered,
                status::PER_RECORD => Self::Missing,
                _ => Self::OfTheCall,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_a_verdict_shares_the_fate_of_its_call() {
        for (code, disposition, call) in [
            (status::OK, Disposition::Delivered, CallDisposition::Answered),
            (status::PER_RECORD, Disposition::Missing, CallDisposition::Answered),
            (status::REJECT, Disposition::OfTheCall, CallDisposition::Refused),
            (status::TOO_LARGE, Disposition::OfTheCall, CallDisposition::TooLarge),
            (status::RETRY, Disposition::OfTheCall, CallDisposition::Failed),
            (status::UNAUTHORIZED, Disposition::OfTheCall, CallDisposition::Failed),
            (status::TIMEOUT, Disposition::OfTheCall, CallDisposition::Failed),
            (status::PANIC, Disposition::OfTheCall, CallDisposition::Failed),
            (status::FAULT, Disposition::OfTheCall, CallDisposition::Failed),
            (4711, Disposition::OfTheCall, CallDisposition::Failed),
        ] {
            assert_eq!(
                (Disposition::of(code, None), CallDisposition::of(code)),
                (disposition, call),
                "{code}"
            );
        }
    }

    #[test]
    fn a_verdict_on_a_record_goes_before_the_fate_of_the_call() {
        for status in [status::OK, status::PER_RECORD, status::REJECT, status::TIMEOUT, 4711] {
            for (code, disposition) in [
                (verdict::DELIVERED, Disposition::Delivered),
                (verdict::REJECTED, Disposition::Rejected),
                (verdict::RETRY, Disposition::Retry),
                (99, Disposition::Retry),
            ] {
                assert_eq!(Disposition::of(status, Some(code)), disposition, "{status} {code}");
            }
        }
    }
}
