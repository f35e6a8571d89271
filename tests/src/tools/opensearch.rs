//! A real OpenSearch.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{deps, installed, lasting_port, leash::Leash, program};
use crate::client::{Answer, Client};

/// An OpenSearch of one node, without its security plugin, which can be killed and started again on the same port and
/// data.
#[derive(Debug)]
pub struct OpenSearch {
    url: String,
    port: u16,
    folder: TempDir,
    server: Option<Leash>,
}

impl OpenSearch {
    /// The one server of this process, for tests that do not stop it; the first who asks starts it in about 5 s. Every
    /// test takes indices of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<OpenSearch> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), lasting_port());
        let mut server = Self { url: format!("http://127.0.0.1:{port}"), port, folder, server: None };
        server.start_again();
        server
    }

    /// Kills it in the middle of what it does. What it has acknowledged is there after the next start.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it on the same port and data, and waits until it answers and has its indices back.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        let mut server = Leash::spawn_in(self.folder.path(), Signal::KILL, &mut self.command());
        let output = server.output().unwrap();
        let listens = |line: &String| *line == format!("listening on {}", self.url);
        let ready = BufReader::new(output).lines().map_while(Result::ok).any(|line| listens(&line));
        assert!(ready, "OpenSearch did not start: {}", self.said());
        self.server = Some(server);
    }

    fn command(&self) -> Command {
        let installed = installed(deps().join("opensearch/OpenSearchNode.class"));
        let folder = installed.parent().unwrap();
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(program("java"));
        // The quick compiler and the small collector: a start takes two thirds of the time.
        command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
        command.arg(format!("{0}:{0}/*", folder.display())).arg("OpenSearchNode");
        command.arg(self.folder.path()).arg(self.port.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        command
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.server.as_ref().map(Leash::id)
    }

    /// All that the server wrote to its log: errors alone.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, body.to_string().into()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body.to_string().into()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// A `_bulk` of these lines, as they are.
    pub async fn bulk(&self, path: &str, lines: &[Value]) -> Answer {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.call(Method::POST, path, body.into()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Full::new(body));
        // A client each: a pool belongs to the runtime of one test, and the server is everybody's.
        Client::default().send(request.unwrap()).await
    }

    /// Makes what was acknowledged visible to searches.
    async fn refresh(&self, index: &str) {
        let answer = self.post(&format!("/{index}/_refresh"), &json!({})).await;
        assert!(answer.status.is_success(), "cannot refresh {index}: {}", answer.text());
    }

    /// How many documents an index, a data stream or a pattern holds now.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn count(&self, index: &str) -> u64 {
        self.refresh(index).await;
        let answer = self.get(&format!("/{index}/_count")).await.json();
        answer["count"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// All hits of an index, a data stream or a pattern, with their `_id`, `_index` and `_source`.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn documents(&self, index: &str) -> Vec<Value> {
        self.refresh(index).await;
        let page = json!({ "size": 5000, "sort": ["_doc"] });
        let mut found = Vec::new();
        let mut answer = self.post(&format!("/{index}/_search?scroll=1m"), &page).await.json();
        loop {
            let hits = answer["hits"]["hits"].as_array().unwrap_or_else(|| panic!("{answer}"));
            if hits.is_empty() {
                return found;
            }
            found.extend(hits.iter().cloned());
            let next = json!({ "scroll": "1m", "scroll_id": answer["_scroll_id"] });
            answer = self.post("/_search/scroll", &next).await.json();
        }
    }

    /// The folder that holds its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
