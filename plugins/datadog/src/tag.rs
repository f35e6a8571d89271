//! Tags, as Datadog takes them: <https://docs.datadoghq.com/getting_started/tagging/#define-tags>. What does not fit
//! would be changed by Datadog, so that nobody finds it under the name that was sent.

/// Longest tag in bytes. Datadog's limit is 200 characters.
pub const MAX_LENGTH: usize = 200;

/// `key:value` in lower case, with `_` for every character that Datadog does not take. `None` when the key does not
/// begin with a letter, or the value is empty.
#[must_use]
pub fn tag(key: &str, value: &str) -> Option<String> {
    let key = clean(key, MAX_LENGTH / 2);
    let value = clean(value, MAX_LENGTH - 1 - key.len());
    let is_tag = key.starts_with(char::is_alphabetic) && !value.is_empty();
    is_tag.then(|| format!("{key}:{value}"))
}

/// Letters, digits and `_-:./` in lower case, others as `_`; no two underscores in a row, none at an end, no longer
/// than `max` bytes.
#[must_use]
pub fn clean(text: &str, max: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(max));
    for character in text.trim().chars() {
        let is_kept = character.is_alphanumeric() || matches!(character, '-' | ':' | '.' | '/');
        let character = if is_kept { character } else { '_' };
        if character == '_' && (cleaned.is_empty() || cleaned.ends_with('_')) {
            continue;
        }
        let before = cleaned.len();
        cleaned.extend(character.to_lowercase());
        if cleaned.len() > max {
            cleaned.truncate(before);
            break;
        }
    }
    cleaned.truncate(cleaned.trim_end_matches(['_', ':']).len());
    cleaned
}

/// At most `max` bytes of a text, whole characters alone.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tag_is_what_datadog_makes_of_it() {
        for (key, value, expected) in [
            ("model", "GPT-4o", Some("model:gpt-4o")),
            ("model", "meta-llama/Llama 3,1 (8B)", Some("model:meta-llama/llama_3_1_8b")),
            ("Team ", " a:b ", Some("team:a:b")),
            ("model", "ünï", Some("model:ünï")),
            ("model", "a\u{0}\n\"b", Some("model:a_b")),
            ("model", "", None),
            ("model", " ,_: ", None),
            ("1st", "x", None),
            ("", "x", None),
        ] {
            assert_eq!(tag(key, value).as_deref(), expected, "{key} {value}");
        }
        assert_eq!(tag("model", &"m".repeat(10_000)).unwrap().len(), MAX_LENGTH);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_tag_that_is_too_long_or_breaks_the_list(key in ".{0,300}", value in ".{0,300}") {
            if let Some(tag) = tag(&key, &value) {
                prop_assert!(tag.len() <= MAX_LENGTH);
                prop_assert!(!tag.contains([',', ' ', '"', '\\']) && !tag.contains("__"));
                prop_assert!(!tag.chars().any(char::is_control) && !tag.ends_with(['_', ':']));
            }
        }
    }
}
