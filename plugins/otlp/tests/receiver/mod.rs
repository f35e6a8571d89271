//! A receiver of OTLP over HTTP and gRPC on one port, which reads with the reference's types and fails on command.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::pending,
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use exporter_testkit::conformance::{Behaviour, Fate, Script};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs},
    metrics::v1::{Metric, ResourceMetrics},
    trace::v1::{ResourceSpans, Span},
};
use otlp_exporter::config::Signal;
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime};

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An HTTP answer with these headers and this body.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A gRPC status with its message and `google.rpc.Status` in binary.
    Grpc(u32, &'static str, Option<Vec<u8>>),
    /// The request is taken, with a partial success.
    Partial(i64, &'static str),
    /// No answer.
    Hang,
    /// The request is taken, and the answer breaks off.
    Cut,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    /// Bytes of the message, uncompressed.
    pub size: usize,
    /// Ids of its records; of metrics none.
    pub ids: Vec<String>,
}

#[derive(Debug, Default)]
pub struct State {
    behaviour: Behaviour,
    /// A mind for each signal: what is put off as a log is not for that reason taken as a span.
    scripts: HashMap<Signal, Script>,
    /// The signals that it knows; all by default.
    pub known: Option<Vec<Signal>>,
    pub faults: HashMap<Signal, VecDeque<Fault>>,
    pub requests: Vec<Received>,
    pub logs: Vec<ResourceLogs>,
    pub spans: Vec<ResourceSpans>,
    pub metrics: Vec<ResourceMetrics>,
}

/// The receiver. It ends when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

impl Receiver {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// With TLS where there is a configuration.
    pub fn start_with(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (state, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // An error here is the client's to tell, or what a test wants.
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(server.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.state.lock().unwrap())
    }

    /// The next request of that signal meets this fault; after those planned before.
    pub fn fail_next(&self, signal: Signal, fault: Fault) {
        self.with(|state| state.faults.entry(signal).or_default().push_back(fault));
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.with(|state| state.behaviour = behaviour);
    }

    pub fn requests(&self, signal: Signal) -> Vec<Received> {
        let all = self.with(|state| state.requests.clone());
        all.into_iter().filter(|request| signal_of(&request.path) == signal && request.size > 0).collect()
    }

    pub fn log_records(&self) -> Vec<LogRecord> {
        let logs = self.with(|state| state.logs.clone());
        logs.into_iter().flat_map(|logs| logs.scope_logs).flat_map(|scope| scope.log_records).collect()
    }

    pub fn spans(&self) -> Vec<Span> {
        let spans = self.with(|state| state.spans.clone());
        spans.into_iter().flat_map(|spans| spans.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    pub fn metrics(&self) -> Vec<Metric> {
        let metrics = self.with(|state| state.metrics.clone());
        metrics
            .into_iter()
            .flat_map(|metrics| metrics.scope_metrics)
            .flat_map(|scope| scope.metrics)
            .collect()
    }

    /// One for each copy.
    pub fn log_ids(&self) -> Vec<String> {
        self.log_records().iter().map(|log| id(&log.attributes)).collect()
    }

    pub fn span_ids(&self) -> Vec<String> {
        self.spans().iter().map(|span| id(&span.attributes)).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// The text of an attribute.
pub fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == name)?;
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        other => panic!("{name} is {other:?}"),
    }
}

fn id(attributes: &[KeyValue]) -> String {
    text(attributes, "magicapi.record.id").unwrap()
}

fn signal_of(path: &str) -> Signal {
    match path {
        path if path.ends_with("/v1/logs") || path.contains("LogsService") => Signal::Logs,
        path if path.ends_with("/v1/traces") || path.contains("TraceService") => Signal::Traces,
        path if path.ends_with("/v1/metrics") || path.contains("MetricsService") => Signal::Metrics,
        path => panic!("a request to {path}"),
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return pending().await };
    let path = head.uri.path().to_owned();
    let is_grpc = head.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
    let message = if is_grpc {
        unframed(&head.headers, &body.to_bytes())
    } else {
        plain(&head.headers, &body.to_bytes())
    };
    let said = state.lock().unwrap().take(&path, head.headers, &message);
    let (rejected, message, is_cut) = match said {
        None => (0, "", false),
        Some(Fault::Partial(rejected, message)) => (rejected, message, false),
        Some(Fault::Cut) => (0, "", true),
        Some(Fault::Hang) => pending().await,
        Some(Fault::Http(status, headers, body)) => {
            let headers =
                headers.into_iter().fold(Response::builder().status(status), |builder, (name, value)| {
                    builder.header(name, value)
                });
            return Ok(headers.body(whole(body)).unwrap());
        }
        Some(Fault::Grpc(code, message, details)) => return Ok(grpc_failure(code, message, details)),
    };
    let error_message = message.to_owned();
    let partial = ExportLogsPartialSuccess { rejected_log_records: rejected, error_message };
    let partial_success = (rejected != 0 || !message.is_empty()).then_some(partial);
    let answer = ExportLogsServiceResponse { partial_success }.encode_to_vec();
    Ok(if is_grpc { grpc_success(&answer, is_cut) } else { http_success(answer, is_cut) })
}

impl State {
    fn take(&mut self, path: &str, headers: HeaderMap, message: &[u8]) -> Option<Fault> {
        let signal = signal_of(path);
        let (mut logs, mut spans, mut metrics) = (Vec::new(), Vec::new(), Vec::new());
        match signal {
            Signal::Logs => logs = ExportLogsServiceRequest::decode(message).unwrap().resource_logs,
            Signal::Traces => spans = ExportTraceServiceRequest::decode(message).unwrap().resource_spans,
            Signal::Metrics => {
                metrics = ExportMetricsServiceRequest::decode(message).unwrap().resource_metrics;
            }
        }
        let of_logs = logs.iter().flat_map(|logs| &logs.scope_logs).flat_map(|scope| &scope.log_records);
        let of_spans = spans.iter().flat_map(|spans| &spans.scope_spans).flat_map(|scope| &scope.spans);
        let ids: Vec<String> =
            of_logs.map(|log| id(&log.attributes)).chain(of_spans.map(|span| id(&span.attributes))).collect();
        let is_probe = message.is_empty();
        if self.known.as_ref().is_some_and(|known| !known.contains(&signal)) {
            // A probe is no request of a record's.
            let is_grpc = path.contains("Service/");
            if !is_probe {
                self.requests.push(Received { path: path.to_owned(), headers, size: message.len(), ids });
            }
            return Some(if is_grpc {
                Fault::Grpc(12, "unknown", None)
            } else {
                Fault::Http(405, vec![], vec![])
            });
        }
        self.requests.push(Received {
            path: path.to_owned(),
            headers,
            size: message.len(),
            ids: ids.clone(),
        });
        let fault = if is_probe { None } else { self.faults.entry(signal).or_default().pop_front() };
        let script = self.scripts.entry(signal).or_default();
        script.behave(self.behaviour);
        let fates: Vec<Fate> = ids.iter().map(|id| script.decide(id)).collect();
        let refusal = if is_probe { None } else { self.refusal(path.contains("Service/"), &fates) };
        let fault = fault.or(refusal);
        if matches!(fault, None | Some(Fault::Partial(..) | Fault::Cut)) {
            self.logs.extend(logs);
            self.spans.extend(spans);
            self.metrics.extend(metrics);
        }
        fault
    }

    /// By what the script says of the whole, and of its records.
    fn refusal(&self, is_grpc: bool, fates: &[Fate]) -> Option<Fault> {
        let pause = Behaviour::PAUSE.as_secs();
        let http = |status, headers, text: &str| Fault::Http(status, headers, text.as_bytes().to_vec());
        let worst = [Fate::Stall, Fate::Retry, Fate::Refuse].into_iter().find(|fate| fates.contains(fate));
        Some(match (self.behaviour, worst, is_grpc) {
            (Behaviour::NotFound, _, true) => Fault::Grpc(12, "no such service", None),
            (Behaviour::NotFound, _, false) => http(404, Vec::new(), "no such page"),
            (Behaviour::Throttle, _, true) => {
                let details = rpc_status("slow down", Some(u8::try_from(pause).unwrap()));
                Fault::Grpc(8, "slow down", Some(details))
            }
            (Behaviour::Throttle, _, false) => {
                http(429, vec![("retry-after", pause.to_string())], "slow down")
            }
            (_, Some(Fate::Stall), _) => Fault::Hang,
            (_, Some(Fate::Retry), true) => Fault::Grpc(14, "busy", None),
            (_, Some(Fate::Retry), false) => http(503, Vec::new(), "busy"),
            (_, Some(Fate::Refuse), true) => Fault::Grpc(3, "bad record", None),
            (_, Some(Fate::Refuse), false) => http(400, Vec::new(), "bad record"),
            (_, Some(Fate::Take) | None, _) => return None,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A `google.rpc.Status`, with a `RetryInfo` of so many seconds where one is wanted.
pub fn rpc_status(message: &str, seconds: Option<u8>) -> Vec<u8> {
    // RetryInfo { retry_delay: Duration { seconds } }
    let info = seconds.map(|seconds| Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
        value: vec![0x0a, 2, 8, seconds],
    });
    RpcStatus { code: 8, message: message.into(), details: info.into_iter().collect() }.encode_to_vec()
}

fn plain(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    match headers.get("content-encoding").map(|encoding| encoding.to_str().unwrap()) {
        None => body.to_vec(),
        Some("gzip") => gunzip(body),
        Some("zstd") => zstd::decode_all(body).unwrap(),
        Some(other) => panic!("encoding {other}"),
    }
}

fn unframed(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    assert_eq!(headers["te"], "trailers");
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!(body.len(), 5 + length, "one message");
    match body[0] {
        0 => body[5..].to_vec(),
        1 => match headers["grpc-encoding"].to_str().unwrap() {
            "zstd" => zstd::decode_all(&body[5..]).unwrap(),
            encoding => {
                assert_eq!(encoding, "gzip");
                gunzip(&body[5..])
            }
        },
        flag => panic!("flag {flag}"),
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn whole(body: Vec<u8>) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()
}

/// These frames, and then a connection that breaks off where one is an error.
fn frames(frames: Vec<Result<Frame<Bytes>, std::io::Error>>) -> Body {
    struct Frames(VecDeque<Result<Frame<Bytes>, std::io::Error>>);
    impl hyper::body::Body for Frames {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            std::task::Poll::Ready(self.0.pop_front())
        }
    }
    Frames(frames.into()).boxed()
}

fn broken() -> Result<Frame<Bytes>, std::io::Error> {
    Err(std::io::Error::other("cut"))
}

fn http_success(answer: Vec<u8>, is_cut: bool) -> Response<Body> {
    let builder = Response::builder().header("content-type", "application/x-protobuf");
    let body = if is_cut {
        frames(vec![Ok(Frame::data(Bytes::from_static(b"\n"))), broken()])
    } else {
        whole(answer)
    };
    builder.body(body).unwrap()
}

fn grpc_success(answer: &[u8], is_cut: bool) -> Response<Body> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(answer.len()).unwrap().to_be_bytes());
    framed.extend(answer);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let end = if is_cut { broken() } else { Ok(Frame::trailers(trailers)) };
    let body = frames(vec![Ok(Frame::data(framed.into())), end]);
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn grpc_failure(code: u32, message: &str, details: Option<Vec<u8>>) -> Response<Body> {
    use base64::Engine as _;
    let mut builder = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", message);
    if let Some(details) = details {
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
        builder = builder.header("grpc-status-details-bin", text);
    }
    builder.body(whole(Vec::new())).unwrap()
}
