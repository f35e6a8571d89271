//! Where a record's line goes: one path for all, or one that is made of the record's own values.
//!
//! Values are what clients say of themselves, so nothing of them but letters, digits, `-` and `_` gets into a path as it
//! is: no separator, no dot (and so no `..`, no hidden file, and nothing that looks like the stamp of a rotated file).

use std::{
    borrow::Cow,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use plugin_api::{Field, Fields};

/// A path with values in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

/// A value of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// `2025-03-05`, in UTC.
    Date,
    /// `16`, in UTC.
    Hour,
    Of(Field),
}

const VALUES: [(&str, Value); 7] = [
    ("date", Value::Date),
    ("hour", Value::Hour),
    ("org_id", Value::Of(Field::OrgId)),
    ("project_id", Value::Of(Field::ProjectId)),
    ("user_id", Value::Of(Field::UserId)),
    ("provider", Value::Of(Field::Provider)),
    ("model", Value::Of(Field::RequestModel)),
];

/// What stands for a value that the record lacks. No value is written so.
const NONE: &str = "_";

/// Longest name that a value is written as. A file's name has at most 255 bytes.
const LONGEST: usize = 64;

impl Pattern {
    /// Reads a path. Without braces it is one file.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let known = || VALUES.map(|(name, _)| format!("{{{name}}}")).join(", ");
            let (name, after) = after.split_once('}').ok_or("has a `{` without a `}`")?;
            let value = VALUES.iter().find(|(known, _)| *known == name);
            let (_, value) = value.ok_or_else(|| format!("has `{{{name}}}` in it; there are {}", known()))?;
            parts.extend([Part::Text(before.to_owned()), Part::Value(*value)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        let pattern = Self { parts };
        // An empty path, one that ends in `/`, and `..` at its end name no file.
        match pattern.sample().file_name() {
            Some(_) if !text.ends_with('/') => Ok(pattern),
            _ => Err("names no file".to_owned()),
        }
    }

    /// The one path, where there are no values in it.
    #[must_use]
    pub fn single(&self) -> Option<PathBuf> {
        let is_single = self.parts.iter().all(|part| matches!(part, Part::Text(_)));
        is_single.then(|| self.sample())
    }

    /// The path of a record with these fields.
    #[must_use]
    pub fn path(&self, fields: &Fields<'_>) -> PathBuf {
        let timestamp = fields.text(Field::Timestamp).unwrap_or_default();
        let digits = |from: usize, to: usize| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'-';
            timestamp.get(from..to).filter(|text| text.bytes().all(is_digit)).unwrap_or(NONE).to_owned()
        };
        self.filled(|value| match value {
            Value::Date => digits(0, 10).into(),
            Value::Hour => digits(11, 13).into(),
            Value::Of(field) => {
                fields.text(field).map_or(NONE.into(), |text| safe(&text).into_owned().into())
            }
        })
    }

    /// The folder that all paths are in.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let before = match self.parts.first() {
            Some(Part::Text(text)) => text.as_str(),
            _ => "",
        };
        match before.rsplit_once('/') {
            Some(("", _)) => "/".into(),
            Some((folder, _)) => folder.into(),
            None => ".".into(),
        }
    }

    /// Whether a record could have this path.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        path.to_str().is_some_and(|text| matches(&self.parts, text))
    }

    /// How many folders deep the files are, below [`root`](Self::root).
    #[must_use]
    pub fn depth(&self) -> usize {
        let components = |path: PathBuf| path.components().count();
        let root = self.root();
        let root = if root == Path::new(".") { 0 } else { components(root) };
        components(self.sample()).saturating_sub(root + 1)
    }

    fn sample(&self) -> PathBuf {
        self.filled(|_| NONE.into())
    }

    fn filled(&self, text: impl Fn(Value) -> Cow<'static, str>) -> PathBuf {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => Cow::Borrowed(text.as_str()),
            Part::Value(value) => text(*value),
        });
        parts.collect::<String>().into()
    }
}

/// A value as it stands in a path. Different values are different there, as far as one of more than [`LONGEST`] bytes
/// does not end in the same number as another.
fn safe(value: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if value.is_empty() {
        return NONE.into();
    }
    if value != NONE && value.len() <= LONGEST && value.bytes().all(is_plain) {
        return value.into();
    }
    let mut text = String::new();
    for byte in value.bytes() {
        // Writing to a string cannot fail.
        let _ = if is_plain(byte) && value != NONE {
            text.write_char(byte.into())
        } else {
            write!(text, "%{byte:02X}")
        };
    }
    if text.len() > LONGEST {
        text.truncate(LONGEST - 17);
        let _ = write!(text, "%{:016x}", fnv(value.as_bytes()));
    }
    text.into()
}

/// FNV-1a: the same in every release, since files are found again by it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn matches(parts: &[Part], text: &str) -> bool {
    match parts {
        [] => text.is_empty(),
        [Part::Text(start), rest @ ..] => {
            text.strip_prefix(start.as_str()).is_some_and(|text| matches(rest, text))
        }
        [Part::Value(_), rest @ ..] => {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'%');
            let longest = text.bytes().take_while(|byte| is_part(byte)).count();
            (1..=longest).rev().any(|end| matches(rest, &text[end..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(pattern: &str, record: &str) -> String {
        let fields = Fields::parse(record.as_bytes()).unwrap();
        let pattern = Pattern::parse(pattern).unwrap();
        let path = pattern.path(&fields);
        assert!(pattern.matches(&path), "{path:?}");
        path.to_str().unwrap().to_owned()
    }

    fn org(id: &str) -> String {
        path("logs/{org_id}.jsonl", &serde_json::json!({ "org_id": id }).to_string())
    }

    #[test]
    fn a_path_is_made_of_the_records_values() {
        let record = r#"{"timestamp":"2025-03-05T16:03:20.123Z","org_id":"org_1","provider":"openai","request_model":"gpt-4.1"}"#;
        for (pattern, expected) in [
            ("a.jsonl", "a.jsonl"),
            ("/var/log/{date}/{org_id}.jsonl", "/var/log/2025-03-05/org_1.jsonl"),
            ("{date}T{hour}.jsonl", "2025-03-05T16.jsonl"),
            ("x/{provider}-{model}-{user_id}", "x/openai-gpt-4%2E1-_"),
        ] {
            assert_eq!(path(pattern, record), expected);
        }
        assert_eq!(path("{date}/{hour}", r#"{"timestamp":"../../etc/passwd"}"#), "_/_");
        assert_eq!(path("{date}/{hour}", "{}"), "_/_");
    }

    #[test]
    fn no_value_leads_out_of_its_place() {
        for (id, expected) in [
            ("acme", "acme"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            (".hidden", "%2Ehidden"),
            ("a%2Fb", "a%252Fb"),
            ("", "_"),
            ("_", "%5F"),
            ("a\0b\n", "a%00b%0A"),
            ("é", "%C3%A9"),
            ("acme-20250305T160320.123Z", "acme-20250305T160320%2E123Z"),
        ] {
            assert_eq!(org(id), format!("logs/{expected}.jsonl"), "{id:?}");
        }
        let (one, other) = (org(&"a".repeat(300)), org(&"a".repeat(301)));
        assert!(one != other && one.len() == "logs/.jsonl".len() + LONGEST, "{one} {other}");
        assert_eq!(org(&"a".repeat(64)), format!("logs/{}.jsonl", "a".repeat(64)));
    }

    #[test]
    fn only_paths_of_the_pattern_match() {
        for (pattern, text, expected) in [
            ("l/{date}/{org_id}.jsonl", "l/2025-03-05/acme.jsonl", true),
            ("l/{date}/{org_id}.jsonl", "l/2025-03-05/ac.me.jsonl", false),
            ("l/{date}/{org_id}.jsonl", "l/2025-03-05/x/acme.jsonl", false),
            ("l/{date}/{org_id}.jsonl", "l/2025-03-05/.jsonl", false),
            ("l/{date}/{org_id}.jsonl", "k/2025-03-05/acme.jsonl", false),
            ("{org_id}-{user_id}", "a-b-c", true),
            ("{org_id}-{user_id}", "a", false),
            ("a.jsonl", "a.jsonl", true),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(Path::new(text)),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn the_folder_and_the_depth_are_those_of_the_pattern() {
        for (pattern, root, depth) in [
            ("a.jsonl", ".", 0),
            ("/a.jsonl", "/", 0),
            ("/var/log/a.jsonl", "/var/log", 0),
            ("logs/{date}/{org_id}.jsonl", "logs", 1),
            ("logs/x-{date}/{org_id}/a.jsonl", "logs", 2),
            ("{date}/a.jsonl", ".", 1),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!((pattern.root().to_str().unwrap(), pattern.depth()), (root, depth), "{pattern:?}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for (text, expected) in [
            ("", "names no file"),
            ("/", "names no file"),
            ("logs/", "names no file"),
            ("logs/{org_id}/..", "names no file"),
            ("logs/{org}.jsonl", "has `{org}` in it; there are {date}, {hour}, {org_id}"),
            ("logs/{org_id.jsonl", "without a `}`"),
        ] {
            let said = Pattern::parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
