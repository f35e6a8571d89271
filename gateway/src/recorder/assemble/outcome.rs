//! Stage: how it went, from what the proxy saw and what the answer says.

use plugin_api::{EndReason, Status};

use super::Draft;

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) end_reason: EndReason,
    pub(crate) errors: u32,
    pub(crate) provider_errors: u32,
    pub(crate) error_type: Option<String>,
}

/// Our names for failures that the provider gives none.
const STREAM_INCOMPLETE: &str = "stream_incomplete";
const ANSWER_FAILED: &str = "answer_failed";

impl Draft {
    pub(crate) fn judge(&mut self) {
        let Self { exchange, answered, .. } = self;
        let refused = exchange.provider_status_code.is_some_and(|status| status >= 400);
        let unfinished = answered.unfinished && !refused && exchange.end == EndReason::Complete;
        let failed = answered.error.is_some() || unfinished;
        // Clients have all of a stream at its last event; many hang up there. What becomes of the connection after it is
        // no part of the answer.
        let served = answered.closed && !failed;
        let end_reason = match &exchange.end {
            EndReason::Complete | EndReason::ClientDisconnect if answered.is_streaming && failed => {
                EndReason::ProviderError
            }
            _ if served => EndReason::Complete,
            end => end.clone(),
        };
        let own_error = exchange.error.filter(|_| !served);
        let by_provider = refused || failed || end_reason == EndReason::ProviderError;
        let by_gateway = matches!(end_reason, EndReason::Timeout | EndReason::GatewayError)
            || (own_error.is_some() && !by_provider);
        let complete = end_reason == EndReason::Complete;
        let succeeded = complete && exchange.status_code.is_some_and(|status| status < 400);
        let provider_type = match &answered.error {
            Some(error) => {
                let name = error.name().map(str::to_owned);
                name.or_else(|| (!refused).then(|| ANSWER_FAILED.to_owned()))
            }
            None => unfinished.then(|| STREAM_INCOMPLETE.to_owned()),
        };
        self.outcome = Outcome {
            status: if succeeded && !by_provider && !by_gateway { Status::Success } else { Status::Error },
            end_reason,
            errors: u32::from(by_provider) + u32::from(by_gateway),
            provider_errors: u32::from(by_provider),
            error_type: own_error.map(str::to_owned).or(provider_type),
        };
    }
}
