//! A provider of raw bytes that keeps its connections open, so that what is left over of one request or answer meets
//! the next one.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    raw_provider::RawRequest,
    wire::{dechunk, find},
};

/// Which of two framings a server takes when a request has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As RFC 9112 says.
    ChunkedFirst,
    /// As servers do that know no chunks.
    LengthFirst,
}

/// What a request is answered with.
#[derive(Debug, Clone)]
pub enum Said {
    /// These bytes, and the connection stays open.
    Keep(Bytes),
    /// These bytes, and the connection is closed.
    Close(Bytes),
}

/// A provider that keeps its connections open.
#[derive(Debug)]
pub struct Scripted {
    url: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<RawRequest>>,
    connections: AtomicUsize,
}

impl Scripted {
    pub async fn start(
        reading: Reading,
        answer: impl Fn(&RawRequest) -> Said + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Seen>::default();
        let (answer, noted) = (Arc::new(answer), seen.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                noted.connections.fetch_add(1, Ordering::Relaxed);
                let (answer, noted) = (answer.clone(), noted.clone());
                connections.spawn(async move { converse(stream, reading, &*answer, &noted).await });
            }
        });
        Self { url, seen, task }
    }

    /// Answers every request with 200 and what it read: method, path, body.
    pub async fn echo(reading: Reading) -> Self {
        Self::start(reading, |request| Said::Keep(ok(&described(request)))).await
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The requests so far, bodies without their framing.
    pub fn requests(&self) -> Vec<RawRequest> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer with 200.
pub fn ok(body: &str) -> Bytes {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
}

/// `METHOD PATH BODY`
pub fn described(request: &RawRequest) -> String {
    let line = request.head.lines().next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{method} {path} {}", String::from_utf8_lossy(&request.body))
}

async fn converse<F: Fn(&RawRequest) -> Said>(
    mut stream: TcpStream,
    reading: Reading,
    answer: &F,
    seen: &Seen,
) {
    let mut bytes = Vec::new();
    loop {
        let Some((request, length)) = parse(&bytes, reading) else {
            match stream.read_buf(&mut bytes).await {
                Ok(read) if read > 0 => continue,
                _ => return,
            }
        };
        bytes.drain(..length);
        seen.requests.lock().unwrap().push(request.clone());
        let (said, closes) = match answer(&request) {
            Said::Keep(said) => (said, false),
            Said::Close(said) => (said, true),
        };
        // The gateway hangs up where a test wants it to.
        if stream.write_all(&said).await.is_err() || closes {
            return;
        }
    }
}

/// A whole request, and its bytes.
fn parse(bytes: &[u8], reading: Reading) -> Option<(RawRequest, usize)> {
    let end = find(bytes, b"\r\n\r\n")?;
    let rest = &bytes[end + 4..];
    let mut request =
        RawRequest { head: String::from_utf8_lossy(&bytes[..end]).into_owned(), body: Bytes::new() };
    let is_chunked = request.header("transfer-encoding").is_some();
    let length = request.header("content-length").and_then(|length| length.parse::<usize>().ok());
    let by_length = length.filter(|_| !is_chunked || reading == Reading::LengthFirst);
    let left = match by_length {
        Some(length) => {
            request.body = Bytes::copy_from_slice(rest.get(..length)?);
            rest.len() - length
        }
        None if is_chunked => {
            let (body, is_whole, left) = dechunk(rest);
            is_whole.then_some(())?;
            request.body = body.into();
            left.len()
        }
        None => rest.len(),
    };
    Some((request, bytes.len() - left))
}
