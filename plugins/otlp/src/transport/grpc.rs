//! Unary gRPC calls over HTTP/2: one framed message each way, and the status in the trailers.
//!
//! A call is so little on top of `hyper` that this is all of it. What a general client would blur stays visible here: a
//! connection that broke off is tried again, and UNKNOWN that a receiver sent is not.

use std::{borrow::Cow, time::Duration};

use ::http::{
    HeaderMap, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use exporter_kit::{
    http::{Url, shown},
    tls::Tls,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::percent_decode_str;
use plugin_api::{ExportError, Host, InitError};

use super::{Refused, body, proxied::Proxied, refused, settings::Settings};
use crate::{
    answer::{self, Answers, Failure, Meaning, Taken},
    config::{Compression, Signal},
};

/// The client.
#[derive(Debug, Clone)]
pub(super) struct Grpc {
    client: Client<HttpsConnector<Proxied>, Full<Bytes>>,
    user_agent: String,
}

/// An idle connection is closed before the usual 60 s of load balancers are over.
const IDLE: Duration = Duration::from_secs(50);
/// An answer is a count and a message.
const LARGEST_ANSWER: usize = 1 << 20;
/// Flag and length before a message.
const PREFIX: usize = 5;

impl Grpc {
    pub(super) fn new(host: &Host, tls: &Tls) -> Result<Self, InitError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.client_config()?)
            .https_or_http()
            .enable_http2()
            .wrap_connector(Proxied::new(tcp));
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let user_agent = format!("magicapi-gateway/{}", host.gateway_version());
        Ok(Self { client, user_agent })
    }

    pub(super) async fn send(
        &self,
        settings: &Settings,
        signal: Signal,
        message: Vec<u8>,
        timeout: Duration,
    ) -> Result<Taken, Refused> {
        let url = method(&settings.endpoint, signal);
        let target = format!("gRPC {}", shown(&url));
        let broken =
            |error: &str| ExportError::retry(format!("{target}: {}", settings.redacted(error.to_owned())));
        let request = self.request(settings, &url, &message).map_err(|error| broken(&error.to_string()))?;
        drop(message);
        let reply = tokio::time::timeout(timeout, self.call(request)).await;
        let reply = reply
            .map_err(|_| broken(&format!("no answer within {}", humantime::format_duration(timeout))))?;
        let reply = reply.map_err(|error| broken(&error.to_string()))?;
        reply.outcome(settings.answers).map_err(|refusal| match refusal {
            Refusal::Broken(why) => broken(why).into(),
            Refusal::Answered { meaning, failure, status } => {
                let colon = if failure.message.is_empty() { "" } else { ": " };
                let message = settings.redacted(failure.message.clone());
                refused(meaning, format!("{target} answered {status}{colon}{message}"), &failure)
            }
        })
    }

    fn request(
        &self,
        settings: &Settings,
        url: &Url,
        message: &[u8],
    ) -> Result<Request<Full<Bytes>>, ::http::Error> {
        let mut request = Request::post(Uri::try_from(url.as_str())?)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, &self.user_agent)
            .header("grpc-accept-encoding", "identity");
        if let Some(encoding) = body::encoding(settings.compression) {
            request = request.header("grpc-encoding", encoding);
        }
        for (name, value) in &settings.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(framed(message, settings.compression).into()))
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Reply, ExportError> {
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| ExportError::retry(format!("the answer broke off: {error}")))?;
        let trailers = body.trailers().cloned();
        Ok(Reply { head: Response::from_parts(head, ()), trailers, body: body.to_bytes() })
    }
}

/// The address of a signal's method.
fn method(endpoint: &Url, signal: Signal) -> Url {
    let service = match signal {
        Signal::Logs => "opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Traces => "opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    };
    exporter_kit::http::join(endpoint, service)
}

/// A message with the flag for compression and its length before it.
fn framed(message: &[u8], compression: Compression) -> Vec<u8> {
    let is_compressed = compression != Compression::None;
    let mut frame = body::append(vec![u8::from(is_compressed), 0, 0, 0, 0], message, compression);
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame
}

/// A whole answer.
#[derive(Debug)]
struct Reply {
    head: Response<()>,
    trailers: Option<HeaderMap>,
    body: Bytes,
}

/// Why a request was not taken.
#[derive(Debug)]
enum Refusal {
    /// There is no whole answer.
    Broken(&'static str),
    /// The answer says so.
    Answered {
        meaning: Meaning,
        failure: Failure,
        /// In words.
        status: Cow<'static, str>,
    },
}

impl Reply {
    fn outcome(&self, answers: Answers) -> Result<Taken, Refusal> {
        let metadata = [self.trailers.as_ref(), Some(self.head.headers())];
        let find = |name: &str| metadata.iter().flatten().find_map(|map| map.get(name)?.to_str().ok());
        let Some(code) = find("grpc-status") else {
            return Err(match self.head.status() {
                StatusCode::OK => Refusal::Broken("the answer broke off before its status"),
                status => not_grpc(answers, status, &self.body),
            });
        };
        let code = code.parse().unwrap_or(u32::MAX);
        if code == 0 {
            return Ok(self.body.get(PREFIX..).map(Taken::read).unwrap_or_default());
        }
        let details = find("grpc-status-details-bin").and_then(from_base64);
        let mut failure = details.and_then(|status| Failure::read(&status)).unwrap_or_default();
        if let Some(message) = find("grpc-message") {
            failure.message = answer::one_line(&percent_decode_str(message).decode_utf8_lossy());
        }
        let meaning = answers.grpc(code, &failure);
        Err(Refusal::Answered { meaning, failure, status: answer::grpc_name(code).into() })
    }
}

/// A proxy's answer, say.
fn not_grpc(answers: Answers, status: StatusCode, body: &[u8]) -> Refusal {
    let message = answer::one_line(&String::from_utf8_lossy(body));
    let meaning = answers.http(status.as_u16(), &message);
    let words = format!("HTTP status {status} without a gRPC status (is this a gRPC endpoint?)");
    Refusal::Answered { meaning, failure: Failure { message, retry_after: None }, status: words.into() }
}

/// Binary metadata: some senders pad it, others do not.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::STANDARD, config).decode(text).ok()
}
