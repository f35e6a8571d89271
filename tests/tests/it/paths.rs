//! Paths that lead out of `/v1/` at the provider, where the operator's key may open more than a client may have.

use end_to_end::{Gateway, Reading, Running, Scripted, WebServer, wire};

/// Ways to write a dot segment; `admin` lies beside `v1`.
const LEAVING: &[&str] = &[
    "/v1/../admin/keys",
    "/v1/%2e%2e/admin/keys",
    "/v1/%2E%2E/admin/keys",
    "/v1/.%2e/admin/keys",
    "/v1/%2e./admin/keys",
    "/v1/..%2fadmin/keys",
    "/v1/..%2Fadmin%2Fkeys",
    "/v1/%2e%2e%2fadmin/keys",
    "/v1/x/../../admin/keys",
    "/v1/x%2f..%2f..%2fadmin/keys",
    "/v1//../admin/keys",
    "/v1/..\\admin\\keys",
    "/v1/..%5cadmin%5ckeys",
    "/v1/..;/admin/keys",
    "/v1/..;a=b/admin/keys",
    "/v1/%252e%252e/admin/keys",
    "/v1/%25252e%25252e%25252fadmin/keys",
    "/v1/..%00/admin/keys",
    "/v1/..%20/admin/keys",
    "/v1/%c0%ae%c0%ae/admin/keys",
    "/v1/./models",
    "/v1/models/.",
    "/v1/models/..",
    "/v1/models/..?x=1",
];

/// What a client may mean, and the provider must get byte for byte.
const STAYING: &[&str] = &[
    "/v1/models/meta-llama%2fLlama-3.1-8B",
    "/v1/models/org%2Fmodel%2Fv1.0",
    "/v1/models/gpt-4.1",
    "/v1/models/...",
    "/v1/models/.hidden",
    "/v1/files/a..b%20c",
    "/v1/models//x",
    "/v1/models/x?path=../../admin&y=%2e%2e",
];

async fn ask(gateway: &Running, path: &str) -> wire::Reply {
    wire::ask(&gateway.url, format!("GET {path} HTTP/1.1\r\nHost: g\r\n\r\n")).await.unwrap()
}

#[tokio::test]
async fn no_path_leads_to_what_lies_beside_the_api_at_nginx() {
    let nginx = WebServer::serving(
        "location /v1/ { return 200 \"the API\"; }
         location /admin/ { if ($http_authorization = 'Bearer of-the-operator') { return 200 \"all keys\"; } return 401; }",
    )
    .await;
    let key = "api_key = \"of-the-operator\"";
    let gateway = Gateway::new().provider_with("openai", &nginx.url(), key).start().await;
    for path in LEAVING {
        let reply = ask(&gateway, path).await;
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
        assert!(reply.text().contains("path_refused") && !reply.text().contains("all keys"), "{path}");
    }
    assert!(!nginx.access_log().contains("admin"), "{}", nginx.access_log());
    for path in STAYING {
        assert_eq!(ask(&gateway, path).await.text(), "the API", "{path}");
    }
}

#[tokio::test]
async fn other_paths_pass_byte_for_byte() {
    let provider = Scripted::echo(Reading::ChunkedFirst).await;
    let gateway = Gateway::new().provider("openai", &provider.url()).file_exporter().start().await;
    for path in STAYING {
        assert_eq!(ask(&gateway, path).await.text(), format!("GET {path} "));
    }
    ask(&gateway, LEAVING[1]).await;
    let records = gateway.wait_for_records(STAYING.len() + 1).await;
    let last = &records.last().unwrap()["attributes"]["metadata"];
    assert_eq!((&last["error_type"], &last["path"]), (&"path_refused".into(), &LEAVING[1].into()));
    assert_eq!(provider.requests().len(), STAYING.len());
}
