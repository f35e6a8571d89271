//! Requests a second behind a provider that speaks HTTP/2, whose connections take few streams.

use std::{thread, time::Duration};

use serde::Serialize;

use crate::{
    Error,
    load::{ClosedLoop, request},
    rounds::Pace,
    targets::{Binaries, Running, Upstream},
};

/// More than one connection's streams for each worker.
pub(crate) const CONNECTIONS: usize = 128;

/// What the gateway, without plugins, speaks to the provider.
const PROVIDERS: [(&str, &str, Option<u32>); 3] = [
    ("HTTP/1.1", "", None),
    ("HTTP/2, as many streams as wanted", "http2 = \"always\"\n", Some(100_000)),
    ("HTTP/2, 10 streams a connection", "http2 = \"always\"\n", Some(10)),
];

/// One figure a round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Behind {
    pub(crate) provider: &'static str,
    pub(crate) requests_per_second: Vec<f64>,
    /// Microseconds of CPU time for each request.
    pub(crate) cpu: Vec<f64>,
}

pub(crate) fn measure(
    binaries: &Binaries,
    pace: &Pace,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Behind>, Error> {
    if binaries.without_gateway() {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for (provider, keys, streams) in PROVIDERS {
        let upstream = Upstream::with_streams(binaries, streams)?;
        let gateway = Running::behind(binaries, &upstream, keys)?;
        let (requests_per_second, cpu) = (Vec::new(), Vec::new());
        all.push((upstream, gateway, Behind { provider, requests_per_second, cpu }));
    }
    for round in 0..pace.rounds {
        for (_, gateway, behind) in &mut all {
            say(&format!("round {} of {}: behind {}", round + 1, pace.rounds, behind.provider));
            one_turn(gateway, behind, pace).map_err(|error| format!("{}: {error}", behind.provider))?;
        }
    }
    Ok(all.into_iter().map(|(.., behind)| behind).collect())
}

fn one_turn(gateway: &Running, behind: &mut Behind, pace: &Pace) -> Result<(), Error> {
    let plain = request(gateway.plain, "demo-fast", false);
    let load = ClosedLoop::start(gateway.plain, plain, CONNECTIONS)?;
    thread::sleep(pace.warm_up);
    let (before, done) = (gateway.cpu()?, load.done());
    thread::sleep(pace.window);
    let (after, in_window) = (gateway.cpu()?, load.done() - done);
    load.stop()?;
    behind.requests_per_second.push(in_window as f64 / pace.window.as_secs_f64());
    let spent = after.unwrap_or(Duration::ZERO).saturating_sub(before.unwrap_or(Duration::ZERO));
    behind.cpu.push(spent.as_secs_f64() * 1e6 / in_window as f64);
    Ok(())
}
