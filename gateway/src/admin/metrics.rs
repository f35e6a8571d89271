//! The gateway's own metrics, made with the OpenTelemetry SDK and written in the Prometheus format.
//!
//! What the books hold is not counted a second time: observable instruments read one snapshot of all books, taken
//! before every scrape, so that the figures of one scrape balance.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use exporter_pipeline::{BreakerState, DropReason, RejectReason, Snapshot};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use plugin_api::EndReason;
use prometheus::{Registry, TextEncoder};

use crate::{
    budget::Budget,
    loader::State,
    pipeline::{
        Exporter, Exporters, Instruments,
        dead_letter::{Counts, DeadLetters},
    },
    places::Places,
    recorder::{Count, Summary, Tally},
    server::{BadRequests, connection::Timeouts},
};

/// Durations of requests, in seconds: OpenTelemetry's bounds for GenAI clients.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// All instruments, and the way to read them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    _provider: SdkMeterProvider,
    instruments: Instruments,
    requests: RequestInstruments,
    view: Arc<ArcSwap<Vec<Row>>>,
    exporters: OnceLock<Exporters>,
    absent: OnceLock<Vec<String>>,
    meter: Meter,
}

/// What clients have open.
#[derive(Debug)]
pub(crate) struct Open {
    pub connections: Places,
    pub requests: Places,
}

/// One exporter at the time of a scrape.
#[derive(Debug, Clone)]
struct Row {
    labels: [KeyValue; 1],
    state: Option<RowState>,
}

#[derive(Debug, Clone)]
struct RowState {
    snapshot: Snapshot,
    capacity_records: u64,
    capacity_bytes: u64,
    retries: u64,
    faults: u64,
    dead_letters: Counts,
    breaker: BreakerState,
    up: bool,
}

/// What is counted once per request, on the thread that answers it.
#[derive(Debug, Clone)]
struct RequestInstruments {
    requests: Counter<u64>,
    duration: Histogram<f64>,
    overhead: Histogram<f64>,
}

impl RequestInstruments {
    fn new(meter: &Meter) -> Self {
        let overhead = vec![0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];
        Self {
            requests: meter
                .u64_counter("magicapi_gateway_requests")
                .with_description("Requests, by provider, status and how they ended")
                .build(),
            duration: meter
                .f64_histogram("magicapi_gateway_request_duration_seconds")
                .with_description("From a request's first header to its answer's last byte")
                .with_boundaries(SECONDS.to_vec())
                .build(),
            overhead: meter
                .f64_histogram("magicapi_gateway_overhead_seconds")
                .with_description("Time until the provider's headers that the gateway spent itself")
                .with_boundaries(overhead)
                .build(),
        }
    }

    fn record(&self, summary: &Summary, Labels { request, provider }: &Labels) {
        self.requests.add(1, request);
        self.duration.record(summary.total.as_secs_f64(), provider);
        if let Some(overhead) = summary.gateway_overhead {
            self.overhead.record(overhead.as_secs_f64(), provider);
        }
    }
}

/// The labels of requests that ended alike.
#[derive(Debug, Clone)]
struct Labels {
    request: [KeyValue; 3],
    provider: [KeyValue; 1],
}

impl Labels {
    fn of(summary: &Summary) -> Self {
        let provider = KeyValue::new("provider", summary.provider.clone().unwrap_or_else(|| "none".into()));
        let status_code = i64::from(summary.status_code.unwrap_or_default());
        let end_reason = KeyValue::new("end_reason", summary.end_reason.as_str().to_owned());
        let request = [provider.clone(), KeyValue::new("status_code", status_code), end_reason];
        Self { request, provider: [provider] }
    }
}

/// Counts the requests of one worker, and keeps the labels that it has made: nearly all requests end alike.
#[derive(Debug)]
struct RequestCounter {
    instruments: RequestInstruments,
    // Only its worker takes the lock.
    known: Mutex<Vec<(Ending, Labels)>>,
}

/// What labels depend on.
#[derive(Debug, PartialEq)]
struct Ending {
    provider: Option<Arc<str>>,
    status_code: Option<u16>,
    end_reason: EndReason,
}

impl RequestCounter {
    /// More kinds of endings than this are not remembered.
    const MAX_KNOWN: usize = 64;

    fn count(&self, summary: &Summary) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alike = |ending: &Ending| {
            ending.status_code == summary.status_code
                && ending.end_reason == summary.end_reason
                && ending.provider == summary.provider
        };
        if let Some((_, labels)) = known.iter().find(|(ending, _)| is_alike(ending)) {
            self.instruments.record(summary, labels);
            return;
        }
        let labels = Labels::of(summary);
        self.instruments.record(summary, &labels);
        if known.len() < Self::MAX_KNOWN {
            let Summary { provider, status_code, end_reason, .. } = summary.clone();
            known.push((Ending { provider, status_code, end_reason }, labels));
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("magicapi-gateway");
        let view = Arc::new(ArcSwap::from_pointee(Vec::new()));
        observe_exporters(&meter, &view);
        Ok(Self {
            registry,
            _provider: provider,
            instruments: Instruments::new(&meter),
            requests: RequestInstruments::new(&meter),
            view,
            exporters: OnceLock::new(),
            absent: OnceLock::new(),
            meter,
        })
    }

    pub(crate) fn exporter_instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// For one worker.
    pub(crate) fn request_counter(&self) -> Count {
        let counter = RequestCounter { instruments: self.requests.clone(), known: Mutex::default() };
        Arc::new(move |summary| counter.count(summary))
    }

    /// From now on the exporters are shown; `absent` are optional ones that did not load.
    pub(crate) fn show_exporters(&self, exporters: Exporters, absent: Vec<String>) {
        let _ = self.exporters.set(exporters);
        let _ = self.absent.set(absent);
    }

    /// From now on the gateway's own state is shown.
    pub(crate) fn show_gateway(
        &self,
        open: Open,
        bad_requests: Arc<BadRequests>,
        timeouts: Timeouts,
        budget: Arc<Budget>,
        tally: &Tally,
    ) {
        let meter = &self.meter;
        meter
            .u64_observable_counter("magicapi_gateway_bad_requests")
            .with_description("What clients sent that never became a request, and makes no record")
            .with_callback(move |counter| {
                for (reason, count) in bad_requests.by_reason() {
                    counter.observe(count, &[KeyValue::new("reason", reason)]);
                }
            })
            .build();
        meter
            .u64_observable_counter("magicapi_gateway_client_timeouts")
            .with_description("Connections or streams of clients that were ended by a limit")
            .with_callback(move |counter| {
                for (limit, count) in timeouts.counts() {
                    counter.observe(count, &[KeyValue::new("limit", limit)]);
                }
            })
            .build();
        meter
            .u64_observable_gauge("magicapi_gateway_open_connections")
            .with_description("Connections from clients")
            .with_callback(move |gauge| gauge.observe(open.connections.taken(), &[]))
            .build();
        meter
            .u64_observable_gauge("magicapi_gateway_open_requests")
            .with_description("Requests to providers under way, WebSockets among them")
            .with_callback(move |gauge| gauge.observe(open.requests.taken(), &[]))
            .build();
        meter
            .u64_observable_gauge("magicapi_gateway_captured_bytes")
            .with_description("Memory held for bodies until they are recorded and handed on")
            .with_callback(move |gauge| gauge.observe(budget.used(), &[]))
            .build();
        observe_recorder(meter, tally);
        let version = [KeyValue::new("version", env!("CARGO_PKG_VERSION"))];
        meter
            .u64_observable_gauge("magicapi_gateway_build_info")
            .with_description("Version of the gateway")
            .with_callback(move |gauge| gauge.observe(1, &version))
            .build();
    }

    /// The text exposition, with all books as of now. One scrape at a time.
    pub(crate) fn text(&self) -> String {
        self.view.store(Arc::new(self.rows()));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    fn rows(&self) -> Vec<Row> {
        let label = |name: &str| [KeyValue::new("plugin", name.to_owned())];
        let loaded = self.exporters.get().into_iter().flat_map(Exporters::iter);
        let absent = self.absent.get().into_iter().flatten();
        loaded
            .map(|exporter| Row { labels: label(&exporter.name), state: Some(RowState::of(exporter)) })
            .chain(absent.map(|name| Row { labels: label(name), state: None }))
            .collect()
    }
}

impl RowState {
    fn of(exporter: &Exporter) -> Self {
        let capacity = exporter.policy.capacity;
        Self {
            snapshot: exporter.snapshot(),
            capacity_records: capacity.records as u64,
            capacity_bytes: capacity.bytes,
            retries: exporter.observer.all_retries(),
            faults: exporter.observer.all_faults(),
            dead_letters: exporter.dead_letters().map(DeadLetters::counts).unwrap_or_default(),
            breaker: exporter.breaker_state(),
            up: matches!(exporter.plugin.state(), State::Running),
        }
    }
}

fn observe_recorder(meter: &Meter, tally: &Tally) {
    let lost = tally.clone();
    meter
        .u64_observable_counter("magicapi_gateway_lost_records")
        .with_description(
            "Requests that made no record, since the recorder could not keep up or failed on them",
        )
        .with_callback(move |counter| {
            for (reason, count) in lost.losses() {
                counter.observe(count, &[KeyValue::new("reason", reason)]);
            }
        })
        .build();
    let tally = tally.clone();
    meter
        .u64_observable_counter("magicapi_gateway_recorder_restarts")
        .with_description("Times that the recorder failed as a whole, and began anew")
        .with_callback(move |counter| counter.observe(tally.restarts(), &[]))
        .build();
}

type View = Arc<ArcSwap<Vec<Row>>>;

fn observe_exporters(meter: &Meter, view: &View) {
    let counter = |name, description, read: fn(&RowState) -> u64| {
        let view = view.clone();
        meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |observer| for_each(&view, |row, state| observer.observe(read(state), row)))
            .build();
    };
    counter("magicapi_exporter_accepted_records", "Records given to this exporter", |row| {
        row.snapshot.books.accepted
    });
    counter("magicapi_exporter_delivered_records", "Records that the backend has", |row| {
        row.snapshot.books.delivered
    });
    counter("magicapi_exporter_retries", "Batches, or parts of them, that were sent again", |row| {
        row.retries
    });
    counter("magicapi_exporter_plugin_faults", "Verdicts that no plugin may give", |row| row.faults);
    counter(
        "magicapi_exporter_shed_records",
        "Records that lost bodies to fit; they count as accepted",
        |row| row.snapshot.shed_bodies,
    );
    counter("magicapi_exporter_dead_letter_records", "Records written to the dead-letter file", |row| {
        row.dead_letters.records
    });
    counter(
        "magicapi_exporter_dead_letter_failures",
        "Records that could not be written to the dead-letter file, and are lost",
        |row| row.dead_letters.failures,
    );
    observe_reasons(meter, view);
    observe_gauges(meter, view);
}

fn observe_gauges(meter: &Meter, view: &View) {
    let gauge = |name, description, read: fn(&RowState) -> u64| {
        let view = view.clone();
        meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| for_each(&view, |row, state| observer.observe(read(state), row)))
            .build();
    };
    gauge("magicapi_exporter_queue_records", "Records that wait", |row| row.snapshot.queued);
    gauge("magicapi_exporter_parked_records", "Records that wait and were sent before", |row| {
        row.snapshot.parked
    });
    gauge("magicapi_exporter_queue_bytes", "Bytes of the records that wait or are in flight", |row| {
        row.snapshot.queued_bytes
    });
    gauge("magicapi_exporter_queue_capacity_records", "Records that may wait or be in flight", |row| {
        row.capacity_records
    });
    gauge("magicapi_exporter_queue_capacity_bytes", "Bytes that may wait or be in flight", |row| {
        row.capacity_bytes
    });
    gauge("magicapi_exporter_in_flight_records", "Records in batches that are being sent", |row| {
        row.snapshot.books.in_flight
    });
    gauge(
        "magicapi_exporter_breaker_state",
        "Circuit breaker: 0 closed, 1 half open, 2 open",
        |row| match row.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        },
    );
    // The design names this one twice, with and without the prefix.
    for name in ["magicapi_exporter_plugin_up", "magicapi_plugin_up"] {
        let view = view.clone();
        meter
            .u64_observable_gauge(name)
            .with_description("1 when the plugin is loaded and not stuck or disabled")
            .with_callback(move |observer| {
                for row in view.load().iter() {
                    observer
                        .observe(u64::from(row.state.as_ref().is_some_and(|state| state.up)), &row.labels);
                }
            })
            .build();
    }
}

fn observe_reasons(meter: &Meter, view: &View) {
    let with_reason =
        |labels: &[KeyValue], reason: &'static str| [labels[0].clone(), KeyValue::new("reason", reason)];
    let rejected = view.clone();
    meter
        .u64_observable_counter("magicapi_exporter_rejected_records")
        .with_description(
            "Records that the backend will never take, by who said so: the record's verdict or the call",
        )
        .with_callback(move |observer| {
            for_each(&rejected, |labels, state| {
                for reason in RejectReason::ALL {
                    let count = state.snapshot.books.rejected(reason);
                    observer.observe(count, &with_reason(labels, reason.label()));
                }
            });
        })
        .build();
    let dropped = view.clone();
    meter
        .u64_observable_counter("magicapi_exporter_dropped_records")
        .with_description("Records that the gateway gave up, by reason")
        .with_callback(move |observer| {
            for_each(&dropped, |labels, state| {
                for reason in DropReason::ALL {
                    let count = state.snapshot.books.dropped(reason);
                    observer.observe(count, &with_reason(labels, reason.label()));
                }
            });
        })
        .build();
}

fn for_each(view: &View, mut visit: impl FnMut(&[KeyValue], &RowState)) {
    for row in view.load().iter() {
        if let Some(state) = &row.state {
            visit(&row.labels, state);
        }
    }
}
