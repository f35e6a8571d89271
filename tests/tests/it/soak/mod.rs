//! A soak in miniature: requests of every kind through the gateway with all eight exporters, whose backends fail at
//! random. Every client gets the right answer, nothing grows, the books balance at every look, and no record is lost
//! without a reason.
//!
//! `SOAK_REQUESTS` is the number of requests, 5,000 unless it is set; `make test-all` makes 200,000 through the release
//! build. Memory is judged from 50,000 on, where there is a run to judge by.

#![allow(clippy::print_stderr, reason = "the figures are what the run is for")]

mod ledger;
mod requests;
mod vitals;

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use end_to_end::{
    Client, Collector, Gateway, Postgres, Provider, Running, artifacts, metrics, tools::Database,
};
use fake_backends::{Datadog, Elasticsearch, Fake, NewRelic, Semantics, datadog, newrelic};
use serde_json::Value;

use self::{
    ledger::{Books, assert_accounted},
    vitals::Sample,
};
use crate::torment::{Backend, Failure, Faulty, Progress, id_of, plain, torment};

const CLIENTS: usize = 16;
/// A backend dies once in so many requests.
const REQUESTS_PER_DEATH: usize = 8_000;
/// So many looks at the gateway while it is at work.
const SAMPLES: usize = 200;
/// From so many requests on, the run has legs with a rest after each: what a gateway holds at rest is what grows, or does
/// not, however slow the backends were.
const JUDGED_FROM: usize = 50_000;
const LEGS: usize = 8;
const STALLED: Duration = Duration::from_secs(120);

const PLUGINS: [&str; 8] =
    ["console", "file", "prometheus", "elasticsearch", "postgres", "datadog", "newrelic", "otlp"];

const FAILURES: &[Failure] = &[
    Failure::SomeRecords,
    Failure::Down,
    Failure::Hang,
    Failure::TooManyRequests,
    Failure::CutAnswer,
    Failure::Unavailable,
];

/// Quick to come back, since a run has no minute to wait for a breaker.
const QUICK: &str = "retry.max = \"500ms\"\nretry.max_pause = \"2s\"\n\
    circuit_breaker = { cool_down = \"100ms\", max_cool_down = \"500ms\" }\n\
    dead_letter_max_bytes = \"8 GiB\"\n";
/// Nothing is given up, and nothing is dropped for want of room.
const PATIENT: &str =
    "retry.max_elapsed = \"0s\"\nqueue = { max_records = 100000, max_bytes = \"512 MiB\" }\n";
/// What fails for two seconds is given up, with a letter.
const IMPATIENT: &str =
    "retry.max_elapsed = \"2s\"\nqueue = { max_records = 100000, max_bytes = \"512 MiB\" }\n";
/// A queue that is full soon.
const NARROW: &str = "retry.max_elapsed = \"0s\"\nqueue = { max_records = 1500, max_bytes = \"8 MiB\" }\n";
/// The same, and bodies give way first.
const SHEDDING: &str =
    "retry.max_elapsed = \"0s\"\nqueue = { max_records = 1500, max_bytes = \"2 MiB\", on_full = \"shed\" }\n";

/// The backends that this process can ask what they hold while the gateway is at work.
struct Backends {
    database: Database,
    collector: Arc<Mutex<Collector>>,
    elasticsearch: Arc<Elasticsearch>,
    datadog: Arc<Datadog>,
    newrelic: Arc<NewRelic>,
}

/// The ids that each backend took so far. What it took is forgotten there: it would not fit into memory.
#[derive(Default)]
struct Held {
    elasticsearch: Vec<String>,
    datadog: Vec<String>,
    newrelic: Vec<String>,
    otlp: Vec<String>,
}

impl Held {
    fn collect(&mut self, backends: &Backends) {
        take(&mut self.elasticsearch, &backends.elasticsearch);
        take(&mut self.datadog, &backends.datadog);
        take(&mut self.newrelic, &backends.newrelic);
        let logs = backends.collector.lock().unwrap().take_logs();
        let log = |log: &Value| id_of(&serde_json::from_str(log["body"].as_str().unwrap()).unwrap());
        self.otlp.extend(logs.iter().map(log));
    }
}

fn take<S: Semantics>(held: &mut Vec<String>, fake: &Fake<S>) {
    held.extend(fake.take_ids().iter().map(|id| plain(id)));
}

/// The Collector is killed by one thread and asked by another.
struct Shared(Arc<Mutex<Collector>>);

impl Backend for Shared {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn kill(&mut self, way: usize) {
        Backend::kill(&mut *self.0.lock().unwrap(), way);
    }

    fn start_again(&mut self) {
        Backend::start_again(&mut *self.0.lock().unwrap());
    }
}

fn requests() -> usize {
    std::env::var("SOAK_REQUESTS").map_or(5_000, |text| text.parse().expect("SOAK_REQUESTS is a number"))
}

fn gateway(provider: &Provider, backends: &Backends) -> Gateway {
    let gateway = Gateway::new().provider("demo", &provider.url());
    let records = gateway.folder().join("records.jsonl");
    let mut gateway =
        gateway.plugin("console", "console", PATIENT).plugin("prometheus", "prometheus", PATIENT).plugin(
            "file",
            "file",
            &format!("{PATIENT}[plugin.config]\npath = \"{}\"\nmax_bytes = \"0 B\"\n", records.display()),
        );
    let (elasticsearch, datadog, newrelic) =
        (backends.elasticsearch.url(), backends.datadog.url(), backends.newrelic.url());
    let otlp = backends.collector.lock().unwrap().http_url();
    let with_backend = [
        ("postgres", PATIENT, format!("url = \"{}\"", backends.database.url())),
        ("otlp", PATIENT, format!("endpoint = \"{otlp}\"\ntimeout = \"2s\"")),
        ("elasticsearch", IMPATIENT, format!("url = \"{elasticsearch}\"\ntimeout = \"1s\"")),
        (
            "datadog",
            NARROW,
            format!(
                "api_key = \"{}\"\nlogs_url = \"{datadog}\"\napi_url = \"{datadog}\"\ntimeout = \"1s\"",
                datadog::API_KEY
            ),
        ),
        (
            "newrelic",
            SHEDDING,
            format!(
                "license_key = \"{}\"\nlogs_url = \"{newrelic}\"\nmetrics_url = \"{newrelic}\"\ntimeout = \"1s\"",
                newrelic::LICENSE_KEY
            ),
        ),
    ];
    for (name, policy, settings) in with_backend {
        let keys =
            format!("{QUICK}{policy}dead_letter = \"dead/{name}.jsonl\"\n[plugin.config]\n{settings}\n");
        gateway = gateway.plugin(name, name, &keys);
    }
    gateway
}

async fn make_requests(gateway: &Running, numbers: Range<usize>, progress: &Arc<Progress>, seed: u64) {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (url, next, progress) = (gateway.url.clone(), next.clone(), progress.clone());
        let client = Client::default();
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return;
                }
                requests::make(&client, &url, number, seed).await;
                progress.add_one();
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// The books of every exporter, in the order of [`PLUGINS`].
async fn all_books(gateway: &Running) -> Vec<Books> {
    let plugins = gateway.admin("/plugins").await.json();
    let plugins = plugins["plugins"].as_array().unwrap();
    let of = |name| plugins.iter().find(|plugin| plugin["name"] == name).map(Books::of).unwrap();
    PLUGINS.into_iter().map(of).collect()
}

/// Looks at the gateway until the requests are made; `before` were made in earlier legs.
async fn watch(
    gateway: &Running,
    before: usize,
    progress: &Progress,
    backends: &Backends,
    held: &mut Held,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !progress.is_over() {
        let sent = before + progress.sent();
        if sent < before + samples.len() * requests() / SAMPLES {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let books = all_books(gateway).await;
        let queued = books.iter().map(|books| books.count("queued_bytes")).sum();
        samples.push(Sample::of(gateway, sent, queued));
        tokio::task::block_in_place(|| held.collect(backends));
    }
    samples
}

/// Waits until no exporter has anything left to do.
async fn wait_until_settled(gateway: &Running, backends: &Backends, held: &mut Held, records: u64) {
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let books = all_books(gateway).await;
        if books.iter().all(|books| books.waiting() == 0 && books.count("accepted") == records) {
            return held.collect(backends);
        }
        let settled = books.iter().map(Books::settled).sum();
        if settled > before {
            (before, since) = (settled, Instant::now());
        }
        assert!(since.elapsed() < STALLED, "nothing was settled for {STALLED:?}: {books:?}");
        tokio::task::block_in_place(|| held.collect(backends));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The ids of all records, from the file, which keeps everything.
fn ids_in_file(path: PathBuf) -> HashSet<String> {
    let lines = BufReader::new(std::fs::File::open(path).unwrap()).lines();
    let mut ids = HashSet::new();
    for line in lines {
        let id = id_of(&serde_json::from_str(&line.unwrap()).unwrap());
        assert!(ids.insert(id.clone()), "{id} is in the file twice");
    }
    ids
}

async fn ids_in_postgres(database: &Database) -> Vec<String> {
    let rows = database.rows("SELECT id FROM ai_gateway_request_logs").await;
    rows.iter().map(|row| plain(row["id"].as_str().unwrap())).collect()
}

async fn start_backends(postgres: &Postgres) -> Backends {
    Backends {
        database: postgres.database().await,
        collector: Arc::new(Mutex::new(Collector::start().await)),
        elasticsearch: Arc::new(Elasticsearch::start()),
        datadog: Arc::new(Datadog::start()),
        newrelic: Arc::new(NewRelic::start()),
    }
}

/// Requests while backends die; returns when all backends live again.
async fn run(
    gateway: &Running,
    numbers: Range<usize>,
    postgres: Postgres,
    backends: &Backends,
    held: &mut Held,
    seed: u64,
) -> (Postgres, Vec<Sample>) {
    let before = numbers.start;
    let progress = Progress::of(numbers.len());
    let kills = (progress.requests / REQUESTS_PER_DEATH).max(2);
    let Backends { collector, elasticsearch, datadog, newrelic, .. } = backends;
    let postgres = torment(postgres, kills, &progress, seed);
    let collector = torment(Shared(collector.clone()), kills, &progress, seed ^ 1);
    let failures = FAILURES;
    let elasticsearch = Faulty { name: "elasticsearch", fake: elasticsearch.clone(), failures };
    let elasticsearch = torment(elasticsearch, kills, &progress, seed ^ 2);
    let datadog = Faulty { name: "datadog", fake: datadog.clone(), failures };
    let datadog = torment(datadog, kills, &progress, seed ^ 3);
    let newrelic = Faulty { name: "newrelic", fake: newrelic.clone(), failures };
    let newrelic = torment(newrelic, kills, &progress, seed ^ 4);
    let requests = async {
        make_requests(gateway, numbers, &progress, seed).await;
        progress.end();
    };
    let (samples, ()) = tokio::join!(watch(gateway, before, &progress, backends, held), requests);
    let ended = tokio::task::spawn_blocking(move || {
        collector.join().unwrap();
        elasticsearch.join().unwrap();
        datadog.join().unwrap();
        newrelic.join().unwrap();
        postgres.join().unwrap()
    });
    (ended.await.unwrap(), samples)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_of_every_kind_of_request_and_fault_loses_nothing_without_a_reason_and_grows_nothing() {
    let seed = std::env::var("SOAK_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    let started = Instant::now();
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let backends = start_backends(&postgres).await;
    let provider = Provider::start().await;
    let gateway = gateway(&provider, &backends).start().await;
    eprintln!("seed {seed}, {} requests through {}", requests(), artifacts::gateway().display());

    let mut held = Held::default();
    let (mut samples, mut rests) = (Vec::new(), Vec::new());
    let legs = if requests() >= JUDGED_FROM { LEGS } else { 1 };
    let mut records = 0;
    for leg in 0..legs {
        let numbers = requests() * leg / legs..requests() * (leg + 1) / legs;
        let sent = numbers.end;
        let of_leg;
        let seed = seed ^ ((leg as u64) << 32);
        (postgres, of_leg) = run(&gateway, numbers, postgres, &backends, &mut held, seed).await;
        samples.extend(of_leg);
        let lost = gateway.metric("magicapi_gateway_lost_records_total", &[]).await as usize;
        records = sent - lost;
        eprintln!(
            "{sent} requests, {lost} lost by a recorder that could not keep up, {:.0?}",
            started.elapsed()
        );
        wait_until_settled(&gateway, &backends, &mut held, records as u64).await;
        if legs > 1 {
            rests.push(Sample::at_rest(&gateway, sent).await);
        }
    }
    vitals::show("at work", &samples);
    vitals::show("at rest", &rests);

    let exposition = gateway.admin("/metrics").await.text();
    assert_eq!(metrics::sum(&exposition, "magicapi_gateway_requests_total", &[]) as usize, requests());
    assert_eq!(metrics::sum(&exposition, "magicapi_llm_requests_total", &[]) as usize, records);
    assert_eq!(gateway.output().lines().count(), records, "the console has a line for each");
    let folder = gateway.folder().to_owned();
    let ids = ids_in_file(folder.join("records.jsonl"));
    assert_eq!(ids.len(), records, "the file has each record once");
    let books = all_books(&gateway).await;
    let held_by = [
        ("elasticsearch", held.elasticsearch, false),
        ("postgres", ids_in_postgres(&backends.database).await, false),
        // These have no idempotency key: what was stored when the answer was lost is sent again.
        ("datadog", held.datadog, true),
        ("newrelic", held.newrelic, true),
        ("otlp", held.otlp, true),
    ];
    for (name, held, may_repeat) in held_by {
        let place = PLUGINS.iter().position(|plugin| *plugin == name).unwrap();
        let letters = folder.join(format!("dead/{name}.jsonl"));
        assert_accounted(name, &books[place], &ids, &held, &letters, may_repeat);
    }
    if legs > 1 {
        vitals::assert_flat(&rests);
    }
    drop(postgres);
}
