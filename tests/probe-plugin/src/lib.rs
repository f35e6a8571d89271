//! An exporter for tests: it delivers to a file, and fails, stalls, panics, lies and crashes on command.
//!
//! Three ways to command it, the later ones while it runs:
//!
//! * **Settings** (`[plugin.config]`, see [`Config`]): what each call does. `script` lists what successive calls of
//!   `export` do; the last entry repeats.
//! * **The control file** (`control`): read at every `export`. While it exists and is not empty, its first word
//!   takes the place of the script.
//! * **The switch** ([`switch`]): bytes inside the library that a test overwrites in its own copy of the file, for
//!   what happens before there are any settings: constructors and `describe`.
//!
//! With `out` set, a line of JSON (`{"id": …, "attempt": …, "instance": …}`) is appended for every record that a
//! call *claims to have delivered*, and flushed before the call returns. So a test can compare the gateway's books
//! with what the backend would hold.

mod behaviour;
mod ledger;
mod switch;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter, export_plugin};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    behaviour::{Behaviour, hang, panic_with_a_bomb},
    ledger::Ledger,
};

/// What the probe does in each call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What successive calls of `export` do; the last entry repeats. Empty means `ok`.
    ///
    /// `ok`; `retry`; `retry_after:DURATION` (retry, with that `Retry-After`); `reject`; `too_large`;
    /// `unauthorized`; `too_large_over:N` (`too_large` for more than N records, else ok); `too_large_beside:TEXT` (`too_large` for a batch
    /// without a record that contains TEXT); `poison:TEXT` (`reject`
    /// for a batch with a record that contains TEXT, else ok); `stall:TEXT` (never done with such a batch: the deadline
    /// cuts it off); `defer:TEXT` (such a record is to be sent again, the others are delivered); `panic`; `panic_payload` (with a payload that panics
    /// when dropped); `hang` (blocks the thread for ever); `block:DURATION` (blocks the thread, then ok);
    /// `slow:DURATION` (awaits, then ok; the deadline cuts it off); `lie_index` (a verdict for a record that is not
    /// there, then ok); `per_record_missing` (says "per record" and judges only the first); `reject_each`, `reject_half`,
    /// `retry_half` (every second record, beginning with the second; the others are delivered); `thirds` (delivered,
    /// retry, rejected, by index modulo 3); `log:N` (N log lines, then ok); `abort`, `exit:CODE`, `exit_at_once:CODE` (`_exit`), `crash`, `crash_aside` (in a
    /// thread of its own): the whole process goes; `say:TEXT` (in a log line, a verdict and an error).
    script: Vec<String>,
    /// A file that overrides `script` while it exists and is not empty.
    control: Option<PathBuf>,
    /// What `init` does: `ok`, `fail`, `invalid`, `panic`, `hang`, `exit`.
    init: Option<String>,
    /// What nobody is to see; the `init` that fails says it.
    secret: Option<Hidden>,
    /// What `shutdown` does: `ok`, `fail`, `panic`, `hang`.
    shutdown: Option<String>,
    /// What `scrape` does: `ok`, `large` (3 MB), `none`, `garbage`, `panic`, `hang`.
    scrape: Option<String>,
    /// What `health` does: `ok`, `unhealthy`, `unknown`, `panic`, `hang`.
    health: Option<String>,
    /// A file to which every delivered record is appended, as a line of JSON.
    out: Option<PathBuf>,
}

/// A text that its schema marks as secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-secret" = true))]
pub struct Hidden(String);

/// The exporter.
pub struct Probe {
    config: Config,
    script: Vec<Behaviour>,
    calls: AtomicU64,
    delivered: AtomicU64,
    ledger: Option<Ledger>,
}

impl Probe {
    fn next(&self, call: u64) -> Result<Behaviour, ExportError> {
        if let Some(text) = self.config.control.as_ref().and_then(|path| std::fs::read_to_string(path).ok())
            && let Some(word) = text.split_whitespace().next()
        {
            return word.parse().map_err(ExportError::retry);
        }
        let last = self.script.len().saturating_sub(1);
        let index = usize::try_from(call).unwrap_or(usize::MAX).min(last);
        Ok(self.script.get(index).cloned().unwrap_or(Behaviour::Ok))
    }

    fn scrape_text(&self) -> String {
        format!(
            "# HELP probe_delivered_records_total Records that the probe claims to have delivered.\n\
             # TYPE probe_delivered_records_total counter\n\
             probe_delivered_records_total {}\n",
            self.delivered.load(Ordering::Relaxed)
        )
    }
}

impl TelemetryExporter for Probe {
    type Config = switch::Guarded<Config>;
    const DESCRIPTOR: Descriptor = Descriptor::new("probe", env!("CARGO_PKG_VERSION"))
        .author("MagicAPI")
        .description("Fails, stalls, panics, lies and crashes on command")
        .license("MIT OR Apache-2.0")
        .concurrent();

    async fn init(config: Self::Config, host: Host) -> Result<Self, InitError> {
        let config = config.0;
        match config.init.as_deref().unwrap_or("ok") {
            "ok" => {}
            "fail" => {
                let secret =
                    config.secret.map(|secret| format!(", and to say {}", secret.0)).unwrap_or_default();
                return Err(InitError::failed(format!("told to fail{secret}")));
            }
            "exit" => std::process::exit(0),
            "invalid" => return Err(InitError::invalid_config("init: told to be invalid")),
            "panic" => panic!("told to panic in init"),
            "hang" => hang(),
            other => {
                return Err(InitError::invalid_config(format!("init: `{other}` is nothing the probe knows")));
            }
        }
        let script = config.script.iter().map(|word| word.parse()).collect::<Result<_, String>>();
        let script = script.map_err(InitError::invalid_config)?;
        let ledger = config.out.as_deref().map(|path| Ledger::open(path, host.instance())).transpose()?;
        tracing::info!(instance = host.instance(), "the probe is ready");
        Ok(Self { config, script, calls: AtomicU64::new(0), delivered: AtomicU64::new(0), ledger })
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let behaviour = self.next(self.calls.fetch_add(1, Ordering::Relaxed))?;
        let (delivered, outcome) = behaviour.carry_out(&batch).await;
        self.delivered.fetch_add(delivered.count(batch.len()), Ordering::Relaxed);
        if let Some(ledger) = &self.ledger {
            ledger.note(&batch, &delivered)?;
        }
        outcome
    }

    async fn health(&self) -> Health {
        match self.config.health.as_deref().unwrap_or("ok") {
            "ok" => Health::Healthy,
            "unhealthy" => Health::Unhealthy("told to be unhealthy".to_owned()),
            "panic" => panic!("told to panic in health"),
            "hang" => hang(),
            _ => Health::Unknown,
        }
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        match self.config.shutdown.as_deref().unwrap_or("ok") {
            "fail" => Err(ExportError::retry("told to fail in shutdown")),
            "panic" => panic_with_a_bomb("told to panic in shutdown"),
            "hang" => hang(),
            _ => Ok(()),
        }
    }

    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.config.scrape.as_deref().unwrap_or("ok") {
            "none" => Err(io::ErrorKind::Unsupported.into()),
            "large" => (0..36_000).try_for_each(|series| {
                writeln!(out, "probe_large_total{{series=\"{series:05}\",of=\"many that one scrape has to bring\",n=\"1\"}} {series}")
            }),
            "garbage" => out.write_all(b"\xff\x00 {{{ not an exposition \n\n nan nan"),
            "panic" => panic!("told to panic in scrape"),
            "hang" => hang(),
            _ => out.write_all(self.scrape_text().as_bytes()),
        }
    }
}

export_plugin!(Probe);
