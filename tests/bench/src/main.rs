//! `make bench`: what a request costs, in CPU, latency and memory, against nginx as a plain proxy in the same run.
//!
//! Every figure is the median of rounds in which all proxies take their turn, so that a noisy machine is equally noisy
//! to all. The load, the upstream and the proxies share the machine and the loopback interface; nothing else is
//! contacted. Quote ratios, not microseconds.
//!
//! | module | what it does |
//! |---|---|
//! | `targets` | starts nginx, the gateway in its configurations, and the upstream |
//! | `process` | a child: its addresses, CPU time, memory, and its end |
//! | `load` | requests as fast as answers come (CPU), or at a fixed rate (latency) |
//! | `reply` | reads one HTTP/1.1 answer |
//! | `rounds` | the order of measurements |
//! | `http2` | requests a second behind a provider that speaks HTTP/2 |
//! | `memory` | bytes kept per idle connection and per open stream |
//! | `accept` | how long a new client waits while 3 MB of metrics are scraped |
//! | `bounds` | resident memory with every sink dead and all that is bounded full |
//! | `exporters` | what each exporter costs against a local backend, and how large it is |
//! | `in_process` | figures that need the gateway's library instead of its binary |
//! | `instance` | a plugin behind the gateway's loader alone: the boundary, an exporter |
//! | `report` | the table and the JSON |

#![forbid(unsafe_code)]

mod accept;
mod bounds;
mod exporters;
mod http2;
mod in_process;
mod instance;
mod load;
mod memory;
mod process;
mod reply;
mod report;
mod rounds;
mod targets;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{report::Report, rounds::Pace, targets::Binaries};

/// What a request costs, against nginx as a plain proxy in the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    binaries: Binaries,
    /// A run of about 20 seconds, to see that everything works. Its figures are no basis for anything.
    #[arg(long)]
    quick: bool,
    /// Rounds; every figure is the median over them.
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each measurement of each round takes.
    #[arg(long, value_parser = humantime::parse_duration)]
    window: Option<Duration>,
    /// Pause of the upstream before each chunk of the streams whose CPU is measured; 0s for a burst.
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    chunk_delay: Duration,
    /// Measures this part, and nothing else.
    #[arg(long)]
    only: Option<Part>,
    /// Writes every figure of every round to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// CPU and latency of each proxy.
    Proxies,
    /// Requests a second behind a provider that speaks HTTP/2.
    Http2,
    /// What is kept in memory.
    Memory,
    /// New connections while metrics are scraped.
    Accept,
    /// The exporters against their backends.
    Exporters,
}

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "bench: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let started = Instant::now();
    allow_many_connections();
    let mut pace = if arguments.quick { Pace::quick() } else { Pace::full() };
    pace.rounds = arguments.rounds.unwrap_or(pace.rounds).max(1);
    pace.window = arguments.window.unwrap_or(pace.window);
    pace.chunk_delay = arguments.chunk_delay;
    let binaries = arguments.binaries.resolved()?;
    let measures = |part| arguments.only.is_none_or(|only| only == part);
    let (mut memory, mut bounded, mut proxies) = (Vec::new(), Vec::new(), Vec::new());
    let mut behind = Vec::new();
    if measures(Part::Memory) {
        memory = memory::measure(&binaries, &pace)?;
        bounded = bounds::measure(&binaries, &pace, &mut say)?;
    }
    if measures(Part::Proxies) {
        proxies = rounds::measure(&binaries, &pace, &mut say)?;
    }
    if measures(Part::Http2) {
        behind = http2::measure(&binaries, &pace, &mut say)?;
    }
    let accept = match binaries.probe().filter(|_| measures(Part::Accept)) {
        Some(_) => Some(accept::measure(&binaries, &pace)?),
        None => None,
    };
    let probe = binaries.probe().filter(|_| measures(Part::Proxies));
    let exporters = match binaries.test_server().filter(|_| measures(Part::Exporters)) {
        Some(test_server) => exporters::measure(&test_server, &binaries.plugins(), pace.window, &mut say)?,
        None => Vec::new(),
    };
    let report = Report {
        boundary_call_ns: probe.as_deref().and_then(|probe| in_process::boundary_call_ns(probe, pace.window)),
        pipeline_records_per_second: probe
            .as_deref()
            .and_then(|probe| in_process::pipeline_records_per_second(probe, pace.window)),
        seconds: started.elapsed().as_secs_f64(),
        pace,
        proxies,
        behind,
        memory,
        bounded,
        accept,
        exporters,
    };
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())? + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    io::stdout().lock().write_all(report.table().as_bytes())?;
    Ok(())
}

/// Progress goes to standard error, so that standard output is the report alone.
fn say(progress: &str) {
    writeln!(io::stderr(), "bench: {progress}").ok();
}

/// The children inherit the limit: a proxy needs two descriptors per stream.
fn allow_many_connections() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where this is refused, the limit in force decides how far the run gets, and says so.
    setrlimit(Resource::Nofile, limit).ok();
}
