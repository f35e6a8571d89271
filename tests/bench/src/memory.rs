//! Bytes kept per idle connection and per open stream, in a proxy that has just started.

use serde::Serialize;

use crate::{
    Error,
    load::{Connection, request},
    rounds::Pace,
    targets::{Binaries, Kind, Running, Upstream},
};

/// Bytes per connection or stream: growth of the resident memory, divided. Captured bodies are in it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    /// Of which proxy.
    pub(crate) kind: Kind,
    /// After one request, kept alive.
    pub(crate) idle_connection: f64,
    /// After some chunks, waiting for the next.
    pub(crate) open_stream: f64,
}

/// Measures every proxy; each figure in a process of its own, so that none reuses what another freed.
pub(crate) fn measure(binaries: &Binaries, pace: &Pace) -> Result<Vec<Memory>, Error> {
    let upstream = Upstream::start(binaries)?;
    let mut measured = Vec::new();
    for kind in [Kind::Nginx, Kind::Bare, Kind::Three].into_iter().filter(|kind| binaries.has(*kind)) {
        measured.push(Memory {
            kind,
            idle_connection: idle_connections(
                &Running::start(kind, binaries, &upstream)?,
                pace.idle_connections,
            )?,
            open_stream: open_streams(&Running::start(kind, binaries, &upstream)?, pace.open_streams)?,
        });
    }
    Ok(measured)
}

fn idle_connections(proxy: &Running, count: usize) -> Result<f64, Error> {
    let request = request(proxy.plain, "demo-fast", false);
    growth(proxy, count, || {
        let mut connection = Connection::open(proxy.plain)?;
        connection.send(&request)?;
        connection.read_rest()?;
        Ok(connection)
    })
}

fn open_streams(proxy: &Running, count: usize) -> Result<f64, Error> {
    let request = request(proxy.stream, "demo-stall-mid", true);
    growth(proxy, count, || {
        let mut connection = Connection::open(proxy.stream)?;
        connection.send(&request)?;
        connection.read_some()?;
        Ok(connection)
    })
}

fn growth(
    proxy: &Running,
    count: usize,
    mut open: impl FnMut() -> Result<Connection, Error>,
) -> Result<f64, Error> {
    // The first ones pay for what is made once: pools, caches, threads.
    const WARM_UP: usize = 8;
    let mut kept = Vec::new();
    for _ in 0..WARM_UP {
        kept.push(open()?);
    }
    let before = proxy.memory()?;
    for _ in 0..count {
        kept.push(open()?);
    }
    let grown = proxy.memory()?.saturating_sub(before);
    Ok(grown as f64 / count as f64)
}
