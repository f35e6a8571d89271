//! Connections: accepted in one place, served by one single-threaded runtime per core.
//!
//! A connection stays on its worker, and so do the connections to providers that its requests use: no request ever
//! crosses a thread.

mod bad_requests;
pub mod config;
mod worker;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::warn;

pub(crate) use self::bad_requests::BadRequests;
use self::worker::{Worker, Workers};
use crate::proxy::Proxy;

/// One client's connection, and its place among `max_connections`.
#[derive(Debug)]
struct Connection {
    stream: std::net::TcpStream,
    place: OwnedSemaphorePermit,
}

/// The workers, and the count of connections.
#[derive(Debug)]
pub(crate) struct Server {
    workers: Workers,
    places: Arc<Semaphore>,
    max_connections: usize,
    grace: Duration,
    bad_requests: Arc<BadRequests>,
}

/// How many connections are open, for metrics.
#[derive(Debug, Clone)]
pub(crate) struct OpenConnections {
    places: Arc<Semaphore>,
    max: usize,
}

impl OpenConnections {
    pub(crate) fn count(&self) -> u64 {
        (self.max - self.places.available_permits()) as u64
    }
}

impl Server {
    /// Starts one worker for each proxy.
    pub(crate) fn start(config: &config::Config, proxies: Vec<Proxy>) -> io::Result<Self> {
        let settings = worker::Settings {
            max_header_bytes: config.max_header_bytes.as_usize(),
            max_headers: config.max_headers,
            header_timeout: config.header_timeout,
            grace: config.shutdown_grace,
        };
        let bad_requests = Arc::<BadRequests>::default();
        let workers = proxies
            .into_iter()
            .enumerate()
            .map(|(index, proxy)| Worker::start(index, proxy, settings, bad_requests.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            workers: Workers::new(workers),
            places: Arc::new(Semaphore::new(config.max_connections)),
            max_connections: config.max_connections,
            grace: config.shutdown_grace,
            bad_requests,
        })
    }

    pub(crate) fn bad_requests(&self) -> Arc<BadRequests> {
        self.bad_requests.clone()
    }

    pub(crate) fn open_connections(&self) -> OpenConnections {
        OpenConnections { places: self.places.clone(), max: self.max_connections }
    }

    /// Accepts until `shutdown`. At the limit of connections, further ones wait in the listener's backlog.
    pub(crate) async fn accept(&mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                connection = next(&listener, &self.places) => match connection {
                    Ok(connection) => self.workers.serve(connection),
                    Err(error) => {
                        // Out of descriptors or memory: it passes when connections end.
                        warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                () = &mut shutdown => return,
            }
        }
    }

    /// Lets requests under way finish within the grace period, then cuts them.
    pub(crate) async fn shutdown(self) {
        let deadline = self.grace + Duration::from_secs(1);
        self.workers.shutdown(deadline).await;
    }
}

async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Connection> {
    // Nobody else takes places, so one that is free now still is when a connection comes; taken only then, it counts no
    // connection that is not there.
    drop(places.acquire().await);
    let (stream, _peer): (TcpStream, SocketAddr) = listener.accept().await?;
    let place = places.clone().try_acquire_owned().map_err(io::Error::other)?;
    stream.set_nodelay(true)?;
    Ok(Connection { stream: stream.into_std()?, place })
}
