//! How an exporter says what went wrong. The text goes to the operator: say the cause and, where there is one, the
//! cure. Never put a secret into it.

use std::{error::Error, fmt, time::Duration};

use crate::abi::{Status, status};

/// Why a batch, or what is left of it after the verdicts on single records, was not delivered.
///
/// Any `std::error::Error` becomes a [retry](ExportError::retry) by `?`: what nobody classified is tried again.
#[derive(Debug)]
pub struct ExportError {
    pub(crate) status: Status,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl ExportError {
    /// The backend could not take it now: network, overload, a status such as 429 or 503. It is sent again.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(status::RETRY, message)
    }

    /// The backend refused the request, a status such as 400. The gateway splits the batch to find the record at
    /// fault, so that one bad record takes no other with it. A record that is refused alone is rejected for good once the
    /// backend has taken another; where it takes none, the set-up is at fault, and the records wait.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::new(status::REJECT, message)
    }

    /// The batch is too large, a status such as 413. The gateway splits it.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(status::TOO_LARGE, message)
    }

    /// The backend refuses the credentials, a status such as 401 or 403. The circuit breaker opens at once.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(status::UNAUTHORIZED, message)
    }

    /// Every record was given a verdict; one that was not counts as a fault of the plugin and is sent again.
    #[must_use]
    pub fn per_record() -> Self {
        Self::new(status::PER_RECORD, "see the verdicts")
    }

    /// Asks to wait at least this long before the next attempt (`Retry-After`).
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Which of the constructors made it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.status {
            status::REJECT => ErrorKind::Reject,
            status::TOO_LARGE => ErrorKind::TooLarge,
            status::UNAUTHORIZED => ErrorKind::Unauthorized,
            status::PER_RECORD => ErrorKind::PerRecord,
            _ => ErrorKind::Retry,
        }
    }

    /// The wait that was asked for by [`after`](Self::after).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }
}

/// The kinds of [`ExportError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`ExportError::retry`].
    Retry,
    /// [`ExportError::reject`].
    Reject,
    /// [`ExportError::too_large`].
    TooLarge,
    /// [`ExportError::unauthorized`].
    Unauthorized,
    /// [`ExportError::per_record`].
    PerRecord,
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error> From<E> for ExportError {
    fn from(error: E) -> Self {
        Self::retry(causes(&error))
    }
}

/// Why an instance could not be made.
///
/// A backend that is down is no reason: start, and let `export` say [`ExportError::retry`]; the gateway's circuit
/// breaker takes over. Any `std::error::Error` becomes a [failure](InitError::failed) by `?`.
#[derive(Debug)]
pub struct InitError {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl InitError {
    /// The settings fit the schema and still cannot work. Name the setting.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self { status: status::INVALID_CONFIG, message: message.into() }
    }

    /// Something else failed: a file that cannot be opened, a key that cannot be read.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { status: status::FAULT, message: message.into() }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error> From<E> for InitError {
    fn from(error: E) -> Self {
        Self::failed(causes(&error))
    }
}

/// Whether the backend can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It can.
    Healthy,
    /// It cannot, with the reason.
    Unhealthy(String),
    /// The plugin cannot tell.
    Unknown,
}

/// An error's text with its causes, outermost first; what an outer text says already is not said again.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
