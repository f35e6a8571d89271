//! The gateway's binary and the real plugin before a real OpenTelemetry Collector.

use std::collections::{BTreeMap, HashSet};

use end_to_end::{Collector, Gateway, Provider, Running};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A gateway whose exporter is set by OpenTelemetry's variables alone, but for `keys`.
async fn gateway(provider: &Provider, protocol: &str, endpoint: &str, keys: &str) -> Running {
    let keys = format!(
        "retry.initial = \"20ms\"\nretry.max = \"500ms\"\ncircuit_breaker.cool_down = \"100ms\"\n\
         circuit_breaker.max_cool_down = \"200ms\"\n{keys}"
    );
    Gateway::new()
        .provider("demo", &provider.url())
        .file_exporter()
        .plugin("otlp", "otlp", &keys)
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .environment("OTEL_EXPORTER_OTLP_TIMEOUT", "5000")
        .environment("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b,x-other=1")
        .environment("OTEL_RESOURCE_ATTRIBUTES", "team=llm,service.instance.id=gateway-1")
        .start()
        .await
}

fn question(model: &str, stream: bool) -> String {
    let mut question = json!({
        "model": model, "stream": stream, "messages": [{ "role": "user", "content": format!("Hello {model}") }],
    });
    if stream {
        question["stream_options"] = json!({ "include_usage": true });
    }
    question.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_spans_and_metrics_arrive_by_http() {
    let collector = Collector::start().await;
    check("http/protobuf", &collector, &collector.http_url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_spans_and_metrics_arrive_by_grpc() {
    let collector = Collector::start().await;
    check("grpc", &collector, &collector.grpc_url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_spans_and_metrics_arrive_as_json() {
    let collector = Collector::start().await;
    check("http/json", &collector, &collector.http_url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_of_traces_alone_is_sent_traces_alone() {
    let provider = Provider::start().await;
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::start_for(&["traces"]).await;
        let url = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        let gateway = gateway(&provider, protocol, &url, "").await;
        for number in 0..5 {
            gateway.post(CHAT, question(&format!("demo-words:{number}"), false)).await;
        }
        gateway.wait_for_books("otlp", |books| books["delivered"] == 5).await;
        assert_eq!((collector.spans().len(), collector.logs().len()), (5, 0), "{protocol}");
        let said = gateway.log();
        for signal in ["logs", "metrics"] {
            let lines = said.matches(&format!("the receiver takes no {signal}")).count();
            assert_eq!(lines, 1, "{protocol}: {said}");
        }
        assert!(said.contains("signals = [\"traces\"] makes this silent"), "{said}");
    }
}

async fn check(protocol: &str, collector: &Collector, url: &str) {
    let provider = Provider::start().await;
    let compression = if protocol == "grpc" { "zstd" } else { "gzip" };
    let keys = format!("config.capture_content = true\nconfig.compression = \"{compression}\"\n");
    let gateway = gateway(&provider, protocol, url, &keys).await;
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [
        ("traceparent", &*traceparent),
        ("x-organisation-id", "org_1"),
        ("x-user-id", "user_1"),
        ("x-thread-id", "thread_1"),
    ];
    gateway.post_with(CHAT, question("demo-words:7", false), &headers).await;
    gateway.post(CHAT, question("demo-words:9", true)).await;
    gateway.post(CHAT, question("demo-fail-429", false)).await;
    gateway.wait_for_books("otlp", |books| books["delivered"] == 3).await;

    let records = gateway.wait_for_records(3).await;
    let (logs, spans) = (collector.logs(), collector.spans());
    assert_eq!((logs.len(), spans.len()), (3, 3), "{}", collector.said());
    for record in &records {
        let log =
            logs.iter().find(|log| body(log)["attributes"]["id"] == record["attributes"]["id"]).unwrap();
        let span = spans.iter().find(|span| span["spanId"] == record["span_id"]).unwrap();
        check_log(record, log);
        check_span(record, span, log);
    }
    check_conversation(&spans);
    check_metrics(&records, &collector.metrics());
}

/// The body of a log record: the gateway's own log form, as text.
fn body(log: &Value) -> Value {
    serde_json::from_str(log["body"].as_str().unwrap()).unwrap()
}

fn check_log(record: &Value, log: &Value) {
    assert_eq!(body(log), *record, "the log that the file exporter wrote");
    assert_eq!(log["eventName"], "ai_gateway_request_log");
    assert_eq!((&log["traceId"], &log["spanId"]), (&record["trace_id"], &record["span_id"]));
    let is_error = record["attributes"]["metadata"]["status"] == "error";
    let severity = if is_error { (json!(17), json!("ERROR")) } else { (json!(9), json!("INFO")) };
    assert_eq!((log["severityNumber"].clone(), log["severityText"].clone()), severity);
    let uid = log["attributes"]["log.record.uid"].as_str().unwrap();
    assert_eq!(record["attributes"]["id"], format!("msg_{}", uid.replace('-', "")));
    check_resource(record, log);
}

fn check_resource(record: &Value, item: &Value) {
    let resource = &item["resource"]["attributes"];
    for (name, expected) in [
        ("service.name", &record["resource"]["service.name"]),
        ("service.version", &record["resource"]["service.version"]),
        ("deployment.environment.name", &record["resource"]["deployment.environment"]),
        ("service.instance.id", &json!("gateway-1")),
        ("team", &json!("llm")),
    ] {
        assert_eq!(resource[name], *expected, "{name}: {item:#}");
    }
    assert_eq!(item["scope"]["name"], "magicapi.gateway");
}

fn check_span(record: &Value, span: &Value, log: &Value) {
    check_resource(record, span);
    let attributes = &span["attributes"];
    let metadata = &record["attributes"]["metadata"];
    let model = record["attributes"]["request"]["model"].as_str().unwrap();
    assert_eq!((&span["name"], &span["kind"]), (&json!(format!("chat {model}")), &json!(3)));
    for (name, expected) in [
        ("gen_ai.operation.name", &json!("chat")),
        ("gen_ai.provider.name", &record["attributes"]["provider"]),
        ("gen_ai.request.model", &json!(model)),
        ("gen_ai.usage.input_tokens", &metadata["tokens"]["input"]),
        ("gen_ai.usage.output_tokens", &metadata["tokens"]["output"]),
        ("magicapi.organization.id", &record["attributes"]["org_id"]),
        ("user.id", &record["attributes"]["user_id"]),
        ("magicapi.record.id", &log["attributes"]["log.record.uid"]),
        ("url.path", &json!(CHAT)),
        ("openai.api.type", &json!("chat_completions")),
    ] {
        assert_eq!(attributes[name], *expected, "{name}: {span:#}");
        assert_eq!(log["attributes"][name], *expected, "{name}: {log:#}");
    }
    let nanoseconds = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let (start, end) = (nanoseconds(&span["startTimeUnixNano"]), nanoseconds(&span["endTimeUnixNano"]));
    assert_eq!(nanoseconds(&log["timeUnixNano"]), start);
    let latency = metadata["latency"].as_u64().unwrap() * 1_000_000;
    assert!((end - start).abs_diff(latency) <= 500_000, "{latency}: {span:#}");
    match model {
        "demo-words:7" => {
            assert_eq!(span["traceId"], TRACE);
            assert_eq!((&span["parentSpanId"], &span["flags"]), (&json!(CALLER), &json!(0x301)));
            assert_eq!(attributes["gen_ai.conversation.id"], "thread_1");
            assert_eq!(attributes.get("gen_ai.request.stream"), None);
        }
        "demo-words:9" => {
            assert_eq!(attributes["gen_ai.request.stream"], true);
            assert!(attributes["gen_ai.response.time_to_first_chunk"].as_f64().unwrap() > 0.0);
            assert_eq!(attributes.get("gen_ai.conversation.id"), None, "the gateway made the thread up");
        }
        _ => {
            assert_eq!(attributes["http.response.status_code"], 429);
            assert_eq!(
                (&span["status"]["code"], &span["status"]["message"]),
                (&json!(2), &attributes["error.type"])
            );
        }
    }
}

fn check_conversation(spans: &[Value]) {
    let said: HashSet<String> = spans
        .iter()
        .map(|span| {
            serde_json::from_str::<Value>(span["attributes"]["gen_ai.input.messages"].as_str().unwrap())
                .unwrap()
        })
        .map(|messages| messages[0]["parts"][0]["content"].as_str().unwrap().to_owned())
        .collect();
    let expected = ["demo-words:7", "demo-words:9", "demo-fail-429"].map(|model| format!("Hello {model}"));
    assert_eq!(said, HashSet::from(expected));
}

/// The last point of each series, by metric and attributes: a cumulative series is what its last point says.
fn last_points(metrics: &[Value], name: &str) -> BTreeMap<String, Value> {
    let of_name = metrics.iter().filter(|metric| metric["name"] == name);
    let points = of_name.flat_map(|metric| {
        assert_eq!(metric["histogram"]["aggregationTemporality"], 2, "{metric:#}");
        metric["histogram"]["dataPoints"].as_array().unwrap()
    });
    points.map(|point| (point["attributes"].to_string(), point.clone())).collect()
}

fn check_metrics(records: &[Value], metrics: &[Value]) {
    let count = |point: &Value| point["count"].as_str().unwrap().parse::<u64>().unwrap();
    let durations = last_points(metrics, "gen_ai.client.operation.duration");
    assert_eq!(durations.values().map(count).sum::<u64>(), 3, "{durations:#?}");
    let failed = durations.values().filter(|point| point["attributes"]["error.type"].is_string());
    assert_eq!(failed.map(count).sum::<u64>(), 1);
    let point = durations.values().next().unwrap();
    assert_eq!(
        point["explicitBounds"].as_array().unwrap().len() + 1,
        point["bucketCounts"].as_array().unwrap().len()
    );
    let tokens = last_points(metrics, "gen_ai.client.token.usage");
    for kind in ["input", "output"] {
        let of_kind = tokens.values().filter(|point| point["attributes"]["gen_ai.token.type"] == kind);
        let sum: f64 = of_kind.map(|point| point["sum"].as_f64().unwrap()).sum();
        let expected =
            records.iter().filter_map(|record| record["attributes"]["metadata"]["tokens"][kind].as_u64());
        assert_eq!(sum, f64::from(u32::try_from(expected.sum::<u64>()).unwrap()), "{kind}");
    }
    assert_eq!(last_points(metrics, "gen_ai.server.time_to_first_token").values().map(count).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_collector_did_not_take_arrives_when_it_is_back() {
    let provider = Provider::start().await;
    for protocol in ["http/protobuf", "grpc"] {
        let mut collector = Collector::start().await;
        let url = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        let gateway = gateway(&provider, protocol, &url, "").await;
        gateway.post(CHAT, question("demo-words:1", false)).await;
        gateway.wait_for_books("otlp", |books| books["delivered"] == 1).await;
        collector.kill();
        for number in 2..12 {
            gateway.post(CHAT, question(&format!("demo-words:{number}"), false)).await;
        }
        collector.start_again();
        gateway.wait_for_books("otlp", |books| books["delivered"] == 11).await;
        let ids = |items: Vec<Value>| -> HashSet<String> {
            items
                .iter()
                .map(|item| item["attributes"]["magicapi.record.id"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!((ids(collector.logs()).len(), ids(collector.spans()).len()), (11, 11), "{protocol}");
    }
}
