//! A connection that is ready to insert.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    time::{Duration, SystemTime},
};

use tokio::{task::AbortHandle, time::timeout};
use tokio_postgres::{Client, Statement, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{info, warn};

use crate::{
    config::{Config, Partition, SynchronousCommit},
    failure::{Failure, Fault},
    rows::Rows,
    table::{self, Child, Column, Day, Found, Table},
    target::Target,
};

/// What a session is told to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The table that records go to.
    pub table: Table,
    create_table: bool,
    partition: Partition,
    retention: Option<Duration>,
    statement_timeout: Duration,
    synchronous_commit: Option<SynchronousCommit>,
}

impl Plan {
    /// What the settings say of a session.
    #[must_use]
    pub fn new(config: &Config, table: Table) -> Self {
        Self {
            table,
            create_table: config.create_table,
            partition: config.partition,
            retention: config.retention.map(|retention| retention.0),
            statement_timeout: config.statement_timeout.0,
            synchronous_commit: config.synchronous_commit,
        }
    }

    /// What the session is told before anything else.
    fn settings(&self) -> String {
        let mut settings = String::new();
        if !self.statement_timeout.is_zero() {
            settings
                .push_str(&format!("SET statement_timeout = {};", self.statement_timeout.as_millis().max(1)));
        }
        if let Some(commit) = self.synchronous_commit {
            settings.push_str(&format!("SET synchronous_commit = {};", commit.as_str()));
        }
        settings
    }

    fn by_day(&self) -> bool {
        self.partition == Partition::Day
    }
}

/// A connection with the table looked at and the statement prepared. Dropping it closes the connection at once.
pub struct Session {
    client: Client,
    /// The task that reads and writes. A server that hangs would keep it for ever.
    task: AbortHandle,
    statement: Option<Statement>,
    /// The columns that the statement fills.
    columns: Vec<Column>,
    /// Days whose partitions were looked for.
    days: HashSet<Day>,
    /// Why some of them could not be made.
    without: HashMap<Day, Failure>,
    /// Memory for the next batch's logs.
    pub memory: Vec<u8>,
}

/// Readers of a day that is dropped are waited for so long; others wait behind it. It is tried again later.
const LOCK_TIME: Duration = Duration::from_secs(2);

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When no server can be reached in time, or it refuses.
    pub async fn open(target: &Target, plan: &Plan) -> Result<Self, Failure> {
        let tls = MakeRustlsConnect::new(target.tls.clone());
        let connected = timeout(target.connect_timeout, target.connection.connect(tls)).await;
        let (client, connection) = connected.map_err(|_| {
            let text = format!("no connection within connect_timeout ({:?})", target.connect_timeout);
            Failure::new(Fault::Connection, text)
        })??;
        if let Some(encoding) = connection.parameter("server_encoding").filter(|encoding| *encoding != "UTF8")
        {
            warn!(
                "the database's encoding is {encoding}: records with other characters will be rejected; use UTF8"
            );
        }
        // Why it ends is told to whoever uses the client.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        let (columns, days, without) = Default::default();
        let session = Self { client, task, statement: None, columns, days, without, memory: Vec::new() };
        session.client.batch_execute(&plan.settings()).await?;
        Ok(session)
    }

    /// Whether the connection has broken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ping(&self) -> Result<(), Failure> {
        Ok(self.client.batch_execute("SELECT 1").await?)
    }

    /// Looks at the table, makes it if it is missing and may be made, and prepares the statement.
    ///
    /// # Errors
    /// When the table cannot be written to.
    pub async fn prepare(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.statement = None;
        self.days.clear();
        let found = match self.find(&plan.table).await? {
            None if plan.create_table => {
                self.create_table(plan).await?;
                self.find(&plan.table).await?
            }
            found => found,
        };
        let Some((found, _)) = found else {
            let text =
                format!("table {} does not exist; set create_table = true, or create the table", plan.table);
            return Err(Failure::new(Fault::Setup, text));
        };
        if let Some(fault) = found.fault(&plan.table, plan.by_day()) {
            return Err(Failure::new(Fault::Setup, fault));
        }
        if let Some(wish) = found.wish(&plan.table) {
            info!("{wish} (until then those numbers are in log_data alone)");
        }
        self.columns = found.known_columns();
        self.statement = Some(self.client.prepare(&table::insert(&plan.table, &self.columns)).await?);
        Ok(())
    }

    /// Inserts the rows; those that are there already stay as they are. Where the table or a partition has gone since
    /// the last time, it is made again. Rows for which there is no partition are returned, with the reason.
    ///
    /// # Errors
    /// When they were not inserted, or the answer was lost; they can all be inserted again.
    pub async fn insert(&mut self, plan: &Plan, rows: &Rows<'_>) -> Result<Vec<(usize, Failure)>, Failure> {
        match self.try_insert(plan, rows).await {
            Ok(()) => return Ok(Vec::new()),
            Err(Failure { fault: Fault::Stale, .. }) => self.statement = None,
            Err(Failure { fault: Fault::Partition, .. }) => self.days.clear(),
            Err(failure) => return Err(failure),
        }
        match self.try_insert(plan, rows).await {
            Err(Failure { fault: Fault::Partition, .. }) => self.insert_what_has_a_place(rows).await,
            outcome => outcome.map(|()| Vec::new()),
        }
    }

    async fn try_insert(&mut self, plan: &Plan, rows: &Rows<'_>) -> Result<(), Failure> {
        if self.statement.is_none() {
            self.prepare(plan).await?;
        }
        if plan.by_day() {
            self.prepare_days(plan, rows).await?;
        }
        self.execute(rows, 0..rows.len()).await
    }

    /// One row without a partition fails the statement for all: it is found by halves.
    async fn insert_what_has_a_place(&self, rows: &Rows<'_>) -> Result<Vec<(usize, Failure)>, Failure> {
        let (mut parts, mut without) = (vec![(0, rows.len())], Vec::new());
        while let Some((start, end)) = parts.pop() {
            match self.execute(rows, start..end).await {
                Ok(()) => {}
                Err(failure) if failure.fault != Fault::Partition => return Err(failure),
                Err(failure) if end - start == 1 => {
                    let failure = self.without.get(&rows.day(start)).cloned().unwrap_or(failure);
                    without.push((start, failure));
                }
                Err(_) => {
                    let middle = start + (end - start) / 2;
                    parts.extend([(start, middle), (middle, end)]);
                }
            }
        }
        Ok(without)
    }

    async fn execute(&self, rows: &Rows<'_>, range: Range<usize>) -> Result<(), Failure> {
        let Some(statement) = &self.statement else {
            return Err(Failure::new(Fault::Stale, "the statement is not prepared"));
        };
        let insert =
            async |parameters: &[&(dyn ToSql + Sync)]| self.client.execute(statement, parameters).await;
        rows.with_parameters(range, &self.columns, insert).await?;
        Ok(())
    }

    /// Drops the partitions of days that are older than the retention, if there is one.
    ///
    /// # Errors
    /// When one cannot be dropped: the rest is still there too.
    pub async fn drop_old_days(&mut self, plan: &Plan) -> Result<(), Failure> {
        let Some(retention) = plan.retention else { return Ok(()) };
        for child in self.old_days(plan, retention).await? {
            let transaction = self.client.transaction().await?;
            transaction.batch_execute(&format!("SET LOCAL lock_timeout = {}", LOCK_TIME.as_millis())).await?;
            transaction.batch_execute(&format!("DROP TABLE IF EXISTS {}", child.place)).await?;
            transaction.commit().await?;
            info!("dropped partition {}: its day is over for longer than retention", child.place);
        }
        Ok(())
    }

    async fn old_days(&mut self, plan: &Plan, retention: Duration) -> Result<Vec<Child>, Failure> {
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(table::AS_DECLARED).await?;
        let mut old = Vec::new();
        for row in transaction.query(table::PARTITIONS, &[&plan.table.to_string()]).await? {
            let child = Child { place: row.try_get(0)?, name: row.try_get(1)?, bounds: row.try_get(2)? };
            // One of the two clocks may be wrong: that is not to cost a day.
            let now = row.try_get::<_, SystemTime>(3)?.min(SystemTime::now());
            let oldest = now.checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
            old.extend(Some(child).filter(|child| child.is_older(&plan.table, oldest)));
        }
        transaction.commit().await?;
        Ok(old)
    }

    /// The table as it is, and whether it is a partition of another.
    async fn find(&self, table: &Table) -> Result<Option<(Found, bool)>, Failure> {
        let row = self.client.query_opt(table::INSPECT, &[&table.to_string()]).await?;
        let Some(row) = row else { return Ok(None) };
        let (kind, columns): (String, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
        let found = Found { is_partitioned: kind == "p", columns, has_key: row.try_get(2)? };
        Ok(Some((found, row.try_get(3)?)))
    }

    async fn create_table(&mut self, plan: &Plan) -> Result<(), Failure> {
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(&table::lock(&plan.table)).await?;
        transaction.batch_execute(&table::create(&plan.table, plan.by_day())).await?;
        transaction.commit().await?;
        info!("created table {}", plan.table);
        Ok(())
    }

    /// Makes the partitions that are missing. Where that fails, PostgreSQL may have a place for the rows all the same: a
    /// default partition.
    async fn prepare_days(&mut self, plan: &Plan, rows: &Rows<'_>) -> Result<(), Failure> {
        for day in rows.days() {
            if self.days.contains(&day) {
                continue;
            }
            match self.create_partition(&plan.table, day).await {
                Ok(()) => drop(self.without.remove(&day)),
                Err(failure) => self.go_on_without(&plan.table, day, failure)?,
            }
            self.days.insert(day);
        }
        Ok(())
    }

    fn go_on_without(&mut self, table: &Table, day: Day, failure: Failure) -> Result<(), Failure> {
        if !matches!(failure.fault, Fault::Partition | Fault::Setup | Fault::Credentials) {
            return Err(failure);
        }
        let failure =
            failure.but("until then the day's records go to the default partition, or wait if there is none");
        if !self.without.contains_key(&day) {
            warn!("table {table}: {failure}");
        }
        self.without.insert(day, failure);
        Ok(())
    }

    async fn create_partition(&mut self, table: &Table, day: Day) -> Result<(), Failure> {
        let (partition, statements) = table::create_partition(table, day);
        match self.find(&partition).await? {
            Some((_, true)) => return Ok(()),
            Some((_, false)) => {
                let text = format!(
                    "table {partition} is there and is no partition of {table}: attach it, or rename or drop it"
                );
                return Err(Failure::new(Fault::Partition, text));
            }
            None => {}
        }
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(&table::lock(table)).await?;
        match transaction.batch_execute(&statements).await {
            Ok(()) => {
                transaction.commit().await?;
                info!("created partition {partition}");
                Ok(())
            }
            Err(error) => {
                transaction.rollback().await?;
                if is_there_already(&error) { Ok(()) } else { Err(error.into()) }
            }
        }
    }
}

/// Another gateway was quicker, or the operator has partitions of another size, which hold the day.
fn is_there_already(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let code = error.code();
    code == Some(&SqlState::DUPLICATE_TABLE) || code == Some(&SqlState::INVALID_OBJECT_DEFINITION)
}
