//! One request under way. Dropping it, at whatever point, hands it over to the recorder: exactly one record for every
//! request, by construction.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use http::{HeaderMap, Method, Request};
use plugin_api::EndReason;
use uuid::Uuid;

use super::{
    capture::{Capture, CaptureSettings},
    error::GatewayError,
    headers, trace,
};
use crate::{
    clock,
    places::Place,
    recorder::{
        self, Exchange, Identity, Intake, MAX_ID_BYTES, MAX_PATH_BYTES, Times, Trace, dialect::Dialect,
    },
    settings::Secret,
};

/// The request's copy, shared with the body that streams to the provider.
pub(super) type RequestTap = Arc<Mutex<Capture>>;

#[derive(Debug)]
pub(super) struct RequestObserver {
    pub id: Uuid,
    pub started: Instant,
    pub request: RequestTap,
    pub response: Capture,
    pub times: Times,
    pub provider: Option<Arc<str>>,
    pub dialect: Dialect,
    /// Until something else is known, the client has gone away: that is what it means when an observer is dropped
    /// half-way.
    pub end: EndReason,
    wall: SystemTime,
    identity: Identity,
    trace: Trace,
    method: Method,
    path: String,
    response_complete: bool,
    status_code: Option<u16>,
    provider_status_code: Option<u16>,
    provider_request_id: Option<String>,
    error: Option<&'static str>,
    credential: Option<Secret>,
    /// Its place among `server.max_requests`.
    pub place: Option<Place>,
    intake: Intake,
}

impl RequestObserver {
    /// Starts the clock, and takes the telemetry headers off the request. What the client meant for its own connection
    /// only must be off it by now: the gateway's span is not the client's to take off.
    pub(super) fn start<B>(request: &mut Request<B>, capture: &CaptureSettings, intake: &Intake) -> Self {
        let (started, wall) = (Instant::now(), clock::now());
        let trace = trace::join(request.headers_mut());
        let identity = headers::take_identity(request.headers_mut());
        let credential = headers::credential(request.headers());
        let mut copy = Capture::new(capture);
        copy.describe(request.headers());
        Self {
            id: clock::id(wall),
            started,
            request: Arc::new(Mutex::new(copy)),
            response: Capture::new(capture),
            times: Times::default(),
            provider: None,
            dialect: Dialect::default(),
            end: EndReason::ClientDisconnect,
            wall,
            identity,
            trace,
            method: method(request.method()),
            path: recorder::cut(request.uri().path(), MAX_PATH_BYTES).to_owned(),
            response_complete: false,
            status_code: None,
            provider_status_code: None,
            provider_request_id: None,
            error: None,
            credential,
            place: None,
            intake: intake.clone(),
        }
    }

    /// The gateway answers itself, with a body of that size.
    pub(super) fn failed(&mut self, error: &GatewayError, body: usize) {
        self.end = error.end_reason();
        self.error = Some(error.code());
        self.status_code = Some(error.status().as_u16());
        self.response.count(body as u64);
    }

    pub(super) fn provider_answered(
        &mut self,
        status: u16,
        headers: &HeaderMap,
        id_headers: &[&'static str],
    ) {
        self.times.provider_headers = Some(self.started.elapsed());
        self.provider_status_code = Some(status);
        self.status_code = Some(status);
        self.provider_request_id = id_headers
            .iter()
            .find_map(|name| headers.get(*name))
            .map(|value| recorder::text(value.as_bytes(), MAX_ID_BYTES));
        self.response.describe_answer(headers);
    }

    /// The answer passed to its last byte.
    pub(super) fn completed(&mut self) {
        self.end = EndReason::Complete;
        self.response_complete = true;
    }

    /// Bytes that passed through a tunnel. They are counted and not kept.
    pub(super) fn tunnelled(&mut self, from_client: u64, from_provider: u64) {
        let mut request = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        request.count(from_client);
        if self.response_complete {
            request.complete();
        }
        drop(request);
        self.response.count(from_provider);
    }

    pub(super) fn broke(&mut self, end: EndReason, error: &'static str) {
        self.end = end;
        self.error = Some(error);
    }
}

/// A method of one's own invention may be as long as all headers together.
fn method(method: &Method) -> Method {
    Method::from_bytes(recorder::cut(method.as_str(), MAX_ID_BYTES).as_bytes()).unwrap_or_default()
}

impl Drop for RequestObserver {
    fn drop(&mut self) {
        self.times.total = self.started.elapsed();
        let request = self.request.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut response = self.response.take();
        response.complete = self.response_complete;
        let exchange = Exchange {
            id: self.id,
            started: self.wall,
            identity: mem::take(&mut self.identity),
            trace: self.trace,
            provider: self.provider.take(),
            dialect: self.dialect,
            method: mem::take(&mut self.method),
            path: mem::take(&mut self.path),
            times: self.times,
            request,
            response,
            status_code: self.status_code,
            provider_status_code: self.provider_status_code,
            provider_request_id: self.provider_request_id.take(),
            end: self.end.clone(),
            error: self.error,
            credential: self.credential.take(),
        };
        self.intake.hand_over(exchange);
    }
}
