//! Whether a request may be sent once more.

use std::error::Error;

use http::Request;

use crate::proxy::body::RequestBody;

/// A copy of a request, for the case that the server says it has not looked at it.
#[derive(Debug)]
pub(super) struct Spare(Request<RequestBody>);

impl Spare {
    pub(super) fn of(request: &Request<RequestBody>) -> Self {
        let mut copy = Request::new(request.body().again());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        Self(copy)
    }

    /// The request, if it can still be sent whole.
    pub(super) fn request(self) -> Option<Request<RequestBody>> {
        self.0.body().upload().is_none_or(super::Upload::is_untouched).then_some(self.0)
    }
}

/// The server promises that it has not looked at the request: a stream that it refused, or one that came after the last that
/// its GOAWAY names (RFC 9113, section 8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return false;
    };
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}
