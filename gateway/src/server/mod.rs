//! Connections: accepted in one place, served by one single-threaded runtime per core.
//!
//! A connection stays on its worker, and so do the connections to providers that its requests use: no request ever
//! crosses a thread.

mod bad_requests;
pub mod config;
pub(crate) mod connection;
mod phase;
mod worker;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

pub(crate) use self::{
    bad_requests::BadRequests,
    phase::Phase,
    worker::{RollCall, configure},
};
use self::{
    connection::{Limits, Timeouts},
    worker::{Worker, Workers},
};
use crate::{
    places::{Place, Places},
    proxy::Proxy,
    repeats::Repeats,
};

/// One client's connection, and its place among `max_connections`.
#[derive(Debug)]
struct Connection {
    stream: std::net::TcpStream,
    place: Place,
}

/// The workers, and the count of connections.
#[derive(Debug)]
pub(crate) struct Server {
    workers: Workers,
    places: Places,
    timeouts: Timeouts,
    grace: Duration,
    bad_requests: Arc<BadRequests>,
}

impl Server {
    /// Starts one worker for each proxy.
    pub(crate) fn start(config: &config::Config, places: Places, proxies: Vec<Proxy>) -> io::Result<Self> {
        let timeouts = Timeouts::default();
        let bad_requests = Arc::<BadRequests>::default();
        let settings = worker::Settings {
            max_header_bytes: config.max_header_bytes.as_usize(),
            max_headers: config.max_headers,
            limits: Limits::of(config),
            timeouts: timeouts.clone(),
            bad_requests: bad_requests.clone(),
            grace: config.shutdown_grace,
        };
        let workers = proxies
            .into_iter()
            .enumerate()
            .map(|(index, proxy)| Worker::start(index, proxy, settings.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            workers: Workers::new(workers),
            places,
            timeouts,
            grace: config.shutdown_grace,
            bad_requests,
        })
    }

    pub(crate) fn bad_requests(&self) -> Arc<BadRequests> {
        self.bad_requests.clone()
    }

    /// Clients that overran a limit, for metrics.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts.clone()
    }

    /// Accepts until `shutdown`. At the limit of connections, further ones wait in the listener's backlog.
    pub(crate) async fn accept(&mut self, listener: &TcpListener, shutdown: impl Future<Output = ()>) {
        let refused = Refused::default();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                connection = next(listener, &self.places) => match connection {
                    Ok(connection) => self.workers.serve(connection),
                    Err(error) => refused.wait("a connection", &error).await,
                },
                () = &mut shutdown => return,
            }
        }
    }

    pub(crate) fn roll_call(&self) -> RollCall {
        self.workers.roll_call()
    }

    /// From now on clients are asked to go. They are still accepted.
    pub(crate) fn drain(&self) {
        self.workers.drain();
    }

    /// Accepts who stands in the listener's backlog: to a client it is a connection, on which its request may be already.
    /// When the listener is closed, those that are still in it are reset.
    pub(crate) fn accept_last(&mut self, listener: &std::net::TcpListener) {
        while let Some(place) = self.places.take() {
            let Ok((stream, _peer)) = listener.accept() else { return };
            if stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).is_ok() {
                self.workers.serve(Connection { stream, place });
            }
        }
    }

    /// Lets requests under way finish within the grace period, then cuts them.
    pub(crate) async fn shutdown(self) {
        let deadline = self.grace + Duration::from_secs(1);
        self.workers.shutdown(deadline).await;
    }
}

/// What the system says when it gives no connection: out of descriptors or memory. It passes when connections end.
#[derive(Debug, Default)]
pub(crate) struct Refused(Repeats);

impl Refused {
    /// Tells it, at most twice a minute, and waits a moment.
    pub(crate) async fn wait(&self, what: &str, error: &io::Error) {
        if let Some(suppressed) = self.0.due(1) {
            warn!(suppressed, "cannot accept {what}: {error}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn next(listener: &TcpListener, places: &Places) -> io::Result<Connection> {
    // Nobody else takes places, so one that is free now still is when a connection comes; taken only then, it counts no
    // connection that is not there.
    places.free().await;
    let (stream, _peer): (TcpStream, SocketAddr) = listener.accept().await?;
    let place = places.take().ok_or_else(|| io::Error::other("all places are taken"))?;
    stream.set_nodelay(true)?;
    Ok(Connection { stream: stream.into_std()?, place })
}
