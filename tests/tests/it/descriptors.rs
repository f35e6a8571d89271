//! Open files: the limit is raised, said when it is short, and what is left over is enough to be operated.

use std::{process::Stdio, time::Duration};

use end_to_end::{Gateway, Provider, RawClient, wait_for};
use rustix::process::Resource;

fn open_files_limit(pid: u32) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().skip(3).take(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one_and_nothing_is_said_where_it_suffices() {
    let gateway = Gateway::new()
        .server("max_connections = 1000")
        .after("ulimit -Sn 1024; ulimit -Hn 4096", Stdio::null());
    let gateway = gateway.start().await;
    assert_eq!(open_files_limit(gateway.pid()), ["4096", "4096"]);
    assert!(!gateway.log().contains("files open"), "{}", gateway.log());
}

#[tokio::test]
async fn a_limit_that_is_too_short_is_said_and_leaves_room_for_probes() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let gateway = gateway.after("ulimit -Sn 128; ulimit -Hn 128", Stdio::null()).start().await;
    let log = gateway.log();
    assert!(log.contains("128 files open, too few for server.max_connections = 10000 and server.max_requests = 10000: at most 32"), "{log}");
    let mut silent = Vec::new();
    for _ in 0..150 {
        silent.push(RawClient::connect(&gateway.url).await);
    }
    wait_for("the limit to be reached", || async {
        (gateway.metric("magicapi_gateway_open_connections", &[]).await >= 32.0).then_some(())
    })
    .await;
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    drop(silent);
    let body = r#"{"model":"demo","messages":[{"role":"user","content":"Hello"}]}"#;
    assert_eq!(gateway.post("/v1/chat/completions", body).await.status, 200, "when there is room again");
    assert!(!gateway.log().contains("cannot accept"), "{}", gateway.log());
}

#[tokio::test]
async fn a_system_that_gives_no_connection_is_told_of_once_and_not_twenty_times_a_second() {
    let gateway = Gateway::new().start().await;
    gateway.limit(Resource::Nofile, Some(10));
    let clients = [RawClient::connect(&gateway.url).await, RawClient::connect(&gateway.admin).await];
    let told = || gateway.log().lines().filter(|line| line.contains("cannot accept")).count();
    wait_for("a line for each port", || async { (told() >= 2).then_some(()) }).await;
    // Time for twenty more of each.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(told(), 2, "{}", gateway.log());
    gateway.limit(Resource::Nofile, Some(1024));
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    drop(clients);
}
