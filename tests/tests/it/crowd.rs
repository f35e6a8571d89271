//! Hours of nothing, in a minute: a crowd of connections that are idle, silent, half open, or never read, over HTTP/1 and
//! HTTP/2. Meanwhile real clients and probes are served; then each is gone by its limit, and its memory with it.

#![allow(clippy::print_stderr, reason = "the figures are what the run is for")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use end_to_end::{
    Client, Gateway, RawClient, RawProvider, Running, Step,
    client::post,
    raw_client::{CHAT, PREFACE, begin_http2, http1_post, http2_post, question},
    wait_for,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

const CROWD: usize = 2_000;
/// What the gateway may hold more than before it met the crowd. Without one it varies by about as much.
const NOISE: u64 = 16 << 20;

/// How one of the crowd passes its time.
#[derive(Debug, Clone, Copy)]
enum Nothing {
    Silent,
    HalfAHead,
    HalfAPreface,
    OnlyAPreface,
    Idle,
    IdleHttp2,
    /// Answers pings, and asks for nothing more.
    PingingHttp2,
    NeverReads,
    NeverReadsHttp2,
}

const KINDS: [Nothing; 9] = [
    Nothing::Silent,
    Nothing::HalfAHead,
    Nothing::HalfAPreface,
    Nothing::OnlyAPreface,
    Nothing::Idle,
    Nothing::IdleHttp2,
    Nothing::PingingHttp2,
    Nothing::NeverReads,
    Nothing::NeverReadsHttp2,
];

impl Nothing {
    fn beginning(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::HalfAHead => b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nx-".to_vec(),
            Self::HalfAPreface => PREFACE[..10].to_vec(),
            Self::OnlyAPreface => PREFACE.to_vec(),
            Self::Idle => http1_post(&question("small")).into_bytes(),
            Self::NeverReads => http1_post(&question("big")).into_bytes(),
            Self::IdleHttp2 | Self::PingingHttp2 => {
                [begin_http2(65_535), http2_post(1, CHAT, &question("small"))].concat()
            }
            Self::NeverReadsHttp2 => [begin_http2(0), http2_post(1, CHAT, &question("big"))].concat(),
        }
    }

    /// Does nothing until the gateway has had enough.
    async fn pass_time(self, url: &str) {
        let mut client = match self {
            Self::NeverReads => RawClient::connect_narrow(url).await,
            _ => RawClient::connect(url).await,
        };
        client.send(self.beginning()).await;
        match self {
            Self::PingingHttp2 => drop(client.answer_pings().await),
            Self::NeverReads => client.reset().await,
            _ => drop(client.end().await),
        }
    }
}

/// Serves real clients and probes until the crowd is gone; the slowest of each.
async fn serve_others(gateway: &Running, crowd: &mut JoinSet<()>) -> (Duration, Duration) {
    let (mut slowest, mut slowest_probe) = (Duration::ZERO, Duration::ZERO);
    let clients = [Client::default(), Client::http2()];
    while !crowd.is_empty() {
        for client in &clients {
            let asked = Instant::now();
            let request = post(&format!("{}{CHAT}", gateway.url), question("small"), &[]);
            assert_eq!(client.send(request).await.status, 200);
            slowest = slowest.max(asked.elapsed());
        }
        let asked = Instant::now();
        assert_eq!(gateway.admin("/healthz").await.status, 200);
        slowest_probe = slowest_probe.max(asked.elapsed());
        while let Some(gone) = crowd.try_join_next() {
            gone.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (slowest, slowest_probe)
}

/// Closes every connection: none is kept for later requests, and thereby memory.
async fn provider() -> RawProvider {
    let (big, small) = (Bytes::from(vec![b' '; 8 << 20]), Bytes::from_static(b"{}"));
    RawProvider::start(move |request| {
        let is_big = String::from_utf8_lossy(&request.body).contains("big");
        let body = if is_big { big.clone() } else { small.clone() };
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        vec![Step::send(head), Step::Send(body)]
    })
    .await
}

fn allow_many_connections() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_does_nothing_is_gone_by_its_limits_while_others_are_served() {
    allow_many_connections();
    let provider = provider().await;
    let limits = "header_timeout = \"4s\"\nidle_timeout = \"4s\"\nwrite_timeout = \"4s\"";
    let gateway = Gateway::new().server(limits).provider("raw", &provider.url()).start().await;
    // What it keeps for good, it has after a first and smaller crowd.
    let mut crowd = JoinSet::new();
    let mut come = |count: usize| {
        for kind in KINDS.iter().cycle().take(count) {
            let url = gateway.url.clone();
            crowd.spawn(async move { kind.pass_time(&url).await });
        }
        std::mem::take(&mut crowd)
    };
    serve_others(&gateway, &mut come(CROWD / 10)).await;
    let before = settled(&gateway).await;
    gateway.forget_peak();

    let (slowest, slowest_probe) = serve_others(&gateway, &mut come(CROWD)).await;
    // The clients of this test themselves keep connections, and those have their limit, too.
    wait_for("everyone's end", || async {
        (gateway.metric("magicapi_gateway_open_connections", &[]).await == 0.0).then_some(())
    })
    .await;
    assert!(slowest < Duration::from_secs(10), "a real client waited {slowest:?}");
    assert!(slowest_probe < Duration::from_secs(10), "a probe waited {slowest_probe:?}");
    for limit in ["header", "idle", "write"] {
        let count = gateway.metric("magicapi_gateway_client_timeouts_total", &[("limit", limit)]).await;
        assert!(count >= (CROWD / KINDS.len()) as f64, "{limit}: {count}");
    }
    let peak = gateway.peak_resident_bytes();
    wait_for(&format!("memory to come back from {peak} to {before}"), || async {
        (gateway.resident_bytes() < before + NOISE).then_some(())
    })
    .await;
    eprintln!(
        "{CROWD} connections: the slowest client waited {slowest:?}, the slowest probe {slowest_probe:?}; resident {} MB \
         before, {} MB at the most",
        before >> 20,
        peak >> 20
    );
}

/// Resident memory when the gateway has given back what it could.
async fn settled(gateway: &Running) -> u64 {
    let mut last = u64::MAX;
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = gateway.resident_bytes();
        if now >= last {
            return now.max(last);
        }
        last = now;
    }
}
