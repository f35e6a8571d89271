//! What an error of PostgreSQL means for the records, and what to tell the operator.

use std::fmt;

use plugin_api::{ExportError, causes};
use tokio_postgres::error::DbError;

/// Whose fault an error is, and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server cannot now: send the records again.
    Retry,
    /// The connection is of no use any more: send the records again over another one.
    Connection,
    /// Login or privileges: no record is at fault, and an operator is needed.
    Credentials,
    /// The database or the table: an operator is needed here too.
    Setup,
    /// A record will never be taken.
    Record,
    /// The table, or what was prepared for it, has gone or changed: look at it again.
    Stale,
    /// There is no partition for a record's day.
    Partition,
}

/// Sorts an error by its SQLSTATE and, of check violations, by the constraint that was violated: a missing partition
/// is one without a constraint.
///
/// Class 42 (unknown column, wrong type) is about the statement, which is the same for every record: rejecting records
/// for it would lose all of them.
#[must_use]
pub fn classify(sqlstate: &str, constraint: Option<&str>) -> Fault {
    match sqlstate {
        "42P01" | "0A000" => Fault::Stale,
        // The session is with the wrong server: a standby after a failover, where another attempt to connect may find
        // the new primary, or one that a pooler chose and that does not know the prepared statement.
        "25006" | "26000" => Fault::Connection,
        "23514" if constraint.is_none() => Fault::Partition,
        // A query that took too long; other members of class 57 mean that the server goes down.
        "57014" => Fault::Retry,
        "42501" => Fault::Credentials,
        "3D000" | "3F000" => Fault::Setup,
        // An exception of the operator's own trigger, and a view's check.
        "P0001" | "44000" => Fault::Record,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" | "57" => Fault::Connection,
            "28" => Fault::Credentials,
            "42" => Fault::Setup,
            "21" | "22" | "23" | "54" => Fault::Record,
            // 40 rollback, 53 resources, 55 locks, 58 system, XX internal, and what later releases bring.
            _ => Fault::Retry,
        },
    }
}

/// What to do about it, where that is not plain from the server's own words.
fn cure(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "28P01" => "check user and password",
        "28000" => "check user and sslmode, and the server's pg_hba.conf",
        "3D000" => "check database, or create it",
        "3F000" => "check the schema in table, or create it",
        "42501" => {
            "grant the user INSERT on the table, or CREATE on its schema if the exporter is to make it"
        }
        "42P01" => "set create_table = true, or create the table",
        "42804" => "the table was made for something else: give the exporter a table of its own",
        "53300" => "raise max_connections, or use a pooler",
        "53100" => "free space on the server's disk",
        "25006" => "it is a standby: list all servers in url and add target_session_attrs=read-write",
        "57014" => "raise statement_timeout if the server is merely slow",
        "22P05" | "22021" => "the database's encoding must be UTF8",
        _ => return None,
    })
}

/// A failure, with the place where it happened.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What helps.
    pub fault: Fault,
    text: String,
}

impl Failure {
    /// A failure that PostgreSQL did not report itself.
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self { fault, text: text.into() }
    }

    /// From what the client says. The server's `DETAIL` is left out: it quotes the row, which holds prompts.
    #[must_use]
    pub fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(error) => Self::of_server(error),
            None => Self { fault: Fault::Connection, text: causes(error) },
        }
    }

    fn of_server(error: &DbError) -> Self {
        let code = error.code().code();
        let text = match cure(code) {
            Some(cure) => format!("{} ({code}); {cure}", error.message()),
            None => format!("{} ({code})", error.message()),
        };
        Self { fault: classify(code, error.constraint()), text }
    }

    /// The same with more to say.
    #[must_use]
    pub fn but(self, more: &str) -> Self {
        Self { text: format!("{}; {more}", self.text), ..self }
    }

    /// As the gateway takes it; `place` names the server and the database.
    #[must_use]
    pub fn at(&self, place: &str) -> ExportError {
        let text = format!("PostgreSQL at {place}: {}", self.text);
        match self.fault {
            Fault::Credentials => ExportError::unauthorized(text),
            Fault::Record => ExportError::reject(text),
            Fault::Retry | Fault::Connection | Fault::Setup | Fault::Stale | Fault::Partition => {
                ExportError::retry(text)
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_fault() {
        for (sqlstate, fault) in [
            ("08006", Fault::Connection),
            ("0A000", Fault::Stale),
            ("21000", Fault::Record),
            ("22003", Fault::Record),
            ("22021", Fault::Record),
            ("22P02", Fault::Record),
            ("22P05", Fault::Record),
            ("23502", Fault::Record),
            ("23503", Fault::Record),
            ("23505", Fault::Record),
            ("25006", Fault::Connection),
            ("25P02", Fault::Retry),
            ("26000", Fault::Connection),
            ("28000", Fault::Credentials),
            ("28P01", Fault::Credentials),
            ("3D000", Fault::Setup),
            ("3F000", Fault::Setup),
            ("40001", Fault::Retry),
            ("40P01", Fault::Retry),
            ("42501", Fault::Credentials),
            ("42703", Fault::Setup),
            ("42804", Fault::Setup),
            ("42P01", Fault::Stale),
            ("44000", Fault::Record),
            ("53100", Fault::Retry),
            ("53200", Fault::Retry),
            ("53300", Fault::Retry),
            ("54000", Fault::Record),
            ("54001", Fault::Record),
            ("55P03", Fault::Retry),
            ("57014", Fault::Retry),
            ("57P01", Fault::Connection),
            ("57P02", Fault::Connection),
            ("57P03", Fault::Connection),
            ("58030", Fault::Retry),
            ("P0001", Fault::Record),
            ("XX000", Fault::Retry),
            ("ZZ999", Fault::Retry),
            ("", Fault::Retry),
        ] {
            assert_eq!(classify(sqlstate, None), fault, "{sqlstate}");
        }
    }

    #[test]
    fn a_missing_partition_is_no_fault_of_the_record() {
        assert_eq!(classify("23514", None), Fault::Partition);
        assert_eq!(classify("23514", Some("cost_is_positive")), Fault::Record);
    }

    #[test]
    fn the_gateway_is_told_what_to_do_with_the_records() {
        use plugin_api::ErrorKind;
        for (fault, kind) in [
            (Fault::Retry, ErrorKind::Retry),
            (Fault::Connection, ErrorKind::Retry),
            (Fault::Stale, ErrorKind::Retry),
            (Fault::Partition, ErrorKind::Retry),
            (Fault::Credentials, ErrorKind::Unauthorized),
            (Fault::Setup, ErrorKind::Retry),
            (Fault::Record, ErrorKind::Reject),
        ] {
            let error = Failure::new(fault, "out of order").at("db:5432/app");
            assert_eq!(error.kind(), kind);
            assert_eq!(error.to_string(), "PostgreSQL at db:5432/app: out of order");
        }
    }
}
