//! The request path: route, pass on, pass back. It never waits for telemetry, and it touches bytes, not JSON.
//!
//! | module | what it is |
//! |---|---|
//! | `observer` | one request under way; its end makes the record |
//! | `body`, `capture` | bytes pass untouched, a bounded copy is kept |
//! | `upload` | what a client still sends, when the answer is there first |
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
mod upload;
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
    body::{Observed, RequestBody, Tapped},
    error::GatewayError,
    observer::RequestObserver,
    pool::{Lease, SendError},
    upload::{ClientBody, Upload},
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
    /// Of a body that is a file, or a part of one.
    pub max_upload_bytes: u64,
    pub body_timeout: Duration,
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
        request: Request<Incoming>,
        observer: &mut RequestObserver,
    ) -> Result<Forwarded, GatewayError> {
        let (mut request, body) = ClientBody::take(request);
        let upstream = self.route(&mut request)?;
        let target = &upstream.target;
        observer.provider = Some(target.name.clone());
        observer.dialect = target.dialect;
        let request = self.prepare(request, body, upstream, observer).await?;
        let upload = request.body().upload().cloned();
        observer.times.sent = Some(observer.started.elapsed());
        let (mut response, lease) = upstream.pool.send(request).await.map_err(|error| {
            upload.as_ref().and_then(Upload::take_fault).unwrap_or_else(|| failure(target, &error))
        })?;
        observer.provider_answered(response.status().as_u16(), response.headers(), target.request_id_headers);
        headers::remove_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(Forwarded { response, lease, idle: target.timeout.idle })
    }

    /// Where the request goes.
    fn route<B>(&self, request: &mut Request<B>) -> Result<&Upstream, GatewayError> {
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
        request: Request<()>,
        body: ClientBody,
        upstream: &Upstream,
        observer: &mut RequestObserver,
    ) -> Result<Request<RequestBody>, GatewayError> {
        let (mut parts, ()) = request.into_parts();
        let limit = self.limits.of(parts.uri.path());
        let fallback = PathAndQuery::from_static("/");
        let path = parts.uri.path_and_query().unwrap_or(&fallback);
        parts.uri = upstream.path(path).map_err(|error| {
            debug!("no place at the provider for {path}: {error}");
            GatewayError::NotFound { path: path.to_string() }
        })?;
        headers::remove_hop_by_hop(&mut parts.headers);
        headers::authorize(&mut parts.headers, upstream.authorization());
        let body = self.body(body, limit, &parts.method, observer).await?;
        Ok(Request::from_parts(parts, body))
    }

    async fn body(
        &self,
        body: ClientBody,
        limit: u64,
        method: &Method,
        observer: &mut RequestObserver,
    ) -> Result<RequestBody, GatewayError> {
        let body_timeout = self.limits.body_timeout;
        match body.size_hint().exact() {
            Some(length) if length > limit => Err(GatewayError::RequestTooLarge { limit }),
            Some(0) => Ok(RequestBody::Ready(None)),
            Some(length) if length <= READ_AHEAD => {
                let bytes = tokio::time::timeout(body_timeout, read(body))
                    .await
                    .map_err(|_| GatewayError::RequestTimeout(body_timeout))??;
                let mut tap = observer.request.lock().unwrap_or_else(PoisonError::into_inner);
                tap.push(&bytes, observer.started.elapsed());
                tap.complete();
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

/// The provider's answer, the connection it comes over, and how long its body may be silent.
struct Forwarded {
    response: Response<Incoming>,
    lease: Lease,
    idle: Duration,
}

/// Reads a body that is known to be small; one frame, as is usual, is not copied.
async fn read(mut body: ClientBody) -> Result<Bytes, GatewayError> {
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
        SendError::FirstByte(after) => GatewayError::UpstreamTimeout { provider, after: *after },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_files_are_uploaded_the_limit_for_files_holds() {
        let limits = Limits { max_request_bytes: 1, max_upload_bytes: 2, body_timeout: Duration::ZERO };
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
