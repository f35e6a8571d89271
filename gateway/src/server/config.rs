//! `[server]`: where clients connect, and how much of the machine they may use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{ByteSize, HumanDuration, address::ListenAddress};

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
    /// The largest request body; a larger one is answered with 413.
    #[schemars(extend("x-min" = "1 KiB", "x-max" = "4 GiB"))]
    pub max_request_bytes: ByteSize,
    /// The largest request head, all header lines together; a larger one is answered with 431.
    #[schemars(extend("x-min" = "8 KiB", "x-max" = "16 MiB"))]
    pub max_header_bytes: ByteSize,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000),
            max_connections: 10_000,
            max_request_bytes: ByteSize::mib(20),
            max_header_bytes: ByteSize::kib(64),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            workers: 0,
        }
    }
}
