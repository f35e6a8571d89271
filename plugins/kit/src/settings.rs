//! Values of `[plugin.config]` as operators write them. Each type brings its own JSON Schema, which the gateway checks
//! before the plugin is made.

use std::{borrow::Cow, fmt, fs, path::Path, time::Duration};

use plugin_api::InitError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration with its unit: `"30s"`, `"250ms"`, `"1m 30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A whole number of seconds, for defaults.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl TryFrom<Cow<'_, str>> for HumanDuration {
    type Error = String;

    fn try_from(text: Cow<'_, str>) -> Result<Self, String> {
        humantime::parse_duration(text.trim())
            .map(Self)
            .map_err(|_| format!("`{text}` is no duration: write a number with a unit, such as \"30s\""))
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        humantime::format_duration(duration.0).to_string()
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
        json_schema!({ "type": "string", "format": "human-duration", "x-max": "365days" })
    }
}

/// A number of bytes with its unit: `"1 MiB"`, `"500 kB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// A whole number of mebibytes, for defaults.
    #[must_use]
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// The size as memory counts it; what does not fit is the largest that does.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl TryFrom<Cow<'_, str>> for ByteSize {
    type Error = String;

    fn try_from(text: Cow<'_, str>) -> Result<Self, String> {
        let has_unit = text.contains(|c: char| c.is_ascii_alphabetic());
        let size = text.trim().parse::<bytesize::ByteSize>().ok().filter(|_| has_unit);
        size.map(|size| Self(size.as_u64()))
            .ok_or_else(|| format!("`{text}` is no size: write a number with a unit, such as \"1 MiB\""))
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        match size.0 {
            bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
            bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
            bytes => format!("{bytes} B"),
        }
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
        json_schema!({ "type": "string", "format": "byte-size" })
    }
}

/// A value that is never shown: not in `Debug`, not by the gateway (the schema says `x-secret`).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret that stands in the settings or in the file that they name, without the white space around it;
    /// `None` when there is neither, or it is empty. `key` and `file_key` are the settings' names, for the error.
    ///
    /// # Errors
    /// When both are set, or the file cannot be read.
    pub fn from_settings(
        (key, inline): (&str, Option<&Self>),
        (file_key, file): (&str, Option<&Path>),
    ) -> Result<Option<Self>, InitError> {
        let inline = inline.filter(|secret| !secret.0.trim().is_empty());
        let text = match (inline, file) {
            (Some(_), Some(_)) => {
                return Err(InitError::invalid_config(format!(
                    "{key} and {file_key} are both set; keep one"
                )));
            }
            (Some(inline), None) => inline.0.clone(),
            (None, Some(file)) => fs::read_to_string(file).map_err(|error| {
                InitError::invalid_config(format!("{file_key}: cannot read {}: {error}", file.display()))
            })?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self(text.trim().to_owned())).filter(|secret| !secret.0.is_empty()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-secret": true })
    }
}

/// The name of this machine: the one that the operator gives it, else its own. `None` when it is blank, which is how an
/// operator says that there is to be none.
#[must_use]
pub fn hostname(given: Option<&str>) -> Option<String> {
    let own = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = given.map(str::to_owned).or_else(own)?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_they_are_written() {
        for text in ["30s", "1m 30s", "250ms", "0s"] {
            let duration: HumanDuration = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(duration).unwrap(), text);
        }
        for (text, written, bytes) in
            [("5 MiB", "5 MiB", 5 << 20), ("1.5 KiB", "1536 B", 1536), ("1 MB", "1000000 B", 1_000_000)]
        {
            let size: ByteSize = serde_json::from_value(text.into()).unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(serde_json::to_value(size).unwrap(), written);
        }
    }

    #[test]
    fn a_value_without_a_unit_is_refused_with_an_example() {
        let duration = serde_json::from_value::<HumanDuration>("30".into()).unwrap_err().to_string();
        assert!(duration.contains("such as \"30s\""), "{duration}");
        let size = serde_json::from_value::<ByteSize>("100".into()).unwrap_err().to_string();
        assert!(size.contains("such as \"1 MiB\""), "{size}");
    }

    #[test]
    fn a_secret_shows_nowhere() {
        let secret: Secret = serde_json::from_value("hunter2".into()).unwrap();
        assert_eq!((format!("{secret:?}"), secret.expose()), ("***".to_owned(), "hunter2"));
        assert_eq!(schemars::schema_for!(Secret).get("x-secret"), Some(&true.into()));
    }

    #[test]
    fn a_secret_comes_from_the_settings_or_from_a_file_and_not_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "from file\n").unwrap();
        let inline = Secret::new("inline");
        let read = |inline: Option<&Secret>, file: Option<&Path>| {
            Secret::from_settings(("api_key", inline), ("api_key_file", file)).map_err(|e| e.to_string())
        };
        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some(&Secret::new(" ")), None), Ok(None));
        assert_eq!(read(Some(&inline), None), Ok(Some(inline.clone())));
        assert_eq!(read(None, Some(&path)), Ok(Some(Secret::new("from file"))));
        assert_eq!(
            read(Some(&inline), Some(&path)).unwrap_err(),
            "api_key and api_key_file are both set; keep one"
        );
        let missing = read(None, Some(Path::new("/no/such/file"))).unwrap_err();
        assert!(missing.starts_with("api_key_file: cannot read /no/such/file: "), "{missing}");
    }
    #[test]
    fn a_machine_has_the_name_that_it_is_given_or_its_own() {
        for (given, expected) in [(" web-1\n", Some("web-1")), ("", None), (" ", None)] {
            assert_eq!(hostname(Some(given)).as_deref(), expected, "{given:?}");
        }
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(hostname(None).as_deref(), Some(own.trim_end()));
    }
}
