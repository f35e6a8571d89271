//! A relay in front of a real server: what happens to connections, without the server's help.
//!
//! ```
//! use std::{io::{Read, Write}, net::{TcpListener, TcpStream}};
//! use exporter_testkit::relay::{Mode, Relay};
//!
//! let server = TcpListener::bind("127.0.0.1:0").unwrap();
//! let relay = Relay::before(server.local_addr().unwrap()).unwrap();
//! let mut client = TcpStream::connect(relay.address()).unwrap();
//! client.write_all(b"hello").unwrap();
//! let mut heard = [0; 5];
//! server.accept().unwrap().0.read_exact(&mut heard).unwrap();
//! assert_eq!(&heard, b"hello");
//!
//! relay.set(Mode::Refuse);
//! assert_eq!(client.read(&mut heard).unwrap_or(0), 0, "the connection was cut");
//! ```

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::conformance::{Behaviour, Unsupported};

/// What a [`Relay`] does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Passes everything on, both ways.
    #[default]
    Pass,
    /// Closes connections as soon as they come. (The port stays taken, so that nobody else gets it.)
    Refuse,
    /// Accepts connections, swallows what comes, and says nothing. The server does not hear of it.
    Hang,
    /// Passes requests on whole and lets the server answer, but the client gets only the start of the answer, and the
    /// connection is closed.
    CutAnswer {
        /// Answers are passed on until so many bytes of requests have come over a connection. That lets a login, a
        /// TLS handshake or a health check through; the batch that follows is larger.
        after: u64,
        /// Bytes of the answer that the client still gets.
        pass: usize,
    },
}

impl Mode {
    /// Answers are cut, to nothing, once a connection has carried 1 KiB of requests.
    pub const CUT_ANSWER: Self = Self::CutAnswer { after: 1024, pass: 0 };
}

/// A TCP relay on a free port of 127.0.0.1. It ends when it is dropped.
///
/// It does not look into what it passes, so TLS is no obstacle (the certificate is to be good for 127.0.0.1). With
/// HTTP/2 a request that is larger than the server's window stalls while answers are cut, since window updates are
/// answers, too: keep batches below 64 KiB there.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    /// Both ends of every connection, to be cut, with the connection's number.
    open: Vec<(u64, TcpStream)>,
    connections: u64,
}

/// Silence after which a server's answer counts as whole. A server that thinks longer before it begins to answer is
/// waited for all the same.
const QUIET: Duration = Duration::from_millis(100);
/// How often a connection whose answers are cut looks whether it is quiet.
const TICK: Duration = Duration::from_millis(20);

impl Relay {
    /// A relay to the server at this address. It need not run yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn before(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { server, state: Mutex::default(), stop: AtomicBool::new(false) });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where clients connect to. It stays the same in every mode.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats connections so from now on. Those that are open are cut.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        state.mode = mode;
        state.cut();
    }

    /// Cuts the connections that are open; new ones are treated as before.
    pub fn cut(&self) {
        self.shared.lock().cut();
    }

    /// The mode for a behaviour of the [conformance suite](super::conformance).
    ///
    /// # Errors
    /// When it is not about connections: a relay cannot refuse single records.
    pub fn behave(&self, behaviour: Behaviour) -> Result<(), Unsupported> {
        self.set(match behaviour {
            Behaviour::Accept => Mode::Pass,
            Behaviour::Hang => Mode::Hang,
            Behaviour::CutAnswer => Mode::CUT_ANSWER,
            Behaviour::Down => Mode::Refuse,
            Behaviour::RetryHalf | Behaviour::RejectHalf | Behaviour::Thirds => {
                return Err(Unsupported("a relay cannot refuse single records"));
            }
            Behaviour::RetryOne | Behaviour::StallOne | Behaviour::NotFound | Behaviour::Throttle => {
                return Err(Unsupported("a relay does not know what it passes on"));
            }
        });
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.lock().cut();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl State {
    fn cut(&mut self) {
        for (_, stream) in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            let shared = Arc::clone(self);
            thread::spawn(move || {
                let (mode, number) = shared.admit(&client);
                // A connection that cannot be had or breaks is the client's to deal with.
                let _ = shared.serve(mode, number, &client);
                let _ = client.shutdown(Shutdown::Both);
                shared.lock().open.retain(|(open, _)| *open != number);
            });
        }
    }

    /// How a new connection is treated, and its number. That never changes: when the mode does, it is cut.
    fn admit(&self, client: &TcpStream) -> (Mode, u64) {
        let mut state = self.lock();
        state.connections += 1;
        let number = state.connections;
        state.open.extend(client.try_clone().map(|client| (number, client)));
        (state.mode, number)
    }

    /// Sees one connection to its end.
    fn serve(&self, mode: Mode, number: u64, mut client: &TcpStream) -> io::Result<()> {
        match mode {
            Mode::Refuse => Ok(()),
            Mode::Hang => io::copy(&mut client, &mut io::sink()).map(drop),
            Mode::Pass => relay(client, &self.connect(mode, number)?, pass_on),
            Mode::CutAnswer { after, pass } => {
                relay(client, &self.connect(mode, number)?, |server, client, requests| {
                    cut_answer(server, client, requests, after, pass)
                })
            }
        }
    }

    /// A connection to the server, unless the mode has changed meanwhile.
    fn connect(&self, mode: Mode, number: u64) -> io::Result<TcpStream> {
        let server = TcpStream::connect(self.server)?;
        let mut state = self.lock();
        if state.mode != mode {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.open.push((number, server.try_clone()?));
        Ok(server)
    }
}

/// What has come from the client so far.
#[derive(Debug)]
struct Requests {
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl Requests {
    fn note(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_quiet(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= QUIET
    }
}

/// Passes requests on, on a thread of their own, and answers as `answers` does. Both ends are closed in the end.
fn relay(
    client: &TcpStream,
    server: &TcpStream,
    answers: impl FnOnce(&TcpStream, &TcpStream, &Requests) -> io::Result<()>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let requests = Requests { bytes: AtomicU64::new(0), last: Mutex::new(Instant::now()) };
    thread::scope(|scope| {
        scope.spawn(|| pass_requests(client, server, &requests));
        let ended = answers(server, client, &requests);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        ended
    })
}

fn pass_requests(mut client: &TcpStream, mut server: &TcpStream, requests: &Requests) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        // Noted first: the answer may come before the next instruction.
        requests.note(count);
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The client may be done asking and still listen.
    let _ = server.shutdown(Shutdown::Write);
}

fn pass_on(mut server: &TcpStream, mut client: &TcpStream, _: &Requests) -> io::Result<()> {
    io::copy(&mut server, &mut client).map(drop)
}

/// Holds back what the server says after `after` bytes of requests, until both are silent; then the answer is whole.
fn cut_answer(
    mut server: &TcpStream,
    mut client: &TcpStream,
    requests: &Requests,
    after: u64,
    pass: usize,
) -> io::Result<()> {
    server.set_read_timeout(Some(TICK))?;
    let (mut buffer, mut held, mut last) = ([0; 16 * 1024], Vec::new(), Instant::now());
    loop {
        match server.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if requests.bytes.load(Ordering::SeqCst) <= after => {
                client.write_all(&buffer[..count])?;
            }
            Ok(count) => {
                held.extend_from_slice(&buffer[..count]);
                last = Instant::now();
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if !held.is_empty() && last.elapsed() >= QUIET && requests.is_quiet() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    client.write_all(&held[..pass.min(held.len())])
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        sync::mpsc,
    };

    use super::*;

    /// Answers each line with `got ` and the line, and tells which lines it heard.
    fn server() -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, hears) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                thread::spawn(move || {
                    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                        drop(writeln!(&stream, "got {line}"));
                        drop(heard.send(line));
                    }
                });
            }
        });
        (address, hears)
    }

    fn client(relay: &Relay) -> TcpStream {
        let stream = TcpStream::connect(relay.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends a line, and reads one.
    fn ask(stream: &TcpStream, line: &str) -> String {
        let mut answer = String::new();
        let sent = writeln!(&*stream, "{line}");
        let _ = sent.and_then(|()| BufReader::new(stream).read_line(&mut answer));
        answer
    }

    const FIRST_LETTERS: Mode = Mode::CutAnswer { after: 6, pass: 5 };

    #[test]
    fn what_is_passed_on_comes_back() {
        let (address, hears) = server();
        let relay = Relay::before(address).unwrap();
        let stream = client(&relay);
        assert_eq!(ask(&stream, "one"), "got one\n");
        assert_eq!(ask(&stream, "two"), "got two\n");
        assert_eq!(hears.iter().take(2).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_connection_is_cut_when_the_mode_changes_and_the_next_one_is_treated_the_new_way() {
        let (address, _hears) = server();
        let relay = Relay::before(address).unwrap();
        for mode in [Mode::Pass, Mode::Refuse, Mode::Hang, FIRST_LETTERS] {
            relay.set(Mode::Pass);
            let stream = client(&relay);
            assert_eq!(ask(&stream, "one"), "got one\n");
            relay.set(mode);
            assert_eq!(ask(&stream, "two"), "", "{mode:?}");
        }
        relay.set(Mode::Pass);
        assert_eq!(ask(&client(&relay), "three"), "got three\n");
    }

    #[test]
    fn a_server_that_hangs_or_is_gone_hears_nothing() {
        let (address, hears) = server();
        let relay = Relay::before(address).unwrap();
        relay.set(Mode::Refuse);
        assert_eq!(ask(&client(&relay), "refused"), "");
        relay.set(Mode::Hang);
        let stream = client(&relay);
        stream.set_read_timeout(Some(QUIET)).unwrap();
        writeln!(&stream, "swallowed").unwrap();
        let error = (&stream).read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
        relay.set(Mode::Pass);
        assert_eq!(ask(&client(&relay), "passed"), "got passed\n");
        assert_eq!(hears.recv().unwrap(), "passed");
    }

    #[test]
    fn an_answer_is_cut_after_the_server_has_heard_the_whole_request() {
        let (address, hears) = server();
        let relay = Relay::before(address).unwrap();
        relay.set(FIRST_LETTERS);
        let stream = client(&relay);
        assert_eq!(ask(&stream, "login"), "got login\n", "as much as may pass");
        assert_eq!(ask(&stream, "batch"), "got b", "the start of the answer, and the end");
        assert_eq!(hears.iter().take(2).collect::<Vec<_>>(), ["login", "batch"]);
    }

    #[test]
    fn a_server_that_is_not_there_is_a_connection_that_closes() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let relay = Relay::before(nobody).unwrap();
        assert_eq!(ask(&client(&relay), "one"), "");
    }

    #[test]
    fn behaviours_that_are_about_records_are_not_for_a_relay() {
        let relay = Relay::before(server().0).unwrap();
        for behaviour in [Behaviour::RetryHalf, Behaviour::RejectHalf, Behaviour::Thirds] {
            assert!(relay.behave(behaviour).is_err());
        }
        relay.behave(Behaviour::Down).unwrap();
        assert_eq!(ask(&client(&relay), "one"), "");
    }
}
