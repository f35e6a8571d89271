//! The load: requests as fast as answers come, for CPU time, or at a fixed rate, for latency.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, reply::Reply};

const PATIENCE: Duration = Duration::from_secs(10);
const BODY_BYTES: usize = 1024;

/// A chat completion of 1 KB for the upstream's model `model`, as an official SDK would send it.
pub(crate) fn request(address: SocketAddr, model: &str, stream: bool) -> Vec<u8> {
    let before = format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":""#);
    let after = r#""}]}"#;
    let filler = BODY_BYTES.saturating_sub(before.len() + after.len());
    let body = format!("{before}{}{after}", "Why? ".repeat(filler.div_ceil(5)).split_at(filler).0);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n\
         content-type: application/json\r\nuser-agent: OpenAI/Bench 1.0\r\n\
         authorization: Bearer sk-bench-0123456789abcdef\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// The same with every byte of its body in a chunk of its own, and so much more in it.
pub(crate) fn request_in_chunks(address: SocketAddr, more: usize) -> Vec<u8> {
    let whole = String::from_utf8_lossy(&request(address, "demo-fast", false)).into_owned();
    let (head, body) = whole.split_once("\r\n\r\n").unwrap_or_default();
    let head = head.replace(&format!("content-length: {BODY_BYTES}"), "transfer-encoding: chunked");
    let mut bytes = format!("{head}\r\n\r\n").into_bytes();
    for byte in std::iter::repeat_n(b' ', more).chain(body.bytes()) {
        bytes.extend([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// GET of some JSON.
pub(crate) fn get_json(address: SocketAddr, path: &str) -> Result<serde_json::Value, Error> {
    Ok(serde_json::from_str(&get(address, path)?)?)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String, Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // To HTTP/1.0 there is no answer in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a head")?;
    Ok(body.to_owned())
}

/// Connections that send the next request as soon as the answer has come.
pub(crate) struct ClosedLoop {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl ClosedLoop {
    pub(crate) fn start(address: SocketAddr, request: Vec<u8>, connections: usize) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request: Arc<[u8]> = request.into();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut clients = tokio::task::JoinSet::new();
                for _ in 0..connections {
                    clients.spawn(client(address, Arc::clone(&request), Arc::clone(&theirs)));
                }
                clients.join_all().await;
            });
        });
        Ok(Self { shared, thread })
    }

    /// Whole answers so far.
    pub(crate) fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// Lets every connection end its request; returns the whole answers of the run.
    pub(crate) fn stop(self) -> Result<u64, Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the load generator panicked")?;
        let failure = self.shared.failure.lock().map_err(|_| "the load generator panicked")?.take();
        match failure {
            Some(failure) => Err(failure.into()),
            None => Ok(self.shared.done.load(Ordering::Relaxed)),
        }
    }
}

async fn client(address: SocketAddr, request: Arc<[u8]>, shared: Arc<Shared>) {
    if let Err(error) = repeat(address, &request, &shared).await {
        shared.stop.store(true, Ordering::Relaxed);
        if let Ok(mut failure) = shared.failure.lock() {
            failure.get_or_insert(format!("load on {address}: {error}"));
        }
    }
}

async fn repeat(address: SocketAddr, request: &[u8], shared: &Shared) -> Result<(), Error> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    while !shared.stop.load(Ordering::Relaxed) {
        stream.write_all(request).await?;
        let mut reply = Reply::default();
        loop {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await??;
            if read == 0 {
                return Err("the connection ended within an answer".into());
            }
            if reply.feed(&buffer[..read])? {
                break;
            }
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// How long answers took, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    /// To the first byte of the body.
    pub(crate) first: Vec<u64>,
    /// To the last byte of the body.
    pub(crate) last: Vec<u64>,
}

/// Sends `rate` requests a second for `window`, whether or not earlier ones were answered.
///
/// One blocking thread per connection, because timers of a runtime are a millisecond coarse. An answer that comes after
/// the next request was due delays that one, and the delay counts as its latency.
pub(crate) fn fixed_rate(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    rate: f64,
    window: Duration,
) -> Result<Latencies, Error> {
    let interval = Duration::from_secs_f64(connections as f64 / rate);
    let begin = Instant::now() + Duration::from_millis(20);
    let results: Vec<Result<Latencies, String>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|index| {
                let first_due = begin + interval.mul_f64(index as f64 / connections as f64);
                scope.spawn(move || {
                    paced(address, request, first_due, interval, begin + window)
                        .map_err(|error| format!("load on {address}: {error}"))
                })
            })
            .collect();
        let panicked = |_| Err("the load generator panicked".to_owned());
        clients.into_iter().map(|client| client.join().unwrap_or_else(panicked)).collect()
    });
    let mut all = Latencies::default();
    for latencies in results {
        let latencies = latencies?;
        all.first.extend(latencies.first);
        all.last.extend(latencies.last);
    }
    Ok(all)
}

fn paced(
    address: SocketAddr,
    request: &[u8],
    first_due: Instant,
    interval: Duration,
    end: Instant,
) -> Result<Latencies, Error> {
    let mut connection = Connection::open(address)?;
    let mut latencies = Latencies::default();
    let mut due = first_due;
    while due < end {
        let wait = due.saturating_duration_since(Instant::now());
        thread::sleep(wait);
        // A wake-up that came late is this machine's doing, not the proxy's.
        let begun = if wait.is_zero() { due } else { Instant::now() };
        connection.send(request)?;
        connection.read_some()?;
        latencies.first.push(nanoseconds(begun.elapsed()));
        connection.read_rest()?;
        latencies.last.push(nanoseconds(begun.elapsed()));
        due += interval;
    }
    Ok(latencies)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A blocking keep-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    reply: Reply,
    whole: bool,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, reply: Reply::default(), whole: true, buffer: vec![0; 16 * 1024] })
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(), Error> {
        self.reply = Reply::default();
        self.whole = false;
        Ok(self.stream.write_all(request)?)
    }

    /// Reads until the body has begun.
    pub(crate) fn read_some(&mut self) -> Result<(), Error> {
        while self.reply.body == 0 && !self.whole {
            self.read()?;
        }
        Ok(())
    }

    /// Reads until so many events of a stream have come.
    pub(crate) fn read_events(&mut self, count: u64) -> Result<(), Error> {
        while self.reply.lines < 2 * count && !self.whole {
            self.read()?;
        }
        Ok(())
    }

    /// Reads until so many bytes of the body have come.
    pub(crate) fn read_bytes(&mut self, count: u64) -> Result<(), Error> {
        while self.reply.body < count && !self.whole {
            self.read()?;
        }
        Ok(())
    }

    /// So many at the same time, each by a thread of its own.
    pub(crate) fn together(
        count: usize,
        open: impl Fn() -> Result<Self, Error> + Sync,
    ) -> Result<Vec<Self>, Error> {
        // An error of this program cannot be sent between threads; its text can.
        let open = &|| open().map_err(|error| error.to_string());
        thread::scope(|scope| {
            let opening: Vec<_> = (0..count).map(|_| scope.spawn(open)).collect();
            let panicked = |_| Err("a client panicked".to_owned());
            let opened = opening.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
            opened.map(|connection| connection.map_err(Error::from)).collect()
        })
    }

    pub(crate) fn read_rest(&mut self) -> Result<(), Error> {
        while !self.whole {
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Error> {
        let read = self.stream.read(&mut self.buffer)?;
        if read == 0 {
            return Err("the connection ended within an answer".into());
        }
        self.whole = self.reply.feed(&self.buffer[..read])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_chunks_has_a_byte_in_each() {
        let request = request_in_chunks(SocketAddr::from(([127, 0, 0, 1], 80)), 2);
        let text = String::from_utf8(request).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
        assert!(body.starts_with("1\r\n \r\n1\r\n \r\n1\r\n{\r\n") && body.ends_with("\r\n0\r\n\r\n"));
        assert_eq!(body.len(), 6 * (BODY_BYTES + 2) + 5);
    }

    #[test]
    fn a_request_has_a_body_of_1_kilobyte_of_json() {
        let request = request(SocketAddr::from(([127, 0, 0, 1], 80)), "demo-fast:1ms", true);
        let text = String::from_utf8(request).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with("content-length: 1024") && body.len() == BODY_BYTES, "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["model"], "demo-fast:1ms");
    }
}
