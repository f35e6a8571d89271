//! The table: its name, its columns, and every statement about it.

use std::{fmt, time::SystemTime};

use plugin_api::Field;

/// Longest name that PostgreSQL keeps whole.
const MAX_NAME: usize = 63;
/// The longest that is put behind a table's name to name what belongs to it.
const INDEX_SUFFIX: &str = "_timestamp_idx";

/// A table's name, valid and ready to be quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    schema: Option<String>,
    name: String,
}

impl Table {
    /// A table from its setting: `name` or `schema.name`. It will be quoted, so upper case stays upper case.
    ///
    /// # Errors
    /// When it cannot be a name, in words that follow the setting's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        for part in schema.into_iter().chain([name]) {
            if !is_name(part) {
                return Err(format!(
                    "`{text}` is no table's name: write name or schema.name, of letters, digits, `_` and `-`"
                ));
            }
        }
        let longest = MAX_NAME - INDEX_SUFFIX.len();
        if name.len() > longest || schema.is_some_and(|schema| schema.len() > MAX_NAME) {
            return Err(format!("`{text}` is too long: a table's name has at most {longest} characters"));
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    /// The table that holds one day's records.
    fn partition(&self, day: Day) -> Self {
        let date = day.date().replace('-', "");
        Self { schema: self.schema.clone(), name: format!("{}_{date}", self.name) }
    }
}

fn is_name(text: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_first) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Quoted, as it stands in a statement.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Valid names hold no quotation mark.
        match &self.schema {
            Some(schema) => write!(f, "\"{schema}\".\"{}\"", self.name),
            None => write!(f, "\"{}\"", self.name),
        }
    }
}

/// What a column holds, and what of the record fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The record's id.
    Id,
    /// When the request came.
    Timestamp,
    /// A text of the record.
    Text(Field),
    /// The model that answered, else the one that was asked for, as in the log.
    Model,
    /// A count.
    Whole(Field),
    /// An HTTP status.
    Code(Field),
    /// A duration in milliseconds.
    Number(Field),
    /// Yes or no.
    Flag(Field),
    /// An amount in dollars.
    Usd(Field),
    /// The whole log.
    Log,
}

impl Kind {
    /// Type of the column.
    #[must_use]
    pub const fn column_type(self) -> &'static str {
        match self {
            Self::Id => "uuid",
            Self::Timestamp => "timestamptz",
            Self::Text(_) | Self::Model => "text",
            Self::Whole(_) => "bigint",
            Self::Code(_) => "integer",
            Self::Number(_) => "double precision",
            Self::Flag(_) => "boolean",
            Self::Usd(_) => "numeric",
            Self::Log => "jsonb",
        }
    }

    /// Type of the parameter's elements. An amount goes as the decimal text that it is in the record.
    const fn parameter_type(self) -> &'static str {
        match self {
            Self::Usd(_) => "text",
            _ => self.column_type(),
        }
    }
}

/// A column: its name and what it holds.
pub type Column = (&'static str, Kind);

/// All columns, in the order of the table and of the statement's parameters.
pub const COLUMNS: &[Column] = &[
    ("id", Kind::Id),
    ("timestamp", Kind::Timestamp),
    ("org_id", Kind::Text(Field::OrgId)),
    ("project_id", Kind::Text(Field::ProjectId)),
    ("user_id", Kind::Text(Field::UserId)),
    ("thread_id", Kind::Text(Field::ThreadId)),
    ("trace_id", Kind::Text(Field::TraceId)),
    ("provider", Kind::Text(Field::Provider)),
    ("model", Kind::Model),
    ("request_model", Kind::Text(Field::RequestModel)),
    ("path", Kind::Text(Field::Path)),
    ("is_streaming", Kind::Flag(Field::IsStreaming)),
    ("status", Kind::Text(Field::Status)),
    ("status_code", Kind::Code(Field::StatusCode)),
    ("end_reason", Kind::Text(Field::EndReason)),
    ("error_type", Kind::Text(Field::ErrorType)),
    ("input_tokens", Kind::Whole(Field::InputTokens)),
    ("output_tokens", Kind::Whole(Field::OutputTokens)),
    ("total_tokens", Kind::Whole(Field::TotalTokens)),
    ("cached_read_tokens", Kind::Whole(Field::CachedReadTokens)),
    ("cached_write_tokens", Kind::Whole(Field::CachedWriteTokens)),
    ("reasoning_tokens", Kind::Whole(Field::ReasoningTokens)),
    ("cost", Kind::Usd(Field::Cost)),
    ("latency_ms", Kind::Number(Field::TotalLatency)),
    ("ttft_ms", Kind::Number(Field::Ttft)),
    ("log_data", Kind::Log),
];

/// Columns that came with later releases: a table without them is filled all the same.
const LATER: [&str; 3] = ["cached_read_tokens", "cached_write_tokens", "reasoning_tokens"];

/// A column as a table declares it.
fn declaration((name, kind): &Column) -> String {
    let not_null = if matches!(kind, Kind::Id | Kind::Timestamp | Kind::Log) { " NOT NULL" } else { "" };
    format!("\"{name}\" {}{not_null}", kind.column_type())
}

/// The statements that make the table and its index.
#[must_use]
pub fn create(table: &Table, by_day: bool) -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|column| format!("    {}", declaration(column))).collect();
    let (key, partition) = if by_day {
        ("\"id\", \"timestamp\"", " PARTITION BY RANGE (\"timestamp\")")
    } else {
        ("\"id\"", "")
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (\n{},\n    PRIMARY KEY ({key})\n){partition};\n\
         CREATE INDEX IF NOT EXISTS \"{}{INDEX_SUFFIX}\" ON {table} (\"timestamp\");\n",
        columns.join(",\n"),
        table.name,
    )
}

/// Holds back other gateways that would make the same thing at the same time, until the transaction ends.
#[must_use]
pub fn lock(table: &Table) -> String {
    format!("SELECT pg_advisory_xact_lock(hashtext('magicapi-gateway {table}'))")
}

/// The one statement that inserts a batch of any size into these columns.
#[must_use]
pub fn insert(table: &Table, columns: &[Column]) -> String {
    let join = |part: &dyn Fn(usize, &Column) -> String| {
        let parts: Vec<String> = columns.iter().enumerate().map(|(at, column)| part(at, column)).collect();
        parts.join(", ")
    };
    let names = join(&|_, (name, _)| format!("\"{name}\""));
    let values = join(&|_, (name, kind)| {
        if kind.parameter_type() == kind.column_type() {
            format!("\"{name}\"")
        } else {
            format!("\"{name}\"::{}", kind.column_type())
        }
    });
    let parameters = join(&|at, (_, kind)| format!("${}::{}[]", at + 1, kind.parameter_type()));
    format!(
        "INSERT INTO {table} ({names}) SELECT {values} FROM unnest({parameters}) AS record({names}) \
         ON CONFLICT DO NOTHING"
    )
}

/// What the catalogue says of the table, by its quoted name: its kind, its columns, whether it can tell a record that
/// it has, and whether it is itself a partition.
pub const INSPECT: &str = "\
SELECT c.relkind::text,
    ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
    EXISTS (SELECT 1 FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL
        AND (SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = 'id') = ANY (i.indkey)
        AND ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)) <@ ARRAY['id', 'timestamp']),
    c.relispartition
FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1::text)";

/// A table that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether it has partitions.
    pub is_partitioned: bool,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// Whether a unique index is on the record's id, so that a record is not inserted twice.
    pub has_key: bool,
}

impl Found {
    /// The columns that it has of [`COLUMNS`].
    #[must_use]
    pub fn known_columns(&self) -> Vec<Column> {
        COLUMNS.iter().filter(|column| self.has(column)).copied().collect()
    }

    /// What this table lacks, and can do without, with the statement that adds it.
    #[must_use]
    pub fn wish(&self, table: &Table) -> Option<String> {
        self.lack(table, |name| LATER.contains(&name))
    }

    fn has(&self, (name, _): &Column) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    fn lack(&self, table: &Table, is_meant: impl Fn(&str) -> bool) -> Option<String> {
        let missing: Vec<&Column> =
            COLUMNS.iter().filter(|column| is_meant(column.0) && !self.has(column)).collect();
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        // Rows that are there already have nothing to put into it, so it may be null.
        let add = missing.iter().map(|(name, kind)| format!("ADD COLUMN \"{name}\" {}", kind.column_type()));
        let add: Vec<String> = add.collect();
        (!missing.is_empty()).then(|| {
            format!("table {table} lacks {}; run: ALTER TABLE {table} {};", names.join(", "), add.join(", "))
        })
    }

    /// Why this table cannot be written to, with the statement that cures it.
    #[must_use]
    pub fn fault(&self, table: &Table, by_day: bool) -> Option<String> {
        if let Some(lack) = self.lack(table, |name| !LATER.contains(&name)) {
            return Some(lack);
        }
        if by_day && !self.is_partitioned {
            return Some(format!(
                "table {table} is there and has no partitions; set partition = \"none\", or rename it and let the \
                 exporter make a new one"
            ));
        }
        if !self.has_key {
            let key = if self.is_partitioned { "\"id\", \"timestamp\"" } else { "\"id\"" };
            return Some(format!(
                "table {table} has no unique index on the record's id, and what is sent again would be there twice; \
                 run: ALTER TABLE {table} ADD PRIMARY KEY ({key});"
            ));
        }
        None
    }
}

/// A day in UTC, counted from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u64);

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

impl Day {
    /// The day of a time; nothing was recorded before 1970.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(since.as_secs() / SECONDS_A_DAY)
    }

    /// The day of `20250305`.
    fn of_digits(digits: &str) -> Option<Self> {
        let (year, month, day) = (digits.get(..4)?, digits.get(4..6)?, digits.get(6..)?);
        let start = humantime::parse_rfc3339(&format!("{year}-{month}-{day}T00:00:00Z")).ok()?;
        Some(Self::of(start))
    }

    fn date(self) -> String {
        let start = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(self.0 * SECONDS_A_DAY);
        let mut text = humantime::format_rfc3339_seconds(start).to_string();
        text.truncate("2025-03-05".len());
        text
    }
}

/// A day's partition: its name, and the statements that make it and attach it.
///
/// It is made on its own and then attached: `CREATE TABLE … PARTITION OF` would lock the whole table against readers.
#[must_use]
pub fn create_partition(table: &Table, day: Day) -> (Table, String) {
    let partition = table.partition(day);
    let statements = format!(
        "CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);\n\
         ALTER TABLE {table} ATTACH PARTITION {partition} {};\n",
        bounds(day)
    );
    (partition, statements)
}

/// What a day's partition holds, as it is declared and as PostgreSQL shows it to a session in UTC.
fn bounds(day: Day) -> String {
    let (from, to) = (day.date(), Day(day.0 + 1).date());
    format!("FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')")
}

/// A table's partitions beside it: what they are called, quoted and not, and what they hold; and the server's clock.
pub const PARTITIONS: &str = "\
SELECT format('%I.%I', n.nspname, c.relname), c.relname::text, pg_get_expr(c.relpartbound, c.oid), now()
FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    JOIN pg_catalog.pg_class parent ON parent.oid = i.inhparent AND parent.relnamespace = c.relnamespace
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = to_regclass($1::text) AND c.relkind = 'r'
ORDER BY c.relname";

/// How [`PARTITIONS`] is to be asked for, in the transaction around it.
pub const AS_DECLARED: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'";

/// A partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Quoted, as it stands in a statement.
    pub place: String,
    /// Its name alone.
    pub name: String,
    /// What it holds, as PostgreSQL shows it.
    pub bounds: String,
}

impl Child {
    /// Whether it is one that [`create_partition`] makes, by name and by bounds, of a day that was over before that time.
    #[must_use]
    pub fn is_older(&self, table: &Table, than: SystemTime) -> bool {
        let day = self
            .name
            .strip_prefix(&*table.name)
            .and_then(|rest| rest.strip_prefix('_'))
            .and_then(Day::of_digits);
        day.is_some_and(|day| day < Day::of(than) && self.bounds == bounds(day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_quoted_and_what_is_none_is_refused() {
        assert_eq!(table("logs").to_string(), r#""logs""#);
        assert_eq!(table("Audit.gateway-Logs_2").to_string(), r#""Audit"."gateway-Logs_2""#);
        let long = "a".repeat(50);
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "1a",
            "a b",
            "a\"b",
            "a;drop table b",
            "a'b",
            "a\0",
            "tablé",
            &long,
        ] {
            let error = Table::parse(text).unwrap_err();
            assert!(error.contains("table's name"), "{error}");
        }
        assert!(Table::parse(&long[1..]).is_ok());
    }

    #[test]
    fn the_table_is_made_with_its_key_and_one_index() {
        let expected = r#"CREATE TABLE IF NOT EXISTS "a"."logs" (
    "id" uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    "org_id" text,
    "project_id" text,
    "user_id" text,
    "thread_id" text,
    "trace_id" text,
    "provider" text,
    "model" text,
    "request_model" text,
    "path" text,
    "is_streaming" boolean,
    "status" text,
    "status_code" integer,
    "end_reason" text,
    "error_type" text,
    "input_tokens" bigint,
    "output_tokens" bigint,
    "total_tokens" bigint,
    "cached_read_tokens" bigint,
    "cached_write_tokens" bigint,
    "reasoning_tokens" bigint,
    "cost" numeric,
    "latency_ms" double precision,
    "ttft_ms" double precision,
    "log_data" jsonb NOT NULL,
    PRIMARY KEY ("id")
);
CREATE INDEX IF NOT EXISTS "logs_timestamp_idx" ON "a"."logs" ("timestamp");
"#;
        assert_eq!(create(&table("a.logs"), false), expected);
        let by_day = expected
            .replace("KEY (\"id\")\n)", "KEY (\"id\", \"timestamp\")\n) PARTITION BY RANGE (\"timestamp\")");
        assert_eq!(create(&table("a.logs"), true), by_day);
    }

    #[test]
    fn one_statement_inserts_any_number_of_records() {
        let statement = insert(&table("logs"), COLUMNS);
        let parts = [
            r#"INSERT INTO "logs" ("id", "timestamp", "org_id", "#,
            r#" SELECT "id", "timestamp", "#,
            r#""total_tokens", "cached_read_tokens", "cached_write_tokens", "reasoning_tokens", "cost"::numeric, "latency_ms", "ttft_ms", "log_data" FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], "#,
            r#"$22::bigint[], $23::text[], $24::double precision[], $25::double precision[], $26::jsonb[]) AS record("id", "#,
            r#""log_data") ON CONFLICT DO NOTHING"#,
        ];
        for part in parts {
            assert!(statement.contains(part), "{part} is not in {statement}");
        }
    }

    #[test]
    fn a_partition_holds_one_day() {
        let day = Day::of(humantime::parse_rfc3339("2024-12-31T23:59:59.999Z").unwrap());
        let (partition, statements) = create_partition(&table("a.logs"), day);
        assert_eq!(partition.to_string(), r#""a"."logs_20241231""#);
        assert_eq!(
            statements,
            r#"CREATE TABLE "a"."logs_20241231" (LIKE "a"."logs" INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE);
ALTER TABLE "a"."logs" ATTACH PARTITION "a"."logs_20241231" FOR VALUES FROM ('2024-12-31 00:00:00+00') TO ('2025-01-01 00:00:00+00');
"#
        );
        let child = |name: &str, bounds: &str| Child {
            place: format!("\"a\".\"{name}\""),
            name: name.to_owned(),
            bounds: bounds.to_owned(),
        };
        let whole = "FOR VALUES FROM ('2024-12-31 00:00:00+00') TO ('2025-01-01 00:00:00+00')";
        for (name, bounds, than, expected) in [
            ("logs_20241231", whole, "2025-01-01T00:00:00Z", true),
            ("logs_20241231", whole, "2024-12-31T23:59:59Z", false),
            ("logs_20241231", whole, "2030-01-01T00:00:00Z", true),
            ("logs_20241230", whole, "2030-01-01T00:00:00Z", false),
            ("logs_20241231", "DEFAULT", "2030-01-01T00:00:00Z", false),
            ("logs_20241231", &whole.replace("2025-01-01", "2025-02-01"), "2030-01-01T00:00:00Z", false),
            ("logs_old", whole, "2030-01-01T00:00:00Z", false),
            ("logs_2024123", whole, "2030-01-01T00:00:00Z", false),
            ("logs_202412é1", whole, "2030-01-01T00:00:00Z", false),
            ("other_20241231", whole, "2030-01-01T00:00:00Z", false),
        ] {
            let than = humantime::parse_rfc3339(than).unwrap();
            assert_eq!(child(name, bounds).is_older(&table("a.logs"), than), expected, "{name} {bounds}");
        }
        let next = Day::of(humantime::parse_rfc3339("2025-01-01T00:00:00Z").unwrap());
        assert_eq!(next, Day(day.0 + 1));
    }

    #[test]
    fn a_table_that_cannot_be_written_to_comes_with_its_cure() {
        let columns: Vec<String> = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let whole = Found { is_partitioned: false, columns: columns.clone(), has_key: true };
        let fault = |found: &Found, by_day| found.fault(&table("logs"), by_day).unwrap_or_default();
        assert_eq!(fault(&whole, false), "");
        let of_the_guide = ["id", "timestamp", "log_data"].map(str::to_owned).to_vec();
        let said = fault(&Found { columns: of_the_guide, ..whole.clone() }, false);
        assert!(said.starts_with("table \"logs\" lacks org_id, project_id, "), "{said}");
        assert!(said.contains("ALTER TABLE \"logs\" ADD COLUMN \"org_id\" text, ADD COLUMN"), "{said}");
        assert!(fault(&whole, true).contains("partition = \"none\""));
        assert_eq!(fault(&Found { is_partitioned: true, ..whole.clone() }, true), "");
        let older = columns.iter().filter(|name| !LATER.contains(&&***name)).cloned().collect();
        let older = Found { columns: older, ..whole.clone() };
        assert_eq!((fault(&older, false), older.known_columns().len()), (String::new(), COLUMNS.len() - 3));
        let wish = older.wish(&table("logs")).unwrap();
        assert!(wish.ends_with("ADD COLUMN \"reasoning_tokens\" bigint;"), "{wish}");
        assert_eq!(whole.wish(&table("logs")), None);
        let said = fault(&Found { has_key: false, ..whole }, false);
        assert!(said.ends_with("run: ALTER TABLE \"logs\" ADD PRIMARY KEY (\"id\");"), "{said}");
    }
}
