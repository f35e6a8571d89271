//! What the gateway takes of the machine through the run.

#![allow(clippy::print_stderr, reason = "the figures are what the run is for")]

use end_to_end::Running;

const MIB: f64 = 1024.0 * 1024.0;
/// The run's first quarter fills pools and buffers for the first time.
const QUARTERS: usize = 4;
/// How much the median of the last quarter may be above that of the second one.
const SLACK: f64 = 0.10;
const SLACK_MIB: f64 = 16.0;

/// One look at the process.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    sent: usize,
    resident: f64,
    open_files: usize,
    threads: usize,
    queued: f64,
}

impl Sample {
    pub(super) fn of(gateway: &Running, sent: usize, queued_bytes: u64) -> Self {
        Self {
            sent,
            resident: gateway.resident_bytes() as f64 / MIB,
            open_files: gateway.open_files(),
            threads: gateway.threads(),
            queued: queued_bytes as f64 / MIB,
        }
    }
}

/// The medians of one quarter of the run.
#[derive(Debug)]
struct Quarter {
    resident: f64,
    queued: f64,
    open_files: f64,
    threads: f64,
}

/// Prints the figures.
pub(super) fn show(samples: &[Sample]) {
    eprintln!("requests  RSS, MiB  queued, MiB  files  threads");
    for sample in samples.iter().step_by((samples.len() / 20).max(1)) {
        let Sample { sent, resident, open_files, threads, queued } = sample;
        eprintln!("{sent:8}  {resident:8.1}  {queued:11.1}  {open_files:5}  {threads:7}");
    }
    for (number, quarter) in quarters(samples).iter().enumerate() {
        let Quarter { resident, queued, open_files, threads } = quarter;
        eprintln!(
            "medians of quarter {}: RSS {resident:.1} MiB, queued {queued:.1} MiB, {open_files} files, {threads} threads",
            number + 1
        );
    }
    let after_warm_up = &samples[samples.len() / QUARTERS..];
    eprintln!(
        "RSS slope after the first quarter: {:.2} MiB per 100,000 requests",
        1e5 * slope(after_warm_up)
    );
}

/// Nothing grows from the second quarter of the run on.
pub(super) fn assert_flat(samples: &[Sample]) {
    let [_, second, _, last] = quarters(samples);
    let is_flat = |before: f64, after: f64, slack: f64| after <= before * (1.0 + SLACK) + slack;
    assert!(is_flat(second.resident, last.resident, SLACK_MIB), "RSS grows: {second:?} {last:?}");
    assert!(is_flat(second.open_files, last.open_files, 8.0), "open files grow: {second:?} {last:?}");
    assert!(last.threads <= second.threads, "threads grow: {second:?} {last:?}");
}

fn quarters(samples: &[Sample]) -> [Quarter; QUARTERS] {
    std::array::from_fn(|quarter| {
        let range = samples.len() * quarter / QUARTERS..samples.len() * (quarter + 1) / QUARTERS;
        let median = |figure: fn(&Sample) -> f64| median(samples[range.clone()].iter().map(figure));
        Quarter {
            resident: median(|sample| sample.resident),
            queued: median(|sample| sample.queued),
            open_files: median(|sample| sample.open_files as f64),
            threads: median(|sample| sample.threads as f64),
        }
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// MiB per request, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let (x, y) = (|sample: &Sample| sample.sent as f64, |sample: &Sample| sample.resident);
    let (mean_x, mean_y) =
        (samples.iter().map(x).sum::<f64>() / count, samples.iter().map(y).sum::<f64>() / count);
    let covariance: f64 = samples.iter().map(|sample| (x(sample) - mean_x) * (y(sample) - mean_y)).sum();
    let variance: f64 = samples.iter().map(|sample| (x(sample) - mean_x).powi(2)).sum();
    covariance / variance
}
