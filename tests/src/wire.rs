//! HTTP/1 as bytes: what no client library would send, and what comes back as it came.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::wait::within;

/// One answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    /// Its framing taken off, as far as it came.
    pub body: Bytes,
    /// Whether the body came to the end that its head announces.
    pub is_whole: bool,
}

impl Reply {
    /// A header's value, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// All values of a header, its name in lower case.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub async fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes over a connection of their own, and reads until the server hangs up.
pub async fn exchange(url: &str, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut stream = connect(url).await;
    // A server that refuses may hang up before it has read everything.
    let _ = stream.write_all(bytes.as_ref()).await;
    read_to_end(&mut stream).await
}

/// What comes until the server hangs up, in whatever way.
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    within("the end of a connection", async {
        while stream.read_buf(&mut came).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    came
}

/// The first answer to these bytes, as soon as it is whole; what there is of it when the server hangs up before that.
pub async fn ask(url: &str, bytes: impl AsRef<[u8]>) -> Option<Reply> {
    let mut stream = connect(url).await;
    let _ = stream.write_all(bytes.as_ref()).await;
    let mut came = Vec::new();
    within("an answer", async {
        loop {
            let first = replies(&came).into_iter().next();
            let has_length = |reply: &Reply| {
                ["content-length", "transfer-encoding"].iter().any(|it| reply.header(it).is_some())
                    || matches!(reply.status, 101 | 204 | 304)
            };
            if first.as_ref().is_some_and(|reply| reply.is_whole && has_length(reply)) {
                return first;
            }
            if !stream.read_buf(&mut came).await.is_ok_and(|read| read > 0) {
                return first;
            }
        }
    })
    .await
}

/// The answers that these bytes are, interim ones left out. None of the requests was a HEAD.
pub fn replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some((reply, rest)) = reply(bytes) {
        bytes = rest;
        if reply.status >= 200 || reply.status == 101 {
            replies.push(reply);
        }
    }
    replies
}

fn reply(bytes: &[u8]) -> Option<(Reply, &[u8])> {
    let end = find(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut reply = Reply { status, head, body: Bytes::new(), is_whole: true };
    if status < 200 || matches!(status, 204 | 304) {
        return Some((reply, rest));
    }
    let (body, is_whole, rest) = if reply.header("transfer-encoding").is_some() {
        dechunk(rest)
    } else if let Some(length) = reply.header("content-length") {
        let length: usize = length.parse().ok()?;
        let there = rest.len().min(length);
        (rest[..there].to_vec(), there == length, &rest[there..])
    } else {
        (rest.to_vec(), true, &rest[..0])
    };
    reply.body = body.into();
    reply.is_whole = is_whole;
    Some((reply, rest))
}

/// A chunked body as far as it came, whether that was all, and what follows it. Trailers are left out.
pub fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, bool, &[u8]) {
    let mut body = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        let line = String::from_utf8_lossy(&bytes[..end]);
        let size = line.split(';').next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let Some(size) = size else { return (body, false, &[]) };
        bytes = &bytes[end + 2..];
        if size == 0 {
            // Trailers end with an empty line.
            loop {
                let Some(end) = find(bytes, b"\r\n") else { return (body, false, &[]) };
                bytes = &bytes[end + 2..];
                if end == 0 {
                    return (body, true, bytes);
                }
            }
        }
        let there = bytes.len().min(size);
        body.extend_from_slice(&bytes[..there]);
        if bytes.len() < size + 2 {
            return (body, false, &[]);
        }
        bytes = &bytes[size + 2..];
    }
    (body, false, &[])
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
