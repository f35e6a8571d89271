//! A real Prometheus, and its linter.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{file, free_port, leash::Leash, program};
use crate::{client::Client, wait::wait_for};

/// A Prometheus that scrapes one address.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    client: Client,
    server: Leash,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it on `http://ADDRESS/metrics` of `target_url`, scraping every 200 ms, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn scraping(target_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = target_url.trim_start_matches("http://");
        let config = file(
            folder.path(),
            "prometheus.yml",
            &format!(
                "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n\
                 - job_name: magicapi\n  static_configs:\n  - targets: ['{target}']\n"
            ),
        );
        let address = format!("127.0.0.1:{}", free_port());
        let server = Leash::spawn(
            Command::new(program("prometheus"))
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let mut prometheus =
            Self { url: format!("http://{address}"), client: Client::default(), server, _folder: folder };
        prometheus.wait_until_ready().await;
        prometheus
    }

    async fn wait_until_ready(&mut self) {
        let url = format!("{}/-/ready", self.url);
        wait_for("Prometheus to be ready", || {
            assert!(!self.server.has_ended(), "Prometheus ended at once");
            let (client, request) = (self.client.clone(), http::Request::get(&url).body(Default::default()));
            async move { client.open(request.unwrap()).await.ok().filter(|answer| answer.status() == 200) }
        })
        .await;
    }

    /// Waits until a scrape has succeeded; fails with Prometheus's own words when one is refused.
    ///
    /// # Panics
    /// When the exposition cannot be read.
    pub async fn wait_for_scrape(&self) {
        wait_for("a scrape", || async {
            let targets = self.api("targets").await;
            let target = &targets["data"]["activeTargets"][0];
            let error = target["lastError"].as_str().unwrap_or_default();
            assert!(error.is_empty(), "Prometheus cannot scrape: {error}");
            (target["health"] == "up").then_some(())
        })
        .await;
    }

    /// The result of a PromQL expression as it stands now: an array of series.
    pub async fn query(&self, expression: &str) -> Value {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("query?query={escaped}")).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].clone()
    }

    /// Waits until an expression has a number as its first value, and returns that.
    pub async fn wait_for_value(&self, expression: &str) -> f64 {
        wait_for(expression, || async {
            let result = self.query(expression).await;
            let value: f64 = result[0]["value"][1].as_str()?.parse().ok()?;
            Some(value).filter(|value| !value.is_nan())
        })
        .await
    }

    async fn api(&self, path: &str) -> Value {
        self.client.get(&format!("{}/api/v1/{path}", self.url)).await.json()
    }
}

/// What `promtool check metrics` has to say against an exposition; nothing when it is clean.
///
/// # Errors
/// The linter's complaints.
pub fn promtool_check_metrics(exposition: &str) -> Result<(), String> {
    let mut promtool = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() && said.is_empty() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&said).into_owned())
}
