//! The request path: route, pass on, pass back. It never waits for telemetry, and it touches bytes, not JSON.
//!
//! | module | what it is |
//! |---|---|
//! | `observer` | one request under way; its end makes the record |
//! | `body`, `capture` | bytes pass untouched, a bounded copy is kept |
//! | `headers`, `trace` | what is taken off, read and put on |
//! | `upstream`, `pool`, `tls` | providers and their connections |
//! | `error` | the gateway's own answers |

mod body;
mod capture;
pub mod config;
mod error;
mod headers;
mod observer;
mod pool;
pub mod tls;
mod trace;
pub mod upstream;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, Version, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tracing::debug;

pub(crate) use self::{body::ResponseBody, capture::CaptureSettings, upstream::Target};
use self::{
    body::{Fault, Observed, RequestBody, Tapped},
    error::GatewayError,
    observer::RequestObserver,
    pool::{Lease, SendError},
    upstream::Upstream,
};
use crate::recorder::Intake;

/// Bodies up to this size are read before they are sent on, so that headers and body leave in one piece.
const READ_AHEAD: u64 = 64 * 1024;

/// What handles the requests of one worker.
#[derive(Debug)]
pub(crate) struct Proxy {
    upstreams: HashMap<Arc<str>, Upstream>,
    default_provider: Arc<str>,
    limits: Limits,
    capture: CaptureSettings,
    intake: Intake,
}

/// Limits on what clients send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub max_request_bytes: u64,
    pub body_timeout: Duration,
}

impl Proxy {
    pub(crate) fn new(
        targets: &[Arc<Target>],
        default_provider: &str,
        limits: Limits,
        capture: CaptureSettings,
        intake: Intake,
    ) -> Self {
        let upstreams =
            targets.iter().map(|target| (target.name.clone(), Upstream::new(target.clone()))).collect();
        Self { upstreams, default_provider: default_provider.into(), limits, capture, intake }
    }

    /// From now on a request that breaks off was cut by the gateway.
    pub(crate) fn abort(&self) {
        self.intake.abort();
    }

    /// Requests that came to their end here.
    pub(crate) fn finished(&self) -> u64 {
        self.intake.finished()
    }

    /// Answers one request. Whatever happens, the request makes exactly one record: it is observed from here on, not when the
    /// future is first polled, which a client that hangs up at once may prevent.
    pub(crate) fn handle(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        let observer = RequestObserver::start(&mut request, &self.capture, &self.intake);
        self.answer(request, observer)
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        mut observer: RequestObserver,
    ) -> Response<ResponseBody> {
        let id = observer.id;
        let mut response = match self.forward(request, &mut observer).await {
            Ok(Forwarded { response, lease, idle }) => response
                .map(|body| ResponseBody::Passing(Box::new(Observed::new(body, observer, lease, idle)))),
            Err(error) => {
                let body = error.body();
                observer.failed(&error, body.len());
                error.response(body)
            }
        };
        response.headers_mut().entry(headers::X_REQUEST_ID).or_insert_with(|| {
            HeaderValue::try_from(id.as_hyphenated().to_string()).unwrap_or(HeaderValue::from_static(""))
        });
        response
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        observer: &mut RequestObserver,
    ) -> Result<Forwarded, GatewayError> {
        let upstream = self.route(&mut request)?;
        let target = &upstream.target;
        observer.provider = Some(target.name.clone());
        observer.dialect = target.dialect;
        let (request, fault) = self.prepare(request, upstream, observer).await?;
        observer.times.sent = Some(observer.started.elapsed());
        let answer = tokio::time::timeout(target.timeout.first_byte, upstream.pool.send(request)).await;
        let (mut response, lease) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(fault.error().unwrap_or_else(|| failure(target, &error))),
            Err(_) => {
                let after = target.timeout.first_byte;
                return Err(GatewayError::UpstreamTimeout { provider: target.name.to_string(), after });
            }
        };
        observer.provider_answered(response.status().as_u16(), response.headers(), target.request_id_headers);
        headers::remove_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(Forwarded { response, lease, idle: target.timeout.idle })
    }

    /// Where the request goes.
    fn route(&self, request: &mut Request<Incoming>) -> Result<&Upstream, GatewayError> {
        let path = request.uri().path();
        if !path.starts_with("/v1/") {
            return Err(GatewayError::NotFound { path: path.to_owned() });
        }
        let named = headers::take_text(request.headers_mut(), &headers::X_PROVIDER);
        let name = named.as_deref().unwrap_or(&self.default_provider);
        self.upstreams.get(name).or_else(|| self.upstreams.get(&*name.to_ascii_lowercase())).ok_or_else(
            || {
                let mut known: Vec<&str> = self.upstreams.keys().map(|name| &**name).collect();
                known.sort_unstable();
                GatewayError::UnknownProvider { name: name.to_owned(), known: known.join(", ") }
            },
        )
    }

    /// The request as the provider gets it: headers edited in place, the body as the bytes that come.
    async fn prepare(
        &self,
        request: Request<Incoming>,
        upstream: &Upstream,
        observer: &mut RequestObserver,
    ) -> Result<(Request<RequestBody>, ClientFault), GatewayError> {
        let (mut parts, body) = request.into_parts();
        let fallback = PathAndQuery::from_static("/");
        let path = parts.uri.path_and_query().unwrap_or(&fallback);
        parts.uri = upstream.path(path).map_err(|error| {
            debug!("no place at the provider for {path}: {error}");
            GatewayError::NotFound { path: path.to_string() }
        })?;
        headers::remove_hop_by_hop(&mut parts.headers);
        headers::authorize(&mut parts.headers, upstream.authorization());
        let (body, fault) = self.body(body, &parts.method, observer).await?;
        Ok((Request::from_parts(parts, body), fault))
    }

    async fn body(
        &self,
        body: Incoming,
        method: &Method,
        observer: &mut RequestObserver,
    ) -> Result<(RequestBody, ClientFault), GatewayError> {
        let Limits { max_request_bytes: limit, body_timeout } = self.limits;
        match body.size_hint().exact() {
            Some(length) if length > limit => Err(GatewayError::RequestTooLarge { limit }),
            Some(0) => Ok((RequestBody::Ready(None), ClientFault(None))),
            Some(length) if length <= READ_AHEAD => {
                let bytes = tokio::time::timeout(body_timeout, read(body))
                    .await
                    .map_err(|_| GatewayError::RequestTimeout(body_timeout))??;
                let mut tap = observer.request.lock().unwrap_or_else(PoisonError::into_inner);
                tap.push(&bytes, observer.started.elapsed());
                tap.complete();
                Ok((RequestBody::from(bytes), ClientFault(None)))
            }
            _ => {
                debug!(%method, "streaming a request body of unknown or large size");
                let (tapped, fault) = Tapped::new(body, observer, limit, body_timeout);
                Ok((RequestBody::Passing(Box::new(tapped)), ClientFault(Some(fault))))
            }
        }
    }
}

/// The provider's answer, the connection it comes over, and how long its body may be silent.
struct Forwarded {
    response: Response<Incoming>,
    lease: Option<Lease>,
    idle: Duration,
}

/// The client's fault, if a streamed body found one.
struct ClientFault(Option<Fault>);

impl ClientFault {
    fn error(&self) -> Option<GatewayError> {
        self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads a body that is known to be small; one frame, as is usual, is not copied.
async fn read(mut body: Incoming) -> Result<Bytes, GatewayError> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|_| GatewayError::RequestBroken)?.into_data() else { continue };
        if first.is_empty() {
            first = bytes;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&bytes);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// The cause goes to the log; the client learns what kind of failure it was.
fn failure(target: &Target, error: &SendError) -> GatewayError {
    let provider = target.name.to_string();
    let cause = plugin_api::causes(error);
    tracing::warn!(provider, "no answer from the provider: {cause}");
    match error {
        SendError::Connect(_) | SendError::ConnectTimeout(_) => GatewayError::ConnectFailed { provider },
        SendError::Broken(_) => GatewayError::UpstreamBroken { provider },
    }
}
