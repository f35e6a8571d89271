//! Text as New Relic keeps it: <https://docs.newrelic.com/docs/logs/ui-data/long-logs-blobs/>.
//!
//! What is longer than a field goes to a blob that no query searches, and what is longer still is dropped without a
//! word: nothing here is longer than a field. Text that is a JSON object is taken apart into attributes, of which an
//! entry has at most 255 (<https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/#supported-types> says so of
//! any attribute, a section below it of `message` alone): nothing here is one.

use std::borrow::Cow;

/// Most characters of a field. A character outside the first 65,536 counts as two here, as it does in Java, so that the
/// limit holds however it is counted.
pub const MAX_CHARS: usize = 4094;

/// The text as a value: as it is, where it can be; in single quotes where it would be taken apart; else its beginning
/// with `…`. Whether it was cut stands beside it.
#[must_use]
pub fn value(text: &str) -> (Cow<'_, str>, bool) {
    let is_json = is_json(text);
    let limit = if is_json { MAX_CHARS - 2 } else { MAX_CHARS };
    if head(text, limit) == text.len() {
        let kept = if is_json { Cow::Owned(format!("'{text}'")) } else { Cow::Borrowed(text) };
        return (kept, false);
    }
    (Cow::Owned(format!("{}…", &text[..head(text, MAX_CHARS - 1)])), true)
}

/// At most `max` characters of a text.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..head(text, max)]
}

/// A text in pieces that are values each, and the text again one after the other.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let piece = &rest[..head(rest, MAX_CHARS)];
        // Its closing brackets are left to the next piece.
        let closes = |c: char| matches!(c, '}' | ']') || c.is_whitespace();
        let end = if is_json(piece) { piece.trim_end_matches(closes).len() } else { piece.len() };
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where the first `max` characters end.
fn head(text: &str, max: usize) -> usize {
    match text.as_bytes().get(..max) {
        None => return text.len(),
        Some(start) if start.is_ascii() => return max,
        Some(_) => {}
    }
    let mut characters = 0;
    let over = text.char_indices().find(|(_, character)| {
        characters += character.len_utf16();
        characters > max
    });
    over.map_or(text.len(), |(at, _)| at)
}

/// Whether a text may be a JSON object or array.
fn is_json(text: &str) -> bool {
    let text = text.trim();
    (text.starts_with('{') && text.ends_with('}')) || (text.starts_with('[') && text.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn a_value_is_kept_or_quoted_or_cut() {
        let long = "x".repeat(MAX_CHARS);
        let cut = format!("{}…", "x".repeat(MAX_CHARS - 1));
        for (text, expected, is_cut) in [
            ("", "", false),
            ("a\0b", "a\0b", false),
            (&long, &long, false),
            (&*format!("{long}x"), &cut, true),
            (" {\"a\":1}\n", "' {\"a\":1}\n'", false),
            ("[]", "'[]'", false),
            ("{a", "{a", false),
            (&*format!("[{}]", "x".repeat(MAX_CHARS - 2)), &format!("[{}…", "x".repeat(MAX_CHARS - 2)), true),
        ] {
            assert_eq!(value(text), (Cow::Borrowed(expected), is_cut), "{text}");
        }
        // An emoji is two characters in Java.
        let emoji = "😀".repeat(3000);
        let (emoji, is_cut) = value(&emoji);
        assert!(is_cut && emoji.encode_utf16().count() == MAX_CHARS - 1, "{}", emoji.len());
    }

    #[test]
    fn no_piece_is_json() {
        let full = format!("{}{{\"a\":1}}", " ".repeat(MAX_CHARS - 7));
        for (text, expected) in [
            ("", &[][..]),
            ("\"text\"", &["\"text\""]),
            ("{}", &["{", "}"]),
            ("[{\"a\":[{}]}]", &["[{\"a\":[{", "}]}]"]),
            (" [1] \n", &[" [1", "] \n"]),
            (
                &*format!("{full}{full}"),
                &[&full[..MAX_CHARS - 1], &*format!("}}{}", &full[..MAX_CHARS - 1]), "}"],
            ),
        ] {
            assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_are_values_and_the_text_again(
            parts in vec((prop_oneof![Just("{"), Just("}"), Just("]"), Just("["), Just(" "), Just("é"), Just("😀")], 0..3000_usize), 0..12),
        ) {
            let text: String = parts.iter().map(|(part, count)| part.repeat(*count)).collect();
            let pieces: Vec<_> = pieces(&text).collect();
            prop_assert_eq!(pieces.concat(), &*text);
            for piece in pieces {
                prop_assert_eq!(value(piece), (Cow::Borrowed(piece), false));
                prop_assert!(piece.encode_utf16().count() <= MAX_CHARS);
            }
            let (value, _) = value(&text);
            prop_assert!(value.encode_utf16().count() <= MAX_CHARS && !is_json(&value));
        }
    }
}
