//! A client of raw bytes: one that is silent, sends halves, or never reads.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::wait::PATIENCE;

/// What every HTTP/2 connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    opened: Instant,
}

impl RawClient {
    /// Connects to a URL without a path.
    pub async fn connect(url: &str) -> Self {
        Self::connect_with(TcpSocket::new_v4().unwrap(), url).await
    }

    /// With a small buffer for what the server sends: it notices soon that nobody reads.
    pub async fn connect_narrow(url: &str) -> Self {
        Self::connect_with_buffer(url, 4096).await
    }

    pub async fn connect_with_buffer(url: &str, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        Self::connect_with(socket, url).await
    }

    async fn connect_with(socket: TcpSocket, url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, opened: Instant::now() }
    }

    /// Sends these bytes; false when the connection is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// What comes next; empty at the end, however it comes.
    pub async fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let read = tokio::time::timeout(2 * PATIENCE, self.stream.read(&mut bytes)).await;
        let length = read.expect("the connection neither says anything nor ends").unwrap_or(0);
        bytes.truncate(length);
        bytes
    }

    /// Reads until all of what was read satisfies `is_done`.
    pub async fn read_until(&mut self, is_done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut all = Vec::new();
        while !is_done(&all) {
            let bytes = self.read().await;
            assert!(!bytes.is_empty(), "the connection ended after {:?}", String::from_utf8_lossy(&all));
            all.extend(bytes);
        }
        all
    }

    /// Whether nothing comes, not even the end, for so long.
    pub async fn is_left_alone_for(&mut self, time: Duration) -> bool {
        let mut byte = [0];
        tokio::time::timeout(time, self.stream.peek(&mut byte)).await.is_err()
    }

    /// Reads to the end; how long the connection was open.
    pub async fn end(&mut self) -> Duration {
        while !self.read().await.is_empty() {}
        self.opened.elapsed()
    }

    /// Waits for the end without reading anything.
    pub async fn reset(&mut self) {
        let gone = self.stream.ready(tokio::io::Interest::ERROR);
        let gone = tokio::time::timeout(2 * PATIENCE, gone).await;
        gone.expect("the connection does not end").unwrap();
    }

    /// HTTP/2: answers pings and settings and does nothing else, to the end. How long the connection was open, and
    /// whether it was told to go (GOAWAY).
    pub async fn answer_pings(&mut self) -> (Duration, bool) {
        let (mut unread, mut was_told) = (Vec::new(), false);
        loop {
            let bytes = self.read().await;
            if bytes.is_empty() {
                return (self.opened.elapsed(), was_told);
            }
            unread.extend(bytes);
            for Frame { kind, flags, stream, payload } in take_frames(&mut unread) {
                match (kind, flags & ACK) {
                    (PING, 0) => drop(self.send(frame(PING, ACK, stream, &payload)).await),
                    (SETTINGS, 0) => drop(self.send(frame(SETTINGS, ACK, 0, &[])).await),
                    (GOAWAY, _) => was_told = true,
                    _ => {}
                }
            }
        }
    }
}

/// A frame of HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface and settings; `window` is how much of each answer the client takes before it says more.
pub fn begin_http2(window: u32) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    let settings = [&INITIAL_WINDOW_SIZE[..], &window.to_be_bytes()].concat();
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// A POST of JSON over HTTP/2, in a HEADERS and a DATA frame.
pub fn http2_post(stream: u32, path: &str, body: &str) -> Vec<u8> {
    // RFC 7541: `:method: POST`, `:scheme: http`, then `:path`, `:authority` and `content-type` by the index of the name.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(&[0x04][..], path), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/json")] {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

/// Takes the whole frames off the front.
pub fn take_frames(bytes: &mut Vec<u8>) -> Vec<Frame> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        if bytes.len() < 9 + length {
            break;
        }
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        let (kind, flags) = (bytes[3], bytes[4]);
        frames.push(Frame { kind, flags, stream, payload: bytes[9..9 + length].to_vec() });
        bytes.drain(..9 + length);
    }
    frames
}

/// Where chat completions are asked for.
pub const CHAT: &str = "/v1/chat/completions";

/// The body of a request for one.
pub fn question(model: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}"#)
}

/// The whole request, as it goes over a socket.
pub fn http1_post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
