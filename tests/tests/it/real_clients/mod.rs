//! Eight unmodified clients: what each returned to its caller is what the records say, field by field, against a scripted
//! provider and a real model.

mod provider;
mod table;
mod told;

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use end_to_end::{Gateway, Llm, RealClient, Running, Scripted, raw_provider::RawRequest};
use serde_json::{Value, json};

use self::{
    table::{Row, row},
    told::{differences, told},
};

#[tokio::test]
async fn openai_for_python_returns_what_is_recorded() {
    compare(RealClient::OpenaiPython).await;
}

#[tokio::test]
async fn openai_for_node_returns_what_is_recorded() {
    compare(RealClient::OpenaiNode).await;
}

#[tokio::test]
async fn langchain_returns_what_is_recorded() {
    compare(RealClient::LangChain).await;
}

#[tokio::test]
async fn vercel_ai_returns_what_is_recorded() {
    compare(RealClient::VercelAi).await;
}

#[tokio::test]
async fn litellm_returns_what_is_recorded() {
    compare(RealClient::LiteLlm).await;
}

#[tokio::test]
async fn openai_agents_returns_what_is_recorded() {
    compare(RealClient::OpenaiAgents).await;
}

#[tokio::test]
async fn pydantic_ai_returns_what_is_recorded() {
    compare(RealClient::PydanticAi).await;
}

#[tokio::test]
async fn instructor_returns_what_is_recorded() {
    compare(RealClient::Instructor).await;
}

/// All calls of a client, by one process of its own: first of the scripted provider, then of the model.
async fn compare(client: RealClient) {
    let row = row(client);
    let scripted = provider::start().await;
    let before_script = Gateway::new().provider("script", &scripted.url()).file_exporter().start().await;
    let before_model = Gateway::new().provider("llama", Llm::shared().url()).file_exporter().start().await;
    let call = |gateway: &Running, scenario: &str, model: &str| json!({ "scenario": scenario, "base_url": format!("{}/v1", gateway.url), "model": model });
    let mut calls: Vec<_> = row.scenarios().map(|name| call(&before_script, name, asked(name))).collect();
    calls.extend(row.real.iter().map(|name| call(&before_model, name, Llm::MODEL)));
    let mut seen = client.run(calls).await;
    let of_model = seen.split_off(row.scenarios().count());

    let mut wrong = against_provider(&before_script, &scripted).await;
    wrong.extend(against_client(&before_script, &row, &seen).await);
    wrong.extend(against_client(&before_model, &row, &of_model).await);
    assert!(wrong.is_empty(), "{client:?}:\n{}", wrong.join("\n"));
}

/// The model that a scenario asks of the scripted provider.
fn asked(scenario: &str) -> &'static str {
    match scenario {
        "embeddings" => "text-embedding-3-small",
        "transcription" => "gpt-4o-mini-transcribe",
        "speech" => "gpt-4o-mini-tts",
        _ => provider::MODEL,
    }
}

/// The records of a gateway in the order of their requests.
async fn records(gateway: &Running, count: usize) -> Vec<Value> {
    let mut records = gateway.wait_for_records(count).await;
    records.sort_by_key(|record| record["attributes"]["id"].to_string());
    records
}

/// Sizes and bodies, as the provider got and sent them.
async fn against_provider(gateway: &Running, scripted: &Scripted) -> Vec<String> {
    let requests = scripted.requests();
    let records = records(gateway, requests.len()).await;
    assert_eq!(records.len(), requests.len(), "one request makes one record");
    let pairs = records.iter().zip(&requests);
    pairs.flat_map(|(record, request)| unlike_the_provider(record, request)).collect()
}

fn unlike_the_provider(record: &Value, request: &RawRequest) -> Vec<String> {
    let (attributes, metadata) = (&record["attributes"], &record["attributes"]["metadata"]);
    let path = request.head.split(' ').nth(1).unwrap();
    let sent = provider::answer(request).body;
    let mut pairs = vec![
        ("path", &metadata["path"], json!(path)),
        ("request_size", &metadata["request_size"], json!(request.body.len())),
        ("response_size", &metadata["response_size"], json!(sent.len())),
        ("provider_request_id", &metadata["provider_request_id"], json!(provider::REQUEST_ID)),
    ];
    if let Ok(body) = serde_json::from_slice::<Value>(&request.body) {
        pairs.push(("request_model", &metadata["request_model"], body["model"].clone()));
        pairs.push(("request", &attributes["request"], body));
    }
    if let Ok(body) = serde_json::from_slice::<Value>(&sent) {
        pairs.push(("response", &attributes["response"], body));
    }
    let scenario = &attributes["thread_id"];
    let unlike = pairs.into_iter().filter(|(_, recorded, right)| *recorded != right);
    unlike
        .map(|(key, recorded, right)| format!("{scenario} {key}: record {recorded}, provider {right}"))
        .collect()
}

async fn against_client(gateway: &Running, row: &Row, seen: &[Value]) -> Vec<String> {
    let count = seen.iter().filter_map(|seen| seen["exchanges"].as_array()).map(Vec::len).sum();
    let mut of_scenario = BTreeMap::<String, Vec<Value>>::new();
    for record in records(gateway, count).await {
        let thread = record["attributes"]["thread_id"].as_str().unwrap().to_owned();
        of_scenario.entry(thread).or_default().push(record);
    }
    seen.iter()
        .flat_map(|seen| {
            let scenario = seen["scenario"].as_str().unwrap();
            let records = of_scenario.get(scenario).map_or(&[][..], Vec::as_slice);
            let wrong = unlike_the_client(scenario, records, row, seen);
            wrong.into_iter().map(move |wrong| format!("{scenario}: {wrong}"))
        })
        .collect()
}

fn unlike_the_client(scenario: &str, records: &[Value], row: &Row, seen: &Value) -> Vec<String> {
    let Some(exchanges) = seen["exchanges"].as_array() else {
        return vec![format!("the client failed: {}", seen["error"].as_str().unwrap_or_default())];
    };
    if exchanges.len() != records.len() {
        return vec![format!("{} exchanges, {} records", exchanges.len(), records.len())];
    }
    let mut wrong: Vec<_> = records.iter().flat_map(|record| unlike_a_success(scenario, record)).collect();
    for (record, exchange) in records.iter().zip(exchanges) {
        let (different, silent) = differences(&told(record), exchange);
        wrong.extend(different);
        wrong.extend(unexpected_silence(scenario, row, &silent));
    }
    if let Some(last) = records.last() {
        wrong.extend(unlike_the_result(last, seen));
    }
    wrong
}

fn unlike_a_success(scenario: &str, record: &Value) -> Option<String> {
    let metadata = &record["attributes"]["metadata"];
    let keys = ["status_code", "status", "end_reason", "is_streaming", "error_type"];
    let recorded: Vec<_> = keys.iter().map(|key| &metadata[*key]).collect();
    let right = json!([200, "success", "complete", scenario.ends_with("_stream"), null]);
    (json!(recorded) != right).then(|| format!("{keys:?}: record {recorded:?}, right {right}"))
}

/// What a client does not say must be known, so that a comparison cannot become empty.
fn unexpected_silence(scenario: &str, row: &Row, silent: &[&str]) -> Option<String> {
    let known =
        row.silent.iter().find(|(name, _)| [scenario, "*"].contains(name)).map_or(&[][..], |(_, keys)| keys);
    let is_known = silent.iter().all(|key| known.contains(key));
    (!is_known).then(|| format!("the client says nothing of {silent:?}"))
}

/// What a client makes of the last answer: a structure, vectors, sound, a file.
fn unlike_the_result(record: &Value, seen: &Value) -> Vec<String> {
    let (response, metadata) = (&record["attributes"]["response"], &record["attributes"]["metadata"]);
    let told = told(record);
    let results = [
        ("parsed", structure(&told)),
        ("bytes", metadata["response_body"]["size"].clone()),
        (
            "file",
            json!({ "name": response["filename"], "bytes": response["bytes"], "purpose": response["purpose"] }),
        ),
    ];
    let compared = results.into_iter().filter(|(key, told)| !seen[*key].is_null() && seen[*key] != *told);
    let mut wrong: Vec<_> =
        compared.map(|(key, told)| format!("{key}: record {told}, client {}", seen[key])).collect();
    if let Some(vectors) = seen["vectors"].as_array() {
        wrong.extend(unlike_vectors(&response["data"], vectors));
    }
    wrong
}

fn structure(told: &Value) -> Value {
    let from_text = told["text"].as_str().and_then(|text| serde_json::from_str(text).ok());
    from_text.unwrap_or_else(|| told["tool_calls"][0]["arguments"].clone())
}

/// Vectors are numbers, or the base64 of four bytes for each.
fn unlike_vectors(data: &Value, seen: &[Value]) -> Option<String> {
    let same = data.as_array().is_some_and(|data| data.len() == seen.len())
        && seen.iter().enumerate().all(|(index, vector)| match &data[index]["embedding"] {
            Value::String(base64) => floats(base64) == numbers(vector),
            recorded => numbers(recorded) == numbers(vector),
        });
    (!same).then(|| format!("vectors: record {data}, client {seen:?}"))
}

/// What a client keeps of a number is at least an `f32`.
fn numbers(vector: &Value) -> Vec<f32> {
    #[allow(clippy::cast_possible_truncation)]
    let number = |value: &Value| value.as_f64().unwrap() as f32;
    vector.as_array().unwrap().iter().map(number).collect()
}

fn floats(base64: &str) -> Vec<f32> {
    let bytes = STANDARD.decode(base64).unwrap();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}
