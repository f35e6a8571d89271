//! Sizes.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::unit::{UnitError, is_bare_number};

/// A number of bytes with its unit: `"64 KiB"`, `"20 MB"`, `"1_000 B"`. `MB` is 10^6, `MiB` is 2^20.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(u64);

/// Units by falling size, each as it is written; read they are in any case.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// The `format` of its JSON Schema.
    pub const FORMAT: &str = "byte-size";
    /// What a wrong text is told to be instead.
    pub const EXPECTED: &str = "a size with a unit such as \"20 MiB\"";

    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB (1,024 bytes).
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many MiB (1,024 KiB).
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes, for lengths in memory; a size no machine has becomes the largest there is.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if is_bare_number(text) {
            return Err(UnitError::NoUnit);
        }
        let text = text.trim();
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(UnitError::Malformed)?;
        let (number, unit) = text.split_at(unit_at);
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, factor) = known.ok_or(UnitError::Malformed)?;
        scale(&number.trim().replace('_', ""), *factor).map(Self)
    }
}

/// `"1.5"` times 1,048,576. Whole numbers are exact, which a float would not be; a fraction is cut to whole bytes.
fn scale(number: &str, factor: u64) -> Result<u64, UnitError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(UnitError::Malformed);
    }
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge)?;
    let part: u128 = fraction.parse().map_err(|_| UnitError::Malformed)?;
    let part = part * u128::from(factor) / 10u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
    let part = u64::try_from(part).map_err(|_| UnitError::TooLarge)?;
    whole.checked_mul(factor).and_then(|bytes| bytes.checked_add(part)).ok_or(UnitError::TooLarge)
}

impl fmt::Display for ByteSize {
    /// In the largest unit that divides the size, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        let (unit, factor) = UNITS.iter().find(divides).unwrap_or(&("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("expected {}: {error}", Self::EXPECTED)))
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": Self::FORMAT })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_need_a_unit_and_are_exact() {
        for (text, expected) in [
            ("20 MiB", Ok(20 << 20)),
            ("20mib", Ok(20 << 20)),
            ("5 MB", Ok(5_000_000)),
            ("1.5 KiB", Ok(1536)),
            ("1_000 MiB", Ok(1_000 << 20)),
            ("9007199254740993 B", Ok(9_007_199_254_740_993)),
            ("0 B", Ok(0)),
            ("1048576", Err(UnitError::NoUnit)),
            ("", Err(UnitError::Malformed)),
            ("MiB", Err(UnitError::Malformed)),
            ("-1 MiB", Err(UnitError::Malformed)),
            ("1.2.3 MiB", Err(UnitError::Malformed)),
            ("5 M", Err(UnitError::Malformed)),
            ("5 megs", Err(UnitError::Malformed)),
            ("99999999999 TiB", Err(UnitError::TooLarge)),
            ("99999999999999999999999 B", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(text.parse().map(ByteSize::bytes), expected, "{text}");
        }
    }

    #[test]
    fn a_size_is_written_in_its_largest_whole_unit() {
        for (size, expected) in [
            (ByteSize::mib(20), "20 MiB"),
            (ByteSize::kib(64), "64 KiB"),
            (ByteSize::new(5_000_000), "5 MB"),
            (ByteSize::new(1537), "1537 B"),
            (ByteSize::new(0), "0 B"),
        ] {
            assert_eq!((size.to_string(), format!("{size:?}")), (expected.to_owned(), expected.to_owned()));
            assert_eq!(serde_json::to_value(size).unwrap(), expected);
        }
    }

    #[test]
    fn a_refusal_says_what_is_expected_and_not_what_was_found() {
        let refused = serde_json::from_value::<ByteSize>("100".into()).unwrap_err().to_string();
        assert_eq!(refused, "expected a size with a unit such as \"20 MiB\": the unit is missing");
    }

    proptest! {
        #[test]
        fn a_size_is_written_as_it_would_be_read(bytes in any::<u64>()) {
            let size = ByteSize::new(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
