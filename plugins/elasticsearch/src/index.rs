//! Names of indices and data streams.

/// The name that a record's document goes to: one and the same, or one with the record's date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Year,
    Month,
    Day,
}

/// The longest name, in bytes.
const LONGEST: usize = 255;

impl Index {
    /// Reads `name`, or `name-{yyyy.MM.dd}`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (date, after) =
                after.split_once('}').ok_or("has a `{` without a `}`; write it as llm-{yyyy.MM.dd}")?;
            push_text(&mut parts, before);
            read_date(&mut parts, date)?;
            rest = after;
        }
        push_text(&mut parts, rest);
        let index = Self { parts };
        index.check()?;
        Ok(index)
    }

    /// Whether the name has a date in it.
    #[must_use]
    pub fn is_dated(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Text(_)))
    }

    /// The names that a template is for.
    #[must_use]
    pub fn template_pattern(&self) -> String {
        let star = if self.is_dated() { "*" } else { "" };
        format!("{}{star}", self.beginning())
    }

    /// The template's own name. Elasticsearch's own have names such as `logs`: this is never one of them.
    #[must_use]
    pub fn template_name(&self) -> String {
        let base = self.beginning().trim_end_matches(['-', '.', '_']);
        if base.starts_with("magicapi") { base.to_owned() } else { format!("magicapi-{base}") }
    }

    /// Writes the name for a record with this timestamp (RFC 3339). False, and half a name, when it has no date.
    #[must_use]
    pub fn write_to(&self, out: &mut Vec<u8>, timestamp: &str) -> bool {
        let digits = |from, to| {
            timestamp.as_bytes().get(from..to).filter(|digits| digits.iter().all(u8::is_ascii_digit))
        };
        for part in &self.parts {
            let bytes = match part {
                Part::Text(text) => Some(text.as_bytes()),
                Part::Year => digits(0, 4),
                Part::Month => digits(5, 7),
                Part::Day => digits(8, 10),
            };
            let Some(bytes) = bytes else { return false };
            out.extend_from_slice(bytes);
        }
        true
    }

    /// What stands before the date.
    fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    fn check(&self) -> Result<(), String> {
        let beginning = self.beginning();
        if beginning.is_empty() {
            return Err("does not begin with a name; write it as llm or llm-{yyyy.MM.dd}".to_owned());
        }
        if beginning.starts_with(['-', '_', '+', '.']) {
            return Err("begins with `-`, `_`, `+` or `.`, which Elasticsearch keeps for itself".to_owned());
        }
        let mut name = Vec::new();
        let _ = self.write_to(&mut name, "2000-01-01");
        if name.len() > LONGEST {
            return Err(format!("has {} bytes; the longest name has {LONGEST}", name.len()));
        }
        let texts = || {
            self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None })
        };
        if texts().any(|text| text.chars().any(char::is_uppercase)) {
            return Err("has upper-case letters, and names here are lower-case".to_owned());
        }
        let is_bad = |c: char| r#"\/*?"<>|,#:{}"#.contains(c) || c.is_whitespace() || c.is_control();
        match texts().flat_map(|text| text.chars()).find(|c| is_bad(*c)) {
            Some(bad) => Err(format!("has a {bad:?}, which no name may have")),
            None => Ok(()),
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

/// Reads what stands between the braces.
fn read_date(parts: &mut Vec<Part>, mut date: &str) -> Result<(), String> {
    if date.is_empty() {
        return Err("has `{}`; write it as llm-{yyyy.MM.dd}".to_owned());
    }
    while let Some(first) = date.chars().next() {
        let known = [("yyyy", Part::Year), ("MM", Part::Month), ("dd", Part::Day)];
        let found = known.into_iter().find_map(|(token, part)| Some((date.strip_prefix(token)?, part)));
        date = match found {
            Some((rest, part)) => {
                parts.push(part);
                rest
            }
            None if matches!(first, '.' | '-' | '_') => {
                push_text(parts, &date[..1]);
                &date[1..]
            }
            None => {
                return Err(format!(
                    "has `{date}` in braces; a date is made of yyyy, MM, dd, `.`, `-` and `_`"
                ));
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str, timestamp: &str) -> Option<String> {
        let mut out = Vec::new();
        let whole = Index::parse(text).unwrap().write_to(&mut out, timestamp);
        whole.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_name_may_carry_the_records_date() {
        for (text, name, pattern, template) in [
            ("magicapi-metrics", "magicapi-metrics", "magicapi-metrics", "magicapi-metrics"),
            ("logs", "logs", "logs", "magicapi-logs"),
            ("llm-{yyyy.MM.dd}", "llm-2025.03.05", "llm-*", "magicapi-llm"),
            ("llm-{yyyy}-{MM}", "llm-2025-03", "llm-*", "magicapi-llm"),
            ("llm{yyyyMMdd}-eu", "llm20250305-eu", "llm*", "magicapi-llm"),
            ("é-a_b.c+1", "é-a_b.c+1", "é-a_b.c+1", "magicapi-é-a_b.c+1"),
        ] {
            let index = Index::parse(text).unwrap();
            assert_eq!(named(text, "2025-03-05T16:03:20.123Z").as_deref(), Some(name), "{text}");
            assert_eq!((&*index.template_pattern(), &*index.template_name()), (pattern, template), "{text}");
        }
        assert_eq!(named("llm-{yyyy}", "yesterday"), None);
        assert_eq!(named("llm-{dd}", "2025"), None);
        assert_eq!(named("llm", "yesterday").as_deref(), Some("llm"));
    }

    #[test]
    fn a_name_that_no_cluster_takes_is_refused() {
        let long = "a".repeat(256);
        for (text, expected) in [
            ("", "does not begin with a name"),
            ("{yyyy}", "does not begin with a name"),
            (".ds-llm", "begins with"),
            ("_all", "begins with"),
            ("LLM", "upper-case"),
            ("llm-{YYYY}", "has `YYYY` in braces"),
            ("llm-{yyyy/MM}", "has `/MM` in braces"),
            ("llm-{}", "has `{}`"),
            ("llm-{yyyy", "without a `}`"),
            ("llm}", "has a '}'"),
            ("a b", "has a ' '"),
            ("a,b", "has a ','"),
            ("a*", "has a '*'"),
            ("a\"b", "has a '\"'"),
            (&*long, "has 256 bytes"),
        ] {
            let said = Index::parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
        assert!(Index::parse(&long[1..]).is_ok());
    }
}
