//! The Datadog exporter in the real gateway, against a fake of Datadog.

use end_to_end::{Gateway, Provider, Reading, Running, Said, Scripted, wait_for};
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

/// Calls a tool, embeds, and refuses who says `x-limited`.
async fn provider_of_tools_and_embeddings() -> Scripted {
    let answer = json!({
        "id": "c", "object": "chat.completion", "model": "gpt-4o-2024-08-06",
        "choices": [{ "index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": null, "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } },
            ],
        } }],
        "usage": {
            "prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59,
            "prompt_tokens_details": { "cached_tokens": 22 },
            "completion_tokens_details": { "reasoning_tokens": 4 },
        },
    });
    let embedding = json!({
        "object": "list", "model": "embed", "data": [{ "index": 0, "embedding": [0.5, 0.25] }],
        "usage": { "prompt_tokens": 3, "total_tokens": 3 },
    });
    let refusal = json!({ "error": { "message": "Rate limit reached", "type": "rate_limit_exceeded" } });
    Scripted::start(Reading::ChunkedFirst, move |request| {
        let (status, body) = match request.head.lines().next().unwrap_or_default() {
            line if line.contains("/embeddings") => ("200 OK", &embedding),
            _ if request.head.contains("x-limited") => ("429 Too Many Requests", &refusal),
            _ => ("200 OK", &answer),
        };
        let (body, kind) = (body.to_string(), "content-type: application/json");
        let head = format!("HTTP/1.1 {status}\r\n{kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        Said::Keep((head + &body).into())
    })
    .await
}

#[tokio::test]
async fn a_conversation_with_tools_its_failure_and_an_embedding_are_spans_with_all_that_is_known() {
    let provider = provider_of_tools_and_embeddings().await;
    let fake = Datadog::start();
    let url = fake.url();
    let keys = format!(
        "[plugin.config]\nlogs_url = \"{url}\"\napi_url = \"{url}\"\nllm_observability = true\n\
         record_tags = {{ team = \"project_id\" }}\n"
    );
    let gateway = Gateway::new().provider("openai", &provider.url()).plugin("datadog", "datadog", &keys);
    let gateway = gateway.environment("DD_API_KEY", API_KEY).start().await;
    let asked = json!({
        "model": "gpt-4o", "temperature": 0.5, "max_tokens": 100, "messages": [{ "role": "user", "content": "Hello" }],
    });
    let trace = [
        ("x-project-id", "design"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    gateway.post_with(CHAT, asked.to_string(), &trace).await;
    gateway.post_with(CHAT, asked.to_string(), &[("x-limited", "yes")]).await;
    gateway.post("/v1/embeddings", json!({ "model": "embed", "input": ["a", "b"] }).to_string()).await;
    let spans =
        wait_for("three spans", || async { Some(fake.spans()).filter(|spans| spans.len() == 3) }).await;
    let span = |is: &dyn Fn(&Value) -> bool| spans.iter().find(|span| is(span)).unwrap();
    let chat = span(&|span| span["status"] == "ok" && span["meta"]["kind"] == "llm");
    let call =
        json!({ "name": "weather", "arguments": { "city": "Oslo" }, "tool_id": "c1", "type": "function" });
    for (pointer, expected) in [
        ("/meta/output/messages/0/tool_calls/0", call),
        ("/meta/metadata/temperature", json!(0.5)),
        ("/meta/metadata/max_tokens", json!(100)),
        ("/trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
        ("/parent_id", json!("b7ad6b7169203331")),
        ("/metrics/cache_read_input_tokens", json!(22.0)),
        ("/metrics/non_cached_input_tokens", json!(28.0)),
        ("/metrics/reasoning_output_tokens", json!(4.0)),
    ] {
        assert_eq!(chat.pointer(pointer), Some(&expected), "{pointer}: {chat:#}");
    }
    assert!(chat["tags"].as_array().unwrap().contains(&json!("team:design")), "{chat:#}");
    let failed = span(&|span| span["status"] == "error");
    let error = json!({ "message": "Rate limit reached", "type": "rate_limit_exceeded" });
    assert_eq!(failed["meta"]["error"], error, "{failed:#}");
    assert_eq!(failed["parent_id"], "undefined", "nobody called with a trace");
    let embedded = span(&|span| span["meta"]["kind"] == "embedding");
    assert_eq!(embedded["meta"]["input"], json!({ "documents": [{ "text": "a" }, { "text": "b" }] }));
    assert_eq!(embedded["meta"]["output"]["value"], "[1 embedding(s) of size 2]");
    let logs = logs(&fake, 3).await;
    let failed = logs.iter().find(|log| log["status"] == "error").unwrap();
    assert_eq!(failed["error"]["message"], "Rate limit reached", "{failed:#}");
    // The failure has the model that was asked for.
    let is_asked = |series: &Value| series["tags"].as_array().unwrap().contains(&json!("model:gpt-4o"));
    wait_for("the failure's metrics", || async { fake.distributions().iter().any(is_asked).then_some(()) })
        .await;
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
