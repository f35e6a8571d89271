//! What is wrong with a configuration: where, what, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use super::pointer;

/// One mistake, as it is shown to the user. It never carries a secret's text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The configuration file; none when the value comes from the environment or the command line.
    pub file: Option<PathBuf>,
    /// The line in that file, from 1.
    pub line: Option<usize>,
    /// The column, from 1; only for text that is not TOML.
    pub column: Option<usize>,
    /// The key, `server.max_connections` or `plugin "NAME": queue.max_records`, or the environment variable.
    pub key: String,
    /// What was expected, and what was found.
    pub message: String,
    /// What to do; empty when the message says it all.
    pub cure: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            for number in [self.line, self.column].into_iter().flatten() {
                write!(f, "{number}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, "; {}", self.cure) }
    }
}

/// What sort of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// A key that the schema does not have.
    UnknownKey,
    /// A key that must be there and is not.
    Missing,
    /// A value that does not fit.
    Value,
}

/// One mistake inside a JSON value, found against a schema or by a rule; the file is not known here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaProblem {
    /// JSON pointer of the value, or of the key that is missing.
    pub pointer: String,
    /// What sort of mistake it is.
    pub kind: Mistake,
    /// What was expected, and what was found. Secrets are left out.
    pub message: String,
    /// What to do; empty when the message says it all.
    pub cure: String,
}

impl SchemaProblem {
    /// A value at `pointer` that does not fit.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>, cure: impl Into<String>) -> Self {
        let (pointer, message, cure) = (pointer.into(), message.into(), cure.into());
        Self { pointer, kind: Mistake::Value, message, cure }
    }

    /// The same with another kind of mistake.
    #[must_use]
    pub fn of_kind(self, kind: Mistake) -> Self {
        Self { kind, ..self }
    }

    /// The key as people write it: `routes[0].url`.
    pub fn key(&self) -> String {
        pointer::dotted(&self.pointer)
    }
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, cure, .. } = self;
        let (key, colon) = (self.key(), if self.pointer.is_empty() { "" } else { ": " });
        let semicolon = if cure.is_empty() { "" } else { "; " };
        write!(f, "{key}{colon}{message}{semicolon}{cure}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compiler_message() {
        let full = Problem {
            file: Some("gateway.toml".into()),
            line: Some(3),
            column: None,
            key: "server.lisen".into(),
            message: "unknown key".into(),
            cure: "did you mean \"listen\"?".into(),
        };
        let from_environment = Problem { file: None, line: None, key: "PORT".into(), ..full.clone() };
        let syntax = Problem { column: Some(7), key: String::new(), cure: String::new(), ..full.clone() };
        for (problem, expected) in [
            (full, "gateway.toml:3: server.lisen: unknown key; did you mean \"listen\"?"),
            (from_environment, "PORT: unknown key; did you mean \"listen\"?"),
            (syntax, "gateway.toml:3:7: unknown key"),
        ] {
            assert_eq!(problem.to_string(), expected);
        }
    }

    #[test]
    fn a_schema_problem_names_its_key() {
        let at_key = SchemaProblem::new("/routes/0/url", "missing", "");
        assert_eq!(at_key.to_string(), "routes[0].url: missing");
        assert_eq!(
            SchemaProblem::new("", "expected a table", "write one").to_string(),
            "expected a table; write one"
        );
    }
}
