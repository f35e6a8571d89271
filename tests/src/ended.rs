//! A program that was run to its end, as a person at a terminal sees it.

use std::process::{Command, Stdio};

use crate::{artifacts, wait::PATIENCE};

/// What it left behind.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub output: String,
    /// What it wrote to its standard error.
    pub errors: String,
}

impl Ended {
    /// Waits for the program's end; kills it when that does not come.
    pub async fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::with_input(command).await
    }

    /// The same, with the input that the command has.
    pub async fn with_input(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).output();
        let ended = tokio::time::timeout(PATIENCE, child).await;
        let ended = ended.unwrap_or_else(|_| panic!("{command:?} did not end within {PATIENCE:?}")).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: ended.status.code(), output: text(ended.stdout), errors: text(ended.stderr) }
    }

    /// The lines of its standard error that say `error: `, without that.
    pub fn complaints(&self) -> Vec<&str> {
        self.errors.lines().filter_map(|line| line.strip_prefix("error: ")).collect()
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The gateway's binary with these arguments and an empty environment.
pub fn magicapi_gateway(arguments: &[&str]) -> Command {
    let mut command = Command::new(artifacts::gateway());
    command.args(arguments).env_clear();
    command
}
