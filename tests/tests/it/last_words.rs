//! A plugin that takes the whole process down: one line names it, and the process does not end as if all were well.

use std::{fs, path::PathBuf, process::Command};

use end_to_end::{Ended, Gateway, Provider, Running, artifacts, wait_for};
use rustix::process::Signal;

const REQUEST: &str = r#"{"model":"demo","messages":[{"role":"user","content":"Hello"}]}"#;

/// A gateway whose probe does this at its first export. What it logged by its end, and its exit code.
async fn end_of(behaviour: &str) -> (String, Option<i32>) {
    let provider = Provider::start().await;
    let script = format!("script = [\"{behaviour}\"]");
    let mut gateway =
        Gateway::new().provider("demo", &provider.url()).probe("fatal", "", &script).start().await;
    // It may be gone before it has answered.
    let _answer = tokio::time::timeout(end_to_end::wait::PATIENCE, gateway.post("/v1/models", REQUEST)).await;
    let code = gateway.exit_code().await;
    let log = wait_for("the last line", || async {
        Some(gateway.log()).filter(|log| code.is_none() || log.contains("the gateway ends with it"))
    });
    (log.await, code)
}

fn last_words(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("the gateway ends with it")).collect()
}

fn fatal() -> String {
    format!("error: plugin \"fatal\" ({})", artifacts::plugin("probe").display())
}

#[tokio::test]
async fn a_plugin_that_calls_exit_is_named_and_the_exit_code_is_not_0() {
    for (behaviour, call) in [
        ("exit:0", "`exit`"),
        ("exit:3", "`exit`"),
        ("exit_at_once:0", "`_exit`"),
        ("exit_at_once:9", "`_exit`"),
    ] {
        let (log, code) = end_of(behaviour).await;
        assert_eq!(code, Some(70), "{behaviour}: {log}");
        let expected =
            format!("{} ended the process: it called {call} in `export`; the gateway ends with it", fatal());
        assert_eq!(last_words(&log), [expected], "{behaviour}");
    }
}

#[tokio::test]
async fn a_plugin_that_crashes_or_aborts_is_named_and_the_signal_takes_its_course() {
    for (behaviour, how) in [
        ("abort", "SIGABRT in `export`"),
        ("crash", "SIGSEGV in `export`"),
        ("crash_aside", "SIGSEGV in a thread of its own"),
    ] {
        let (log, code) = end_of(behaviour).await;
        assert_eq!(code, None, "{behaviour}: a signal ends it: {log}");
        let expected = format!("{} ended the process by {how}; the gateway ends with it", fatal());
        assert_eq!(last_words(&log), [expected], "{behaviour}");
    }
}

#[tokio::test]
async fn a_plugin_that_exits_while_it_is_made_fails_the_check() {
    let gateway = Gateway::new().probe("fatal", "", "init = \"exit\"");
    for arguments in [&["check"][..], &[]] {
        let ended = Ended::of(gateway.command(arguments)).await;
        assert_eq!((ended.code, ended.output.as_str()), (Some(70), ""), "{ended:?}");
        let [complaint] = ended.complaints()[..] else { panic!("{ended:?}") };
        assert!(complaint.ends_with("it called `exit` in `create`; the gateway ends with it"), "{complaint}");
    }
}

#[tokio::test]
async fn a_gateway_that_ends_by_itself_blames_nobody() {
    let provider = Provider::start().await;
    for signals in [&[Signal::TERM][..], &[Signal::INT, Signal::INT]] {
        // A call that is under way holds it up, so that the second signal finds it.
        let gateway =
            Gateway::new().provider("demo", &provider.url()).probe("slow", "", "script = [\"slow:5s\"]");
        let mut gateway = gateway.start().await;
        gateway.post("/v1/chat/completions", REQUEST).await;
        gateway.wait_for_books("slow", |books| books["in_flight"] == 1).await;
        for signal in signals {
            gateway.signal(*signal);
            wait_for("the signal to be taken", || async {
                gateway.log().contains("stopping: ").then_some(())
            })
            .await;
        }
        let code = gateway.exit_code().await;
        assert_eq!(code, Some(if signals.len() == 1 { 0 } else { 130 }), "{}", gateway.log());
        assert!(last_words(&gateway.log()).is_empty(), "{}", gateway.log());
    }
    for arguments in [&["version"][..], &["--help"], &["check", "--nonsense"]] {
        let ended = Ended::of(end_to_end::magicapi_gateway(arguments)).await;
        assert!(ended.code != Some(70) && !ended.errors.contains("ended the process"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_signal_from_outside_is_no_fault_of_the_plugin_that_it_interrupts() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url());
    let mut gateway = gateway.probe("slow", "", "script = [\"slow:60s\"]").start().await;
    gateway.post("/v1/chat/completions", REQUEST).await;
    gateway.wait_for_books("slow", |books| books["in_flight"] == 1).await;
    gateway.signal(Signal::ABORT);
    assert_eq!(gateway.exit_code().await, None);
    wait_for("the line", || async {
        let line = "error: the process is ended by SIGABRT, which another process has sent";
        gateway.log().lines().any(|found| found == line).then_some(())
    })
    .await;
    assert!(last_words(&gateway.log()).is_empty(), "{}", gateway.log());
}

/// The names of the plugins' libraries, as a debugger that attaches is told them.
fn libraries_by_gdb(gateway: &Running) -> Option<String> {
    if !fs::exists("/usr/bin/gdb").unwrap() {
        return None;
    }
    // One that waits for a file that is none would wait for ever.
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "60",
            "/usr/bin/gdb",
            "-nx",
            "-batch",
            "-ex",
            "info sharedlibrary",
            "-p",
            &gateway.pid().to_string(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_debugger_that_attaches_finds_the_plugins() {
    let mut gateway = Gateway::new().probe("probe", "", "").start().await;
    let process = PathBuf::from(format!("/proc/{}/fd", gateway.pid()));
    let Some(libraries) = libraries_by_gdb(&gateway) else { return };
    let found: Vec<&str> = libraries.lines().filter(|line| line.contains("/fd/")).collect();
    assert_eq!(found.len(), 1, "{libraries}");
    assert!(found[0].contains(process.to_str().unwrap()), "{libraries}");
    assert!(gateway.is_alive());
    assert_eq!(gateway.stop().await, Some(0), "and it goes on as before");
}
