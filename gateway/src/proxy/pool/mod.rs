//! Connections to one provider, kept and used again by one worker.
//!
//! | module | what it is |
//! |---|---|
//! | `connect` | a connection is made |
//! | `lease` | a connection in use, and what becomes of it afterwards |
//! | `http2` | HTTP/2 connections are made, shared and given up |
//! | `idle` | HTTP/1 connections that nobody uses just now |
//! | `streams` | the rules of that: free streams, who waits for one, when another connection is needed |
//! | `patient` | an answer is read although the request cannot be sent any more |
//! | `again` | what may be sent once more |
//! | `first_byte` | how long an answer is waited for |
//!
//! Of its own, and not `hyper-util`'s: its client hashes its key, clones its configuration and spawns a task for every
//! request, and its pool parts (`client::pool`) know neither whether a connection is ready nor how many streams it has
//! left (`docs/architecture.md`).

mod again;
mod connect;
mod first_byte;
mod http2;
mod idle;
mod lease;
mod patient;
mod streams;

use std::{
    error::Error as StdError,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, Uri, Version, header, uri};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2::SendRequest},
};

use self::{
    again::{Refusal, Spare, refusal},
    connect::{Connector, Http1, Opened},
    http2::{Stream, Waiting},
    idle::Idle,
    lease::Leased,
    streams::Streams,
};
pub(super) use self::{http2::Place, lease::Lease};
use super::{body::RequestBody, config::Http2, upload::Upload};

/// How often a request is sent that an HTTP/2 server refuses to look at.
const ATTEMPTS: usize = 3;

/// Idle connections are looked at no more often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Where the connections go, and how they are made.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub scheme: uri::Scheme,
    pub authority: uri::Authority,
    pub http2: Http2,
    /// For name, TCP, TLS and HTTP/2's settings together.
    pub connect_timeout: Duration,
    /// From the whole request to the answer's head.
    pub first_byte: Duration,
    /// Header fields of an answer.
    pub max_headers: usize,
    pub tls: Arc<rustls::ClientConfig>,
}

#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    host: HeaderValue,
    connector: Connector,
    connections: Mutex<Connections>,
}

#[derive(Debug)]
struct Connections {
    protocol: Protocol,
    idle: Idle<Http1>,
    /// Somebody looks for old ones among them.
    is_swept: bool,
    streams: Streams<SendRequest<RequestBody>, Waiting>,
}

/// What the provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// The first TLS handshake will tell.
    Unknown,
    Http1,
    Http2,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SendError {
    /// No connection: name, network, TLS or HTTP/2's greetings.
    #[error("cannot connect: {0}")]
    Connect(#[source] Arc<dyn StdError + Send + Sync>),
    /// No connection in time.
    #[error("cannot connect: nothing came of it within {0:?}")]
    ConnectTimeout(Duration),
    /// The connection broke before the answer's headers came.
    #[error("the connection broke: {0}")]
    Broken(#[source] Arc<hyper::Error>),
    /// No answer in time.
    #[error("nothing came within {0:?}")]
    FirstByte(Duration),
}

impl SendError {
    fn connect(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Connect(error.into().into())
    }
}

/// An answer, and the connection that its body comes over.
pub(super) type Answer = (Response<Incoming>, Lease);

/// A request that was not answered.
struct Failed {
    error: SendError,
    /// It can be sent over another connection.
    again: Option<Request<RequestBody>>,
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        // A user name and password, if any, are no part of it.
        let host = settings.authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""));
        let protocol = match settings.http2 {
            Http2::Always => Protocol::Http2,
            Http2::Auto if settings.scheme == uri::Scheme::HTTPS => Protocol::Unknown,
            Http2::Auto | Http2::Never => Protocol::Http1,
        };
        let connections =
            Connections { protocol, idle: Idle::default(), is_swept: false, streams: Streams::default() };
        let connector = Connector::new(&settings, settings.http2);
        Arc::new(Self { settings, host, connector, connections: Mutex::new(connections) })
    }

    /// Sends a request whose URI is a path with query. It is sent once more over another connection as long as nothing of
    /// it has left, or the provider says that it has not looked at it.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, SendError> {
        let mut attempts = 0;
        loop {
            let answered = match self.connection().await? {
                Connection::Http1 { http1, is_reused } => self.over_http1(http1, is_reused, request).await,
                Connection::Http2(stream) => {
                    attempts += 1;
                    // Boxed: it is larger than what HTTP/1 needs, and every request would carry it.
                    Box::pin(self.over_http2(stream, request)).await
                }
            };
            match answered {
                Ok(answer) => return Ok(answer),
                Err(Failed { again: Some(again), .. }) if attempts < ATTEMPTS => request = again,
                Err(Failed { error, .. }) => return Err(error),
            }
        }
    }

    /// Sends a request over an HTTP/1 connection that is made for it alone and never given back: for what may turn the
    /// connection into something else ([`Lease::let_go`]).
    pub(super) async fn send_alone(
        self: &Arc<Self>,
        request: Request<RequestBody>,
    ) -> Result<Answer, SendError> {
        match Connector::new(&self.settings, Http2::Never).connect().await? {
            Opened::Http1(http1) => {
                let answered = self.over_http1(http1, false, request).await;
                let (response, lease) = answered.map_err(|failed| failed.error)?;
                Ok((response, lease.alone()))
            }
            Opened::Http2 { .. } => Err(SendError::connect("HTTP/2 where HTTP/1.1 was asked for")),
        }
    }

    async fn over_http1(
        self: &Arc<Self>,
        mut http1: Http1,
        is_reused: bool,
        request: Request<RequestBody>,
    ) -> Result<Answer, Failed> {
        let upload = request.body().upload().cloned();
        let answer = http1.sender.try_send_request(self.for_http1(request));
        // From now on it is closed if nobody waits for the answer any more.
        let lease = Lease::new(self, Leased::Http1(http1), upload);
        match first_byte::within(self.settings.first_byte, lease.upload(), answer).await {
            Ok(Ok(response)) => Ok((response, lease)),
            // One that the provider closed while it was idle.
            Ok(Err(error)) => Err(Failed::of(error).when(is_reused)),
            Err(_) => Err(self.no_first_byte()),
        }
    }

    async fn over_http2(
        self: &Arc<Self>,
        Stream { mut sender, place }: Stream,
        request: Request<RequestBody>,
    ) -> Result<Answer, Failed> {
        let mut request = self.for_http2(request);
        let spare = Spare::of(&request);
        let upload = request.body().upload().cloned();
        let place = Arc::new(place);
        request.body_mut().hold(&place);
        let id = place.id;
        let lease = Lease::new(self, Leased::Http2(place), upload);
        let answer = sender.try_send_request(request);
        match first_byte::within(self.settings.first_byte, lease.upload(), answer).await {
            Ok(Ok(response)) => Ok((response, lease)),
            Ok(Err(error)) => {
                let refusal = refusal(error.error());
                match refusal {
                    Some(Refusal::Stream) => self.lock().streams.refused(id),
                    Some(Refusal::Connection) => lease.give_up(),
                    // It was closed before this request.
                    None if error.message().is_some() => lease.give_up(),
                    None => {}
                }
                let failed = Failed::of(error);
                let again = failed.again.or_else(|| refusal.and_then(|_| spare.request()));
                Err(Failed { again, ..failed })
            }
            Err(_) => {
                lease.give_up();
                Err(self.no_first_byte())
            }
        }
    }

    fn no_first_byte(&self) -> Failed {
        Failed { error: SendError::FirstByte(self.settings.first_byte), again: None }
    }

    /// HTTP/1 wants a path and a `Host`.
    fn for_http1(&self, mut request: Request<RequestBody>) -> Request<RequestBody> {
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(header::HOST, self.host.clone());
        if request.uri().scheme().is_some() {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        }
        request
    }

    /// HTTP/2 wants a whole URI.
    fn for_http2(&self, mut request: Request<RequestBody>) -> Request<RequestBody> {
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
        let mut parts = mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.settings.scheme.clone());
        parts.authority = Some(self.settings.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request
    }

    async fn connection(self: &Arc<Self>) -> Result<Connection, SendError> {
        loop {
            let protocol = {
                let mut connections = self.lock();
                if let Some(http1) = connections.idle_http1() {
                    return Ok(Connection::Http1 { http1, is_reused: true });
                }
                connections.protocol
            };
            if protocol != Protocol::Http1 {
                match self.stream().await? {
                    Some(stream) => return Ok(Connection::Http2(stream)),
                    None => continue,
                }
            }
            match self.connector.connect().await? {
                Opened::Http1(http1) => return Ok(Connection::Http1 { http1, is_reused: false }),
                Opened::Http2 { sender, driver, streams } => self.opened(sender, driver, streams),
            }
        }
    }

    /// For the next request, unless none comes.
    fn keep(self: &Arc<Self>, http1: Http1) {
        let is_swept = {
            let mut connections = self.lock();
            connections.idle.push(http1, Instant::now());
            mem::replace(&mut connections.is_swept, true)
        };
        if !is_swept {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Connection {
    Http1 { http1: Http1, is_reused: bool },
    Http2(Stream),
}

/// Closes what is not used any more, as long as there may be such.
async fn sweep(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.lock().expire()) {
        tokio::time::sleep(next + SWEEP_INTERVAL).await;
    }
}

impl Connections {
    /// When there may be old ones next.
    fn expire(&mut self) -> Option<Duration> {
        let next = self.idle.expire(Instant::now());
        self.is_swept = next.is_some();
        next
    }

    /// A connection that is there and still open.
    fn idle_http1(&mut self) -> Option<Http1> {
        loop {
            let http1 = self.idle.pop(Instant::now())?;
            if http1.sender.is_ready() {
                return Some(http1);
            }
        }
    }
}

impl Failed {
    fn of(mut error: TrySendError<Request<RequestBody>>) -> Self {
        Self { again: error.take_message(), error: SendError::Broken(Arc::new(error.into_error())) }
    }

    fn when(mut self, may_be_sent_again: bool) -> Self {
        if !may_be_sent_again {
            self.again = None;
        }
        self
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
            first_byte: Duration::from_secs(5),
            tls: tls::client_config(None).unwrap(),
        })
    }

    /// One request; its connection goes back when its answer has ended.
    async fn ask(pool: &Arc<Pool>) {
        let request = Request::get("/v1/models").body(RequestBody::Ready(None)).unwrap();
        let (response, lease) = pool.send(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
        lease.give_back();
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
            while pool.lock().idle.is_any_ready() {
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

    #[tokio::test]
    async fn a_connection_that_is_let_go_belongs_to_whoever_upgraded_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
            stream.write_all(switch).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let request = Request::get("/v1/realtime").header("connection", "upgrade").header("upgrade", "echo");
        let request = request.body(RequestBody::Ready(None)).unwrap();
        let (response, lease) = pool(authority).send_alone(request).await.unwrap();
        assert_eq!(response.status(), 101);
        lease.let_go();
        let mut tunnel = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        tunnel.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ping");
    }
}
