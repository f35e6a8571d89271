//! A backend's own words, short enough to be quoted in an error.

/// The beginning of a text, at most `max_chars` of it, on one line. What is cut off ends in `…`.
#[must_use]
pub fn excerpt(text: &str, max_chars: usize) -> String {
    let (mut line, mut left) = (String::new(), max_chars);
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let space = usize::from(!line.is_empty());
        if space >= left {
            line.push('…');
            return line;
        }
        line.push_str(&" "[..space]);
        left -= space;
        if let Some((end, _)) = word.char_indices().nth(left) {
            line.push_str(&word[..end]);
            line.push('…');
            return line;
        }
        line.push_str(word);
        left -= word.chars().count();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        for (text, max_chars, expected) in [
            ("", 5, ""),
            ("{\n  \"error\":\t\"bad\"\r\n}\0", 50, "{ \"error\": \"bad\" }"),
            ("one two", 7, "one two"),
            ("one two ", 7, "one two"),
            ("one two", 6, "one tw…"),
            ("one two", 4, "one…"),
            ("one two", 3, "one…"),
            ("ééé", 2, "éé…"),
            ("a", 0, "…"),
        ] {
            assert_eq!(excerpt(text, max_chars), expected, "{text:?} {max_chars}");
        }
    }
}
