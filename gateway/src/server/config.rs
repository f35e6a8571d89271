//! `[server]`: where clients connect, and how much of the machine they may use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    proxy::cors,
    settings::{ByteSize, HumanDuration, SchemaProblem, address::ListenAddress},
};

/// Where clients connect, and how much of the machine they may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port for clients. The environment variables HOST and PORT override it.
    #[serde(with = "ListenAddress")]
    pub listen: SocketAddr,
    /// Connections open at once; further ones wait in the kernel's queue.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: usize,
    /// Requests to providers under way at once, WebSockets among them; further ones are answered with 503. Absent, as many
    /// as `max_connections`, which only HTTP/2 can reach: there a connection may have 100 of them.
    #[schemars(range(min = 1, max = 1_000_000), example = 20_000)]
    pub max_requests: Option<usize>,
    /// The largest request body; a larger one is answered with 413.
    #[schemars(extend("x-min" = "1 KiB", "x-max" = "4 GiB"))]
    pub max_request_bytes: ByteSize,
    /// The largest body where files are uploaded (/v1/files, /v1/uploads/*/parts), which OpenAI takes up to 512 MB; absent,
    /// `max_request_bytes` holds there too.
    #[schemars(extend("x-min" = "1 KiB", "x-max" = "4 GiB"), example = ByteSize::mib(512))]
    pub max_upload_bytes: Option<ByteSize>,
    /// The largest request head, all header lines together; a larger one is answered with 431.
    #[schemars(extend("x-min" = "8 KiB", "x-max" = "16 MiB"))]
    pub max_header_bytes: ByteSize,
    /// Header fields of a request, answered with 431 beyond that, and of a provider's answer, which is a 502 then.
    #[schemars(range(min = 16, max = 10_000))]
    pub max_headers: usize,
    /// How long a client may take to send a request's head; for the first one from the connection's beginning.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub header_timeout: Duration,
    /// How long a connection may be without a request. Longer than the idle time of what connects here (a balancer's is
    /// mostly 60s), or a request may meet a connection that is just being closed.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub idle_timeout: Duration,
    /// How long a client may pause inside a request's body.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub write_timeout: Duration,
    /// How long connections are still accepted after SIGTERM, while `/readyz` says 503 and answers ask clients to go:
    /// as long as it takes balancers to notice.
    #[serde(with = "HumanDuration")]
    pub drain_delay: Duration,
    /// How long requests in flight may go on after that.
    #[serde(with = "HumanDuration")]
    pub shutdown_grace: Duration,
    /// Threads that serve requests; 0 is one per core.
    #[schemars(range(max = 1024))]
    pub workers: usize,
    /// Pages of browsers that may call the gateway.
    pub cors: Cors,
}

/// Pages of browsers that may call the gateway. Without any, browsers keep its answers from every page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins such as `https://app.example`, without a path; `*` is every page. Empty: none.
    pub allowed_origins: Vec<String>,
    /// How long a browser may keep the answer to its preflight request.
    #[serde(with = "HumanDuration")]
    pub max_age: Duration,
}

impl Default for Cors {
    fn default() -> Self {
        Self { allowed_origins: Vec::new(), max_age: Duration::from_secs(600) }
    }
}

impl Config {
    /// The rules no schema can say.
    pub(crate) fn check(&self, problems: &mut Vec<SchemaProblem>) {
        for (index, origin) in self.cors.allowed_origins.iter().enumerate() {
            if !cors::is_origin(origin) {
                problems.push(SchemaProblem::new(
                    format!("/server/cors/allowed_origins/{index}"),
                    format!("{origin:?} is not an origin"),
                    "write scheme, host and port as browsers send them, in lower case and without a path: \
                     \"https://app.example\"; or \"*\" for every page",
                ));
            }
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000),
            max_connections: 10_000,
            max_requests: None,
            // An audio file of 25 MB, the largest that OpenAI transcribes, and what is around it.
            max_request_bytes: ByteSize::mib(32),
            max_upload_bytes: None,
            max_header_bytes: ByteSize::kib(64),
            max_headers: 100,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            workers: 0,
            cors: Cors::default(),
        }
    }
}
