//! The request path: route, pass on, pass back. It never waits for telemetry, and it touches bytes, not JSON.
//!
//! | module | what it is |
//! |---|---|
//! | `observer` | one request under way; its end makes the record |
//! | `body`, `capture`, `model_scan` | bytes pass untouched, a bounded copy is kept |
//! | `path`, `framing` | what is refused, since servers read it in different ways |
//! | `headers`, `strip`, `trace` | what is taken off, read and put on |
//! | `own`, `cors` | what the gateway answers itself, and to which pages |
//! | `upload` | what a client still sends, when the answer is there first |
//! | `tunnel` | WebSocket |
//! | `upstream`, `pool`, `tls` | providers and their connections |
//! | `error` | the gateway's own answers |

mod body;
mod capture;
pub mod config;
pub(crate) mod cors;
mod error;
mod framing;
mod headers;
mod model_scan;
mod observer;
pub(crate) mod own;
mod path;
mod pool;
pub(crate) mod strip;
pub mod tls;
mod trace;
pub(crate) mod tunnel;
mod upload;
pub mod upstream;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    FutureExt as _,
    future::{self, Either},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, uri::PathAndQuery};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tracing::debug;

pub(crate) use self::{body::ResponseBody, capture::CaptureSettings, own::Own, upstream::Target};
use self::{
    body::{Kind, Observed, RequestBody, Tapped},
    error::GatewayError,
    observer::RequestObserver,
    pool::{Lease, SendError},
    strip::Stripped,
    tunnel::Tunnel,
    upload::{ClientBody, Upload},
    upstream::Upstream,
};
use crate::{
    places::{Place, Places},
    recorder::Intake,
};

/// Bodies up to this size are read before they are sent on, so that headers and body leave in one piece.
const READ_AHEAD: u64 = 64 * 1024;

/// What handles the requests of one worker.
#[derive(Debug)]
pub(crate) struct Proxy {
    upstreams: HashMap<Arc<str>, Upstream>,
    settings: Settings,
    intake: Intake,
}

/// What all workers have in common.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub default_provider: Arc<str>,
    pub limits: Limits,
    /// As many as there may be requests under way.
    pub places: Places,
    pub stripped: Stripped,
    pub own: Own,
    pub capture: CaptureSettings,
}

/// Limits on what clients send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub max_request_bytes: u64,
    /// Of a body that is a file, or a part of one.
    pub max_upload_bytes: u64,
    pub body_timeout: Duration,
    /// Of answers, too.
    pub max_headers: usize,
}

impl Limits {
    /// The largest body of a request for that path.
    fn of(&self, path: &str) -> u64 {
        if is_upload(path) { self.max_upload_bytes } else { self.max_request_bytes }
    }
}

/// Where files are uploaded: `/v1/files`, and the parts of `/v1/uploads/{id}/parts`.
fn is_upload(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let part = path.strip_prefix("/v1/uploads/").and_then(|rest| rest.strip_suffix("/parts"));
    path == "/v1/files" || part.is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

impl Proxy {
    pub(crate) fn new(targets: &[Arc<Target>], settings: Settings, intake: Intake) -> Self {
        let max_headers = settings.limits.max_headers;
        let upstreams = targets
            .iter()
            .map(|target| (target.name.clone(), Upstream::new(target.clone(), max_headers)))
            .collect();
        Self { upstreams, settings, intake }
    }

    /// From now on a request that breaks off was cut by the gateway.
    pub(crate) fn abort(&self) {
        self.intake.abort();
    }

    /// Requests that came to their end here.
    pub(crate) fn finished(&self) -> u64 {
        self.intake.finished()
    }

    /// Answers one request. Whatever happens, a request to a provider makes exactly one record: it is observed from here
    /// on, not when the future is first polled, which a client that hangs up at once may prevent.
    pub(crate) fn handle(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        tunnels: tunnel::Slot,
    ) -> impl Future<Output = Response<ResponseBody>> {
        let checked = self.check_head(&request);
        if checked.is_ok()
            && let Some(own) = self.settings.own.answer(&request)
        {
            return Either::Left(future::ready(own));
        }
        let upgrade = checked.map(|()| tunnel::asked(&mut request));
        // First of all: what is put on from here on is the gateway's, and the client cannot name it.
        headers::remove_hop_by_hop(request.headers_mut());
        let observer = RequestObserver::start(&mut request, &self.settings.capture, &self.intake);
        Either::Right(async move {
            let cors = &self.settings.own.cors;
            let grant = cors.grant(request.headers());
            let mut response = self.answer(request, upgrade, observer, &tunnels).await;
            cors.set(response.headers_mut(), grant);
            response
        })
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        upgrade: Result<Option<OnUpgrade>, GatewayError>,
        mut observer: RequestObserver,
        tunnels: &tunnel::Slot,
    ) -> Response<ResponseBody> {
        let id = observer.id;
        let mut response = match self.forward(request, upgrade, &mut observer).await {
            Ok(Forwarded::Answer { response, first, kind, lease, idle }) => response.map(|body| {
                ResponseBody::Passing(Box::new(Observed::new(first, body, kind, observer, lease, idle)))
            }),
            Ok(Forwarded::Tunnel { mut response, client, idle }) => {
                tunnels.put(Tunnel::new(client, &mut response, idle, observer));
                response.map(|_| ResponseBody::Ready(None))
            }
            Err(error) => refuse(&error, observer),
        };
        response.headers_mut().entry(headers::X_REQUEST_ID).or_insert_with(|| {
            HeaderValue::try_from(id.as_hyphenated().to_string()).unwrap_or(HeaderValue::from_static(""))
        });
        response
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        upgrade: Result<Option<OnUpgrade>, GatewayError>,
        observer: &mut RequestObserver,
    ) -> Result<Forwarded, GatewayError> {
        let (mut request, body) = ClientBody::take(request);
        observer.place = Some(self.place()?);
        let upgrade = upgrade?;
        self.check(&request)?;
        let upstream = self.route(&mut request)?;
        let target = &*upstream.target;
        observer.provider = Some(target.name.clone());
        observer.dialect = target.dialect;
        let request = self.prepare(request, body, upstream, observer).await?;
        let method = request.method().clone();
        observer.times.sent = Some(observer.started.elapsed());
        if let Some(client) = upgrade {
            return self.tunnel(client, request, upstream, observer).await;
        }
        let upload = request.body().upload().cloned();
        let (response, lease) = upstream.pool.send(request).await.map_err(|error| {
            upload.as_ref().and_then(Upload::take_fault).unwrap_or_else(|| failure(target, &error))
        })?;
        self.pass_back(response, lease, &method, target, observer)
    }

    fn place(&self) -> Result<Place, GatewayError> {
        let places = &self.settings.places;
        places.take().ok_or_else(|| GatewayError::Overloaded { limit: places.max() })
    }

    /// What is wrong with a head as the client sent it.
    fn check_head<B>(&self, request: &Request<B>) -> Result<(), GatewayError> {
        let headers = request.headers();
        framing::check_request(request.version(), request.uri(), headers).map_err(GatewayError::Misframed)?;
        let limit = self.settings.limits.max_headers;
        if headers.len() > limit {
            return Err(GatewayError::TooManyHeaders { limit });
        }
        Ok(())
    }

    /// What is never passed on, to whatever provider.
    fn check(&self, request: &Request<()>) -> Result<(), GatewayError> {
        // TRACE shows whoever asks what was added on the way, the key included; CONNECT would be a tunnel to anywhere.
        if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
            return Err(GatewayError::MethodRefused { method: request.method().clone() });
        }
        if !self.settings.own.cors.may_call(request.headers()) {
            return Err(GatewayError::OriginRefused);
        }
        let path = request.uri().path();
        if path::has_dot_segment(path) {
            return Err(GatewayError::DotSegment { path: path.to_owned() });
        }
        Ok(())
    }

    /// The provider's answer as the client gets it.
    fn pass_back(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        method: &Method,
        target: &Target,
        observer: &mut RequestObserver,
    ) -> Result<Forwarded, GatewayError> {
        let status = response.status();
        let invalid = |why| {
            let provider = target.name.to_string();
            tracing::warn!(provider, "an answer cannot be passed on: {why}");
            GatewayError::UpstreamInvalid { provider, why }
        };
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(invalid("it changes to a protocol that was not asked for"));
        }
        if response.headers().len() > self.settings.limits.max_headers {
            return Err(invalid(TOO_MANY_HEADERS));
        }
        let headers = response.headers();
        let lease = if framing::may_leave_bytes_behind(headers, status, method) {
            // Without its lease the connection closes at the answer's end, which is here.
            None
        } else if framing::names_two_lengths(headers) {
            Some(lease.alone())
        } else {
            Some(lease)
        };
        let kind = if framing::has_no_body(status, method) {
            Kind::Empty
        } else if response.version() == Version::HTTP_2 {
            Kind::Http2
        } else {
            Kind::Http1
        };
        let length = if kind == Kind::Empty { Some(0) } else { response.body().size_hint().exact() };
        framing::set_answer(response.headers_mut(), status, method, length)
            .map_err(|fault| invalid(fault.text()))?;
        let first = first_frame(response.body_mut(), target)?;
        answered(&mut response, target, observer);
        Ok(Forwarded::Answer { response, first, kind, lease, idle: target.timeout.idle })
    }

    /// A WebSocket, if the provider opens it; else the answer that it gives instead.
    async fn tunnel(
        &self,
        client: OnUpgrade,
        mut request: Request<RequestBody>,
        upstream: &Upstream,
        observer: &mut RequestObserver,
    ) -> Result<Forwarded, GatewayError> {
        let target = &*upstream.target;
        let method = request.method().clone();
        tunnel::ask(request.headers_mut());
        let answered_alone = upstream.pool.send_alone(request).await;
        let (mut response, lease) = answered_alone.map_err(|error| failure(target, &error))?;
        if !tunnel::is_open(&response) {
            return self.pass_back(response, lease, &method, target, observer);
        }
        lease.let_go();
        answered(&mut response, target, observer);
        tunnel::ask(response.headers_mut());
        Ok(Forwarded::Tunnel { response, client, idle: target.timeout.websocket_idle })
    }

    /// Where the request goes.
    fn route<B>(&self, request: &mut Request<B>) -> Result<&Upstream, GatewayError> {
        let path = request.uri().path();
        if !path.starts_with("/v1/") {
            return Err(GatewayError::NotFound { path: path.to_owned() });
        }
        let named = headers::take_text(request.headers_mut(), &headers::X_PROVIDER);
        let name = named.as_deref().unwrap_or(&self.settings.default_provider);
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
        request: Request<()>,
        body: ClientBody,
        upstream: &Upstream,
        observer: &mut RequestObserver,
    ) -> Result<Request<RequestBody>, GatewayError> {
        let (mut parts, ()) = request.into_parts();
        let limit = self.settings.limits.of(parts.uri.path());
        let fallback = PathAndQuery::from_static("/");
        let path = parts.uri.path_and_query().unwrap_or(&fallback);
        parts.uri = upstream.path(path).map_err(|error| {
            debug!("no place at the provider for {path}: {error}");
            GatewayError::NotFound { path: path.to_string() }
        })?;
        self.settings.stripped.remove_from(&mut parts.headers);
        headers::authorize(&mut parts.headers, upstream.authorization());
        let body = self.body(body, limit, &parts.method, observer).await?;
        framing::set_request(&mut parts.headers, body.size_hint().exact());
        Ok(Request::from_parts(parts, body))
    }

    async fn body(
        &self,
        body: ClientBody,
        limit: u64,
        method: &Method,
        observer: &mut RequestObserver,
    ) -> Result<RequestBody, GatewayError> {
        let body_timeout = self.settings.limits.body_timeout;
        match body.size_hint().exact() {
            Some(length) if length > limit => Err(GatewayError::RequestTooLarge { limit }),
            Some(0) => Ok(RequestBody::Ready(None)),
            Some(length) if length <= READ_AHEAD => {
                let bytes = tokio::time::timeout(body_timeout, read(body, observer))
                    .await
                    .map_err(|_| GatewayError::RequestTimeout(body_timeout))??;
                Ok(RequestBody::from(bytes))
            }
            _ => {
                debug!(%method, "streaming a request body of unknown or large size");
                let tapped = Tapped::new(body, observer, limit, body_timeout);
                Ok(RequestBody::Passing(Box::new(tapped)))
            }
        }
    }
}

/// What became of a request that was passed on.
enum Forwarded {
    /// The provider's answer, what of its body came with it and how its end is known, the connection it comes over, and how
    /// long its body may be silent.
    Answer {
        response: Response<Incoming>,
        first: Option<Frame<Bytes>>,
        kind: Kind,
        lease: Option<Lease>,
        idle: Duration,
    },
    /// A WebSocket, the client's end of it, and how long both may be silent.
    Tunnel { response: Response<Incoming>, client: OnUpgrade, idle: Duration },
}

/// Notes the answer's head, and takes off what concerns the provider's connection only.
fn answered(response: &mut Response<Incoming>, target: &Target, observer: &mut RequestObserver) {
    observer.provider_answered(response.status().as_u16(), response.headers(), target.request_id_headers);
    headers::remove_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
}

/// The gateway's own answer, and the end of the request.
fn refuse(error: &GatewayError, mut observer: RequestObserver) -> Response<ResponseBody> {
    let body = error.body();
    // Who is gone has got no answer.
    if *error != GatewayError::ClientGone {
        observer.failed(error, body.len());
    }
    error.response(body)
}

/// Reads a body that is known to be small, as far as it comes; one frame, as is usual, is not copied.
async fn read(mut body: ClientBody, observer: &RequestObserver) -> Result<Bytes, GatewayError> {
    let tap = || observer.request.lock().unwrap_or_else(PoisonError::into_inner);
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|error| body::broken_request(&error))?.into_data() else { continue };
        tap().push(&bytes, observer.started.elapsed());
        if first.is_empty() {
            first = bytes;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&bytes);
        }
    }
    tap().complete();
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// What came of the body together with the head, without waiting for more. A body that is broken from its start is no
/// answer, as long as its status has not left.
fn first_frame(body: &mut Incoming, target: &Target) -> Result<Option<Frame<Bytes>>, GatewayError> {
    let Some(Some(frame)) = body.frame().now_or_never() else { return Ok(None) };
    frame.map(Some).map_err(|error| {
        let cause = plugin_api::causes(&error);
        tracing::warn!(provider = &*target.name, "the answer broke off at its start: {cause}");
        broken_answer(target, &error)
    })
}

const TOO_MANY_HEADERS: &str = "its head is too large, or has more header fields than server.max_headers";

/// Bytes came that are no answer, or none.
fn broken_answer(target: &Target, error: &hyper::Error) -> GatewayError {
    let provider = target.name.to_string();
    if error.is_parse_too_large() {
        GatewayError::UpstreamInvalid { provider, why: TOO_MANY_HEADERS }
    } else if error.is_parse() {
        GatewayError::UpstreamInvalid { provider, why: "its head is not valid HTTP" }
    } else if body::is_misframed(error) {
        GatewayError::UpstreamInvalid { provider, why: "its body is not validly framed" }
    } else {
        GatewayError::UpstreamBroken { provider }
    }
}

/// The cause goes to the log; the client learns what kind of failure it was.
fn failure(target: &Target, error: &SendError) -> GatewayError {
    let provider = target.name.to_string();
    let cause = plugin_api::causes(error);
    tracing::warn!(provider, "no answer from the provider: {cause}");
    match error {
        SendError::Connect(_) | SendError::ConnectTimeout(_) => GatewayError::ConnectFailed { provider },
        SendError::Broken(error) => broken_answer(target, error),
        SendError::FirstByte(after) => GatewayError::UpstreamTimeout { provider, after: *after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_files_are_uploaded_the_limit_for_files_holds() {
        let limits = Limits {
            max_request_bytes: 1,
            max_upload_bytes: 2,
            body_timeout: Duration::ZERO,
            max_headers: 100,
        };
        for path in ["/v1/files", "/v1/files/", "/v1/uploads/upload_1/parts"] {
            assert_eq!(limits.of(path), 2, "{path}");
        }
        for path in [
            "/v1/chat/completions",
            "/v1/files/file-1",
            "/v1/filesystem",
            "/v1/uploads",
            "/v1/uploads/upload_1",
            "/v1/uploads//parts",
            "/v1/uploads/a/b/parts",
            "/v1/uploads/a/complete",
            "/v1/audio/transcriptions",
        ] {
            assert_eq!(limits.of(path), 1, "{path}");
        }
    }
}
