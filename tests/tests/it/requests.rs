//! One request, one record.

use end_to_end::{Gateway, Provider};

#[tokio::test]
async fn a_plain_answer_passes_untouched_and_makes_one_record() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter().start().await;
    let body = r#"{"model":"demo","messages":[{"role":"user","content":"Hello"}]}"#;
    let answer = gateway.post_with("/v1/chat/completions", body, &[("x-user-id", "user_456")]).await;
    assert_eq!(answer.status, 200);
    let attributes = &gateway.record().await["attributes"];
    assert_eq!(attributes["response"], answer.json());
    assert_eq!(attributes["request"], serde_json::from_str::<serde_json::Value>(body).unwrap());
    assert_eq!(attributes["user_id"], "user_456");
    assert_eq!(attributes["metadata"]["response_size"], answer.body.len());
    assert_eq!(attributes["metadata"]["tokens"]["total"], answer.json()["usage"]["total_tokens"]);
}
