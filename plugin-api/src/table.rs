//! The function table of a [`TelemetryExporter`]: what `export_plugin!` puts behind the ABI.

use std::{
    future::Future,
    io::{self, Write},
    ptr,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};

use crate::{
    abi::{
        ABI_VERSION, BatchV1, CONTENT_V1, ContentV1, ExporterV1, HEALTH_V1, HealthV1, HostV1, Instance,
        SCRAPE_V1, ScrapeV1, Sink, Slice, Status, scrape_format, status,
    },
    batch::Batch,
    descriptor::Description,
    error::{ExportError, Health, InitError},
    exporter::TelemetryExporter,
    guard::guarded,
    host::Host,
    logging,
};

/// The table of exporter `E`.
#[must_use]
pub(crate) const fn exporter<E: TelemetryExporter>() -> ExporterV1 {
    ExporterV1 {
        struct_size: size_of_u32::<ExporterV1>(),
        abi_version: ABI_VERSION,
        describe: describe::<E>,
        create: create::<E>,
        export: export::<E>,
        flush: flush::<E>,
        destroy: destroy::<E>,
        get_extension: get_extension::<E>,
    }
}

/// What an [`Instance`] points to. The exporter comes first, so that it is dropped while its runtime still runs.
struct Running<E> {
    exporter: E,
    runtime: Runtime,
}

impl<E> Running<E> {
    /// # Safety
    /// `instance` came from `create` of the same `E` and was not destroyed.
    unsafe fn of<'a>(instance: Instance) -> &'a Self {
        // SAFETY: the caller's promise; `create` stored a `Box<Self>`.
        unsafe { &*instance.cast::<Self>() }
    }

    /// Runs a future to its end or to the deadline.
    fn run<T>(&self, deadline: Duration, future: impl Future<Output = T>) -> Result<T, Failure> {
        self.runtime
            .block_on(async { tokio::time::timeout(deadline, future).await })
            .map_err(|_| Failure::new(status::TIMEOUT, format!("not done after {deadline:?}")))
    }
}

/// A status and the text that goes with it.
struct Failure {
    status: Status,
    message: String,
}

impl Failure {
    fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        Self::new(error.status, error.message)
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::new(error.status, error.message)
    }
}

/// Runs the body of one function of the table: panics are caught, failures are told to `error`.
fn answer(error: *const Sink, body: impl FnOnce() -> Result<(), Failure>) -> Status {
    let outcome = guarded(body).unwrap_or_else(|panic| Err(Failure::new(status::PANIC, panic)));
    match outcome {
        Ok(()) => status::OK,
        Err(failure) => {
            // SAFETY: the ABI promises a sink that is valid for the call.
            unsafe { tell(error, failure.message.as_bytes()) };
            failure.status
        }
    }
}

/// # Safety
/// `sink` is null or a valid sink.
unsafe fn tell(sink: *const Sink, bytes: &[u8]) {
    // SAFETY: the caller's promise.
    if let Some(sink) = unsafe { sink.as_ref() } {
        (sink.write)(sink.context, Slice::of(bytes));
    }
}

extern "C" fn describe<E: TelemetryExporter>(out: *const Sink) -> Status {
    answer(out, || {
        let json = serde_json::to_vec(&Description::of::<E>()).map_err(|error| fault(&error))?;
        // SAFETY: the ABI promises a sink that is valid for the call.
        unsafe { tell(out, &json) };
        Ok(())
    })
}

extern "C" fn create<E: TelemetryExporter>(
    config: Slice,
    host: *const HostV1,
    error: *const Sink,
    instance: *mut Instance,
) -> Status {
    answer(error, || {
        // SAFETY: the ABI promises a host that is valid until `destroy` returns.
        let table = unsafe { &*host };
        logging::connect(table);
        let made = start::<E>(config, table).inspect_err(|_| logging::disconnect())?;
        // SAFETY: the ABI promises a place to store the instance in.
        unsafe { instance.write(Box::into_raw(Box::new(made)).cast()) };
        Ok(())
    })
}

fn start<E: TelemetryExporter>(config: Slice, table: &HostV1) -> Result<Running<E>, Failure> {
    let config = settings::<E>(config)?;
    // SAFETY: as in `create`.
    let host = unsafe { Host::new(table) };
    let runtime = runtime(&host, E::DESCRIPTOR.background_tasks).map_err(|error| fault(&error))?;
    let exporter = runtime.block_on(E::init(config, host))?;
    Ok(Running { exporter, runtime })
}

fn settings<E: TelemetryExporter>(config: Slice) -> Result<E::Config, Failure> {
    // SAFETY: the ABI promises a slice that is valid for the call.
    let config = unsafe { config.as_bytes() };
    serde_json::from_slice(config).map_err(|error| Failure::new(status::INVALID_CONFIG, error.to_string()))
}

fn runtime(host: &Host, background_tasks: bool) -> io::Result<Runtime> {
    let mut builder =
        if background_tasks { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.worker_threads(1).thread_name(host.instance()).enable_all().build()
}

extern "C" fn export<E: TelemetryExporter>(
    instance: Instance,
    batch: *const BatchV1,
    error: *const Sink,
) -> Status {
    answer(error, || {
        // SAFETY: the ABI promises an instance of this table, and a batch that is valid for the call.
        let (running, batch) = unsafe { (Running::<E>::of(instance), Batch::new(&*batch)) };
        let outcome = running.run(batch.deadline(), running.exporter.export(batch))?;
        if let Err(ExportError { retry_after: Some(delay), .. }) = &outcome {
            batch.retry_after(*delay);
        }
        Ok(outcome?)
    })
}

extern "C" fn flush<E: TelemetryExporter>(
    instance: Instance,
    deadline_ms: u64,
    error: *const Sink,
) -> Status {
    answer(error, || {
        // SAFETY: the ABI promises an instance of this table.
        let running = unsafe { Running::<E>::of(instance) };
        Ok(running.run(Duration::from_millis(deadline_ms), running.exporter.shutdown())??)
    })
}

extern "C" fn destroy<E: TelemetryExporter>(instance: Instance, error: *const Sink) -> Status {
    let status = answer(error, || {
        // SAFETY: the ABI promises an instance of this table, destroyed once.
        let running = unsafe { Box::from_raw(instance.cast::<Running<E>>()) };
        let Running { exporter, runtime } = *running;
        {
            let _context = runtime.enter();
            drop(exporter);
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(())
    });
    logging::disconnect();
    status
}

extern "C" fn get_extension<E: TelemetryExporter>(name: Slice) -> *const std::ffi::c_void {
    // SAFETY: the ABI promises a slice that is valid for the call.
    let name = unsafe { name.as_bytes() };
    if name == HEALTH_V1.as_bytes() {
        ptr::from_ref(const { &HealthV1 { struct_size: size_of_u32::<HealthV1>(), health: health::<E> } })
            .cast()
    } else if name == SCRAPE_V1.as_bytes() {
        ptr::from_ref(const { &ScrapeV1 { struct_size: size_of_u32::<ScrapeV1>(), scrape: scrape::<E> } })
            .cast()
    } else if name == CONTENT_V1.as_bytes() {
        ptr::from_ref(const { &ContentV1 { struct_size: size_of_u32::<ContentV1>(), content: content::<E> } })
            .cast()
    } else {
        ptr::null()
    }
}

extern "C" fn health<E: TelemetryExporter>(
    instance: Instance,
    deadline_ms: u64,
    detail: *const Sink,
) -> Status {
    answer(detail, || {
        // SAFETY: the ABI promises an instance of this table.
        let running = unsafe { Running::<E>::of(instance) };
        match running.run(Duration::from_millis(deadline_ms), running.exporter.health())? {
            Health::Healthy => Ok(()),
            Health::Unhealthy(reason) => Err(Failure::new(status::RETRY, reason)),
            Health::Unknown => Err(Failure::new(status::UNSUPPORTED, "the plugin cannot tell")),
        }
    })
}

extern "C" fn scrape<E: TelemetryExporter>(instance: Instance, format: u32, out: *const Sink) -> Status {
    answer(out, || {
        // SAFETY: the ABI promises an instance of this table.
        let running = unsafe { Running::<E>::of(instance) };
        let mut text = Vec::new();
        let _context = running.runtime.enter();
        scrape_as(&running.exporter, format, &mut text).map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => Failure::new(status::UNSUPPORTED, "no metrics in this format"),
            _ => fault(&error),
        })?;
        // SAFETY: the ABI promises a sink that is valid for the call.
        unsafe { tell(out, &text) };
        Ok(())
    })
}

extern "C" fn content<E: TelemetryExporter>(config: Slice, out: *const Sink) -> Status {
    answer(out, || {
        let need = E::content(&settings::<E>(config)?);
        let json = serde_json::to_vec(&need).map_err(|error| fault(&error))?;
        // SAFETY: the ABI promises a sink that is valid for the call.
        unsafe { tell(out, &json) };
        Ok(())
    })
}

fn scrape_as<E: TelemetryExporter>(exporter: &E, format: u32, out: &mut dyn Write) -> io::Result<()> {
    match format {
        scrape_format::PROMETHEUS_TEXT => exporter.scrape(out),
        scrape_format::OPEN_METRICS => exporter.scrape_openmetrics(out),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn fault(error: &dyn std::error::Error) -> Failure {
    Failure::new(status::FAULT, error.to_string())
}

#[allow(clippy::cast_possible_truncation, reason = "the tables of this crate are tens of bytes")]
const fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}
