//! Files that are not what they should be: links, FIFOs, damaged ones, and ones that may not grow.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use end_to_end::{Ended, Gateway, Provider, gateway, wait_for};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Resource},
};

use crate::dead_letters::{DEAD, ask, ids, letters, noted, rejected, replay, replayed, start};

const NOTE: &str = "dead/probe.jsonl.replayed";

fn make_fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[tokio::test]
async fn a_file_that_was_replayed_by_one_name_is_not_sent_again_by_another() {
    let gateway = rejected("", 3).await;
    let folder = gateway.folder();
    symlink(DEAD, folder.join("link.jsonl")).unwrap();
    gateway.command("probe", "ok");
    let by_link = replayed(folder, &["link.jsonl"]).await;
    assert_eq!(by_link.output, "3 delivered, 0 rejected again, 0 given up; 0 left\n", "{by_link:?}");
    assert_eq!(noted(folder).len(), 3);
    for name in [DEAD, "link.jsonl", "./dead/../dead/probe.jsonl"] {
        let again = replayed(folder, &[name]).await;
        assert!(again.output.contains("0 delivered, ") && again.code == Some(0), "{again:?}");
        assert!(again.output.contains(", 3 delivered before; 0 left"), "{again:?}");
    }
    assert_eq!(gateway.delivered_once("probe").len(), 3);
}

#[tokio::test]
async fn a_damaged_note_is_told_with_its_cure_and_holds_nothing_up() {
    let gateway = rejected("", 3).await;
    let folder = gateway.folder();
    gateway.command("probe", "ok");
    assert_eq!(replayed(folder, &[DEAD]).await.code, Some(0));
    let mut note = fs::read(folder.join(NOTE)).unwrap();
    let first = note.iter().position(|byte| *byte == b'\n').unwrap();
    note[first - 1] = 0xff;
    fs::write(folder.join(NOTE), note).unwrap();
    let ended = replayed(folder, &[DEAD]).await;
    let expected = "1 delivered, 0 rejected again, 0 given up, 2 delivered before; 0 left\n";
    assert_eq!((ended.code, &*ended.output), (Some(0), expected), "{ended:?}");
    assert!(ended.errors.contains("dead/probe.jsonl.replayed: 1 "), "{ended:?}");
    assert!(ended.errors.contains("mend"), "{ended:?}");
    assert_eq!(noted(folder).len(), 3, "it is whole again");
}

#[tokio::test]
async fn a_replay_refuses_what_is_no_file_and_waits_for_nobody() {
    let gateway = rejected("", 3).await;
    let folder = gateway.folder();
    gateway.command("probe", "ok");
    make_fifo(&folder.join("fifo"));
    symlink("nowhere", folder.join("dangling")).unwrap();
    for (name, expected) in [
        ("fifo", "cannot read fifo: it is a FIFO and no regular file"),
        ("/dev/null", "cannot read /dev/null: it is a device and no regular file"),
        ("dead", "cannot read dead: it is a folder and no regular file"),
        ("dangling", "cannot read dangling: No such file or directory"),
    ] {
        let ended = replayed(folder, &[name]).await;
        assert_eq!(ended.code, Some(66), "{ended:?}");
        assert!(ended.complaints()[0].starts_with(expected), "{ended:?}");
    }
    make_fifo(&folder.join(NOTE));
    let ended = replayed(folder, &[DEAD]).await;
    assert_eq!(ended.code, Some(66), "{ended:?}");
    assert!(ended.complaints()[0].contains("probe.jsonl.replayed: it is a FIFO"), "{ended:?}");
    assert!(gateway.delivered("probe").is_empty(), "nothing is sent that cannot be noted");
}

#[tokio::test]
async fn a_dead_letter_path_that_is_no_file_is_refused_before_anything_is_served() {
    for (name, expected) in [
        ("fifo", "fifo: it is a FIFO and no regular file"),
        ("dangling", "dangling: it is a symbolic link to nowhere, which is not there"),
        ("/dev/full", "/dev/full: it is a device and no regular file"),
    ] {
        let gateway = Gateway::new();
        make_fifo(&gateway.folder().join("fifo"));
        symlink("nowhere", gateway.folder().join("dangling")).unwrap();
        let gateway = gateway.probe("probe", &format!("dead_letter = \"{name}\""), "");
        for arguments in [&["check"][..], &[]] {
            let ended = Ended::of(gateway.command(arguments)).await;
            assert_eq!(ended.code, Some(78), "{arguments:?}: {ended:?}");
            let complaint = ended.complaints()[0];
            assert!(complaint.contains("plugin \"probe\": dead_letter: cannot be written to: "), "{ended:?}");
            assert!(complaint.contains(expected), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn two_exporters_do_not_share_a_file_by_two_names() {
    let gateway = Gateway::new();
    fs::create_dir(gateway.folder().join("real")).unwrap();
    symlink("real", gateway.folder().join("link")).unwrap();
    let gateway = gateway.probe("one", "dead_letter = \"real/x.jsonl\"", "").probe(
        "two",
        "dead_letter = \"link/x.jsonl\"",
        "",
    );
    for is_there in [false, true] {
        if is_there {
            fs::write(gateway.folder().join("real/x.jsonl"), "").unwrap();
        }
        let ended = Ended::of(gateway.command(&["check"])).await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.complaints()[0].contains("plugin \"one\" writes to the same file"), "{ended:?}");
    }
}

#[tokio::test]
async fn what_comes_in_place_of_the_file_later_gets_no_letter_and_none_is_counted_as_written() {
    let keys = format!("batch.max_records = 1\ndead_letter = \"{DEAD}\"");
    let gateway = start(&keys, r#"script = ["reject_each"]"#).await;
    fs::create_dir(gateway.folder().join("dead")).unwrap();
    make_fifo(&gateway.folder().join(DEAD));
    ask(&gateway, 2).await;
    gateway.settled("probe", 2).await;
    let failed = wait_for("the failures", || async {
        Some(gateway.plugin("probe").await["dead_letter"].take()).filter(|counts| counts["failures"] == 2)
    });
    assert_eq!(failed.await["records"], 0);
    assert!(gateway.log().contains("it is a FIFO and no regular file"));
    fs::remove_file(gateway.folder().join(DEAD)).unwrap();
    ask(&gateway, 1).await;
    wait_for("the letter", || async {
        (gateway.plugin("probe").await["dead_letter"]["records"] == 1).then_some(())
    })
    .await;
    assert_eq!(letters(&gateway.folder().join(DEAD)).len(), 1);
}

/// As a full disk: each write behind the limit fails.
#[tokio::test]
async fn files_that_may_not_grow_end_no_gateway_and_stop_no_delivery() {
    let provider = Provider::start().await;
    let keys = format!("batch.max_records = 1\ndead_letter = \"{DEAD}\"");
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let mut gateway = gateway.probe("probe", &keys, r#"script = ["reject_each"]"#).start().await;
    ask(&gateway, 1).await;
    gateway.wait_for_records(1).await;
    wait_for("the letter", || async {
        (gateway.plugin("probe").await["dead_letter"]["records"] == 1).then_some(())
    })
    .await;
    gateway.limit(Resource::Fsize, Some(1_000));
    ask(&gateway, 3).await;
    gateway.wait_for_books("probe", |books| books["rejected"]["call"] == 4).await;
    wait_for("the failures", || async {
        (gateway.plugin("probe").await["dead_letter"]["failures"] == 3).then_some(())
    })
    .await;
    assert!(gateway.log().contains("File too large"), "the cause is told");
    assert!(gateway.is_alive());
    assert_eq!(letters(&gateway.folder().join(DEAD)).len(), 1, "no half line is left");
    assert_eq!(gateway.records().len(), 1);
    let waiting = gateway.wait_for_books("file", |books| books["accepted"] == 4).await;
    assert_eq!(waiting["delivered"], 1, "{waiting}");
    wait_for("the cause", || async { gateway.log().contains("may not grow further").then_some(()) }).await;
    gateway.limit(Resource::Fsize, None);
    gateway.wait_for_records(4).await;
    gateway.wait_for_books("file", |books| books["delivered"] == 4).await;
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test]
async fn a_replay_whose_note_may_not_grow_ends_with_a_sentence_and_is_gone_on_with() {
    let gateway = rejected("batch.max_records = 1", 20).await;
    let folder = gateway.folder();
    let all = ids(&letters(&folder.join(DEAD)));
    gateway.command("probe", "slow:20ms");
    // Of another exporter, so that it is the note that reaches the limit, and not what the probe writes.
    let others = format!("other {}\n", all.iter().next().unwrap()).repeat(500);
    fs::write(folder.join(NOTE), &others).unwrap();
    let of_probe = || fs::read_to_string(folder.join(NOTE)).unwrap().replace(&others, "");
    let mut command = replay(folder, &[DEAD]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the first", || async { (!of_probe().is_empty()).then_some(()) }).await;
    gateway::limit(Pid::from_child(&child), Resource::Fsize, Some(others.len() as u64 + 300));
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(66), "{errors}");
    assert!(
        errors.contains("probe.jsonl.replayed, where it is noted what was delivered: File too large"),
        "{errors}"
    );
    let next = replayed(folder, &[DEAD]).await;
    assert_eq!(next.code, Some(0), "{next:?}");
    let delivered = of_probe().lines().filter(|line| line.len() == "probe ".len() + 36).count();
    assert_eq!(delivered, all.len());
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_that_is_too_low_for_plugins_is_told() {
    let gateway = Gateway::new().probe("probe", "", "");
    let check = gateway.command(&["check"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 8; exec \"$@\"", "sh"]).arg(check.get_program()).args(check.get_args());
    command.current_dir(gateway.folder()).env_clear();
    let ended = Ended::of(command).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.complaints()[0].contains("File too large"), "{ended:?}");
}
