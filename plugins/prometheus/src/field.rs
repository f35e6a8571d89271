//! The fields of a record that metrics and labels can read, parsed without a copy.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

macro_rules! fields {
    ($($variant:ident = $name:literal,)+) => {
        /// A field of the record, by its wire name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "plugin_api::RequestMetrics documents them")]
        pub enum Field {
            $($variant,)+
        }

        impl Field {
            /// All of them, in the order in which the gateway writes them.
            pub const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant),)+];
        }
    };
}

fields! {
    Id = "id",
    Timestamp = "timestamp",
    ThreadId = "thread_id",
    OrgId = "org_id",
    UserId = "user_id",
    ProjectId = "project_id",
    ProjectName = "project_name",
    ExperimentId = "experiment_id",
    ClientRequestId = "client_request_id",
    TraceId = "trace_id",
    SpanId = "span_id",
    ServiceName = "service_name",
    ServiceVersion = "service_version",
    Environment = "environment",
    Provider = "provider",
    Model = "model",
    RequestModel = "request_model",
    Path = "path",
    Method = "method",
    IsStreaming = "is_streaming",
    TotalLatency = "total_latency",
    ProviderLatency = "provider_latency",
    Ttfb = "ttfb",
    Ttft = "ttft",
    GatewayOverhead = "gateway_overhead",
    RequestSize = "request_size",
    ResponseSize = "response_size",
    InputTokens = "input_tokens",
    OutputTokens = "output_tokens",
    TotalTokens = "total_tokens",
    CachedReadTokens = "cached_read_tokens",
    CachedWriteTokens = "cached_write_tokens",
    ReasoningTokens = "reasoning_tokens",
    UsageSource = "usage_source",
    Cost = "cost",
    CostSource = "cost_source",
    PriceVersion = "price_version",
    Status = "status",
    StatusCode = "status_code",
    ProviderStatusCode = "provider_status_code",
    ErrorCount = "error_count",
    ErrorType = "error_type",
    ProviderErrorCount = "provider_error_count",
    ProviderErrorType = "provider_error_type",
    EndReason = "end_reason",
    ProviderRequestId = "provider_request_id",
    Truncated = "truncated",
    RequestBody = "request_body",
    ResponseBody = "response_body",
}

const COUNT: usize = Field::ALL.len();

impl Field {
    /// Its wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }

    /// The field of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }
}

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

impl Value<'_> {
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

/// A record's fields.
#[derive(Debug, PartialEq)]
pub struct Fields<'a>([Value<'a>; COUNT]);

impl<'a> Fields<'a> {
    /// Reads the `metrics` part of a record: by [`scan`](Self::scan) where it is as the gateway writes it, else with
    /// serde.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        match str::from_utf8(json).ok().and_then(Self::scan) {
            Some(fields) => Ok(fields),
            None => serde_json::from_slice(json),
        }
    }

    /// Reads one flat object without white space and escapes, three times as quickly as serde does: this is half of
    /// what a record costs. `None` for anything else, which is for serde to judge.
    fn scan(json: &'a str) -> Option<Self> {
        let mut fields = Fields([const { Value::Null }; COUNT]);
        let mut rest = json.strip_prefix('{')?;
        let mut next = 0;
        loop {
            let (found, value) = scan_key(rest, next)?;
            let (value, after) = scan_value(value)?;
            if let Some(index) = found {
                fields.0[index] = value;
                next = index + 1;
            }
            match after.as_bytes() {
                [b',', ..] => rest = &after[1..],
                [b'}'] => return Some(fields),
                _ => return None,
            }
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> &Value<'a> {
        &self.0[field as usize]
    }

    /// A field that is text.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<&str> {
        match self.get(field) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields([const { Value::Null }; COUNT]);
                let mut next = 0;
                while let Some(found) = map.next_key_seed(Key { next })? {
                    match found {
                        Some(index) => {
                            fields.0[index] = map.next_value()?;
                            next = index + 1;
                        }
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The field of a key, and what follows the colon.
fn scan_key(text: &str, next: usize) -> Option<(Option<usize>, &str)> {
    let text = text.strip_prefix('"')?;
    if let Some((expected, _)) = Field::ALL.get(next)
        && let Some(value) = text.strip_prefix(expected).and_then(|rest| rest.strip_prefix("\":"))
    {
        return Some((Some(next), value));
    }
    let (key, rest) = text.split_once('"')?;
    if key.contains('\\') {
        return None;
    }
    Some((position(key, next), rest.strip_prefix(':')?))
}

/// A value, and what follows it.
fn scan_value(text: &str) -> Option<(Value<'_>, &str)> {
    let word = |word: &str, value| text.strip_prefix(word).map(|rest| (value, rest));
    match text.as_bytes().first()? {
        b'"' => {
            let text = &text[1..];
            let end = memchr::memchr2(b'"', b'\\', text.as_bytes())?;
            let is_plain = text.as_bytes()[end] == b'"';
            is_plain.then(|| (Value::Text(Cow::Borrowed(&text[..end])), &text[end + 1..]))
        }
        b'-' | b'0'..=b'9' => {
            let end = text.bytes().position(|byte| matches!(byte, b',' | b'}'))?;
            Some((Value::Number(number(&text[..end])?), &text[end..]))
        }
        b'n' => word("null", Value::Null),
        b't' => word("true", Value::Bool(true)),
        b'f' => word("false", Value::Bool(false)),
        b'[' => word("[]", Value::List(0)),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "15 digits fit a float")]
fn number(text: &str) -> Option<f64> {
    if text.len() > 15 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let value = text.bytes().fold(0, |value: u64, digit| value * 10 + u64::from(digit - b'0'));
    Some(value as f64)
}

/// A key's field. The gateway writes fields in one order, so the next one is nearly always the one expected: that is
/// one comparison, where a match on the name would be twenty.
fn position(key: &str, next: usize) -> Option<usize> {
    let is_key = |index: &usize| Field::ALL[*index].0 == key;
    (next..COUNT).find(is_key).or_else(|| (0..next.min(COUNT)).find(is_key))
}

/// Finds a key's field.
struct Key {
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(position(key, self.next))
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
    use plugin_api::testing::Sample;

    use super::*;

    #[test]
    fn every_field_of_a_record_has_its_place() {
        let json = Sample::stream().metrics_json();
        let fields: Fields<'_> = serde_json::from_slice(&json).unwrap();
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).unwrap();
        for (name, field) in Field::ALL {
            let expected = match &object[*name] {
                serde_json::Value::Null => Value::Null,
                serde_json::Value::Bool(is) => Value::Bool(*is),
                serde_json::Value::Number(number) => Value::Number(number.as_f64().unwrap()),
                serde_json::Value::String(text) => Value::Text(text.into()),
                serde_json::Value::Array(list) => Value::List(list.len()),
                other => panic!("{name} is {other}"),
            };
            assert_eq!(*fields.get(*field), expected, "{name}");
            assert_eq!((Field::named(name), field.name()), (Some(*field), *name));
        }
        assert_eq!(Field::named("later"), None);
    }

    #[test]
    fn fields_stand_in_the_order_of_the_wire() {
        let json = String::from_utf8(Sample::chat().metrics_json()).unwrap();
        let places: Vec<_> =
            Field::ALL.iter().map(|(name, _)| json.find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "another order is read as well, but slowly");
        assert_eq!(json.matches("\":").count(), Field::ALL.len(), "a field is missing here");
    }

    #[test]
    fn the_quick_way_reads_what_serde_reads() {
        let odd = Sample::chat().with(|metrics| {
            metrics.path = "/a\"b\\".into();
            metrics.truncated = vec!["response".into()];
        });
        for (sample, is_quick) in
            [(Sample::chat(), true), (Sample::stream(), true), (Sample::failed(), true), (odd, false)]
        {
            let json = sample.metrics_json();
            let scanned = Fields::scan(str::from_utf8(&json).unwrap());
            assert_eq!(scanned.is_some(), is_quick, "{json:?}");
            let parsed: Fields<'_> = serde_json::from_slice(&json).unwrap();
            assert_eq!(scanned.as_ref().unwrap_or(&parsed), &parsed);
            assert_eq!(Fields::parse(&json).unwrap(), parsed);
        }
        for text in [
            r#"{"later":1,"status_code":200,"id":"é","cost":1e-3,"ttft":-0.5,"later":null,"total_latency":12345678901234567}"#,
            r#"{"truncated":[],"id":"a"}"#,
            r#"{ "id": "a" }"#,
            r#"{"id":"a","truncated":["x"],"model":null}"#,
            r#"{"id":{"a":[1]}}"#,
            "{}",
        ] {
            assert_eq!(
                Fields::parse(text.as_bytes()).unwrap(),
                serde_json::from_str(text).unwrap(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_record_that_was_cut_is_none() {
        let json = Sample::stream().metrics_json();
        for end in 0..json.len() {
            assert!(Fields::parse(&json[..end]).is_err(), "cut at {end}");
        }
        for junk in ["{\"id\":1}}", "{\"id\":1-}", "{\"id\":nul}", "[]", "\u{feff}{}"] {
            assert!(Fields::parse(junk.as_bytes()).is_err(), "{junk}");
        }
    }

    #[test]
    fn text_is_borrowed() {
        let json = Sample::chat().metrics_json();
        let fields: Fields<'_> = serde_json::from_slice(&json).unwrap();
        for (name, field) in Field::ALL {
            assert!(!matches!(fields.get(*field), Value::Text(Cow::Owned(_))), "{name} was copied");
        }
    }
}
