//! Money that does not drift.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An amount in US dollars, exact to 10⁻¹² dollars (a token of the cheapest model costs about 10⁻⁸).
///
/// It is written as a plain JSON number, for instance `0.0456`, and read from its text, never through a float.
/// Range: about ±9.2 million dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd {
    picodollars: i64,
}

/// Decimal places that a [`Usd`] holds.
const PLACES: usize = 12;

impl Usd {
    /// An amount of `picodollars` × 10⁻¹² US dollars.
    #[must_use]
    pub const fn from_picodollars(picodollars: i64) -> Self {
        Self { picodollars }
    }

    /// The amount in units of 10⁻¹² US dollars.
    #[must_use]
    pub const fn picodollars(self) -> i64 {
        self.picodollars
    }

    /// The amount as a float, for backends that know nothing else.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a float is what the caller asked for")]
    pub fn as_f64(self) -> f64 {
        self.picodollars as f64 / 1e12
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.picodollars < 0 { "-" } else { "" };
        let digits = format!("{:0width$}", self.picodollars.unsigned_abs(), width = PLACES + 1);
        let (whole, fraction) = digits.split_at(digits.len() - PLACES);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

/// The text is not a decimal number that fits a [`Usd`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidUsd(String);

impl fmt::Display for InvalidUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an amount in dollars with at most {PLACES} decimal places", self.0)
    }
}

impl std::error::Error for InvalidUsd {}

impl FromStr for Usd {
    type Err = InvalidUsd;

    fn from_str(text: &str) -> Result<Self, InvalidUsd> {
        parse(text).map(Self::from_picodollars).ok_or_else(|| InvalidUsd(text.to_owned()))
    }
}

/// Decimal text, with an optional exponent (`4.56e-2` is how some writers put small numbers), to picodollars.
fn parse(text: &str) -> Option<i64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty()
        || mantissa.ends_with('.')
        || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(PLACES).ok()?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let shift = places.checked_add(exponent)?;
    let scaled = match u32::try_from(shift) {
        Ok(up) => value.checked_mul(10i128.checked_pow(up)?)?,
        Err(_) if value == 0 => 0,
        Err(_) => return None,
    };
    i64::try_from(if negative { -scaled } else { scaled }).ok()
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        raw.get().parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_reads_and_writes_as_the_same_decimal() {
        for (text, picodollars) in [
            ("0", 0),
            ("1", 1_000_000_000_000),
            ("0.0456", 45_600_000_000),
            ("0.000000000001", 1),
            ("-2.5", -2_500_000_000_000),
            ("9223372.036854775807", i64::MAX),
        ] {
            let amount: Usd = text.parse().unwrap();
            assert_eq!(amount.picodollars(), picodollars, "{text}");
            assert_eq!(serde_json::to_string(&amount).unwrap(), text);
            assert_eq!(serde_json::from_str::<Usd>(text).unwrap(), amount);
        }
        assert_eq!("4.56e-2".parse::<Usd>().unwrap().to_string(), "0.0456");
        assert_eq!("1.500".parse::<Usd>().unwrap().to_string(), "1.5");
    }

    #[test]
    fn what_is_no_exact_amount_is_refused() {
        for text in ["", ".5", "1.", "x", "1,5", "\"1\"", "0.0000000000001", "99999999999", "--1", "1e-40"] {
            let read = text.parse::<Usd>();
            assert!(read.is_err(), "{text} gave {read:?}");
        }
    }

    #[test]
    fn a_thousand_small_amounts_add_up_exactly() {
        let price: Usd = "0.1".parse().unwrap();
        let sum: i64 = (0..1000).map(|_| price.picodollars()).sum();
        assert_eq!(Usd::from_picodollars(sum).to_string(), "100");
    }
}
