//! Errors that the gateway answers itself: one enum, and one place that turns it into HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use plugin_api::EndReason;

/// Why the gateway could not pass a request on, or an answer back.
///
/// The text goes to the client and names no internals; what only the operator may see is logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GatewayError {
    /// The client's: the path is none that is passed on.
    #[error("no route for {path}: the gateway passes on paths below /v1/")]
    NotFound { path: String },
    /// The client's: `x-provider` names nothing in the configuration.
    #[error("unknown provider `{name}` in header x-provider; known are: {known}")]
    UnknownProvider { name: String, known: String },
    /// The client's: the body is over `server.max_request_bytes`.
    #[error("the request body is larger than the {limit} bytes that this gateway accepts")]
    RequestTooLarge { limit: u64 },
    /// The client's: its body stopped coming.
    #[error("the request body did not arrive: nothing came for {0:?}")]
    RequestTimeout(Duration),
    /// The client's: its body broke off or cannot be read.
    #[error("the request body could not be read to its end")]
    RequestBroken,
    /// The provider's or the network's: no connection.
    #[error("could not connect to provider `{provider}`")]
    ConnectFailed { provider: String },
    /// The provider's: no answer in time.
    #[error("provider `{provider}` did not answer within {after:?}")]
    UpstreamTimeout { provider: String, after: Duration },
    /// The provider's: the connection broke before an answer came.
    #[error("provider `{provider}` closed the connection without an answer")]
    UpstreamBroken { provider: String },
}

impl GatewayError {
    /// Stable code, in the answer's `error.code` and the record's `error_type`. Documented in `docs/errors.md`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
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
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::UnknownProvider { .. } | Self::RequestBroken => StatusCode::BAD_REQUEST,
            Self::RequestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::ConnectFailed { .. } | Self::UpstreamBroken { .. } => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(crate) fn end_reason(&self) -> EndReason {
        match self {
            Self::ConnectFailed { .. } | Self::UpstreamBroken { .. } => EndReason::ProviderError,
            Self::RequestTimeout(_) | Self::UpstreamTimeout { .. } => EndReason::Timeout,
            Self::NotFound { .. }
            | Self::UnknownProvider { .. }
            | Self::RequestTooLarge { .. }
            | Self::RequestBroken => EndReason::GatewayError,
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
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if self.status() == StatusCode::PAYLOAD_TOO_LARGE || self.status() == StatusCode::REQUEST_TIMEOUT {
            // What is left of the body is not read: the connection cannot be used again.
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
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
