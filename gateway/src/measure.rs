//! What `make bench` measures inside one process: the boundary, and the pipeline without a network around it.
//! Not part of the API.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    admin::metrics::Metrics,
    loader::{CallStatus, FileRequest, HostInfo, LoadError, LoadRequest, Plugin, RecordVerdict},
    pipeline::{Drivers, Exporter, Exporters, Records, config},
    recorder::Record,
};

/// What kept a measurement from being made.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Records in one call, and how often the plugin reads each, when the boundary is measured.
const RECORDS: usize = 1_000;
const READS: u32 = 100;
/// A record of 2 KB: metrics and two bodies.
const PARTS: [usize; 3] = [1_000, 500, 548];

/// Nanoseconds of one call over the boundary: the plugin asks the host for a part of a record. `probe` is the probe
/// plugin, told to read, and once more told to do nothing; the difference counts.
///
/// # Errors
/// When the plugin cannot be loaded or does not do what it is told.
pub fn boundary_call_ns(probe: &Path, window: Duration) -> Result<f64, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let calls = RECORDS as f64 * f64::from(READS) * PARTS.len() as f64;
    let reading = runtime.block_on(call_time(probe, &format!("read:{READS}"), window / 2))?;
    let idle = runtime.block_on(call_time(probe, "ok", window / 2))?;
    Ok((reading.saturating_sub(idle)).as_nanos() as f64 / calls)
}

/// The shortest of the calls that fit into `window`: what disturbs a call makes it longer, never shorter.
async fn call_time(probe: &Path, behaviour: &str, window: Duration) -> Result<Duration, Error> {
    let plugin = load(probe, behaviour).await?;
    let items = Arc::new(Records(vec![record(); RECORDS]));
    let until = Instant::now() + window;
    let mut best = Duration::MAX;
    while Instant::now() < until {
        let started = Instant::now();
        plugin.export(0, items.clone(), 0, Duration::from_secs(10)).await?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}

/// Records of 2 KB through queue, batch and boundary into a plugin that does nothing, per second of CPU time of the
/// whole process: the producer's, the driver's and the plugin's thread.
///
/// # Errors
/// When the plugin cannot be loaded, or the books do not balance.
pub fn pipeline_records_per_second(probe: &Path, window: Duration) -> Result<f64, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (exporter, drivers) = runtime.block_on(start(probe))?;
    let records = vec![record(); 256];
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut sent = 0_u64;
    while started.elapsed() < window {
        if exporter.snapshot().queued < exporter.policy.capacity.records as u64 / 2 {
            exporter.submit(&records);
            sent += records.len() as u64;
        } else {
            std::thread::yield_now();
        }
    }
    while exporter.snapshot().books.delivered < sent && exporter.snapshot().books.all_dropped() == 0 {
        std::thread::yield_now();
    }
    let spent = cpu_time() - cpu;
    let snapshot = exporter.snapshot();
    runtime.block_on(drivers.shutdown(Duration::from_secs(1)));
    if snapshot.books.delivered != sent || !snapshot.is_balanced() {
        return Err(format!("sent {sent}, and the books say {snapshot:?}").into());
    }
    Ok(sent as f64 / spent.as_secs_f64())
}

/// From a plugin's file to an instance that is ready, its `init` included; the shortest of several times.
///
/// # Errors
/// When the plugin cannot be loaded.
pub fn load_time(library: &Path, settings: &serde_json::Value) -> Result<Duration, Error> {
    const TIMES: usize = 5;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut best = Duration::MAX;
        for _ in 0..TIMES {
            let started = Instant::now();
            let plugin = load_with(library, settings.clone()).await?;
            best = best.min(started.elapsed());
            plugin.stop(Duration::from_secs(5)).await?;
        }
        Ok(best)
    })
}

/// What an exporter does with batches of its own size, one at a time, and nothing between it and the boundary.
#[derive(Debug, Clone, Copy)]
pub struct Exported {
    /// Records in a batch.
    pub batch: usize,
    /// Records delivered, per second of wall time in `export`.
    pub records_per_second: f64,
    /// CPU time of this process per record: the plugin's, without the backend's.
    pub cpu_per_record: Duration,
}

/// Has an exporter deliver for about `window`. `records` makes so many new records, each as its three parts.
///
/// # Errors
/// When the plugin cannot be loaded, or a record is not delivered.
pub fn exporter(
    library: &Path,
    settings: serde_json::Value,
    mut records: impl FnMut(usize) -> Vec<[Vec<u8>; 3]>,
    window: Duration,
) -> Result<Exported, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let plugin = load_with(library, settings).await?;
        let batch = plugin.description().batch.max_records as usize;
        let (mut delivered, mut wall, mut cpu) = (0_usize, Duration::ZERO, Duration::ZERO);
        // The first call connects and warms up.
        let mut is_warm = false;
        while wall < window || !is_warm {
            let parts = records(batch).into_iter().map(|parts| parts.map(Into::into));
            let parts =
                parts.map(|[metrics, request, response]| Record::of_parts(metrics, request, response));
            let items = Arc::new(Records(parts.map(Arc::new).collect()));
            let (started, cpu_before) = (Instant::now(), cpu_time());
            let outcome = plugin.export(0, items, 0, Duration::from_secs(30)).await?;
            let spent = (started.elapsed(), cpu_time() - cpu_before);
            let refused =
                outcome.verdicts.iter().flatten().find(|it| !matches!(it, RecordVerdict::Delivered));
            if refused.is_some() || outcome.status != CallStatus::Ok {
                return Err(format!("not everything was delivered: {} {refused:?}", outcome.message).into());
            }
            if is_warm {
                (delivered, wall, cpu) = (delivered + batch, wall + spent.0, cpu + spent.1);
            }
            is_warm = true;
        }
        plugin.flush(Duration::from_secs(5)).await?;
        plugin.stop(Duration::from_secs(5)).await?;
        let records_per_second = delivered as f64 / wall.as_secs_f64();
        Ok(Exported { batch, records_per_second, cpu_per_record: cpu.div_f64(delivered as f64) })
    })
}

async fn start(probe: &Path) -> Result<(Arc<Exporter>, Drivers), Error> {
    let plugin = load(probe, "ok").await?;
    let metrics = Metrics::new()?;
    let entry = config::Plugin::new("probe", probe);
    let exporter = Exporter::of(plugin, &entry, metrics.exporter_instruments());
    let drivers = Exporters::new(vec![exporter.clone()]).start()?;
    Ok((exporter, drivers))
}

async fn load(probe: &Path, behaviour: &str) -> Result<Plugin, LoadError> {
    load_with(probe, serde_json::json!({ "script": [behaviour] })).await
}

async fn load_with(library: &Path, settings: serde_json::Value) -> Result<Plugin, LoadError> {
    Plugin::load(LoadRequest {
        name: "bench".to_owned(),
        file: FileRequest::new(library),
        workers: 1,
        create_timeout: Duration::from_secs(10),
        settings: Box::new(move |_| Ok(settings)),
        host: HostInfo {
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
            service_name: "bench".to_owned(),
            environment: "bench".to_owned(),
        },
    })
    .await
}

fn record() -> Arc<Record> {
    let [metrics, request, response] = PARTS.map(|length| vec![b'x'; length]);
    Arc::new(Record::of_parts(metrics.into(), request.into(), response.into()))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
