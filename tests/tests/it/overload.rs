//! `server.max_requests`: who finds no place is told when to come again, and those who have one notice nothing.

use std::sync::Arc;

use end_to_end::{
    Answer, Client, Gateway, Http2Provider, Running,
    client::post,
    http2_provider::{ALWAYS, Exchange},
    wait_for, within,
};
use tokio::{sync::Semaphore, task::JoinSet};

const PATH: &str = "/v1/chat/completions";
const QUESTION: &str = r#"{"model":"m","messages":[]}"#;
const ANSWER: &str = r#"{"object":"chat.completion"}"#;

/// A provider that answers when it is let, and a gateway of so many places before it.
async fn held(places: usize) -> (Arc<Semaphore>, Http2Provider, Running) {
    let gate = Arc::new(Semaphore::new(0));
    let (open, provider_gate) = (gate.clone(), gate);
    let provider = Http2Provider::start(100, move |exchange: Exchange| {
        let gate = provider_gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            exchange.ok(ANSWER);
        }
    })
    .await;
    let gateway = Gateway::new()
        .provider_with("demo", &provider.url(), ALWAYS)
        .server(&format!("max_requests = {places}"))
        .file_exporter()
        .start()
        .await;
    (open, provider, gateway)
}

fn ask(client: &Client, gateway: &Running, count: usize) -> JoinSet<Answer> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let (client, url) = (client.clone(), format!("{}{PATH}", gateway.url));
        asked.spawn(async move { client.send(post(&url, QUESTION, &[])).await });
    }
    asked
}

async fn wait_for_open(gateway: &Running, count: f64) {
    wait_for("requests to be under way", || async {
        (gateway.metric("magicapi_gateway_open_requests", &[]).await == count).then_some(())
    })
    .await;
}

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), "1");
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"overloaded".into(), &"api_error".into()), "{error}");
    assert!(!answer.header("x-request-id").is_empty());
}

#[tokio::test]
async fn beyond_the_limit_requests_are_refused_and_recorded_and_the_others_go_on() {
    for client in [Client::default(), Client::http2()] {
        let (open, _provider, gateway) = held(3).await;
        let waiting = ask(&client, &gateway, 3);
        wait_for_open(&gateway, 3.0).await;
        for count in [1, 30] {
            let refused = within("refusals", ask(&client, &gateway, count).join_all()).await;
            refused.iter().for_each(assert_refused);
        }
        assert_eq!(
            gateway.get("/healthz").await.status,
            200,
            "what the gateway answers itself needs no place"
        );
        open.add_permits(3);
        for answer in within("the answers", waiting.join_all()).await {
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ANSWER));
        }
        wait_for_open(&gateway, 0.0).await;
        open.add_permits(1);
        assert_eq!(client.send(post(&format!("{}{PATH}", gateway.url), QUESTION, &[])).await.status, 200);

        let records = gateway.wait_for_records(35).await;
        let metadata: Vec<_> = records.iter().map(|record| &record["attributes"]["metadata"]).collect();
        let refused: Vec<_> = metadata.iter().filter(|it| it["error_type"] == "overloaded").collect();
        assert_eq!(refused.len(), 31);
        for it in refused {
            assert_eq!(
                (&it["status_code"], &it["end_reason"]),
                (&503.into(), &"gateway_error".into()),
                "{it}"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_place_back() {
    let (open, _provider, gateway) = held(1).await;
    let mut waiting = ask(&Client::default(), &gateway, 1);
    wait_for_open(&gateway, 1.0).await;
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    wait_for_open(&gateway, 0.0).await;
    // Its request may still be with the provider.
    open.add_permits(2);
    assert_eq!(gateway.post(PATH, QUESTION).await.status, 200);
}
