//! Providers that speak HTTP/2 without TLS: one that does with each stream what a test says, and one made of raw frames, for
//! what no library would send.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{RecvStream, server};
use http::{Request, Response};
use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A provider that speaks HTTP/2.
pub struct Http2Provider {
    url: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// One stream.
#[derive(Debug)]
pub struct Exchange {
    /// Which connection it came over, from 1.
    pub connection: usize,
    pub request: Request<RecvStream>,
    pub respond: server::SendResponse<Bytes>,
}

/// The keys of a provider that is spoken to in HTTP/2.
pub const ALWAYS: &str = "http2 = \"always\"";

impl Http2Provider {
    /// Allows so many streams on each connection, and does what `answer` says with each.
    pub async fn start<F>(streams: u32, answer: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::of_connections(move |connection, stream| serve(connection, stream, streams, answer.clone()))
            .await
    }

    /// Does with each connection what `converse` says. An error of it is the gateway's hanging up.
    pub async fn of_connections<F>(converse: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                conversations.spawn(converse(count.fetch_add(1, Ordering::SeqCst) + 1, stream));
            }
        });
        Self { url, connections, task }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// How many connections the gateway has made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Http2Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Http2Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Provider").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Answers with 200 and these bytes.
    pub fn ok(mut self, body: impl Into<Bytes>) {
        // The gateway may have left.
        if let Ok(mut stream) = self.respond.send_response(Response::new(()), false) {
            let _ = stream.send_data(body.into(), true);
        }
    }

    pub fn refuse(mut self) {
        self.respond.send_reset(h2::Reason::REFUSED_STREAM);
    }
}

async fn serve<F, A>(connection: usize, stream: TcpStream, streams: u32, answer: Arc<A>) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
    A: Fn(Exchange) -> F + Send + Sync + 'static,
{
    let mut server = server::Builder::new()
        .max_concurrent_streams(streams)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    let mut exchanges = JoinSet::new();
    while let Some(next) = server.accept().await {
        let (request, respond) = next.map_err(io::Error::other)?;
        exchanges.spawn(answer(Exchange { connection, request, respond }));
    }
    Ok(())
}

/// A frame of HTTP/2 as it is sent (RFC 9113, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;

    /// Settings that leave everything as it is.
    pub fn settings() -> Self {
        Self { kind: Self::SETTINGS, flags: 0, stream: 0, payload: Vec::new() }
    }

    /// The settings, or the ping, of the other side are acknowledged.
    pub fn acknowledge(&self) -> Self {
        let payload = if self.kind == Self::PING { self.payload.clone() } else { Vec::new() };
        Self { flags: 1, payload, ..self.clone() }
    }

    /// A whole answer: 200 without a body.
    pub fn ok(stream: u32) -> Self {
        // END_STREAM and END_HEADERS; `:status: 200` is entry 8 of HPACK's static table.
        Self { kind: Self::HEADERS, flags: 0x5, stream, payload: vec![0x88] }
    }

    /// No stream after `last` was or will be looked at.
    pub fn go_away(last: u32) -> Self {
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        Self { kind: Self::GOAWAY, flags: 0, stream: 0, payload }
    }

    pub async fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        stream.write_all(&[head, self.payload.clone()].concat()).await
    }

    pub async fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Self { kind: head[3], flags: head[4], stream: id, payload })
    }

    /// Both sides' greetings.
    pub async fn greet(stream: &mut TcpStream) -> io::Result<()> {
        stream.read_exact(&mut [0; 24]).await?;
        Self::settings().write(stream).await
    }

    /// The next frame that is no housekeeping; that is answered.
    pub async fn next(stream: &mut TcpStream) -> io::Result<Self> {
        loop {
            let frame = Self::read(stream).await?;
            match frame.kind {
                Self::SETTINGS | Self::PING if frame.flags == 0 => frame.acknowledge().write(stream).await?,
                Self::HEADERS | Self::RST_STREAM | Self::GOAWAY => return Ok(frame),
                _ => {}
            }
        }
    }
}
