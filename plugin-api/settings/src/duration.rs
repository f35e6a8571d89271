//! Durations.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::unit::{UnitError, is_bare_number};

/// A duration with its unit: `"30s"`, `"250ms"`, `"1m 30s"`.
///
/// It is the type of a field, or `#[serde(with = "HumanDuration")]` on one that is a [`Duration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// The `format` of its JSON Schema.
    pub const FORMAT: &str = "human-duration";
    /// What a wrong text is told to be instead.
    pub const EXPECTED: &str = "a duration with a unit such as \"30s\"";

    /// A whole number of seconds, for defaults.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// For `#[serde(with = "HumanDuration")]`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Self(*duration))
    }

    /// For `#[serde(with = "HumanDuration")]`.
    ///
    /// # Errors
    /// When there is no text, or it is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        <Self as Deserialize>::deserialize(deserializer).map(|duration| duration.0)
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if is_bare_number(text) {
            return Err(UnitError::NoUnit);
        }
        humantime::parse_duration(text.trim()).map(Self).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => UnitError::TooLarge,
            _ => UnitError::Malformed,
        })
    }
}

impl fmt::Display for HumanDuration {
    /// As it would be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("expected {}: {error}", Self::EXPECTED)))
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
        json_schema!({ "type": "string", "format": Self::FORMAT, "x-max": "365days" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            assert_eq!(text.parse().map(|HumanDuration(duration)| duration), expected, "{text}");
        }
    }

    #[test]
    fn a_field_is_a_human_duration_or_is_read_with_it() {
        #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        struct Waits {
            own: HumanDuration,
            #[serde(with = "HumanDuration")]
            with: Duration,
            optional: Option<HumanDuration>,
        }
        let waits =
            Waits { own: HumanDuration::seconds(90), with: Duration::from_millis(250), optional: None };
        let written = serde_json::json!({ "own": "1m 30s", "with": "250ms", "optional": null });
        assert_eq!(serde_json::to_value(&waits).unwrap(), written);
        assert_eq!(serde_json::from_value::<Waits>(written).unwrap(), waits);
        let schema = schemars::schema_for!(Waits).to_value();
        assert_eq!(schema["properties"]["own"], schema["properties"]["with"]);
    }

    #[test]
    fn a_refusal_says_what_is_expected_and_not_what_was_found() {
        let refused = serde_json::from_value::<HumanDuration>("hunter2".into()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "expected a duration with a unit such as \"30s\": not a number with a known unit"
        );
    }

    proptest! {
        #[test]
        fn a_duration_is_written_as_it_would_be_read(milliseconds in any::<u32>()) {
            let duration = HumanDuration(Duration::from_millis(milliseconds.into()));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
