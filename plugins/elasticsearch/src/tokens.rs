//! The tokens of a JSON text that is known to be one.

use std::{borrow::Cow, ops::Range};

/// A piece of JSON, by its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// The beginning of an object or array.
    Open(Kind),
    /// Its end.
    Close(Kind),
    /// The name of a member, without its quotes.
    Key(Range<usize>),
    /// A string, without its quotes.
    Text(Range<usize>),
    /// A number.
    Number(Range<usize>),
    /// `true`, `false` or `null`.
    Word,
}

/// What has something inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
}

/// Reads a text from front to back, however deep it is. Of what is no JSON it gives some tokens and ends.
#[derive(Debug)]
pub struct Tokens<'a> {
    json: &'a [u8],
    at: usize,
    inside: Vec<Kind>,
    expects_key: bool,
}

impl<'a> Tokens<'a> {
    /// Those of this text.
    #[must_use]
    pub fn of(json: &'a [u8]) -> Self {
        Self { json, at: 0, inside: Vec::new(), expects_key: false }
    }

    /// How many objects and arrays are around what comes next.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.inside.len()
    }

    fn open(&mut self, kind: Kind) -> Token {
        self.inside.push(kind);
        self.expects_key = kind == Kind::Object;
        Token::Open(kind)
    }

    fn string(&mut self) -> Token {
        let start = self.at;
        let mut end = start;
        while let Some(step) = memchr::memchr2(b'"', b'\\', self.json.get(end..).unwrap_or_default()) {
            end += step;
            if self.json[end] == b'"' {
                break;
            }
            end += 2;
        }
        let end = end.min(self.json.len());
        self.at = end + 1;
        if std::mem::take(&mut self.expects_key) { Token::Key(start..end) } else { Token::Text(start..end) }
    }

    fn number(&mut self) -> Token {
        let start = self.at - 1;
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        self.at += self.json[self.at..].iter().take_while(|byte| is_part(byte)).count();
        Token::Number(start..self.at)
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let byte = *self.json.get(self.at)?;
            self.at += 1;
            return Some(match byte {
                b'{' => self.open(Kind::Object),
                b'[' => self.open(Kind::Array),
                b'}' | b']' => Token::Close(self.inside.pop()?),
                b'"' => self.string(),
                b'-' | b'0'..=b'9' => self.number(),
                b't' | b'f' | b'n' => {
                    self.at += if byte == b'f' { 4 } else { 3 };
                    Token::Word
                }
                b',' => {
                    self.expects_key = self.inside.last() == Some(&Kind::Object);
                    continue;
                }
                // White space and colons.
                _ => continue,
            });
        }
    }
}

/// What stands between the quotes of a string, without its escapes. Where one is half of something (a lone surrogate),
/// all stay.
#[must_use]
pub fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(raw), |text| Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each token as the text that it is.
    fn shown(json: &str) -> String {
        let part = |token| match token {
            Token::Open(Kind::Object) => "{".to_owned(),
            Token::Open(Kind::Array) => "[".to_owned(),
            Token::Close(Kind::Object) => "}".to_owned(),
            Token::Close(Kind::Array) => "]".to_owned(),
            Token::Key(range) => format!("{}:", &json[range]),
            Token::Text(range) => format!("'{}'", &json[range]),
            Token::Number(range) => json[range].to_owned(),
            Token::Word => "w".to_owned(),
        };
        Tokens::of(json.as_bytes()).map(part).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_text_is_read_piece_by_piece() {
        for (json, expected) in [
            ("", ""),
            ("7", "7"),
            (r#""a\"b\\""#, r#"'a\"b\\'"#),
            (
                r#" { "a" : [ -1.5e+3 , "x,y" , {} ] ,
                "b":null,"":{"c":true},"d":false } "#,
                "{ a: [ -1.5e+3 'x,y' { } ] b: w : { c: w } d: w }",
            ),
            (r#"[["k"],{"k":"k"},"k"]"#, "[ [ 'k' ] { k: 'k' } 'k' ]"),
        ] {
            assert_eq!(shown(json), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_json_does_no_harm() {
        let json = r#"{"a\"":[1,"b\\",tru]}"#;
        for end in 0..json.len() {
            let tokens = Tokens::of(&json.as_bytes()[..end]).count();
            assert!(tokens <= end, "{end}");
        }
        assert_eq!(Tokens::of(b"]]}{").count(), 0);
    }
}
