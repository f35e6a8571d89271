//! One finished request, as the proxy hands it over: raw facts and raw bytes, nothing parsed yet.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method};
use plugin_api::EndReason;
use uuid::Uuid;

use crate::providers::Dialect;

/// Everything that was observed of one request. Made once, at its end, whatever the end was.
#[derive(Debug)]
pub struct Exchange {
    /// The record's id, made when the request started.
    pub id: Uuid,
    /// Wall clock at the request's start.
    pub started: SystemTime,
    /// Who and what for, from the telemetry headers.
    pub identity: Identity,
    /// W3C trace of the request.
    pub trace: Trace,
    /// Provider's name in the configuration, where routing found one.
    pub provider: Option<Arc<str>>,
    /// How to read the provider's bodies.
    pub dialect: Dialect,
    /// HTTP method.
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// When things happened.
    pub times: Times,
    /// The request's body.
    pub request: Captured,
    /// The answer's body, as the client got it.
    pub response: Captured,
    /// Status sent to the client, if any was.
    pub status_code: Option<u16>,
    /// Status that the provider sent, if any.
    pub provider_status_code: Option<u16>,
    /// The provider's id of this request, from its headers.
    pub provider_request_id: Option<String>,
    /// How it ended, as far as the proxy can see. An error event inside a stream is found by the recorder.
    pub end: EndReason,
    /// Stable code of the gateway's own error, when it made one.
    pub error: Option<&'static str>,
}

/// Values of the telemetry headers; empty ones count as absent.
#[derive(Debug, Default)]
pub struct Identity {
    /// `x-thread-id`
    pub thread_id: Option<String>,
    /// `x-organisation-id`, `x-organization-id`
    pub org_id: Option<String>,
    /// `x-user-id`
    pub user_id: Option<String>,
    /// `x-project-id`
    pub project_id: Option<String>,
    /// `x-project-name`
    pub project_name: Option<String>,
    /// `x-experiment-id`
    pub experiment_id: Option<String>,
    /// `x-request-id`, the caller's own id of this request.
    pub client_request_id: Option<String>,
}

/// The trace that the request belongs to, and the gateway's own span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The caller's trace id, or a new one.
    pub trace_id: [u8; 16],
    /// The gateway's span.
    pub span_id: [u8; 8],
    /// The caller's trace flags.
    pub flags: u8,
}

/// Durations since the request's start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Times {
    /// Until the last byte, error or disconnect.
    pub total: Duration,
    /// Until the request was handed to the provider's connection.
    pub sent: Option<Duration>,
    /// Until the provider's headers came.
    pub provider_headers: Option<Duration>,
}

/// What was kept of one body.
#[derive(Debug, Default)]
pub struct Captured {
    /// `Content-Type` of the body.
    pub content_type: Option<HeaderValue>,
    /// `Content-Encoding` of the body: the kept bytes are still encoded.
    pub content_encoding: Option<HeaderValue>,
    /// Bytes that passed on the wire, kept or not.
    pub size: u64,
    /// Since the request's start, when the first byte passed.
    pub first_byte: Option<Duration>,
    /// Whether the body passed to its end.
    pub complete: bool,
    /// What was kept.
    pub kept: Kept,
}

/// The kept bytes of a body, with the time at which each piece passed.
#[derive(Debug, Default)]
pub enum Kept {
    /// Nothing was wanted (capture is off), or there was no body.
    #[default]
    Nothing,
    /// Every byte that passed, in order.
    Whole(Vec<Piece>),
    /// The body went over a limit and is shed. Its ends are kept, since a stream names its model first and its usage
    /// last; what stands between them is gone.
    Ends {
        /// The first bytes, in order.
        head: Vec<Piece>,
        /// The last bytes; they may begin in the middle of an event.
        tail: Bytes,
    },
}

/// Bytes that passed together.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The bytes.
    pub bytes: Bytes,
    /// Since the request's start, when they passed.
    pub at: Duration,
}
