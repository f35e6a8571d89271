//! A request's body while it comes from its client, and what becomes of it when the answer is there first.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::error::GatewayError;

/// How long the rest of an upload is read and thrown away, so that the client sees the answer and not a reset: a client
/// that is cut off while it sends may never read (RFC 9112, section 9.6).
const DRAIN: Duration = Duration::from_secs(30);

/// How long the client may pause meanwhile.
const DRAIN_PAUSE: Duration = Duration::from_secs(5);

/// What a client sends. Dropped before its end, the rest is read and thrown away for a while.
#[derive(Debug)]
pub(super) struct ClientBody {
    inner: Option<Incoming>,
    is_http1: bool,
    /// The client sends only when it is told to, which it was not.
    waits_for_continue: bool,
}

impl ClientBody {
    /// Takes a request's body out of it.
    pub(super) fn take(request: Request<Incoming>) -> (Request<()>, Self) {
        let (parts, body) = request.into_parts();
        let is_http1 = parts.version < Version::HTTP_2;
        let waits_for_continue = parts.headers.contains_key(header::EXPECT);
        let body = Self { inner: Some(body), is_http1, waits_for_continue };
        (Request::from_parts(parts, ()), body)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits_for_continue = false;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let polled = Pin::new(inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.inner = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(rest) = self.inner.take() else { return };
        // HTTP/2 ends one stream and no more.
        if !self.is_http1 || self.waits_for_continue || rest.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(DRAIN, drain(rest)));
        }
    }
}

async fn drain(mut rest: Incoming) {
    use http_body_util::BodyExt as _;
    while let Ok(Some(Ok(_))) = timeout(DRAIN_PAUSE, rest.frame()).await {}
}

/// A body that streams to the provider, as the handler and the pool see it.
#[derive(Debug, Clone)]
pub(super) struct Upload(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Nothing once it has ended, or was ended.
    body: Option<ClientBody>,
    /// What went wrong on the client's side, for the handler to answer with.
    fault: Option<GatewayError>,
    /// When the provider's connection took the last piece.
    taken: Instant,
    is_untouched: bool,
    waits_for_client: bool,
    /// Who sends it.
    sender: Option<Waker>,
}

impl Upload {
    pub(super) fn new(body: ClientBody) -> Self {
        Self(Arc::new(Mutex::new(State {
            body: Some(body),
            fault: None,
            taken: Instant::now(),
            is_untouched: true,
            waits_for_client: false,
            sender: None,
        })))
    }

    /// The next piece; nothing of it is left after an error or the end.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        let state = &mut *self.lock();
        let Some(body) = &mut state.body else { return Poll::Ready(Some(Err(Gone::Ended))) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        state.waits_for_client = polled.is_pending();
        match &polled {
            Poll::Pending => state.remember(cx.waker()),
            Poll::Ready(Some(Ok(_))) => {
                state.taken = Instant::now();
                state.is_untouched = false;
            }
            Poll::Ready(_) => {}
        }
        polled.map_err(Gone::Client)
    }

    /// The client's fault, if one was found.
    pub(super) fn take_fault(&self) -> Option<GatewayError> {
        self.lock().fault.take()
    }

    /// The client is at fault: nothing more of its body is sent.
    pub(super) fn fail(&self, error: GatewayError) {
        let mut state = self.lock();
        state.fault = Some(error);
        state.body = None;
    }

    /// Nothing more of it is sent; whether it was sent whole before.
    pub(super) fn end(&self) -> bool {
        let mut state = self.lock();
        if state.body.as_ref().is_some_and(Body::is_end_stream) {
            return true;
        }
        state.body = None;
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
        false
    }

    /// The provider's connection took none of it.
    pub(super) fn is_untouched(&self) -> bool {
        let state = self.lock();
        state.is_untouched && state.body.is_some()
    }

    /// When the provider was last sent something; now, if that is up to the client.
    pub(super) fn last_progress(&self) -> Instant {
        let state = self.lock();
        if state.waits_for_client { Instant::now() } else { state.taken }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.lock().body.as_ref().is_some_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.lock().body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, sender: &Waker) {
        if self.sender.as_ref().is_none_or(|known| !known.will_wake(sender)) {
            self.sender = Some(sender.clone());
        }
    }
}

/// Why there is no next piece.
#[derive(Debug)]
pub(super) enum Gone {
    /// The client broke off, or sent what cannot be read.
    Client(hyper::Error),
    /// The answer was there first.
    Ended,
}
