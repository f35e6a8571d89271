//! The fields of a record that metrics and labels can read, parsed without a copy.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

macro_rules! fields {
    ($($variant:ident = $name:literal,)+) => {
        /// A field of the record, by its wire name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(field_identifier)]
        #[allow(missing_docs, reason = "plugin_api::RequestMetrics documents them")]
        pub enum Field {
            $(#[serde(rename = $name)] $variant,)+
            /// Any other.
            #[serde(other)]
            Unknown,
        }

        impl Field {
            /// The fields that have a name here, which is all but lists and objects.
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
}

const COUNT: usize = Field::Unknown as usize;

impl Field {
    /// Its wire name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("unknown", |(name, _)| name)
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
#[derive(Debug)]
pub struct Fields<'a>([Value<'a>; COUNT]);

impl<'a> Fields<'a> {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> &Value<'a> {
        self.0.get(field as usize).unwrap_or(&Value::Null)
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
                while let Some(field) = map.next_key::<Field>()? {
                    match fields.0.get_mut(field as usize) {
                        Some(place) => *place = map.next_value()?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
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
                other => panic!("{name} is {other}"),
            };
            assert_eq!(*fields.get(*field), expected, "{name}");
            assert_eq!((Field::named(name), field.name()), (Some(*field), *name));
        }
        assert_eq!(fields.get(Field::Unknown), &Value::Null);
        assert_eq!(Field::named("request_body"), None);
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
