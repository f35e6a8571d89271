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

impl Draft {
    pub(crate) fn judge(&mut self) {
        let Self { exchange, answered, .. } = self;
        let refused = exchange.provider_status_code.is_some_and(|status| status >= 400);
        let said_error = answered.error.is_some();
        let end_reason = match &exchange.end {
            EndReason::Complete | EndReason::ClientDisconnect if answered.is_streaming && said_error => {
                EndReason::ProviderError
            }
            // Some clients hang up at the last event, without waiting for the end of the body.
            EndReason::ClientDisconnect if answered.closed => EndReason::Complete,
            end => end.clone(),
        };
        let by_provider = refused || said_error || end_reason == EndReason::ProviderError;
        let by_gateway = matches!(end_reason, EndReason::Timeout | EndReason::GatewayError)
            || (exchange.error.is_some() && !by_provider);
        let complete = end_reason == EndReason::Complete;
        let succeeded = complete && exchange.status_code.is_some_and(|status| status < 400);
        let provider_type = answered.error.as_ref().and_then(|error| error.name()).map(str::to_owned);
        self.outcome = Outcome {
            status: if succeeded && !by_provider && !by_gateway { Status::Success } else { Status::Error },
            end_reason,
            errors: u32::from(by_provider) + u32::from(by_gateway),
            provider_errors: u32::from(by_provider),
            error_type: exchange.error.map(str::to_owned).or(provider_type),
        };
    }
}
