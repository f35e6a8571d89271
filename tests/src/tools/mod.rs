//! Programs that are not ours: a real model's server, a real Prometheus, and the official SDKs.
//!
//! `tests/setup.sh` installs them; a missing one fails the test that needs it, with that as the cure. Everything
//! listens on free ports of 127.0.0.1. What is started here ends with its value, or with this process however that ends.

mod leash;
mod llm;
mod prometheus;
mod sdk;

use std::path::{Path, PathBuf};

pub use self::{
    llm::Llm,
    prometheus::{Prometheus, promtool_check_metrics},
    sdk::{Call, Sdk},
};
use crate::artifacts::checkout;

/// What `tests/setup.sh` installs; `MAGICAPI_DEPS` names another place than `.deps`.
fn deps() -> PathBuf {
    std::env::var_os("MAGICAPI_DEPS").map_or_else(|| checkout().join(".deps"), PathBuf::from)
}

fn python() -> PathBuf {
    installed(deps().join("python/bin/python"))
}

/// A path that a test needs.
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing; run tests/setup.sh", path.display());
    path
}

/// A server or tool of the system. Debian keeps servers where not everyone's PATH leads.
fn program(name: &str) -> PathBuf {
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

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
