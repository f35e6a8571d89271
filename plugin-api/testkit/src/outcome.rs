//! What a call to an exporter came to.

use std::{fmt, time::Duration};

use plugin_api::abi::{self, Status, status, verdict};

/// What an exporter said about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend has it.
    Delivered,
    /// Send it again, for this reason.
    Retry(String),
    /// The backend will never take it, for this reason.
    Rejected(String),
}

impl Verdict {
    /// Its number in the ABI.
    pub(crate) fn code(&self) -> abi::Verdict {
        match self {
            Self::Delivered => verdict::DELIVERED,
            Self::Retry(_) => verdict::RETRY,
            Self::Rejected(_) => verdict::REJECTED,
        }
    }

    /// Its text; none where the record was delivered.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Delivered => "",
            Self::Retry(reason) | Self::Rejected(reason) => reason,
        }
    }
}

/// What one call of `export` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One of the constants in [`abi::status`](plugin_api::abi::status).
    pub status: Status,
    /// The error's text; empty after `OK`.
    pub message: String,
    /// For each record the last verdict the exporter gave on it, if any.
    pub verdicts: Vec<Option<Verdict>>,
    /// The wait that the backend asked for.
    pub retry_after: Option<Duration>,
    /// Breaches of the contract: verdicts on records that are not there, unknown ones, missing ones.
    pub faults: Vec<String>,
}

impl Outcome {
    /// Whether record `index` counts as delivered: by its own verdict, else by the fate of the call.
    #[must_use]
    pub fn is_delivered(&self, index: usize) -> bool {
        match self.verdicts.get(index) {
            Some(Some(verdict)) => *verdict == Verdict::Delivered,
            Some(None) => self.status == status::OK,
            None => false,
        }
    }

    /// The reasons with which records were rejected, in the order of the records.
    #[must_use]
    pub fn rejections(&self) -> Vec<&str> {
        let verdicts = self.verdicts.iter().flatten();
        verdicts.filter(|verdict| matches!(verdict, Verdict::Rejected(_))).map(Verdict::reason).collect()
    }

    /// One letter for each record: `D` delivered, `r` to be sent again, `x` rejected, `-` no verdict of its own.
    #[must_use]
    pub fn letters(&self) -> String {
        let letter = |verdict: &Option<Verdict>| match verdict {
            Some(Verdict::Delivered) => 'D',
            Some(Verdict::Retry(_)) => 'r',
            Some(Verdict::Rejected(_)) => 'x',
            None => '-',
        };
        self.verdicts.iter().map(letter).collect()
    }

    /// Whether every record is delivered and the contract was kept.
    #[must_use]
    pub fn is_all_delivered(&self) -> bool {
        self.faults.is_empty() && (0..self.verdicts.len()).all(|index| self.is_delivered(index))
    }
}

/// A call that failed, as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of the constants in [`abi::status`](plugin_api::abi::status), never `OK`.
    pub status: Status,
    /// The plugin's text.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.status, self.message)
    }
}

impl std::error::Error for Failure {}
