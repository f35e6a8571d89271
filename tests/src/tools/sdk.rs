//! The unmodified official SDKs, each behind a small program that prints what the SDK saw.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Map, Value};

use super::{deps, installed, program, python};
use crate::artifacts::checkout;

/// An official SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// `openai` for Python.
    Python,
    /// `openai` for Node.
    Node,
}

/// One call of an SDK; see `tests/clients/python/client.py` for the scenarios and for what is printed.
#[derive(Debug)]
pub struct Call {
    sdk: Sdk,
    scenario: String,
    base_url: String,
    headers: Map<String, Value>,
    environment: Vec<(&'static str, String)>,
}

impl Sdk {
    /// Both, for tests that hold for every client.
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// A call of the server at `url`, which is named without `/v1`.
    pub fn call(self, scenario: &str, url: &str) -> Call {
        let base_url = format!("{url}/v1");
        Call {
            sdk: self,
            scenario: scenario.to_owned(),
            base_url,
            headers: Map::new(),
            environment: Vec::new(),
        }
    }

    fn program(self) -> (PathBuf, PathBuf) {
        let clients = checkout().join("tests/clients");
        match self {
            Self::Python => (python(), clients.join("python/client.py")),
            Self::Node => {
                installed(deps().join("node/node_modules/openai"));
                (program("node"), clients.join("node/client.mjs"))
            }
        }
    }
}

impl Call {
    pub fn model(self, model: &str) -> Self {
        self.set("MODEL", model)
    }

    pub fn prompt(self, prompt: &str) -> Self {
        self.set("PROMPT", prompt)
    }

    pub fn max_tokens(self, count: u32) -> Self {
        self.set("MAX_TOKENS", &count.to_string())
    }

    pub fn api_key(self, key: &str) -> Self {
        self.set("API_KEY", key)
    }

    /// Streams are asked for with their usage unless this is called.
    pub fn without_usage(self) -> Self {
        self.set("INCLUDE_USAGE", "0")
    }

    /// A header beside those that the SDK sends.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Makes the call; what the SDK saw. An API's error is a result too, under `error`.
    ///
    /// # Panics
    /// When the program itself fails.
    pub async fn run(self) -> Value {
        tokio::task::spawn_blocking(move || self.run_blocking()).await.unwrap()
    }

    fn run_blocking(self) -> Value {
        let (interpreter, client) = self.sdk.program();
        let output = Command::new(interpreter)
            .arg(client)
            .args([&self.scenario, &self.base_url])
            .env("EXTRA_HEADERS", Value::Object(self.headers).to_string())
            .envs(self.environment)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "the client failed: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}
