//! Two gateways behind nginx, which learns of their end by failed connections alone. They are restarted in turn under load,
//! and no request fails.
//!
//! `RESTARTS` is how many restarts there are, four unless it is set; `make test-all` makes ten at 200 requests a second.

#![allow(clippy::print_stderr, reason = "the figures are what the run is for")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use end_to_end::{
    Client, Gateway, Provider, Running,
    client::post,
    tools::{Nginx, lasting_port},
    wait_for,
};
use http::Request;
use http_body_util::{BodyExt as _, Collected, Full};
use rustix::process::Signal;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

const QUESTION: &str =
    r#"{"model":"demo-words:20","messages":[{"role":"user","content":"Hello"}],"stream":true}"#;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

async fn start(provider: &Provider, port: u16) -> Running {
    let gateway = Gateway::new().server("drain_delay = \"1s\"").environment("PORT", &port.to_string());
    gateway.provider("demo", &provider.url()).file_exporter().start().await
}

/// Requests at once. A machine that cannot keep up with the rate must not be buried under it.
const AT_ONCE: usize = 256;

/// Requests at a steady rate until `done`, whatever becomes of them.
struct Load {
    done: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    failures: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    fn start(url: &str, per_second: usize) -> Self {
        let (done, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let url = format!("{url}/v1/chat/completions");
        let failures = tokio::spawn(load(url, per_second, done.clone(), sent.clone()));
        Self { done, sent, failures }
    }

    /// Ends it; how many were sent, and what failed.
    async fn end(self) -> (usize, Vec<String>) {
        self.done.store(true, Relaxed);
        let failures = self.failures.await.unwrap();
        (self.sent.load(Relaxed), failures)
    }
}

async fn load(url: String, per_second: usize, done: Arc<AtomicBool>, sent: Arc<AtomicUsize>) -> Vec<String> {
    let client = Client::default();
    let (mut requests, mut failures) = (JoinSet::new(), Vec::new());
    let mut tick = interval(Duration::from_secs(1) / u32::try_from(per_second).unwrap());
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !done.load(Relaxed) {
        tick.tick().await;
        if requests.len() >= AT_ONCE {
            failures.extend(requests.join_next().await.and_then(Result::unwrap));
        }
        sent.fetch_add(1, Relaxed);
        let (client, request) = (client.clone(), post(&url, QUESTION, &[]));
        requests.spawn(async move { fault(&client, request).await });
        while let Some(ended) = requests.try_join_next() {
            failures.extend(ended.unwrap());
        }
    }
    failures.extend(requests.join_all().await.into_iter().flatten());
    failures
}

/// What is wrong with the answer, if anything is.
async fn fault(client: &Client, request: Request<Full<Bytes>>) -> Option<String> {
    let response = match client.open(request).await {
        Ok(response) => response,
        Err(error) => return Some(format!("no answer: {error:?}")),
    };
    let status = response.status();
    match response.into_body().collect().await.map(Collected::to_bytes) {
        Ok(body) if status == 200 && body.ends_with(b"data: [DONE]\n\n") => None,
        Ok(_) => Some(format!("{status}, or half an answer")),
        Err(error) => Some(format!("broken: {error:?}")),
    }
}

/// Waits until nginx has sent requests to it.
async fn wait_until_it_serves(gateway: &Running) {
    wait_for("the balancer to use the new instance", || async {
        (gateway.metric("magicapi_gateway_requests_total", &[]).await > 20.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_behind_nginx_fails_no_request() {
    let provider = Provider::start().await;
    let ports = [lasting_port(), lasting_port()];
    let mut gateways = [start(&provider, ports[0]).await, start(&provider, ports[1]).await];
    let nginx = Nginx::balancing(&gateways.each_ref().map(|gateway| gateway.url.clone()));
    let load = Load::start(&nginx.url, setting("REQUESTS_PER_SECOND", 100));
    let (mut recorded, mut restarts, mut slowest) = (0, 0, Duration::ZERO);
    while restarts < setting("RESTARTS", 4) {
        let place = restarts % 2;
        for gateway in &gateways {
            wait_until_it_serves(gateway).await;
        }
        let asked = Instant::now();
        gateways[place].signal(Signal::TERM);
        assert_eq!(gateways[place].exit_code().await, Some(0), "{}", gateways[place].log());
        slowest = slowest.max(asked.elapsed());
        recorded += gateways[place].records().len();
        gateways[place] = start(&provider, ports[place]).await;
        restarts += 1;
    }
    let (sent, failures) = load.end().await;
    for gateway in &mut gateways {
        assert_eq!(gateway.stop().await, Some(0));
        recorded += gateway.records().len();
    }
    let failed = failures.len();
    eprintln!("{sent} requests over {restarts} restarts, the slowest in {slowest:?}; {failed} failed");
    assert!(
        failures.is_empty(),
        "{} of {sent} failed: {:?}\n{}",
        failures.len(),
        failures.first(),
        nginx.errors()
    );
    assert_eq!(recorded, sent, "every request has its record");
}
