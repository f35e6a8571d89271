//! The oracle: 20,000 requests with unique contents, while every backend is killed and started again at random. In the
//! end every record that the books call delivered is in the backend, with the right content, once.

#![allow(clippy::print_stderr, reason = "what happened when, and the seed, for a failure")]

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use end_to_end::{
    Client, Collector, Gateway, OpenSearch, Postgres, Provider, Running, client::post, tools::Database,
};
use fake_backends::{Datadog, Fake, NewRelic, Semantics, datadog, newrelic};
use serde_json::{Value, json};

use crate::torment::{Failure, Faulty, Progress, id_of, plain, torment};

const REQUESTS: usize = 20_000;
const CLIENTS: usize = 16;
/// How often each backend is killed.
const KILLS: usize = 3;
/// None by which a record would be given up.
const FAILURES: &[Failure] =
    &[Failure::Down, Failure::Unavailable, Failure::TooManyRequests, Failure::CutAnswer];
/// No record delivered for so long is a failure; a killed OpenSearch alone takes half a minute on a busy machine.
const STALLED: Duration = Duration::from_secs(120);

/// Patient and quick to come back: no record is given up, and a test has no minute to wait for a breaker.
const PATIENT: &str = "call_timeout = \"20s\"\nqueue = { max_records = 30000, max_bytes = \"512 MiB\" }\n\
    retry = { max_elapsed = \"0s\", max = \"500ms\" }\n\
    circuit_breaker = { cool_down = \"100ms\", max_cool_down = \"500ms\" }\n";

fn prompt(number: usize, seed: u64) -> String {
    format!("oracle {number} {:016x}", fastrand::Rng::with_seed(seed ^ number as u64).u64(..))
}

async fn make_requests(gateway: &Running, progress: &Arc<Progress>, seed: u64) {
    let url = format!("{}/v1/chat/completions", gateway.url);
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (url, next, progress, client) = (url.clone(), next.clone(), progress.clone(), Client::default());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return;
                }
                let messages = json!([{ "role": "user", "content": prompt(number, seed) }]);
                let body = json!({ "model": "demo", "stream": number % 5 == 0, "messages": messages });
                let answer = client.send(post(&url, body.to_string(), &[])).await;
                assert_eq!(answer.status, 200, "no exporter touches a request");
                progress.add_one();
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

async fn wait_until_delivered(gateway: &Running, plugins: &[&str]) {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let mut delivered = 0;
        let mut is_done = true;
        for plugin in plugins {
            let books = gateway.plugin(plugin).await["books"].take();
            assert_eq!(books["balanced"], true, "{plugin}: {books}");
            delivered += books["delivered"].as_u64().unwrap();
            is_done &= books["queued"] == 0 && books["in_flight"] == 0 && books["accepted"] == REQUESTS;
        }
        if is_done {
            return;
        }
        if delivered > before {
            (before, since) = (delivered, Instant::now());
        }
        assert!(since.elapsed() < STALLED, "nothing was delivered for {STALLED:?}:\n{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a backend holds: each record's id, and a text that has the prompt in it.
type Held = Vec<(String, String)>;

/// From a log in the log form.
fn of_log(log: &Value) -> (String, String) {
    (id_of(log), log["attributes"]["request"].to_string())
}

async fn in_postgres(database: &Database) -> Held {
    let rows =
        database.rows("SELECT id, log_data->'attributes'->'request' AS request FROM ai_gateway_request_logs");
    rows.await.iter().map(|row| (plain(row["id"].as_str().unwrap()), row["request"].to_string())).collect()
}

async fn in_opensearch(server: &OpenSearch) -> Held {
    let documents = server.documents("oracle").await;
    let held = documents.iter().map(|hit| {
        let (id, text) = of_log(&hit["_source"]);
        assert_eq!(id, plain(hit["_id"].as_str().unwrap()), "a document is filed under its record's id");
        (id, text)
    });
    held.collect()
}

fn in_collector(collector: &Collector) -> Held {
    let logs = collector.logs();
    logs.iter().map(|log| of_log(&serde_json::from_str(log["body"].as_str().unwrap()).unwrap())).collect()
}

/// Every id of the books is there, with the content that the request had.
fn assert_holds(name: &str, held: &Held, expected: &HashMap<String, String>, may_repeat: bool) {
    let mut seen = HashSet::new();
    let mut repeated = 0;
    for (id, text) in held {
        let prompt = expected.get(id).unwrap_or_else(|| panic!("{name} holds {id}, which no request made"));
        assert!(text.contains(prompt), "{name} holds {id} with the content of another request: {text}");
        repeated += usize::from(!seen.insert(id));
    }
    eprintln!("{name}: {} records, {repeated} of them repeated", held.len());
    assert_eq!(seen.len(), expected.len(), "{name} lacks records that the books call delivered");
    assert!(may_repeat || repeated == 0, "{name} holds {repeated} records twice");
}

fn settings(config: &Value) -> String {
    let Value::Object(config) = config else { unreachable!() };
    let lines = config.iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("{PATIENT}[plugin.config]\n{}", lines.collect::<String>())
}

fn faulty<S: Semantics>(name: &'static str, fake: &Arc<Fake<S>>) -> Faulty<S> {
    Faulty { name, fake: fake.clone(), failures: FAILURES }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivered_record_is_in_its_backend_once_whatever_dies_meanwhile() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let (postgres, opensearch) =
        tokio::task::spawn_blocking(|| (Postgres::start(), OpenSearch::start())).await.unwrap();
    let collector = Collector::start().await;
    let (datadog, newrelic) = (Arc::new(Datadog::start()), Arc::new(NewRelic::start()));
    let database = postgres.database().await;
    let provider = Provider::start().await;

    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let gateway = gateway
        .plugin("postgres", "postgres", &settings(&json!({ "url": database.url() })))
        .plugin("elasticsearch", "elasticsearch", &settings(&json!({ "url": opensearch.url(), "index": "oracle" })))
        .plugin("otlp", "otlp", &settings(&json!({ "endpoint": collector.http_url() })))
        .plugin("datadog", "datadog", &settings(&json!({
            "api_key": datadog::API_KEY, "logs_url": datadog.url(), "api_url": datadog.url(),
        })))
        .plugin("newrelic", "newrelic", &settings(&json!({
            "license_key": newrelic::LICENSE_KEY, "logs_url": newrelic.url(), "metrics_url": newrelic.url(),
        })))
        .start()
        .await;

    let progress = Progress::of(REQUESTS);
    let tormented = (
        torment(postgres, KILLS, &progress, seed),
        torment(opensearch, KILLS, &progress, seed ^ 1),
        torment(collector, KILLS, &progress, seed ^ 2),
        torment(faulty("datadog", &datadog), KILLS, &progress, seed ^ 3),
        torment(faulty("newrelic", &newrelic), KILLS, &progress, seed ^ 4),
    );
    make_requests(&gateway, &progress, seed).await;
    progress.end();
    let (postgres, opensearch, collector) = tokio::task::spawn_blocking(move || {
        let (postgres, opensearch, collector, datadog, newrelic) = tormented;
        datadog.join().unwrap();
        newrelic.join().unwrap();
        (postgres.join().unwrap(), opensearch.join().unwrap(), collector.join().unwrap())
    })
    .await
    .unwrap();

    let plugins = ["file", "postgres", "elasticsearch", "otlp", "datadog", "newrelic"];
    wait_until_delivered(&gateway, &plugins).await;
    for plugin in plugins {
        let books = gateway.plugin(plugin).await["books"].take();
        assert_eq!(books["delivered"], REQUESTS, "{plugin}: nothing was dropped or rejected: {books}");
    }

    let prompts: HashSet<String> = (0..REQUESTS).map(|number| prompt(number, seed)).collect();
    let expected: HashMap<String, String> = gateway
        .records()
        .iter()
        .map(|log| {
            let text = log["attributes"]["request"]["messages"][0]["content"].as_str().unwrap();
            (of_log(log).0, text.to_owned())
        })
        .collect();
    assert_eq!(expected.len(), REQUESTS, "each request made one record");
    assert_eq!(expected.values().cloned().collect::<HashSet<_>>(), prompts, "with its own content");

    assert_holds("postgres", &in_postgres(&database).await, &expected, false);
    assert_holds("opensearch", &in_opensearch(&opensearch).await, &expected, false);
    // These have no idempotency key: what was stored when the answer was lost is sent again.
    assert_holds("collector", &in_collector(&collector), &expected, true);
    assert_holds("datadog", &datadog.logs().iter().map(of_log).collect(), &expected, true);
    let text = |log: &Value| log.to_string();
    let ids = newrelic.stored_ids();
    let logs = newrelic.logs();
    assert_holds(
        "newrelic",
        &ids.iter().map(|id| plain(id)).zip(logs.iter().map(text)).collect(),
        &expected,
        true,
    );
    drop(postgres);
}
