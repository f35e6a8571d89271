//! Large bodies from clients: what passes, what is refused, and that the client sees the refusal and no reset.

use std::convert::Infallible;

use bytes::Bytes;
use end_to_end::{Gateway, Provider, Running, within};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const CHAT: &str = "/v1/chat/completions";

/// A client that sends first and reads later, as many do.
pub(crate) struct Upload {
    stream: TcpStream,
    is_chunked: bool,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) body: String,
}

impl Upload {
    /// A body of a length that is announced.
    pub(crate) async fn begin(gateway: &Running, path: &str, length: usize) -> Self {
        Self::begin_with(gateway, path, &format!("content-length: {length}")).await
    }

    /// A body of unknown length.
    pub(crate) async fn begin_chunked(gateway: &Running, path: &str) -> Self {
        Self::begin_with(gateway, path, "transfer-encoding: chunked").await
    }

    pub(crate) async fn begin_with(gateway: &Running, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream, is_chunked: headers.contains("chunked") }
    }

    /// Sends so much of the body; a reset fails the test.
    pub(crate) async fn send(&mut self, length: usize) {
        within("the upload", self.try_send(length)).await.unwrap();
    }

    async fn try_send(&mut self, mut length: usize) -> io::Result<()> {
        let piece = [b'x'; 64 * KIB];
        while length > 0 {
            let now = length.min(piece.len());
            if self.is_chunked {
                self.stream.write_all(format!("{now:x}\r\n").as_bytes()).await?;
            }
            self.stream.write_all(&piece[..now]).await?;
            if self.is_chunked {
                self.stream.write_all(b"\r\n").await?;
            }
            length -= now;
        }
        Ok(())
    }

    pub(crate) async fn end(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").await.unwrap();
    }

    /// The whole answer.
    pub(crate) async fn answer(&mut self) -> Head {
        within("the answer", self.read()).await
    }

    async fn read(&mut self) -> Head {
        let mut bytes = Vec::new();
        loop {
            assert_ne!(self.stream.read_buf(&mut bytes).await.unwrap(), 0, "cut off after {bytes:?}");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let is_whole = length.map_or_else(
                || body.ends_with("0\r\n\r\n"),
                |length| body.len() >= length.parse::<usize>().unwrap(),
            );
            if is_whole {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Head { status, text: head.to_owned(), body: body.to_owned() };
            }
        }
    }

    /// Whether the gateway has closed the connection in order.
    pub(crate) async fn is_closed(&mut self) -> bool {
        within("the end of the connection", self.stream.read(&mut [0; 1])).await.is_ok_and(|read| read == 0)
    }
}

/// A provider that says how many bytes of a body came.
async fn counting_provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(count)));
        }
    });
    url
}

async fn count(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut count = 0;
    while let Some(Ok(frame)) = request.body_mut().frame().await {
        count += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(Response::new(Full::from(count.to_string())))
}

async fn gateway(server: &str) -> Running {
    Gateway::new().provider("demo", &counting_provider().await).server(server).file_exporter().start().await
}

async fn assert_passes(gateway: &Running, path: &str, length: usize) {
    let mut upload = Upload::begin(gateway, path, length).await;
    upload.send(length).await;
    let answer = upload.answer().await;
    assert_eq!((answer.status, answer.body), (200, length.to_string()), "{path}");
}

/// The client sends everything before it reads.
async fn assert_is_too_large(gateway: &Running, path: &str, length: usize) {
    let mut upload = Upload::begin(gateway, path, length).await;
    upload.send(length).await;
    let answer = upload.answer().await;
    assert_eq!(answer.status, 413, "{path}: {answer:?}");
    assert!(answer.body.contains("request_too_large"), "{answer:?}");
    assert!(upload.is_closed().await);
}

#[tokio::test]
async fn a_body_up_to_the_limit_passes_and_a_larger_one_is_seen_to_be_refused() {
    let gateway = gateway("max_request_bytes = \"1 MiB\"").await;
    for length in [MIB - 1, MIB] {
        assert_passes(&gateway, CHAT, length).await;
    }
    for length in [MIB + 1, 10 * MIB, 100 * MIB] {
        assert_is_too_large(&gateway, CHAT, length).await;
    }
    for length in [MIB + 1, 10 * MIB, 100 * MIB] {
        let mut upload = Upload::begin_chunked(&gateway, CHAT).await;
        upload.send(length).await;
        upload.end().await;
        let answer = upload.answer().await;
        assert_eq!(answer.status, 413, "{answer:?}");
    }
}

#[tokio::test]
async fn by_default_the_largest_audio_file_passes() {
    let gateway = gateway("").await;
    for length in [25_000_000, 26 * MIB, 32 * MIB] {
        assert_passes(&gateway, "/v1/audio/transcriptions", length).await;
    }
    assert_is_too_large(&gateway, "/v1/audio/transcriptions", 32 * MIB + 1).await;
    assert_is_too_large(&gateway, "/v1/files", 32 * MIB + 1).await;
}

#[tokio::test]
async fn files_have_a_limit_of_their_own_when_the_operator_gives_one() {
    let gateway = gateway("max_request_bytes = \"1 MiB\"\nmax_upload_bytes = \"512 MiB\"").await;
    for path in ["/v1/files", "/v1/uploads/upload_1/parts"] {
        assert_passes(&gateway, path, 64 * MIB).await;
    }
    assert_passes(&gateway, "/v1/files", 512 * MIB).await;
    let mut upload = Upload::begin(&gateway, "/v1/files", 512 * MIB + 1).await;
    assert_eq!(upload.answer().await.status, 413);
    assert_is_too_large(&gateway, CHAT, MIB + 1).await;
}

#[tokio::test]
async fn every_answer_of_the_gateways_own_is_seen_by_a_client_that_is_still_sending() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}", socket.local_addr().unwrap());
    let gateway = Gateway::new().provider("demo", &nobody).file_exporter().start().await;
    let length = 20 * MIB;
    for (path, header, status) in
        [("/nowhere", "", 404), (CHAT, "\r\nx-provider: nobody", 400), (CHAT, "", 502)]
    {
        let headers = format!("content-length: {length}{header}");
        let mut upload = Upload::begin_with(&gateway, path, &headers).await;
        upload.send(length).await;
        let answer = upload.answer().await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_told_to_send_what_is_refused() {
    let gateway = gateway("max_request_bytes = \"1 MiB\"").await;
    let ask = |length: usize| format!("content-length: {length}\r\nexpect: 100-continue");
    let mut upload = Upload::begin_with(&gateway, CHAT, &ask(MIB + 1)).await;
    let answer = upload.answer().await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(upload.is_closed().await);
    let mut upload = Upload::begin_with(&gateway, CHAT, &ask(MIB)).await;
    let mut told = [0; 25];
    within("the 100", upload.stream.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    upload.send(MIB).await;
    assert_eq!(upload.answer().await.status, 200);
}

/// A client that never ends is not read for ever.
#[tokio::test]
async fn a_refused_upload_that_pauses_is_cut() {
    let gateway = gateway("max_request_bytes = \"1 MiB\"").await;
    let mut upload = Upload::begin(&gateway, CHAT, 10 * MIB).await;
    upload.send(2 * MIB).await;
    assert_eq!(upload.answer().await.status, 413);
    let started = std::time::Instant::now();
    let _ = within("the cut", upload.stream.read(&mut [0; 1])).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(15), "{:?}", started.elapsed());
}

/// The answer does not wait for the upload, and the connection can be used again when both are over.
#[tokio::test]
async fn after_an_early_answer_the_rest_of_the_upload_is_read_and_the_connection_goes_on() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let mut upload = Upload::begin(&gateway, "/nowhere", 10 * MIB).await;
    assert_eq!(upload.answer().await.status, 404);
    upload.send(10 * MIB).await;
    upload.stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = upload.answer().await;
    assert_eq!(answer.status, 404, "{}", answer.text);
}
