//! The client against a real socket.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread::JoinHandle,
};

use super::*;

/// Answers one request with these bytes; joins to what was asked.
fn one_answer(answer: &str) -> (Url, JoinHandle<(String, Vec<u8>)>) {
    let answer = answer.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:hunter2@{}/base?", listener.local_addr().unwrap());
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        (head, body)
    };
    (Url::parse(url.trim_end_matches('?')).unwrap(), std::thread::spawn(serve))
}

fn client() -> Client {
    use exporter_testkit::Plugin;
    use plugin_api::{Batch, Descriptor, NoConfig, TelemetryExporter};
    /// There is no other way to a `Host`.
    struct Capture;
    static HOST: std::sync::OnceLock<Host> = std::sync::OnceLock::new();
    impl TelemetryExporter for Capture {
        type Config = NoConfig;
        const DESCRIPTOR: Descriptor = Descriptor::new("capture", "1.0.0");
        async fn init(_: NoConfig, host: Host) -> Result<Self, InitError> {
            HOST.get_or_init(|| host);
            Ok(Self)
        }
        async fn export(&self, _: Batch<'_>) -> Result<(), ExportError> {
            Ok(())
        }
    }
    Plugin::<Capture>::create("{}").unwrap();
    Client::new(HOST.get().unwrap(), &Tls::default(), Duration::from_secs(10)).unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_success_that_is_no_answer_of_an_api_delivers_nothing() {
    for (answer, is_delivered) in [
        ("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", true),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 1\r\n\r\n<", true),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: Text/HTML; charset=utf-8\r\ncontent-length: 4\r\n\r\nhi!\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n\n <!doctype html> ", false),
    ] {
        let (base, asked) = one_answer(answer);
        let judged = run(async { client().post(base).send().await.unwrap().check() });
        assert_eq!(judged.is_ok(), is_delivered, "{answer}: {judged:?}");
        if let Err(error) = judged {
            assert_eq!(error.kind(), plugin_api::ErrorKind::Retry, "{error}");
            assert!(error.to_string().contains("does a proxy answer?"), "{error}");
        }
        asked.join().unwrap();
    }
}

#[test]
fn a_request_arrives_whole_and_an_answer_is_judged() {
    let (base, asked) =
        one_answer("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nslow down");
    let key = Secret::new("k3y");
    let answer = run(async {
        client()
            .post(join(&base, "/_bulk"))
            .secret_header("api-key", &key)
            .unwrap()
            .body(Body::gzip(b"hello"))
            .send()
            .await
            .unwrap()
    });
    let (head, body) = asked.join().unwrap();
    assert!(head.starts_with("POST /base/_bulk HTTP/1.1\r\n"), "{head}");
    for header in ["api-key: k3y", "content-encoding: gzip", "user-agent: magicapi-gateway/1.0.0"] {
        assert!(head.contains(&format!("{header}\r\n")), "{head}");
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*body).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let error = answer.check().unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let expected = format!("POST {} answered 429 Too Many Requests: slow down", shown(&join(&base, "_bulk")));
    assert_eq!(error.to_string(), expected);
    assert!(!expected.contains("hunter2"));
}

#[test]
fn an_answer_that_repeats_a_secret_is_not_quoted_with_it() {
    for (secret, text, expected) in [
        ("long-k3y", "long-k3y invalid", "*** invalid"),
        // Taken out, these would take the sense with them.
        ("k", "k3y looks invalid", "k3y looks invalid"),
        ("true", "\"ok\":true", "\"ok\":true"),
        ("password", "wrong password", "wrong password"),
        ("", "nothing", "nothing"),
    ] {
        let length = text.len();
        let (base, asked) =
            one_answer(&format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {length}\r\n\r\n{text}"));
        let answer = run(async { client().hiding([&Secret::new(secret)]).get(base).send().await.unwrap() });
        asked.join().unwrap();
        let error = answer.check().unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("403 Forbidden: {expected} (are the credentials right?)")),
            "{error}"
        );
    }
}

#[test]
fn no_answer_is_a_retry_that_names_the_address_and_the_cause() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = Url::parse(&format!("http://user:hunter2@127.0.0.1:{port}/x")).unwrap();
    let error = run(async { client().get(closed).send().await.unwrap_err() });
    let text = error.to_string();
    assert!(text.starts_with(&format!("GET http://127.0.0.1:{port}/x: ")), "{text}");
    assert!(text.contains("refused") && !text.contains("hunter2"), "{text}");
    let (cut, asked) = one_answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    let error = run(async { client().get(cut).send().await.unwrap_err() });
    asked.join().unwrap();
    assert_eq!(error.kind(), plugin_api::ErrorKind::Retry);
}

#[test]
fn a_request_without_an_answer_says_whether_it_may_have_arrived() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = Url::parse(&format!("http://127.0.0.1:{port}/x")).unwrap();
    let refused = run(async { client().post(closed).body(Body::plain("x")).try_send().await.unwrap_err() });
    assert!(!refused.may_have_arrived, "{refused:?}");
    let (cut, asked) = one_answer("HTTP/1.1 202 Accepted\r\ncontent-length: 100\r\n\r\nhalf");
    let broken = run(async { client().post(cut).body(Body::deflate(b"x")).try_send().await.unwrap_err() });
    let (head, body) = asked.join().unwrap();
    assert!(broken.may_have_arrived, "{broken:?}");
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(&*body).read_to_string(&mut text).unwrap();
    assert!(text == "x" && head.contains("content-encoding: deflate"), "{head}");
}

#[test]
fn a_url_is_checked_and_its_password_stays_where_it_is() {
    for (text, expected) in [
        ("localhost:9200", "starts with http:// or https://"),
        ("host", "url: no URL (relative URL without a base)"),
        ("ftp://host", "starts with http:// or https://"),
        ("https://u:hunter2@host/?a=b", "no `?` and no `#`"),
    ] {
        let error = url("url", text).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
    }
    assert_eq!(shown(&url("url", "https://u:p@host:9/a/").unwrap()), "https://host:9/a/");
    assert_eq!(join(&url("url", "https://host/a/").unwrap(), "b").path(), "/a/b");
}

#[test]
fn an_answer_without_end_is_given_up_at_a_size_and_not_when_memory_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let flood = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let piece = [b'x'; 64 << 10];
        let mut sent = 0;
        while sent < 1 << 30 && stream.write_all(&piece).is_ok() {
            sent += piece.len();
        }
        sent
    });
    let failure = run(client().post(url).body(Body::plain("x")).try_send()).unwrap_err();
    assert!(failure.may_have_arrived);
    assert!(failure.error.to_string().contains("200 OK with more than 16777216 bytes"), "{}", failure.error);
    assert!(flood.join().unwrap() < LARGEST_ANSWER * 2);
}
