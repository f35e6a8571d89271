//! The official SDKs, unmodified, through the gateway to a real model: what the SDK saw is what the record says.

use end_to_end::{Gateway, Llm, Provider, Running, Sdk};
use serde_json::{Value, json};

/// A gateway before the real model.
async fn gateway() -> Running {
    Gateway::new().provider("llama", Llm::shared().url()).file_exporter().start().await
}

/// What holds for every call that got an answer: identity, status and model.
fn assert_same_exchange(record: &Value, seen: &Value) {
    let (attributes, metadata) = (&record["attributes"], &record["attributes"]["metadata"]);
    assert_eq!(metadata["status_code"], seen["status"], "{seen}");
    // llama.cpp gives its answers no id of its own, so they carry the record's.
    let id = seen["request_id"].as_str().unwrap().replace('-', "");
    assert_eq!(attributes["id"], format!("msg_{id}"));
    assert_eq!(attributes["provider"], "llama");
    assert_eq!(attributes["model"], Llm::MODEL);
    assert_eq!(metadata["request_model"], Llm::MODEL);
    assert_eq!((&metadata["end_reason"], &metadata["status"]), (&json!("complete"), &json!("success")));
    // Both SDKs write their JSON without spaces.
    assert_eq!(metadata["request_size"], attributes["request"].to_string().len());
}

fn assert_same_usage(record: &Value, usage: &Value) {
    let metadata = &record["attributes"]["metadata"];
    let of = |names: [&str; 2]| names.iter().find_map(|name| usage.get(*name)).cloned();
    let input = of(["prompt_tokens", "input_tokens"]).unwrap();
    let output = of(["completion_tokens", "output_tokens"]).unwrap_or_default();
    let tokens = json!({ "input": input, "output": output, "total": usage["total_tokens"] });
    assert_eq!(metadata["tokens"], tokens, "{usage}");
    assert!(input.as_u64() > Some(0));
    assert_eq!(metadata["usage_source"], "provider");
}

/// The Python SDK reads some whole numbers as fractions; they are the same numbers.
fn same_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(same_numbers).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), same_numbers(value))).collect()
        }
        other => other.clone(),
    }
}

fn assert_same(recorded: &Value, seen: &Value) {
    assert_eq!(same_numbers(recorded), same_numbers(seen));
}

/// A plain answer: the record carries the body that the SDK read.
async fn assert_plain(sdk: Sdk, scenario: &str) -> (Value, Value) {
    let gateway = gateway().await;
    let mut seen = sdk.call(scenario, &gateway.url).run().await;
    // The Node SDK puts this into what it read.
    seen["body"].as_object_mut().unwrap().remove("output_text");
    let record = gateway.record().await;
    assert_same_exchange(&record, &seen);
    assert_same_usage(&record, &seen["usage"]);
    assert_same(&record["attributes"]["response"], &seen["body"]);
    assert_eq!(record["attributes"]["metadata"]["is_streaming"], false);
    let size = record["attributes"]["metadata"]["response_size"].to_string();
    assert_eq!(seen["headers"]["content-length"], size);
    (record, seen)
}

#[tokio::test]
async fn a_chat_is_recorded_as_the_sdk_saw_it() {
    for sdk in Sdk::ALL {
        let (record, seen) = assert_plain(sdk, "chat").await;
        let choice = &record["attributes"]["response"]["choices"][0];
        assert!(!seen["text"].as_str().unwrap().is_empty());
        assert_eq!(choice["message"]["content"], seen["text"]);
        assert_eq!(choice["finish_reason"], seen["finish_reason"]);
        assert_eq!(record["attributes"]["response"]["id"], seen["id"]);
    }
}

#[tokio::test]
async fn embeddings_completions_and_responses_are_recorded_as_the_sdk_saw_them() {
    for sdk in Sdk::ALL {
        let (record, seen) = assert_plain(sdk, "embeddings").await;
        let vector = record["attributes"]["response"]["data"][0]["embedding"].as_array().unwrap();
        assert_eq!(seen["dimensions"], vector.len());
        let (record, seen) = assert_plain(sdk, "completions").await;
        assert_eq!(record["attributes"]["response"]["choices"][0]["text"], seen["text"]);
        let (record, seen) = assert_plain(sdk, "responses").await;
        assert_eq!(record["attributes"]["response"]["output"][0]["content"][0]["text"], seen["text"]);
    }
}

#[tokio::test]
async fn a_list_of_models_is_a_request_too() {
    for sdk in Sdk::ALL {
        let gateway = gateway().await;
        let seen = sdk.call("models", &gateway.url).run().await;
        assert_eq!(seen["models"], json!([Llm::MODEL]));
        let record = gateway.record().await;
        let metadata = &record["attributes"]["metadata"];
        assert_eq!((&metadata["path"], &metadata["method"]), (&json!("/v1/models"), &json!("GET")));
        assert_eq!(record["attributes"]["response"]["data"][0]["id"], Llm::MODEL);
        assert_eq!(metadata["tokens"], json!({ "input": null, "output": null, "total": null }));
    }
}

/// What a stream's record says beside what every record says: each chunk, and the answer that they add up to.
fn assert_same_stream(record: &Value, seen: &Value) {
    assert_same_exchange(record, seen);
    let metadata = &record["attributes"]["metadata"];
    assert_eq!(metadata["is_streaming"], true);
    assert_same(&record["attributes"]["response"]["streamed_data"], &seen["chunks"]);
    assert!(seen["chunk_count"].as_u64() > Some(3) && !seen["text"].as_str().unwrap().is_empty(), "{seen}");
    let (ttfb, ttft) = (metadata["ttfb"].as_f64().unwrap(), metadata["ttft"].as_f64().unwrap());
    assert!(0.0 < ttfb && ttfb <= ttft && ttft <= metadata["latency"].as_f64().unwrap() + 1.0, "{metadata}");
}

#[tokio::test]
async fn a_streamed_chat_is_recorded_as_the_sdk_saw_it() {
    for sdk in Sdk::ALL {
        let gateway = gateway().await;
        let seen = sdk.call("chat_stream", &gateway.url).run().await;
        let record = gateway.record().await;
        assert_same_stream(&record, &seen);
        assert_same_usage(&record, &seen["usage"]);
        let response = &record["attributes"]["response"];
        assert_eq!(response["choices"][0]["delta"]["content"], seen["text"]);
        assert_eq!(response["choices"][0]["finish_reason"], seen["finish_reason"]);
        assert_eq!(response["id"], seen["id"]);
        assert_same(&response["usage"], &seen["usage"]);
    }
}

#[tokio::test]
async fn usage_that_nobody_asked_for_is_unknown_and_not_guessed() {
    for sdk in Sdk::ALL {
        let gateway = gateway().await;
        let seen = sdk.call("chat_stream", &gateway.url).without_usage().run().await;
        let record = gateway.record().await;
        assert_same_stream(&record, &seen);
        assert!(seen["usage"].is_null());
        let metadata = &record["attributes"]["metadata"];
        assert_eq!(metadata["tokens"], json!({ "input": null, "output": null, "total": null }));
        assert_eq!(metadata["usage_source"], "none");
        assert_eq!(record["attributes"]["response"]["choices"][0]["delta"]["content"], seen["text"]);
    }
}

#[tokio::test]
async fn a_streamed_response_is_recorded_as_the_sdk_saw_it() {
    for sdk in Sdk::ALL {
        let gateway = gateway().await;
        let seen = sdk.call("responses_stream", &gateway.url).run().await;
        let record = gateway.record().await;
        assert_same_stream(&record, &seen);
        assert_same_usage(&record, &seen["usage"]);
        let response = &record["attributes"]["response"];
        assert_eq!(response["output"][0]["content"][0]["text"], seen["text"]);
        assert_eq!(response["id"], seen["id"]);
        assert_eq!(response["status"], seen["finish_reason"]);
    }
}

#[tokio::test]
async fn a_stream_that_the_sdk_cuts_is_recorded_as_far_as_it_came() {
    for sdk in Sdk::ALL {
        let gateway = gateway().await;
        let seen = sdk.call("cut", &gateway.url).max_tokens(400).run().await;
        let record = gateway.record().await;
        let metadata = &record["attributes"]["metadata"];
        let end = (&metadata["end_reason"], &metadata["status"], &metadata["status_code"]);
        assert_eq!(end, (&json!("client_disconnect"), &json!("error"), &json!(200)));
        let chunks = seen["chunks"].as_array().unwrap();
        let recorded = record["attributes"]["response"]["streamed_data"].as_array().unwrap();
        assert!(chunks.len() == 2 && (2..400).contains(&recorded.len()), "{} chunks", recorded.len());
        assert_same(&json!(recorded[..2]), &seen["chunks"]);
        assert_eq!(metadata["usage_source"], "none");
    }
}

#[tokio::test]
async fn an_error_of_the_provider_is_the_same_error_to_the_sdk() {
    for sdk in Sdk::ALL {
        let gateway = gateway().await;
        let direct = sdk.call("error", Llm::shared().url()).run().await;
        let seen = sdk.call("error", &gateway.url).run().await;
        for key in ["class", "message", "type", "code", "param", "body", "status"] {
            assert_eq!(seen["error"][key], direct["error"][key], "{key}");
        }
        let record = gateway.record().await;
        let metadata = &record["attributes"]["metadata"];
        assert_same(&record["attributes"]["response"]["error"], &seen["error"]["body"]);
        assert_eq!(metadata["provider_status_code"], seen["error"]["status"]);
        assert_eq!(metadata["provider_error_type"], seen["error"]["type"]);
        assert_eq!((&metadata["status"], &metadata["provider_error_count"]), (&json!("error"), &json!(1)));
        let id = seen["error"]["request_id"].as_str().unwrap().replace('-', "");
        assert_eq!(record["attributes"]["id"], format!("msg_{id}"));
    }
}

#[tokio::test]
async fn an_error_of_the_gateways_is_an_error_that_the_sdk_knows() {
    for sdk in Sdk::ALL {
        let provider = Provider::start().await;
        let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
        let seen = sdk.call("chat", &gateway.url).header("x-provider", "nobody").run().await;
        let error = &seen["error"];
        assert_eq!((&error["class"], &error["status"]), (&json!("BadRequestError"), &json!(400)), "{seen}");
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("unknown_provider"), &json!("invalid_request_error"))
        );
        let record = gateway.record().await;
        assert_eq!(record["attributes"]["metadata"]["error_type"], "unknown_provider");
        assert_eq!(record["attributes"]["metadata"]["end_reason"], "gateway_error");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error_to_the_sdk() {
    for sdk in Sdk::ALL {
        for model in ["demo-cut", "demo-error-event"] {
            let provider = Provider::start().await;
            let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
            let seen = sdk.call("chat_stream", &gateway.url).model(model).run().await;
            assert!(seen["error"]["class"].is_string(), "{model} seems whole to {sdk:?}: {seen}");
            let record = gateway.record().await;
            let metadata = &record["attributes"]["metadata"];
            assert_eq!(
                (&metadata["end_reason"], &metadata["status"]),
                (&json!("provider_error"), &json!("error"))
            );
            let recorded = record["attributes"]["response"]["streamed_data"].as_array().unwrap();
            let chunks = seen["chunks"].as_array().unwrap();
            assert_same(&json!(recorded[..chunks.len()]), &seen["chunks"]);
        }
    }
}

#[tokio::test]
async fn what_the_sdk_says_of_itself_and_its_user_is_in_the_record() {
    for sdk in Sdk::ALL {
        let provider = Provider::start().await;
        let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
        let call =
            sdk.call("chat", &gateway.url).model("demo").prompt("Grüße, 日本").api_key("sk-of-the-client");
        let seen = call.header("x-user-id", "user_456").header("x-thread-id", "thread_29").run().await;
        let record = gateway.record().await;
        let attributes = &record["attributes"];
        assert_eq!(
            (&attributes["user_id"], &attributes["thread_id"]),
            (&json!("user_456"), &json!("thread_29"))
        );
        assert_eq!(attributes["request"]["messages"][0]["content"], "Grüße, 日本");
        assert_eq!(attributes["response"]["choices"][0]["message"]["content"], seen["text"]);
        assert_eq!(attributes["metadata"]["provider_request_id"], seen["request_id"]);
        assert!(
            !record.to_string().contains("sk-of-the-client") && !gateway.log().contains("sk-of-the-client")
        );
    }
}
