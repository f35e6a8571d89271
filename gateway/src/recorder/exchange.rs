//! One finished request, as the proxy hands it over: raw facts and raw bytes, nothing parsed yet.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;
use plugin_api::EndReason;
use uuid::Uuid;

use super::{dialect::Dialect, marked_bytes::MarkedBytes};
use crate::settings::Secret;

/// Ids, whoever names them (headers, bodies, the provider), are cut at this length.
pub const MAX_ID_BYTES: usize = 1024;

/// Paths are cut at this length.
pub const MAX_PATH_BYTES: usize = 4 * 1024;

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
    /// What the client proved itself with, one header a line. It is in no record: it is what is taken out of this one.
    pub credential: Option<Secret>,
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
    /// The caller's span, where it named one.
    pub parent_span_id: Option<[u8; 8]>,
    /// The caller's trace flags, or those of a new trace.
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
    pub content_type: Option<String>,
    /// `Content-Encoding` of the body: the kept bytes are still encoded.
    pub content_encoding: Option<String>,
    /// Bytes that passed on the wire, kept or not.
    pub size: u64,
    /// Since the request's start, when the first byte passed.
    pub first_byte: Option<Duration>,
    /// Whether the body passed to its end.
    pub complete: bool,
    /// What was kept.
    pub kept: Kept,
    /// `model` of a JSON object of which only the ends were kept, as it was written.
    pub model: Option<String>,
}

/// The kept bytes of a body, with their share of the memory for bodies.
#[derive(Debug, Default)]
pub enum Kept {
    /// Nothing was wanted (capture is off), or there was no body.
    #[default]
    Nothing,
    /// Every byte that passed, in order.
    Whole(MarkedBytes),
    /// The body went over a limit and is shed. Its ends are kept, since a stream names its model first and its usage
    /// last; what stands between them is gone.
    Ends {
        /// The first bytes, in order.
        head: MarkedBytes,
        /// The last bytes; they may begin in the middle of an event.
        tail: Vec<u8>,
    },
    /// The body is shed, and there was not even room for its ends.
    Shed,
}

/// The facts of one request that the gateway counts and measures itself.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Provider's name in the configuration.
    pub provider: Option<Arc<str>>,
    /// How it ended.
    pub end_reason: EndReason,
    /// Status sent to the client.
    pub status_code: Option<u16>,
    /// Until the last byte.
    pub total: Duration,
    /// Until the request was handed to the provider's connection.
    pub gateway_overhead: Option<Duration>,
}

impl Summary {
    /// What the proxy saw, without a look into the bodies.
    #[must_use]
    pub fn of(exchange: &Exchange) -> Self {
        Self {
            provider: exchange.provider.clone(),
            end_reason: exchange.end.clone(),
            status_code: exchange.status_code,
            total: exchange.times.total,
            gateway_overhead: exchange.times.sent,
        }
    }
}

impl Exchange {
    /// Bytes that it takes beside its bodies.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let Identity {
            thread_id,
            org_id,
            user_id,
            project_id,
            project_name,
            experiment_id,
            client_request_id,
        } = &self.identity;
        let [request, response] = [&self.request, &self.response];
        let texts = [
            thread_id,
            org_id,
            user_id,
            project_id,
            project_name,
            experiment_id,
            client_request_id,
            &self.provider_request_id,
            &request.content_type,
            &request.content_encoding,
            &response.content_type,
            &response.content_encoding,
            &request.model,
            &response.model,
        ];
        let texts = texts.into_iter().flatten().map(String::capacity).sum::<usize>()
            + self.credential.as_ref().map_or(0, |credential| credential.expose().len());
        (size_of::<Self>() + texts + self.path.capacity() + self.method.as_str().len()) as u64
    }
}

impl Captured {
    /// Whether the body is a stream of server-sent events.
    #[must_use]
    pub fn is_event_stream(&self) -> bool {
        self.is_media_type(|subtype| subtype == "event-stream")
    }

    /// Whether the media type's subtype, without parameters and in lower case, is what `wanted` says.
    pub(crate) fn is_media_type(&self, wanted: impl FnOnce(&str) -> bool) -> bool {
        let essence = self.content_type.as_deref().unwrap_or_default().split(';').next();
        let subtype = essence.unwrap_or_default().trim().split_once('/').map(|(_, subtype)| subtype);
        subtype.is_some_and(|subtype| wanted(&subtype.to_ascii_lowercase()))
    }
}

/// The start of `text`, at most `limit` bytes of it and no half of a character.
#[must_use]
pub fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Bytes as text, cut at `limit`. However many there are, no more than that is allocated for them.
#[must_use]
pub fn text(bytes: &[u8], limit: usize) -> String {
    // A character that is cut here lies behind the limit.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit + 4)]);
    cut(&text, limit).to_owned()
}

/// A text out of a body that names something: a model, a user. It is cut like any other.
pub(crate) fn id(text: Option<Cow<'_, str>>) -> Option<String> {
    text.map(|text| cut(&text, MAX_ID_BYTES).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        assert_eq!(cut("grün", 9), "grün");
        assert_eq!(cut("grün", 3), "gr");
        for (bytes, expected) in
            [("grün".as_bytes(), "gr"), (b"gr\xffn", "gr"), (b"a", "a"), ("日本".as_bytes(), "日")]
        {
            assert_eq!(text(bytes, 3), expected);
        }
        assert_eq!(text(&[0xff; 5000], 1024).len(), 1023);
    }
}
