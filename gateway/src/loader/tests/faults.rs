//! A plugin that loads, and then misbehaves: each call still ends, and says what became of it.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use plugin_api::abi::scrape_format;
use serde_json::json;

use super::probe::{AMPLE, Planted, library, loaded, records};
use crate::loader::{
    CallFailed, CallKind, CallStatus, ExportOutcome, Health, LoadRequest, Plugin, RecordVerdict, State,
};

async fn export(plugin: &Plugin, count: usize) -> ExportOutcome {
    plugin.export(0, records(count), 0, AMPLE).await.unwrap()
}

#[tokio::test]
async fn every_status_of_export_arrives_with_its_message() {
    let plugin = loaded(&[
        "retry",
        "retry_after:1500ms",
        "reject",
        "too_large",
        "unauthorized",
        "panic",
        "panic_payload",
    ])
    .await;
    let expected = [
        (CallStatus::Retry, "told to fail"),
        (CallStatus::Retry, "told to fail"),
        (CallStatus::Reject, "told to reject"),
        (CallStatus::TooLarge, "2 records are too many"),
        (CallStatus::Unauthorized, "told to refuse the credentials"),
        (CallStatus::Panic, "told to panic (at "),
        (CallStatus::Panic, "no text"),
    ];
    for (index, (status, message)) in expected.into_iter().enumerate() {
        let outcome = export(&plugin, 2).await;
        assert_eq!(outcome.status, status, "{outcome:?}");
        assert!(outcome.message.contains(message), "{outcome:?}");
        let delay = (index == 1).then_some(Duration::from_millis(1500));
        assert_eq!((outcome.retry_after, outcome.faults), (delay, 0), "{outcome:?}");
    }
    assert_eq!(plugin.state(), State::Running, "a panic is an answer");
}

#[tokio::test]
async fn verdicts_arrive_by_record_and_lies_are_counted() {
    let plugin = loaded(&["thirds", "per_record_missing", "lie_index", "ok"]).await;
    let delivered = Some(RecordVerdict::Delivered);
    let retry = Some(RecordVerdict::Retry { reason: "told to retry it".to_owned() });
    let rejected = Some(RecordVerdict::Rejected { reason: "told to reject it".to_owned() });

    let outcome = export(&plugin, 4).await;
    assert_eq!(outcome.status, CallStatus::PerRecord);
    assert_eq!(outcome.verdicts, [delivered.clone(), retry, rejected, delivered.clone()]);

    let outcome = export(&plugin, 3).await;
    assert_eq!((outcome.status, outcome.verdicts), (CallStatus::PerRecord, vec![delivered, None, None]));

    let outcome = export(&plugin, 3).await;
    assert_eq!((outcome.status, outcome.faults), (CallStatus::Ok, 1));
    assert!(outcome.verdicts.is_empty());

    let outcome = export(&plugin, 3).await;
    assert_eq!((outcome.status, outcome.faults, outcome.verdicts.capacity()), (CallStatus::Ok, 0, 0));
}

#[tokio::test]
async fn a_call_that_awaits_too_long_ends_inside_the_plugin_at_its_deadline() {
    let plugin = loaded(&["slow:60s"]).await;
    let outcome = plugin.export(0, records(1), 0, Duration::from_millis(100)).await.unwrap();
    assert_eq!(outcome.status, CallStatus::Timeout);
    assert_eq!(plugin.state(), State::Running);
}

#[tokio::test]
async fn a_call_that_never_returns_is_given_up_and_the_plugin_gets_no_more() {
    let plugin = loaded(&["hang"]).await;
    let batch = records(1);
    let begun = Instant::now();
    let failed = plugin.export(0, Arc::clone(&batch), 0, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(failed, CallFailed::Stuck { call: CallKind::Export });
    assert!((1.0..10.0).contains(&begun.elapsed().as_secs_f64()), "the grace is one second");
    assert!(matches!(plugin.state(), State::Stuck { call: CallKind::Export, .. }));
    assert_eq!(Arc::strong_count(&batch), 2, "the records live as long as the call");

    let begun = Instant::now();
    assert!(plugin.export(0, records(1), 0, AMPLE).await.is_err());
    assert!(
        plugin.health(AMPLE).await.is_ok() && plugin.scrape(0, AMPLE).await.is_ok(),
        "it can still be asked"
    );
    assert_eq!(plugin.stop(AMPLE).await, Err(CallFailed::Stuck { call: CallKind::Export }));
    assert!(begun.elapsed() < Duration::from_secs(1), "all at once");
    assert_eq!(plugin.state(), State::Stopped);
}

#[tokio::test]
async fn a_plugin_that_comes_back_after_all_runs_again() {
    let plugin = loaded(&["block:2s", "ok"]).await;
    let failed = plugin.export(0, records(1), 0, Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(failed, CallFailed::Stuck { call: CallKind::Export });
    while plugin.state() != State::Running {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(export(&plugin, 1).await.status, CallStatus::Ok);
    plugin.stop(AMPLE).await.unwrap();
}

#[tokio::test]
async fn a_scrape_and_a_health_check_are_answered_beside_a_running_export() {
    let plugin = Arc::new(loaded(&["hang"]).await);
    let exporting = tokio::spawn({
        let plugin = Arc::clone(&plugin);
        async move { plugin.export(0, records(1), 0, AMPLE).await }
    });
    while !plugin.is_in_a_call() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(plugin.scrape(scrape_format::PROMETHEUS_TEXT, AMPLE).await.unwrap().is_some());
    assert_eq!(plugin.health(AMPLE).await, Ok(Health::Healthy));
    assert_eq!(plugin.state(), State::Running);
    assert!(!exporting.is_finished());
    exporting.abort();
}

#[tokio::test]
async fn a_scrape_that_hangs_holds_up_no_export() {
    let plugin = Planted::new(library()).load(json!({ "scrape": "hang" })).await.unwrap();
    let (scrape, first) = tokio::join!(
        plugin.scrape(scrape_format::PROMETHEUS_TEXT, Duration::from_millis(50)),
        plugin.export(0, records(1), 0, AMPLE)
    );
    assert_eq!(scrape, Err(CallFailed::Stuck { call: CallKind::Scrape }));
    assert_eq!(first.unwrap().status, CallStatus::Ok);
    assert_eq!(export(&plugin, 1).await.status, CallStatus::Ok);
    let begun = Instant::now();
    let again = plugin.scrape(scrape_format::PROMETHEUS_TEXT, AMPLE).await;
    assert_eq!(again, Err(CallFailed::Stuck { call: CallKind::Scrape }));
    assert!(begun.elapsed() < Duration::from_secs(1), "at once");
}

#[tokio::test]
async fn scrapes_and_health_checks_say_what_the_plugin_says() {
    let planted = Planted::new(library());
    let text = scrape_format::PROMETHEUS_TEXT;
    let load =
        async |scrape, health| planted.load(json!({ "scrape": scrape, "health": health })).await.unwrap();

    let plugin = load("ok", "ok").await;
    assert!(plugin.scrape(text, AMPLE).await.unwrap().unwrap().starts_with(b"# HELP probe_"));
    assert_eq!(plugin.scrape(scrape_format::OPEN_METRICS, AMPLE).await, Ok(None));
    assert_eq!(plugin.scrape(99, AMPLE).await, Ok(None));
    assert_eq!(plugin.health(AMPLE).await, Ok(Health::Healthy));

    let plugin = load("none", "unhealthy").await;
    assert_eq!(plugin.scrape(text, AMPLE).await, Ok(None));
    assert_eq!(plugin.health(AMPLE).await, Ok(Health::Unhealthy("told to be unhealthy".to_owned())));

    let plugin = load("panic", "unknown").await;
    let failed = plugin.scrape(text, AMPLE).await.unwrap_err();
    assert!(matches!(&failed, CallFailed::Failed(report) if report.status == CallStatus::Panic), "{failed}");
    assert_eq!(plugin.health(AMPLE).await, Ok(Health::Unknown));
    assert!(load("garbage", "ok").await.scrape(text, AMPLE).await.unwrap().unwrap().starts_with(b"\xff"));
}

#[tokio::test]
async fn a_shutdown_that_fails_panics_or_hangs_ends_all_the_same() {
    let planted = Planted::new(library());
    for (shutdown, status) in [("fail", CallStatus::Retry), ("panic", CallStatus::Panic)] {
        let plugin = planted.load(json!({ "shutdown": shutdown })).await.unwrap();
        let failed = plugin.flush(AMPLE).await.unwrap_err();
        assert!(matches!(&failed, CallFailed::Failed(report) if report.status == status), "{failed}");
        plugin.stop(AMPLE).await.unwrap();
    }
    let plugin = planted.load(json!({ "shutdown": "hang" })).await.unwrap();
    let failed = plugin.flush(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(failed, CallFailed::Stuck { call: CallKind::Flush });
    assert_eq!(plugin.stop(AMPLE).await, Err(CallFailed::Stuck { call: CallKind::Flush }));
}

#[tokio::test]
async fn a_stop_during_a_long_call_waits_no_longer_than_it_may() {
    let plugin = Arc::new(loaded(&["slow:60s"]).await);
    let exporting = tokio::spawn({
        let plugin = Arc::clone(&plugin);
        async move { plugin.export(0, records(1), 0, AMPLE).await }
    });
    while !plugin.is_in_a_call() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    let failed = plugin.stop(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(failed, CallFailed::Stuck { call: CallKind::Export });
    assert!(begun.elapsed() < Duration::from_secs(5));
    exporting.abort();
}

#[tokio::test]
async fn a_disabled_plugin_takes_no_calls_and_says_why() {
    let plugin = loaded(&[]).await;
    plugin.disable("10 panics in a row");
    plugin.disable("another reason");
    assert_eq!(plugin.state(), State::Disabled { reason: "10 panics in a row".to_owned() });
    assert_eq!(plugin.export(0, records(1), 0, AMPLE).await.unwrap_err(), CallFailed::Disabled);
    plugin.stop(AMPLE).await.unwrap();
    assert_eq!(plugin.stop(AMPLE).await, Err(CallFailed::Stopped));
    assert_eq!(plugin.export(0, records(1), 0, AMPLE).await.unwrap_err(), CallFailed::Stopped);
}

#[tokio::test]
async fn workers_export_at_the_same_time_and_all_end() {
    let planted = Planted::new(library());
    let request = LoadRequest { workers: 3, ..planted.load_request(json!({ "script": ["block:2s"] })) };
    let plugin = Plugin::load(request).await.unwrap();
    assert_eq!(plugin.workers(), 3);
    let begun = Instant::now();
    let export = |worker| plugin.export(worker, records(1), 0, AMPLE);
    let (a, b, c) = tokio::join!(export(0), export(1), export(2));
    assert!([a, b, c].iter().all(|outcome| outcome.as_ref().unwrap().status == CallStatus::Ok));
    assert!(begun.elapsed() < Duration::from_millis(5500), "{:?}", begun.elapsed());
    plugin.stop(AMPLE).await.unwrap();
}

#[tokio::test]
async fn a_stuck_worker_keeps_the_instance_from_being_destroyed_under_it() {
    let planted = Planted::new(library());
    let request = LoadRequest { workers: 2, ..planted.load_request(json!({ "script": ["hang"] })) };
    let plugin = Plugin::load(request).await.unwrap();
    let failed = plugin.export(1, records(1), 0, Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(failed, CallFailed::Stuck { call: CallKind::Export });
    assert_eq!(plugin.export(0, records(1), 0, AMPLE).await.unwrap_err(), failed);
    assert_eq!(plugin.stop(AMPLE).await, Err(failed));
}

#[tokio::test]
async fn what_the_probe_claims_to_have_delivered_is_in_its_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (out, control) = (folder.path().join("out.jsonl"), folder.path().join("control"));
    let config = json!({ "out": out, "control": control, "script": ["ok"] });
    let plugin = Planted::new(library()).load(config).await.unwrap();
    export(&plugin, 1).await;
    fs::write(&control, "retry_half\n").unwrap();
    plugin.export(0, records(3), 7, AMPLE).await.unwrap();
    fs::remove_file(&control).unwrap();
    export(&plugin, 1).await;
    let lines = fs::read_to_string(out).unwrap();
    let ids: Vec<_> =
        lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    let of = |line: &serde_json::Value| {
        (line["id"].as_str().unwrap().to_owned(), line["attempt"].as_u64().unwrap())
    };
    let expected = [("r0", 0), ("r0", 7), ("r2", 7), ("r0", 0)].map(|(id, attempt)| (id.to_owned(), attempt));
    assert_eq!(ids.iter().map(of).collect::<Vec<_>>(), expected);
}

/// Collects what is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The subscriber is the process's, so this too runs in a process of its own.
#[test]
fn log_lines_of_a_plugin_come_out_under_its_name_and_a_flood_is_cut() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "loader::tests::faults::with_a_log"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "sets the process's subscriber; run in a process of its own by the test above"]
async fn with_a_log() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let plugin = loaded(&["log:1000"]).await;
    export(&plugin, 1).await;
    plugin.stop(AMPLE).await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let ready = text.lines().find(|line| line.contains("the probe is ready")).unwrap();
    assert!(ready.contains("INFO plugin: ") && ready.contains(r#"plugin="probe-under-test""#), "{ready}");
    assert!(ready.contains(r#"module="probe_exporter""#), "{ready}");
    let lines = text.lines().filter(|line| line.contains("a line of the probe's")).count();
    assert!((50..=200).contains(&lines), "{lines} lines");
    assert!(text.contains("were left out"), "{text}");
}
