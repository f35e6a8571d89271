//! What a receiver answered, and what that means for the records. Pure.

use std::time::Duration;

use exporter_kit::excerpt::excerpt;
use prost::Message;
use serde_json::Value;

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

    /// The same of OTLP's JSON, whose 64-bit numbers are text.
    #[must_use]
    pub fn read_json(body: &[u8]) -> Self {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let partial = answer["partialSuccess"].as_object();
        let rejected = partial.into_iter().flatten().find(|(name, _)| name.starts_with("rejected"));
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let message = answer.pointer("/partialSuccess/errorMessage").and_then(Value::as_str);
        Self {
            rejected: rejected.and_then(|(_, value)| number(value)).unwrap_or_default(),
            message: one_line(message.unwrap_or_default()),
        }
    }

    /// Whether all the records of a request that had so many were refused.
    #[must_use]
    pub fn is_none_of(&self, records: usize) -> bool {
        self.rejected > 0 && self.rejected >= records as u64
    }
}

/// What a failure means for the records of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Later.
    Retry,
    /// Fewer at once.
    TooLarge,
    /// The credentials are wrong.
    Unauthorized,
    /// There is nothing at this address that knows this signal.
    Absent,
    /// Never.
    Reject,
}

/// How failures are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Whether what [OTLP](https://opentelemetry.io/docs/specs/otlp/#failures) calls a failure for good is one even where
    /// receivers answer it in a bad minute: 500, 408, RESOURCE_EXHAUSTED.
    pub strict: bool,
}

impl Answers {
    /// What an HTTP status that is no success means. OTLP retries 429, 502, 503 and 504.
    #[must_use]
    pub fn http(self, status: u16, message: &str) -> Meaning {
        match status {
            401 | 403 | 407 => Meaning::Unauthorized,
            404 | 405 => Meaning::Absent,
            413 => Meaning::TooLarge,
            // A redirect speaks about the address too, but not about the signal.
            300..=399 | 429 | 502 | 503 | 504 => Meaning::Retry,
            _ if says_too_large(message) => Meaning::TooLarge,
            408 | 500 if !self.strict => Meaning::Retry,
            _ => Meaning::Reject,
        }
    }

    /// What a gRPC status that is not OK means.
    #[must_use]
    pub fn grpc(self, code: u32, failure: &Failure) -> Meaning {
        match code {
            1 | 4 | 10 | 11 | 14 | 15 => Meaning::Retry,
            7 | 16 => Meaning::Unauthorized,
            12 => Meaning::Absent,
            _ if says_too_large(&failure.message) => Meaning::TooLarge,
            8 if failure.retry_after.is_some() || !self.strict => Meaning::Retry,
            _ => Meaning::Reject,
        }
    }
}

/// Whether a receiver's words say that the request was too large for it. The statuses for that are used for other things
/// too: 400 by the Collector, RESOURCE_EXHAUSTED by every gRPC server.
fn says_too_large(message: &str) -> bool {
    const WORDS: [&str; 4] = ["larger than max", "body too large", "message too large", "payload too large"];
    let message = message.to_ascii_lowercase();
    WORDS.iter().any(|words| message.contains(words))
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

impl Failure {
    /// The same of OTLP's JSON; `None` where it has no message.
    #[must_use]
    pub fn read_json(status: &[u8]) -> Option<Self> {
        let status: Value = serde_json::from_slice(status).ok()?;
        Some(Self { message: one_line(status["message"].as_str()?), retry_after: None })
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

    const FIELD: Answers = Answers { strict: false };
    const LETTER: Answers = Answers { strict: true };

    #[test]
    fn a_status_says_what_becomes_of_the_records() {
        for (statuses, meaning, by_letter) in [
            (&[301, 429, 502, 503, 504][..], Meaning::Retry, Meaning::Retry),
            (&[408, 500], Meaning::Retry, Meaning::Reject),
            (&[401, 403, 407], Meaning::Unauthorized, Meaning::Unauthorized),
            (&[404, 405], Meaning::Absent, Meaning::Absent),
            (&[413], Meaning::TooLarge, Meaning::TooLarge),
            (&[400, 415, 422, 501, 507], Meaning::Reject, Meaning::Reject),
        ] {
            for status in statuses {
                let found = [FIELD, LETTER].map(|answers| answers.http(*status, "no"));
                assert_eq!(found, [meaning, by_letter], "{status}");
            }
        }
    }

    #[test]
    fn a_grpc_status_says_what_becomes_of_the_records() {
        for (name, says_when, meaning, by_letter) in [
            ("UNAVAILABLE", false, Meaning::Retry, Meaning::Retry),
            ("DEADLINE_EXCEEDED", false, Meaning::Retry, Meaning::Retry),
            ("ABORTED", false, Meaning::Retry, Meaning::Retry),
            ("CANCELLED", false, Meaning::Retry, Meaning::Retry),
            ("OUT_OF_RANGE", false, Meaning::Retry, Meaning::Retry),
            ("DATA_LOSS", false, Meaning::Retry, Meaning::Retry),
            ("RESOURCE_EXHAUSTED", true, Meaning::Retry, Meaning::Retry),
            ("RESOURCE_EXHAUSTED", false, Meaning::Retry, Meaning::Reject),
            ("UNAUTHENTICATED", false, Meaning::Unauthorized, Meaning::Unauthorized),
            ("PERMISSION_DENIED", false, Meaning::Unauthorized, Meaning::Unauthorized),
            ("UNIMPLEMENTED", false, Meaning::Absent, Meaning::Absent),
            ("INVALID_ARGUMENT", true, Meaning::Reject, Meaning::Reject),
            ("INTERNAL", false, Meaning::Reject, Meaning::Reject),
            ("UNKNOWN", false, Meaning::Reject, Meaning::Reject),
        ] {
            let code = (0..17).find(|code| grpc_name(*code) == name).unwrap();
            let failure = Failure {
                message: "no".to_owned(),
                retry_after: says_when.then_some(Duration::from_secs(1)),
            };
            let found = [FIELD, LETTER].map(|answers| answers.grpc(code, &failure));
            assert_eq!(found, [meaning, by_letter], "{name}");
        }
        assert_eq!(
            (FIELD.grpc(99, &Failure::default()), grpc_name(99)),
            (Meaning::Reject, "an unknown status")
        );
    }

    #[test]
    fn words_that_say_too_large_split() {
        for (words, meaning) in [
            ("grpc: received message larger than max (5000000 vs. 4194304)", Meaning::TooLarge),
            ("http: request body too large", Meaning::TooLarge),
            ("Message too large: 1", Meaning::TooLarge),
            ("attribute value too long", Meaning::Reject),
        ] {
            let failure = Failure { message: words.to_owned(), retry_after: None };
            let found = (LETTER.http(400, words), LETTER.grpc(8, &failure), LETTER.grpc(3, &failure));
            assert_eq!(found, (meaning, meaning, meaning), "{words}");
        }
        assert_eq!(FIELD.http(503, "body too large"), Meaning::Retry, "a status that leaves no doubt");
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
    fn answers_in_json_say_the_same() {
        for (body, rejected, message) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too\n old"}}"#, 3, "too old"),
            (r#"{"partialSuccess":{"rejectedLogRecords":2}}"#, 2, ""),
            (r#"{"partialSuccess":{}}"#, 0, ""),
            ("{}", 0, ""),
            ("", 0, ""),
        ] {
            let expected = Taken { rejected, message: message.to_owned() };
            assert_eq!(Taken::read_json(body.as_bytes()), expected, "{body}");
        }
        let failure = Failure { message: "bad".to_owned(), retry_after: None };
        assert_eq!(Failure::read_json(br#"{"code":3,"message":"bad"}"#), Some(failure));
        assert_eq!(Failure::read_json(br#"{"error":1}"#), None);
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
