//! What can be wrong with a value and its unit.

use std::{error::Error, fmt};

/// A text that is no number with a unit. It carries no part of the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitError {
    /// A number alone; the author of the settings forgot its unit.
    NoUnit,
    /// A unit that does not exist, or no number before it.
    Malformed,
    /// The number does not fit.
    TooLarge,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUnit => "the unit is missing",
            Self::Malformed => "not a number with a known unit",
            Self::TooLarge => "too large",
        })
    }
}

impl Error for UnitError {}

/// True for what looks like a number whose unit was forgotten.
pub(crate) fn is_bare_number(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+'))
}
