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

/// What a server has not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// One stream.
    Stream,
    /// Everything after the last stream that its GOAWAY names.
    Connection,
}

/// The server's promise that it has not looked at a request (RFC 9113, section 8.7), if that is why it failed.
pub(super) fn refusal(error: &hyper::Error) -> Option<Refusal> {
    let error = error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_remote())?;
    if error.is_go_away() {
        Some(Refusal::Connection)
    } else {
        (error.reason() == Some(h2::Reason::REFUSED_STREAM)).then_some(Refusal::Stream)
    }
}
