//! WebSockets pass through, between a real client and a real server, and each makes one record at its end.

use std::{sync::Arc, time::Duration};

use end_to_end::{Gateway, RawProvider, Running, wait_for, within};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server that sends every message back. "break" makes it reset the connection.
struct Echo {
    url: String,
    heads: mpsc::UnboundedReceiver<Request>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        Self::open(None).await
    }

    async fn open(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (sender, heads) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &acceptor {
                    None => drop(tokio::spawn(serve(stream, sender.clone()))),
                    Some(acceptor) => {
                        let stream = acceptor.accept(stream).await.unwrap();
                        tokio::spawn(serve(stream, sender.clone()));
                    }
                }
            }
        });
        Self { url, heads, task }
    }
}

/// What resets a connection rather than closing it.
trait Reset {
    fn reset(&self);
}

impl Reset for TcpStream {
    fn reset(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl Reset for TlsStream<TcpStream> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S>(stream: S, heads: mpsc::UnboundedSender<Request>)
where
    S: AsyncRead + AsyncWrite + Reset + Unpin,
{
    // The type of the callback is the library's.
    #[allow(clippy::result_large_err)]
    let accept = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        heads.send(request.clone()).unwrap();
        if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
        }
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, accept).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message == Message::text("break") {
            socket.get_ref().reset();
            return;
        }
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn open(gateway: &Running) -> Client {
    let url = format!("{}/v1/realtime?model=m", gateway.url.replace("http:", "ws:"));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "realtime".parse().unwrap());
    request.headers_mut().insert("x-thread-id", "thread_29".parse().unwrap());
    let (client, response) = within("the handshake", connect_async(request)).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "realtime");
    assert!(response.headers().contains_key("x-request-id"));
    client
}

async fn say(client: &mut Client, message: Message) {
    client.send(message.clone()).await.unwrap();
    assert_eq!(within("an echo", client.next()).await.unwrap().unwrap(), message);
}

fn metadata(record: &Value) -> &Value {
    &record["attributes"]["metadata"]
}

async fn gateway(provider: &str, server: &str) -> Running {
    let keys = "api_key = \"of-the-operator\"\ntimeout = { websocket_idle = \"10s\" }";
    let gateway = Gateway::new().provider_with("openai", provider, keys).file_exporter();
    gateway.server(server).start().await
}

#[tokio::test]
async fn a_session_passes_both_ways_and_makes_one_record() {
    let mut provider = Echo::start().await;
    let gateway = gateway(&provider.url, "").await;
    let mut client = open(&gateway).await;
    say(&mut client, Message::text("hello")).await;
    say(&mut client, Message::binary(vec![7; 300_000])).await;
    assert_eq!(gateway.metric("magicapi_gateway_open_connections", &[]).await, 1.0, "it keeps its place");
    assert_eq!(gateway.metric("magicapi_gateway_open_requests", &[]).await, 1.0);
    assert_eq!(gateway.records().len(), 0);
    client.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the closing handshake", client.next()).await {}

    let head = provider.heads.recv().await.unwrap();
    assert_eq!(head.uri(), "/v1/realtime?model=m");
    assert_eq!(head.headers()["authorization"], "Bearer of-the-operator");
    assert!(head.headers().contains_key("traceparent") && !head.headers().contains_key("x-thread-id"));
    let record = gateway.record().await;
    assert_eq!(record["attributes"]["thread_id"], "thread_29", "{record}");
    let metadata = metadata(&record);
    assert_eq!(metadata["path"], "/v1/realtime", "{metadata}");
    assert_eq!((&metadata["end_reason"], &metadata["status_code"]), (&"complete".into(), &101.into()));
    for (key, least) in [("request_size", 300_005), ("response_size", 300_005)] {
        let size = metadata[key].as_u64().unwrap();
        assert!((least..least + 200).contains(&size), "{key}: {size}");
    }
    wait_for("its place to be free", || async {
        (gateway.metric("magicapi_gateway_open_connections", &[]).await == 0.0).then_some(())
    })
    .await;
}

/// A provider that would rather speak HTTP/2, which has no upgrades, is spoken to in HTTP/1.1.
#[tokio::test]
async fn a_session_behind_tls_passes_where_requests_would_go_over_http2() {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let provider = Echo::open(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, pair.cert.pem()).unwrap();
    let keys = format!("http2 = \"auto\"\nca_file = \"{}\"", ca_file.display());
    let gateway = Gateway::new().provider_with("openai", &provider.url, &keys).file_exporter().start().await;
    let mut client = open(&gateway).await;
    say(&mut client, Message::text("hello")).await;
    drop(client);
    assert_eq!(metadata(&gateway.record().await)["status_code"], 101);
}

#[tokio::test]
async fn an_upgrade_that_the_provider_refuses_is_an_answer_like_any_other() {
    let body = "{\"error\":{\"type\":\"auth\"}}".repeat(4000);
    let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n", body.len());
    let provider = RawProvider::of(format!("{head}content-type: application/json\r\n\r\n{body}")).await;
    let gateway = gateway(&provider.url(), "").await;
    let url = format!("{}/v1/realtime", gateway.url.replace("http:", "ws:"));
    let Err(tungstenite::Error::Http(answer)) = connect_async(url).await else { panic!("it was opened") };
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["content-length"], body.len().to_string().as_str());
    let request = provider.requests().remove(0);
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert!(request.header("sec-websocket-key").is_some());
    let record = gateway.record().await;
    assert_eq!(metadata(&record)["status_code"], 401, "{record}");
    // The client hangs up when it has read the status.
    let end = metadata(&record)["end_reason"].as_str().unwrap();
    assert!(matches!(end, "complete" | "client_disconnect"), "{end}");
}

#[tokio::test]
async fn a_page_of_elsewhere_opens_no_session_with_the_operators_key() {
    let provider = Echo::start().await;
    let gateway = gateway(&provider.url, "cors.allowed_origins = [\"https://app.example\"]").await;
    let own = gateway.url.clone();
    for (origin, status) in
        [("https://evil.example", 403), ("null", 403), (&own, 403), ("https://app.example", 101)]
    {
        let mut request =
            format!("{}/v1/realtime", own.replace("http:", "ws:")).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let seen = match connect_async(request).await {
            Ok((_, response)) => response.status(),
            Err(tungstenite::Error::Http(answer)) => answer.status(),
            Err(error) => panic!("{origin}: {error}"),
        };
        assert_eq!(seen, status, "{origin}");
    }
    let records = gateway.wait_for_records(4).await;
    assert_eq!(metadata(&records[0])["error_type"], "origin_refused", "{}", records[0]);
}

#[tokio::test]
async fn a_session_in_which_nobody_speaks_is_ended() {
    let provider = Echo::start().await;
    let keys = "timeout = { websocket_idle = \"300ms\" }";
    let gateway = Gateway::new().provider_with("openai", &provider.url, keys).file_exporter().start().await;
    let mut client = open(&gateway).await;
    say(&mut client, Message::text("hello")).await;
    assert!(!matches!(within("its end", client.next()).await, Some(Ok(_))));
    let record = gateway.record().await;
    assert_eq!(metadata(&record)["end_reason"], "timeout", "{record}");
    assert!(metadata(&record)["request_size"].as_u64().unwrap() > 5);
}

#[tokio::test]
async fn who_broke_a_session_off_is_recorded() {
    let provider = Echo::start().await;
    let gateway = gateway(&provider.url, "").await;
    let mut client = open(&gateway).await;
    client.send(Message::text("break")).await.unwrap();
    assert!(!matches!(within("its end", client.next()).await, Some(Ok(_))));
    assert_eq!(metadata(&gateway.record().await)["end_reason"], "provider_error");

    let mut client = open(&gateway).await;
    say(&mut client, Message::text("hello")).await;
    let MaybeTlsStream::Plain(stream) = client.get_ref() else { panic!("there is no TLS") };
    stream.set_zero_linger().unwrap();
    drop(client);
    let records = gateway.wait_for_records(2).await;
    assert_eq!(metadata(&records[1])["end_reason"], "client_disconnect");
}

#[tokio::test]
async fn a_session_has_the_grace_of_every_request_and_is_cut_after_it() {
    let provider = Echo::start().await;
    let mut gateway = gateway(&provider.url, "shutdown_grace = \"1s\"").await;
    let mut client = open(&gateway).await;
    say(&mut client, Message::text("before")).await;
    gateway.signal(Signal::TERM);
    wait_for("the stop", || async { gateway.log().contains("stopping").then_some(()) }).await;
    say(&mut client, Message::text("within the grace")).await;
    let cut = tokio::time::timeout(Duration::from_secs(20), client.next()).await.unwrap();
    assert!(!matches!(cut, Some(Ok(_))), "{cut:?}");
    assert_eq!(gateway.exit_code().await, Some(0));
    let record = gateway.record().await;
    assert_eq!(metadata(&record)["end_reason"], "gateway_error", "{record}");
    assert!(metadata(&record)["request_size"].as_u64().unwrap() > 20, "{record}");
}
