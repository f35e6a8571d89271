//! HTTP/1.1 on a thread of its own, with or without TLS.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::message::{Answer, Request};

/// What the server does with a request.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// What goes back.
pub(crate) enum Reply {
    Whole(Answer),
    /// Half of the body, then the connection closes.
    Cut(Answer),
    Never,
}

/// A port, its thread, and the connections.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    port: Mutex<Port>,
    /// Taken when the server is dropped.
    runtime: Option<Runtime>,
}

enum Port {
    /// Accepting, until told to stop; then it says that it did.
    Up { stop: oneshot::Sender<()>, stopped: mpsc::Receiver<Accept> },
    /// Bound, so that nobody else gets the port, but not listening: clients are refused.
    Down { reserved: TcpSocket, accept: Accept },
    /// Between the two.
    Changing,
}

/// Starts a task that accepts connections on a listener; it can be started again on the next one.
type Accept = Box<dyn Fn(TcpListener) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

impl Server {
    pub(crate) fn start(handler: Arc<impl Handler>, tls: Option<Arc<ServerConfig>>) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fake-backend")
            .enable_all()
            .build()
            .unwrap();
        let reserved = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = reserved.local_addr().unwrap();
        let connections = Arc::<AtomicU64>::default();
        let (count, tls) = (connections.clone(), tls.map(TlsAcceptor::from));
        let accept: Accept =
            Box::new(move |listener| Box::pin(accept(listener, handler.clone(), tls.clone(), count.clone())));
        let port = Mutex::new(Port::Down { reserved, accept });
        let server = Self { address, connections, port, runtime: Some(runtime) };
        server.up();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Listens again, on the same port. Nothing happens when it already does.
    pub(crate) fn up(&self) {
        let mut port = self.port.lock().unwrap();
        *port = match std::mem::replace(&mut *port, Port::Changing) {
            Port::Down { reserved, accept } => self.listen(reserved, accept),
            other => other,
        };
    }

    /// Closes the port and every connection; when this returns, clients are refused.
    pub(crate) fn down(&self) {
        let mut port = self.port.lock().unwrap();
        *port = match std::mem::replace(&mut *port, Port::Changing) {
            Port::Up { stop, stopped } => {
                stop.send(()).ok();
                let accept = stopped.recv().unwrap();
                Port::Down { reserved: bind(self.address).unwrap(), accept }
            }
            other => other,
        };
    }

    fn listen(&self, reserved: TcpSocket, accept: Accept) -> Port {
        let runtime = self.runtime.as_ref().unwrap();
        let _inside = runtime.enter();
        let listener = reserved.listen(1024).unwrap();
        let (stop, told) = oneshot::channel::<()>();
        let (done, stopped) = mpsc::channel();
        runtime.spawn(async move {
            let accepting = accept(listener);
            tokio::select! {
                () = accepting => {}
                // Dropping the task's future closes the listener and, with the set of them, every connection.
                _ = told => {}
            }
            done.send(accept).ok();
        });
        Port::Up { stop, stopped }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
        // Not the ordinary drop, which waits, and may not inside another runtime.
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Up { .. } => "Up",
            Self::Down { .. } => "Down",
            Self::Changing => "Changing",
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    handler: Arc<impl Handler>,
    tls: Option<TlsAcceptor>,
    count: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(connection(stream, handler.clone(), tls.clone(), number));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connection(stream: TcpStream, handler: Arc<impl Handler>, tls: Option<TlsAcceptor>, number: u64) {
    stream.set_nodelay(true).ok();
    match tls {
        None => serve(stream, handler, number).await,
        // A client that does not trust us, or shows no certificate, is what some tests are about.
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, handler, number).await;
            }
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Arc<impl Handler>,
    number: u64,
) {
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { answer(request, &*handler, number).await }
    });
    // A cut connection is the client's affair, or what the script asked for.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(
    request: hyper::Request<Incoming>,
    handler: &impl Handler,
    number: u64,
) -> io::Result<hyper::Response<AnswerBody>> {
    let (head, body) = request.into_parts();
    let wire = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
    let target = head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let request = Request::new(head.method.to_string(), target, headers, wire, number);
    let (answer, cut) = match handler.handle(request).await {
        Reply::Whole(answer) => (answer, false),
        Reply::Cut(answer) => (answer, true),
        Reply::Never => pending().await,
    };
    let mut response = hyper::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(AnswerBody::new(answer.body, cut)).map_err(io::Error::other)
}

/// An answer's body, whole or to be cut in the middle.
struct AnswerBody {
    /// What `Content-Length` says.
    length: u64,
    rest: Bytes,
    cut: bool,
    /// The half is on its way: one more turn lets the connection flush it before the error ends it.
    flushed: bool,
}

impl AnswerBody {
    fn new(body: Bytes, cut: bool) -> Self {
        // An empty body cannot be cut: promise two bytes and send one.
        let body = if cut && body.is_empty() { Bytes::from_static(b"{}") } else { body };
        let length = body.len() as u64;
        let rest = if cut { body.slice(..body.len() / 2) } else { body };
        Self { length, rest, cut, flushed: false }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        match (self.cut, self.flushed) {
            (false, _) => Poll::Ready(None),
            (true, false) => {
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (true, true) => Poll::Ready(Some(Err(io::Error::other("cut as the script says")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.cut && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.cut { self.length } else { self.rest.len() as u64 })
    }
}
