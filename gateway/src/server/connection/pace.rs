//! HTTP/2: a client that takes nothing of *one* answer blocks no socket. Its stream is given up alone.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

use super::{Timeouts, life};
use crate::server::phase::Phase;

/// What an answer's body saw while its stream was polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It was not asked for more: what it gave before has not been taken.
    No,
    /// It has nothing at the moment; the client is not to blame.
    InVain,
    /// It gave a piece.
    Given,
}

thread_local! {
    /// A stream and its answer's body are polled by one call on one thread, and hyper's types between them tell neither
    /// of the other.
    static ASKED: Cell<Asked> = const { Cell::new(Asked::No) };
}

/// Noted by every answer's body.
pub(super) fn note(asked: Asked) {
    ASKED.set(asked);
}

/// Runs the streams of HTTP/2 connections, each with a limit on how long its client may take nothing.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(super) limit: Duration,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) timeouts: Timeouts,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Paced {
            stream,
            pace: Pace { streams: self.clone(), blocked_since: None, timer: None },
        });
    }
}

pin_project! {
    struct Paced<F> {
        #[pin]
        stream: F,
        pace: Pace,
    }
}

impl<F: Future<Output = ()>> Future for Paced<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.pace.poll(this.stream, cx)
    }
}

struct Pace {
    streams: Streams,
    blocked_since: Option<Instant>,
    timer: Option<Timer>,
}

impl Pace {
    /// Ready when the stream has ended, or its client took nothing for too long: then it is dropped, and thereby reset.
    fn poll(&mut self, stream: Pin<&mut impl Future<Output = ()>>, cx: &mut Context<'_>) -> Poll<()> {
        ASKED.set(Asked::No);
        if stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match ASKED.get() {
            Asked::No => {}
            Asked::InVain => self.blocked_since = None,
            Asked::Given => self.blocked_since = Some(Instant::now()),
        }
        let Some(since) = self.blocked_since else { return Poll::Pending };
        let streams = &self.streams;
        let timer = self.timer.get_or_insert_with(|| Timer::new(since, streams));
        if timer.poll(since, streams.limit, cx).is_pending() {
            return Poll::Pending;
        }
        streams.timeouts.write();
        Poll::Ready(())
    }
}

/// Set once, and moved only when it fires.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    stopping: Option<Instant>,
}

impl Timer {
    fn new(since: Instant, streams: &Streams) -> Self {
        let mut phase = streams.phase.clone();
        let stop = Box::pin(async move {
            if phase.wait_for(|phase| *phase == Phase::Stopping).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        let due = life::patient(since, streams.limit, None);
        Self { sleep: Box::pin(sleep_until(due)), stop, stopping: None }
    }

    fn poll(&mut self, since: Instant, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if self.stopping.is_none() && self.stop.as_mut().poll(cx).is_ready() {
            self.stopping = Some(Instant::now());
        }
        let due = life::patient(since, limit, self.stopping);
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}
