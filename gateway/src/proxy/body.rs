//! Bodies on their way through: bytes pass untouched, a copy is kept.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use plugin_api::EndReason;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    error::GatewayError,
    framing,
    observer::{RequestObserver, RequestTap},
    pool::{Lease, Place},
    upload::{ClientBody, Gone, Upload},
};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A body on its way out: bytes that are there already, or a body that passes through `P`.
#[derive(Debug)]
pub(crate) enum Outgoing<P> {
    Ready(Option<Bytes>),
    Passing(Box<P>),
}

/// A request's body as the provider gets it: read before it is sent on, so that headers and body leave together, or
/// sent on as it comes.
pub(crate) type RequestBody = Outgoing<Tapped>;

/// An answer's body as the client gets it: the gateway's own, or the provider's.
pub(crate) type ResponseBody = Outgoing<Observed>;

impl RequestBody {
    /// The client's upload, if this is one.
    pub(super) fn upload(&self) -> Option<&Upload> {
        match self {
            Self::Ready(_) => None,
            Self::Passing(tapped) => Some(&tapped.upload),
        }
    }

    /// The same body, to be sent from where this one has come to.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Ready(bytes) => Self::Ready(bytes.clone()),
            Self::Passing(tapped) => Self::Passing(Box::new(tapped.again())),
        }
    }

    /// A body that streams holds the place of its request for as long as it is sent.
    pub(super) fn hold(&mut self, place: &Arc<Place>) {
        if let Self::Passing(tapped) = self {
            tapped.place = Some(place.clone());
        }
    }
}

impl<P> From<Bytes> for Outgoing<P> {
    fn from(bytes: Bytes) -> Self {
        Self::Ready((!bytes.is_empty()).then_some(bytes))
    }
}

impl<P: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Outgoing<P> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Ready(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passing(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ready(bytes) => bytes.is_none(),
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ready(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passing(body) => body.size_hint(),
        }
    }
}

/// A request's body that is copied, counted and timed while it streams to the provider.
#[derive(Debug)]
pub(crate) struct Tapped {
    upload: Upload,
    tap: RequestTap,
    started: std::time::Instant,
    limit: u64,
    idle: Idle,
    place: Option<Arc<Place>>,
}

impl Tapped {
    pub(super) fn new(body: ClientBody, observer: &RequestObserver, limit: u64, timeout: Duration) -> Self {
        Self {
            upload: Upload::new(body),
            tap: observer.request.clone(),
            started: observer.started,
            limit,
            idle: Idle::new(timeout),
            place: None,
        }
    }

    fn again(&self) -> Self {
        Self {
            upload: self.upload.clone(),
            tap: self.tap.clone(),
            started: self.started,
            limit: self.limit,
            idle: Idle::new(self.idle.timeout),
            place: None,
        }
    }

    fn fail(&self, error: GatewayError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.upload.fail(error);
        Poll::Ready(Some(Err(cancelled())))
    }

    fn pass(&self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(bytes) = frame.data_ref() else {
            // Trailers come last, and stay here: not every server keeps them apart from headers.
            self.complete();
            return Poll::Ready(None);
        };
        let mut tap = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        tap.push(bytes, self.started.elapsed());
        let is_too_large = tap.size() > self.limit;
        drop(tap);
        if is_too_large {
            return self.fail(GatewayError::RequestTooLarge { limit: self.limit });
        }
        // One of known length is not asked again after its last byte.
        if self.upload.is_end_stream() {
            self.complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn complete(&self) {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner).complete();
    }
}

impl Body for Tapped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match this.upload.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.progress();
                this.pass(frame)
            }
            Poll::Ready(Some(Err(Gone::Client(error)))) => this.fail(broken_request(&error)),
            Poll::Ready(Some(Err(Gone::Ended))) => Poll::Ready(Some(Err(cancelled()))),
            Poll::Ready(None) => {
                this.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.idle.poll(cx));
                this.fail(GatewayError::RequestTimeout(this.idle.timeout))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.size_hint()
    }
}

/// Ends the sending of a request. To HTTP/2 it says so: without it hyper resets the stream with an internal error of ours.
fn cancelled() -> BoxError {
    h2::Error::from(h2::Reason::CANCEL).into()
}

/// Why a request's body could not be read: it is wrong, or its client is gone.
pub(super) fn broken_request(error: &hyper::Error) -> GatewayError {
    if is_misframed(error) { GatewayError::RequestBroken } else { GatewayError::ClientGone }
}

/// Whether bytes came that are no valid framing, rather than none.
pub(super) fn is_misframed(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        }
        cause = error.source();
    }
    false
}

/// How the end of an answer's body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// hyper says so.
    Http1,
    /// hyper takes a stream that is reset without an error for one that has ended.
    Http2,
    /// There is none, whatever comes.
    Empty,
}

/// The provider's answer: frames pass through untouched. Its end, an error or its being dropped ends the observer.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Came together with the head.
    first: Option<Frame<Bytes>>,
    inner: Incoming,
    kind: Kind,
    observer: RequestObserver,
    lease: Option<Lease>,
    idle: Idle,
    /// What the body ends with, once what came before it is on its way.
    broken: Option<BoxError>,
}

impl Observed {
    pub(super) fn new(
        first: Option<Frame<Bytes>>,
        inner: Incoming,
        kind: Kind,
        observer: RequestObserver,
        lease: Option<Lease>,
        idle: Duration,
    ) -> Self {
        Self { first, inner, kind, observer, lease, idle: Idle::new(idle), broken: None }
    }

    fn pass(&mut self, mut frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(bytes) = frame.data_ref() {
            self.observer.response.push(bytes, self.observer.started.elapsed());
        } else {
            // Nobody asks for more after them.
            self.completed();
            if let Some(trailers) = frame.trailers_mut() {
                framing::clean_trailers(trailers);
            }
        }
        self.idle.progress();
        Poll::Ready(Some(Ok(frame)))
    }

    /// hyper gives up what it has not sent when a body fails: it gets the time to send it.
    fn give_up(
        &mut self,
        error: BoxError,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the stream was reset although nothing failed, before its end. A server may do that after the end, to be sent
    /// no more of an upload (RFC 9113, section 8.1), and h2 tells the two apart no longer.
    fn is_cut(&self) -> bool {
        let is_sent = || {
            let upload = self.lease.as_ref().and_then(Lease::upload);
            upload.is_none_or(Upload::is_end_stream)
        };
        let is_short = || self.inner.size_hint().exact().is_some_and(|rest| rest > 0);
        self.kind == Kind::Http2 && !self.inner.is_end_stream() && (is_short() || is_sent())
    }

    fn completed(&mut self) {
        self.observer.completed();
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for Observed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.kind == Kind::Empty {
            this.completed();
            return Poll::Ready(None);
        }
        if let Some(frame) = this.first.take() {
            return this.pass(frame);
        }
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => this.pass(frame),
            Poll::Ready(Some(Err(error))) => {
                this.observer.broke(EndReason::ProviderError, "upstream_broken");
                this.give_up(error.into(), cx)
            }
            Poll::Ready(None) if this.is_cut() => {
                this.observer.broke(EndReason::ProviderError, "upstream_broken");
                this.give_up("the provider ended the stream before the answer's end".into(), cx)
            }
            Poll::Ready(None) => {
                this.completed();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.idle.poll(cx));
                this.observer.broke(EndReason::Timeout, "upstream_idle_timeout");
                if let Some(lease) = this.lease.take() {
                    lease.give_up();
                }
                Poll::Ready(Some(Err("the provider sent nothing for too long".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kind == Kind::Empty
            || (self.first.is_none() && self.broken.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.kind == Kind::Empty {
            return SizeHint::with_exact(0);
        }
        let rest = self.inner.size_hint();
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |bytes| bytes.len() as u64);
        rest.exact().map_or(SizeHint::default(), |rest| SizeHint::with_exact(first + rest))
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        // A body of known length is not asked again after its last byte.
        if self.observer.end == EndReason::ClientDisconnect && self.is_end_stream() {
            self.completed();
        }
    }
}

/// A limit on the time between two pieces, measured only while the body is waited for: a slow reader is no silence.
///
/// The timer is set once and moved only when it fires, not for every piece.
#[derive(Debug)]
struct Idle {
    timeout: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(timeout: Duration) -> Self {
        Self { timeout, waiting_since: None, timer: None }
    }

    fn progress(&mut self) {
        self.waiting_since = None;
    }

    /// Ready when nothing came for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.waiting_since.get_or_insert_with(Instant::now) + self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
