//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use http::StatusCode;
use serde_json::{Value, json};

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<&'static str>,
    pub(crate) message: String,
}

impl ApiError {
    /// The client's request is wrong.
    pub(crate) fn bad_request(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            code: None,
            param,
            message: message.into(),
        }
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: Some("model_not_found"),
            ..Self::bad_request(
                Some("model"),
                format!("The model `{model}` does not exist; GET /v1/models lists those that do."),
            )
        }
    }

    pub(crate) fn unknown_url(method: &http::Method, path: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::bad_request(None, format!("Invalid URL ({method} {path})"))
        }
    }

    pub(crate) fn wrong_key() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code: Some("invalid_api_key"),
            ..Self::bad_request(None, "Incorrect API key provided.")
        }
    }

    pub(crate) fn too_large() -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            ..Self::bad_request(None, "The request's body is too large.")
        }
    }

    /// The failure that a `demo-fail-…` model asks for.
    pub(crate) fn asked_for(status: StatusCode) -> Self {
        let (kind, code, message) = match status {
            StatusCode::UNAUTHORIZED => return Self::wrong_key(),
            StatusCode::TOO_MANY_REQUESTS => {
                ("requests", Some("rate_limit_exceeded"), "Rate limit reached for the demo: try again in 1s.")
            }
            status if status.is_client_error() => {
                ("invalid_request_error", None, "The model's name asked for this refusal.")
            }
            _ => ("server_error", None, "The server had an error, as the model's name asked for."),
        };
        Self { status, kind, code, param: None, message: message.to_owned() }
    }

    /// Seconds the client should wait, where the status comes with such advice.
    pub(crate) fn retry_after(&self) -> Option<u16> {
        (self.status == StatusCode::TOO_MANY_REQUESTS).then_some(1)
    }

    pub(crate) fn body(&self) -> Value {
        let Self { kind, code, param, message, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}
