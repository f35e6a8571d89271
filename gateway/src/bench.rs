//! The pipeline without a network around it, for `make bench` (`tests/bench`), which cannot reach it from outside. Not part
//! of the API.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    admin::metrics::Metrics,
    loader::{FileRequest, HostInfo, LoadRequest, Plugin},
    pipeline::{Drivers, Exporter, Exporters, config},
    recorder::Record,
};

/// What kept a measurement from being made.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A record of 2 KB: metrics and two bodies.
const PARTS: [usize; 3] = [1_000, 500, 548];

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

async fn start(probe: &Path) -> Result<(Arc<Exporter>, Drivers), Error> {
    let plugin = Plugin::load(LoadRequest {
        name: "bench".to_owned(),
        file: FileRequest::new(probe),
        workers: 1,
        create_timeout: Duration::from_secs(10),
        settings: Box::new(|_| Ok(serde_json::json!({ "script": ["ok"] }))),
        content: config::Content::Full,
        host: HostInfo::default(),
    })
    .await?;
    let metrics = Metrics::new()?;
    let entry = config::Plugin::new("probe", probe);
    let exporter = Exporter::of(plugin, &entry, metrics.exporter_instruments());
    let drivers = Exporters::new(vec![exporter.clone()]).start()?;
    Ok((exporter, drivers))
}

fn record() -> Arc<Record> {
    let [metrics, request, response] = PARTS.map(|length| vec![b'x'; length]);
    Arc::new(Record::of_parts(metrics.into(), request.into(), response.into()))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
