//! Suites of others: `h2spec` for HTTP/2, and the public list of `h1spec` (uNetworking, 35 requests) for HTTP/1.

use end_to_end::{Gateway, H2spec, Reading, Scripted, wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A port that speaks HTTP/1 as well answers a wrong preface with 400 and hangs up, where the suite wants it to hang up.
const NOT_FOR_US: &str = "Sends invalid connection preface";

#[tokio::test]
async fn h2spec_passes_on_the_gateways_own_pages_and_on_requests_to_a_provider() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).start().await;
    for path in ["/healthz", "/v1/models"] {
        let mut failed = failures(&gateway.url, path).await;
        // Some tests send a frame that is wrong after one that is right, and fail when the answer to the right one is
        // quicker: what fails once on a busy machine passes the next time.
        for _ in 0..5 {
            if failed.is_empty() {
                break;
            }
            let again = failures(&gateway.url, path).await;
            failed.retain(|name| again.contains(name));
        }
        assert!(failed.is_empty(), "{path}: {failed:#?}");
    }
}

async fn failures(url: &str, path: &str) -> Vec<String> {
    let suite = H2spec::run(url, path).await;
    assert!(suite.passed >= 130, "{path}: {}", suite.output);
    suite.failed.into_iter().filter(|name| !name.contains(NOT_FOR_US)).collect()
}

/// Parts of a request: the server waits for the rest.
const PARTS: [&str; 15] = [
    "G",
    "GET ",
    "GET /v1/hello",
    "GET /v1/hello ",
    "GET /v1/hello HTTP",
    "GET /v1/hello HTTP/1.1",
    "GET /v1/hello HTTP/1.1\r",
    "GET /v1/hello HTTP/1.1\r\n",
    "GET /v1/hello HTTP/1.1\r\nHos",
    "GET /v1/hello HTTP/1.1\r\nHost:",
    "GET /v1/hello HTTP/1.1\r\nHost: ",
    "GET /v1/hello HTTP/1.1\r\nHost: localhost",
    "GET /v1/hello HTTP/1.1\r\nHost: localhost\r",
    "GET /v1/hello HTTP/1.1\r\nHost: localhost\r\n",
    "GET /v1/hello HTTP/1.1\r\nHost: localhost\r\n\r",
];

/// Whole requests, the least and the greatest status that the list takes, and the body that is echoed.
#[rustfmt::skip]
const WHOLE: [(&str, u16, u16, &str); 20] = [
    ("GET /v1/ \r\n\r\n", 400, 599, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\n\r\n", 200, 299, "GET /v1/ "),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 200, 299, "GET /v1/ "),
    ("GET /v1/ HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n", 200, 299, "GET /v1/ "),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nX-Invalid[]: test\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nHost: example.org\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: -123456789123456789123456789\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: -1234\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: abc\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nX-Empty-Header: \r\n\r\n", 200, 299, "GET /v1/ "),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\nX-Bad-Control-Char: test\x07\r\n\r\n", 400, 499, ""),
    ("GET /v1/ HTTP/9.9\r\nHost: example.com\r\n\r\n", 400, 599, ""),
    ("Extra lineGET /v1/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, 599, ""),
    ("GET /v1/ HTTP/1.1\r\nHost: example.com\r\n\rSome-Header: Test\r\n\r\n", 400, 499, ""),
    ("POST /v1/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello", 200, 299, "POST /v1/ hello"),
    ("POST /v1/ HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n", 200, 299, "POST /v1/ HellO world1"),
    ("POST /v1/ HTTP/1.1\r\nHost: example.com\r\ncontent-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n", 200, 499, "POST /v1/ HellO world1"),
    ("POST /v1/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\n\r\n", 200, 299, "POST /v1/ "),
    ("PUT /v1/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello", 200, 299, "PUT /v1/ hello"),
];

#[tokio::test]
async fn the_public_list_of_h1spec_passes() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).start().await;
    for (request, least, greatest, body) in WHOLE {
        let reply =
            wire::ask(&gateway.url, request).await.unwrap_or_else(|| panic!("{request:?}: no answer"));
        assert!((least..=greatest).contains(&reply.status), "{request:?}: {reply:?}");
        if reply.status == 200 {
            assert_eq!(reply.text(), body, "{request:?}");
        }
    }
    for part in PARTS {
        let mut stream = wire::connect(&gateway.url).await;
        stream.write_all(part.as_bytes()).await.unwrap();
        // It has been read when a request on another connection has been answered.
        assert_eq!(gateway.get("/v1/other").await.status, 200);
        let answered = stream.try_read(&mut [0; 1]);
        assert_eq!(answered.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{part:?}");
        let rest = "GET /v1/hello HTTP/1.1\r\nHost: localhost\r\n\r\n".strip_prefix(part).unwrap();
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut came = [0; 15];
        stream.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"HTTP/1.1 200 OK", "{part:?}");
    }
}
