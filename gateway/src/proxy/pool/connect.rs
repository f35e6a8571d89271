//! How a connection is made: name, TCP, TLS, and the greetings of the protocol.

use std::{sync::Arc, time::Duration};

use http::{Uri, uri};
use hyper::client::conn::{http1, http2};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connection as _, HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, task::AbortHandle};
use tower_service::Service as _;

use super::{SendError, Settings, patient::Patient};
use crate::proxy::{body::RequestBody, config::Http2};

/// A connection that is silent for so long is asked whether it is still there.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long the answer to that may take. TCP, which does the same for HTTP/1, asks three times.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What an HTTP/1 connection may hold of an answer that its client does not read, and of a request that the provider does
/// not take; the head of an answer has to fit in. Without it hyper would hold 400 KiB of each.
const BUFFER_BYTES: usize = 64 * 1024;

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// What drives an HTTP/2 connection; it ends with it.
pub(super) type Driver = http2::Connection<Stream, RequestBody, TokioExecutor>;

/// A connection that stands.
pub(super) enum Opened {
    Http1(Http1),
    Http2 { sender: http2::SendRequest<RequestBody>, driver: Driver, streams: usize },
}

/// An HTTP/1 connection. Dropped, it is closed at once, whatever is being sent over it.
#[derive(Debug)]
pub(super) struct Http1 {
    pub sender: http1::SendRequest<RequestBody>,
    task: Option<AbortHandle>,
}

impl Http1 {
    /// From now on it closes by itself: what comes over it is no longer HTTP.
    pub(super) fn let_go(mut self) {
        self.task = None;
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[derive(Debug)]
pub(super) struct Connector {
    address: Result<Uri, Arc<http::Error>>,
    connector: HttpsConnector<HttpConnector>,
    is_always_http2: bool,
    max_headers: usize,
    limit: Duration,
}

impl Connector {
    pub(super) fn new(settings: &Settings, http2: Http2) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        // A dead route is noticed within a minute, also while a model is silent.
        http.set_keepalive(Some(PING_AFTER));
        http.set_keepalive_interval(Some(PING_TIMEOUT));
        http.set_keepalive_retries(Some(3));
        let tls = HttpsConnectorBuilder::new().with_tls_config((*settings.tls).clone()).https_or_http();
        let connector = match http2 {
            Http2::Auto => tls.enable_http1().enable_http2().wrap_connector(http),
            Http2::Never => tls.enable_http1().wrap_connector(http),
            Http2::Always => tls.enable_http2().wrap_connector(http),
        };
        let (scheme, authority): (uri::Scheme, uri::Authority) =
            (settings.scheme.clone(), settings.authority.clone());
        let address = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
        Self {
            address: address.map_err(Arc::new),
            connector,
            is_always_http2: http2 == Http2::Always,
            max_headers: settings.max_headers,
            limit: settings.connect_timeout,
        }
    }

    /// A connection, within its time limit.
    pub(super) async fn connect(&self) -> Result<Opened, SendError> {
        // Boxed, since connecting takes kilobytes of state, which every request would carry and move around.
        let opened = Box::pin(tokio::time::timeout(self.limit, self.open()));
        opened.await.map_err(|_| SendError::ConnectTimeout(self.limit))?
    }

    async fn open(&self) -> Result<Opened, SendError> {
        let address = self.address.clone().map_err(SendError::connect)?;
        let stream = self.connector.clone().call(address).await.map_err(SendError::connect)?;
        if self.is_always_http2 || stream.connected().is_negotiated_h2() {
            return greet(stream).await;
        }
        let mut http1 = http1::Builder::new();
        http1.max_headers(self.max_headers).max_buf_size(BUFFER_BYTES);
        let (sender, connection) = http1.handshake(Patient::new(stream)).await.map_err(SendError::connect)?;
        let task = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Opened::Http1(Http1 { sender, task: Some(task) }))
    }
}

/// An HTTP/2 connection is worth something once the server has said how many streams it allows: until then as many
/// requests could be sent as it will refuse.
async fn greet(stream: Stream) -> Result<Opened, SendError> {
    let (sender, mut driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .initial_max_send_streams(0)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(stream)
        .await
        .map_err(SendError::connect)?;
    // hyper tells nobody when the settings come. They come once, a round trip after the connection.
    let mut look = tokio::time::interval(Duration::from_millis(1));
    loop {
        let streams = driver.current_max_send_streams();
        if streams > 0 {
            return Ok(Opened::Http2 { sender, driver, streams });
        }
        tokio::select! {
            ended = &mut driver => {
                ended.map_err(SendError::connect)?;
                return Err(SendError::connect("closed before HTTP/2 began"));
            }
            _ = look.tick() => {}
        }
    }
}
