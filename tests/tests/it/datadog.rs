//! The Datadog exporter in the real gateway, against a fake of Datadog.

use end_to_end::{Gateway, Provider, Running, wait_for};
use fake_backends::{
    Fault,
    datadog::{API_KEY, Datadog},
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn question(stream: bool) -> String {
    json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hello" }], "stream": stream })
        .to_string()
}

/// A gateway with the exporter, its key from the environment as the guide has it.
async fn gateway(provider: &Provider, fake: &Datadog, settings: &str) -> Running {
    let url = fake.url();
    let keys = format!(
        "circuit_breaker.cool_down = \"100ms\"\n[plugin.config]\nlogs_url = \"{url}\"\napi_url = \"{url}\"\n{settings}"
    );
    let gateway = Gateway::new().provider("demo", &provider.url()).plugin("datadog", "datadog", &keys);
    gateway
        .environment("DD_API_KEY", API_KEY)
        .environment("DD_ENV", "test")
        .environment("DD_TAGS", "team:llm,a:b")
        .start()
        .await
}

/// The log entries, once there are so many.
async fn logs(fake: &Datadog, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} logs in Datadog"), || async {
        Some(fake.logs()).filter(|logs| logs.len() >= count)
    })
    .await
}

#[tokio::test]
async fn requests_are_logs_metrics_and_spans_in_datadog() {
    let (provider, fake) = (Provider::start().await, Datadog::start());
    let gateway = gateway(&provider, &fake, "llm_observability = true\nservice = \"shop\"\n").await;
    let answer = gateway.post(CHAT, question(false)).await.json();
    gateway.post(CHAT, question(true)).await;
    let logs = logs(&fake, 2).await;
    let plain =
        logs.iter().find(|log| log["attributes"]["metadata"]["is_streaming"] == json!(false)).unwrap();
    assert_eq!(plain["attributes"]["response"], answer);
    assert_eq!((&plain["service"], &plain["http"]["status_code"]), (&json!("shop"), &json!(200)));
    let tags = plain["ddtags"].as_str().unwrap();
    assert!(tags.starts_with("env:test,") && tags.ends_with(",team:llm,a:b"), "{tags}");
    assert!(
        plain["message"].as_str().unwrap().starts_with("POST /v1/chat/completions 200 demo demo "),
        "{plain}"
    );
    let spans = wait_for("two spans", || async { Some(fake.spans()).filter(|spans| spans.len() == 2) }).await;
    for span in &spans {
        assert_eq!(
            span["meta"]["input"]["messages"],
            json!([{ "role": "user", "content": "Hello" }]),
            "{span:#}"
        );
        assert!(span["meta"]["output"]["messages"][0]["content"].is_string(), "{span:#}");
        assert_eq!(span["_payload"]["ml_app"], "shop");
    }
    let is_duration = |series: &Value| series["metric"] == "magicapi.request.duration";
    assert!(fake.distributions().iter().any(is_duration));
}

#[tokio::test]
async fn a_datadog_that_takes_no_metrics_for_a_while_has_everything_once_afterwards() {
    let (provider, fake) = (Provider::start().await, Datadog::start());
    let gateway = gateway(&provider, &fake, "").await;
    fake.fail_on("/api/v1/distribution_points", Fault::status(503));
    for _ in 0..5 {
        gateway.post(CHAT, question(false)).await;
    }
    logs(&fake, 1).await;
    fake.behave(fake_backends::Behaviour::Accept);
    let durations = || async {
        let all =
            fake.distributions().into_iter().filter(|series| series["metric"] == "magicapi.request.duration");
        let points = all.flat_map(|series| series["points"].as_array().unwrap().clone());
        let count: usize = points.map(|point| point[1].as_array().unwrap().len()).sum();
        (count >= 5).then_some(count)
    };
    assert_eq!(wait_for("the metrics of five requests", durations).await, 5);
    logs(&fake, 5).await;
    assert_eq!((fake.logs().len(), fake.duplicates()), (5, vec![]));
}

#[test]
fn a_missing_key_is_an_error_that_names_the_variable() {
    let gateway = Gateway::new().provider("demo", "http://127.0.0.1:9").plugin("datadog", "datadog", "");
    let output = gateway.command(&["check"]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("DD_API_KEY"), "{said}");
}
