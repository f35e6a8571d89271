//! What one record, one backend or one answer can do to all others: nothing. Real plugins, at their limits and far over
//! them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use end_to_end::{Ended, Gateway, Provider, RawProvider, Running, Step, artifacts, wait_for};
use fake_backends::{Datadog, Elasticsearch, Fate, NewRelic, datadog::API_KEY, newrelic::LICENSE_KEY};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Bodies of ten times the largest limit are captured, queued and counted.
const ROOM: &str = "[telemetry.capture]\nmax_body_bytes = \"16 MiB\"\n";
const QUICK: &str = "retry = { initial = \"5ms\", max = \"50ms\" }\n\
                     circuit_breaker = { cool_down = \"50ms\", max_cool_down = \"100ms\" }\n";

/// A request whose body has so many bytes.
fn question(text: &str, bytes: usize) -> String {
    let body = |text: &str| {
        json!({ "model": "demo", "messages": [{ "role": "user", "content": text }] }).to_string()
    };
    let padding = bytes.saturating_sub(body(text).len());
    body(&format!("{text}{}", "x".repeat(padding)))
}

async fn ask(gateway: &Running, question: String) {
    assert_eq!(gateway.post(CHAT, question).await.status, 200);
}

/// Waits until nothing of this exporter's waits any more; its books.
async fn settled(gateway: &Running, plugin: &str, accepted: usize) -> Value {
    let is_settled =
        |books: &Value| books["accepted"] == accepted && books["queued"] == 0 && books["in_flight"] == 0;
    gateway.wait_for_books(plugin, is_settled).await
}

fn dropped(books: &Value) -> u64 {
    books["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

fn datadog(gateway: Gateway, fake: &Datadog, keys: &str) -> Gateway {
    let url = fake.url();
    let settings = format!("{keys}[plugin.config]\nlogs_url = \"{url}\"\napi_url = \"{url}\"\n");
    gateway.plugin("datadog", "datadog", &settings).environment("DD_API_KEY", API_KEY)
}

fn newrelic(gateway: Gateway, fake: &NewRelic, keys: &str) -> Gateway {
    let url = fake.url();
    let settings = format!("{keys}[plugin.config]\nlogs_url = \"{url}\"\nmetrics_url = \"{url}\"\n");
    gateway.plugin("newrelic", "newrelic", &settings).environment("NEW_RELIC_LICENSE_KEY", LICENSE_KEY)
}

fn elasticsearch(gateway: Gateway, url: &str, keys: &str) -> Gateway {
    let settings = format!("{keys}[plugin.config]\nurl = \"{url}\"\nindex = \"llm\"\n");
    gateway.plugin("elasticsearch", "elasticsearch", &settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_record_stops_nothing() {
    let (provider, dd, nr) = (Provider::start().await, Datadog::start(), NewRelic::start());
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let gateway = newrelic(datadog(gateway, &dd, QUICK), &nr, QUICK);
    let mut gateway = gateway.probe("small", "queue.max_bytes = \"4 KiB\"", "").start().await;
    ask(&gateway, question("", 902_000)).await;
    ask(&gateway, question("", 589_500)).await;
    let stream = json!({ "model": "demo-words:2500", "stream": true, "messages": [{ "role": "user", "content": "Hi" }] });
    ask(&gateway, stream.to_string()).await;
    ask(&gateway, question("Hello", 100)).await;
    for plugin in ["file", "datadog", "newrelic", "small"] {
        let books = settled(&gateway, plugin, 4).await;
        assert_eq!(books["delivered"], 4, "{plugin}: {books}");
        assert_eq!(books["shed"].as_u64() > Some(0), plugin != "file", "{plugin}: {books}");
    }
    assert_eq!(gateway.admin("/metrics").await.status, 200);
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test]
async fn a_record_that_no_queue_can_hold_is_dropped_counted_and_can_be_replayed_elsewhere() {
    let provider = Provider::start().await;
    let keys = "queue.max_bytes = \"1 KiB\"\ndead_letter = \"dead.jsonl\"";
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", keys, "");
    let mut gateway = gateway.start().await;
    for _ in 0..3 {
        // An id that makes the metrics alone larger than the queue.
        let user = "u".repeat(1000);
        assert_eq!(gateway.post_with(CHAT, question("", 100), &[("x-user-id", &user)]).await.status, 200);
    }
    let books = settled(&gateway, "probe", 3).await;
    assert_eq!(books["dropped"]["oversize"], 3, "{books}");
    assert_eq!(gateway.stop().await, Some(0));
    let replay = || {
        let mut command = std::process::Command::new(artifacts::gateway());
        command.args(["replay", "dead.jsonl", "--plugin", "probe"]).current_dir(gateway.folder()).env_clear();
        command
    };
    let ended = Ended::of(replay()).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains("3 given up; 3 left") && ended.output.contains("oversize"), "{ended:?}");
    let path = gateway.folder().join("gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("1 KiB", "1 MiB")).unwrap();
    let ended = Ended::of(replay()).await;
    assert_eq!((ended.code, gateway.delivered_once("probe").len()), (Some(0), 3), "{ended:?}");
}

/// For each limit of each exporter: a request of about that size, of exactly so many bytes, of one more, and of ten times
/// as many.
#[tokio::test(flavor = "multi_thread")]
async fn records_at_over_and_far_over_every_limit_are_delivered_as_far_as_they_fit() {
    let provider = Provider::start().await;
    let (dd, nr, es) = (Datadog::start(), NewRelic::start(), Elasticsearch::start());
    let otlp = RawProvider::of("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let gateway = Gateway::new().provider("demo", &provider.url()).section(ROOM).file_exporter();
    let gateway = newrelic(datadog(gateway, &dd, QUICK), &nr, QUICK);
    let keys = format!(
        "{QUICK}[plugin.config]\nurl = \"{}\"\nindex = \"llm\"\nmax_request_bytes = \"1 MiB\"\n",
        es.url()
    );
    let gateway = gateway.plugin("elasticsearch", "elasticsearch", &keys);
    let keys =
        format!("{QUICK}[plugin.config]\nendpoint = \"{}\"\nmax_request_size = \"1 MiB\"\n", otlp.url());
    let gateway = gateway.plugin("otlp", "otlp", &keys);
    let gateway = gateway.probe("queue", "queue.max_bytes = \"1 MiB\"", "");
    let gateway = gateway.probe("batch", "batch.max_bytes = \"1 MiB\"", "");
    let mut gateway = gateway.plugin("prometheus", "prometheus", "").start().await;
    let plugins = ["file", "datadog", "newrelic", "elasticsearch", "otlp", "queue", "batch", "prometheus"];
    let mut asked = 0;
    for limit in [590_000, 900_000, 1 << 20] {
        for size in [limit - 3_000, limit - 1, limit, limit + 1, 10 * limit] {
            ask(&gateway, question(&format!("{size} "), size)).await;
            asked += 1;
        }
    }
    for plugin in plugins {
        let books = settled(&gateway, plugin, asked).await;
        assert_eq!((&books["delivered"], dropped(&books)), (&json!(asked), 0), "{plugin}: {books}");
    }
    assert_eq!(gateway.wait_for_records(asked).await.len(), asked);
    assert_eq!((dd.logs().len(), nr.logs().len()), (asked, asked));
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_refused_for_now_for_ever_holds_up_no_other() {
    let (provider, fake) = (Provider::start().await, Elasticsearch::start());
    let hopeless = Arc::<Mutex<Option<String>>>::default();
    let chosen = hopeless.clone();
    fake.judge_by(move |id, _| {
        let mut chosen = chosen.lock().unwrap();
        if chosen.get_or_insert_with(|| id.to_owned()) == id { Fate::Retry } else { Fate::Take }
    });
    let gateway = Gateway::new().provider("demo", &provider.url());
    let gateway = elasticsearch(gateway, &fake.url(), "").start().await;
    ask(&gateway, question("hopeless", 100)).await;
    gateway.wait_for_books("elasticsearch", |books| books["parked"] == 1).await;
    let asked = Instant::now();
    for number in 0..20 {
        ask(&gateway, question(&format!("good {number}"), 100)).await;
    }
    let books = gateway.wait_for_books("elasticsearch", |books| books["delivered"] == 20).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!((&books["queued"], dropped(&books)), (&json!(1), 0), "{books}");
    assert_eq!(gateway.plugin("elasticsearch").await["breaker"], "closed");
}

#[tokio::test]
async fn a_pause_that_the_backend_asks_for_drops_nothing_however_long() {
    let provider = Provider::start().await;
    let keys = "retry.max_elapsed = \"200ms\"\nretry.max_pause = \"1500ms\"";
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("limited", keys, r#"script = ["retry_after:600s", "ok"]"#)
        .start()
        .await;
    let asked = Instant::now();
    for number in 0..10 {
        ask(&gateway, question(&format!("{number}"), 100)).await;
    }
    let books = gateway.settled("limited", 10).await;
    assert_eq!((&books["delivered"], dropped(&books)), (&json!(10), 0), "{books}");
    assert!(asked.elapsed() >= Duration::from_millis(1500), "it was left alone: {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_refuses_everything_gets_few_calls_and_costs_no_record() {
    for status in ["404 Not Found", "500 Internal Server Error", "400 Bad Request"] {
        let provider = Provider::start().await;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
        let receiver = RawProvider::of(answer).await;
        let keys = format!("[plugin.config]\nendpoint = \"{}\"\nsignals = [\"logs\"]\n", receiver.url());
        let gateway = Gateway::new().provider("demo", &provider.url()).plugin("otlp", "otlp", &keys);
        let gateway = elasticsearch(gateway, &receiver.url(), "").start().await;
        for number in 0..100 {
            ask(&gateway, question(&format!("{number}"), 100)).await;
        }
        for plugin in ["otlp", "elasticsearch"] {
            wait_for(&format!("the breaker of {plugin} to open at {status}"), || async {
                (gateway.plugin(plugin).await["breaker"] != "closed").then_some(())
            })
            .await;
            let books = gateway.wait_for_books(plugin, |books| books["accepted"] == 100).await;
            assert_eq!(
                (dropped(&books), &books["rejected"]["call"]),
                (0, &json!(0)),
                "{status} {plugin}: {books}"
            );
        }
        let calls = receiver.requests().len();
        assert!(calls < 60, "{status}: {calls} calls for two exporters");
        let told = gateway.log().matches("so the set-up is at fault").count();
        assert!(told <= 2, "{status}: told {told} times");
    }
}

#[tokio::test]
async fn a_record_on_which_the_backend_times_out_is_found_and_given_up_alone() {
    let provider = Provider::start().await;
    let keys = "call_timeout = \"100ms\"\nbatch.max_records = 50\nbatch.max_delay = \"100ms\"\n\
                retry.max_elapsed = \"2s\"";
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("stalls", keys, r#"script = ["stall:indigestible"]"#)
        .start()
        .await;
    for number in 0..40 {
        let text = if number == 17 { "indigestible".to_owned() } else { format!("{number}") };
        ask(&gateway, question(&text, 100)).await;
    }
    // Records go on coming, which shows that it is not the backend.
    let books = wait_for("the record to be given up", || async {
        ask(&gateway, question("more", 100)).await;
        let books = gateway.plugin("stalls").await["books"].take();
        (dropped(&books) > 0).then_some(books)
    })
    .await;
    assert_eq!((dropped(&books), &books["dropped"]["retry_exhausted"]), (1, &json!(1)), "{books}");
    gateway.wait_for_books("stalls", |books| books["queued"] == 0 && books["in_flight"] == 0).await;
    assert_eq!(gateway.plugin("stalls").await["books"]["delivered"], gateway.delivered_once("stalls").len());
}

#[tokio::test]
async fn a_scrape_is_answered_beside_an_export_that_hangs_and_one_that_hangs_is_told_of_once() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("exports", "", r#"script = ["hang"]"#)
        .probe("scrapes", "", r#"scrape = "hang""#)
        .start()
        .await;
    ask(&gateway, question("", 100)).await;
    gateway.wait_for_books("exports", |books| books["in_flight"] == 1).await;
    // The first one waits for the scrape that hangs; after that it is known to.
    gateway.admin("/metrics").await;
    wait_for("the scrape to be given up", || async {
        let asked = Instant::now();
        let text = gateway.admin("/metrics").await.text();
        assert!(
            text.contains("probe_delivered_records_total"),
            "the metrics of the one that exports are there"
        );
        (asked.elapsed() < Duration::from_millis(500)).then_some(())
    })
    .await;
    let told = || gateway.log().matches("its metrics are missing from /metrics").count();
    wait_for("a line about it", || async { (told() > 0).then_some(()) }).await;
    assert_eq!(told(), 1, "{}", gateway.log());
    assert_eq!(gateway.admin("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_queue_that_is_full_by_count_takes_no_bodies_away() {
    let provider =
        RawProvider::start(|_| vec![Step::send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")]).await;
    let keys = "queue = { max_records = 3, on_full = \"shed\" }";
    let gateway =
        Gateway::new().provider("demo", &provider.url()).probe("full", keys, r#"script = ["retry"]"#);
    let gateway = gateway.start().await;
    for number in 0..10 {
        ask(&gateway, question(&format!("{number}"), 100)).await;
    }
    let books = gateway.wait_for_books("full", |books| books["accepted"] == 10).await;
    assert_eq!((&books["shed"], &books["dropped"]["queue_full"]), (&json!(0), &json!(7)), "{books}");
}

#[tokio::test]
async fn a_queue_smaller_than_a_batch_is_sent_when_it_fills_and_not_when_a_batch_would_be_full() {
    let provider = Provider::start().await;
    let keys = "queue.max_bytes = \"8 KiB\"\nbatch.max_delay = \"1m\"";
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("small", keys, "").start().await;
    for number in 0..40 {
        ask(&gateway, question(&format!("{number}"), 100)).await;
        gateway
            .wait_for_books("small", |books| books["accepted"] == number + 1 && books["in_flight"] == 0)
            .await;
    }
    let books = gateway.wait_for_books("small", |books| books["in_flight"] == 0).await;
    assert_eq!(dropped(&books), 0, "{books}");
    assert!(books["delivered"].as_u64() > Some(30), "{books}");
}

#[tokio::test]
async fn a_backend_that_is_back_gets_what_waits_at_the_end_though_the_breaker_is_open_or_a_pause_is_on() {
    for script in ["unauthorized", "retry_after:600s", "reject"] {
        let provider = Provider::start().await;
        let keys = "circuit_breaker.cool_down = \"1m\"\ncircuit_breaker.max_cool_down = \"1m\"";
        let gateway = Gateway::new().provider("demo", &provider.url());
        let mut gateway = gateway.probe("back", keys, &format!("script = [\"{script}\"]")).start().await;
        for number in 0..20 {
            ask(&gateway, question(&format!("{number}"), 100)).await;
        }
        wait_for("calls to end", || async {
            let plugin = gateway.plugin("back").await;
            (plugin["next_call_in_seconds"].as_f64() > Some(10.0)).then_some(())
        })
        .await;
        gateway.command("back", "ok");
        assert_eq!(gateway.stop().await, Some(0));
        assert_eq!(gateway.delivered_once("back").len(), 20, "{script}: {}", gateway.log());
    }
}
