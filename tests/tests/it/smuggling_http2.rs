//! HTTP/2 says in frames what HTTP/1 says in lines: nothing in a header may become a line on its way to a provider that
//! speaks HTTP/1. The frames are written by hand, since no client sends these.

use std::sync::{Arc, Mutex};

use end_to_end::{Client, Gateway, Reading, Scripted, wait_for, wire, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HIDDEN: &str = "GET /v1/stolen HTTP/1.1\r\nHost: hidden\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Field = (&'static str, &'static str);

const POST: [Field; 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/v1/a"), (":authority", "gateway")];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literals that are in no table, and in no code.
fn block(fields: &[Field]) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127);
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn post_with(fields: &[Field]) -> Vec<Field> {
    [&POST, fields].concat()
}

/// A POST with another pseudo-header in the place of its own.
fn post_as(name: &'static str, value: &'static str) -> Vec<Field> {
    POST.iter().map(|&field| if field.0 == name { (name, value) } else { field }).collect()
}

/// Sends one request; whether it was answered with 200, once it is clear what becomes of it.
async fn is_answered(url: &str, fields: &[Field], body: &str) -> bool {
    let mut stream = wire::connect(url).await;
    let end = if body.is_empty() { END_STREAM } else { 0 };
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    if !body.is_empty() {
        bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    stream.write_all(&bytes).await.unwrap();
    within("a verdict", async {
        loop {
            match next_frame(&mut stream).await {
                // 200 is the eighth entry of the static table.
                Some((HEADERS, payload)) => return payload.first() == Some(&0x88),
                Some((RST_STREAM | GOAWAY, _)) | None => return false,
                Some(_) => {}
            }
        }
    })
    .await
}

async fn next_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

#[tokio::test]
async fn no_header_of_http2_becomes_a_line_of_http1() {
    let hello = "hello";
    for reading in [Reading::ChunkedFirst, Reading::LengthFirst] {
        let provider = Scripted::echo(reading).await;
        let gateway = Gateway::new().provider("openai", &provider.url()).server("workers = 1").start().await;
        let client = Client::default();
        let mut passed = 0;
        for (name, fields, body, expected) in [
            ("no length", post_with(&[]), hello, Some(hello)),
            ("its length", post_with(&[("content-length", "5")]), hello, Some(hello)),
            ("trailers wanted", post_with(&[("te", "trailers")]), hello, Some(hello)),
            ("its own host beside it", post_with(&[("host", "gateway")]), hello, Some(hello)),
            ("another host beside it", post_with(&[("host", "elsewhere")]), hello, None),
            ("a length of nothing", post_with(&[("content-length", "0")]), HIDDEN, None),
            ("a length too small", post_with(&[("content-length", "3")]), hello, None),
            ("a length too large", post_with(&[("content-length", "41")]), hello, None),
            ("a length, and no body", post_with(&[("content-length", "41")]), "", None),
            ("a length with a sign", post_with(&[("content-length", "+5")]), hello, None),
            ("a list of lengths", post_with(&[("content-length", "5, 5")]), hello, None),
            ("chunks", post_with(&[("transfer-encoding", "chunked")]), "0\r\n\r\n", None),
            ("a connection's header", post_with(&[("connection", "x-a")]), hello, None),
            ("an upgrade", post_with(&[("upgrade", "h2c")]), hello, None),
            ("a line in a value", post_with(&[("x-a", "b\r\ntransfer-encoding: chunked")]), hello, None),
            ("a bare LF in a value", post_with(&[("x-a", "b\ntransfer-encoding: chunked")]), hello, None),
            ("NUL in a value", post_with(&[("x-a", "b\0c")]), hello, None),
            ("a line in a name", post_with(&[("x-a: b\r\ntransfer-encoding", "chunked")]), hello, None),
            ("a colon in a name", post_with(&[("transfer-encoding:", "chunked")]), hello, None),
            ("a space in a name", post_with(&[("transfer-encoding ", "chunked")]), hello, None),
            ("capital letters in a name", post_with(&[("Transfer-Encoding", "chunked")]), hello, None),
            ("a request in the path", post_as(":path", "/v1/a HTTP/1.1\r\n\r\nGET /v1/stolen"), hello, None),
            ("a space in the path", post_as(":path", "/v1/a HTTP/1.1"), hello, None),
            ("a path of its own kind", post_as(":path", "v1/a"), hello, None),
            ("a dot segment", post_as(":path", "/v1/%2e%2e/admin"), hello, None),
            (
                "a request in the method",
                post_as(":method", "GET /v1/stolen HTTP/1.1\r\n\r\nGET"),
                hello,
                None,
            ),
            ("a line in the authority", post_as(":authority", "a\r\nx-a: b"), hello, None),
            ("two paths", post_with(&[(":path", "/v1/stolen")]), hello, None),
            ("no path", POST[..2].to_vec(), hello, None),
            ("a tunnel", vec![(":method", "CONNECT"), (":authority", "elsewhere:443")], "", None),
            ("TRACE", post_as(":method", "TRACE"), "", None),
        ] {
            let before = provider.requests().len();
            let is_answered = is_answered(&gateway.url, &fields, body).await;
            assert_eq!(is_answered, expected.is_some(), "{name}");
            let seen = &provider.requests()[before..];
            let bodies: Vec<_> = seen.iter().map(|it| String::from_utf8_lossy(&it.body)).collect();
            assert_eq!(bodies, expected.as_slice(), "{name}: {seen:?}");
            passed += usize::from(is_answered);
            let answer = client.get(&format!("{}/v1/other-client", gateway.url)).await;
            assert_eq!(answer.text(), "GET /v1/other-client ", "after {name}");
        }
        assert_eq!(passed, 4);
        assert!(provider.requests().iter().all(|it| !it.head.contains("stolen")));
    }
}

/// Two lengths that differ are no length: the body that came is passed on, as long as it is.
#[tokio::test]
async fn two_lengths_over_http2_reach_no_provider() {
    let provider = Scripted::echo(Reading::LengthFirst).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).start().await;
    for (fields, body) in [
        (post_with(&[("content-length", "5"), ("content-length", "41")]), "hello"),
        (post_with(&[("content-length", "0"), ("content-length", "41")]), ""),
    ] {
        is_answered(&gateway.url, &fields, body).await;
        for request in provider.requests() {
            assert_eq!(request.body, body, "{request:?}");
            let lengths = request.head.lines().filter(|line| line.starts_with("content-length")).count();
            assert!(lengths <= 1, "{request:?}");
        }
    }
    assert_eq!(gateway.get("/v1/a").await.text(), "GET /v1/a ");
}

/// Frames for the next request; `stream` stands for its stream.
type Answer = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// A provider that answers each request over HTTP/2 with frames written by hand.
async fn provider_of_frames() -> (String, Arc<Mutex<Option<Answer>>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let next = Arc::<Mutex<Option<Answer>>>::default();
    let answers = next.clone();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answers = answers.clone();
            connections.spawn(async move { converse(&mut stream, &answers).await });
        }
    });
    (url, next, task)
}

/// Until the gateway hangs up.
async fn converse(stream: &mut TcpStream, answers: &Mutex<Option<Answer>>) -> Option<()> {
    stream.read_exact(&mut [0; PREFACE.len()]).await.ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let reply = match head[3] {
            SETTINGS if head[4] == 0 => frame(SETTINGS, 1, 0, &[]),
            HEADERS => answers.lock().unwrap().take().map_or_else(Vec::new, |answer| answer(id)),
            _ => continue,
        };
        stream.write_all(&reply).await.ok()?;
    }
}

fn answer(fields: Vec<Field>, body: &'static str) -> Answer {
    Box::new(move |stream| {
        let head = frame(HEADERS, END_HEADERS, stream, &block(&fields));
        [head, frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
    })
}

fn ok_with(fields: &[Field]) -> Vec<Field> {
    [&[(":status", "200")], fields].concat()
}

#[tokio::test]
async fn no_answer_over_http2_reaches_a_client_as_what_it_is_not() {
    let (provider, next, task) = provider_of_frames().await;
    let keys = "http2 = \"always\"\ntimeout = { first_byte = \"2s\", idle = \"2s\" }";
    let gateway = Gateway::new().provider_with("openai", &provider, keys).server("workers = 1").start().await;
    let client = Client::default();
    let hello = "hello";
    let shapes: Vec<(&str, Answer, bool)> = vec![
        ("as it should be", answer(ok_with(&[("content-length", "5")]), hello), true),
        ("no length", answer(ok_with(&[]), hello), true),
        ("a length too small", answer(ok_with(&[("content-length", "3")]), hello), false),
        ("a length too large", answer(ok_with(&[("content-length", "50")]), hello), false),
        ("a length with a sign", answer(ok_with(&[("content-length", "+5")]), hello), false),
        ("a list of lengths", answer(ok_with(&[("content-length", "5, 50")]), hello), false),
        ("two lengths", answer(ok_with(&[("content-length", "5"), ("content-length", "50")]), hello), false),
        ("chunks", answer(ok_with(&[("transfer-encoding", "chunked")]), "5\r\nhello\r\n0\r\n\r\n"), false),
        ("a line in a value", answer(ok_with(&[("x-a", "b\r\ncontent-length: 0")]), hello), false),
        ("a line in a name", answer(ok_with(&[("x-a: b\r\ncontent-length", "0")]), hello), false),
        ("capital letters", answer(ok_with(&[("Content-Length", "0")]), hello), false),
        ("no status", answer(vec![("x-a", "b")], hello), false),
        ("a change of protocol", answer(vec![(":status", "101")], hello), false),
        ("a body without a head", Box::new(|it| frame(DATA, END_STREAM, it, b"hello")), false),
        (
            "an answer to nobody",
            Box::new(|it| frame(HEADERS, END_HEADERS, it + 2, &block(&ok_with(&[])))),
            false,
        ),
        ("a pushed answer", Box::new(|it| frame(PUSH_PROMISE, END_HEADERS, it, &[0, 0, 0, 2, 0x88])), false),
    ];
    for (name, frames, is_right) in shapes {
        *next.lock().unwrap() = Some(frames);
        let request = "GET /v1/a HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n";
        let reply = wire::replies(&wire::exchange(&gateway.url, request).await).into_iter().next();
        let is_whole = reply.as_ref().is_some_and(|reply| reply.is_whole && reply.status == 200);
        assert_eq!(is_whole, is_right, "{name}: {reply:?}");
        if is_right {
            assert_eq!(reply.unwrap().text(), hello, "{name}");
        }
        // A connection that was at fault may be given up only by the next request.
        wait_for(&format!("another client's answer after {name}"), || async {
            *next.lock().unwrap() = Some(answer(ok_with(&[]), "for the other"));
            let answer = client.get(&format!("{}/v1/other-client", gateway.url)).await;
            (answer.status == 200).then(|| assert_eq!(answer.text(), "for the other", "after {name}"))
        })
        .await;
    }
    task.abort();
}
