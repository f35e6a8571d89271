//! HTTP/2 connections: made when those who wait need them, shared, watched, given up.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    Pool, Protocol, SendError,
    connect::{Driver, Http1, Opened},
    streams::{Id, Waiter},
};
use crate::proxy::body::RequestBody;

/// How long an HTTP/2 connection without a stream is kept.
const IDLE: Duration = Duration::from_secs(300);

/// The place of a request among the streams of an HTTP/2 connection. A body that is still being sent holds it too.
#[derive(Debug)]
pub(in crate::proxy) struct Place {
    pool: Arc<Pool>,
    pub(super) id: Id,
}

/// A request that waits for a stream; nothing is what it gets when the provider turns out to speak HTTP/1.
#[derive(Debug)]
pub(super) struct Waiting(oneshot::Sender<Result<Option<Stream>, SendError>>);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) place: Place,
}

impl Drop for Place {
    fn drop(&mut self) {
        let has_waiting = {
            let mut connections = self.pool.lock();
            connections.streams.release(self.id, Instant::now());
            connections.streams.has_waiting()
        };
        if has_waiting {
            self.pool.serve_waiting();
        }
    }
}

impl Waiter for Waiting {
    fn has_left(&self) -> bool {
        self.0.is_closed()
    }
}

impl Pool {
    /// A stream; nothing when the provider turns out to speak HTTP/1.
    pub(super) async fn stream(self: &Arc<Self>) -> Result<Option<Stream>, SendError> {
        let receiver = {
            let mut connections = self.lock();
            if let Some((id, sender)) = connections.streams.take() {
                return Ok(Some(self.granted(id, sender)));
            }
            let (sender, receiver) = oneshot::channel();
            connections.streams.wait(Waiting(sender));
            receiver
        };
        self.begin_connecting();
        let limit = self.settings.connect_timeout;
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) | Err(_) => Err(SendError::ConnectTimeout(limit)),
        }
    }

    fn granted(self: &Arc<Self>, id: Id, sender: &SendRequest<RequestBody>) -> Stream {
        Stream { sender: sender.clone(), place: Place { pool: self.clone(), id } }
    }

    /// Begins as many connections as those that wait need. They are made on their own: whoever asked may leave.
    fn begin_connecting(self: &Arc<Self>) {
        let count = self.lock().streams.begin();
        for _ in 0..count {
            let pool = self.clone();
            tokio::spawn(async move {
                match pool.connector.connect().await {
                    Ok(Opened::Http2 { sender, driver, streams }) => pool.opened(sender, driver, streams),
                    Ok(Opened::Http1(http1)) => pool.opened_http1(http1),
                    Err(error) => pool.failed(&error),
                }
            });
        }
    }

    pub(super) fn opened(self: &Arc<Self>, sender: SendRequest<RequestBody>, driver: Driver, streams: usize) {
        let id = {
            let mut connections = self.lock();
            connections.protocol = Protocol::Http2;
            connections.streams.opened(sender, streams, Instant::now())
        };
        tokio::spawn(drive(Arc::downgrade(self), id, driver, streams));
        self.serve_waiting();
        self.begin_connecting();
    }

    fn opened_http1(self: &Arc<Self>, http1: Http1) {
        let waiting = {
            let mut connections = self.lock();
            connections.protocol = Protocol::Http1;
            connections.streams.is_other_protocol()
        };
        self.keep(http1);
        answer(waiting, || Ok(None));
    }

    fn failed(&self, error: &SendError) {
        let waiting = self.lock().streams.failed();
        answer(waiting, || Err(error.clone()));
    }

    /// Gives the streams that are free to those who wait.
    fn serve_waiting(self: &Arc<Self>) {
        loop {
            let (waiting, stream) = {
                let mut connections = self.lock();
                let Some((waiting, id, sender)) = connections.streams.take_for_waiting() else { return };
                (waiting, self.granted(id, sender))
            };
            // A stream that nobody takes frees itself, for which the lock must be free.
            drop(waiting.0.send(Ok(Some(stream))));
        }
    }
}

fn answer(waiting: VecDeque<Waiting>, say: impl Fn() -> Result<Option<Stream>, SendError>) {
    for Waiting(waiting) in waiting {
        let _ = waiting.send(say());
    }
}

/// Drives an HTTP/2 connection to its end, and keeps the pool's knowledge of it up to date.
async fn drive(pool: Weak<Pool>, id: Id, mut driver: Driver, mut streams: usize) {
    let mut look = tokio::time::interval(IDLE / 10);
    let ended = loop {
        let poll = std::future::poll_fn(|cx| {
            let polled = Pin::new(&mut driver).poll(cx);
            let allowed = driver.current_max_send_streams();
            if allowed != streams
                && let Some(pool) = pool.upgrade()
            {
                streams = allowed;
                pool.lock().streams.allow(id, allowed);
                pool.serve_waiting();
            }
            polled
        });
        tokio::select! {
            biased;
            ended = poll => break ended,
            _ = look.tick() => {
                if let Some(pool) = pool.upgrade() {
                    pool.lock().streams.expire(id, IDLE, Instant::now());
                }
            }
        }
    };
    if let Err(error) = ended {
        debug!("a connection to a provider ended: {error}");
    }
    if let Some(pool) = pool.upgrade() {
        pool.lock().streams.remove(id);
    }
}
