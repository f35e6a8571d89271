//! From an exchange to a record: a draft goes through the stages, one after the other, and each fills in its part.

mod answer;
mod masked;
mod metrics;
mod outcome;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use plugin_api::{CostSource, EndReason, Status, Usd};

use self::{answer::Answered, outcome::Outcome, request::Asked};
use super::{body::Body, exchange::Exchange, record::Record};
use crate::mask::Mask;

/// Makes the record of a finished request.
#[must_use]
pub fn assemble(exchange: Exchange, settings: &Settings) -> Record {
    let mut draft = Draft::new(exchange);
    draft.read_request(settings);
    draft.read_response(settings);
    draft.judge();
    draft.into_record(settings)
}

/// What the recorder is told once, at start-up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `telemetry.service_name`
    pub service_name: String,
    /// `telemetry.environment`
    pub environment: String,
    /// `telemetry.capture.request`: whether the record carries the request's body.
    pub capture_request: bool,
    /// `telemetry.capture.response`: whether the record carries the answer's body.
    pub capture_response: bool,
    /// `telemetry.capture.streamed_data`: whether a stream's answer carries the chunks too.
    pub capture_streamed_data: bool,
    /// `telemetry.capture.chunk_times`: whether with these chunks goes when each of them came.
    pub capture_chunk_times: bool,
    /// `telemetry.capture.max_body_bytes`: what a record carries of one body, and what may come out of a body in a
    /// content coding. Of an event stream it bounds the answer, and [`STREAM_FACTOR`] times as much may be read for it.
    pub max_body_bytes: usize,
    /// Takes credentials out of what is recorded.
    pub(crate) mask: Arc<Mask>,
}

/// An event stream may pass in this many times the size of its content: every token has about 330 bytes around it.
pub const STREAM_FACTOR: usize = 16;

/// What is read of each end of a body that is too large: a stream names its model first and its usage last.
pub const END_BYTES: usize = 16 * 1024;

impl Settings {
    fn stream_limit(&self) -> usize {
        self.max_body_bytes.saturating_mul(STREAM_FACTOR)
    }
}

/// A record in the making.
#[derive(Debug)]
struct Draft {
    exchange: Exchange,
    asked: Asked,
    request: Body,
    answered: Answered,
    response: Body,
    /// Length of the response before `streamed_data`, when it has that.
    before_streamed_data: Option<usize>,
    /// Chunks were left out of `streamed_data`.
    chunks_lost: bool,
    cost: Cost,
    outcome: Outcome,
}

/// What the request cost. Unknown, until there is a price table.
#[derive(Debug)]
struct Cost {
    amount: Option<Usd>,
    source: CostSource,
    price_version: Option<String>,
}

impl Draft {
    fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            asked: Asked::default(),
            request: Body::Nothing,
            answered: Answered::default(),
            response: Body::Nothing,
            before_streamed_data: None,
            chunks_lost: false,
            cost: Cost { amount: None, source: CostSource::None, price_version: None },
            outcome: Outcome {
                status: Status::Error,
                end_reason: EndReason::GatewayError,
                errors: 0,
                provider_errors: 0,
                error_type: None,
            },
        }
    }
}
