//! The values of a record that metrics, labels and tags can read, without a copy.

use std::{borrow::Cow, fmt};

use plugin_api::{Field, Fields};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::bounded::OTHER;

/// A JSON value as far as a metric or a label can use it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`, absent, or of no use.
    Null,
    /// A number.
    Number(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// `true` or `false`.
    Bool(bool),
    /// A list, of which only the number of elements counts.
    List(usize),
}

impl<'a> Value<'a> {
    /// The value of a record's field.
    #[must_use]
    pub fn of(fields: &Fields<'a>, field: Field) -> Self {
        let raw = fields.raw(field).unwrap_or_default();
        match raw.as_bytes().first() {
            Some(b'"') => fields.text(field).map_or(Self::Null, Self::Text),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'[') => serde_json::from_str(raw).unwrap_or(Self::Null),
            Some(b'-' | b'0'..=b'9') => fields.number(field).map_or(Self::Null, Self::Number),
            _ => Self::Null,
        }
    }

    /// The text of a label or a tag. A number that is not whole is `other`: it would have a value per request.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    pub fn label<'b>(&'b self, digits: &'b mut itoa::Buffer) -> Option<&'b str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bool(is) => Some(if *is { "true" } else { "false" }),
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                Some(digits.format(*number as i64))
            }
            Self::Number(_) => Some(OTHER),
            Self::Null | Self::List(_) => None,
        }
    }

    /// The value of a metric: a number as it is, a boolean as 1 or 0, a list as its length.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "no list has 2^53 elements")]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bool(is) => Some(f64::from(u8::from(*is))),
            Self::List(length) => Some(*length as f64),
            Self::Null | Self::Text(_) => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

#[allow(clippy::cast_precision_loss, reason = "Prometheus knows floats alone")]
impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut length = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        Ok(Value::List(length))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;

    use super::*;

    #[test]
    fn every_field_has_its_value_and_text_is_borrowed() {
        let odd =
            Sample::stream().with(|metrics| metrics.truncated = vec!["response".into(), "request".into()]);
        for json in [odd.metrics_json(), Sample::failed().metrics_json()] {
            let fields = Fields::parse(&json).unwrap();
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).unwrap();
            for field in Field::ALL {
                let expected = match &object[field.name()] {
                    serde_json::Value::Null => Value::Null,
                    serde_json::Value::Bool(is) => Value::Bool(*is),
                    serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap()),
                    serde_json::Value::String(text) => Value::Text(text.into()),
                    serde_json::Value::Array(list) => Value::List(list.len()),
                    other => panic!("{field:?} is {other}"),
                };
                let value = Value::of(&fields, *field);
                assert_eq!(value, expected, "{field:?}");
                assert!(!matches!(value, Value::Text(Cow::Owned(_))), "{field:?} was copied");
            }
        }
    }

    #[test]
    fn a_label_is_a_text_a_truth_or_a_whole_number() {
        for (value, expected) in [
            (Value::Text("a".into()), Some("a")),
            (Value::Bool(true), Some("true")),
            (Value::Number(-429.0), Some("-429")),
            (Value::Number(0.5), Some(OTHER)),
            (Value::Number(1e15), Some(OTHER)),
            (Value::List(3), None),
            (Value::Null, None),
        ] {
            assert_eq!(value.label(&mut itoa::Buffer::new()), expected, "{value:?}");
        }
    }

    #[test]
    fn what_no_metric_can_use_is_null() {
        let fields = Fields::parse(br#"{"id":{"a":[1]},"cost":1e999,"path":"a\"b"}"#).unwrap();
        for field in [Field::Id, Field::Cost, Field::Model] {
            assert_eq!(Value::of(&fields, field), Value::Null);
        }
        assert_eq!(Value::of(&fields, Field::Path), Value::Text("a\"b".into()));
    }
}
