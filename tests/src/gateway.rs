//! The gateway's binary, started with a configuration and stopped by its process id.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    artifacts,
    client::{Answer, Client, post},
    wait::{PATIENCE, wait_for},
};

/// A gateway to be started.
#[derive(Debug)]
pub struct Gateway {
    folder: TempDir,
    /// `[server]`, `[admin]`, `[telemetry]`, … beside the addresses.
    top: String,
    server: String,
    sections: String,
    environment: Vec<(String, String)>,
    /// What a shell does before it becomes the gateway, and what it has as its standard input.
    shell: Option<(String, Stdio)>,
}

impl Default for Gateway {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (top, server, sections) = (String::new(), String::new(), String::new());
        Self { folder, top, server, sections, environment: Vec::new(), shell: None }
    }
}

impl Gateway {
    pub fn new() -> Self {
        Self::default()
    }

    /// The folder of this gateway, for files of the test. It goes when the gateway goes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a provider; the first one is the default.
    pub fn provider(self, name: &str, url: &str) -> Self {
        self.provider_with(name, url, "")
    }

    /// Adds a provider with further keys of its section.
    pub fn provider_with(mut self, name: &str, url: &str, keys: &str) -> Self {
        if self.top.is_empty() {
            self.top = format!("[proxy]\ndefault_provider = \"{name}\"\n");
        }
        self.section(&format!("[providers.{name}]\nbase_url = \"{url}\"\n{keys}\n"))
    }

    /// Adds keys to `[proxy]`, after the first provider.
    pub fn proxy(mut self, keys: &str) -> Self {
        writeln!(self.top, "{keys}").unwrap();
        self
    }

    /// Adds keys to `[server]`.
    pub fn server(mut self, keys: &str) -> Self {
        writeln!(self.server, "{keys}").unwrap();
        self
    }

    /// Adds whole sections as they stand in the file.
    pub fn section(mut self, toml: &str) -> Self {
        writeln!(self.sections, "{toml}").unwrap();
        self
    }

    /// Adds a plugin from its built library, with further keys of its entry; batches leave at once.
    pub fn plugin(self, name: &str, library: &str, keys: &str) -> Self {
        self.plugin_file(name, &artifacts::plugin(library), &format!("batch.max_delay = \"10ms\"\n{keys}"))
    }

    /// Adds a plugin from any file.
    pub fn plugin_file(self, name: &str, path: &Path, keys: &str) -> Self {
        self.section(&format!("[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n{keys}", path.display()))
    }

    /// Adds the file exporter; [`Running::records`] reads what it writes.
    pub fn file_exporter(self) -> Self {
        let path = self.folder.path().join("records.jsonl");
        self.plugin("file", "file", &format!("[plugin.config]\npath = \"{}\"\n", path.display()))
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs these lines in a shell that becomes the gateway: for what a process inherits.
    pub fn after(mut self, script: &str, input: impl Into<Stdio>) -> Self {
        self.shell = Some((script.to_owned(), input.into()));
        self
    }

    /// Writes the configuration; returns its path.
    pub fn write(&self) -> PathBuf {
        let path = self.folder.path().join("gateway.toml");
        let Self { top, server, sections, .. } = self;
        let text = format!(
            "{top}[server]\nlisten = \"127.0.0.1:0\"\n{server}[admin]\nlisten = \"127.0.0.1:0\"\n{sections}"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command that runs it, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.shell {
            Some((script, _)) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(format!("{script}\nexec \"$0\" \"$@\"")).arg(artifacts::gateway());
                shell
            }
            None => Command::new(artifacts::gateway()),
        };
        command.args(arguments).arg("--config").arg(self.write()).current_dir(self.folder.path());
        // What the tester's shell has set (PORT, RUST_LOG, OPENAI_API_KEY) is none of the test's.
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it and waits until it serves.
    pub async fn start(mut self) -> Running {
        let mut command = self.command(&[]);
        let mut child = command
            .stdin(self.shell.take().map_or_else(Stdio::null, |(_, input)| input))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<String>>::default();
        let output = Arc::<Mutex<String>>::default();
        collect(child.stderr.take().unwrap(), log.clone());
        collect(child.stdout.take().unwrap(), output.clone());
        let mut running = Running {
            folder: self.folder,
            url: String::new(),
            admin: String::new(),
            client: Client::default(),
            child,
            log,
            output,
        };
        running.url = running.address("listening on ").await;
        running.admin = running.address("admin on ").await;
        running
    }
}

/// Gives a process no more of a resource than this; nothing is no limit.
pub fn limit(process: rustix::process::Pid, resource: rustix::process::Resource, to: Option<u64>) {
    // What this process has handed down, since nobody may raise it.
    let maximum = rustix::process::getrlimit(resource).maximum;
    let limit = rustix::process::Rlimit { current: to, maximum };
    rustix::process::prlimit(Some(process), resource, limit).unwrap();
}

fn collect(pipe: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            writeln!(into.lock().unwrap(), "{line}").unwrap();
        }
    });
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    folder: TempDir,
    /// Where clients connect, without a slash at its end.
    pub url: String,
    /// Where operators connect.
    pub admin: String,
    pub client: Client,
    child: Child,
    log: Arc<Mutex<String>>,
    output: Arc<Mutex<String>>,
}

impl Running {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it wrote to its standard output so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    async fn address(&mut self, label: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            let address = log.split_once(label).and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((address, _)) = address {
                return address.trim().to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended with {ended:?}:\n{log}");
            assert!(tokio::time::Instant::now() < deadline, "no `{label}` in\n{log}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.post_with(path, body, &[]).await
    }

    pub async fn post_with(&self, path: &str, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Answer {
        self.client.send(post(&format!("{}{path}", self.url), body, headers)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.client.get(&format!("{}{path}", self.url)).await
    }

    /// GET on the admin port.
    pub async fn admin(&self, path: &str) -> Answer {
        self.client.get(&format!("{}{path}", self.admin)).await
    }

    /// The records that the file exporter wrote so far, in the log form.
    pub fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("records.jsonl")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for so many records.
    pub async fn wait_for_records(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} records"), || async {
            Some(self.records()).filter(|records| records.len() >= count)
        })
        .await
    }

    /// Waits for the one record of a test that makes one request.
    pub async fn record(&self) -> Value {
        let mut records = self.wait_for_records(1).await;
        assert_eq!(records.len(), 1, "one request makes one record");
        records.remove(0)
    }

    /// One plugin's entry of `GET /plugins`.
    pub async fn plugin(&self, name: &str) -> Value {
        let plugins = self.admin("/plugins").await.json();
        let found =
            plugins["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == name).cloned();
        found.unwrap_or_else(|| panic!("no plugin {name} in {plugins}"))
    }

    /// Waits until a plugin's books satisfy `is_done`; they balance whenever they are read.
    pub async fn wait_for_books(&self, name: &str, is_done: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("the books of {name}"), || async {
            let books = self.plugin(name).await["books"].take();
            assert_eq!(books["balanced"], true, "{books}");
            Some(books).filter(&is_done)
        })
        .await
    }

    /// Asks it to stop (SIGTERM) and waits for its end; its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.exit_code().await
    }

    /// Waits for its end; its exit code, or none when a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        wait_for("the gateway's end", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await
        .code()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.process(), signal).unwrap();
    }

    /// Gives it no more of a resource than this, until it is given more.
    pub fn limit(&self, resource: rustix::process::Resource, to: Option<u64>) {
        limit(self.process(), resource, to);
    }

    fn process(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}
