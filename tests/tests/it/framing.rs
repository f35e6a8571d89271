//! Heads and bodies that are not quite right, and what their records say.

use bytes::Bytes;
use end_to_end::{Client, Gateway, RawProvider, Reading, Running, Said, Scripted, Step, wait_for, wire};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

const BAD_REQUESTS: &str = "magicapi_gateway_bad_requests_total";

async fn gateway(provider: &str) -> Running {
    Gateway::new().provider("openai", provider).file_exporter().start().await
}

fn metadata(record: &Value) -> &Value {
    &record["attributes"]["metadata"]
}

#[tokio::test]
async fn an_answer_with_trailers_is_complete() {
    let provider = RawProvider::start(|_| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum, connection, set-cookie, \
                    access-control-allow-origin\r\n\r\n";
        // All but the first mean something in a head alone, and HTTP/2 knows no `connection`.
        let trailers = "x-checksum: 5d41\r\nconnection: close\r\nset-cookie: a=b\r\naccess-control-allow-origin: *\r\n";
        vec![Step::send(head), Step::chunk(b"hello"), Step::send(format!("0\r\n{trailers}\r\n"))]
    })
    .await;
    let gateway = gateway(&provider.url()).await;
    let ask = |te: &'static str| {
        let url = gateway.url.clone();
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: g\r\nConnection: close{te}\r\n\r\n");
        async move { String::from_utf8(wire::exchange(&url, request).await).unwrap() }
    };
    let (plain, asked) = (ask("").await, ask(", TE\r\nTE: trailers").await);
    assert!(plain.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{plain}");
    assert!(asked.ends_with("5\r\nhello\r\n0\r\nx-checksum: 5d41\r\n\r\n"), "{asked}");

    let request = Request::get(format!("{}/v1/models", gateway.url)).body(Full::default()).unwrap();
    let body = Client::http2().open(request).await.unwrap().into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap();
    assert_eq!((trailers.len(), &trailers["x-checksum"]), (1, &"5d41".parse().unwrap()));
    for record in gateway.wait_for_records(3).await {
        assert_eq!(metadata(&record)["end_reason"], "complete", "{record}");
        assert_eq!(metadata(&record)["response_size"], 5, "{record}");
    }
}

#[tokio::test]
async fn a_request_with_trailers_is_whole() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    let head = "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nTrailer: x-checksum\r\nTransfer-Encoding: \
                chunked\r\n\r\n";
    let request = format!("{head}2\r\n{{}}\r\n0\r\nx-checksum: 1\r\n\r\n");
    assert_eq!(wire::ask(&gateway.url, request).await.unwrap().text(), "POST /v1/a {}");
    assert!(!provider.requests()[0].head.contains("trailer"), "{:?}", provider.requests());
    let record = gateway.record().await;
    assert_eq!(record["attributes"]["request"], serde_json::json!({}), "{record}");
    assert_eq!(metadata(&record)["request_size"], 2, "{record}");
}

fn head_with(fields: usize, last: &str) -> String {
    let fields: String = (0..fields).map(|number| format!("x-field-{number}: 1\r\n")).collect();
    format!("GET /v1/models HTTP/1.1\r\nHost: g\r\n{fields}{last}\r\n")
}

#[tokio::test]
async fn too_many_header_fields_are_refused_and_said_so() {
    let provider = Scripted::start(Reading::ChunkedFirst, |request| {
        let fields = request.header("x-wanted").map_or(0, |wanted| wanted.parse().unwrap());
        let fields: String = (0..fields).map(|number| format!("x-field-{number}: 1\r\n")).collect();
        Said::Keep(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{fields}\r\nhi").into())
    })
    .await;
    let few = Gateway::new().provider("openai", &provider.url()).server("max_headers = 20").start().await;
    // With its Host exactly as many as there may be; what the gateway puts on is not counted.
    assert_eq!(wire::ask(&few.url, head_with(19, "")).await.unwrap().status, 200);
    assert_eq!(wire::ask(&few.url, head_with(20, "")).await.unwrap().status, 431);
    wait_for("the count", || async {
        (few.metric(BAD_REQUESTS, &[("reason", "head_too_large")]).await == 1.0).then_some(())
    })
    .await;
    let mut request = Request::get(format!("{}/v1/models", few.url));
    for number in 0..30 {
        request = request.header(format!("x-field-{number}"), "1");
    }
    let answer = Client::http2().send(request.body(Full::default()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (431, &"too_many_headers".into()));
    let reply = wire::ask(&few.url, head_with(0, "x-wanted: 30\r\n")).await.unwrap();
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(
        reply.text().contains("upstream_invalid") && reply.text().contains("server.max_headers"),
        "{reply:?}"
    );

    let many = Gateway::new().provider("openai", &provider.url()).server("max_headers = 300").start().await;
    let reply = wire::ask(&many.url, head_with(200, "x-wanted: 200\r\n")).await.unwrap();
    assert_eq!(
        (reply.status, reply.head.lines().filter(|line| line.starts_with("x-field")).count()),
        (200, 200)
    );
}

#[tokio::test]
async fn what_never_becomes_a_request_is_counted_and_makes_no_record() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    for request in ["GET /v1/a HTTP/9.9\r\n\r\n", "G\0T /v1/a HTTP/1.1\r\n\r\n"] {
        assert_eq!(wire::ask(&gateway.url, request).await.unwrap().status, 400);
    }
    let long = format!("GET /v1/a HTTP/1.1\r\nHost: g\r\nx-a: {}\r\n\r\n", "a".repeat(100_000));
    assert_eq!(wire::ask(&gateway.url, long).await.map(|reply| reply.status), Some(431));
    // The preface of HTTP/2, and then no frame of it.
    wire::exchange(&gateway.url, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnothing that is a frame of HTTP/2 at all")
        .await;
    for (reason, count) in [("malformed", 2.0), ("head_too_large", 1.0), ("http2", 1.0)] {
        wait_for(reason, || async {
            (gateway.metric(BAD_REQUESTS, &[("reason", reason)]).await == count).then_some(())
        })
        .await;
    }
    assert_eq!(gateway.get("/v1/last").await.status, 200);
    assert_eq!(gateway.record().await["attributes"]["metadata"]["path"], "/v1/last");
}

#[tokio::test]
async fn trace_and_connect_are_refused_and_recorded_as_that() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let key = "api_key = \"of-the-operator\"";
    let gateway = Gateway::new().provider_with("openai", &provider.url(), key).file_exporter().start().await;
    for request in [
        "TRACE /v1/models HTTP/1.1\r\nHost: g\r\n\r\n",
        "CONNECT api.openai.com:443 HTTP/1.1\r\nHost: api.openai.com:443\r\n\r\n",
    ] {
        let reply = wire::ask(&gateway.url, request).await.unwrap();
        assert_eq!(reply.status, 405, "{reply:?}");
        assert!(reply.text().contains("method_refused") && reply.header("allow").is_some(), "{reply:?}");
        assert!(reply.header("x-request-id").is_some());
    }
    for record in gateway.wait_for_records(2).await {
        let metadata = metadata(&record);
        assert_eq!(
            (&metadata["end_reason"], &metadata["status_code"]),
            (&"gateway_error".into(), &405.into())
        );
    }
    assert_eq!(provider.requests().len(), 0);
}

#[tokio::test]
async fn a_request_without_its_one_host_is_refused_with_a_record() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    for request in ["GET /v1/a HTTP/1.1\r\n\r\n", "GET /v1/a HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n"] {
        let reply = wire::ask(&gateway.url, request).await.unwrap();
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.text().contains("misframed") && reply.text().contains("Host"), "{reply:?}");
    }
    assert_eq!(wire::ask(&gateway.url, "GET /v1/a HTTP/1.0\r\n\r\n").await.unwrap().status, 200);
    let records = gateway.wait_for_records(3).await;
    let codes: Vec<&Value> = records.iter().map(|record| &metadata(record)["status_code"]).collect();
    assert_eq!(codes, [400, 400, 200]);
}

#[tokio::test]
async fn a_client_takes_off_its_own_headers_and_not_the_gateways() {
    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    let named = "Connection: close, traceparent, x-private, authorization\r\nx-private: 1\r\n";
    let request = format!("GET /v1/a HTTP/1.1\r\nHost: g\r\n{named}traceparent: {CALLER}\r\n\r\n");
    assert_eq!(wire::ask(&gateway.url, request).await.unwrap().status, 200);
    let seen = provider.requests().remove(0);
    let span = seen.header("traceparent").expect("the gateway's span reaches the provider");
    assert!(!span.contains("0af7651916cd43dd8448eb211c80319c"), "{span}");
    assert_eq!(seen.header("x-private"), None);
    let record = gateway.record().await;
    assert!(span.contains(record["trace_id"].as_str().unwrap()), "{span} {record}");
}

#[tokio::test]
async fn a_client_with_a_key_of_its_own_gets_no_second_one() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let key = "api_key = \"of-the-operator\"";
    let gateway = Gateway::new().provider_with("openai", &provider.url(), key).start().await;
    for (header, expected) in [
        ("x-api-key: theirs", None),
        ("api-key: theirs", None),
        ("authorization: Bearer theirs", Some("Bearer theirs")),
        ("x-other: 1", Some("Bearer of-the-operator")),
    ] {
        let request = format!("GET /v1/a HTTP/1.1\r\nHost: g\r\n{header}\r\n\r\n");
        assert_eq!(wire::ask(&gateway.url, request).await.unwrap().status, 200);
        assert_eq!(provider.requests().last().unwrap().header("authorization"), expected, "{header}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_upload_is_recorded_as_that_with_what_came() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    let head = "POST /v1/a HTTP/1.1\r\nHost: g\r\nContent-Type: text/plain\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 3000, "a".repeat(3000));
    for (number, (request, size)) in [
        (format!("{head}Content-Length: 1000\r\n\r\n{}", "a".repeat(400)), 400),
        (format!("{head}Content-Length: 1000000\r\n\r\n{}", "a".repeat(200_000)), 200_000),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}"), 3000),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = wire::connect(&gateway.url).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        wire::read_to_end(&mut stream).await;
        let records = gateway.wait_for_records(number + 1).await;
        let metadata = metadata(&records[number]);
        assert_eq!(metadata["end_reason"], "client_disconnect", "{metadata}");
        assert_eq!(metadata["request_size"], size, "{metadata}");
        assert!(metadata["status_code"].is_null() || metadata["status_code"] == 0, "{metadata}");
    }
}

#[tokio::test]
async fn an_upload_that_is_wrong_is_the_clients_fault_and_no_departure() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    let request = "POST /v1/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n";
    let reply = wire::ask(&gateway.url, request).await.unwrap();
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.text().contains("request_broken"), "{reply:?}");
    let record = gateway.record().await;
    assert_eq!(metadata(&record)["end_reason"], "gateway_error", "{record}");
    assert_eq!(metadata(&record)["request_size"], 2, "{record}");
}

/// What came before the fault is not lost, however quickly the fault follows.
#[tokio::test]
async fn what_came_before_an_answer_broke_reaches_the_client() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let provider = RawProvider::of(format!("{head}c\r\ndata: first\n\r\nc\r\ndata: secon\n\r\nzz\r\n")).await;
    let gateway = gateway(&provider.url()).await;
    let request = "GET /v1/a HTTP/1.1\r\nHost: g\r\n\r\n";
    let came = wire::exchange(&gateway.url, request).await;
    let reply = wire::replies(&came).remove(0);
    assert_eq!((reply.status, &*reply.text(), reply.is_whole), (200, "data: first\ndata: secon\n", false));
    let record = gateway.record().await;
    assert_eq!(metadata(&record)["end_reason"], "provider_error", "{record}");
}

#[tokio::test]
async fn a_request_that_is_cut_at_the_end_is_still_the_gateways_doing() {
    let provider = RawProvider::start(|_| vec![Step::wait(std::future::pending())]).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter();
    let mut gateway = gateway.server("shutdown_grace = \"100ms\"").start().await;
    let mut stream = wire::connect(&gateway.url).await;
    stream.write_all(b"GET /v1/a HTTP/1.1\r\nHost: g\r\n\r\n").await.unwrap();
    wait_for("the request at the provider", || async { (!provider.requests().is_empty()).then_some(()) })
        .await;
    gateway.signal(Signal::TERM);
    wire::read_to_end(&mut stream).await;
    assert_eq!(gateway.exit_code().await, Some(0));
    assert_eq!(metadata(&gateway.record().await)["end_reason"], "gateway_error");
}

#[tokio::test]
async fn a_body_of_unknown_size_over_http2_keeps_its_framing() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = gateway(&provider.url()).await;
    for method in ["POST", "GET", "DELETE"] {
        let url = format!("{}/v1/a", gateway.url);
        let request =
            Request::builder().method(method).uri(url).body(Full::new(Bytes::from("hello"))).unwrap();
        let answer = Client::http2().send(request).await;
        assert_eq!(answer.text(), format!("{method} /v1/a hello"));
    }
}
