//! What is measured while batches are sent. (What the books hold is not counted here: it is read from them.)

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

/// The histograms of all exporters.
#[derive(Debug, Clone)]
pub(crate) struct Instruments {
    batch_size: Histogram<u64>,
    export_duration: Histogram<f64>,
    delivery_delay: Histogram<f64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let seconds = vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
        ];
        let records = vec![1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0, 10_000.0];
        Self {
            batch_size: meter
                .u64_histogram("magicapi_exporter_batch_size_records")
                .with_description("Records in a batch")
                .with_boundaries(records)
                .build(),
            export_duration: meter
                .f64_histogram("magicapi_exporter_export_duration_seconds")
                .with_description("Time that a plugin took for one batch, by outcome")
                .with_boundaries(seconds.clone())
                .build(),
            delivery_delay: meter
                .f64_histogram("magicapi_exporter_delivery_delay_seconds")
                .with_description("From the end of a request to its delivery")
                .with_boundaries(seconds)
                .build(),
        }
    }
}

/// One exporter's measurements.
#[derive(Debug)]
pub(crate) struct Observer {
    instruments: Instruments,
    plugin: [KeyValue; 1],
    retries: AtomicU64,
    faults: AtomicU64,
}

impl Observer {
    pub(crate) fn new(instruments: Instruments, plugin: &str) -> Self {
        let plugin = [KeyValue::new("plugin", plugin.to_owned())];
        Self { instruments, plugin, retries: AtomicU64::new(0), faults: AtomicU64::new(0) }
    }

    pub(crate) fn batch(&self, records: usize) {
        self.instruments.batch_size.record(records as u64, &self.plugin);
    }

    pub(crate) fn call(&self, outcome: &'static str, took: Duration) {
        let attributes = [self.plugin[0].clone(), KeyValue::new("outcome", outcome)];
        self.instruments.export_duration.record(took.as_secs_f64(), &attributes);
    }

    pub(crate) fn delivered_after(&self, delay: Duration) {
        self.instruments.delivery_delay.record(delay.as_secs_f64(), &self.plugin);
    }

    pub(crate) fn retries(&self, retries: u64) {
        self.retries.fetch_add(retries, Ordering::Relaxed);
    }

    pub(crate) fn faults(&self, faults: u64) {
        self.faults.fetch_add(faults, Ordering::Relaxed);
    }

    /// Records, or batches that failed as a whole, that were sent again.
    pub(crate) fn all_retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Verdicts on records that are not there, or none where one is due.
    pub(crate) fn all_faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}
