//! The gateway put together: from a configuration, loaded plugins and open listeners to a running service, and back
//! to silence without losing a record.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::{
    admin::{
        Absent, Admin,
        metrics::{Metrics, Open},
    },
    budget::Budget,
    config::Config,
    descriptors::{self, Crowd},
    mask, memory,
    pipeline::{Drivers, Exporter, Exporters},
    places::Places,
    proxy::{self, CaptureSettings, Limits, Own, Proxy, Target, cors::Cors, strip::Stripped, upstream},
    recorder::{self, Intake, Record, Recorder},
    server::{Server, config, connection::Limits as ConnectionLimits},
    settings::Secret,
    startup::LoadedPlugins,
    supervisor,
};

/// Open listeners, so that tests can bind port 0.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub server: TcpListener,
    /// For operators.
    pub admin: TcpListener,
}

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operator's: a provider of the configuration cannot be used.
    #[error(transparent)]
    Provider(#[from] upstream::TargetError),
    /// The system's: no thread, no runtime, no listener.
    #[error("the system refused what the gateway needs to start: {0}")]
    Io(#[from] io::Error),
    /// The gateway's: its metrics could not be set up.
    #[error("the metrics could not be set up: {0}")]
    Metrics(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs until `shutdown`, then finishes requests, drains the exporters and returns.
///
/// # Errors
/// When it cannot start. Nothing that happens to a request or an exporter ends it.
pub async fn run(
    config: Config,
    plugins: LoadedPlugins,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let targets: Vec<Arc<Target>> = upstream::targets(&config.providers)?.into_iter().map(Arc::new).collect();
    let metrics = Arc::new(Metrics::new().map_err(RunError::Metrics)?);
    let admin = Arc::new(assemble_admin(&config, plugins, metrics.clone()));
    let exporters = admin.exporters.clone();
    let drivers = exporters.start()?;
    let budget = Budget::new(config.telemetry.capture.max_in_flight_bytes.bytes());
    let (intake, recorder) = start_recorder(&config, &exporters, &budget)?;
    let count = || intake.counting(metrics.request_counter());
    let Crowd { connections, requests } = crowd(&config).within(descriptors::raise());
    let (connections, requests) = (Places::new(connections), Places::new(requests));
    let settings = proxy_settings(&config, requests.clone(), admin.clone(), budget.clone());
    let mut server = start_server(&config, connections.clone(), &targets, &settings, count)?;
    metrics.show_gateway(
        Open { connections, requests },
        server.bad_requests(),
        server.timeouts(),
        budget,
        &intake.tally(),
    );
    let tally = intake.tally();
    let idle = tokio::spawn(memory::give_back_when_idle(move || tally.recorded()));
    // Each worker has its own: the recorder ends when they do.
    drop(intake);

    let listener = listener(listeners.server)?;
    let address = listener.local_addr()?;
    info!("listening on http://{address}");
    info!("admin on http://{}", listeners.admin.local_addr()?);
    let operators = admin.clone().start(listeners.admin)?;
    let watchdog = tokio::spawn(supervisor::keep_watchdog(server.roll_call()));
    supervisor::ready(address);
    server.accept(&listener, shutdown).await;
    supervisor::stopping();
    admin.say_stopping();
    leave(&mut server, listener, &config).await;
    stop(server, recorder, drivers, &config).await;
    drop(operators);
    watchdog.abort();
    idle.abort();
    info!("stopped");
    Ok(())
}

/// Lets balancers notice, then closes the port. Whoever has connected by then is served.
async fn leave(server: &mut Server, listener: tokio::net::TcpListener, config: &Config) {
    let delay = config.server.drain_delay;
    server.drain();
    if !delay.is_zero() {
        info!("draining: not ready; connections are accepted for another {delay:?}");
        server.accept(&listener, tokio::time::sleep(delay)).await;
    }
    match listener.into_std() {
        Ok(listener) => server.accept_last(&listener),
        Err(error) => warn!("who had just connected is not served: {error}"),
    }
}

/// In the order in which data flows, so that nothing is cut off from what comes after it.
async fn stop(server: Server, recorder: Recorder, drivers: Drivers, config: &Config) {
    info!("stopping: no new connections; requests under way have {:?}", config.server.shutdown_grace);
    server.shutdown().await;
    if !matches!(tokio::task::spawn_blocking(move || recorder.join()).await, Ok(Ok(()))) {
        warn!("the recorder ended early");
    }
    drivers.shutdown(config.telemetry.drain_timeout).await;
}

fn assemble_admin(config: &Config, plugins: LoadedPlugins, metrics: Arc<Metrics>) -> Admin {
    let instruments = metrics.exporter_instruments();
    let required = plugins.ready.iter().filter(|(_, entry)| entry.required);
    let required = required.map(|(_, entry)| entry.name.clone()).collect();
    let exporters =
        plugins.ready.into_iter().map(|(plugin, entry)| Exporter::of(plugin, &entry, instruments)).collect();
    let exporters = Exporters::new(exporters);
    let names = plugins.absent.iter().map(|(name, _)| name.clone()).collect();
    metrics.show_exporters(exporters.clone(), names);
    let absent = plugins.absent.into_iter().map(|(name, error)| Absent { name, error }).collect();
    let token = config.admin.token.clone().filter(|token: &Secret| !token.is_empty());
    Admin {
        token,
        metrics,
        exporters,
        absent,
        required,
        limits: ConnectionLimits::of(&config.server),
        max_header_bytes: config.server.max_header_bytes.as_usize(),
        stopping: AtomicBool::new(false),
        scraping: Mutex::new(()),
    }
}

fn start_recorder(
    config: &Config,
    exporters: &Exporters,
    budget: &Arc<Budget>,
) -> io::Result<(Intake, Recorder)> {
    let telemetry = &config.telemetry;
    let settings = recorder::Settings {
        service_name: telemetry.service_name.clone(),
        environment: telemetry.environment.clone(),
        capture_request: telemetry.capture.request,
        capture_response: telemetry.capture.response,
        capture_streamed_data: telemetry.capture.streamed_data,
        capture_chunk_times: telemetry.capture.chunk_times,
        max_body_bytes: telemetry.capture.max_body_bytes.as_usize(),
        // All that there is to know was learned while the plugins were loaded.
        mask: mask::known(),
    };
    let deliver = (!exporters.is_empty()).then(|| {
        let exporters = exporters.clone();
        Box::new(move |records: &[Arc<Record>]| exporters.submit(records)) as recorder::Deliver
    });
    Recorder::start(settings, budget, deliver)
}

fn crowd(config: &Config) -> Crowd {
    let connections = config.server.max_connections;
    Crowd { connections, requests: config.server.max_requests.unwrap_or(connections) }
}

fn proxy_settings(
    config: &Config,
    places: Places,
    admin: Arc<Admin>,
    budget: Arc<Budget>,
) -> proxy::Settings {
    let config::Cors { allowed_origins, max_age } = &config.server.cors;
    let max_request_bytes = config.server.max_request_bytes;
    proxy::Settings {
        default_provider: config.proxy.default_provider.as_str().into(),
        limits: Limits {
            max_request_bytes: max_request_bytes.bytes(),
            max_upload_bytes: config.server.max_upload_bytes.unwrap_or(max_request_bytes).bytes(),
            body_timeout: config.server.body_timeout,
            max_headers: config.server.max_headers,
        },
        places,
        stripped: Stripped::new(&config.proxy.strip_headers),
        capture: CaptureSettings {
            enabled: !admin.exporters.is_empty(),
            max_body_bytes: config.telemetry.capture.max_body_bytes.bytes(),
            budget,
        },
        own: Own { cors: Cors::new(allowed_origins, *max_age), ready: Arc::new(move || admin.is_ready()) },
    }
}

fn start_server(
    config: &Config,
    places: Places,
    targets: &[Arc<Target>],
    settings: &proxy::Settings,
    intake: impl Fn() -> Intake,
) -> io::Result<Server> {
    let proxies = (0..workers(config)).map(|_| Proxy::new(targets, settings.clone(), intake())).collect();
    Server::start(&config.server, places, proxies)
}

fn workers(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    }
}

fn listener(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}
