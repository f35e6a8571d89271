//! The life of one connection, a client's or an operator's: its requests, its limits and its end.
//!
//! | module | what it is |
//! |---|---|
//! | `activity` | what goes on in it |
//! | `io` | its socket, which notes what goes through |
//! | `life` | its limits: which one is overrun when (pure) |
//! | `pace` | HTTP/2: one answer that is not taken |
//!
//! hyper has a timer for one of these limits only, sets it anew for every request, and starts none before it knows the
//! protocol. Here one timer serves all of them, and it is moved when it fires, not when something happens.

mod activity;
mod io;
mod life;
mod pace;

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt::Display,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::TokioIo,
    server::{conn::auto::Builder, graceful::GracefulConnection},
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};
use tracing::debug;

pub(crate) use self::{activity::Activity, life::Limits, pace::Streams};
use self::{
    activity::Underway,
    io::Watched,
    life::{Life, Limit},
    pace::Asked,
};
use super::phase::Phase;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Clients that overran a limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeouts(Arc<[AtomicU64; 3]>);

impl Timeouts {
    /// By the limit's name.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        let [header, idle, write] = &*self.0;
        [("header", header.load(Relaxed)), ("idle", idle.load(Relaxed)), ("write", write.load(Relaxed))]
    }

    fn write(&self) {
        self.0[2].fetch_add(1, Relaxed);
    }

    fn count(&self, limit: Limit) {
        let place = match limit {
            Limit::Header => 0,
            Limit::Idle => 1,
            Limit::Write => 2,
            Limit::LastWords => return,
        };
        self.0[place].fetch_add(1, Relaxed);
    }
}

/// How connections are served.
#[derive(Debug)]
pub(crate) struct Protocols {
    builder: Builder<Streams>,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    timeouts: Timeouts,
}

impl Protocols {
    /// `configure` says what the protocols themselves are to know.
    pub(crate) fn new(
        limits: Limits,
        phase: watch::Receiver<Phase>,
        timeouts: Timeouts,
        configure: impl FnOnce(&mut Builder<Streams>),
    ) -> Self {
        let streams = Streams { limit: limits.write, phase: phase.clone(), timeouts: timeouts.clone() };
        let mut builder = Builder::new(streams);
        // It would run while a connection is idle, too.
        builder.http1().header_read_timeout(None);
        configure(&mut builder);
        Self { builder, limits, phase, timeouts }
    }

    /// Serves one connection to its end, which is an error if it did not end in order. It holds `place` until its
    /// descriptor is closed.
    pub(crate) fn serve<H, A, B, P>(
        &self,
        stream: TcpStream,
        place: P,
        activity: Arc<Activity>,
        handle: H,
    ) -> impl Future<Output = Result<(), BoxError>> + Send + use<H, A, B, P>
    where
        H: Fn(Request<Incoming>) -> A + Send + 'static,
        A: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
        P: Send + Unpin + 'static,
    {
        // A tunnel is no longer this connection's, and still waited for at the end.
        let place = (place, self.phase.clone());
        let io = TokioIo::new(Watched::new(stream, activity.clone(), place));
        let service = service_fn({
            let activity = activity.clone();
            move |request: Request<Incoming>| {
                let underway = activity.begin(request.version());
                handle(request).map(|response| Ok::<_, Infallible>(answered(response, underway)))
            }
        });
        // Boxed: a future has room for what it is given, and for where it moves it to.
        let connection = Box::pin(self.builder.serve_connection_with_upgrades(io, service).into_owned());
        live(connection, Life::new(self.limits), activity, self.phase.clone(), self.timeouts.clone())
    }
}

/// What happens in the life of a connection.
enum Event<E> {
    Ended(Result<(), E>),
    NewPhase,
    Overrun(Limit),
}

async fn live<C>(
    mut connection: Pin<Box<C>>,
    mut life: Life,
    activity: Arc<Activity>,
    mut phase: watch::Receiver<Phase>,
    timeouts: Timeouts,
) -> Result<(), C::Error>
where
    C: GracefulConnection<Error: Display>,
{
    let activity = &*activity;
    let mut timer = pin!(sleep_until(life.due(activity).map_or_else(Instant::now, |(at, _)| at)));
    // Whoever comes late has missed the change.
    phase.mark_changed();
    loop {
        let event = {
            let mut change = pin!(changed(&mut phase));
            poll_fn(|cx| next(connection.as_mut(), change.as_mut(), &life, activity, timer.as_mut(), cx))
                .await
        };
        match event {
            Event::Ended(result) => {
                return result.inspect_err(|error| debug!("a connection ended early: {error}"));
            }
            Event::NewPhase => {
                let (phase, now) = (*phase.borrow_and_update(), Instant::now());
                if phase > Phase::Serving {
                    activity.leave();
                }
                life.enter(phase, now);
                // HTTP/2 says which requests it still takes, and HTTP/1 nothing of the kind: a connection that is closed
                // while its next request is on the way costs a request.
                let is_safe = activity.is_http2() || (phase == Phase::Stopping && activity.is_under_way());
                if phase > Phase::Serving && is_safe {
                    life.close(now);
                    connection.as_mut().graceful_shutdown();
                }
            }
            Event::Overrun(limit) => {
                timeouts.count(limit);
                let is_orderly = limit == Limit::Idle || (limit == Limit::Header && activity.is_http2());
                if !is_orderly {
                    debug!("a connection is cut: over the limit {limit:?}");
                    return Ok(());
                }
                life.close(Instant::now());
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn changed(phase: &mut watch::Receiver<Phase>) {
    if phase.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn next<C: GracefulConnection>(
    connection: Pin<&mut C>,
    change: Pin<&mut impl Future<Output = ()>>,
    life: &Life,
    activity: &Activity,
    mut timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Event<C::Error>> {
    // First, so that an answer that is due tells the client to go.
    if change.poll(cx).is_ready() {
        return Poll::Ready(Event::NewPhase);
    }
    if let Poll::Ready(result) = connection.poll(cx) {
        return Poll::Ready(Event::Ended(result));
    }
    let Some((due, limit)) = life.due(activity) else { return Poll::Pending };
    if due < timer.deadline() {
        timer.as_mut().reset(due);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= due {
            return Poll::Ready(Event::Overrun(limit));
        }
        timer.as_mut().reset(due);
    }
    Poll::Pending
}

fn answered<B>(mut response: Response<B>, underway: Underway) -> Response<Answer<B>> {
    if underway.is_last() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Answer { body, _underway: underway })
}

/// An answer's body, unchanged. Its request is under way for as long as it is there.
#[derive(Debug)]
struct Answer<B> {
    body: B,
    _underway: Underway,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        pace::note(if frame.is_ready() { Asked::Given } else { Asked::InVain });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
