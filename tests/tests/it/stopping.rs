//! Signals, and the way to the end: who is told, who is still served, and who does not hold it up.

use std::time::{Duration, Instant};

use end_to_end::{
    Client, Gateway, Provider, RawClient, Running,
    client::post,
    raw_client::{CHAT, begin_http2, http1_post, http2_post, question},
    wait_for,
};
use rustix::process::Signal;

async fn gateway(keys: &str, provider: &Provider) -> Running {
    Gateway::new().server(keys).provider("demo", &provider.url()).file_exporter().start().await
}

/// The answer to one request on a connection that is closed after it.
async fn last_answer(client: &mut RawClient) -> String {
    let mut all = Vec::new();
    loop {
        let bytes = client.read().await;
        if bytes.is_empty() {
            return String::from_utf8(all).unwrap();
        }
        all.extend(bytes);
    }
}

fn says_goodbye(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n")
}

#[tokio::test]
async fn signals_that_ask_for_nothing_are_told_and_outlived() {
    let provider = Provider::start().await;
    let keys = "batch.max_delay = \"1m\"\nconfig.path = \"records.jsonl\"";
    let gateway = Gateway::new().provider("demo", &provider.url());
    let mut gateway = gateway.plugin_file("slow", &end_to_end::artifacts::plugin("file"), keys).start().await;
    gateway.post(CHAT, question("demo")).await;
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        gateway.signal(signal);
        wait_for(&format!("a line about {name}"), || async {
            gateway.log().lines().any(|line| line.contains(name) && line.contains("ignored")).then_some(())
        })
        .await;
    }
    for signal in [Signal::PIPE, Signal::ALARM, Signal::IO, Signal::POWER] {
        gateway.signal(signal);
    }
    assert_eq!(gateway.post(CHAT, question("demo")).await.status, 200);
    assert_eq!(gateway.stop().await, Some(0));
    assert_eq!(gateway.records().len(), 2, "what waited for its batch was delivered");
}

#[tokio::test]
async fn every_signal_that_asks_for_the_end_gets_an_orderly_one() {
    for signal in [Signal::QUIT, Signal::XCPU] {
        let provider = Provider::start().await;
        let mut gateway = gateway("", &provider).await;
        gateway.post(CHAT, question("demo")).await;
        gateway.signal(signal);
        assert_eq!(gateway.exit_code().await, Some(0), "{signal:?}");
        assert_eq!(gateway.records().len(), 1);
    }
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_serves_everyone_a_last_time() {
    let provider = Provider::start().await;
    let mut gateway = gateway("drain_delay = \"5s\"", &provider).await;
    let mut idle = RawClient::connect(&gateway.url).await;
    idle.send(http1_post(&question("demo"))).await;
    idle.read_until(|answer| answer.ends_with(b"}")).await;
    let mut http2 = RawClient::connect(&gateway.url).await;
    http2.send(begin_http2(65_535)).await;
    http2.send(http2_post(1, CHAT, &question("demo"))).await;
    gateway.wait_for_records(2).await;
    let ready = gateway.admin("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["stopping"]), (200, &false.into()));

    gateway.signal(Signal::TERM);
    let refusal = wait_for("readiness to end", || async {
        Some(gateway.admin("/readyz").await).filter(|answer| answer.status == 503)
    })
    .await;
    assert_eq!(refusal.json()["stopping"], true, "{}", refusal.text());
    assert_eq!(gateway.admin("/healthz").await.status, 200, "it lives");
    // HTTP/2 can be told to go without the loss of a request, and is.
    let (_, was_told) = http2.answer_pings().await;
    assert!(was_told);
    // Whoever is connected, and whoever comes now, gets an answer that says it is the last one here.
    idle.send(http1_post(&question("demo"))).await;
    assert!(says_goodbye(&last_answer(&mut idle).await));
    let mut new = RawClient::connect(&gateway.url).await;
    new.send(http1_post(&question("demo"))).await;
    assert!(says_goodbye(&last_answer(&mut new).await));
    let request = post(&format!("{}{CHAT}", gateway.url), question("demo"), &[]);
    assert_eq!(Client::http2().send(request).await.status, 200);
    assert!(!gateway.log().contains("stopping: "), "still within the delay");
    assert_eq!(gateway.exit_code().await, Some(0));
    assert_eq!(gateway.records().len(), 5);
}

#[tokio::test]
async fn who_had_connected_before_the_end_is_served() {
    let provider = Provider::start().await;
    let mut gateway = gateway("", &provider).await;
    // A request under way keeps the process there, so that the moment is not missed.
    let mut slow = RawClient::connect(&gateway.url).await;
    slow.send(http1_post(&question("demo-slow-headers:2s"))).await;
    let mut idle = RawClient::connect(&gateway.url).await;
    idle.send(http1_post(&question("demo"))).await;
    idle.read_until(|answer| answer.ends_with(b"}")).await;
    let mut fresh = RawClient::connect(&gateway.url).await;
    gateway.signal(Signal::TERM);
    wait_for("the end to begin", || async { gateway.log().contains("stopping: ").then_some(()) }).await;
    fresh.send(http1_post(&question("demo"))).await;
    assert!(says_goodbye(&last_answer(&mut fresh).await), "it could not know");
    assert!(last_answer(&mut idle).await.is_empty(), "an idle connection is closed");
    assert!(last_answer(&mut slow).await.starts_with("HTTP/1.1 200"));
    assert_eq!(gateway.exit_code().await, Some(0));
}

/// Five seconds are what a client that stands still has at the end.
async fn assert_does_not_hold_it_up(gateway: &mut Running) {
    let asked = Instant::now();
    assert_eq!(gateway.stop().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn clients_that_never_read_or_send_do_not_hold_up_the_end() {
    let provider = Provider::start().await;
    let keys = "shutdown_grace = \"1h\"\nwrite_timeout = \"1h\"\nheader_timeout = \"1h\"";
    let mut gateway = gateway(keys, &provider).await;
    let mut deaf = RawClient::connect_narrow(&gateway.url).await;
    deaf.send(http1_post(&question("demo-big:50MiB"))).await;
    let mut deaf_http2 = RawClient::connect(&gateway.url).await;
    deaf_http2.send(begin_http2(0)).await;
    deaf_http2.send(http2_post(1, CHAT, &question("demo-big:1MiB"))).await;
    let silent = RawClient::connect(&gateway.url).await;
    let mut half = RawClient::connect(&gateway.url).await;
    half.send("GET /v1/models HTTP/1.1\r\nHo").await;
    let requests = || gateway.metric("magicapi_gateway_open_connections", &[]);
    wait_for("four connections", || async { (requests().await == 4.0).then_some(()) }).await;
    assert_does_not_hold_it_up(&mut gateway).await;
    gateway.wait_for_records(2).await;
    drop((deaf, deaf_http2, silent, half));
}
