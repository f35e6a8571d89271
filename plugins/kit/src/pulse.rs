//! Health, from what the last calls came to.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use plugin_api::{ErrorKind, ExportError, Health};

/// What `health` answers when the backend has no better way to tell: the outcome of the last export.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Health>>);

impl Pulse {
    /// Takes note of an export's outcome, and passes it on.
    ///
    /// # Errors
    /// The outcome's own.
    pub fn note(&self, outcome: Result<(), ExportError>) -> Result<(), ExportError> {
        let health = match &outcome {
            // A backend that refuses a record works.
            Err(error) if matches!(error.kind(), ErrorKind::Retry | ErrorKind::Unauthorized) => {
                Health::Unhealthy(error.to_string())
            }
            _ => Health::Healthy,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(health);
        outcome
    }

    /// Unknown before the first export.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(Health::Unknown)
    }
}

/// The last yes to a question about the credentials. It holds for five minutes, so that not every look at the health
/// is a request.
#[derive(Debug, Default)]
pub struct LastYes(Mutex<Option<Instant>>);

impl LastYes {
    const HOLDS: Duration = Duration::from_mins(5);

    /// The answer was yes.
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it still holds; false when there was none.
    #[must_use]
    pub fn holds(&self) -> bool {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < Self::HOLDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_backend_that_cannot_take_records_is_unhealthy() {
        let pulse = Pulse::default();
        assert_eq!(pulse.health(), Health::Unknown);
        assert!(pulse.note(Err(ExportError::retry("connection refused"))).is_err());
        assert_eq!(pulse.health(), Health::Unhealthy("connection refused".to_owned()));
        for outcome in [Ok(()), Err(ExportError::per_record()), Err(ExportError::reject("bad"))] {
            let _ = pulse.note(outcome);
            assert_eq!(pulse.health(), Health::Healthy);
        }
        let _ = pulse.note(Err(ExportError::unauthorized("wrong key")));
        assert_eq!(pulse.health(), Health::Unhealthy("wrong key".to_owned()));
    }

    #[test]
    fn a_yes_holds_once_it_was_given() {
        let yes = LastYes::default();
        assert!(!yes.holds());
        yes.note();
        assert!(yes.holds());
    }
}
