//! The New Relic exporter in the real gateway, against a fake of New Relic.

use end_to_end::{Gateway, Provider, Running, wait_for};
use fake_backends::{
    Behaviour, Fault,
    newrelic::{LICENSE_KEY, NewRelic},
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn question(stream: bool) -> String {
    json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hello" }], "stream": stream })
        .to_string()
}

/// A gateway with the exporter, its key from the environment as the guide has it.
async fn gateway(provider: &Provider, fake: &NewRelic, settings: &str) -> Running {
    let url = fake.url();
    let keys = format!(
        "retry.initial = \"20ms\"\nretry.max = \"500ms\"\ncircuit_breaker.cool_down = \"100ms\"\n[plugin.config]\n\
         logs_url = \"{url}\"\nmetrics_url = \"{url}\"\n{settings}"
    );
    let gateway = Gateway::new().provider("demo", &provider.url()).plugin("newrelic", "newrelic", &keys);
    gateway.environment("NEW_RELIC_LICENSE_KEY", LICENSE_KEY).start().await
}

/// The number of requests that the metrics count.
fn counted(fake: &NewRelic) -> u64 {
    let points = fake.metrics().into_iter().filter(|point| point["name"] == "magicapi.requests");
    points.map(|point| point["value"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn requests_are_logs_and_metrics_in_new_relic() {
    let (provider, fake) = (Provider::start().await, NewRelic::start());
    let settings = "attributes = { team = \"llm\" }\nrecord_tags = { squad = \"project_id\" }\n";
    let gateway = gateway(&provider, &fake, settings).await;
    let answer = gateway.post_with(CHAT, question(false), &[("x-project-id", "design")]).await.json();
    gateway.post(CHAT, question(true)).await;
    gateway.wait_for_books("newrelic", |books| books["delivered"] == 2).await;
    let logs = fake.logs();
    let plain = logs.iter().find(|log| log["is_streaming"] == json!(false)).unwrap();
    let body = |name: &str| {
        let pieces = (0..).map_while(|piece| plain.get(format!("{name}.{piece}"))?.as_str());
        serde_json::from_str::<Value>(&pieces.collect::<String>()).unwrap()
    };
    assert_eq!(body("request")["messages"][0]["content"], "Hello");
    assert_eq!(body("response"), answer);
    assert_eq!((&plain["team"], &plain["squad"]), (&json!("llm"), &json!("design")));
    assert!(fake.metrics().iter().any(|point| point["attributes"]["squad"] == "design"));
    assert_eq!(plain["status_code"], json!(200));
    assert_eq!(plain["output_tokens"], answer["usage"]["completion_tokens"]);
    assert!(
        plain["message"].as_str().unwrap().starts_with("POST /v1/chat/completions 200 demo demo "),
        "{plain}"
    );
    assert!(plain["timestamp"].is_u64() && plain["id"].as_str().unwrap().len() == 36, "{plain}");
    assert_eq!(counted(&fake), 2);
    assert!(fake.integration_errors().is_empty() && fake.stored_logs().iter().all(|log| log.cut.is_empty()));
    assert!(!gateway.log().contains(LICENSE_KEY));
}

#[tokio::test]
async fn a_new_relic_that_takes_no_metrics_for_a_while_has_everything_once_afterwards() {
    let (provider, fake) = (Provider::start().await, NewRelic::start());
    let gateway = gateway(&provider, &fake, "").await;
    fake.fail_on("/metric/v1", Fault::status(503));
    for _ in 0..5 {
        gateway.post(CHAT, question(false)).await;
    }
    wait_for("a refusal", || async {
        gateway.plugin("newrelic").await["books"]["retries"].as_u64().filter(|n| *n > 0)
    })
    .await;
    fake.behave(Behaviour::Accept);
    gateway.wait_for_books("newrelic", |books| books["delivered"] == 5).await;
    assert_eq!((fake.logs().len(), fake.duplicates(), counted(&fake)), (5, vec![], 5));
}

#[tokio::test]
async fn a_failure_is_told_in_the_providers_words_under_the_model_that_was_asked_for() {
    let (provider, fake) = (Provider::start().await, NewRelic::start());
    let gateway = gateway(&provider, &fake, "").await;
    let failing = question(false).replace("\"demo\"", "\"demo-fail-429\"");
    let answer = gateway.post(CHAT, failing).await.json();
    gateway.wait_for_books("newrelic", |books| books["delivered"] == 1).await;
    let log = &fake.logs()[0];
    assert_eq!(log["error.message"], answer["error"]["message"], "{log:#?}");
    let model = |point: &Value| point["attributes"]["model"].clone();
    assert_eq!(fake.metrics().first().map(model), Some(json!("demo-fail-429")));
}

#[test]
fn the_region_of_japan_is_one() {
    let keys = "[plugin.config]\nregion = \"jp\"\nlogs_url = \"http://127.0.0.1:9\"\nmetrics_url = \"http://127.0.0.1:9\"\n";
    let gateway = Gateway::new().provider("demo", "http://127.0.0.1:9").plugin("newrelic", "newrelic", keys);
    let gateway = gateway.environment("NEW_RELIC_LICENSE_KEY", LICENSE_KEY);
    let output = gateway.command(&["check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_missing_license_key_is_an_error_that_names_the_variable() {
    let gateway = Gateway::new().provider("demo", "http://127.0.0.1:9").plugin("newrelic", "newrelic", "");
    let output = gateway.command(&["check"]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("NEW_RELIC_LICENSE_KEY"), "{said}");
}
