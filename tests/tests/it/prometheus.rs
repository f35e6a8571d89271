//! The Prometheus exporter in the real gateway: metrics of one's own, models of failures, several instances, and a real
//! Prometheus that has everything the dashboard asks for.

use end_to_end::{
    Gateway, Provider, Running, artifacts,
    metrics::sum,
    scripted::{Reading, Said, Scripted, ok},
    tools::{Prometheus, promtool_check_metrics},
    wait_for,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn question(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Hello" }] }).to_string()
}

/// Answers `gpt-4o` as its dated model, with the queue time that some providers report; anything else with 429.
async fn provider() -> Scripted {
    let answer = json!({
        "id": "c", "object": "chat.completion", "model": "gpt-4o-2024-08-06", "service_tier": "flex",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "Hi" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "queue_ms": 250 },
    });
    let refusal = json!({ "error": { "message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded" } });
    let refusal = refusal.to_string();
    let limited = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{refusal}",
        refusal.len()
    );
    Scripted::start(Reading::ChunkedFirst, move |request| {
        let is_limited = request.head.to_ascii_lowercase().contains("x-limited: yes");
        Said::Keep(if is_limited { limited.clone().into() } else { json_ok(&answer) })
    })
    .await
}

fn json_ok(answer: &Value) -> bytes::Bytes {
    let text = String::from_utf8(ok(&answer.to_string()).to_vec()).unwrap();
    text.replacen("\r\n", "\r\ncontent-type: application/json\r\n", 1).into()
}

async fn scrape_after(gateway: &Running, plugin: &str, delivered: usize) -> String {
    gateway.wait_for_books(plugin, |books| books["delivered"] == delivered).await;
    gateway.admin("/metrics").await.text()
}

/// Settings with a metric and a label that read bodies.
const READS_BODIES: &str = "[plugin.config]\nrecord_tags = { tier = \"response:/service_tier\" }\n\
    [[plugin.config.metrics]]\nname = \"queue_seconds\"\nkind = \"gauge\"\nhelp = \"Queued.\"\n\
    value = \"response:/usage/queue_ms\"\nscale = 0.001\n";

#[tokio::test]
async fn metrics_and_labels_that_read_bodies_have_values_without_further_settings() {
    let provider = provider().await;
    let gateway = Gateway::new().provider("openai", &provider.url());
    let gateway = gateway
        .plugin("numbers", "prometheus", READS_BODIES)
        .plugin("plain", "prometheus", "[plugin.config]\nprefix = \"plain_\"\n")
        .start()
        .await;
    gateway.post(CHAT, question("gpt-4o")).await;
    let text = scrape_after(&gateway, "numbers", 1).await;
    assert_eq!(sum(&text, "magicapi_llm_queue_seconds", &[("model", "gpt-4o-2024-08-06")]), 0.25, "{text}");
    assert_eq!(sum(&text, "magicapi_llm_requests_total", &[("tier", "flex")]), 1.0, "{text}");
    // Who needs no body is shown none.
    assert_eq!(gateway.plugin("numbers").await["settings"]["content"], "full");
    assert_eq!(gateway.plugin("plain").await["settings"]["content"], "metadata");
}

#[test]
fn what_an_entry_forbids_is_told_with_the_setting_that_needs_it() {
    let metric = READS_BODIES.split_once("[[").map(|(_, metric)| format!("[[{metric}")).unwrap();
    let label = "[plugin.config]\nrecord_tags = { team = \"project_id\" }\n";
    for (content, settings, expected) in [
        ("metadata", &*metric, Some("metrics: `queue_seconds`: it reads `response:/usage/queue_ms`")),
        ("metadata", READS_BODIES, Some("record_tags: `tier` shows `response:/service_tier`")),
        ("none", label, Some("record_tags: `team` shows `project_id`")),
        ("metadata", label, None),
        ("none", "", None),
        ("full", READS_BODIES, None),
    ] {
        let keys = format!("content = \"{content}\"\n{settings}");
        let gateway =
            Gateway::new().provider("demo", "http://127.0.0.1:9").plugin("numbers", "prometheus", &keys);
        for command in [&["check"][..], &["check", "--json"]] {
            let output = gateway.command(command).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let said = said.replace("\\\"", "\"");
            assert_eq!(output.status.success(), expected.is_none(), "{content} {settings}: {said}");
            let Some(expected) = expected else { continue };
            let forbidden = format!("content: \"{content}\" keeps from the plugin what its settings need: ");
            assert!(said.contains(&forbidden) && said.contains(expected), "{said}");
            assert!(said.contains("plugin \"numbers\"") && said.contains("set content = \""), "{said}");
        }
    }
}

#[tokio::test]
async fn failures_have_the_model_that_was_asked_for() {
    let provider = provider().await;
    let gateway = Gateway::new().provider("openai", &provider.url());
    let gateway = gateway.plugin("numbers", "prometheus", "[plugin.config]\nmax_models = 3\n").start().await;
    for _ in 0..7 {
        gateway.post(CHAT, question("gpt-4o")).await;
    }
    for model in ["gpt-4o", "gpt-4o", "junk-1", "junk-2"] {
        gateway.post_with(CHAT, question(model), &[("x-limited", "yes")]).await;
    }
    let text = scrape_after(&gateway, "numbers", 11).await;
    let requests = |labels: &[(&str, &str)]| sum(&text, "magicapi_llm_requests_total", labels);
    assert_eq!(requests(&[("model", "gpt-4o-2024-08-06"), ("status", "success")]), 7.0, "{text}");
    assert_eq!(requests(&[("model", "gpt-4o"), ("status", "error")]), 2.0, "{text}");
    assert_eq!(sum(&text, "magicapi_llm_errors_total", &[("model", "gpt-4o")]), 2.0);
    assert_eq!(requests(&[("model", "other")]), 2.0, "what was never answered has no place: {text}");
    assert_eq!(requests(&[]), 11.0);
}

#[tokio::test]
async fn two_instances_with_one_prefix_are_told_apart_by_a_label() {
    let provider = provider().await;
    let gateway = Gateway::new().provider("openai", &provider.url());
    let gateway = gateway
        .plugin("all", "prometheus", "")
        .plugin("teams", "prometheus", "[plugin.config]\nrecord_tags = { team = \"project_id\" }\n")
        .start()
        .await;
    gateway.post_with(CHAT, question("gpt-4o"), &[("x-project-id", "design")]).await;
    scrape_after(&gateway, "all", 1).await;
    let text = scrape_after(&gateway, "teams", 1).await;
    let requests = |labels: &[(&str, &str)]| sum(&text, "magicapi_llm_requests_total", labels);
    assert_eq!((requests(&[("plugin", "all")]), requests(&[("plugin", "teams")])), (1.0, 1.0), "{text}");
    assert_eq!(requests(&[("plugin", "teams"), ("team", "design")]), 1.0, "{text}");
    promtool_check_metrics(&text).unwrap();
    // A real Prometheus takes it, in the newer format, too.
    let prometheus = Prometheus::scraping(&gateway.admin).await;
    prometheus.wait_for_scrape().await;
    assert_eq!(
        prometheus.wait_for_value("count(count by (plugin) (magicapi_llm_requests_total))").await,
        2.0
    );
}

/// The queries of the dashboard, with the titles of their panels.
fn queries() -> Vec<(String, String)> {
    let file = artifacts::checkout().join("examples/compose/grafana/dashboards/magicapi-gateway.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            queries.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    queries
}

#[tokio::test]
async fn no_panel_of_the_dashboard_stays_empty() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url());
    let gateway = gateway
        .plugin("numbers", "prometheus", "")
        .plugin("refusing", "probe", "config.script = [\"reject_each\"]")
        .start()
        .await;
    let prometheus = Prometheus::scraping(&gateway.admin).await;
    let queries = queries();
    assert!(queries.len() > 15, "{queries:?}");
    wait_for("something in every panel", || async {
        // A rate needs a value that grows between two scrapes.
        for (model, stream) in [("demo", false), ("demo", true), ("demo-fail-429", false)] {
            let body = json!({
                "model": model, "stream": stream, "messages": [{ "role": "user", "content": "Hello" }],
            });
            gateway.post(CHAT, body.to_string()).await;
        }
        for (title, expression) in &queries {
            let result = prometheus.query(expression).await;
            let is_number = |series: &Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
            if !result.as_array().unwrap().iter().any(is_number) {
                eprintln!("nothing yet in {title}: {expression}");
                return None;
            }
        }
        Some(())
    })
    .await;
}
