//! Bytes kept per idle connection and per open stream, in a proxy that has just started.
//!
//! A stream that has gone on for some time is held in whole by a gateway that records it, so that its bytes are part of
//! the figure; how much more there is than its bytes is what counts.

use serde::Serialize;

use crate::{
    Error,
    load::{Connection, request},
    rounds::Pace,
    targets::{Binaries, Kind, Running, Upstream},
};

/// Bytes per connection and per stream. Captured bodies are in it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    /// Of which proxy.
    pub(crate) kind: Kind,
    /// After one request, kept alive.
    pub(crate) idle_connection: Growth,
    /// After some chunks, waiting for the next.
    pub(crate) open_stream: Growth,
    /// After so many chunks that came one by one, in the order of [`CHUNKS`].
    pub(crate) long_stream: [Growth; 2],
}

/// Chunks of a long stream.
pub(crate) const CHUNKS: [u64; 2] = [500, 5_000];

/// Growth of the resident memory for each connection or stream, in each quarter of them.
///
/// A process that freed memory while it started has the first ones for nothing: an average over all would flatter it.
/// So the figure is that of the second half, and there is none where its quarters disagree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Growth {
    quarters: [f64; 4],
}

impl Growth {
    /// Bytes each; `None` when the memory did not grow evenly, so that nothing can be said.
    pub(crate) fn each(&self) -> Option<f64> {
        const TOLERANCE: f64 = 0.25;
        let [.., third, fourth] = self.quarters;
        let each = f64::midpoint(third, fourth);
        (each > 0.0 && (third - fourth).abs() <= TOLERANCE * each).then_some(each)
    }
}

/// Measures every proxy; each figure in a process of its own, so that none reuses what another freed.
pub(crate) fn measure(binaries: &Binaries, pace: &Pace) -> Result<Vec<Memory>, Error> {
    let upstream = Upstream::start(binaries)?;
    let slow = Upstream::with_pause(binaries, pace.long_stream_pause)?;
    let mut measured = Vec::new();
    for kind in [Kind::Nginx, Kind::Bare, Kind::Three].into_iter().filter(|kind| binaries.has(*kind)) {
        measured.push(Memory {
            kind,
            idle_connection: idle_connections(
                &Running::start(kind, binaries, &upstream)?,
                pace.idle_connections,
            )?,
            open_stream: open_streams(&Running::start(kind, binaries, &upstream)?, pace.open_streams)?,
            long_stream: [
                long_streams(&Running::start(kind, binaries, &slow)?, pace.long_streams, CHUNKS[0])?,
                long_streams(&Running::start(kind, binaries, &slow)?, pace.long_streams, CHUNKS[1])?,
            ],
        });
    }
    Ok(measured)
}

fn idle_connections(proxy: &Running, count: usize) -> Result<Growth, Error> {
    let request = request(proxy.plain, "demo-fast", false);
    growth(proxy, count, || {
        let mut connection = Connection::open(proxy.plain)?;
        connection.send(&request)?;
        connection.read_rest()?;
        Ok(connection)
    })
}

fn open_streams(proxy: &Running, count: usize) -> Result<Growth, Error> {
    let request = request(proxy.stream, "demo-stall-mid", true);
    growth(proxy, count, || {
        let mut connection = Connection::open(proxy.stream)?;
        connection.send(&request)?;
        connection.read_some()?;
        Ok(connection)
    })
}

fn long_streams(proxy: &Running, count: usize, chunks: u64) -> Result<Growth, Error> {
    let request = request(proxy.stream, &format!("demo-stall-mid:{chunks}"), true);
    growth_of(proxy, count, |count| {
        Connection::together(count, || {
            let mut connection = Connection::open(proxy.stream)?;
            connection.send(&request)?;
            connection.read_events(chunks)?;
            Ok(connection)
        })
    })
}

fn growth(
    proxy: &Running,
    count: usize,
    mut open: impl FnMut() -> Result<Connection, Error>,
) -> Result<Growth, Error> {
    growth_of(proxy, count, |count| (0..count).map(|_| open()).collect())
}

fn growth_of(
    proxy: &Running,
    count: usize,
    mut open: impl FnMut(usize) -> Result<Vec<Connection>, Error>,
) -> Result<Growth, Error> {
    let mut kept = Vec::new();
    let mut quarters = [0.0; 4];
    let mut before = proxy.memory()?;
    for growth in &mut quarters {
        kept.extend(open(count / 4)?);
        let after = proxy.memory()?;
        *growth = (after as f64 - before as f64) / (count / 4) as f64;
        before = after;
    }
    Ok(Growth { quarters })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_even_growth_is_a_figure() {
        let each = |quarters| Growth { quarters }.each();
        assert_eq!(each([0.0, 50.0, 100.0, 100.0]), Some(100.0));
        assert_eq!(each([100.0, 100.0, 90.0, 110.0]), Some(100.0));
        assert_eq!(each([0.0, 0.0, 0.0, 0.0]), None);
        assert_eq!(each([0.0, 0.0, 20.0, 100.0]), None);
        assert_eq!(each([10.0, 10.0, -5.0, -5.0]), None);
    }
}
