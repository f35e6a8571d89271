//! `h2spec`, a conformance suite for servers of HTTP/2 that is not ours.

use std::process::Command;

use super::{deps, installed};

/// A test that did not pass, and all that the suite said.
#[derive(Debug)]
pub struct H2spec {
    pub failed: Vec<String>,
    pub passed: usize,
    pub output: String,
}

impl H2spec {
    /// Runs every test against a server, asking for `path`.
    ///
    /// # Panics
    /// When it is not installed, or says nothing of the tests that it ran.
    pub async fn run(url: &str, path: &str) -> Self {
        let program = installed(deps().join("h2spec/h2spec"));
        let (host, port) = url.trim_start_matches("http://").rsplit_once(':').unwrap();
        let mut command = Command::new(program);
        command.args(["-h", host, "-p", port, "--path", path, "--timeout", "5"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = output.lines().rev().find(|line| line.contains(" passed, ")).unwrap_or_default();
        let passed = summary.split(", ").find_map(|part| part.strip_suffix(" passed"));
        let passed = passed.and_then(|count| count.parse().ok());
        let listed = output.split_once("Failures:").map_or("", |(_, failures)| failures);
        let failed = listed.lines().filter_map(|line| line.split_once("× ")).map(|(_, name)| name.to_owned());
        Self {
            failed: failed.collect(),
            passed: passed.unwrap_or_else(|| panic!("h2spec ran nothing: {output}")),
            output,
        }
    }
}
