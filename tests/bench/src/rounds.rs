//! The order of measurements: in every round every proxy takes its turn in each of them.

use std::{net::SocketAddr, thread, time::Duration};

use serde::Serialize;

use crate::{
    Error,
    load::{ClosedLoop, fixed_rate, request},
    targets::{Binaries, Books, Kind, Running, Upstream},
};

/// How much of everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    pub(crate) warm_up: Duration,
    /// How long work left in the background may take to end.
    pub(crate) settle: Duration,
    pub(crate) connections: usize,
    pub(crate) chunk_delay: Duration,
    /// Requests a second for latency: far below what any of them can do.
    pub(crate) plain_rate: f64,
    pub(crate) stream_rate: f64,
    pub(crate) idle_connections: usize,
    pub(crate) open_streams: usize,
    /// Streams that have gone on for hundreds or thousands of chunks, and the pause before each chunk.
    pub(crate) long_streams: usize,
    pub(crate) long_stream_pause: Duration,
    /// How long filling queues, and then the budget of bodies, may take.
    pub(crate) fill: Duration,
}

impl Pace {
    pub(crate) fn full() -> Self {
        Self {
            rounds: 5,
            window: Duration::from_secs(3),
            warm_up: Duration::from_millis(300),
            settle: Duration::from_secs(3),
            connections: 32,
            chunk_delay: Duration::from_millis(1),
            plain_rate: 1000.0,
            stream_rate: 200.0,
            idle_connections: 4000,
            open_streams: 2000,
            long_streams: 40,
            long_stream_pause: Duration::from_millis(1),
            fill: Duration::from_secs(20),
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            window: Duration::from_millis(500),
            warm_up: Duration::from_millis(50),
            settle: Duration::from_millis(500),
            idle_connections: 800,
            open_streams: 400,
            long_streams: 8,
            // What comes in one read is one buffer to a proxy: this flatters.
            long_stream_pause: Duration::ZERO,
            fill: Duration::from_secs(2),
            ..Self::full()
        }
    }
}

/// All rounds of one proxy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) plain: Rounds,
    pub(crate) stream: Rounds,
    /// Whole answers of all rounds.
    pub(crate) requests: u64,
    /// One for each exporter that is meant to work.
    pub(crate) books: Vec<Books>,
}

impl Proxy {
    fn new(kind: Kind) -> Self {
        let (plain, stream) = (Rounds::default(), Rounds::default());
        Self { kind, plain, stream, requests: 0, books: Vec::new() }
    }

    /// The share of requests whose records reached every exporter, and reached it with their bodies.
    ///
    /// Records that are lost cost no CPU: the figures of a proxy that loses many are not what they seem.
    pub(crate) fn recorded(&self) -> Option<f64> {
        let whole = self.books.iter().map(|books| books.delivered.saturating_sub(books.shed)).min()?;
        Some(whole as f64 / self.requests as f64)
    }
}

/// One figure a round. Latencies and CPU time are in microseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Rounds {
    pub(crate) cpu: Vec<f64>,
    pub(crate) requests_per_second: Vec<f64>,
    pub(crate) p50: Vec<f64>,
    pub(crate) p99: Vec<f64>,
    pub(crate) first_byte_p50: Vec<f64>,
    pub(crate) first_byte_p99: Vec<f64>,
}

pub(crate) fn measure(
    binaries: &Binaries,
    pace: &Pace,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Proxy>, Error> {
    let upstream = Upstream::start(binaries)?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| binaries.has(*kind)).collect();
    let running: Vec<Running> =
        kinds.iter().map(|kind| Running::start(*kind, binaries, &upstream)).collect::<Result<_, _>>()?;
    let mut proxies: Vec<Proxy> = kinds.into_iter().map(Proxy::new).collect();
    for round in 0..pace.rounds {
        for turn in 0..proxies.len() {
            // Another one begins in each round, so that none always runs beside the same neighbour.
            let index = (round + turn) % proxies.len();
            let (proxy, running) = (&mut proxies[index], &running[index]);
            say(&format!("round {} of {}: {}", round + 1, pace.rounds, proxy.kind.name()));
            one_turn(proxy, running, pace).map_err(|error| format!("{}: {error}", proxy.kind.name()))?;
        }
    }
    for (proxy, running) in proxies.iter_mut().zip(&running) {
        proxy.books = running.books(pace.settle)?;
    }
    Ok(proxies)
}

fn one_turn(proxy: &mut Proxy, running: &Running, pace: &Pace) -> Result<(), Error> {
    let plain = request(running.plain, "demo-fast", false);
    proxy.requests += cpu(&mut proxy.plain, running, running.plain, &plain, pace)?;
    proxy.requests += latency(&mut proxy.plain, running.plain, &plain, pace.plain_rate, pace)?;
    let delay = humantime::format_duration(pace.chunk_delay);
    let stream = request(running.stream, &format!("demo-fast:{delay}"), true);
    proxy.requests += cpu(&mut proxy.stream, running, running.stream, &stream, pace)?;
    // A pause between chunks would drown what the proxy adds.
    let burst = request(running.stream, "demo-fast", true);
    proxy.requests += latency(&mut proxy.stream, running.stream, &burst, pace.stream_rate, pace)?;
    Ok(())
}

/// CPU time per request; returns the number of requests.
fn cpu(
    rounds: &mut Rounds,
    running: &Running,
    address: SocketAddr,
    request: &[u8],
    pace: &Pace,
) -> Result<u64, Error> {
    let load = ClosedLoop::start(address, request.to_vec(), pace.connections)?;
    thread::sleep(pace.warm_up);
    let (cpu, done) = (running.cpu()?, load.done());
    thread::sleep(pace.window);
    let in_window = load.done() - done;
    let all = load.stop()?;
    rounds.requests_per_second.push(in_window as f64 / pace.window.as_secs_f64());
    if let (Some(before), Some(after)) = (cpu, running.settled_cpu(pace.settle)?) {
        rounds.cpu.push(after.saturating_sub(before).as_secs_f64() * 1e6 / (all - done) as f64);
    }
    Ok(all)
}

/// Latencies at a fixed rate; returns the number of requests.
fn latency(
    rounds: &mut Rounds,
    address: SocketAddr,
    request: &[u8],
    rate: f64,
    pace: &Pace,
) -> Result<u64, Error> {
    let mut latencies = fixed_rate(address, request, pace.connections, rate, pace.window)?;
    rounds.p50.push(percentile(&mut latencies.last, 0.50));
    rounds.p99.push(percentile(&mut latencies.last, 0.99));
    rounds.first_byte_p50.push(percentile(&mut latencies.first, 0.50));
    rounds.first_byte_p99.push(percentile(&mut latencies.first, 0.99));
    Ok(latencies.last.len() as u64)
}

/// The exact percentile of some nanoseconds, in microseconds.
fn percentile(nanoseconds: &mut [u64], share: f64) -> f64 {
    nanoseconds.sort_unstable();
    let rank = (share * nanoseconds.len() as f64).ceil() as usize;
    nanoseconds.get(rank.saturating_sub(1)).map_or(f64::NAN, |value| *value as f64 / 1e3)
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let mut values: Vec<u64> = (1..=100).rev().map(|value| value * 1000).collect();
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
