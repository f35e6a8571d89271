//! Connections to one provider, kept and used again by one worker.
//!
//! Of its own, and not `hyper-util`'s client, since that one hashes its key, clones its configuration and spawns a task
//! for every request, which together cost a fifth of a request's CPU here. A pool of one address on one thread needs
//! none of it: an idle connection is popped from a list, and pushed back when the answer's body has ended.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, Uri, Version, header, uri};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::{Connection as _, HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower_service::Service as _;

use super::{body::RequestBody, config::Http2};

/// Shorter than what servers commonly allow, so that a request rarely meets a connection that is just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the connections go, and how they are made.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub scheme: uri::Scheme,
    pub authority: uri::Authority,
    pub http2: Http2,
    /// For name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Header fields of an answer.
    pub max_headers: usize,
    pub tls: Arc<rustls::ClientConfig>,
}

#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    host: HeaderValue,
    connector: HttpsConnector<HttpConnector>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    /// The one used last stands last, and is used first.
    idle: VecDeque<(Instant, http1::SendRequest<RequestBody>)>,
    /// One HTTP/2 connection carries all requests.
    shared: Option<http2::SendRequest<RequestBody>>,
}

enum Connection {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// No connection: name, network or TLS.
    #[error("cannot connect: {0}")]
    Connect(#[source] BoxError),
    /// No connection in time.
    #[error("cannot connect: nothing came of it within {0:?}")]
    ConnectTimeout(Duration),
    /// The connection broke before the answer's headers came.
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
}

/// An HTTP/1 connection that is busy with an answer. Dropped before the answer's end, it closes the connection.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    sender: http1::SendRequest<RequestBody>,
}

impl Lease {
    /// The answer has ended: the connection can be used again.
    pub(super) fn give_back(self) {
        let mut connections = self.pool.lock();
        while connections.idle.front().is_some_and(|(since, _)| since.elapsed() > IDLE_TIMEOUT) {
            connections.idle.pop_front();
        }
        connections.idle.push_back((Instant::now(), self.sender));
    }
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_keepalive(Some(Duration::from_secs(60)));
        let tls = HttpsConnectorBuilder::new().with_tls_config((*settings.tls).clone()).https_or_http();
        let connector = match settings.http2 {
            Http2::Auto => tls.enable_http1().enable_http2().wrap_connector(http),
            Http2::Never => tls.enable_http1().wrap_connector(http),
            Http2::Always => tls.enable_http2().wrap_connector(http),
        };
        // A user name and password, if any, are no part of it.
        let host = settings.authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""));
        Arc::new(Self { settings, host, connector, connections: Mutex::default() })
    }

    /// Sends a request whose URI is a path with query. A connection that the provider closed while it was idle is
    /// replaced, as long as nothing of the request has left.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Lease>), SendError> {
        loop {
            let (connection, is_reused) = match self.take().await {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            let mut failed = match self.send_over(connection, request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unsent) if is_reused => request = unsent,
                _ => return Err(SendError::Broken(failed.into_error())),
            }
        }
    }

    async fn send_over(
        self: &Arc<Self>,
        connection: Connection,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Lease>), TrySendError<Request<RequestBody>>> {
        match connection {
            Connection::Http1(mut sender) => {
                let response = sender.try_send_request(self.for_http1(request)).await?;
                Ok((response, Some(Lease { pool: self.clone(), sender })))
            }
            Connection::Http2(mut sender) => {
                Ok((sender.try_send_request(self.for_http2(request)).await?, None))
            }
        }
    }

    /// HTTP/1 wants a path and a `Host`.
    fn for_http1(&self, mut request: Request<RequestBody>) -> Request<RequestBody> {
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(header::HOST, self.host.clone());
        request
    }

    /// HTTP/2 wants a whole URI.
    fn for_http2(&self, mut request: Request<RequestBody>) -> Request<RequestBody> {
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.settings.scheme.clone());
        parts.authority = Some(self.settings.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request
    }

    /// A connection that is there and still open.
    async fn take(&self) -> Option<Connection> {
        loop {
            let connection = self.lock().pop()?;
            match connection {
                Connection::Http1(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Some(Connection::Http1(sender));
                    }
                }
                Connection::Http2(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Some(Connection::Http2(sender));
                    }
                    self.lock().shared = None;
                }
            }
        }
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let limit = self.settings.connect_timeout;
        // Boxed, since connecting takes kilobytes of state, which every request would carry and move around.
        let opened = Box::pin(tokio::time::timeout(limit, self.open()));
        opened.await.map_err(|_| SendError::ConnectTimeout(limit))?
    }

    async fn open(&self) -> Result<Connection, SendError> {
        let address = Uri::builder()
            .scheme(self.settings.scheme.clone())
            .authority(self.settings.authority.clone())
            .path_and_query("/")
            .build()
            .map_err(|error| SendError::Connect(error.into()))?;
        let stream = self.connector.clone().call(address).await.map_err(SendError::Connect)?;
        if self.settings.http2 == Http2::Always || stream.connected().is_negotiated_h2() {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).adaptive_window(true);
            let (sender, connection) = builder.handshake(stream).await.map_err(SendError::Broken)?;
            tokio::spawn(connection);
            self.lock().shared = Some(sender.clone());
            return Ok(Connection::Http2(sender));
        }
        let mut builder = http1::Builder::new();
        builder.max_headers(self.settings.max_headers);
        let (sender, connection) = builder.handshake(stream).await.map_err(SendError::Broken)?;
        tokio::spawn(connection);
        Ok(Connection::Http1(sender))
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn pop(&mut self) -> Option<Connection> {
        if let Some(shared) = &self.shared {
            return Some(Connection::Http2(shared.clone()));
        }
        let (since, sender) = self.idle.pop_back()?;
        if since.elapsed() > IDLE_TIMEOUT {
            // All before it are older still.
            self.idle.clear();
            return None;
        }
        Some(Connection::Http1(sender))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::proxy::tls;

    /// A server that answers `answers` requests on each connection and closes it then; it tells how many connections it
    /// was asked for.
    async fn server(answers: usize) -> (uri::Authority, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        let connections = Arc::new(Mutex::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                for _ in 0..answers {
                    let _ = stream.read(&mut [0; 1024]).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
                }
            }
        });
        (authority, connections)
    }

    fn pool(authority: uri::Authority) -> Arc<Pool> {
        Pool::new(Settings {
            scheme: uri::Scheme::HTTP,
            authority,
            http2: Http2::Auto,
            connect_timeout: Duration::from_secs(5),
            max_headers: 100,
            tls: tls::client_config(None).unwrap(),
        })
    }

    /// One request; its connection goes back when its answer has ended.
    async fn ask(pool: &Arc<Pool>) {
        let request = Request::get("/v1/models").body(RequestBody::Ready(None)).unwrap();
        let (response, lease) = pool.send(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
        lease.unwrap().give_back();
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let (authority, connections) = server(3).await;
        let pool = pool(authority);
        for _ in 0..3 {
            ask(&pool).await;
        }
        assert_eq!(*connections.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_it_was_idle_is_replaced() {
        let (authority, connections) = server(1).await;
        let pool = pool(authority);
        for _ in 0..5 {
            ask(&pool).await;
            while !pool.lock().idle.back().unwrap().1.is_closed() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(*connections.lock().unwrap(), 5);
    }

    #[tokio::test]
    async fn an_answer_that_is_given_up_closes_its_connection() {
        let (authority, connections) = server(2).await;
        let pool = pool(authority);
        let request = Request::get("/v1/models").body(RequestBody::Ready(None)).unwrap();
        drop(pool.send(request).await.unwrap());
        ask(&pool).await;
        assert_eq!(*connections.lock().unwrap(), 2);
    }

    #[tokio::test]
    async fn nobody_there_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        drop(listener);
        let request = Request::get("/v1/models").body(RequestBody::Ready(None)).unwrap();
        assert!(matches!(pool(authority).send(request).await, Err(SendError::Connect(_))));
    }
}
