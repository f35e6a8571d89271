//! The operator's port: health, readiness, plugins, metrics.

use bytes::Bytes;
use end_to_end::{
    Answer, Gateway, Provider, Running,
    metrics::sum,
    tools::{Prometheus, promtool_check_metrics},
    wait_for,
};
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";

fn question(model: &str, stream: bool) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Hello" }], "stream": stream })
        .to_string()
}

/// A gateway with the three plugins of the house.
async fn with_plugins(provider: &Provider) -> Running {
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    gateway.plugin("console", "console", "").plugin("prometheus", "prometheus", "").start().await
}

/// Plain, streamed, refused, broken off: nine requests, each of which has reached every exporter.
async fn traffic(gateway: &Running) {
    for model in ["demo", "demo-no-usage", "demo-fail-500", "demo-fail-429", "demo-garbage"] {
        gateway.post(CHAT, question(model, false)).await;
    }
    for model in ["demo", "demo-words:50", "demo-error-event"] {
        gateway.post(CHAT, question(model, true)).await;
    }
    gateway.post_with(CHAT, question("demo", false), &[("x-provider", "nobody")]).await;
    for plugin in ["file", "console", "prometheus"] {
        gateway.wait_for_books(plugin, |books| books["delivered"] == 9).await;
    }
}

async fn ask(gateway: &Running, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("{}{path}", gateway.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.client.send(request.body(Full::<Bytes>::default()).unwrap()).await
}

#[tokio::test]
async fn alive_and_ready_without_any_plugin() {
    let gateway = Gateway::new().start().await;
    let (alive, ready) = (gateway.admin("/healthz").await, gateway.admin("/readyz").await);
    assert_eq!((alive.status.as_u16(), alive.json()), (200, json!({ "status": "ok" })));
    let nothing_to_wait_for = json!({ "ready": true, "stopping": false, "plugins": [] });
    assert_eq!((ready.status.as_u16(), ready.json()), (200, nothing_to_wait_for));
    assert_eq!(gateway.admin("/plugins").await.json(), json!({ "plugins": [] }));
}

#[tokio::test]
async fn a_required_plugin_that_is_stuck_is_named_and_ends_readiness_until_it_runs_again() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let gateway =
        gateway.plugin("stuck", "probe", "call_timeout = \"100ms\"\nconfig.script = [\"block:6s\", \"ok\"]");
    let gateway = gateway.start().await;
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    gateway.post(CHAT, question("demo", false)).await;
    let answer = wait_for("readiness to end", || async {
        Some(gateway.admin("/readyz").await).filter(|answer| answer.status == 503)
    })
    .await;
    let answer = answer.json();
    assert_eq!(answer["ready"], false);
    let find = |name: &str| {
        answer["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == name).unwrap()
    };
    let (sound, stuck) = (find("file"), find("stuck"));
    assert_eq!(
        (&sound["ready"], &sound["state"], &sound["reason"]),
        (&json!(true), &json!("running"), &json!(null))
    );
    assert_eq!(
        (&stuck["ready"], &stuck["required"], &stuck["state"]),
        (&json!(false), &json!(true), &json!("stuck"))
    );
    assert!(stuck["reason"].as_str().unwrap().starts_with("`export` has not returned for "), "{stuck}");
    let metrics = gateway.admin("/metrics").await.text();
    assert_eq!(sum(&metrics, "magicapi_plugin_up", &[("plugin", "stuck")]), 0.0);
    assert_eq!(sum(&metrics, "magicapi_plugin_up", &[("plugin", "file")]), 1.0);
    assert_eq!(gateway.admin("/healthz").await.status, 200, "it is alive all the same");
    wait_for("readiness to come back", || async {
        Some(gateway.admin("/readyz").await).filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn an_optional_plugin_that_is_stuck_leaves_the_gateway_ready() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url());
    let keys = "required = false\ncall_timeout = \"1ms\"\nconfig.script = [\"hang\"]";
    let gateway = gateway.plugin("extra", "probe", keys).start().await;
    gateway.post(CHAT, question("demo", false)).await;
    wait_for("the plugin to be stuck", || async {
        (gateway.plugin("extra").await["state"] == "stuck").then_some(())
    })
    .await;
    let ready = gateway.admin("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["plugins"][0]["ready"]), (200, &json!(false)));
}

#[tokio::test]
async fn each_plugin_is_shown_with_what_it_is_where_it_came_from_and_its_books() {
    let provider = Provider::start().await;
    let gateway = with_plugins(&provider).await;
    traffic(&gateway).await;
    let plugin = gateway.plugin("prometheus").await;
    assert_eq!(plugin["state"], "running");
    assert_eq!(plugin["descriptor"]["content"], "metadata");
    assert_eq!(plugin["descriptor"]["version"], "1.0.0");
    assert!(plugin["file"]["path"].as_str().unwrap().ends_with("libprometheus_exporter.so"), "{plugin}");
    assert_eq!(plugin["file"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(
        (&plugin["settings"]["batch"]["max_delay_ms"], &plugin["breaker"]),
        (&json!(10), &json!("closed"))
    );
    assert_eq!((&plugin["books"]["accepted"], &plugin["last_error"]), (&json!(9), &json!(null)));
}

#[tokio::test]
async fn with_a_token_only_what_probes_ask_is_open() {
    let gateway = Gateway::new().section("token = \"open-sesame\"").start().await;
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    let ready = ask(&gateway, "GET", "/readyz", &[]).await;
    assert_eq!((ready.status.as_u16(), ready.json()), (200, json!({ "ready": true })), "and no names");
    for path in ["/metrics", "/plugins", "/nothing"] {
        for headers in
            [&[][..], &[("authorization", "Bearer open-sesam")], &[("authorization", "Basic open-sesame")]]
        {
            let refused = ask(&gateway, "GET", path, headers).await;
            assert_eq!(
                (refused.status.as_u16(), refused.header("www-authenticate")),
                (401, "Bearer"),
                "{path}"
            );
            assert_eq!(refused.json(), json!({ "error": "a bearer token is required: admin.token" }));
        }
    }
    let bearer = [("authorization", "Bearer open-sesame")];
    for path in ["/readyz", "/metrics", "/plugins"] {
        assert_eq!(ask(&gateway, "GET", path, &bearer).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_the_port_does_not_have_is_answered_in_json() {
    let gateway = Gateway::new().start().await;
    let unknown = gateway.admin("/nothing").await;
    assert_eq!((unknown.status.as_u16(), unknown.header("content-type")), (404, "application/json"));
    assert_eq!(unknown.json(), json!({ "error": "there are /healthz, /readyz, /metrics and /plugins" }));
    let posted = ask(&gateway, "POST", "/metrics", &[]).await;
    assert_eq!((posted.status.as_u16(), posted.header("allow")), (405, "GET, HEAD"));
    assert_eq!(posted.json(), json!({ "error": "this port only answers GET" }));
    let head = ask(&gateway, "HEAD", "/plugins", &[]).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn the_linter_of_prometheus_has_nothing_to_say_against_the_metrics() {
    let provider = Provider::start().await;
    let gateway = with_plugins(&provider).await;
    let before = gateway.admin("/metrics").await.text();
    promtool_check_metrics(&before).unwrap();
    traffic(&gateway).await;
    let answer = gateway.admin("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    promtool_check_metrics(&answer.text()).unwrap();
    // Nothing that was to be linted is missing.
    let text = answer.text();
    assert_eq!(sum(&text, "magicapi_gateway_requests_total", &[]), 9.0);
    assert_eq!(sum(&text, "magicapi_llm_requests_total", &[]), 9.0);
    assert_eq!(sum(&text, "magicapi_exporter_delivered_records_total", &[]), 27.0);
}

#[tokio::test]
async fn open_metrics_come_when_asked_for_with_exemplars_and_their_end() {
    let provider = Provider::start().await;
    let gateway = with_plugins(&provider).await;
    traffic(&gateway).await;
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")];
    let answer = ask(&gateway, "GET", "/metrics", &accept).await;
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), expected);
    let text = answer.text();
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    assert!(text.contains("# TYPE magicapi_llm_requests counter\n"), "{text}");
    let is_exemplar = |line: &&str| line.starts_with("magicapi_llm_") && line.contains(" # {trace_id=\"");
    let exemplar = text.lines().find(is_exemplar).unwrap_or_else(|| panic!("no exemplar in\n{text}"));
    let trace = exemplar.split("trace_id=\"").nth(1).unwrap().split('"').next().unwrap();
    let leads_to_a_record = gateway.records().iter().any(|record| record["trace_id"] == trace);
    assert!(leads_to_a_record, "{exemplar}");
}

#[tokio::test]
async fn a_real_prometheus_scrapes_everything_and_answers_a_quantile_query() {
    let provider = Provider::start().await;
    let gateway = with_plugins(&provider).await;
    traffic(&gateway).await;
    let prometheus = Prometheus::scraping(&gateway.admin).await;
    prometheus.wait_for_scrape().await;
    let rate = |name: &str| format!("histogram_quantile(0.95, sum by (le) ({name}_bucket))");
    for name in ["magicapi_llm_request_duration_seconds", "magicapi_gateway_request_duration_seconds"] {
        let seconds = prometheus.wait_for_value(&rate(name)).await;
        assert!(seconds > 0.0 && seconds <= 81.92, "{name}: {seconds}");
    }
    assert_eq!(prometheus.wait_for_value("sum(magicapi_llm_requests_total)").await, 9.0);
    assert_eq!(prometheus.wait_for_value("sum(magicapi_plugin_up)").await, 3.0);
}

/// `accepted - (delivered + rejected + dropped + queued + in flight)`, and those in flight.
fn balance(exposition: &str, plugin: &str) -> (f64, f64) {
    let value = |name: &str| sum(exposition, &format!("magicapi_exporter_{name}"), &[("plugin", plugin)]);
    let in_flight = value("in_flight_records");
    let ended = ["delivered_records_total", "rejected_records_total", "dropped_records_total"].map(value);
    let known = ended.iter().sum::<f64>() + value("queue_records") + in_flight;
    (value("accepted_records_total") - known, in_flight)
}

#[tokio::test]
async fn the_books_balance_in_every_scrape_under_load() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    // One that judges records one by one and wants some again, and one that is too slow for its queue.
    let gateway = gateway.plugin("picky", "probe", "retry.initial = \"1ms\"\nconfig.script = [\"thirds\"]");
    let slow = "queue.max_records = 20\nbatch.max_records = 5\nconfig.script = [\"block:200ms\"]";
    let gateway = gateway.plugin("slow", "probe", slow).start().await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (client, url) = (gateway.client.clone(), format!("{}{CHAT}", gateway.url));
        clients.spawn(async move {
            for _ in 0..50 {
                client.send(end_to_end::client::post(&url, question("demo-fast", false), &[])).await;
            }
        });
    }
    let (mut scrapes, mut seen_in_flight) = (0, false);
    while scrapes < 10 || !clients.is_empty() {
        let text = gateway.admin("/metrics").await.text();
        for plugin in ["file", "picky", "slow"] {
            let (missing, in_flight) = balance(&text, plugin);
            assert_eq!(missing, 0.0, "{plugin} in scrape {scrapes}:\n{text}");
            seen_in_flight |= in_flight > 0.0;
        }
        scrapes += 1;
        while clients.try_join_next().is_some() {}
    }
    assert!(seen_in_flight, "{scrapes} scrapes, and none of them met a record on its way");
    for plugin in ["file", "picky", "slow"] {
        let books = gateway.wait_for_books(plugin, |books| books["accepted"] == 400).await;
        assert_eq!(books["balanced"], true, "{books}");
    }
    let dropped = gateway.metric("magicapi_exporter_dropped_records_total", &[("plugin", "slow")]).await;
    assert!(dropped > 0.0, "the slow one's queue was full");
}
