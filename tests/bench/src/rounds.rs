//! The order of measurements: in every round every proxy takes its turn in each of them.

use std::{thread, time::Duration};

use serde::Serialize;

use crate::{
    Error,
    load::{ClosedLoop, fixed_rate, request},
    targets::{Binaries, Kind, Running, Upstream},
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
            idle_connections: 2000,
            open_streams: 500,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            window: Duration::from_millis(500),
            warm_up: Duration::from_millis(50),
            settle: Duration::from_millis(500),
            idle_connections: 500,
            open_streams: 200,
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
    let mut proxies: Vec<Proxy> = kinds
        .iter()
        .map(|kind| Proxy { kind: *kind, plain: Rounds::default(), stream: Rounds::default() })
        .collect();
    for round in 0..pace.rounds {
        for turn in 0..proxies.len() {
            // Another one begins in each round, so that none always runs beside the same neighbour.
            let index = (round + turn) % proxies.len();
            let (proxy, running) = (&mut proxies[index], &running[index]);
            say(&format!("round {} of {}: {}", round + 1, pace.rounds, proxy.kind.name()));
            one_turn(proxy, running, pace).map_err(|error| format!("{}: {error}", proxy.kind.name()))?;
        }
    }
    Ok(proxies)
}

fn one_turn(proxy: &mut Proxy, running: &Running, pace: &Pace) -> Result<(), Error> {
    let plain = request(running.plain, "demo-fast", false);
    cpu(&mut proxy.plain, running, running.plain, &plain, pace)?;
    latency(&mut proxy.plain, running.plain, &plain, pace.plain_rate, pace)?;
    let delay = humantime::format_duration(pace.chunk_delay);
    let stream = request(running.stream, &format!("demo-fast:{delay}"), true);
    cpu(&mut proxy.stream, running, running.stream, &stream, pace)?;
    // A pause between chunks would drown what the proxy adds.
    let burst = request(running.stream, "demo-fast", true);
    latency(&mut proxy.stream, running.stream, &burst, pace.stream_rate, pace)
}

fn cpu(
    rounds: &mut Rounds,
    running: &Running,
    address: std::net::SocketAddr,
    request: &[u8],
    pace: &Pace,
) -> Result<(), Error> {
    let load = ClosedLoop::start(address, request.to_vec(), pace.connections)?;
    thread::sleep(pace.warm_up);
    let (cpu, done) = (running.cpu()?, load.done());
    thread::sleep(pace.window);
    let in_window = load.done() - done;
    let requests = load.stop()? - done;
    rounds.requests_per_second.push(in_window as f64 / pace.window.as_secs_f64());
    if let (Some(before), Some(after)) = (cpu, running.settled_cpu(pace.settle)?) {
        rounds.cpu.push((after - before).as_secs_f64() * 1e6 / requests as f64);
    }
    Ok(())
}

fn latency(
    rounds: &mut Rounds,
    address: std::net::SocketAddr,
    request: &[u8],
    rate: f64,
    pace: &Pace,
) -> Result<(), Error> {
    let mut latencies = fixed_rate(address, request, pace.connections, rate, pace.window)?;
    rounds.p50.push(percentile(&mut latencies.last, 0.50));
    rounds.p99.push(percentile(&mut latencies.last, 0.99));
    rounds.first_byte_p50.push(percentile(&mut latencies.first, 0.50));
    rounds.first_byte_p99.push(percentile(&mut latencies.first, 0.99));
    Ok(())
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
