//! Unmodified clients for OpenAI-compatible providers: SDKs and the frameworks that stand on them.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{deps, installed, program, python};
use crate::artifacts::checkout;

/// A client; its scenarios are in the module of its name in `tests/clients/*/scenarios`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealClient {
    OpenaiPython,
    OpenaiNode,
    LangChain,
    /// Vercel's `ai`.
    VercelAi,
    LiteLlm,
    OpenaiAgents,
    PydanticAi,
    Instructor,
}

/// No telemetry, no tables from the internet; and whatever does not ask this machine finds nobody.
const OFFLINE: [(&str, &str); 9] = [
    ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ("https_proxy", "http://127.0.0.1:9"),
    ("LANGCHAIN_TRACING_V2", "false"),
    ("LANGSMITH_TRACING", "false"),
    ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
    ("LITELLM_TELEMETRY", "False"),
    ("NO_PROXY", "127.0.0.1"),
    ("no_proxy", "127.0.0.1"),
    ("OPENAI_AGENTS_DISABLE_TRACING", "1"),
];

impl RealClient {
    /// Makes these calls one after the other; what the client returned of each. See `tests/clients/python/calls.py`.
    ///
    /// # Panics
    /// When the program itself fails.
    pub async fn run(self, calls: Vec<Value>) -> Vec<Value> {
        tokio::task::spawn_blocking(move || self.run_blocking(&calls)).await.unwrap()
    }

    fn run_blocking(self, calls: &[Value]) -> Vec<Value> {
        let mut child = self
            .command()
            .envs(OFFLINE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: String = calls.iter().map(|call| format!("{call}\n")).collect();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} failed: {said}");
        let seen = String::from_utf8_lossy(&output.stdout);
        let seen: Vec<Value> = seen
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        assert_eq!(seen.len(), calls.len(), "{said}");
        seen
    }

    fn command(self) -> Command {
        let clients = checkout().join("tests/clients");
        let python = |module: &str| interpreted(python(), clients.join("python/calls.py"), module);
        let node = |module: &str| {
            installed(deps().join("node/node_modules/ai"));
            interpreted(program("node"), clients.join("node/calls.mjs"), module)
        };
        match self {
            Self::OpenaiPython => python("openai_sdk"),
            Self::OpenaiNode => node("openai"),
            Self::LangChain => python("langchain"),
            Self::VercelAi => node("ai"),
            Self::LiteLlm => with_older_openai(python("litellm_sdk")),
            Self::OpenaiAgents => python("agents_sdk"),
            Self::PydanticAi => python("pydantic_ai_sdk"),
            Self::Instructor => with_older_openai(python("instructor_sdk")),
        }
    }
}

fn interpreted(interpreter: PathBuf, script: PathBuf, module: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(script).arg(module);
    command
}

/// The packages of `tests/clients/python/older-openai.txt` before all others.
fn with_older_openai(mut command: Command) -> Command {
    command.env("PYTHONPATH", installed(deps().join("python/older-openai")));
    command
}
