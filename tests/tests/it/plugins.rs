//! The three plugins of the house, at work.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use end_to_end::{
    Gateway, Provider, Running, client::post, metrics::sum, tools::promtool_check_metrics, wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";

fn question(model: &str, stream: bool) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Hello" }], "stream": stream })
        .to_string()
}

/// What the console exporter wrote, once there are so many lines.
async fn console_lines(gateway: &Running, count: usize) -> Vec<String> {
    wait_for(&format!("{count} lines on standard output"), || async {
        Some(gateway.output().lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|lines| lines.len() >= count)
    })
    .await
}

#[tokio::test]
async fn the_console_shows_each_request_in_one_readable_line_whose_columns_stand_still() {
    let provider = Provider::start().await;
    let gateway =
        Gateway::new().provider("demo", &provider.url()).plugin("console", "console", "").start().await;
    let plain = gateway.post(CHAT, question("demo", false)).await.json();
    let with_usage = r#"{"model":"demo-words:7","messages":[{"role":"user","content":"Hello"}],"stream":true,
        "stream_options":{"include_usage":true}}"#;
    gateway.post(CHAT, with_usage).await;
    gateway.post(CHAT, question("demo-fail-429", false)).await;
    let lines = console_lines(&gateway, 3).await;
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
    let (input, output) = (&plain["usage"]["prompt_tokens"], &plain["usage"]["completion_tokens"]);
    let (input, output) = (input.to_string(), output.to_string());
    assert_eq!(words[0][1..8], ["200", "POST", CHAT, "demo/demo", &input, "→", &output], "{}", lines[0]);
    assert_eq!(words[1][1..5], ["200", "POST", CHAT, "demo/demo-words:7"], "{}", lines[1]);
    assert_eq!(words[1][6..8], ["→", "7"], "{}", lines[1]);
    assert_eq!(words[1][9], "ttft", "{}", lines[1]);
    assert_eq!(words[2][1..8], ["429", "POST", CHAT, "demo/demo-fail-429", "-", "→", "-"], "{}", lines[2]);
    assert!(words[2].len() > 9, "what went wrong stands at the end: {}", lines[2]);
    for (line, words) in lines.iter().zip(&words) {
        let is_time = words[0].len() == "16:03:20.123".len() && words[0].matches(':').count() == 2;
        assert!(is_time, "{line}");
        assert!(
            words[8].ends_with('s') && words[8].starts_with(|c: char| c.is_ascii_digit()),
            "a latency: {line}"
        );
        let column = |line: &str| line.chars().position(|c| c == '→');
        assert_eq!(column(line), column(&lines[0]), "{lines:#?}");
        assert!(!line.contains('\u{1b}'), "no colours in a pipe: {line:?}");
    }
}

#[tokio::test]
async fn the_console_in_json_writes_the_same_record_as_the_file() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let gateway = gateway.plugin("console", "console", "config.format = \"json\"").start().await;
    gateway.post(CHAT, question("demo", true)).await;
    let line = console_lines(&gateway, 1).await.remove(0);
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), gateway.record().await);
}

/// Everything in a file of JSON lines; the last line must have its end, too.
fn whole_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line at the end of {}", path.display());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A gateway whose file exporter writes to `path`, with further settings.
async fn writing_to(path: &Path, provider: &Provider, settings: &str) -> Running {
    let gateway = Gateway::new().provider("demo", &provider.url());
    let keys = format!("[plugin.config]\npath = \"{}\"\n{settings}", path.display());
    gateway.plugin("file", "file", &keys).start().await
}

/// Clients that ask until the gateway is gone.
fn load(gateway: &Running) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (client, url) = (gateway.client.clone(), format!("{}{CHAT}", gateway.url));
        clients.spawn(async move {
            while client.open(post(&url, question("demo-fast", false), &[])).await.is_ok() {}
        });
    }
    clients
}

#[tokio::test]
async fn the_file_holds_whole_lines_alone_after_a_kill_and_goes_on_where_it_was() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("records.jsonl");
    let mut killed = writing_to(&path, &provider, "").await;
    let clients = load(&killed);
    wait_for("records under load", || async {
        fs::read_to_string(&path).is_ok_and(|text| text.lines().count() > 100).then_some(())
    })
    .await;
    killed.signal(Signal::KILL);
    assert_eq!(killed.exit_code().await, None, "it had no time to tidy up");
    clients.join_all().await;
    let before = whole_lines(&path).len();

    let next = writing_to(&path, &provider, "").await;
    next.post(CHAT, question("demo", false)).await;
    next.wait_for_books("file", |books| books["delivered"] == 1).await;
    let records = whole_lines(&path);
    assert_eq!(records.len(), before + 1);
    let ids: BTreeSet<&str> =
        records.iter().map(|record| record["attributes"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), records.len(), "no record is there twice");
}

#[tokio::test]
async fn a_line_that_a_crash_of_the_machine_tore_is_put_aside_and_said() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("records.jsonl");
    fs::write(&path, "{\"whole\":1}\n{\"torn\":\"in the midd").unwrap();
    let gateway = writing_to(&path, &provider, "").await;
    gateway.post(CHAT, question("demo", false)).await;
    gateway.wait_for_books("file", |books| books["delivered"] == 1).await;
    let lines = whole_lines(&path);
    assert_eq!((lines.len(), &lines[0]), (2, &json!({ "whole": 1 })));
    let torn = folder.path().join("records.jsonl.torn");
    assert_eq!(fs::read_to_string(&torn).unwrap(), "{\"torn\":\"in the midd\n", "nothing is thrown away");
    let log = gateway.log();
    let is_warning = |line: &str| {
        line.contains("WARN") && line.contains("plugin=\"file\"") && line.contains("records.jsonl.torn")
    };
    assert!(log.lines().any(is_warning), "{log}");
}

/// The file and those rotated from it.
fn log_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect()
}

#[tokio::test]
async fn the_file_is_rotated_by_size_and_no_line_is_lost_or_split() {
    const LIMIT: u64 = 16 * 1024;
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let settings = "max_bytes = \"16 KiB\"\nkeep = 0\n";
    let gateway = writing_to(&folder.path().join("records.jsonl"), &provider, settings).await;
    for _ in 0..40 {
        gateway.post(CHAT, question("demo", false)).await;
    }
    gateway.wait_for_books("file", |books| books["delivered"] == 40).await;
    let files = log_files(folder.path());
    assert!(files.len() > 2, "40 records of more than 1 KiB do not fit into {files:?}");
    let lengths = files.iter().map(|file| fs::metadata(file).unwrap().len());
    let all: Vec<Value> = files.iter().flat_map(|file| whole_lines(file)).collect();
    assert!(lengths.clone().all(|length| length <= LIMIT), "{:?}", lengths.collect::<Vec<_>>());
    let ids: BTreeSet<&str> = all.iter().map(|record| record["attributes"]["id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), ids.len()), (40, 40));
}

#[tokio::test]
async fn only_so_many_rotated_files_are_kept() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let settings = "max_bytes = \"2 KiB\"\nkeep = 2\n";
    let gateway = writing_to(&folder.path().join("records.jsonl"), &provider, settings).await;
    for count in 1..=8 {
        gateway.post(CHAT, question("demo", false)).await;
        gateway.wait_for_books("file", |books| books["delivered"] == count).await;
    }
    wait_for("the older files to go", || async { (log_files(folder.path()).len() == 3).then_some(()) }).await;
    let newest = whole_lines(&folder.path().join("records.jsonl"));
    assert_eq!(newest.len(), 1, "each record has a file of its own at this size");
}

/// The different values of a label in the series of one metric.
fn values(exposition: &str, metric: &str, label: &str) -> BTreeSet<String> {
    let series = exposition.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
    let value = |line: &str| Some(line.split_once(&format!("{label}=\""))?.1.split('"').next()?.to_owned());
    series.filter_map(value).collect()
}

/// Asks for models that nobody has heard of, each by a name of its own.
async fn ask_for_models(gateway: &Running, numbers: std::ops::Range<usize>) {
    let mut clients = JoinSet::new();
    let (per_client, end) = (numbers.len().div_ceil(8), numbers.end);
    for start in numbers.step_by(per_client) {
        let (client, url) = (gateway.client.clone(), format!("{}{CHAT}", gateway.url));
        clients.spawn(async move {
            for number in start..end.min(start + per_client) {
                let hostile = format!("m{number}\\}}\n{{le=\u{1b}[2J é{}", "x".repeat(number % 300));
                client.send(post(&url, question(&hostile, number % 2 == 0), &[])).await;
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test]
async fn a_thousand_hostile_model_names_make_no_more_series_than_allowed() {
    let provider = Provider::start().await;
    let keys = "[plugin.config]\nmax_models = 20\nmax_series = 300\n";
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .plugin("prometheus", "prometheus", keys)
        .start()
        .await;
    let scrape_after = async |count: usize| {
        gateway.wait_for_books("prometheus", |books| books["delivered"] == count).await;
        gateway.admin("/metrics").await.text()
    };
    let series = |text: &str| text.lines().filter(|line| line.starts_with("magicapi_llm_")).count();
    ask_for_models(&gateway, 0..200).await;
    let early = scrape_after(200).await;
    ask_for_models(&gateway, 200..1000).await;
    let late = scrape_after(1000).await;

    let models = values(&late, "magicapi_llm_requests_total", "model");
    assert!(models.contains("other") && models.len() == 21, "{} models: {models:?}", models.len());
    assert_eq!(sum(&late, "magicapi_llm_requests_total", &[]), 1000.0, "no request is missing from the sum");
    assert_eq!(sum(&late, "magicapi_llm_requests_total", &[("model", "other")]), 980.0);
    assert_eq!(series(&early), series(&late), "800 models more, and not one series");
    promtool_check_metrics(&late).unwrap();
}
