//! SmolLM2 on llama.cpp, behind its OpenAI-compatible server.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use super::python;
use crate::artifacts::checkout;

/// A real model's server. Its answers are poor; its protocol, its streams and its token counts are real.
#[derive(Debug)]
pub struct Llm {
    url: String,
    /// The server stops when its standard input, which this holds, is closed.
    child: Child,
}

impl Llm {
    /// The model's name.
    pub const MODEL: &str = "smollm2";

    /// The one server of this process, started by the first who asks; it takes about a second.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Llm> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let mut child = Command::new(python())
            .arg(checkout().join("tests/servers/llm_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| {
            panic!(
                "the model's server did not start; run {}/tests/servers/llm_server.py",
                checkout().display()
            )
        });
        Self { url: url.to_owned(), child }
    }

    /// Where it listens, without `/v1`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Llm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
