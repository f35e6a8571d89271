//! Where a metric, a label or a tag takes its value from: a field of the record, or a place in one of the bodies. The one
//! notation that all exporters' settings have for it.

use std::fmt;

use plugin_api::{Content, Field, Fields, Record};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::value::Value;

/// What can be read of one record.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Its fields.
    pub fields: &'a Fields<'a>,
    /// The request's body, or empty.
    pub request: &'a [u8],
    /// The response's body, or empty.
    pub response: &'a [u8],
}

impl<'a> Sources<'a> {
    /// A record with its bodies, as far as the exporter sees them.
    #[must_use]
    pub fn of(record: Record<'a>, fields: &'a Fields<'a>) -> Self {
        Self { fields, request: record.request_json(), response: record.response_json() }
    }
}

/// A place to read from, as the settings write it: `output_tokens`, `request:/max_tokens`, `response:/usage/queue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A field of the record.
    Field(Field),
    /// A JSON pointer (RFC 6901) into the request's body.
    Request(Pointer),
    /// A JSON pointer into the response's body.
    Response(Pointer),
}

impl Source {
    /// Reads the settings' notation.
    ///
    /// # Errors
    /// A sentence with the fields that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("request", pointer)) => Ok(Self::Request(Pointer::parse(pointer)?)),
            Some(("response", pointer)) => Ok(Self::Response(Pointer::parse(pointer)?)),
            Some(_) => Err(format!("`{text}`: only `request:/…` and `response:/…` point into a body")),
            None => Field::named(text).map(Self::Field).ok_or_else(|| {
                let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
                format!("`{text}` is no field of the record; there are {}", names.join(", "))
            }),
        }
    }

    /// The least that an exporter must see of a record for it.
    #[must_use]
    pub fn content(&self) -> Content {
        match self {
            Self::Request(_) | Self::Response(_) => Content::Full,
            Self::Field(field) if Content::None.shows(*field) => Content::None,
            Self::Field(_) => Content::Metadata,
        }
    }

    /// What stands there in a record.
    #[must_use]
    pub fn read<'a>(&self, from: Sources<'a>) -> Value<'a> {
        match self {
            Self::Field(field) => Value::of(from.fields, *field),
            Self::Request(pointer) => pointer.find(from.request),
            Self::Response(pointer) => pointer.find(from.response),
        }
    }
}

/// A JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads it as RFC 6901 writes it; not the empty one, which is the whole body.
    ///
    /// # Errors
    /// A sentence, when it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens = text.strip_prefix('/').ok_or_else(|| {
            format!("`{text}` is no JSON pointer: it starts with `/`, as in `/usage/total_tokens`")
        })?;
        Ok(Self(tokens.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// The value in `json`, found without building anything of what surrounds it.
    #[must_use]
    pub fn find<'a>(&self, json: &'a [u8]) -> Value<'a> {
        let mut found = Value::Null;
        let step = Step { tokens: &self.0, found: &mut found };
        // The walk ends with an error where the value was found: the rest of the body is of no interest.
        let _ = step.deserialize(&mut serde_json::Deserializer::from_slice(json));
        found
    }
}

/// A walk down the remaining tokens.
struct Step<'p, 'a> {
    tokens: &'p [String],
    found: &'p mut Value<'a>,
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for Step<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.tokens.is_empty() {
            *self.found = serde::Deserialize::deserialize(deserializer)?;
            return Err(D::Error::custom("found"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Step<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_next) = map.next_key_seed(Is(&self.tokens[0]))? {
            if is_next {
                return map.next_value_seed(Step { tokens: &self.tokens[1..], found: self.found });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Ok(index) = self.tokens[0].parse::<usize>() else {
            return Err(A::Error::custom("no such place"));
        };
        for _ in 0..index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Step { tokens: &self.tokens[1..], found: self.found }).map(|_| ())
    }
}

/// Compares a key, without a copy of it.
struct Is<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_what_it_names() {
        let json = br#"{"a":1,"b":{"c/d":[10,{"e":"x"},true]},"~":-2.5,"list":[1,2,3],"o":{},"n":null}"#;
        for (pointer, expected) in [
            ("/a", Value::Number(1.0)),
            ("/b/c~1d/0", Value::Number(10.0)),
            ("/b/c~1d/1/e", Value::Text("x".into())),
            ("/b/c~1d/2", Value::Bool(true)),
            ("/~0", Value::Number(-2.5)),
            ("/list", Value::List(3)),
            ("/o", Value::Null),
            ("/n", Value::Null),
            ("/a/b", Value::Null),
            ("/b/c~1d/7", Value::Null),
            ("/b/c~1d/x", Value::Null),
            ("/missing", Value::Null),
        ] {
            assert_eq!(Pointer::parse(pointer).unwrap().find(json), expected, "{pointer}");
        }
        assert_eq!(Pointer::parse("/a").unwrap().find(b""), Value::Null);
        assert_eq!(Pointer::parse("/a").unwrap().find(b"{\"a\":5, torn"), Value::Number(5.0));
    }

    #[test]
    fn what_a_source_needs_follows_from_where_it_reads() {
        for (text, expected) in [
            ("model", Content::None),
            ("project_id", Content::Metadata),
            ("request:/user", Content::Full),
            ("response:/id", Content::Full),
        ] {
            assert_eq!(Source::parse(text).unwrap().content(), expected, "{text}");
        }
    }

    #[test]
    fn a_source_that_does_not_exist_is_named() {
        assert_eq!(Source::parse("output_tokens"), Ok(Source::Field(Field::OutputTokens)));
        for (text, expected) in [
            ("outputtokens", "`outputtokens` is no field of the record; there are id, timestamp"),
            ("headers:/a", "only `request:/…` and `response:/…`"),
            ("request:a", "starts with `/`"),
        ] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
