//! Programs that are not ours: a real model's server, the backends' real servers, and the official SDKs.
//!
//! `tests/setup.sh` installs them; a missing one fails the test that needs it, with that as the cure. Everything
//! listens on free ports of 127.0.0.1. What is started here ends with its value, or with this process however that ends.

mod collector;
mod h2spec;
mod leash;
mod llm;
mod nginx;
mod opensearch;
mod postgres;
mod prometheus;
mod real_client;
mod sdk;
mod web_server;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

pub use self::{
    collector::Collector,
    h2spec::H2spec,
    llm::Llm,
    nginx::Nginx,
    opensearch::OpenSearch,
    postgres::{Database, Postgres},
    prometheus::{Prometheus, promtool_check_metrics},
    real_client::RealClient,
    sdk::{Call, Sdk},
    web_server::WebServer,
};
use crate::{artifacts::checkout, wait::PATIENCE};

/// What `tests/setup.sh` installs; `MAGICAPI_DEPS` names another place than `.deps`.
fn deps() -> PathBuf {
    std::env::var_os("MAGICAPI_DEPS").map_or_else(|| checkout().join(".deps"), PathBuf::from)
}

/// The Python with the packages of `tests/clients`.
pub fn python() -> PathBuf {
    installed(deps().join("python/bin/python"))
}

/// A path that a test needs.
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing; run tests/setup.sh", path.display());
    path
}

/// A server or tool of the system. Debian keeps servers where not everyone's PATH leads.
pub fn program(name: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into()])
        .map(|folder: PathBuf| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; run tests/setup.sh"))
}

/// A port that was free a moment ago, for servers that cannot choose one themselves.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A free port for a server that is stopped and started again: the kernel gives none of these to those who ask for any,
/// so that nobody has it in between.
pub fn lasting_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static ASKED: AtomicU16 = AtomicU16::new(0);
    // Two test processes begin at different places, so that neither takes what the other has looked at.
    let start = (std::process::id() % u32::from(COUNT)) * 61;
    (0..COUNT)
        .map(|_| start + u32::from(ASKED.fetch_add(1, Ordering::Relaxed)))
        .map(|number| FIRST + (number % u32::from(COUNT)) as u16)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Asks until there is an answer; none when that takes too long. For where nothing can be awaited.
fn poll<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
