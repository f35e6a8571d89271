//! What a receiver answered, and what that means for the records. Pure.

use std::time::Duration;

use exporter_kit::{excerpt::excerpt, http::Class};
use prost::Message;

/// A request that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Records of it that were refused all the same (`partial_success`). Which ones is not said.
    pub rejected: u64,
    /// Why, or a warning.
    pub message: String,
}

impl Taken {
    /// Reads `Export…ServiceResponse`, whose fields are the same for all signals. What cannot be read says nothing: the
    /// status has said already that the request was taken.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let partial = ExportResponse::decode(body).ok().and_then(|response| response.partial_success);
        let Some(PartialSuccess { rejected, error_message }) = partial else { return Self::default() };
        Self { rejected: u64::try_from(rejected).unwrap_or_default(), message: one_line(&error_message) }
    }
}

/// What an HTTP status means. [OTLP](https://opentelemetry.io/docs/specs/otlp/#failures-1) retries 429, 502, 503 and
/// 504, and nothing else.
#[must_use]
pub fn http_class(status: u16) -> Class {
    match status {
        200..=299 => Class::Delivered,
        401 | 403 | 407 => Class::Unauthorized,
        413 => Class::TooLarge,
        429 | 502 | 503 | 504 => Class::Retry,
        _ => Class::Reject,
    }
}

/// What a [gRPC status](https://opentelemetry.io/docs/specs/otlp/#failures) means. RESOURCE_EXHAUSTED is retried only
/// when the receiver says when (`RetryInfo`).
#[must_use]
pub fn grpc_class(code: u32, says_when: bool) -> Class {
    match code {
        0 => Class::Delivered,
        1 | 4 | 10 | 11 | 14 | 15 => Class::Retry,
        7 | 16 => Class::Unauthorized,
        8 if says_when => Class::Retry,
        _ => Class::Reject,
    }
}

/// The name of a gRPC status.
#[must_use]
pub fn grpc_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("an unknown status")
}

/// A `google.rpc.Status`: its message, and the wait in its `RetryInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// For people.
    pub message: String,
    /// How long to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Reads one; `None` for other bytes.
    #[must_use]
    pub fn read(status: &[u8]) -> Option<Self> {
        let status = RpcStatus::decode(status).ok()?;
        let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"));
        let retry_after = info.and_then(|info| RetryInfo::decode(&*info.value).ok()?.retry_delay?.into_std());
        Some(Self { message: one_line(&status.message), retry_after })
    }
}

/// Characters of an answer that are quoted.
const QUOTED: usize = 300;

/// A text as the end of a sentence: on one line, and not too long.
#[must_use]
pub fn one_line(text: &str) -> String {
    excerpt(text, QUOTED)
}

#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl ProtoDuration {
    /// A day is longer than anybody keeps records waiting.
    fn into_std(self) -> Option<Duration> {
        let (seconds, nanos) = (u64::try_from(self.seconds).ok()?, u32::try_from(self.nanos).ok()?);
        let nanos = nanos.min(999_999_999);
        Some(Duration::new(seconds, nanos).min(Duration::from_secs(24 * 60 * 60)))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };

    use super::*;

    #[test]
    fn a_status_says_what_becomes_of_the_records() {
        for (statuses, class) in [
            (&[200, 202, 204][..], Class::Delivered),
            (&[429, 502, 503, 504], Class::Retry),
            (&[401, 403, 407], Class::Unauthorized),
            (&[413], Class::TooLarge),
            (&[301, 400, 404, 405, 408, 415, 422, 500, 501, 507], Class::Reject),
        ] {
            for status in statuses {
                assert_eq!(http_class(*status), class, "{status}");
            }
        }
    }

    #[test]
    fn a_grpc_status_says_what_becomes_of_the_records() {
        for (name, says_when, class) in [
            ("OK", false, Class::Delivered),
            ("UNAVAILABLE", false, Class::Retry),
            ("DEADLINE_EXCEEDED", false, Class::Retry),
            ("ABORTED", false, Class::Retry),
            ("CANCELLED", false, Class::Retry),
            ("OUT_OF_RANGE", false, Class::Retry),
            ("DATA_LOSS", false, Class::Retry),
            ("RESOURCE_EXHAUSTED", true, Class::Retry),
            ("RESOURCE_EXHAUSTED", false, Class::Reject),
            ("UNAUTHENTICATED", false, Class::Unauthorized),
            ("PERMISSION_DENIED", false, Class::Unauthorized),
            ("INVALID_ARGUMENT", true, Class::Reject),
            ("UNIMPLEMENTED", false, Class::Reject),
            ("INTERNAL", false, Class::Reject),
            ("UNKNOWN", false, Class::Reject),
        ] {
            let code = (0..17).find(|code| grpc_name(*code) == name).unwrap();
            assert_eq!(grpc_class(code, says_when), class, "{name}");
        }
        assert_eq!((grpc_class(99, true), grpc_name(99)), (Class::Reject, "an unknown status"));
    }

    #[test]
    fn a_partial_success_is_read() {
        let answer = |rejected_spans, message: &str| {
            let error_message = message.to_owned();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            Taken::read(&ExportTraceServiceResponse { partial_success }.encode_to_vec())
        };
        assert_eq!(answer(3, "too\n old"), Taken { rejected: 3, message: "too old".to_owned() });
        assert_eq!(answer(0, "warning"), Taken { rejected: 0, message: "warning".to_owned() });
        assert_eq!(answer(-1, ""), Taken::default());
        assert_eq!((Taken::read(b""), Taken::read(b"{}")), (Taken::default(), Taken::default()));
    }

    #[test]
    fn a_failure_says_why_and_when() {
        let status = |type_url: &str, seconds, nanos| {
            let value = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) }.encode_to_vec();
            let other =
                Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(), value: vec![1] };
            let details = vec![other, Any { type_url: type_url.to_owned(), value }];
            Failure::read(&RpcStatus { code: 8, message: "busy".to_owned(), details }.encode_to_vec())
        };
        let url = "type.googleapis.com/google.rpc.RetryInfo";
        for (url, seconds, nanos, expected) in [
            (url, 2, 500_000_000, Some(Duration::from_millis(2500))),
            (url, 0, 0, Some(Duration::ZERO)),
            (url, -1, 0, None),
            (url, i64::MAX, 0, Some(Duration::from_secs(86_400))),
            ("type.googleapis.com/google.rpc.Help", 2, 0, None),
        ] {
            let expected = Failure { message: "busy".to_owned(), retry_after: expected };
            assert_eq!(status(url, seconds, nanos), Some(expected));
        }
        assert_eq!(Failure::read(b"<html>"), None);
    }
}
