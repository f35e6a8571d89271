//! Errors that the gateway answers itself: one enum, and one place that turns it into HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use plugin_api::EndReason;

use super::framing;

/// When a client that found no place may come again, in seconds.
const OVERLOAD_PAUSE: u16 = 1;

/// Why the gateway could not pass a request on, or an answer back.
///
/// The text goes to the client and names no internals; what only the operator may see is logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatewayError {
    /// The client's: the path is none that is passed on.
    #[error("no route for {path}: the gateway passes on paths below /v1/")]
    NotFound { path: String },
    /// The client's: the path has a dot segment, by some server's reading.
    #[error(
        "the path {path} has a segment that is `.` or `..`, or may be read as one; the gateway passes on no such path"
    )]
    DotSegment { path: String },
    /// The client's: a method that is never passed on.
    #[error("the gateway does not pass on {method} requests")]
    MethodRefused { method: Method },
    /// The client's: a page of an origin that may not call.
    #[error("pages of this origin may not call here: it is not in server.cors.allowed_origins")]
    OriginRefused,
    /// The client's: a head that servers read in different ways.
    #[error("the request cannot be passed on: {}", .0.text())]
    Misframed(framing::Fault),
    /// The client's: too many header fields, over HTTP/2. Over HTTP/1 hyper answers by itself.
    #[error(
        "the request has more than the {limit} header fields that this gateway accepts (server.max_headers)"
    )]
    TooManyHeaders { limit: usize },
    /// The client's: `x-provider` names nothing in the configuration.
    #[error("unknown provider `{name}` in header x-provider; known are: {known}")]
    UnknownProvider { name: String, known: String },
    /// The client's: the body is over `server.max_request_bytes`.
    #[error("the request body is larger than the {limit} bytes that this gateway accepts")]
    RequestTooLarge { limit: u64 },
    /// The client's: its body stopped coming.
    #[error("the request body did not arrive: nothing came for {0:?}")]
    RequestTimeout(Duration),
    /// The client's: its body cannot be read.
    #[error("the request body is not validly framed, and could not be read to its end")]
    RequestBroken,
    /// The client's: it went away before its body was here. Nobody reads the answer.
    #[error("the client closed the connection before the request was complete")]
    ClientGone,
    /// The gateway's: as many requests as `server.max_requests` are under way.
    #[error(
        "the gateway has {limit} requests under way, and takes no more at once; try again in {OVERLOAD_PAUSE} s"
    )]
    Overloaded { limit: usize },
    /// The provider's or the network's: no connection.
    #[error("could not connect to provider `{provider}`")]
    ConnectFailed { provider: String },
    /// The provider's: no answer in time.
    #[error("provider `{provider}` did not answer within {after:?}")]
    UpstreamTimeout { provider: String, after: Duration },
    /// The provider's: the connection broke before an answer came.
    #[error("provider `{provider}` closed the connection without an answer")]
    UpstreamBroken { provider: String },
    /// The provider's: what it sent is no answer that can be passed on.
    #[error("provider `{provider}` sent an answer that cannot be passed on: {why}")]
    UpstreamInvalid { provider: String, why: &'static str },
}

impl GatewayError {
    /// Stable code, in the answer's `error.code` and the record's `error_type`. Documented in `docs/errors.md`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::DotSegment { .. } => "path_refused",
            Self::MethodRefused { .. } => "method_refused",
            Self::OriginRefused => "origin_refused",
            Self::Misframed(_) => "misframed",
            Self::TooManyHeaders { .. } => "too_many_headers",
            Self::ClientGone => "client_gone",
            Self::Overloaded { .. } => "overloaded",
            Self::UpstreamInvalid { .. } => "upstream_invalid",
            Self::UnknownProvider { .. } => "unknown_provider",
            Self::RequestTooLarge { .. } => "request_too_large",
            Self::RequestTimeout(_) => "request_timeout",
            Self::RequestBroken => "request_broken",
            Self::ConnectFailed { .. } => "upstream_connect_failed",
            Self::UpstreamTimeout { .. } => "upstream_timeout",
            Self::UpstreamBroken { .. } => "upstream_broken",
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } | Self::DotSegment { .. } => StatusCode::NOT_FOUND,
            Self::MethodRefused { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::OriginRefused => StatusCode::FORBIDDEN,
            Self::UnknownProvider { .. } | Self::RequestBroken | Self::ClientGone | Self::Misframed(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::TooManyHeaders { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::ConnectFailed { .. } | Self::UpstreamBroken { .. } | Self::UpstreamInvalid { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(crate) fn end_reason(&self) -> EndReason {
        match self {
            Self::ConnectFailed { .. } | Self::UpstreamBroken { .. } | Self::UpstreamInvalid { .. } => {
                EndReason::ProviderError
            }
            Self::ClientGone => EndReason::ClientDisconnect,
            Self::RequestTimeout(_) | Self::UpstreamTimeout { .. } => EndReason::Timeout,
            Self::NotFound { .. }
            | Self::DotSegment { .. }
            | Self::MethodRefused { .. }
            | Self::OriginRefused
            | Self::Misframed(_)
            | Self::TooManyHeaders { .. }
            | Self::UnknownProvider { .. }
            | Self::RequestTooLarge { .. }
            | Self::RequestBroken
            | Self::Overloaded { .. } => EndReason::GatewayError,
        }
    }

    /// OpenAI's name for this kind of error, in `error.type`.
    fn kind(&self) -> &'static str {
        if self.status().is_client_error() { "invalid_request_error" } else { "api_error" }
    }

    /// The answer, in OpenAI's error shape
    /// (<https://platform.openai.com/docs/guides/error-codes>), which its SDKs read.
    pub(crate) fn body(&self) -> Bytes {
        let error = serde_json::json!({
            "error": {
                "message": self.to_string(),
                "type": self.kind(),
                "param": null,
                "code": self.code(),
            }
        });
        error.to_string().into()
    }

    pub(crate) fn response<B: From<Bytes>>(&self, body: Bytes) -> Response<B> {
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status() == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(OVERLOAD_PAUSE));
        }
        if self.ends_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// What follows on the connection is the rest of a body that is not read, or may not be what it seems.
    fn ends_connection(&self) -> bool {
        match self {
            Self::RequestTooLarge { .. }
            | Self::RequestTimeout(_)
            | Self::RequestBroken
            | Self::ClientGone
            | Self::MethodRefused { .. }
            | Self::Misframed(_) => true,
            Self::NotFound { .. }
            | Self::DotSegment { .. }
            | Self::OriginRefused
            | Self::TooManyHeaders { .. }
            | Self::UnknownProvider { .. }
            | Self::Overloaded { .. }
            | Self::ConnectFailed { .. }
            | Self::UpstreamTimeout { .. }
            | Self::UpstreamBroken { .. }
            | Self::UpstreamInvalid { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_shape_that_the_sdks_read() {
        let error = GatewayError::UnknownProvider { name: "no\"pe".into(), known: "openai".into() };
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(body["error"]["code"], "unknown_provider");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(body["error"]["message"].as_str().unwrap().contains("no\"pe"));
        assert!(body["error"]["param"].is_null());
    }

    #[test]
    fn who_is_to_blame_decides_the_status_and_the_end_reason() {
        let provider = || "p".to_owned();
        for (error, status, end) in [
            (GatewayError::NotFound { path: "/".into() }, 404, EndReason::GatewayError),
            (GatewayError::DotSegment { path: "/v1/..".into() }, 404, EndReason::GatewayError),
            (GatewayError::MethodRefused { method: Method::TRACE }, 405, EndReason::GatewayError),
            (GatewayError::Misframed(framing::Fault::Host), 400, EndReason::GatewayError),
            (GatewayError::TooManyHeaders { limit: 1 }, 431, EndReason::GatewayError),
            (GatewayError::Overloaded { limit: 1 }, 503, EndReason::GatewayError),
            (GatewayError::ClientGone, 400, EndReason::ClientDisconnect),
            (GatewayError::UpstreamInvalid { provider: provider(), why: "" }, 502, EndReason::ProviderError),
            (GatewayError::RequestTooLarge { limit: 1 }, 413, EndReason::GatewayError),
            (GatewayError::RequestTimeout(Duration::ZERO), 408, EndReason::Timeout),
            (GatewayError::ConnectFailed { provider: provider() }, 502, EndReason::ProviderError),
            (GatewayError::UpstreamBroken { provider: provider() }, 502, EndReason::ProviderError),
            (
                GatewayError::UpstreamTimeout { provider: provider(), after: Duration::ZERO },
                504,
                EndReason::Timeout,
            ),
        ] {
            assert_eq!(error.status().as_u16(), status, "{error}");
            assert_eq!(error.end_reason(), end, "{error}");
        }
    }
}
