//! What the gateway takes of the machine through the run.

#![allow(clippy::print_stderr, reason = "the figures are what the run is for")]

use std::time::{Duration, Instant};

use end_to_end::Running;

const MIB: f64 = 1024.0 * 1024.0;
/// How much more the gateway may hold at the last rest than at the first one, which came after pools and buffers had
/// been filled for the first time.
const SLACK_MIB: f64 = 16.0;
const SLACK_FILES: usize = 8;
/// Freed memory goes back to the system some seconds after the last work.
const REST: Duration = Duration::from_secs(15);

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

    /// The smallest that the process becomes while nothing is left to do.
    pub(super) async fn at_rest(gateway: &Running, sent: usize) -> Self {
        let end = Instant::now() + REST;
        let mut smallest = Self::of(gateway, sent, 0);
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let sample = Self::of(gateway, sent, 0);
            if sample.resident < smallest.resident {
                smallest = sample;
            }
        }
        smallest
    }
}

/// Prints the figures.
pub(super) fn show(title: &str, samples: &[Sample]) {
    eprintln!("{title}\nrequests  RSS, MiB  queued, MiB  files  threads");
    for sample in samples.iter().step_by((samples.len() / 20).max(1)) {
        let Sample { sent, resident, open_files, threads, queued } = sample;
        eprintln!("{sent:8}  {resident:8.1}  {queued:11.1}  {open_files:5}  {threads:7}");
    }
}

/// Nothing is kept that is more with every request.
pub(super) fn assert_flat(rests: &[Sample]) {
    let [first, .., last] = rests else { panic!("two rests are needed: {rests:?}") };
    assert!(last.resident <= first.resident + SLACK_MIB, "memory grows: {first:?} {last:?}");
    assert!(last.open_files <= first.open_files + SLACK_FILES, "open files grow: {first:?} {last:?}");
    assert!(last.threads <= first.threads, "threads grow: {first:?} {last:?}");
}
