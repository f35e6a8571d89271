//! Text from a plugin, made fit for a log line, an error and a terminal.

use std::borrow::Cow;

use crate::mask;

/// `bytes` as text of at most `limit` bytes, without control characters and known credentials. What is cut off ends in
/// `…`.
pub(super) fn plain_text(bytes: &[u8], limit: usize) -> String {
    let mask = mask::known();
    let text = cleaned(&mask.bytes(bytes), limit);
    // What the plugin itself has cut, or is cut here.
    match mask.excerpt(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(masked) => masked,
    }
}

fn cleaned(bytes: &[u8], limit: usize) -> String {
    let kept = &bytes[..bytes.len().min(limit)];
    let mut text = String::with_capacity(kept.len());
    for chunk in kept.utf8_chunks() {
        text.extend(chunk.valid().chars().map(|c| if is_hidden(c) { ' ' } else { c }));
        // A character that the limit cut in two is no damage of the plugin's.
        let is_cut = bytes.len() > limit && kept.ends_with(chunk.invalid());
        if !chunk.invalid().is_empty() && !is_cut {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text.truncate(text.trim_end().len());
    if bytes.len() > limit {
        text.push('…');
    }
    text
}

/// Control characters, and those that change the direction of what follows.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_plugin_holds_no_line_break_and_no_escape() {
        assert_eq!(plain_text(b"one\ntwo\x1b[31m \0", 100), "one two [31m");
        assert_eq!(plain_text("a\u{202e}b".as_bytes(), 100), "a b");
        assert_eq!(plain_text(b"\xff!", 100), "\u{fffd}!");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(plain_text("ééé".as_bytes(), 3), "é…");
        assert_eq!(plain_text("ééé".as_bytes(), 6), "ééé");
    }
}
