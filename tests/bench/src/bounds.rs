//! Resident memory at its worst: every sink is dead, the queues are full, and so is the budget of bodies in flight.
//!
//! The queues are filled by requests that end, the budget by requests that do not. What is resident then is compared
//! with the sum of what the configuration allows.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    Error,
    load::{ClosedLoop, Connection, request, request_in_chunks},
    rounds::Pace,
    targets::{Binaries, Kind, Running, Upstream},
};

pub(crate) const MIB: u64 = 1024 * 1024;
/// `telemetry.capture.max_in_flight_bytes`.
pub(crate) const IN_FLIGHT: u64 = 32 * MIB;
/// `queue.max_bytes` of each sink.
pub(crate) const QUEUE: u64 = 16 * MIB;
pub(crate) const SINKS: u64 = 3;
/// All that may be held by the configuration.
pub(crate) const BOUNDS: u64 = IN_FLIGHT + SINKS * QUEUE;
/// A gateway that holds so much more has missed its goal, and the machine is to live.
const ENOUGH: u64 = BOUNDS + 512 * MIB;

const CHUNKS: u64 = 5_000;
/// Of an upload in chunks of one byte. Few and large, since it is bodies that are to fill the memory, and every
/// connection takes some of its own.
const UPLOAD: usize = 1024 * 1024 - 16 * 1024;
const CONNECTIONS: usize = 8;

/// Whose bodies fill the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    Answers,
    Streams,
    OneByteChunks,
}

/// What one load left behind.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bounded {
    pub(crate) load: Load,
    /// Before the first request.
    pub(crate) idle: u64,
    /// What the gateway says that it holds of bodies in flight, and of records in all queues together.
    pub(crate) in_flight: u64,
    pub(crate) queued: u64,
    pub(crate) resident: u64,
}

impl Bounded {
    /// Whether the load came so far in its time that the figure says something.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight >= IN_FLIGHT - 2 * MIB && self.queued >= SINKS * (QUEUE - 2 * MIB)
    }
}

impl Load {
    const ALL: [Self; 3] = [Self::Answers, Self::Streams, Self::OneByteChunks];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Answers => "plain answers",
            Self::Streams => "streams of 5,000 small chunks",
            Self::OneByteChunks => "requests in chunks of one byte",
        }
    }

    /// How long filling may take: chunks 1 ms apart come slowly, and a byte in a chunk of its own passes slowly.
    fn patience(self, pace: &Pace) -> Duration {
        match self {
            Self::Answers => pace.fill,
            Self::Streams => 3 * pace.fill,
            Self::OneByteChunks => 15 * pace.fill,
        }
    }

    /// A request that comes to its end.
    fn whole(self, address: SocketAddr) -> Vec<u8> {
        match self {
            Self::Answers => request(address, "demo-fast", false),
            Self::Streams => request(address, &format!("demo-words:{CHUNKS}"), true),
            Self::OneByteChunks => request_in_chunks(address, 0),
        }
    }

    /// A request that stays in flight: its answer stalls, or its own body does.
    fn open(self, address: SocketAddr) -> Result<Connection, Error> {
        let mut connection = Connection::open(address)?;
        match self {
            Self::Answers => {
                connection.send(&request(address, "demo-stall-mid:100000", false))?;
                // A word has six bytes or more, and half of the answer comes.
                connection.read_bytes(300_000)?;
            }
            Self::Streams => {
                connection.send(&request(address, &format!("demo-stall-mid:{CHUNKS}"), true))?;
                connection.read_events(CHUNKS)?;
            }
            Self::OneByteChunks => {
                let mut bytes = request_in_chunks(address, UPLOAD);
                // Without its last chunk.
                bytes.truncate(bytes.len() - b"0\r\n\r\n".len());
                match connection.send(&bytes) {
                    // What was taken in stays open; the report says when that does not fill the budget.
                    Err(error) if is_time_out(&*error) => {}
                    sent => sent?,
                }
            }
        }
        Ok(connection)
    }
}

/// Measures every load, each in a process of its own.
pub(crate) fn measure(
    binaries: &Binaries,
    pace: &Pace,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Bounded>, Error> {
    if !binaries.has(Kind::Dead) {
        return Ok(Vec::new());
    }
    let upstream = Upstream::with_pause(binaries, pace.long_stream_pause)?;
    let one = |load: Load| {
        say(&format!("every sink dead: {}", load.name()));
        let gateway = Running::start(Kind::Dead, binaries, &upstream)?;
        filled(&gateway, load, load.patience(pace))
            .map_err(|error| format!("{}: {error}", load.name()).into())
    };
    Load::ALL.into_iter().map(one).collect()
}

fn filled(gateway: &Running, load: Load, limit: Duration) -> Result<Bounded, Error> {
    let idle = gateway.memory()?;
    fill_queues(gateway, load, limit)?;
    let open = fill_budget(gateway, load, limit)?;
    let queued = gateway.all_books()?.iter().map(|books| books.queued_bytes).sum();
    let bounded = Bounded { load, idle, in_flight: gateway.captured()?, queued, resident: gateway.memory()? };
    drop(open);
    Ok(bounded)
}

/// Until every sink has dropped something for want of room.
fn fill_queues(gateway: &Running, load: Load, limit: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    let requests = ClosedLoop::start(gateway.stream, load.whole(gateway.stream), CONNECTIONS)?;
    while !gateway.all_books()?.iter().all(|books| books.dropped > 0) && may_go_on(gateway, deadline)? {
        thread::sleep(Duration::from_millis(50));
    }
    requests.stop()?;
    Ok(())
}

/// Until the budget is used up, but for the room of one more body.
fn fill_budget(gateway: &Running, load: Load, limit: Duration) -> Result<Vec<Connection>, Error> {
    let deadline = Instant::now() + limit;
    let mut open = Vec::new();
    while gateway.captured()? < IN_FLIGHT - MIB && may_go_on(gateway, deadline)? {
        open.extend(Connection::together(CONNECTIONS, || load.open(gateway.stream))?);
    }
    Ok(open)
}

fn is_time_out(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    error.downcast_ref::<std::io::Error>().is_some_and(|error| matches!(error.kind(), TimedOut | WouldBlock))
}

fn may_go_on(gateway: &Running, deadline: Instant) -> Result<bool, Error> {
    Ok(Instant::now() < deadline && gateway.memory_now()? < ENOUGH)
}
