//! What the client port answers without a provider, to browsers and probes, and what it keeps from providers.

use end_to_end::{Ended, Gateway, Reading, Running, Said, Scripted, wire};

async fn ask(gateway: &Running, line: &str, headers: &str) -> wire::Reply {
    wire::ask(&gateway.url, format!("{line} HTTP/1.1\r\nHost: g\r\n{headers}\r\n")).await.unwrap()
}

const PREFLIGHT: &str = "access-control-request-method: POST\r\naccess-control-request-headers: \
                         authorization,content-type,x-stainless-lang\r\n";

#[tokio::test]
async fn probes_and_visitors_are_answered_without_a_record() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter().start().await;
    for (path, status, part) in
        [("/", 200, "/v1/"), ("/healthz", 200, "ok"), ("/readyz", 200, "true"), ("/favicon.ico", 204, "")]
    {
        let reply = ask(&gateway, &format!("GET {path}"), "").await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(reply.text().contains(part), "{path}: {reply:?}");
    }
    // A question to nobody is still a mistake worth a record.
    assert_eq!(ask(&gateway, "GET /elsewhere", "").await.status, 404);
    assert_eq!(ask(&gateway, "GET /v1/models", "").await.status, 200);
    let records = gateway.wait_for_records(2).await;
    let paths: Vec<_> = records.iter().map(|it| it["attributes"]["metadata"]["path"].clone()).collect();
    assert_eq!(paths, ["/elsewhere", "/v1/models"]);
}

#[tokio::test]
async fn pages_of_configured_origins_may_call_and_others_may_not() {
    let provider = Scripted::start(Reading::ChunkedFirst, |_| {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\naccess-control-allow-origin: *\r\nvary: accept\r\n";
        Said::Keep(format!("{head}\r\nhi").into())
    })
    .await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter();
    let gateway = gateway
        .section("[server.cors]\nallowed_origins = [\"https://app.example\"]\nmax_age = \"5m\"")
        .start();
    let gateway = gateway.await;
    let chat = "/v1/chat/completions";
    let ours = "origin: https://app.example\r\n";
    let theirs = "origin: https://evil.example\r\n";
    let allowed = |reply: &wire::Reply| reply.header("access-control-allow-origin").map(str::to_owned);

    let preflight = ask(&gateway, &format!("OPTIONS {chat}"), &format!("{ours}{PREFLIGHT}")).await;
    assert_eq!((preflight.status, allowed(&preflight).as_deref()), (204, Some("https://app.example")));
    let names = preflight.header("access-control-allow-headers").unwrap();
    assert!(names.contains("authorization") && names.contains("x-stainless-lang"), "{names}");
    assert_eq!(preflight.header("access-control-max-age"), Some("300"));
    let refused = ask(&gateway, &format!("OPTIONS {chat}"), &format!("{theirs}{PREFLIGHT}")).await;
    assert_eq!((refused.status, allowed(&refused)), (403, None));
    assert!(refused.text().contains("server.cors.allowed_origins"));
    assert_eq!(provider.requests().len(), 0);

    let answer = ask(&gateway, &format!("GET {chat}"), ours).await;
    assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some("https://app.example")));
    assert_eq!(answer.headers("vary").collect::<Vec<_>>(), ["accept", "origin"]);
    // The provider's own permission is not the gateway's.
    let answer = ask(&gateway, &format!("GET {chat}"), "").await;
    assert_eq!((answer.status, allowed(&answer)), (200, None));
    // What needs no preflight would spend the operator's key, though no page could read the answer.
    let form = "content-type: text/plain\r\n";
    for headers in [theirs, "sec-fetch-site: cross-site\r\n"] {
        let asked = provider.requests().len();
        let refused = ask(&gateway, &format!("POST {chat}"), &format!("{headers}{form}")).await;
        assert_eq!((refused.status, allowed(&refused)), (403, None), "{headers}");
        assert!(refused.text().contains("origin_refused"), "{}", refused.text());
        assert_eq!(provider.requests().len(), asked);
    }
    // A page may read why it failed, too.
    assert!(allowed(&ask(&gateway, "GET /elsewhere", ours).await).is_some());
    assert_eq!(gateway.wait_for_records(5).await.len(), 5, "preflights make no records");
}

#[tokio::test]
async fn without_configuration_no_page_may_call() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).start().await;
    let reply = ask(&gateway, "OPTIONS /v1/models", &format!("origin: null\r\n{PREFLIGHT}")).await;
    assert_eq!(reply.status, 403);
    // One that is no preflight is a request like any other.
    assert_eq!(ask(&gateway, "OPTIONS /v1/models", "").await.text(), "OPTIONS /v1/models ");
}

#[tokio::test]
async fn where_a_client_is_stays_here() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let private = "x-forwarded-for: 10.1.2.3\r\nX-Forwarded-Proto: https\r\nvia: 1.1 balancer\r\ncookie: session=1\r\n\
                   forwarded: for=10.1.2.3\r\nx-real-ip: 10.1.2.3\r\ncf-connecting-ip: 10.1.2.3\r\n";
    let wanted = "openai-beta: assistants=v2\r\nx-stainless-lang: python\r\nuser-agent: me\r\n";
    let gateway = Gateway::new().provider("openai", &provider.url()).start().await;
    ask(&gateway, "GET /v1/a", &format!("{private}{wanted}")).await;
    let seen = provider.requests().remove(0).head.to_ascii_lowercase();
    for name in ["forward", "via", "cookie", "10.1.2.3"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    for name in ["openai-beta", "x-stainless-lang", "user-agent"] {
        assert!(seen.contains(name), "{name}: {seen}");
    }

    let strips = "strip_headers = [\"x-stainless-*\"]";
    let gateway = Gateway::new().provider("openai", &provider.url()).proxy(strips).start().await;
    ask(&gateway, "GET /v1/a", &format!("{private}{wanted}")).await;
    let seen = provider.requests().remove(1).head.to_ascii_lowercase();
    assert!(seen.contains("via: 1.1 balancer") && !seen.contains("x-stainless-lang"), "{seen}");
}

#[tokio::test]
async fn what_is_no_origin_and_no_name_is_told_before_the_start() {
    let gateway = Gateway::new().provider("openai", "http://127.0.0.1:1").proxy("strip_headers = [\"x y\"]");
    let gateway = gateway.section("[server.cors]\nallowed_origins = [\"https://app.example/path\"]");
    let ended = Ended::of(gateway.command(&["check"])).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    for part in ["proxy.strip_headers[0]: \"x y\" is not a header's name", "is not an origin"] {
        assert!(ended.errors.contains(part), "{part}: {ended:?}");
    }
}
