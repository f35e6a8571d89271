//! The settings: `[plugin.config]`.

use std::path::PathBuf;

use exporter_kit::{
    settings::{HumanDuration, Secret},
    tls::Tls,
};
use plugin_api::InitError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the PostgreSQL exporter. The server is named by `url`, or by `host` and the other parts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Server, login and database in one: `postgres://user:password@host:5432/database`. Special characters in the
    /// password are percent-encoded. Several hosts (`host1,host2`) are tried in order; options such as
    /// `?target_session_attrs=read-write` and `?sslmode=verify-full` follow. What it says need not be said again
    /// below; a host, port, user or database below that says something else is an error.
    #[serde(default)]
    #[schemars(extend("x-env" = "DATABASE_URL"))]
    pub url: Option<Secret>,
    /// The server's name or address, or the folder of its Unix socket (`"/var/run/postgresql"`), instead of `url`.
    #[serde(default)]
    #[schemars(extend("x-env" = ["POSTGRES_HOST", "PGHOST"]))]
    pub host: Option<String>,
    /// The server's port. 5432 unless set.
    #[serde(default)]
    #[schemars(extend("x-env" = ["POSTGRES_PORT", "PGPORT"]))]
    pub port: Option<u16>,
    /// The user, who needs INSERT on the table, and CREATE on its schema if the exporter is to make it. The name of the
    /// system's user unless set.
    #[serde(default)]
    #[schemars(extend("x-env" = ["POSTGRES_USER", "PGUSER"]))]
    pub user: Option<String>,
    /// The user's password, where `url` has none.
    #[serde(default)]
    #[schemars(extend("x-env" = ["POSTGRES_PASSWORD", "PGPASSWORD"]))]
    pub password: Option<Secret>,
    /// A file that holds the password, instead of `password`.
    #[serde(default)]
    #[schemars(extend("x-env" = "POSTGRES_PASSWORD_FILE"))]
    pub password_file: Option<PathBuf>,
    /// The database. The user's name unless set.
    #[serde(default)]
    #[schemars(extend("x-env" = ["POSTGRES_DB", "PGDATABASE"]))]
    pub database: Option<String>,
    /// Whether the connection is encrypted and the server's certificate is checked. `"disable"`: never encrypted.
    /// `"prefer"`, the default: encrypted if the server can, unchecked. `"require"`: encrypted or not at all,
    /// unchecked. `"verify-full"`: encrypted, and the certificate must be valid for the host's name and signed by an
    /// authority of the system or of `tls.ca_file`. With `tls.ca_file`, `prefer` and `require` check it too. Unix
    /// sockets are never encrypted.
    #[serde(default)]
    #[schemars(extend("x-env" = ["POSTGRES_SSLMODE", "PGSSLMODE"]))]
    pub sslmode: Option<SslMode>,
    /// Certificates, where the connection is encrypted.
    #[serde(default)]
    pub tls: Tls,
    /// The table, as `name` or `schema.name`. It is quoted: upper case stays upper case.
    #[serde(default = "default_table")]
    #[schemars(extend("x-env" = "POSTGRES_TABLE"))]
    pub table: String,
    /// Whether a table that is missing is made, with its index.
    #[serde(default = "yes")]
    #[schemars(extend("x-env" = "POSTGRES_CREATE_TABLE"))]
    pub create_table: bool,
    /// `"none"`: a plain table. `"day"`: a table with a partition for each day (UTC), made as the first record of the
    /// day comes, so that old days can be dropped at once; the primary key is `(id, timestamp)` then.
    #[serde(default)]
    #[schemars(extend("x-env" = "POSTGRES_PARTITION"))]
    pub partition: Partition,
    /// With `partition = "day"`: partitions of days that are over for so long are dropped, for instance `"90d"`, with all
    /// that is in them. Only those that the exporter makes, by name and by bounds; looked for every hour. The user must
    /// own them. Nothing is dropped unless this is set.
    #[serde(default)]
    #[schemars(extend("x-env" = "POSTGRES_RETENTION", "x-min" = "1d"))]
    pub retention: Option<HumanDuration>,
    /// Longest time to connect and log in, for each server in `url`.
    #[serde(default = "default_connect_timeout")]
    #[schemars(extend("x-env" = "POSTGRES_CONNECT_TIMEOUT", "x-min" = "100ms"))]
    pub connect_timeout: HumanDuration,
    /// Longest time for one statement, kept by the server: what was given up here does not go on there. Less than the
    /// plugin's `call_timeout`. `"0s"`: the server's own setting.
    #[serde(default = "default_statement_timeout")]
    #[schemars(extend("x-env" = "POSTGRES_STATEMENT_TIMEOUT"))]
    pub statement_timeout: HumanDuration,
    /// What the server shows as the client's name in `pg_stat_activity`.
    #[serde(default = "default_application_name")]
    #[schemars(extend("x-env" = ["POSTGRES_APPLICATION_NAME", "PGAPPNAME"]))]
    pub application_name: String,
    /// `synchronous_commit` of the session; the server's own setting unless set. With `"off"` a batch counts as
    /// delivered before it is on the server's disk: quicker, and a crash of the server loses the last half second.
    #[serde(default)]
    #[schemars(extend("x-env" = "POSTGRES_SYNCHRONOUS_COMMIT"))]
    pub synchronous_commit: Option<SynchronousCommit>,
}

impl Config {
    /// Checks what the schema cannot.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn check(&self) -> Result<(), InitError> {
        if self.retention.is_some() && self.partition != Partition::Day {
            return Err(InitError::invalid_config(
                "retention drops partitions of days, and there are none: set partition = \"day\", or leave retention out",
            ));
        }
        Ok(())
    }
}

/// How much TLS there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can.
    Prefer,
    /// Encrypted or not at all.
    Require,
    /// Encrypted, and the server is who it says it is.
    VerifyFull,
}

/// How the table is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Not at all, or by somebody else.
    #[default]
    None,
    /// One partition for each day.
    Day,
}

/// When the server calls a transaction committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SynchronousCommit {
    /// On disk here and at the synchronous standbys.
    On,
    /// Some time later.
    Off,
    /// On disk here.
    Local,
    /// Given to the standbys' systems.
    RemoteWrite,
    /// Visible at the standbys.
    RemoteApply,
}

impl SynchronousCommit {
    /// The value as it stands in a `SET`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Local => "local",
            Self::RemoteWrite => "remote_write",
            Self::RemoteApply => "remote_apply",
        }
    }
}

fn default_table() -> String {
    "ai_gateway_request_logs".to_owned()
}

fn yes() -> bool {
    true
}

fn default_connect_timeout() -> HumanDuration {
    HumanDuration::seconds(5)
}

fn default_statement_timeout() -> HumanDuration {
    HumanDuration::seconds(25)
}

fn default_application_name() -> String {
    "magicapi-gateway".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_enough() {
        let config: Config = serde_json::from_str(r#"{"url":"postgres://a:secret@b/c"}"#).unwrap();
        assert_eq!(config.table, "ai_gateway_request_logs");
        assert!(config.create_table && config.partition == Partition::None && config.sslmode.is_none());
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn whatever_holds_a_password_is_marked_as_a_secret() {
        let schema = schemars::schema_for!(Config);
        let properties = schema.get("properties").unwrap();
        for (name, property) in properties.as_object().unwrap() {
            assert_eq!(property["x-secret"] == true, ["url", "password"].contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_those_that_are_right() {
        for (settings, expected) in [
            (r#"{"sslmode":"verify"}"#, "`disable`, `prefer`, `require`, `verify-full`"),
            (r#"{"partition":"month"}"#, "`none` or `day`"),
            (r#"{"synchronous_commit":"remote"}"#, "`remote_write`"),
            (r#"{"statement_timeout":"7"}"#, "the unit is missing"),
            (r#"{"tabel":"a"}"#, "unknown field `tabel`"),
        ] {
            let error = serde_json::from_str::<Config>(settings).unwrap_err().to_string();
            assert!(error.contains(expected), "{settings}: {error}");
        }
    }
}
