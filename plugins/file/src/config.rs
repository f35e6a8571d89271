//! The settings: `[plugin.config]`.

use std::time::Duration;

use plugin_api::InitError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setting_values::{ByteSize, HumanDuration};

use crate::{pattern::Pattern, rotation::Keeping};

/// Settings of the file exporter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that lines are appended to. Missing directories are created. With `{date}`, `{hour}` (of the record, in
    /// UTC), `{org_id}`, `{project_id}`, `{user_id}`, `{provider}` or `{model}` (as it was asked for) in it there is a file
    /// for each value: `"/var/log/magicapi/{date}/{org_id}.jsonl"`. A value that the record lacks is `_`.
    #[schemars(extend("x-env" = "FILE_EXPORTER_PATH"))]
    pub path: String,
    /// The file is rotated before it would grow beyond this size, for instance `"100 MiB"`. `"0 B"`: never by size. A
    /// batch is never split, so one that is larger has a file of its own.
    #[serde(default = "default_max_bytes")]
    #[schemars(extend("x-env" = "FILE_EXPORTER_MAX_BYTES"))]
    pub max_bytes: ByteSize,
    /// The file is rotated by the first batch after this time, for instance `"24h"`. `"0s"`: never by age.
    #[serde(default)]
    #[schemars(extend("x-env" = "FILE_EXPORTER_MAX_AGE"))]
    pub max_age: HumanDuration,
    /// Number of rotated files that are kept of each file; older ones are deleted. 0: all are kept.
    #[serde(default = "default_keep")]
    #[schemars(extend("x-env" = "FILE_EXPORTER_KEEP"))]
    pub keep: u32,
    /// All files together are kept below this size, rotated ones, those of other days and of other values included: the
    /// oldest are deleted. At least `max_bytes`. Files that are open for writing are never deleted. `"0 B"`: no limit.
    #[serde(default)]
    #[schemars(extend("x-env" = "FILE_EXPORTER_MAX_TOTAL_BYTES"))]
    pub max_total_bytes: ByteSize,
    /// With values in `path`: so many files are open at once; the one that was not written to for longest is closed.
    #[serde(default = "default_max_open_files")]
    #[schemars(range(min = 1, max = 1000), extend("x-env" = "FILE_EXPORTER_MAX_OPEN_FILES"))]
    pub max_open_files: usize,
    /// Whether rotated files are compressed, in the background.
    #[serde(default)]
    #[schemars(extend("x-env" = "FILE_EXPORTER_COMPRESS"))]
    pub compress: bool,
    /// How they are compressed: `"gzip"`, or `"zstd"`, which is quicker and smaller.
    #[serde(default)]
    #[schemars(extend("x-env" = "FILE_EXPORTER_COMPRESSION"))]
    pub compression: Compression,
    /// When lines are forced to the disk. `"never"`: the system decides; safe against a crash of the gateway, not of
    /// the machine. `"batch"`: before a batch counts as delivered. `"interval:1s"`: in the background, so often.
    #[serde(default)]
    #[schemars(with = "String", extend("x-env" = "FILE_EXPORTER_FSYNC"))]
    pub fsync: Fsync,
    /// Permissions of new files, octal. Records hold prompts and answers: the default lets only the owner read.
    #[serde(default)]
    #[schemars(with = "String", extend("x-env" = "FILE_EXPORTER_MODE", "pattern" = "^0?[0-7]{3}$"))]
    pub mode: Mode,
}

fn default_max_bytes() -> ByteSize {
    ByteSize::mib(100)
}

fn default_keep() -> u32 {
    10
}

fn default_max_open_files() -> usize {
    64
}

/// How rotated files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// `.gz`
    #[default]
    Gzip,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// Endings of all.
    pub const ENDINGS: [&str; 2] = [Self::Gzip.ending(), Self::Zstd.ending()];

    /// Ending of a compressed file.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

impl Config {
    /// What is done with rotated files.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        Keeping { keep: self.keep, compress: self.compress.then_some(self.compression), mode: self.mode.0 }
    }

    /// Where lines go.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn pattern(&self) -> Result<Pattern, InitError> {
        let (total, one) = (self.max_total_bytes.bytes(), self.max_bytes.bytes());
        if total > 0 && (one == 0 || total < one) {
            return Err(InitError::invalid_config(
                "max_total_bytes is less than max_bytes, the size of one file; files that are written to are never \
                 deleted, so lower max_bytes or raise max_total_bytes",
            ));
        }
        Pattern::parse(&self.path)
            .map_err(|why| InitError::invalid_config(format!("path: `{}` {why}", self.path)))
    }
}

/// When lines are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Fsync {
    /// When the system sees fit.
    #[default]
    Never,
    /// Before a batch counts as delivered.
    Batch,
    /// So long after a batch at the latest.
    Interval(Duration),
}

impl TryFrom<String> for Fsync {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (&*text, text.strip_prefix("interval:")) {
            ("never", _) => Ok(Self::Never),
            ("batch", _) => Ok(Self::Batch),
            (_, Some(interval)) => match interval.parse() {
                Ok(HumanDuration(interval)) if !interval.is_zero() => Ok(Self::Interval(interval)),
                _ => Err("`interval:` needs a duration above 0, such as \"interval:1s\"".to_owned()),
            },
            _ => Err(format!("`{text}` is no fsync policy: write \"never\", \"batch\" or \"interval:1s\"")),
        }
    }
}

impl From<Fsync> for String {
    fn from(fsync: Fsync) -> Self {
        match fsync {
            Fsync::Never => "never".to_owned(),
            Fsync::Batch => "batch".to_owned(),
            Fsync::Interval(interval) => format!("interval:{}", HumanDuration(interval)),
        }
    }
}

/// Permissions of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(&text);
        let mode = u32::from_str_radix(digits, 8).ok().filter(|_| digits.len() == 3);
        match mode {
            // The exporter reads its own file back when it starts.
            Some(mode) if mode & 0o600 == 0o600 => Ok(Self(mode)),
            Some(_) => {
                Err(format!("mode `{text}` would lock the gateway out: the owner needs read and write"))
            }
            None => Err(format!("`{text}` is no file mode: write octal permissions, such as \"0600\"")),
        }
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        format!("{:04o}", mode.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &str) -> Result<Config, String> {
        serde_json::from_str(settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_is_enough() {
        let config = read(r#"{"path":"a.jsonl"}"#).unwrap();
        let written = serde_json::to_value(&config).unwrap();
        let expected = serde_json::json!({
            "path": "a.jsonl", "max_bytes": "100 MiB", "max_age": "0s", "keep": 10, "max_total_bytes": "0 B",
            "max_open_files": 64, "compress": false, "compression": "gzip", "fsync": "never", "mode": "0600",
        });
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_value::<Config>(written).unwrap(), config);
    }

    #[test]
    fn values_have_units() {
        let config = read(
            r#"{"path":"a","max_bytes":"1.5 KiB","max_age":"1h 30m","fsync":"interval:250ms","mode":"640"}"#,
        )
        .unwrap();
        assert_eq!(config.max_bytes, ByteSize::new(1536));
        assert_eq!(config.max_age, HumanDuration::seconds(5400));
        assert_eq!(config.fsync, Fsync::Interval(Duration::from_millis(250)));
        assert_eq!(config.mode, Mode(0o640));
    }

    #[test]
    fn a_wrong_value_is_refused_with_an_example() {
        for (settings, expected) in [
            (r"{}", "missing field `path`"),
            (r#"{"path":"a","max_bytes":"100"}"#, "the unit is missing"),
            (r#"{"path":"a","max_bytes":"100 parsecs"}"#, "such as \"20 MiB\""),
            (r#"{"path":"a","max_age":"7"}"#, "such as \"30s\": the unit is missing"),
            (r#"{"path":"a","compression":"xz"}"#, "`gzip` or `zstd`"),
            (r#"{"path":"a","fsync":"always"}"#, "\"never\", \"batch\" or \"interval:1s\""),
            (r#"{"path":"a","fsync":"interval:0s"}"#, "above 0"),
            (r#"{"path":"a","mode":"rw"}"#, "such as \"0600\""),
            (r#"{"path":"a","mode":"4755"}"#, "is no file mode"),
            (r#"{"path":"a","mode":"0044"}"#, "lock the gateway out"),
            (r#"{"path":"a","maxbytes":"1 B"}"#, "unknown field `maxbytes`"),
        ] {
            let error = read(settings).unwrap_err();
            assert!(error.contains(expected), "{settings}: {error}");
        }
    }
}
