//! Dead letters and `magicapi-gateway replay`: what an exporter gives up is kept, and delivered later, once.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use end_to_end::{Ended, Gateway, Provider, Running, artifacts, wait_for};
use serde_json::{Value, json};

pub(crate) const PATH: &str = "/v1/chat/completions";
pub(crate) const DEAD: &str = "dead/probe.jsonl";
const KEYS: &str = "batch.max_records = 4\ndead_letter = \"dead/probe.jsonl\"";

pub(crate) async fn start(keys: &str, script: &str) -> Running {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).probe("probe", keys, script);
    let gateway = gateway.start().await;
    // The provider lives as long as the test.
    std::mem::forget(provider);
    gateway
}

/// Makes so many records, each with a body of its own.
pub(crate) async fn ask(gateway: &Running, count: usize) {
    for number in 0..count {
        let question = format!(
            r#"{{"model":"demo-fast","messages":[{{"role":"user","content":"question {number}"}}]}}"#
        );
        assert_eq!(gateway.post(PATH, question).await.status, 200);
    }
}

pub(crate) fn letters(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id(letter: &Value) -> String {
    letter["record"]["metrics"]["id"].as_str().unwrap().to_owned()
}

pub(crate) fn ids(letters: &[Value]) -> HashSet<String> {
    let ids: HashSet<String> = letters.iter().map(id).collect();
    assert_eq!(ids.len(), letters.len(), "a record is in the file twice");
    ids
}

/// Stops the gateway; its dead letters are all in the file then.
async fn stopped(gateway: &mut Running) -> Vec<Value> {
    assert_eq!(gateway.stop().await, Some(0));
    letters(&gateway.folder().join(DEAD))
}

pub(crate) fn replay(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(artifacts::gateway());
    command.arg("replay").args(arguments).args(["--plugin", "probe"]).current_dir(folder).env_clear();
    command
}

pub(crate) async fn replayed(folder: &Path, arguments: &[&str]) -> Ended {
    Ended::of(replay(folder, arguments)).await
}

/// Replaces text of the configuration.
fn reconfigure(folder: &Path, from: &str, to: &str) {
    let path = folder.join("gateway.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

pub(crate) fn noted(folder: &Path) -> HashSet<String> {
    let text = fs::read_to_string(folder.join("dead/probe.jsonl.replayed")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole.lines().map(|line| line.strip_prefix("probe ").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_rejected_record_is_kept_whole_and_delivered_by_a_replay_once() {
    let mut gateway = start(KEYS, r#"script = ["reject_half"]"#).await;
    ask(&gateway, 8).await;
    let books = gateway.settled("probe", 8).await;
    let rejected = usize::try_from(books["rejected"]["record"].as_u64().unwrap()).unwrap();
    let written = wait_for("the letters to be written", || async {
        Some(gateway.plugin("probe").await).filter(|plugin| plugin["dead_letter"]["records"] == rejected)
    });
    let dead_letter = written.await["dead_letter"].take();
    assert_eq!(dead_letter["failures"], 0);
    assert!(dead_letter["path"].as_str().unwrap().ends_with(DEAD));
    let label = [("plugin", "probe")];
    let counted = gateway.metric("magicapi_exporter_dead_letter_records_total", &label).await;
    assert!((counted - rejected as f64).abs() < 0.5 && rejected > 0, "{counted} {rejected}");
    let before = gateway.delivered_once("probe");
    let letters = stopped(&mut gateway).await;
    assert_eq!(letters.len(), rejected);
    for letter in &letters {
        let (fate, reason) = (&letter["fate"], &letter["reason"]);
        assert_eq!(
            (letter["version"].as_u64(), fate, reason),
            (Some(1), &json!("rejected"), &json!("record"))
        );
        assert_eq!((&letter["plugin"], &letter["attempts"]), (&json!("probe"), &json!(1)), "{letter}");
        assert_eq!(letter["message"], "told to reject it");
        assert!(letter["record"]["request"]["messages"][0]["content"].as_str().unwrap().contains("question"));
        assert!(letter["record"]["response"]["choices"].is_array(), "{letter}");
    }
    let mode = |path: &str| fs::metadata(gateway.folder().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(DEAD), mode("dead")), (0o600, 0o700));

    let folder = gateway.folder();
    let content = fs::read(folder.join(DEAD)).unwrap();
    gateway.command("probe", "ok");
    let dry = replayed(folder, &[DEAD, "--dry-run"]).await;
    assert_eq!((dry.code, dry.output), (Some(0), format!("{rejected} to send\n")));
    assert_eq!(gateway.delivered_once("probe"), before, "a dry run sends nothing");
    let first = replayed(folder, &[DEAD]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.output, format!("{rejected} delivered, 0 rejected again, 0 given up; 0 left\n"));
    let after = gateway.delivered_once("probe");
    assert_eq!(after.difference(&before).cloned().collect::<HashSet<_>>(), ids(&letters));
    let second = replayed(folder, &[DEAD]).await;
    let expected =
        format!("0 delivered, 0 rejected again, 0 given up, {rejected} delivered before; 0 left\n");
    assert_eq!((second.code, second.output), (Some(0), expected));
    assert_eq!(gateway.delivered_once("probe"), after);
    assert_eq!(fs::read(folder.join(DEAD)).unwrap(), content, "the file is never changed");
}

#[tokio::test]
async fn a_single_bad_record_is_told_with_its_words_and_stays_when_it_is_rejected_again() {
    let mut gateway = start(KEYS, r#"script = ["poison:cyanide"]"#).await;
    ask(&gateway, 7).await;
    let poison = r#"{"model":"demo-fast","messages":[{"role":"user","content":"cyanide"}]}"#;
    assert_eq!(gateway.post(PATH, poison).await.status, 200);
    // One that is delivered after it shows that it is not the set-up.
    ask(&gateway, 1).await;
    gateway.settled("probe", 9).await;
    let letters = stopped(&mut gateway).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["message"]),
        (&json!("call"), &json!("poison in the batch"))
    );
    let again = replayed(gateway.folder(), &[DEAD]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(
        again.output,
        "0 delivered, 1 rejected again, 0 given up; 1 left\n  1 rejected (call): poison in the batch\n"
    );
    assert_eq!(self::letters(&gateway.folder().join(DEAD)), letters, "not appended twice");
    gateway.command("probe", "ok");
    assert_eq!(replayed(gateway.folder(), &[DEAD]).await.code, Some(0));
    assert_eq!(gateway.delivered_once("probe").len(), 9);
}

#[tokio::test]
async fn records_out_of_retries_too_large_or_left_at_the_end_are_kept() {
    let exhausted = "retry.max_elapsed = \"50ms\"\ncircuit_breaker.failures = 1000000";
    let open = "retry.max_elapsed = \"50ms\"\ncircuit_breaker.cool_down = \"60ms\"\n\
                circuit_breaker.max_cool_down = \"60ms\"\nbatch.max_records = 1";
    for (keys, script, reason) in [
        (exhausted, "retry", "retry_exhausted"),
        (open, "unauthorized", "breaker_open_timeout"),
        ("", "too_large", "oversize"),
    ] {
        let keys = format!("dead_letter = \"{DEAD}\"\n{keys}");
        let mut gateway = start(&keys, &format!("script = [\"{script}\"]")).await;
        ask(&gateway, 2).await;
        if reason != "oversize" {
            let books = gateway.settled("probe", 2).await;
            assert_eq!(books["dropped"][reason], 2, "{books}");
        }
        // No other record is taken by which the large ones could be judged: they are, at the end.
        let letters = stopped(&mut gateway).await;
        assert_eq!(ids(&letters).len(), 2);
        for letter in letters {
            assert_eq!((&letter["fate"], &letter["reason"]), (&json!("dropped"), &json!(reason)));
            assert!(!letter["message"].as_str().unwrap().is_empty(), "{letter}");
            assert!(
                letter["record"]["request"]["messages"].is_array(),
                "it was kept with its bodies: {letter}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_queued_or_in_flight_at_the_end_is_kept() {
    let provider = Provider::start().await;
    let keys = format!("dead_letter = \"{DEAD}\"\nbatch.max_records = 2");
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .section("[telemetry]\ndrain_timeout = \"100ms\"")
        .probe("probe", &keys, r#"script = ["retry"]"#);
    let mut gateway = gateway.start().await;
    ask(&gateway, 7).await;
    gateway.wait_for_books("probe", |books| books["accepted"] == 7 && books["in_flight"] != 0).await;
    let letters = stopped(&mut gateway).await;
    assert_eq!(ids(&letters).len(), 7);
    assert!(letters.iter().all(|letter| letter["reason"] == "shutdown"), "{letters:?}");
    gateway.command("probe", "ok");
    assert_eq!(replayed(gateway.folder(), &[DEAD]).await.code, Some(0));
    assert_eq!(gateway.delivered_once("probe"), ids(&letters));
}

#[tokio::test]
async fn an_exporter_that_may_not_see_bodies_has_none_in_its_dead_letters() {
    for content in ["metadata", "none"] {
        let keys = format!("{KEYS}\ncontent = \"{content}\"");
        let mut gateway = start(&keys, r#"script = ["reject_each"]"#).await;
        ask(&gateway, 3).await;
        gateway.settled("probe", 3).await;
        let letters = stopped(&mut gateway).await;
        assert_eq!(ids(&letters).len(), 3);
        for letter in letters {
            let parts: Vec<&String> = letter["record"].as_object().unwrap().keys().collect();
            assert_eq!(parts, ["metrics"], "{content}: {letter}");
            assert!(!letter.to_string().contains("question"), "{content}: {letter}");
        }
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_written_to_stops_no_delivery_and_check_finds_it_first() {
    let provider = Provider::start().await;
    let mut gateway = Gateway::new().provider("demo", &provider.url());
    let file = gateway.folder().join("file");
    fs::write(&file, "").unwrap();
    gateway = gateway.probe("probe", "batch.max_records = 1\ndead_letter = \"file/x.jsonl\"", "");
    let checked = Ended::of(gateway.command(&["check"])).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    assert!(
        checked.complaints()[0].contains("plugin \"probe\": dead_letter: cannot be written to: "),
        "{checked:?}"
    );
    let gateway = gateway.start().await;
    gateway.command("probe", "reject_each");
    ask(&gateway, 3).await;
    gateway.settled("probe", 3).await;
    wait_for("the failures", || async {
        (gateway.plugin("probe").await["dead_letter"]["failures"] == 3).then_some(())
    })
    .await;
    gateway.command("probe", "ok");
    ask(&gateway, 3).await;
    assert_eq!(gateway.settled("probe", 6).await["delivered"], 3);
    let complaints = gateway.log().matches("dead letters could not be written").count();
    assert_eq!(complaints, 1, "told once, not for every record");
    let label = [("plugin", "probe")];
    assert!(gateway.metric("magicapi_exporter_dead_letter_failures_total", &label).await > 2.5);
}

/// A folder with a configuration and `count` dead letters in rotated files, made by a gateway whose probe rejects.
pub(crate) async fn rejected(keys: &str, count: usize) -> Running {
    let mut gateway =
        start(&format!("dead_letter = \"{DEAD}\"\n{keys}"), r#"script = ["reject_each"]"#).await;
    ask(&gateway, count).await;
    gateway.settled("probe", count).await;
    assert_eq!(gateway.stop().await, Some(0));
    gateway
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("dead")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    files.sort_unstable();
    files
}

#[tokio::test]
async fn rotated_files_are_replayed_in_step_with_a_small_queue() {
    let keys = "dead_letter_max_bytes = \"8 KiB\"\ndead_letter_keep = 100\nbatch.max_records = 3";
    let gateway = rejected(keys, 40).await;
    let folder = gateway.folder();
    let files = files(folder);
    assert!(files.len() > 3, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 8192), "{files:?}");
    let letters: Vec<Value> = files.iter().flat_map(|file| letters(file)).collect();
    assert_eq!(ids(&letters).len(), 40);
    reconfigure(
        folder,
        "batch.max_records = 3",
        "batch.max_records = 3\nqueue.max_records = 5\nqueue.max_bytes = \"16 KiB\"",
    );
    gateway.command("probe", "ok");
    let zipped = Command::new("gzip").arg(&files[0]).status().unwrap();
    assert!(zipped.success());
    let mut arguments: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    arguments[0].push_str(".gz");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = replayed(folder, &arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.output.starts_with("40 delivered, 0 rejected again, 0 given up; 0 left"), "{ended:?}");
    assert_eq!(gateway.delivered_once("probe"), ids(&letters));
    // Without the oldest file, and with nothing to send, the note stays as it is.
    fs::remove_file(arguments[0]).unwrap();
    let ended = replayed(folder, &arguments[1..]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(noted(folder), ids(&letters));
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_replay_that_is_killed_is_gone_on_with_by_the_next_one() {
    let gateway = rejected("batch.max_records = 1", 30).await;
    let folder = gateway.folder();
    let all = ids(&letters(&folder.join(DEAD)));
    gateway.command("probe", "slow:20ms");
    let mut command = replay(folder, &[DEAD]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the middle of the replay", || async { (noted(folder).len() >= 5).then_some(()) }).await;
    kill(child);
    let (before, at_kill) = (noted(folder), gateway.delivered("probe"));
    assert!(before.len() < all.len(), "killed in the middle");
    let delivered: HashSet<String> = at_kill.iter().cloned().collect();
    assert!(before.is_subset(&delivered), "nothing is noted that was not delivered");
    gateway.command("probe", "ok");
    let next = replayed(folder, &[DEAD]).await;
    assert_eq!(next.code, Some(0), "{next:?}");
    let after = gateway.delivered("probe");
    let again: HashSet<String> = after[at_kill.len()..].iter().cloned().collect();
    assert!(again.is_disjoint(&before), "what is noted is not repeated");
    assert_eq!(delivered.union(&again).cloned().collect::<HashSet<_>>(), all, "each is there at least once");
    assert!(after.len() <= all.len() + 1, "at most the record under way is sent twice");
}

#[tokio::test]
async fn a_replay_into_a_backend_that_is_down_stops_and_leaves_everything() {
    let keys = "batch.max_records = 2\nretry.max_elapsed = \"100ms\"";
    let gateway = rejected(keys, 20).await;
    gateway.command("probe", "retry");
    let ended = replayed(gateway.folder(), &[DEAD]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.output.contains("; 20 left\n"), "{ended:?}");
    assert!(ended.errors.contains("the backend does not take records"), "{ended:?}");
    gateway.command("probe", "ok");
    assert_eq!(replayed(gateway.folder(), &[DEAD]).await.code, Some(0));
    assert_eq!(gateway.delivered_once("probe").len(), 20);
}

#[tokio::test]
async fn a_file_with_lines_that_cannot_be_read_is_replayed_as_far_as_it_can_be() {
    let gateway = rejected("", 3).await;
    let (folder, file) = (gateway.folder(), gateway.folder().join(DEAD));
    let good = fs::read_to_string(&file).unwrap();
    let (first, rest) = good.split_once('\n').unwrap();
    let half = &first[..first.len() / 2];
    fs::write(&file, format!("{first}\n{half}\n{rest}")).unwrap();
    gateway.command("probe", "ok");
    let ended = replayed(folder, &[DEAD]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.errors.contains("dead/probe.jsonl:2: not a dead letter"), "{ended:?}");
    assert!(ended.output.starts_with("3 delivered, 0 rejected again, 0 given up, 1 unreadable; 1 left"));
    // A torn last line is being written, or what a crash has left: its record is not delivered either way.
    let mut text = good.clone();
    text.push_str(half);
    fs::write(&file, text).unwrap();
    let ended = replayed(folder, &[DEAD]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.errors.contains("dead/probe.jsonl:4: ends in the middle"), "{ended:?}");
    assert!(ended.output.ends_with(", 3 delivered before, 1 torn; 1 left\n"), "{ended:?}");
    let dry = replayed(folder, &[DEAD, "--dry-run"]).await;
    assert_eq!(dry.output, "0 to send, 3 delivered before, 1 torn\n");
    assert!(fs::read_to_string(&file).unwrap().ends_with(half), "it is kept");
    assert_eq!(gateway.delivered_once("probe").len(), 3);
}

#[tokio::test]
async fn a_replay_that_cannot_begin_says_why() {
    let gateway = Gateway::new().probe("probe", "", "").probe("off", "enabled = false", "");
    gateway.write();
    let folder = gateway.folder();
    let absent = replayed(folder, &["nowhere.jsonl"]).await;
    assert_eq!(absent.code, Some(66), "{absent:?}");
    assert!(absent.complaints()[0].starts_with("cannot read nowhere.jsonl: "), "{absent:?}");
    fs::write(folder.join("x.jsonl"), "").unwrap();
    for (name, expected) in [
        ("elastic", "there is no plugin \"elastic\"; the configuration has probe, off"),
        ("off", "\"off\" is disabled"),
    ] {
        let mut command = Command::new(artifacts::gateway());
        command.args(["replay", "x.jsonl", "--plugin", name]).current_dir(folder).env_clear();
        let ended = Ended::of(command).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.complaints()[0].contains(expected), "{ended:?}");
    }
    assert_eq!(replayed(folder, &["x.jsonl"]).await.code, Some(0), "an empty file is done");
}
