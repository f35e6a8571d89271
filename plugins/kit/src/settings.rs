//! Values of `[plugin.config]` as operators write them: those of [`setting_values`], and what exporters make of them.

use std::{fs, io, path::Path};

use plugin_api::InitError;
use setting_values::regular_file;

pub use setting_values::{ByteSize, HumanDuration, Secret, can_be_hidden};

/// No secret and no certificate is larger.
const LARGEST_FILE: u64 = 1 << 20;

/// Reads a file that a setting names: a regular one of at most 1 MiB.
///
/// # Errors
/// As [`regular_file::read_text`].
pub fn read_file(path: &Path) -> io::Result<String> {
    regular_file::read_text(path, LARGEST_FILE)
}

/// The secret that stands in the settings or in the file that they name, without the white space around it; `None`
/// when there is neither, or it is empty. `key` and `file_key` are the settings' names, for the error.
///
/// # Errors
/// When both are set, or the file cannot be read.
pub fn secret(
    (key, inline): (&str, Option<&Secret>),
    (file_key, file): (&str, Option<&Path>),
) -> Result<Option<Secret>, InitError> {
    let inline = inline.map(|secret| secret.expose().trim()).filter(|text| !text.is_empty());
    let text = match (inline, file) {
        (Some(_), Some(_)) => {
            return Err(InitError::invalid_config(format!("{key} and {file_key} are both set; keep one")));
        }
        (Some(inline), None) => inline.to_owned(),
        (None, Some(file)) => read_file(file).map_err(|error| {
            InitError::invalid_config(format!("{file_key}: cannot read {}: {error}", file.display()))
        })?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Secret::new(text.trim())).filter(|secret| !secret.is_empty()))
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
    fn a_secret_comes_from_the_settings_or_from_a_file_and_not_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "from file\n").unwrap();
        let inline = Secret::new("inline");
        let read = |inline: Option<&Secret>, file: Option<&Path>| {
            secret(("api_key", inline), ("api_key_file", file)).map_err(|e| e.to_string())
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
