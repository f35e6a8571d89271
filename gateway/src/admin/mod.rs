//! The operator's port: `/healthz`, `/readyz`, `/metrics` and `/plugins`.

pub mod config;
mod doorkeeper;
mod exposition;
pub(crate) mod metrics;
mod report;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use plugin_api::abi::scrape_format;
use tokio::{
    net::TcpListener,
    sync::{Mutex, oneshot, watch},
};
use tracing::warn;

use self::{
    doorkeeper::Doorkeeper,
    exposition::{Clash, Exposition, Format},
    metrics::Metrics,
};
use crate::{
    loader::State,
    pipeline::Exporters,
    server::{
        Phase, Refused, configure,
        connection::{Activity, Limits, Protocols, Timeouts},
    },
    settings::Secret,
};

/// Operators' connections at once.
const MAX_CONNECTIONS: usize = 64;

/// How long `/metrics` waits for a plugin's part.
const SCRAPE_DEADLINE: Duration = Duration::from_secs(2);

/// An optional plugin that did not load, and why.
#[derive(Debug, Clone)]
pub(crate) struct Absent {
    pub name: String,
    pub error: String,
}

/// What the operator's port shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub token: Option<Secret>,
    pub metrics: Arc<Metrics>,
    pub exporters: Exporters,
    pub absent: Vec<Absent>,
    /// Names of the plugins that readiness asks for.
    pub required: Vec<String>,
    /// The same as for clients.
    pub limits: Limits,
    pub max_header_bytes: usize,
    /// The end has begun: readiness says no.
    pub stopping: AtomicBool,
    pub scraping: Mutex<()>,
}

/// The thread of the admin port. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    _until: oneshot::Sender<()>,
}

impl Admin {
    /// Serves on a thread of its own: an answer of megabytes keeps no client's connection waiting to be accepted.
    ///
    /// # Errors
    /// When the system gives no thread, or the listener cannot be used.
    pub(crate) fn start(self: Arc<Self>, listener: std::net::TcpListener) -> io::Result<Serving> {
        listener.set_nonblocking(true)?;
        // Its work comes in large pieces (an exposition): whoever has connected meanwhile is looked for after each of them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build()?;
        let (until, dropped) = oneshot::channel();
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => tokio::select! {
                        () = self.serve(listener) => {}
                        _ = dropped => {}
                    },
                    Err(error) => warn!("the admin port cannot be served: {error}"),
                }
            });
        })?;
        Ok(Serving { _until: until })
    }

    /// From now on `/readyz` says no.
    pub(crate) fn say_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut doorkeeper = Doorkeeper::new(MAX_CONNECTIONS);
        let refused = Refused::default();
        // It is served to the very end: what the end costs is in its metrics.
        let phase = watch::Sender::new(Phase::Serving);
        let protocols = Protocols::new(self.limits, phase.subscribe(), Timeouts::default(), |builder| {
            configure(builder, self.max_header_bytes);
        });
        loop {
            let stream = match accept(&listener).await {
                Ok(stream) => stream,
                Err(error) => {
                    refused.wait("a connection to the admin port", &error).await;
                    continue;
                }
            };
            let Some(place) = doorkeeper.place().await else { return };
            let (admin, activity, is_kept) = (self.clone(), Activity::new(), place.is_kept);
            let handle = move |request: Request<Incoming>| {
                let admin = admin.clone();
                async move { if is_kept { admin.answer_probe(&request) } else { admin.answer(&request).await } }
            };
            let task = tokio::spawn(protocols.serve(stream, place, activity.clone(), handle));
            doorkeeper.let_in(is_kept, activity, task.abort_handle());
        }
    }

    /// On a place that is kept for probes. The next request may find another one, on another connection.
    fn answer_probe(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match request.uri().path() {
            "/healthz" => healthy(),
            "/readyz" => self.ready(self.is_authorized(request)),
            _ => json(
                StatusCode::SERVICE_UNAVAILABLE,
                &report::error("too many requests are under way on this port; try again"),
            ),
        };
        if request.version() == Version::HTTP_2 { answer } else { with(answer, header::CONNECTION, "close") }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        // What probes ask needs no token: they have none to send.
        let is_authorized = self.is_authorized(request);
        if !matches!(path, "/healthz" | "/readyz") && !is_authorized {
            let answer =
                json(StatusCode::UNAUTHORIZED, &report::error("a bearer token is required: admin.token"));
            return with(answer, header::WWW_AUTHENTICATE, "Bearer");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let answer = json(StatusCode::METHOD_NOT_ALLOWED, &report::error("this port only answers GET"));
            return with(answer, header::ALLOW, "GET, HEAD");
        }
        match path {
            "/healthz" => healthy(),
            "/readyz" => self.ready(is_authorized),
            "/metrics" => self.scrape(request).await,
            "/plugins" => json(StatusCode::OK, &report::plugins(&self.exporters, &self.absent)),
            _ => json(
                StatusCode::NOT_FOUND,
                &report::error("there are /healthz, /readyz, /metrics and /plugins"),
            ),
        }
    }

    fn is_authorized(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        given.and_then(|given| given.strip_prefix(b"Bearer ")).is_some_and(|given| token.matches(given))
    }

    /// Whether every required plugin is up, and the gateway not at its end.
    pub(crate) fn is_ready(&self) -> bool {
        self.readiness().0
    }

    fn readiness(&self) -> (bool, serde_json::Value) {
        report::readiness(&self.exporters, &self.required, self.stopping.load(Ordering::Relaxed))
    }

    /// Whoever has no token learns whether, and not why: names and errors are the operator's.
    fn ready(&self, in_detail: bool) -> Response<Full<Bytes>> {
        let (ready, body) = self.readiness();
        let body = if in_detail { body } else { serde_json::json!({ "ready": ready }) };
        json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
    }

    async fn scrape(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::of(accept);
        let _one_at_a_time = self.scraping.lock().await;
        let own = self.metrics.text();
        let text = if format == Format::Text { own } else { exposition::to_open_metrics(&own) };
        let mut expositions = vec![Exposition { plugin: None, text }];
        expositions.extend(self.plugin_expositions(format).await);
        let (text, clashes) = exposition::join(format, &expositions);
        for Clash { family, plugin, why } in clashes {
            warn!(plugin, "its metric {family} is not shown: {why}; give it another name");
        }
        respond(StatusCode::OK, format.content_type(), text)
    }

    async fn plugin_expositions(&self, format: Format) -> Vec<Exposition> {
        let mut scrapes = Vec::new();
        for exporter in self.exporters.iter() {
            let exporter = exporter.clone();
            scrapes.push(tokio::spawn(async move {
                let plugin = &exporter.plugin;
                if matches!(plugin.state(), State::Disabled { .. } | State::Stopped) {
                    return None;
                }
                match scrape_plugin(plugin, format).await {
                    Ok(text) => text
                        .filter(|text| is_exposition(plugin.name(), text))
                        .map(|text| Exposition { plugin: Some(plugin.name().to_owned()), text }),
                    Err(error) => {
                        exporter.notices.scrape_failed(&error.to_string());
                        None
                    }
                }
            }));
        }
        let mut expositions = Vec::new();
        for scrape in scrapes {
            expositions.extend(scrape.await.ok().flatten());
        }
        expositions
    }
}

/// What a plugin has to show, in the format that is wanted: its own OpenMetrics if it writes it, else converted.
async fn scrape_plugin(
    plugin: &crate::loader::Plugin,
    format: Format,
) -> Result<Option<String>, crate::loader::CallFailed> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if format == Format::OpenMetrics
        && let Some(bytes) = plugin.scrape(scrape_format::OPEN_METRICS, SCRAPE_DEADLINE).await?
    {
        return Ok(Some(text(bytes)));
    }
    let plain = plugin.scrape(scrape_format::PROMETHEUS_TEXT, SCRAPE_DEADLINE).await?.map(text);
    Ok(match format {
        Format::Text => plain,
        Format::OpenMetrics => plain.map(|plain| exposition::to_open_metrics(&plain)),
    })
}

fn is_exposition(plugin: &str, text: &str) -> bool {
    let fault = exposition::first_fault(text);
    if let Some(line) = fault {
        warn!(plugin, line, "what the plugin exposes is no metric in the Prometheus format; it is left out");
    }
    fault.is_none()
}

async fn accept(listener: &TcpListener) -> io::Result<tokio::net::TcpStream> {
    let (stream, _peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn healthy() -> Response<Full<Bytes>> {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", format!("{body:#}\n"))
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
