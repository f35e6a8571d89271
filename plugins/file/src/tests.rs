//! The exporter as the gateway runs it, on real files.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Instant,
};

use exporter_testkit::{Plugin, Records, Sample, Verdict};
use plugin_api::abi::status;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::log::{Log, Shared};

/// A plugin on `log.jsonl` in `directory`, with more settings.
fn plugin(directory: &TempDir, more: &Value) -> Plugin<JsonLines> {
    let mut settings = json!({ "path": directory.path().join("log.jsonl") });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Plugin::create(settings.to_string()).unwrap()
}

fn batch(numbers: std::ops::Range<u32>) -> Vec<Sample> {
    numbers.map(|number| Sample::chat().number(number)).collect()
}

/// The thread ids of all lines, each of which must be whole.
fn threads(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{path:?} ends in a torn line");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["attributes"]["thread_id"].as_str().unwrap().to_owned()).collect()
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_record_is_one_line_of_the_log_form() {
    let directory = tempfile::tempdir().unwrap();
    let file = plugin(&directory, &json!({}));
    let pretty = Sample::chat().number(1).request("{\n  \"model\": \"a\\nb\",\r\n  \"n\": 1\n}");
    assert!(file.export([pretty, Sample::stream().number(2)]).is_all_delivered());
    file.health().unwrap();
    file.close().unwrap();
    let path = directory.path().join("log.jsonl");
    assert_eq!(threads(&path), ["thread_1", "thread_2"]);
    let text = fs::read_to_string(&path).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["attributes"]["request"], json!({ "model": "a\nb", "n": 1 }));
    assert_eq!(first["attributes"]["response"]["usage"]["total_tokens"], 913);
}

#[test]
fn directories_are_made_and_strangers_cannot_read() {
    let directory = tempfile::tempdir().unwrap();
    for (settings, expected) in [(json!({}), 0o600), (json!({ "mode": "0664" }), 0o664)] {
        let path = directory.path().join(format!("deep/er/{expected:o}.jsonl"));
        let mut all = json!({ "path": path });
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let file = Plugin::<JsonLines>::create(all.to_string()).unwrap();
        assert!(file.export(batch(0..1)).is_all_delivered());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, expected);
    }
}

#[test]
fn a_path_that_cannot_be_a_log_is_refused_with_the_path() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("plain"), "").unwrap();
    for (path, status, expected) in [
        (directory.path().to_owned(), status::INVALID_CONFIG, "no regular file"),
        ("/dev/null".into(), status::INVALID_CONFIG, "no regular file"),
        ("/".into(), status::INVALID_CONFIG, "names no file"),
        (directory.path().join("{org}.jsonl"), status::INVALID_CONFIG, "has `{org}` in it"),
        (directory.path().join("plain/log.jsonl"), status::FAULT, "plain/log.jsonl"),
    ] {
        let refused = Plugin::<JsonLines>::create(json!({ "path": path }).to_string()).unwrap_err();
        assert_eq!(refused.status, status, "{refused}");
        assert!(refused.message.contains(expected), "{refused}");
    }
}

#[test]
fn a_total_size_that_no_file_fits_is_refused() {
    for settings in [
        json!({ "path": "a", "max_total_bytes": "1 MiB" }),
        json!({ "path": "a", "max_total_bytes": "1 GiB", "max_bytes": "0 B" }),
    ] {
        let refused = Plugin::<JsonLines>::create(settings.to_string()).unwrap_err();
        assert_eq!(refused.status, status::INVALID_CONFIG);
        assert!(refused.message.starts_with("max_total_bytes is less than max_bytes"), "{refused}");
    }
}

#[test]
fn a_full_file_is_rotated_and_old_ones_go() {
    let directory = tempfile::tempdir().unwrap();
    let file = plugin(&directory, &json!({ "max_bytes": "5 KiB", "keep": 2 }));
    for number in 0..12 {
        assert!(file.export(batch(number..number + 1)).is_all_delivered());
    }
    file.close().unwrap();
    let names = names(&directory);
    assert_eq!(names.len(), 3, "{names:?}");
    let kept: Vec<_> = names.iter().flat_map(|name| threads(&directory.path().join(name))).collect();
    for name in &names {
        assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= 5 << 10, "{name}");
    }
    let newest: Vec<_> = (12 - kept.len()..12).map(|number| format!("thread_{number}")).collect();
    assert_eq!(kept, newest);
}

#[test]
fn rotated_files_are_compressed_in_the_background() {
    for (compression, ending) in [("gzip", ".jsonl.gz"), ("zstd", ".jsonl.zst")] {
        compresses(compression, ending);
    }
}

fn compresses(compression: &str, ending: &str) {
    let directory = tempfile::tempdir().unwrap();
    let settings = json!({ "max_bytes": "1 KiB", "keep": 0, "compress": true, "compression": compression });
    let file = plugin(&directory, &settings);
    let until = Instant::now() + Duration::from_secs(20);
    let mut number = 0;
    while names(&directory).iter().filter(|name| name.ends_with(ending)).count() < 3 {
        assert!(Instant::now() < until, "{:?}", names(&directory));
        assert!(file.export(batch(number..number + 1)).is_all_delivered());
        number += 1;
    }
    file.close().unwrap();
    let unfinished = names(&directory).into_iter().find(|name| name.ends_with("unfinished"));
    assert_eq!(unfinished, None);
}

/// A log without a plugin around it, so that time can be given.
fn log(directory: &TempDir) -> Log {
    let path = directory.path().join("log.jsonl");
    let config = json!({ "path": path, "max_bytes": "0 B", "max_age": "1h", "keep": 0 });
    Log::new(path, Arc::new(Shared::new(serde_json::from_value(config).unwrap())))
}

#[test]
fn an_old_file_is_rotated_by_the_next_batch_even_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let mut first = log(&directory);
    assert!(first.append(b"1\n", now).error.is_none());
    assert!(first.append(b"2\n", now + Duration::from_secs(1800)).error.is_none());
    drop(first);
    assert_eq!(names(&directory), ["log.jsonl"]);
    let mut second = log(&directory);
    assert!(second.append(b"3\n", now + Duration::from_secs(3700)).error.is_none());
    assert_eq!(names(&directory).len(), 2, "{:?}", names(&directory));
    assert_eq!(fs::read(directory.path().join("log.jsonl")).unwrap(), b"3\n");
}

#[test]
fn a_file_that_was_moved_or_deleted_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("log.jsonl"), directory.path().join("moved"));
    let file = plugin(&directory, &json!({}));
    assert!(file.export(batch(0..1)).is_all_delivered());
    fs::rename(&path, &moved).unwrap();
    assert!(file.export(batch(1..2)).is_all_delivered());
    assert_eq!((threads(&moved), threads(&path)), (vec!["thread_0".to_owned()], vec!["thread_1".to_owned()]));
    fs::remove_dir_all(directory.path()).unwrap();
    assert!(file.export(batch(2..3)).is_all_delivered());
    assert_eq!(threads(&path), ["thread_2"]);
    // And `copytruncate`: the same file, emptied.
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert!(file.export(batch(3..4)).is_all_delivered());
    assert_eq!(threads(&path), ["thread_3"]);
}

#[test]
fn a_second_writer_waits_until_the_first_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = plugin(&directory, &json!({}));
    let second = plugin(&directory, &json!({}));
    assert!(first.export(batch(0..1)).is_all_delivered());
    let refused = second.export(batch(1..2));
    assert_eq!(refused.status, status::RETRY);
    assert!(refused.message.contains("another gateway or plugin"), "{}", refused.message);
    assert!(second.health().is_err());
    first.close().unwrap();
    assert!(second.export(batch(1..2)).is_all_delivered());
    second.health().unwrap();
    assert_eq!(threads(&directory.path().join("log.jsonl")), ["thread_0", "thread_1"]);
}

#[test]
fn a_torn_last_line_is_moved_away_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    let file = plugin(&directory, &json!({}));
    assert!(file.export(batch(0..2)).is_all_delivered());
    file.close().unwrap();
    let length = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(length - 10).unwrap();
    let file = plugin(&directory, &json!({}));
    assert!(file.export(batch(1..3)).is_all_delivered());
    assert_eq!(threads(&path), ["thread_0", "thread_1", "thread_2"]);
    let torn = fs::read_to_string(directory.path().join("log.jsonl.torn")).unwrap();
    assert!(torn.starts_with("{\"timestamp\"") && torn.lines().count() == 1, "{torn}");
}

#[test]
fn a_fifo_where_half_a_line_is_to_be_moved_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("log.jsonl"), "{\"half").unwrap();
    let made = Command::new("mkfifo").arg(directory.path().join("log.jsonl.torn")).status().unwrap();
    assert!(made.success());
    let settings = json!({ "path": directory.path().join("log.jsonl") });
    let refused = Plugin::<JsonLines>::create(settings.to_string()).unwrap_err();
    assert_eq!(refused.status, status::INVALID_CONFIG, "{refused}");
    assert!(refused.message.contains("log.jsonl.torn is no regular file"), "{refused}");
    assert_eq!(fs::read_to_string(directory.path().join("log.jsonl")).unwrap(), "{\"half", "it is kept");
}

#[test]
fn every_fsync_policy_writes_the_same_lines() {
    for policy in ["never", "batch", "interval:5ms"] {
        let directory = tempfile::tempdir().unwrap();
        let file = plugin(&directory, &json!({ "fsync": policy, "max_bytes": "4 KiB", "keep": 0 }));
        for number in 0..6 {
            assert!(file.export(batch(number..number + 1)).is_all_delivered(), "{policy}");
        }
        file.health().unwrap();
        file.close().unwrap();
        let lines: usize =
            names(&directory).iter().map(|name| threads(&directory.path().join(name)).len()).sum();
        assert_eq!(lines, 6, "{policy}");
    }
}

#[test]
fn a_record_that_is_none_is_rejected_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = plugin(&directory, &json!({}));
    let odd = Sample::chat().with(|metrics| metrics.total_latency = f64::NAN);
    let outcome = file.export([Sample::chat().number(1), odd, Sample::chat().number(2)]);
    assert!(outcome.is_delivered(0) && outcome.is_delivered(2), "{outcome:?}");
    assert!(matches!(outcome.verdicts[1], Some(Verdict::Rejected(_))), "{outcome:?}");
    assert_eq!(threads(&directory.path().join("log.jsonl")), ["thread_1", "thread_2"]);
}

/// The writer of the next test, in a process of its own. Does nothing unless that test starts it.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("FILE_EXPORTER_TEST_PATH") else { return };
    let path = Path::new(&path);
    let file = Plugin::<JsonLines>::create(json!({ "path": path }).to_string()).unwrap();
    let body = format!("\"{}\"", "x".repeat(20_000));
    let batch = Records::of((0..50).map(|number| Sample::chat().number(number).request(&*body)));
    loop {
        assert!(file.export_records(&batch).is_all_delivered());
    }
}

#[test]
fn whole_lines_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.jsonl");
    let mut lines = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::child_that_writes_until_it_is_killed"])
            .env("FILE_EXPORTER_TEST_PATH", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = fs::metadata(&path).map_or(0, |metadata| metadata.size());
        while fs::metadata(&path).map_or(0, |metadata| metadata.size()) < start + round * 300_000 + 1 {
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let file = plugin(&directory, &json!({}));
        assert!(file.export(batch(0..1)).is_all_delivered());
        file.close().unwrap();
        let now = threads(&path).len();
        assert!(now > lines, "round {round}: {now} after {lines}");
        lines = now;
    }
}

/// Samples of two organisations, the second of which would like to be elsewhere.
fn of_two(numbers: std::ops::Range<u32>) -> Vec<Sample> {
    let of = |number: u32| if number.is_multiple_of(2) { "acme" } else { "../../acme" };
    numbers
        .map(|number| Sample::chat().number(number).with(|it| it.org_id = Some(of(number).into())))
        .collect()
}

#[test]
fn each_organisation_has_a_file_of_its_own_on_each_day() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/{date}/{org_id}.jsonl");
    let settings = json!({ "path": path, "max_open_files": 1 });
    let file = Plugin::<JsonLines>::create(settings.to_string()).unwrap();
    for numbers in [0..3, 3..6] {
        assert!(file.export(of_two(numbers)).is_all_delivered());
    }
    let day = directory.path().join("logs/2025-03-05");
    assert_eq!(threads(&day.join("acme.jsonl")), ["thread_0", "thread_2", "thread_4"]);
    assert_eq!(threads(&day.join("%2E%2E%2F%2E%2E%2Facme.jsonl")), ["thread_1", "thread_3", "thread_5"]);
    let next = Sample::chat().number(6).with(|it| {
        (it.timestamp, it.org_id) = ("2025-03-06T00:00:00.000Z".into(), None);
    });
    assert!(file.export([next]).is_all_delivered());
    assert_eq!(threads(&directory.path().join("logs/2025-03-06/_.jsonl")), ["thread_6"]);
    assert_eq!(names(&directory), ["logs"]);
}

#[test]
fn one_file_that_cannot_be_written_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("{org_id}.jsonl");
    let file = Plugin::<JsonLines>::create(json!({ "path": path }).to_string()).unwrap();
    fs::create_dir(directory.path().join("acme.jsonl")).unwrap();
    let refused = file.export(of_two(0..4));
    assert_eq!((refused.status, &*refused.letters()), (status::RETRY, "-D-D"), "{refused:?}");
    assert!(refused.message.contains("acme.jsonl"), "{}", refused.message);
    fs::remove_dir(directory.path().join("acme.jsonl")).unwrap();
    assert!(file.export(of_two(0..4).into_iter().step_by(2)).is_all_delivered());
    assert_eq!(threads(&directory.path().join("acme.jsonl")), ["thread_0", "thread_2"]);
}

#[test]
fn all_files_together_stay_below_their_size_and_the_newest_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let total = |directory: &TempDir| -> u64 {
        let sizes =
            names(directory).into_iter().map(|name| fs::metadata(directory.path().join(name)).unwrap().len());
        sizes.sum()
    };
    let settings = json!({ "max_bytes": "4 KiB", "keep": 0, "max_total_bytes": "20 KiB" });
    let file = plugin(&directory, &settings);
    for number in 0..40 {
        assert!(file.export(batch(number..number + 1)).is_all_delivered());
        // What was just written may be above it until the next look, and that is soon.
        assert!(total(&directory) <= 24 << 10, "{}", total(&directory));
    }
    let kept: Vec<_> =
        names(&directory).iter().flat_map(|name| threads(&directory.path().join(name))).collect();
    assert!(kept.len() >= 6 && total(&directory) > 12 << 10, "{kept:?}");
    let newest: Vec<_> = (40 - kept.len()..40).map(|number| format!("thread_{number}")).collect();
    assert_eq!(kept, newest);
    file.close().unwrap();

    let path = directory.path().join("{org_id}.jsonl");
    let settings =
        json!({ "path": path, "max_bytes": "4 KiB", "max_total_bytes": "4 KiB", "max_open_files": 1 });
    let file = Plugin::<JsonLines>::create(settings.to_string()).unwrap();
    assert!(file.export(of_two(0..2)).is_all_delivered());
    assert!(
        total(&directory) <= 8 << 10,
        "those that an earlier path has left count too: {:?}",
        names(&directory)
    );
}

#[test]
fn a_batch_is_cut_between_lines_so_that_every_piece_fits() {
    for (ends, max_bytes, expected) in [
        (&[10, 20, 30][..], 0, &[30][..]),
        (&[10, 20, 30], 30, &[30]),
        (&[10, 20, 30], 25, &[20, 30]),
        (&[10, 20, 30], 10, &[10, 20, 30]),
        (&[50, 60, 70], 25, &[50, 70]),
        (&[10, 60, 70], 25, &[10, 60, 70]),
        (&[0, 0, 10], 5, &[10]),
        (&[], 5, &[]),
        (&[0, 0], 5, &[]),
    ] {
        assert_eq!(cuts(ends, max_bytes), expected, "{ends:?} by {max_bytes}");
    }
}
