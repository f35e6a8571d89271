//! The tests' HTTP client: one connection a request, blocking, and nothing that is clever.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use serde_json::Value;

/// A request to be sent.
pub(crate) struct Call<'a> {
    method: &'a str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the connection ended before the announced end of the body.
    pub(crate) cut: bool,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn call<'a>(method: &'a str, url: String) -> Call<'a> {
    Call { method, url, headers: Vec::new(), body: Vec::new(), chunked: false }
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that compression cannot make smaller, as text: for the limits on compressed sizes.
pub(crate) fn noise(length: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length)
        .map(|_| char::from(b'0' + u8::try_from(next() >> 33 & 0x3f).unwrap()))
        .map(no_escape)
        .collect()
}

fn no_escape(c: char) -> char {
    if c == '\\' { 'x' } else { c }
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn gzip(self, body: impl AsRef<[u8]>) -> Self {
        self.header("Content-Encoding", "gzip").body(gzip(body.as_ref()))
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Sends and reads until the connection ends.
    pub(crate) fn send(self) -> Got {
        self.try_send().unwrap()
    }

    pub(crate) fn try_send(self) -> io::Result<Got> {
        let (host, path) = split(&self.url);
        let mut stream = TcpStream::connect(host)?;
        stream.write_all(&self.bytes(host, path))?;
        let mut answer = Vec::new();
        // A connection that was reset after its answer still gave the answer.
        let end = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            end?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(parse(&answer))
    }

    /// Sends, and gives the open connection: for requests that get no answer.
    pub(crate) fn start(self) -> TcpStream {
        let (host, path) = split(&self.url);
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(&self.bytes(host, path)).unwrap();
        stream
    }

    fn bytes(&self, host: &str, path: &str) -> Vec<u8> {
        let mut head = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.method);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let framing = match (self.chunked, self.body.len()) {
            (true, length) => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"),
            (false, 0) => "\r\n".to_owned(),
            (false, length) => format!("Content-Length: {length}\r\n\r\n"),
        };
        let end = if self.chunked { "\r\n0\r\n\r\n" } else { "" };
        [head.as_bytes(), framing.as_bytes(), &self.body, end.as_bytes()].concat()
    }
}

fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    (host, if path.is_empty() { "/" } else { path })
}

fn parse(answer: &[u8]) -> Got {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let body = answer[end + 4..].to_vec();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut got = Got { status, head, body, cut: false };
    let announced = got.header("content-length").map_or(0, |length| length.parse().unwrap());
    got.cut = !got.body.is_empty() && got.body.len() < announced;
    got
}
