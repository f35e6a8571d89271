//! The protobuf wire format, as much of it as OTLP needs. Everything is appended to a buffer that is kept from record
//! to record, so that an attribute costs no allocation.

/// Writes field `number` as a varint.
pub fn uint(buffer: &mut Vec<u8>, number: u32, value: u64) {
    key(buffer, number, 0);
    varint(buffer, value);
}

/// Writes field `number` as eight bytes.
pub fn fixed64(buffer: &mut Vec<u8>, number: u32, value: u64) {
    key(buffer, number, 1);
    buffer.extend_from_slice(&value.to_le_bytes());
}

/// Writes field `number` as four bytes.
pub fn fixed32(buffer: &mut Vec<u8>, number: u32, value: u32) {
    key(buffer, number, 5);
    buffer.extend_from_slice(&value.to_le_bytes());
}

/// Writes field `number` as a double.
pub fn double(buffer: &mut Vec<u8>, number: u32, value: f64) {
    fixed64(buffer, number, value.to_bits());
}

/// Writes field `number` as bytes or text.
pub fn bytes(buffer: &mut Vec<u8>, number: u32, value: &[u8]) {
    length_delimited(buffer, number, value.len());
    buffer.extend_from_slice(value);
}

/// Writes field `number` as a list of eight bytes each.
pub fn packed64(buffer: &mut Vec<u8>, number: u32, values: impl ExactSizeIterator<Item = u64>) {
    length_delimited(buffer, number, 8 * values.len());
    values.for_each(|value| buffer.extend_from_slice(&value.to_le_bytes()));
}

/// Writes field `number` as the message that `write` writes. What it writes is moved by its length's few bytes, so
/// this is for small messages.
pub fn message(buffer: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(buffer, number, LENGTH_DELIMITED);
    let start = buffer.len();
    write(buffer);
    let length = buffer.len() - start;
    let mut head = [0; LONGEST_VARINT];
    let head = encode(length as u64, &mut head);
    buffer.splice(start..start, head.iter().copied());
}

/// Writes the head of field `number`, whose `length` bytes the caller writes next.
pub fn length_delimited(buffer: &mut Vec<u8>, number: u32, length: usize) {
    key(buffer, number, LENGTH_DELIMITED);
    varint(buffer, length as u64);
}

/// Bytes of a length-delimited field with a content of `length` bytes; `number` is below 16.
#[must_use]
pub fn delimited_len(length: usize) -> usize {
    let bits = (usize::BITS - length.leading_zeros()).max(1) as usize;
    1 + bits.div_ceil(7) + length
}

/// A value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// True or false.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Number(f64),
}

/// Writes field `number` as a `KeyValue`.
pub fn attribute(buffer: &mut Vec<u8>, number: u32, name: &str, value: Value<'_>) {
    message(buffer, number, |pair| {
        bytes(pair, 1, name.as_bytes());
        message(pair, 2, |any| any_value(any, value));
    });
}

/// Writes field `number` as a `KeyValue` whose value is a list of texts.
pub fn text_list(buffer: &mut Vec<u8>, number: u32, name: &str, values: &[impl AsRef<str>]) {
    message(buffer, number, |pair| {
        bytes(pair, 1, name.as_bytes());
        message(pair, 2, |any| {
            message(any, 5, |list| {
                for value in values {
                    message(list, 1, |any| any_value(any, Value::Text(value.as_ref())));
                }
            });
        });
    });
}

/// Writes an `AnyValue`'s content.
pub fn any_value(buffer: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => bytes(buffer, 1, text.as_bytes()),
        Value::Flag(flag) => uint(buffer, 2, u64::from(flag)),
        Value::Whole(whole) => uint(buffer, 3, whole.cast_unsigned()),
        Value::Number(number) => double(buffer, 4, number),
    }
}

const LENGTH_DELIMITED: u32 = 2;
const LONGEST_VARINT: usize = 10;

fn key(buffer: &mut Vec<u8>, number: u32, kind: u32) {
    varint(buffer, u64::from(number << 3 | kind));
}

fn varint(buffer: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; LONGEST_VARINT];
    buffer.extend_from_slice(encode(value, &mut bytes));
}

fn encode(mut value: u64, bytes: &mut [u8; LONGEST_VARINT]) -> &[u8] {
    let mut length = 0;
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes[length] = if value == 0 { low } else { low | 0x80 };
        length += 1;
        if value == 0 {
            return &bytes[..length];
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{
        AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Reference,
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn pair(key: &str, value: Reference) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
    }

    #[test]
    fn attributes_are_what_the_reference_reads() {
        let long = "é".repeat(100_000);
        let mut buffer = Vec::new();
        attribute(&mut buffer, 1, "a", Value::Text(&long));
        attribute(&mut buffer, 1, "", Value::Text(""));
        attribute(&mut buffer, 1, "flag", Value::Flag(true));
        attribute(&mut buffer, 1, "whole", Value::Whole(i64::MIN));
        attribute(&mut buffer, 1, "number", Value::Number(-0.125));
        text_list(&mut buffer, 1, "list", &["x", "y"]);
        let text = |text: &str| Reference::StringValue(text.to_owned());
        let item = |item: &str| AnyValue { value: Some(text(item)) };
        let expected = KeyValueList {
            values: vec![
                pair("a", text(&long)),
                pair("", text("")),
                pair("flag", Reference::BoolValue(true)),
                pair("whole", Reference::IntValue(i64::MIN)),
                pair("number", Reference::DoubleValue(-0.125)),
                pair("list", Reference::ArrayValue(ArrayValue { values: vec![item("x"), item("y")] })),
            ],
        };
        assert_eq!(KeyValueList::decode(&*buffer).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_number_and_any_length_is_read_back(value: i64, number: f64, length in 0_usize..70_000) {
            let mut buffer = Vec::new();
            attribute(&mut buffer, 1, "w", Value::Whole(value));
            attribute(&mut buffer, 1, "n", Value::Number(number));
            attribute(&mut buffer, 1, "t", Value::Text(&"x".repeat(length)));
            let read = KeyValueList::decode(&*buffer).unwrap().values;
            prop_assert_eq!(&read[0], &pair("w", Reference::IntValue(value)));
            prop_assert_eq!(&read[1], &pair("n", Reference::DoubleValue(number)));
            prop_assert_eq!(&read[2], &pair("t", Reference::StringValue("x".repeat(length))));
            let mut field = Vec::new();
            bytes(&mut field, 5, "x".repeat(length).as_bytes());
            prop_assert_eq!(field.len(), delimited_len(length));
        }
    }
}
