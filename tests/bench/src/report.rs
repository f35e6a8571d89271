//! The figures as a table with the goals beside them, and as JSON.

use std::{fmt::Write as _, fs, time::Duration};

use serde_json::{Value, json};

use crate::{
    accept::Accept,
    bounds::{BOUNDS, Bounded, MIB},
    exporters::Exporter,
    http2::{self, Behind},
    memory::{Growth, Memory},
    rounds::{Pace, Proxy, Rounds, median},
    targets::Kind,
};

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) pace: Pace,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) behind: Vec<Behind>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) bounded: Vec<Bounded>,
    pub(crate) accept: Option<Accept>,
    pub(crate) exporters: Vec<Exporter>,
    pub(crate) boundary_call_ns: Option<f64>,
    pub(crate) pipeline_records_per_second: Option<f64>,
    pub(crate) seconds: f64,
}

const CPU_GOALS: [(Kind, f64); 2] = [(Kind::Bare, 1.4), (Kind::Three, 2.0)];
/// Below this a CPU figure does not count: lost records cost nothing.
const RECORDED_GOAL: f64 = 0.99;
const HANGING_P99_GOAL: f64 = 1.05;
const BOUNDARY_NS_GOAL: f64 = 10.0;
const RECORDS_GOAL: f64 = 500_000.0;
const IDLE_CONNECTION_GOAL: f64 = 16.0 * 1024.0;
const OPEN_STREAM_GOAL: f64 = 32.0 * 1024.0;
/// A recorded stream is held: a buffer that grows by doubling takes up to twice its bytes, and each chunk has a mark.
const LONG_STREAM_GOALS: [f64; 2] = [320.0 * 1024.0, 2_900.0 * 1024.0];
/// One thread accepts, and another answers operators.
const SCRAPED_RATIO_GOAL: f64 = 2.0;
/// Above what the configuration allows.
const ABOVE_BOUNDS_GOAL_MIB: f64 = 40.0;
const LIBRARY_GOAL: f64 = 4.0 * 1024.0 * 1024.0;
const LOAD_GOAL_MS: f64 = 50.0;
const DASH: &str = "-";

impl Report {
    pub(crate) fn table(&self) -> String {
        let Pace { rounds, window, connections, chunk_delay, .. } = &self.pace;
        let mut text = format!(
            "\n{}: medians of {rounds} rounds of {} each, {connections} connections, 1 KB requests, \
             0.6 KB answers or 32 chunks\n\n",
            machine(),
            humantime::format_duration(*window),
        );
        if *rounds < 3 {
            text.push_str("A quick run: no basis for a judgement.\n\n");
        }
        let title =
            format!("CPU per request, µs (chunks {} apart)", humantime::format_duration(*chunk_delay));
        text.push_str(&table(
            [&title, "plain", "÷ nginx", "stream", "÷ nginx", "goal ÷ nginx"],
            &self.cpu_rows(),
        ));
        text.push_str(&table(["Telemetry", "requests", "recorded", "", "", "goal"], &self.telemetry_rows()));
        text.push_str(&table(
            ["Latency added to direct, µs", "plain p50", "p99", "stream p50", "p99", "goal"],
            &self.latency_rows(),
        ));
        let title = format!("Provider, {} requests at a time", http2::CONNECTIONS);
        text.push_str(&table([&title, "req/s", "CPU µs", "", "", "goal"], &self.behind_rows()));
        text.push_str(&table(
            ["Memory kept, KB", "idle connection", "open stream", "500 chunks", "5,000 chunks", "goal"],
            &self.memory_rows(),
        ));
        text.push_str(&table(
            ["Every sink dead, all full, MB", "resident", "allowed", "in flight", "queued", "goal"],
            &self.bounded_rows(),
        ));
        text.push_str(&table(
            ["A new connection's first answer, µs", "p50", "p99", "scraped p50", "p99", "goal"],
            &self.accept_rows(),
        ));
        text.push_str(&table(["In process", "", "", "", "", "goal"], &self.in_process_rows()));
        text.push_str(&table(
            ["Exporter, its backend beside it", "records/s", "CPU µs", "load, ms", "size, KB", "goal"],
            &self.exporter_rows(),
        ));
        // Writing to a String cannot fail.
        writeln!(text, "{:.0} s in all. This machine shares its cores: quote the ratios.", self.seconds).ok();
        text
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": machine(),
            "pace": self.pace,
            "proxies": self.proxies,
            "behind_http2": self.behind,
            "memory": self.memory,
            "accept": self.accept,
            "every_sink_dead": { "bounds": BOUNDS, "loads": self.bounded },
            "cpu_ratios_to_nginx": self.proxies.iter().map(|proxy| json!({
                "kind": proxy.kind,
                "plain": self.cpu_ratio(proxy, |proxy| &proxy.plain),
                "stream": self.cpu_ratio(proxy, |proxy| &proxy.stream),
            })).collect::<Vec<_>>(),
            "hanging_p99_ratio": {
                "plain": self.hanging_ratio(|proxy| &proxy.plain),
                "stream": self.hanging_ratio(|proxy| &proxy.stream),
            },
            "exporters": self.exporters.iter().map(|exporter| json!({
                "name": exporter.name,
                "library_bytes": exporter.size,
                "load_ms": milliseconds(exporter.load),
                "batch": exporter.exported.batch,
                "records_per_second": exporter.exported.records_per_second,
                "cpu_us_per_record": microseconds(exporter.exported.cpu_per_record),
            })).collect::<Vec<_>>(),
            "boundary_call_ns": self.boundary_call_ns,
            "pipeline_records_per_second": self.pipeline_records_per_second,
            "seconds": self.seconds,
        })
    }

    fn proxy(&self, kind: Kind) -> Option<&Proxy> {
        self.proxies.iter().find(|proxy| proxy.kind == kind)
    }

    fn cpu_ratio(&self, proxy: &Proxy, side: fn(&Proxy) -> &Rounds) -> Option<f64> {
        let nginx = median(&side(self.proxy(Kind::Nginx)?).cpu)?;
        Some(median(&side(proxy).cpu)? / nginx)
    }

    /// How much a hanging exporter changes the p99 that a client sees.
    fn hanging_ratio(&self, side: fn(&Proxy) -> &Rounds) -> Option<f64> {
        let p99 = |kind| median(&side(self.proxy(kind)?).p99);
        Some(p99(Kind::Hanging)? / p99(Kind::Three)?)
    }

    fn cpu_rows(&self) -> Vec<[String; 6]> {
        let measured = self.proxies.iter().filter(|proxy| proxy.kind != Kind::Direct);
        measured
            .map(|proxy| {
                let plain_ratio = self.cpu_ratio(proxy, |proxy| &proxy.plain);
                let stream_ratio = self.cpu_ratio(proxy, |proxy| &proxy.stream);
                let goal = CPU_GOALS.iter().find(|(kind, _)| *kind == proxy.kind).map(|(_, goal)| *goal);
                [
                    proxy.kind.name().to_owned(),
                    number(median(&proxy.plain.cpu), 1),
                    number(plain_ratio, 2),
                    number(median(&proxy.stream.cpu), 1),
                    number(stream_ratio, 2),
                    goal.map_or(DASH.to_owned(), |goal| {
                        let loses = proxy.recorded().is_some_and(|share| share < RECORDED_GOAL);
                        let judgement = at_most(plain_ratio, goal, 1);
                        if loses { format!("{judgement}, BUT RECORDS WERE LOST") } else { judgement }
                    }),
                ]
            })
            .collect()
    }

    /// A gateway without plugins has nothing to record.
    fn telemetry_rows(&self) -> Vec<[String; 6]> {
        let rows = self.proxies.iter().filter_map(|proxy| {
            let share = proxy.recorded()?;
            let percent = format!("{:.1} %", 100.0 * share);
            let goal =
                judged(Some(share >= RECORDED_GOAL), "at least 99 %, with bodies, by the slowest exporter");
            let (name, requests) = (proxy.kind.name().to_owned(), proxy.requests.to_string());
            Some([name, requests, percent, String::new(), String::new(), goal])
        });
        rows.collect()
    }

    fn latency_rows(&self) -> Vec<[String; 6]> {
        let Some(direct) = self.proxy(Kind::Direct) else { return Vec::new() };
        let mut rows: Vec<[String; 6]> = Vec::new();
        for proxy in &self.proxies {
            let added = |side: fn(&Proxy) -> &Rounds, figure: fn(&Rounds) -> &Vec<f64>| {
                let own = median(figure(side(proxy)))?;
                let base = if proxy.kind == Kind::Direct { 0.0 } else { median(figure(side(direct)))? };
                Some(own - base)
            };
            let goal = if proxy.kind == Kind::Hanging {
                let ratio = self.hanging_ratio(|proxy| &proxy.plain);
                format!("p99 {} × healthy: {}", number(ratio, 2), at_most(ratio, HANGING_P99_GOAL, 2))
            } else {
                DASH.to_owned()
            };
            let suffix = if proxy.kind == Kind::Direct { " (whole)" } else { "" };
            rows.push([
                format!("{}{suffix}", proxy.kind.name()),
                number(added(|proxy| &proxy.plain, |rounds| &rounds.p50), 0),
                number(added(|proxy| &proxy.plain, |rounds| &rounds.p99), 0),
                number(added(|proxy| &proxy.stream, |rounds| &rounds.p50), 0),
                number(added(|proxy| &proxy.stream, |rounds| &rounds.p99), 0),
                goal,
            ]);
        }
        rows
    }

    /// The gateway without plugins.
    fn behind_rows(&self) -> Vec<[String; 6]> {
        let row = |behind: &Behind| {
            let (rate, cpu) = (median(&behind.requests_per_second), median(&behind.cpu));
            let [name, empty] = [behind.provider.to_owned(), String::new()];
            [name, number(rate, 0), number(cpu, 1), empty.clone(), empty, DASH.to_owned()]
        };
        self.behind.iter().map(row).collect()
    }

    fn memory_rows(&self) -> Vec<[String; 6]> {
        let kilobytes = |bytes: Option<f64>| number(bytes.map(|bytes| bytes / 1024.0), 1);
        let row = |memory: &Memory| {
            let (idle_connection, open_stream) = (memory.idle_connection.each(), memory.open_stream.each());
            let long_stream = memory.long_stream.each_ref().map(Growth::each);
            let goal = if memory.kind == Kind::Nginx {
                DASH.to_owned()
            } else {
                let idle = at_most(idle_connection, IDLE_CONNECTION_GOAL, 0);
                let stream = at_most(open_stream, OPEN_STREAM_GOAL, 0);
                let [short, long] = [0, 1].map(|at| at_most(long_stream[at], LONG_STREAM_GOALS[at], 0));
                let [idle, stream, short, long] = [&idle, &stream, &short, &long].map(|it| verdict(it));
                format!("16: {idle}, 32: {stream}, 320: {short}, 2900: {long}")
            };
            let [short, long] = long_stream.map(kilobytes);
            [
                memory.kind.name().to_owned(),
                kilobytes(idle_connection),
                kilobytes(open_stream),
                short,
                long,
                goal,
            ]
        };
        self.memory.iter().map(row).collect()
    }

    fn accept_rows(&self) -> Vec<[String; 6]> {
        let row = |accept: &Accept| {
            let ratio = accept.scraped.p50 / accept.alone.p50;
            [
                format!("{}, {} scrapes", Kind::Scraped.name(), accept.scrapes),
                number(Some(accept.alone.p50), 0),
                number(Some(accept.alone.p99), 0),
                number(Some(accept.scraped.p50), 0),
                number(Some(accept.scraped.p99), 0),
                at_most(Some(ratio), SCRAPED_RATIO_GOAL, 1),
            ]
        };
        self.accept.iter().map(row).collect()
    }

    fn bounded_rows(&self) -> Vec<[String; 6]> {
        let mebibytes = |bytes: u64| bytes as f64 / MIB as f64;
        let goal = mebibytes(BOUNDS) + ABOVE_BOUNDS_GOAL_MIB;
        let row = |bounded: &Bounded| {
            let resident = mebibytes(bounded.resident);
            [
                bounded.load.name().to_owned(),
                number(Some(resident), 0),
                number(Some(mebibytes(BOUNDS)), 0),
                number(Some(mebibytes(bounded.in_flight)), 0),
                number(Some(mebibytes(bounded.queued)), 0),
                if bounded.is_full() {
                    at_most(Some(resident), goal, 0)
                } else {
                    format!("{}, BUT NOT ALL WAS FULL", at_most(Some(resident), goal, 0))
                },
            ]
        };
        self.bounded.iter().map(row).collect()
    }

    /// One 2 KB record after another in batches of the exporter's own size; CPU of this side alone.
    fn exporter_rows(&self) -> Vec<[String; 6]> {
        let mut rows: Vec<[String; 6]> = Vec::new();
        for Exporter { name, size, load, exported, .. } in &self.exporters {
            rows.push([
                (*name).to_owned(),
                number(Some(exported.records_per_second), 0),
                number(Some(microseconds(exported.cpu_per_record)), 1),
                number(Some(milliseconds(*load)), 1),
                number(Some(*size as f64 / 1024.0), 0),
                format!("4096 KB: {}", verdict(&at_most(Some(*size as f64), LIBRARY_GOAL, 0))),
            ]);
        }
        if !rows.is_empty() {
            let of_backends = self.exporters.iter().filter(|exporter| exporter.has_backend);
            let load = of_backends.map(|exporter| milliseconds(exporter.load)).sum();
            let goal = at_most(Some(load), LOAD_GOAL_MS, 0);
            let (name, empty) = ("those with a backend, together".to_owned(), String::new);
            rows.push([name, empty(), empty(), number(Some(load), 1), empty(), goal]);
        }
        rows
    }

    fn in_process_rows(&self) -> Vec<[String; 6]> {
        let row = |name: &str, value: String, goal: String| {
            [name.to_owned(), value, String::new(), String::new(), String::new(), goal]
        };
        let (call, records) = (self.boundary_call_ns, self.pipeline_records_per_second);
        vec![
            row("one boundary call, ns", number(call, 1), at_most(call, BOUNDARY_NS_GOAL, 0)),
            row("2 KB records a second, per core", number(records, 0), at_least(records, RECORDS_GOAL)),
        ]
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn at_most(value: Option<f64>, goal: f64, digits: usize) -> String {
    judged(value.map(|value| value <= goal), &format!("at most {goal:.digits$}"))
}

fn at_least(value: Option<f64>, goal: f64) -> String {
    judged(value.map(|value| value >= goal), &format!("at least {goal}"))
}

fn judged(reached: Option<bool>, goal: &str) -> String {
    match reached {
        Some(true) => format!("{goal}: reached"),
        Some(false) => format!("{goal}: MISSED"),
        None => goal.to_owned(),
    }
}

fn verdict(judged: &str) -> &str {
    judged.split_once(": ").map_or("not known", |(_, verdict)| verdict)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or(DASH.to_owned(), |value| format!("{value:.digits$}"))
}

/// The first column to the left, the others to the right, the goal after them.
fn table(head: [&str; 6], rows: &[[String; 6]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = head.map(str::to_owned);
    let mut widths = [40, 9, 8, 10, 8, 0];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in [&head].into_iter().chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            match column {
                0 => write!(line, "{cell:<width$}"),
                5 => write!(line, "   {cell}"),
                _ => write!(line, "  {cell:>width$}"),
            }
            .ok();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}

fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| {
        let line = info.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}", model.as_deref().unwrap_or("an unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = ["a", "1", "", "22", "", "goal"].map(str::to_owned);
        let text = table(["name", "x", "y", "z", "", ""], &[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find('x'), lines[1].find('1'));
        assert!(lines[1].ends_with("   goal"));
    }

    #[test]
    fn a_goal_says_whether_it_was_reached() {
        assert_eq!(at_most(Some(1.0), 1.4, 1), "at most 1.4: reached");
        assert_eq!(at_most(Some(1.5), 1.4, 1), "at most 1.4: MISSED");
        assert_eq!(at_least(None, 500_000.0), "at least 500000");
    }
}
