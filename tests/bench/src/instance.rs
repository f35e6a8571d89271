//! A plugin in this process behind the gateway's loader, with nothing of its pipeline: the boundary, an exporter alone.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use magicapi_gateway::loader::{
    BatchSource, CallStatus, FileRequest, HostInfo, LoadError, LoadRequest, Plugin, RecordVerdict,
};
use plugin_api::{Content, abi::part};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::Error;

/// Records in one call, and how often the plugin reads each, when the boundary is measured.
const RECORDS: usize = 1_000;
const READS: u32 = 100;
/// A record of 2 KB: metrics and two bodies.
const PARTS: [usize; 3] = [1_000, 500, 548];

/// A batch of records, each as its three parts: metrics, request, response.
pub(crate) struct Records(pub(crate) Vec<[Vec<u8>; 3]>);

impl BatchSource for Records {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn part(&self, index: usize, part: u32) -> &[u8] {
        let [metrics, request, response] = &self.0[index];
        match part {
            part::METRICS => metrics,
            part::REQUEST => request,
            part::RESPONSE => response,
            _ => &[],
        }
    }
}

/// Nanoseconds of one call over the boundary: the plugin asks the host for a part of a record. `probe` is the probe
/// plugin, told to read, and once more told to do nothing; the difference counts.
pub(crate) fn boundary_call_ns(probe: &Path, window: Duration) -> Result<f64, Error> {
    let calls = RECORDS as f64 * f64::from(READS) * PARTS.len() as f64;
    let reading = call_time(probe, &format!("read:{READS}"), window / 2)?;
    let idle = call_time(probe, "ok", window / 2)?;
    Ok((reading.saturating_sub(idle)).as_nanos() as f64 / calls)
}

/// The shortest of the calls that fit into `window`: what disturbs a call makes it longer, never shorter.
fn call_time(probe: &Path, behaviour: &str, window: Duration) -> Result<Duration, Error> {
    runtime()?.block_on(async {
        let plugin = load(probe, serde_json::json!({ "script": [behaviour] })).await?;
        let record = PARTS.map(|length| vec![b'x'; length]);
        let records = Arc::new(Records(vec![record; RECORDS]));
        let until = Instant::now() + window;
        let mut best = Duration::MAX;
        while Instant::now() < until {
            let started = Instant::now();
            plugin.export(0, records.clone(), 0, Duration::from_secs(10)).await?;
            best = best.min(started.elapsed());
        }
        Ok(best)
    })
}

/// From a plugin's file to an instance that is ready, its `init` included; the shortest of several times.
pub(crate) fn load_time(library: &Path, settings: &Value) -> Result<Duration, Error> {
    const TIMES: usize = 5;
    runtime()?.block_on(async {
        let mut best = Duration::MAX;
        for _ in 0..TIMES {
            let started = Instant::now();
            let plugin = load(library, settings.clone()).await?;
            best = best.min(started.elapsed());
            plugin.stop(Duration::from_secs(5)).await?;
        }
        Ok(best)
    })
}

/// What an exporter does with batches of its own size, one at a time, and nothing between it and the boundary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exported {
    /// Records in a batch.
    pub(crate) batch: usize,
    /// Records delivered, per second of wall time in `export`.
    pub(crate) records_per_second: f64,
    /// CPU time of this process per record: the plugin's, without the backend's.
    pub(crate) cpu_per_record: Duration,
}

/// Has an exporter deliver for about `window`. `records` makes so many new records. An error when one of them is not
/// delivered.
pub(crate) fn export(
    library: &Path,
    settings: Value,
    mut records: impl FnMut(usize) -> Records,
    window: Duration,
) -> Result<Exported, Error> {
    runtime()?.block_on(async {
        let plugin = load(library, settings).await?;
        let batch = plugin.description().batch.max_records as usize;
        // The first call connects and warms up.
        timed_export(&plugin, records(batch)).await?;
        let (mut delivered, mut wall, mut cpu) = (0_usize, Duration::ZERO, Duration::ZERO);
        while wall < window {
            let spent = timed_export(&plugin, records(batch)).await?;
            (delivered, wall, cpu) = (delivered + batch, wall + spent.0, cpu + spent.1);
        }
        plugin.flush(Duration::from_secs(5)).await?;
        plugin.stop(Duration::from_secs(5)).await?;
        let records_per_second = delivered as f64 / wall.as_secs_f64();
        Ok(Exported { batch, records_per_second, cpu_per_record: cpu.div_f64(delivered as f64) })
    })
}

/// Delivers a batch whole; the wall time and the CPU time of this process that it took.
async fn timed_export(plugin: &Plugin, records: Records) -> Result<(Duration, Duration), Error> {
    let records = Arc::new(records);
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let outcome = plugin.export(0, records, 0, Duration::from_secs(30)).await?;
    let spent = (started.elapsed(), cpu_time() - cpu_before);
    let refused = outcome.verdicts.iter().flatten().find(|it| !matches!(it, RecordVerdict::Delivered));
    if refused.is_some() || outcome.status != CallStatus::Ok {
        return Err(format!("not everything was delivered: {} {refused:?}", outcome.message).into());
    }
    Ok(spent)
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

async fn load(library: &Path, settings: Value) -> Result<Plugin, LoadError> {
    Plugin::load(LoadRequest {
        name: "bench".to_owned(),
        file: FileRequest::new(library),
        workers: 1,
        create_timeout: Duration::from_secs(10),
        settings: Box::new(move |_| Ok(settings)),
        content: Content::Full,
        host: HostInfo {
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
            service_name: "bench".to_owned(),
            environment: "bench".to_owned(),
        },
    })
    .await
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
