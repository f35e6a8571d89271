//! Values that must not be seen: tokens and API keys.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// What is shown in the place of a secret.
pub const HIDDEN: &str = "***";

/// The fewest bytes of a secret that is looked for in texts. A shorter one is guessed as quickly as it is read, and is
/// found in texts where it means something else: `ok` in `token`, `true` in every record, `ollama` in a model's name.
pub const LEAST_HIDDEN: usize = 8;

/// Words that serve as secrets, and stand in logs where they are none.
const WORDS: [&str; 10] = [
    "anonymous",
    "changeme",
    "elasticsearch",
    "localhost",
    "opensearch",
    "password",
    "postgres",
    "postgresql",
    "undefined",
    "username",
];

/// Whether a secret can be taken out of texts that repeat it, without spoiling them. Of one that cannot, its owner says so
/// once, when it starts.
#[must_use]
pub fn can_be_hidden(secret: &str) -> bool {
    secret.len() >= LEAST_HIDDEN && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(secret))
}

/// A secret string. `Debug`, `Display` and `Serialize` show `***`; only [`Secret::expose`] gives the text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that must not be seen.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True for `""`, which is how a config says "no secret" (`"${ADMIN_TOKEN:-}"`).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in a time that depends on the candidate's length alone, so that a caller cannot guess the
    /// secret byte by byte.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let mut difference = usize::from(secret.len() != candidate.len());
        for (i, byte) in candidate.iter().enumerate() {
            // An empty secret still costs one comparison per byte, and never matches.
            let own = secret.get(i % secret.len().max(1)).copied().unwrap_or(!byte);
            difference |= usize::from(std::hint::black_box(own ^ byte));
        }
        difference == 0 && !secret.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
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
        json_schema!({ "type": "string", "writeOnly": true, "x-secret": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_format_shows_the_text() {
        let secret = Secret::new("sk-123");
        assert_eq!(format!("{secret:?} {secret} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "sk-123");
    }

    #[test]
    fn what_would_be_found_everywhere_is_not_hidden() {
        for (secret, expected) in [
            ("", false),
            ("k", false),
            ("true", false),
            ("1234567", false),
            ("12345678", true),
            ("Password", false),
            ("password1", true),
            ("postgres", false),
            ("sk-proj-4f", true),
        ] {
            assert_eq!(can_be_hidden(secret), expected, "{secret}");
        }
    }

    #[test]
    fn matches_only_the_whole_secret() {
        let secret = Secret::new("abcabc");
        for (candidate, expected) in
            [("abcabc", true), ("abc", false), ("abcabcabc", false), ("abcabd", false), ("", false)]
        {
            assert_eq!(secret.matches(candidate.as_bytes()), expected, "{candidate}");
        }
        assert!(!Secret::new("").matches(b""), "an empty secret lets nobody in");
        assert!(!Secret::new("").matches(b"x"));
    }
}
