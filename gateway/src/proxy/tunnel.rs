//! WebSocket: a request that becomes a tunnel of bytes (RFC 6455). It has one record, as every request, made when the
//! tunnel ends.
//!
//! A tunnel has a connection of its own, over HTTP/1.1, which is never used again. It runs on its client's connection's
//! task: it keeps that connection's place among `max_connections`, and is waited for at the end.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use plugin_api::EndReason;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::observer::RequestObserver;

/// When one side has ended, the other one should follow; a client may leave its connection open instead.
const AFTER_END: Duration = Duration::from_secs(2);

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The client's end of a tunnel that it asks for. Other protocols are never passed on: a tunnel that speaks HTTP (`h2c`)
/// would lead past everything that the gateway refuses.
pub(super) fn asked<B: http_body::Body>(request: &mut Request<B>) -> Option<OnUpgrade> {
    let headers = request.headers();
    let is_websocket = *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names_websocket(headers)
        && request.body().is_end_stream();
    is_websocket.then(|| hyper::upgrade::on(request))
}

/// Puts back what concerns one connection only, for the next connection.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, WEBSOCKET);
}

/// Whether this is the answer that opens the tunnel.
pub(super) fn is_open(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS && names_websocket(response.headers())
}

fn names_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    upgrade.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && connection.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case("upgrade"))
}

/// Where a connection's tunnel is put, to be run when the connection has become one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Tunnel>>>);

impl Slot {
    pub(super) fn put(&self, tunnel: Tunnel) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    /// The tunnel that the connection has become, if it has.
    pub(crate) fn take(&self) -> Option<Tunnel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Two connections that become one. Dropped at any point, it makes its record.
#[derive(Debug)]
pub(crate) struct Tunnel {
    client: OnUpgrade,
    provider: OnUpgrade,
    idle: Duration,
    traffic: Traffic,
    observer: RequestObserver,
}

impl Tunnel {
    pub(super) fn new(
        client: OnUpgrade,
        answer: &mut Response<Incoming>,
        idle: Duration,
        observer: RequestObserver,
    ) -> Self {
        let provider = hyper::upgrade::on(answer);
        Self { client, provider, idle, traffic: Traffic::default(), observer }
    }

    /// Passes bytes both ways until both sides have ended, one has broken off, or nothing came for too long.
    pub(crate) async fn run(mut self) {
        let ends = async { Ok::<_, hyper::Error>(((&mut self.client).await?, (&mut self.provider).await?)) };
        let (client, provider) = match ends.await {
            Ok(ends) => ends,
            Err(error) => {
                debug!("a tunnel was not opened: {error}");
                return;
            }
        };
        let mut client = Watched::new(client, Side::Client, &self.traffic);
        let mut provider = Watched::new(provider, Side::Provider, &self.traffic);
        let passed = tokio::select! {
            passed = copy_bidirectional(&mut client, &mut provider) => Some(passed),
            () = self.traffic.silence_of(self.idle) => None,
        };
        match passed {
            Some(Ok(_)) => self.observer.completed(),
            Some(Err(error)) => {
                debug!("a tunnel broke off: {error}");
                if self.traffic.flow().broken == Some(Side::Provider) {
                    self.observer.broke(EndReason::ProviderError, "upstream_broken");
                }
            }
            None if self.traffic.flow().ended => self.observer.completed(),
            None => self.observer.broke(EndReason::Timeout, "upstream_idle_timeout"),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let Flow { from_client, from_provider, .. } = self.traffic.flow();
        self.observer.tunnelled(from_client, from_provider);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Provider,
}

/// What passed so far, known to both sides. Only their worker takes the lock.
#[derive(Debug, Clone, Default)]
struct Traffic(Arc<(Mutex<Flow>, Notify)>);

#[derive(Debug, Clone, Copy)]
struct Flow {
    from_client: u64,
    from_provider: u64,
    /// When the last byte, or the end of a side, came.
    last: Instant,
    ended: bool,
    broken: Option<Side>,
}

impl Default for Flow {
    fn default() -> Self {
        Self { from_client: 0, from_provider: 0, last: Instant::now(), ended: false, broken: None }
    }
}

impl Traffic {
    fn flow(&self) -> Flow {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self, side: Side, bytes: usize) {
        let mut flow = self.lock();
        flow.last = Instant::now();
        match side {
            Side::Client => flow.from_client += bytes as u64,
            Side::Provider => flow.from_provider += bytes as u64,
        }
        if bytes == 0 && !flow.ended {
            flow.ended = true;
            self.0.1.notify_one();
        }
    }

    fn broke(&self, side: Side) {
        self.lock().broken.get_or_insert(side);
    }

    /// Ends when nothing came from either side for that long, or for [`AFTER_END`] when one has ended.
    async fn silence_of(&self, idle: Duration) {
        loop {
            let Flow { last, ended, .. } = self.flow();
            let until = last + if ended { idle.min(AFTER_END) } else { idle };
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.0.1.notified() => {}
            }
        }
    }
}

/// One side of a tunnel.
struct Watched {
    inner: TokioIo<Upgraded>,
    side: Side,
    traffic: Traffic,
}

impl Watched {
    fn new(inner: Upgraded, side: Side, traffic: &Traffic) -> Self {
        Self { inner: TokioIo::new(inner), side, traffic: traffic.clone() }
    }

    fn inner(&mut self) -> Pin<&mut TokioIo<Upgraded>> {
        Pin::new(&mut self.inner)
    }

    fn noted<T>(&self, outcome: io::Result<T>) -> Poll<io::Result<T>> {
        if outcome.is_err() {
            self.traffic.broke(self.side);
        }
        Poll::Ready(outcome)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(self.inner().poll_read(cx, buffer));
        if outcome.is_ok() {
            self.traffic.came(self.side, buffer.filled().len() - before);
        }
        self.noted(outcome)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = ready!(self.inner().poll_write(cx, bytes));
        self.noted(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(self.inner().poll_flush(cx));
        self.noted(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
