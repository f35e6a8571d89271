//! From what a plugin said of a call to what becomes of each record, as a pure function.

use plugin_api::abi::{Status, Verdict, status, verdict};

/// What becomes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
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
pub(crate) enum CallFate {
    /// The backend answered for the records.
    Answered,
    /// It refused all of them together.
    Refused,
    /// They are too many, or too large.
    TooLarge,
    /// It could not take them now.
    Failed,
}

impl CallFate {
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

impl Fate {
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
        for (code, fate, call) in [
            (status::OK, Fate::Delivered, CallFate::Answered),
            (status::PER_RECORD, Fate::Missing, CallFate::Answered),
            (status::REJECT, Fate::OfTheCall, CallFate::Refused),
            (status::TOO_LARGE, Fate::OfTheCall, CallFate::TooLarge),
            (status::RETRY, Fate::OfTheCall, CallFate::Failed),
            (status::UNAUTHORIZED, Fate::OfTheCall, CallFate::Failed),
            (status::TIMEOUT, Fate::OfTheCall, CallFate::Failed),
            (status::PANIC, Fate::OfTheCall, CallFate::Failed),
            (status::FAULT, Fate::OfTheCall, CallFate::Failed),
            (4711, Fate::OfTheCall, CallFate::Failed),
        ] {
            assert_eq!((Fate::of(code, None), CallFate::of(code)), (fate, call), "{code}");
        }
    }

    #[test]
    fn a_verdict_on_a_record_goes_before_the_fate_of_the_call() {
        for status in [status::OK, status::PER_RECORD, status::REJECT, status::TIMEOUT, 4711] {
            for (code, fate) in [
                (verdict::DELIVERED, Fate::Delivered),
                (verdict::REJECTED, Fate::Rejected),
                (verdict::RETRY, Fate::Retry),
                (99, Fate::Retry),
            ] {
                assert_eq!(Fate::of(status, Some(code)), fate, "{status} {code}");
            }
        }
    }
}
