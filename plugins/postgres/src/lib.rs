//! Exporter `postgres`: every record as a row of PostgreSQL, with the columns that people filter by and the whole log
//! as `jsonb`.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`target`] | from the settings to the server, the login and the TLS configuration |
//! | [`table`] | the table: names, columns, statements |
//! | [`rows`] | a batch as the statement's parameters |
//! | [`sanitize`] | JSON that `jsonb` takes |
//! | [`session`] | a connection that is ready to insert |
//! | [`failure`] | what an error means for the records |
//!
//! Invariants: a batch is one statement, so it is in the table whole or not at all; what is sent again is not inserted
//! again; no identifier gets into a statement unquoted; no message holds a password or a row.

#![forbid(unsafe_code)]

pub mod config;
pub mod failure;
pub mod rows;
pub mod sanitize;
pub mod session;
pub mod table;
pub mod target;

use std::{
    io::{self, Write},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use plugin_api::{
    Batch, Descriptor, ExportError, HardLimits, Health, Host, InitError, TelemetryExporter, export_plugin,
};
use tokio::time::timeout;
use tracing::warn;

use crate::{
    config::Config,
    failure::{Failure, Fault},
    rows::Rows,
    session::{Plan, Session},
    table::Table,
    target::Target,
};

/// The exporter.
pub struct PostgresExporter {
    target: Target,
    plan: Plan,
    /// Connections that nobody uses at the moment: at most one for each thread that exports.
    idle: Mutex<Vec<Session>>,
    sanitized: AtomicU64,
    /// The gateway's name for this exporter, as it stands in a label.
    instance: String,
}

/// Memory for logs that a connection keeps from one batch to the next.
const KEPT_BYTES: usize = 8 << 20;
/// Longest time for a sign of life.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// PostgreSQL takes messages of up to 1 GiB and needs several times as much memory while it reads one.
const MAX_BYTES: u64 = 128 << 20;

impl TelemetryExporter for PostgresExporter {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("postgres", env!("CARGO_PKG_VERSION"))
        .description("Writes records as rows to PostgreSQL")
        .license("MIT OR Apache-2.0")
        .batch(500, 5 * 1024 * 1024, Duration::from_secs(1))
        .limits(HardLimits::NONE.bytes(MAX_BYTES).record_bytes(MAX_BYTES))
        .concurrent()
        .background_tasks();

    async fn init(config: Config, host: Host) -> Result<Self, InitError> {
        let table = Table::parse(&config.table)
            .map_err(|error| InitError::invalid_config(format!("table: {error}")))?;
        let exporter = Self {
            target: Target::of(&config)?,
            plan: Plan::new(&config, table),
            idle: Mutex::default(),
            sanitized: AtomicU64::new(0),
            instance: host.instance().replace(['"', '\\', '\n'], "_"),
        };
        // A server that hangs is found out by the breaker; start-up does not wait for it.
        match timeout(exporter.target.connect_timeout, exporter.first_session()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => warn!("{}", failure.at(&exporter.target.place)),
            Err(_) => warn!("PostgreSQL at {}: no answer within connect_timeout", exporter.target.place),
        }
        Ok(exporter)
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.insert(batch).await.map_err(|failure| failure.at(&self.target.place))
    }

    async fn health(&self) -> Health {
        match timeout(PING_TIMEOUT, self.ping()).await {
            Ok(Ok(())) => Health::Healthy,
            Ok(Err(failure)) => Health::Unhealthy(failure.at(&self.target.place).to_string()),
            Err(_) => {
                let place = &self.target.place;
                Health::Unhealthy(format!("PostgreSQL at {place}: no answer within {PING_TIMEOUT:?}"))
            }
        }
    }

    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = "magicapi_postgres_sanitized_records_total";
        writeln!(out, "# HELP {name} Records of which zero bytes or lone surrogates became U+FFFD.")?;
        writeln!(out, "# TYPE {name} counter")?;
        writeln!(out, "{name}{{plugin=\"{}\"}} {}", self.instance, self.sanitized.load(Ordering::Relaxed))
    }
}

impl PostgresExporter {
    async fn first_session(&self) -> Result<(), Failure> {
        let mut session = self.session().await?;
        session.prepare(&self.plan).await?;
        self.keep(session);
        Ok(())
    }

    async fn insert(&self, batch: Batch<'_>) -> Result<(), Failure> {
        let mut session = self.session().await?;
        let rows = Rows::of(batch, std::mem::take(&mut session.memory));
        // A future that is dropped here drops the session, and with it the connection: its state is unknown then.
        let outcome = if rows.is_empty() { Ok(()) } else { session.insert(&self.plan, &rows).await };
        if outcome.is_ok() {
            self.sanitized.fetch_add(rows.sanitized(), Ordering::Relaxed);
        }
        if !matches!(outcome, Err(Failure { fault: Fault::Connection, .. })) {
            session.memory = rows.into_memory();
            session.memory.shrink_to(KEPT_BYTES);
            self.keep(session);
        }
        outcome
    }

    async fn ping(&self) -> Result<(), Failure> {
        let session = self.session().await?;
        session.ping().await?;
        self.keep(session);
        Ok(())
    }

    /// A connection that nobody else uses: an idle one that still stands, or a new one.
    async fn session(&self) -> Result<Session, Failure> {
        let idle = {
            let mut idle = self.idle();
            idle.retain(|session| !session.is_closed());
            idle.pop()
        };
        match idle {
            Some(session) => Ok(session),
            None => Session::open(&self.target, &self.plan).await,
        }
    }

    fn keep(&self, session: Session) {
        self.idle().push(session);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

export_plugin!(PostgresExporter);
