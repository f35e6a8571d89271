//! The settings: `[plugin.config]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the console exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `text`: one readable line per request. `json`: the OpenTelemetry log form with the bodies, one object per line.
    #[schemars(extend("x-env" = "CONSOLE_EXPORTER_FORMAT"))]
    pub format: Format,
    /// Where the lines go: `stdout` or `stderr`.
    #[schemars(extend("x-env" = "CONSOLE_EXPORTER_STREAM"))]
    pub stream: Stream,
    /// `auto`: colours when the stream is a terminal, `NO_COLOR` is unset and `TERM` is not `dumb`. `always`, `never`.
    #[schemars(extend("x-env" = "CONSOLE_EXPORTER_COLOR"))]
    pub color: Color,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// One of the gateway's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// When lines are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// The decision, from the stream and the environment. See <https://no-color.org>.
    pub fn is_on(self, terminal: bool, variable: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
                terminal && !refused && variable("TERM").is_none_or(|value| value != "dumb")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_terminal_and_its_owners_wish() {
        for (color, terminal, variables, expected) in [
            (Color::Auto, true, vec![], true),
            (Color::Auto, true, vec![("NO_COLOR", "")], true),
            (Color::Auto, true, vec![("NO_COLOR", "1")], false),
            (Color::Auto, true, vec![("TERM", "dumb")], false),
            (Color::Auto, false, vec![], false),
            (Color::Always, false, vec![("NO_COLOR", "1")], true),
            (Color::Never, true, vec![], false),
        ] {
            let lookup = |name: &str| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(color.is_on(terminal, lookup), expected, "{color:?} {terminal} {variables:?}");
        }
    }
}
