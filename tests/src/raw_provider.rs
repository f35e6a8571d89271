//! A provider that writes the bytes that a test says, with no HTTP library in between, and keeps what it was sent.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A provider of raw bytes. Each connection is closed after one answer.
#[derive(Debug)]
pub struct RawProvider {
    url: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// One thing that an answer does. Every step's bytes are sent before the next one begins.
pub enum Step {
    Send(Bytes),
    /// Sends these bytes again and again, until the other side goes away.
    Flood(Bytes),
    /// Waits for the test.
    Wait(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// A request as it came, its body without the framing of a chunked one taken off.
#[derive(Debug, Clone)]
pub struct RawRequest {
    pub head: String,
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<RawRequest>>,
    written: AtomicU64,
}

impl RawProvider {
    /// Answers every request with the steps that `answer` says.
    pub async fn start(answer: impl Fn(&RawRequest) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Seen>::default();
        let task = tokio::spawn(serve(listener, Arc::new(answer), seen.clone()));
        Self { url, seen, task }
    }

    /// Answers every request with these bytes, head and body.
    pub async fn of(answer: impl Into<Bytes>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<RawRequest> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// The requests since this was asked last; none of them is kept.
    pub fn take_requests(&self) -> Vec<RawRequest> {
        std::mem::take(&mut self.seen.requests.lock().unwrap())
    }

    /// Bytes that the kernel took so far.
    pub fn written(&self) -> u64 {
        self.seen.written.load(Ordering::Relaxed)
    }
}

impl Drop for RawProvider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Step {
    pub fn send(bytes: impl Into<Bytes>) -> Self {
        Self::Send(bytes.into())
    }

    pub fn wait(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Wait(Box::pin(future))
    }

    /// The head of a 200 whose body is chunked.
    pub fn chunked_head(content_type: &str) -> Self {
        let headers = "transfer-encoding: chunked\r\nconnection: close";
        Self::send(format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{headers}\r\n\r\n"))
    }

    /// One chunk of a chunked body.
    pub fn chunk(data: &[u8]) -> Self {
        Self::send([format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat())
    }

    /// The end of a chunked body.
    pub fn end() -> Self {
        Self::send("0\r\n\r\n")
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => f.debug_tuple("Send").field(bytes).finish(),
            Self::Flood(bytes) => f.debug_tuple("Flood").field(&bytes.len()).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

impl RawRequest {
    /// A header's value; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

async fn serve<F>(listener: TcpListener, answer: Arc<F>, seen: Arc<Seen>)
where
    F: Fn(&RawRequest) -> Vec<Step> + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (answer, seen) = (answer.clone(), seen.clone());
        connections.spawn(async move {
            // The gateway hangs up where a test wants it to.
            let _ = converse(stream, &*answer, &seen).await;
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    answer: &(dyn Fn(&RawRequest) -> Vec<Step> + Sync),
    seen: &Seen,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let request = read(&mut stream).await?;
    seen.requests.lock().unwrap().push(request.clone());
    for step in answer(&request) {
        match step {
            Step::Send(bytes) => send(&mut stream, &bytes, seen).await?,
            Step::Flood(bytes) => loop {
                send(&mut stream, &bytes, seen).await?;
            },
            Step::Wait(future) => future.await,
        }
    }
    stream.shutdown().await
}

async fn send(stream: &mut TcpStream, mut bytes: &[u8], seen: &Seen) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = stream.write(bytes).await?;
        seen.written.fetch_add(written as u64, Ordering::Relaxed);
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn read(stream: &mut TcpStream) -> io::Result<RawRequest> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let body = Bytes::copy_from_slice(&bytes[end + 4..]);
        let request = RawRequest { head: String::from_utf8_lossy(&bytes[..end]).into_owned(), body };
        let is_whole = match request.header("content-length") {
            Some(length) => request.body.len() >= length.parse().unwrap(),
            None if request.header("transfer-encoding").is_some() => request.body.ends_with(b"0\r\n\r\n"),
            None => true,
        };
        if is_whole {
            return Ok(request);
        }
    }
}
