//! What a backend answered, and what that means for the records.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use plugin_api::ExportError;
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use super::retry_after;

/// What a status means for the records of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The backend has them.
    Delivered,
    /// Fewer at once.
    TooLarge,
    /// The credentials are wrong.
    Unauthorized,
    /// Later: overload, a fault of the backend's, or an address that is wrong until somebody corrects it.
    Retry,
    /// Never.
    Reject,
}

/// What most backends mean by a status: 2xx delivered; 413 too large; 401, 403 and 407 unauthorized; 408, 425, 429,
/// 5xx retry; 404, 405 and 3xx retry too, since they speak about the address and not about the records; other 4xx
/// reject. A backend with other habits asks its own function first.
#[must_use]
pub fn classify(status: StatusCode) -> Class {
    match status.as_u16() {
        200..=299 => Class::Delivered,
        413 => Class::TooLarge,
        401 | 403 | 407 => Class::Unauthorized,
        300..=399 | 404 | 405 | 408 | 425 | 429 | 500.. => Class::Retry,
        _ => Class::Reject,
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) target: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) excerpt: String,
}

impl Answer {
    /// What was asked, without secrets: `POST https://host/_bulk`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// A header's text, if there is one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The wait that it asks for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
    }

    /// Whether it comes from something else than an API, whatever its status says: a web page, as proxies and login pages
    /// answer, or bytes that are neither text nor called protobuf.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let kind = self.header("content-type").unwrap_or_default().to_ascii_lowercase();
        if kind.contains("protobuf") {
            return false;
        }
        let is_page = kind.starts_with("text/html") || self.body.trim_ascii_start().starts_with(b"<");
        is_page || std::str::from_utf8(&self.body).is_err()
    }

    /// What was asked, and what was answered, in one sentence without secrets:
    /// `POST https://host/_bulk answered 400 Bad Request: {"error":…`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let colon = if self.excerpt.is_empty() { "" } else { ": " };
        let cure = match self.status.as_u16() {
            300..=399 | 404 | 405 => " (is the URL right?)",
            401 | 403 => " (are the credentials right?)",
            407 => " (the proxy wants credentials)",
            200..=299 if self.is_foreign() => {
                " (no answer of the API: is the URL right, or does a proxy answer?)"
            }
            _ => "",
        };
        format!("{} answered {}{colon}{}{cure}", self.target, self.status, self.excerpt)
    }

    /// Nothing when the records are delivered, by the rules of [`classify`]. A success that [is no
    /// API's](Self::is_foreign) delivers nothing: it is retried.
    ///
    /// # Errors
    /// What became of them otherwise, with the wait that the answer asks for.
    pub fn check(&self) -> Result<(), ExportError> {
        self.check_as(classify(self.status))
    }

    /// The same by a class that the plugin chose.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_as(&self, class: Class) -> Result<(), ExportError> {
        let error = match class {
            Class::Delivered if self.is_foreign() => ExportError::retry(self.sentence()),
            Class::Delivered => return Ok(()),
            Class::TooLarge => ExportError::too_large(self.sentence()),
            Class::Unauthorized => ExportError::unauthorized(self.sentence()),
            Class::Retry => ExportError::retry(self.sentence()),
            Class::Reject => ExportError::reject(self.sentence()),
        };
        Err(match self.retry_after() {
            Some(delay) => error.after(delay),
            None => error,
        })
    }
}

/// Characters of an answer that are quoted in an error.
const QUOTED: usize = 300;

/// The beginning of a body as text on one line.
pub(super) fn excerpt(body: &[u8]) -> String {
    crate::excerpt::excerpt(&String::from_utf8_lossy(&body[..body.len().min(4 * QUOTED)]), QUOTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_becomes_of_the_records() {
        for (statuses, class) in [
            (&[200, 201, 202, 204][..], Class::Delivered),
            (&[413], Class::TooLarge),
            (&[401, 403, 407], Class::Unauthorized),
            (&[301, 302, 404, 405, 408, 425, 429, 500, 502, 503, 504, 507, 599], Class::Retry),
            (&[400, 402, 406, 409, 411, 415, 422], Class::Reject),
        ] {
            for status in statuses {
                assert_eq!(classify(StatusCode::from_u16(*status).unwrap()), class, "{status}");
            }
        }
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"{\n  \"error\":\t\"bad\"\r\n}\x00"), "{ \"error\": \"bad\" }");
        let long = excerpt("é".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), QUOTED + 1);
        assert_eq!(excerpt(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }
}
