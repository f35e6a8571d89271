//! Values with a unit, as people write them: `"30s"`, `"20 MiB"`, `"127.0.0.1:3000"`.
//!
//! Each is a type for `#[serde(with = "…")]` or for the field itself, and names a JSON Schema `format`. The
//! parser here is the only judge of a format: the schema check calls it too.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The schema format of durations.
pub(crate) const DURATION: &str = "human-duration";
/// The schema format of sizes.
pub(crate) const BYTE_SIZE: &str = "byte-size";
/// The schema format of addresses to listen on.
pub(crate) const LISTEN_ADDRESS: &str = "listen-address";
/// The schema format of a provider's base URL.
pub(crate) const HTTP_URL: &str = "http-base-url";

/// A text that does not follow its format. It carries no part of the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit; the author of the config forgot it.
    #[error("a unit is missing")]
    NoUnit,
    /// A unit that does not exist, or no number before it.
    #[error("not a number with a known unit")]
    Malformed,
    /// The number does not fit.
    #[error("too large")]
    TooLarge,
}

/// Reads `"30s"`, `"1m 30s"`, `"250ms"`. A number alone is refused, except a plain zero with a unit (`"0s"`).
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if is_bare_number(text) {
        return Err(UnitError::NoUnit);
    }
    humantime::parse_duration(text.trim()).map_err(|error| match error {
        humantime::DurationError::NumberOverflow => UnitError::TooLarge,
        _ => UnitError::Malformed,
    })
}

/// Writes a duration as [`parse_duration`] reads it.
pub(crate) fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Reads an address to listen on; `localhost` stands for 127.0.0.1.
pub(crate) fn parse_listen_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// True for `http://host[:port][/path]` and `https://…` without user, query or fragment.
pub(crate) fn is_http_base_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let scheme_fits = matches!(uri.scheme_str(), Some("http" | "https"));
    // `http::Uri` drops a fragment without a word.
    let plain = uri.query().is_none() && !text.contains('#');
    let authority_fits = uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
    scheme_fits && plain && authority_fits
}

fn is_bare_number(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+'))
}

/// For `#[serde(with = "HumanDuration")]` on a [`Duration`]: `"30s"`.
#[derive(Debug)]
pub(crate) struct HumanDuration;

impl HumanDuration {
    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&Cow::<'de, str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for HumanDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A year is more than any wait needs, and far from where adding to a clock overflows.
        json_schema!({ "type": "string", "format": DURATION, "x-max": "365days" })
    }
}

/// As [`HumanDuration`], for an optional key.
#[derive(Debug)]
pub(crate) struct OptionalHumanDuration;

impl OptionalHumanDuration {
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(format_duration).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
        text.map(|text| parse_duration(&text)).transpose().map_err(D::Error::custom)
    }
}

impl JsonSchema for OptionalHumanDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        HumanDuration::json_schema(generator)
    }
}

/// For `#[serde(with = "ListenAddress")]` on a [`SocketAddr`]: `"127.0.0.1:3000"`.
#[derive(Debug)]
pub(crate) struct ListenAddress;

impl ListenAddress {
    pub(crate) fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        parse_listen_address(&text).ok_or_else(|| D::Error::custom("not an address with a port"))
    }
}

impl JsonSchema for ListenAddress {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ListenAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": LISTEN_ADDRESS })
    }
}

/// A number of bytes, written with its unit: `"64 KiB"`, `"20 MB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Units by falling size, each with the spelling used for output first. `MB` is 10^6, `MiB` is 2^20.
const SIZE_UNITS: [(&str, u64); 9] = [
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
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB (1,024 bytes).
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many MiB (1,024 KiB).
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes, for lengths in memory; a size no machine has becomes the largest there is.
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
        let (_, factor) = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or(UnitError::Malformed)?;
        scale(&number.trim().replace('_', ""), *factor).map(Self)
    }
}

/// `"1.5"` times 1,048,576. Whole numbers are exact; a fraction is cut to whole bytes.
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
    /// The largest unit that divides the size, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        let (unit, factor) = SIZE_UNITS.iter().find(divides).unwrap_or(&("B", 1));
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
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
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
        json_schema!({ "type": "string", "format": BYTE_SIZE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, expected) in [
            ("30s", Ok(Duration::from_secs(30))),
            (" 1m 30s ", Ok(Duration::from_secs(90))),
            ("250ms", Ok(Duration::from_millis(250))),
            ("0s", Ok(Duration::ZERO)),
            ("30", Err(UnitError::NoUnit)),
            ("1.5", Err(UnitError::NoUnit)),
            ("-30", Err(UnitError::NoUnit)),
            ("", Err(UnitError::Malformed)),
            ("s", Err(UnitError::Malformed)),
            ("30 parsecs", Err(UnitError::Malformed)),
            ("99999999999999999999999s", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit_and_are_exact() {
        for (text, expected) in [
            ("20 MiB", Ok(20 << 20)),
            ("20mib", Ok(20 << 20)),
            ("5 MB", Ok(5_000_000)),
            ("1.5 KiB", Ok(1536)),
            ("10_000 B", Ok(10_000)),
            ("0 B", Ok(0)),
            ("1048576", Err(UnitError::NoUnit)),
            ("", Err(UnitError::Malformed)),
            ("MiB", Err(UnitError::Malformed)),
            ("-1 MiB", Err(UnitError::Malformed)),
            ("1.2.3 MiB", Err(UnitError::Malformed)),
            ("5 megs", Err(UnitError::Malformed)),
            ("99999999999 TiB", Err(UnitError::TooLarge)),
            ("99999999999999999999999 B", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::bytes), expected, "{text}");
        }
    }

    #[test]
    fn a_size_is_written_as_it_would_be_read() {
        for (size, expected) in [
            (ByteSize::mib(20), "20 MiB"),
            (ByteSize::kib(64), "64 KiB"),
            (ByteSize::new(5_000_000), "5 MB"),
            (ByteSize::new(1537), "1537 B"),
            (ByteSize::new(0), "0 B"),
        ] {
            assert_eq!(size.to_string(), expected);
            assert_eq!(expected.parse(), Ok(size));
        }
    }

    #[test]
    fn addresses_and_urls() {
        for (text, expected) in [
            ("127.0.0.1:3000", Some("127.0.0.1:3000")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost", None),
            (":3000", None),
            ("example.org:3000", None),
        ] {
            assert_eq!(parse_listen_address(text).map(|a| a.to_string()).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("https://api.openai.com", true),
            ("http://127.0.0.1:8000/v1", true),
            ("http://[::1]:8000/", true),
            ("api.openai.com", false),
            ("ftp://host", false),
            ("https://user:pass@host", false),
            ("https://host/?a=b", false),
            ("https://host/#x", false),
            ("https://", false),
        ] {
            assert_eq!(is_http_base_url(text), expected, "{text}");
        }
    }
}
