//! Names of the files of one `dead_letter`: `x.jsonl` becomes `x-20250305T160320.123Z.jsonl`. Only files with exactly
//! such names are ever deleted.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::SystemTime,
};

const STAMP: &str = "00000000T000000.000Z";

/// The name that `path` gets when it is rotated at `now`.
pub(super) fn rotated(path: &Path, now: SystemTime) -> PathBuf {
    let stamp = humantime::format_rfc3339_millis(now).to_string().replace(['-', ':'], "");
    path.with_file_name(format!("{}-{stamp}{}", stem(path), extension(path)))
}

/// The file that a rotated or compressed one belongs to; any other file is its own.
pub(crate) fn family(path: &Path) -> PathBuf {
    let name = text(path.file_name());
    let plain = path.with_file_name(name.strip_suffix(".gz").unwrap_or(&name));
    let stem = stem(&plain);
    match stem.len().checked_sub(STAMP.len() + 1).and_then(|at| stem.split_at_checked(at)) {
        Some((before, after)) if !before.is_empty() && after.strip_prefix('-').is_some_and(is_stamp) => {
            plain.with_file_name(format!("{before}{}", extension(&plain)))
        }
        _ => plain,
    }
}

/// Files in the folder of `path` that belong to it, the oldest first, `path` itself last.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn members(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let file = path.with_file_name(entry?.file_name());
        if file != path && family(&file) == path {
            files.push(file);
        }
    }
    files.sort_unstable();
    if path.exists() {
        files.push(path.to_owned());
    }
    Ok(files)
}

fn is_stamp(text: &str) -> bool {
    text.len() == STAMP.len()
        && text.bytes().zip(STAMP.bytes()).all(|(byte, expected)| match expected {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

fn stem(path: &Path) -> String {
    text(path.file_stem())
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default()
}

fn text(part: Option<&OsStr>) -> String {
    part.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rotated_file_carries_the_time_and_knows_where_it_came_from() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_741_190_600_123);
        for (path, expected) in [
            ("d/x.jsonl", "d/x-20250305T160320.123Z.jsonl"),
            ("x", "x-20250305T160320.123Z"),
            ("d.d/a-b.c.jsonl", "d.d/a-b.c-20250305T160320.123Z.jsonl"),
        ] {
            let rotated = rotated(Path::new(path), now);
            assert_eq!(rotated, Path::new(expected));
            if Path::new(path).extension().is_some() {
                assert_eq!(family(&rotated), Path::new(path));
                let compressed = format!("{}.gz", rotated.display());
                assert_eq!(family(Path::new(&compressed)), Path::new(path));
            }
        }
    }

    #[test]
    fn a_file_that_only_looks_similar_is_its_own() {
        for path in
            ["x.jsonl", "x-1.jsonl", "-20250305T160320.123Z.jsonl", "x-20250305T160320.123.jsonl", "ü.jsonl"]
        {
            assert_eq!(family(Path::new(path)), Path::new(path));
        }
        assert_eq!(family(Path::new("x.jsonl.gz")), Path::new("x.jsonl"));
    }
}
