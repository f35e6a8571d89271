//! Requests and answers whose end can be read in two ways. Whatever becomes of them, nothing of one client's reaches
//! another, who shares its connections to the provider.

use end_to_end::{
    Client, Gateway, Reading, Running, Said, Scripted, WebServer,
    scripted::{described, ok},
    wire::{self, Reply},
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
enum Request {
    /// The provider gets it, as one request of this method, path and body.
    Passes(&'static str),
    /// The provider gets nothing.
    Refused,
}

use Request::{Passes, Refused};

/// A request that is hidden in what may be a body. It has 43 bytes, `2b` in chunks.
const HIDDEN: &str = "GET /v1/stolen HTTP/1.1\r\nHost: hidden\r\n\r\n\r\n";

/// A name, what is sent (`HIDDEN` in place of `~`), and what becomes of it.
#[rustfmt::skip]
const REQUESTS: &[(&str, &str, Request)] = &[
    // Two lengths.
    ("a length, then chunks", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 48\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n~", Passes("POST /v1/a ")),
    ("chunks, then a length", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nContent-Length: 48\r\n\r\n0\r\n\r\n~", Passes("POST /v1/a ")),
    ("a length of a chunk's head", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes("POST /v1/a hello")),
    ("a length of nothing beside chunks", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes("POST /v1/a hello")),
    ("two lengths that are one", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Passes("POST /v1/a hello")),
    ("two lengths", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\nContent-Length: 43\r\n\r\n~", Refused),
    ("two lengths, the larger one first", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 43\r\nContent-Length: 0\r\n\r\n~", Refused),
    ("a list of one length", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 5, 5\r\n\r\nhello", Refused),
    ("a list of two lengths", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 0, 43\r\n\r\n~", Refused),
    // Lengths that are none.
    ("a length with a sign", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: +5\r\n\r\nhello", Refused),
    ("a negative length", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: -5\r\n\r\nhello", Refused),
    ("a hexadecimal length", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 0x5\r\n\r\nhello", Refused),
    ("a length with a space in it", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 5 5\r\n\r\nhello", Refused),
    ("an empty length", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length:\r\n\r\n~", Refused),
    ("a length with a parameter", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 5;x\r\n\r\nhello", Refused),
    ("a length beyond all numbers", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 184467440737095516160\r\n\r\nhello", Refused),
    ("a length in quotes", "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: \"5\"\r\n\r\nhello", Refused),
    // Codings.
    ("a coding like chunked", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: xchunked\r\nContent-Length: 43\r\n\r\n~", Refused),
    ("chunked, and then another coding", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused),
    ("identity, and then chunked", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", Refused),
    ("gzip, and then chunked", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused),
    ("chunked twice", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused),
    ("chunked in two headers", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    ("chunked, and identity in another header", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", Refused),
    ("identity alone", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("chunked in quotes", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused),
    ("chunked with a parameter", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused),
    ("chunked behind a tabulator that is none", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused),
    ("chunked of HTTP/1.0", "POST /v1/a HTTP/1.0\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    ("chunked in odd letters", "POST /v1/a HTTP/1.1\r\nHost: g\r\ntRANSFER-eNCODING: ChUnKeD\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes("POST /v1/a hello")),
    // Headers that some read and others do not.
    ("a space before the colon", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("a folded header", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("a header that begins with a space", "POST /v1/a HTTP/1.1\r\nHost: g\r\n Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("a header with an underscore", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", Passes("POST /v1/a hello")),
    ("a header that ends in NUL", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding\0: chunked\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("a value with NUL", "POST /v1/a HTTP/1.1\r\nHost: g\r\nX-A: a\0b\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("a bare CR in a value", "POST /v1/a HTTP/1.1\r\nHost: g\r\nX-A: a\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("a header without a colon", "POST /v1/a HTTP/1.1\r\nHost: g\r\nX-A\r\nContent-Length: 5\r\n\r\nhello", Refused),
    ("bare LF for all lines", "POST /v1/a HTTP/1.1\nHost: g\nContent-Length: 5\n\nhello", Passes("POST /v1/a hello")),
    ("a length that is named for this connection only", "POST /v1/a HTTP/1.1\r\nHost: g\r\nConnection: content-length\r\nContent-Length: 43\r\n\r\n~", Passes("POST /v1/a ~")),
    ("a coding that is named for this connection only", "POST /v1/a HTTP/1.1\r\nHost: g\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Passes("POST /v1/a hello")),
    // Chunks.
    ("chunks that end in bare LF", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", Refused),
    ("a chunk of a hexadecimal prefix", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Refused),
    ("a chunk of negative size", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", Refused),
    ("a chunk beyond all numbers", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff5\r\nhello\r\n0\r\n\r\n", Refused),
    ("a chunk's extension with LF", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", Refused),
    ("a chunk longer than its size", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", Refused),
    ("a chunk without its end", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", Refused),
    ("a chunk with an extension", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", Passes("POST /v1/a hello")),
    ("trailers that name a length", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 43\r\n\r\n", Passes("POST /v1/a hello")),
    ("a hidden request as a chunk", "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2b\r\n~\r\n0\r\n\r\n", Passes("POST /v1/a ~")),
    // Bodies where few have one.
    ("a GET with a body", "GET /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 43\r\n\r\n~", Passes("GET /v1/a ~")),
    ("a GET with chunks", "GET /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2b\r\n~\r\n0\r\n\r\n", Passes("GET /v1/a ~")),
    ("a DELETE with a body", "DELETE /v1/a HTTP/1.1\r\nHost: g\r\nContent-Length: 43\r\n\r\n~", Passes("DELETE /v1/a ~")),
    ("a body of HTTP/1.0", "POST /v1/a HTTP/1.0\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello", Passes("POST /v1/a hello")),
    ("a body that waits to be asked for", "POST /v1/a HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", Passes("POST /v1/a hello")),
    // First lines and hosts.
    ("no host", "GET /v1/a HTTP/1.1\r\n\r\n", Refused),
    ("two hosts", "GET /v1/a HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n", Refused),
    ("a list of hosts", "GET /v1/a HTTP/1.1\r\nHost: g, h\r\n\r\n", Refused),
    ("a host that is a path", "GET /v1/a HTTP/1.1\r\nHost: g/v1\r\n\r\n", Refused),
    ("a whole address", "GET http://elsewhere/v1/a HTTP/1.1\r\nHost: g\r\n\r\n", Passes("GET /v1/a ")),
    ("two spaces in the first line", "GET  /v1/a HTTP/1.1\r\nHost: g\r\n\r\n", Refused),
    ("a tabulator in the first line", "GET\t/v1/a\tHTTP/1.1\r\nHost: g\r\n\r\n", Refused),
    ("no version", "GET /v1/a\r\nHost: g\r\n\r\n", Refused),
    ("another version", "GET /v1/a HTTP/1.2\r\nHost: g\r\n\r\n", Refused),
    ("a method with NUL", "GE\0T /v1/a HTTP/1.1\r\nHost: g\r\n\r\n", Refused),
    ("TRACE", "TRACE /v1/a HTTP/1.1\r\nHost: g\r\n\r\n", Refused),
    ("CONNECT", "CONNECT g:443 HTTP/1.1\r\nHost: g:443\r\n\r\n", Refused),
    ("an upgrade to HTTP/2", "GET /v1/a HTTP/1.1\r\nHost: g\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", Passes("GET /v1/a ")),
];

async fn gateway(provider: &str) -> Running {
    // One worker has one pool of connections, which all clients share.
    let waits = "timeout = { connect = \"5s\", first_byte = \"5s\", idle = \"2s\" }";
    let gateway = Gateway::new().provider_with("openai", provider, waits);
    gateway.server("workers = 1\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"").start().await
}

/// Another client asks, and gets what it asked for.
async fn another_client_is_well(gateway: &Running, client: &Client, after: &str) {
    let answer = client.get(&format!("{}/v1/other-client", gateway.url)).await;
    assert_eq!(answer.status, 200, "after {after}: {answer:?}");
    let text = answer.text();
    assert_eq!(text.trim_end(), "GET /v1/other-client", "after {after}");
}

fn filled_in(text: &str) -> String {
    assert_eq!(HIDDEN.len(), 43);
    text.replace('~', HIDDEN)
}

async fn send_all(gateway: &Running, shows_bodies: bool) {
    let client = Client::default();
    for (name, request, expected) in REQUESTS {
        let reply = wire::ask(&gateway.url, filled_in(request)).await;
        match expected {
            Passes(seen) => {
                let reply = reply.unwrap_or_else(|| panic!("{name}: no answer"));
                assert_eq!(reply.status, 200, "{name}: {reply:?}");
                let seen =
                    if shows_bodies { filled_in(seen) } else { seen[..seen.rfind(' ').unwrap()].into() };
                assert_eq!(reply.text().trim_end(), seen.trim_end(), "{name}");
            }
            Refused => {
                let status = reply.map_or(400, |reply| reply.status);
                assert!((400..500).contains(&status) || status == 501, "{name}: {status}");
            }
        }
        another_client_is_well(gateway, &client, name).await;
    }
}

#[tokio::test]
async fn no_request_reaches_a_provider_as_two() {
    for reading in [Reading::ChunkedFirst, Reading::LengthFirst] {
        let provider = Scripted::echo(reading).await;
        let gateway = gateway(&provider.url()).await;
        send_all(&gateway, true).await;
        let requests = provider.requests();
        let passing = REQUESTS.iter().filter(|(_, _, expected)| matches!(expected, Passes(_))).count();
        assert_eq!(requests.len(), passing + REQUESTS.len(), "{reading:?}");
        for request in &requests {
            let framings = ["content-length", "transfer-encoding"].map(|name| {
                request.head.lines().filter(|line| line.to_ascii_lowercase().starts_with(name)).count()
            });
            assert!(framings.iter().sum::<usize>() <= 1, "{reading:?}: {}", request.head);
            assert!(!request.head.lines().next().unwrap().contains("stolen"), "{}", request.head);
        }
    }
}

#[tokio::test]
async fn no_request_reaches_nginx_as_two() {
    let nginx = WebServer::serving("location / { return 200 \"$request_method $request_uri\\n\"; }").await;
    let gateway = gateway(&nginx.url()).await;
    send_all(&gateway, false).await;
    let log = nginx.access_log();
    assert!(!log.contains("stolen"), "{log}");
    assert!(log.lines().all(|line| line.ends_with(" HTTP/1.1")), "{log}");
}

/// What nginx reads as one request, the gateway must not read as two: its connections carry the requests of all clients.
#[tokio::test]
async fn no_request_through_nginx_becomes_two() {
    for reading in [Reading::ChunkedFirst, Reading::LengthFirst] {
        let provider = Scripted::echo(reading).await;
        let gateway = gateway(&provider.url()).await;
        let nginx = WebServer::in_front_of(&gateway.url).await;
        let client = Client::default();
        for (name, request, expected) in REQUESTS {
            let reply = wire::ask(&nginx.url(), filled_in(request)).await;
            // nginx refuses more.
            if let (Passes(seen), Some(Reply { status: 200, .. })) = (expected, &reply) {
                assert_eq!(reply.unwrap().text().trim_end(), filled_in(seen).trim_end(), "{name}");
            }
            let answer = client.get(&format!("{}/v1/other-client", nginx.url())).await;
            assert_eq!(answer.text(), "GET /v1/other-client ", "after {name}");
        }
        let stolen = |head: &str| head.lines().next().unwrap().contains("stolen");
        assert!(provider.requests().iter().all(|request| !stolen(&request.head)));
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The client gets this status and body.
    Whole(u16, &'static str),
    /// The gateway answers 502 in its place.
    BadGateway,
    /// The client sees that it broke off, after this much of the body at most.
    BreaksOff(&'static str),
}

use Outcome::{BadGateway, BreaksOff, Whole};

/// An answer that is hidden behind another one.
const HIDDEN_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";

/// A name, what is sent (`HIDDEN_ANSWER` in place of `~`), whether the provider hangs up then, and what becomes of it.
#[rustfmt::skip]
const ANSWERS: &[(&str, &str, bool, Outcome)] = &[
    // Two lengths.
    ("a length, then chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, Whole(200, "hello")),
    ("chunks, then a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, Whole(200, "hello")),
    ("a length of nothing beside chunks", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, Whole(200, "hello")),
    ("a length beyond the chunks", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, Whole(200, "hello")),
    ("two lengths that are one", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", false, Whole(200, "hello")),
    ("a list of one length", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", false, Whole(200, "hello")),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello~", false, BadGateway),
    ("a list of two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 50\r\n\r\nhello~", false, BadGateway),
    // Lengths that are none.
    ("a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", false, BadGateway),
    ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", false, BadGateway),
    ("a length that is a word", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", false, BadGateway),
    ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", false, BadGateway),
    ("a length with a space in it", "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello", false, BadGateway),
    ("a length beyond all numbers", "HTTP/1.1 200 OK\r\nContent-Length: 184467440737095516160\r\n\r\nhello", false, BadGateway),
    // Codings.
    ("a coding like chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true, BadGateway),
    ("gzip, and then chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("chunked, and then gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true, BadGateway),
    ("identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", true, BadGateway),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("chunked in two headers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("chunked in quotes", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true, BadGateway),
    ("chunked of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true, BadGateway),
    // Until the end of the connection.
    ("no framing", "HTTP/1.1 200 OK\r\n\r\nhello", true, Whole(200, "hello")),
    ("no framing of HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello", true, Whole(200, "hello")),
    // Heads that some read and others do not.
    ("a folded header", "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("a space before the colon", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("a value with NUL", "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("a bare CR in a value", "HTTP/1.1 200 OK\r\nX-A: a\rb: c\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("a header without a colon", "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("bare LF for all lines", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false, Whole(200, "hello")),
    ("a status that is a word", "HTTP/1.1 fine OK\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("another version", "HTTP/3.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, BadGateway),
    ("no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n\r\n", false, BadGateway),
    ("nothing", "", true, BadGateway),
    // More than one answer.
    ("an interim answer", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Whole(200, "hello")),
    ("several interim answers", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Whole(200, "hello")),
    ("a change of protocol that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n~", false, BadGateway),
    ("an answer behind an answer", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello~", false, Whole(200, "hello")),
    ("an answer behind chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n~", false, Whole(200, "hello")),
    ("an answer behind 204", "HTTP/1.1 204 No Content\r\n\r\n~", false, Whole(204, "")),
    ("an answer as the body of 204", "HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n~", false, Whole(204, "")),
    ("chunks behind 204", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2c\r\n~\r\n0\r\n\r\n", false, Whole(204, "")),
    ("an answer as the body of 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n~", false, Whole(304, "")),
    ("an answer behind an empty one", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n~", false, Whole(200, "")),
    // Chunks.
    ("a first chunk that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("a chunk of negative size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("a chunk of a hexadecimal prefix", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("a chunk beyond all numbers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff5\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("a chunk's extension with LF", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", false, BadGateway),
    ("chunks that end in bare LF", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", false, BadGateway),
    ("a second chunk that is none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", false, BreaksOff("hello")),
    ("a chunk longer than its size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", false, BreaksOff("hel")),
    ("a chunk without its end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", false, BreaksOff("hello")),
    ("chunks without an end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true, BreaksOff("hello")),
    ("a body shorter than its length", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", true, BreaksOff("hello")),
    ("trailers that name a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 44\r\n\r\n", false, Whole(200, "hello")),
];

async fn provider_of_answers() -> Scripted {
    Scripted::start(Reading::ChunkedFirst, |request| {
        let line = request.head.lines().next().unwrap();
        let Some((_, rest)) = line.split_once("/v1/answer/") else {
            return Said::Keep(ok(&described(request)));
        };
        let number: usize = rest.split(' ').next().unwrap().parse().unwrap();
        let (_, answer, closes, _) = ANSWERS[number];
        let answer = answer.replace('~', HIDDEN_ANSWER).into();
        if closes { Said::Close(answer) } else { Said::Keep(answer) }
    })
    .await
}

fn judge(name: &str, reply: Option<Reply>, expected: Outcome) {
    match expected {
        Whole(status, body) => {
            let reply = reply.unwrap_or_else(|| panic!("{name}: no answer"));
            assert_eq!(
                (reply.status, &*reply.text(), reply.is_whole),
                (status, body, true),
                "{name}: {reply:?}"
            );
            assert!(reply.headers("content-length").count() <= 1, "{name}: {reply:?}");
            let framings = [reply.header("content-length"), reply.header("transfer-encoding")];
            assert!(framings.iter().flatten().count() <= 1, "{name}: {reply:?}");
        }
        BadGateway => {
            let reply = reply.unwrap_or_else(|| panic!("{name}: no answer"));
            assert_eq!(reply.status, 502, "{name}: {reply:?}");
            assert!(reply.text().contains("\"code\":\"upstream_"), "{name}: {reply:?}");
        }
        BreaksOff(most) => {
            let reply = reply.unwrap_or_else(|| panic!("{name}: what came before the fault is lost"));
            assert_eq!((reply.status, reply.is_whole), (200, false), "{name}: {reply:?}");
            assert!(most.starts_with(&reply.text()), "{name}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn no_answer_reaches_two_clients() {
    let provider = provider_of_answers().await;
    let gateway = gateway(&provider.url()).await;
    let client = Client::default();
    for (number, (name, _, _, expected)) in ANSWERS.iter().enumerate() {
        let request = format!("GET /v1/answer/{number} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n");
        let came = wire::exchange(&gateway.url, request).await;
        assert!(!String::from_utf8_lossy(&came).contains("stolen"), "{name}");
        judge(name, wire::replies(&came).into_iter().next(), *expected);
        another_client_is_well(&gateway, &client, name).await;
    }
    assert!(provider.connections() < ANSWERS.len() + 20, "connections are used again");
}

/// Of the answer to a HEAD only the head is there, whatever it says of a body.
#[tokio::test]
async fn what_follows_the_answer_to_a_head_reaches_nobody() {
    let provider = Scripted::start(Reading::ChunkedFirst, |request| {
        if request.head.starts_with("HEAD") {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n";
            Said::Keep(format!("{head}{HIDDEN_ANSWER}").into())
        } else {
            Said::Keep(ok(&described(request)))
        }
    })
    .await;
    let gateway = gateway(&provider.url()).await;
    let client = Client::default();
    for _ in 0..20 {
        let request = "HEAD /v1/models HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n";
        let came = String::from_utf8(wire::exchange(&gateway.url, request).await).unwrap();
        assert!(came.starts_with("HTTP/1.1 200 OK\r\n") && came.ends_with("\r\n\r\n"), "{came}");
        assert!(came.contains("content-length: 44\r\n"), "{came}");
        another_client_is_well(&gateway, &client, "a HEAD").await;
    }
}
