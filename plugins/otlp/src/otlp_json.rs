//! The same requests as [OTLP's JSON](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): read from the
//! protobuf that was made, by a table of its fields. It has no Base64: ids are hexadecimal, and 64-bit integers are text.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::config::Signal;

/// A request as JSON.
#[must_use]
pub fn request(signal: Signal, protobuf: &[u8]) -> Vec<u8> {
    let schema: &[Field] = match signal {
        Signal::Logs => &LOGS,
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
    };
    message(schema, protobuf).to_string().into_bytes()
}

#[derive(Debug, Clone, Copy)]
struct Field {
    number: u64,
    name: &'static str,
    kind: Kind,
    is_list: bool,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    /// Bytes that are an id.
    Id,
    /// A small number, or an enum.
    Number,
    /// 64 bits without a sign.
    Long,
    /// 64 bits with one.
    Signed,
    Double,
    Flag,
    Longs,
    Doubles,
    Message(&'static [Field]),
}

const fn one(number: u64, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false }
}

const fn list(number: u64, name: &'static str, schema: &'static [Field]) -> Field {
    Field { number, name, kind: Kind::Message(schema), is_list: true }
}

static LOGS: [Field; 1] = [list(1, "resourceLogs", &RESOURCE_LOGS)];
static TRACES: [Field; 1] = [list(1, "resourceSpans", &RESOURCE_SPANS)];
static METRICS: [Field; 1] = [list(1, "resourceMetrics", &RESOURCE_METRICS)];
static RESOURCE: [Field; 1] = [list(1, "attributes", &KEY_VALUE)];
static SCOPE: [Field; 2] = [one(1, "name", Kind::Text), one(2, "version", Kind::Text)];
static KEY_VALUE: [Field; 2] = [one(1, "key", Kind::Text), one(2, "value", Kind::Message(&ANY_VALUE))];
static ANY_VALUE: [Field; 5] = [
    one(1, "stringValue", Kind::Text),
    one(2, "boolValue", Kind::Flag),
    one(3, "intValue", Kind::Signed),
    one(4, "doubleValue", Kind::Double),
    one(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
];
static ARRAY_VALUE: [Field; 1] = [list(1, "values", &ANY_VALUE)];

static RESOURCE_LOGS: [Field; 3] = resource("scopeLogs", &SCOPE_LOGS);
static RESOURCE_SPANS: [Field; 3] = resource("scopeSpans", &SCOPE_SPANS);
static RESOURCE_METRICS: [Field; 3] = resource("scopeMetrics", &SCOPE_METRICS);
static SCOPE_LOGS: [Field; 3] = scope("logRecords", &LOG_RECORD);
static SCOPE_SPANS: [Field; 3] = scope("spans", &SPAN);
static SCOPE_METRICS: [Field; 3] = scope("metrics", &METRIC);

const fn resource(name: &'static str, scopes: &'static [Field]) -> [Field; 3] {
    [one(1, "resource", Kind::Message(&RESOURCE)), list(2, name, scopes), one(3, "schemaUrl", Kind::Text)]
}

const fn scope(name: &'static str, records: &'static [Field]) -> [Field; 3] {
    [one(1, "scope", Kind::Message(&SCOPE)), list(2, name, records), one(3, "schemaUrl", Kind::Text)]
}

static LOG_RECORD: [Field; 10] = [
    one(1, "timeUnixNano", Kind::Long),
    one(11, "observedTimeUnixNano", Kind::Long),
    one(2, "severityNumber", Kind::Number),
    one(3, "severityText", Kind::Text),
    one(5, "body", Kind::Message(&ANY_VALUE)),
    list(6, "attributes", &KEY_VALUE),
    one(8, "flags", Kind::Number),
    one(9, "traceId", Kind::Id),
    one(10, "spanId", Kind::Id),
    one(12, "eventName", Kind::Text),
];
static SPAN: [Field; 10] = [
    one(1, "traceId", Kind::Id),
    one(2, "spanId", Kind::Id),
    one(4, "parentSpanId", Kind::Id),
    one(16, "flags", Kind::Number),
    one(5, "name", Kind::Text),
    one(6, "kind", Kind::Number),
    one(7, "startTimeUnixNano", Kind::Long),
    one(8, "endTimeUnixNano", Kind::Long),
    list(9, "attributes", &KEY_VALUE),
    one(15, "status", Kind::Message(&STATUS)),
];
static STATUS: [Field; 2] = [one(2, "message", Kind::Text), one(3, "code", Kind::Number)];
static METRIC: [Field; 5] = [
    one(1, "name", Kind::Text),
    one(2, "description", Kind::Text),
    one(3, "unit", Kind::Text),
    one(7, "sum", Kind::Message(&SUM)),
    one(9, "histogram", Kind::Message(&HISTOGRAM)),
];
static SUM: [Field; 3] = [
    list(1, "dataPoints", &NUMBER_POINT),
    one(2, "aggregationTemporality", Kind::Number),
    one(3, "isMonotonic", Kind::Flag),
];
static HISTOGRAM: [Field; 2] =
    [list(1, "dataPoints", &HISTOGRAM_POINT), one(2, "aggregationTemporality", Kind::Number)];
static NUMBER_POINT: [Field; 4] = [
    list(7, "attributes", &KEY_VALUE),
    one(2, "startTimeUnixNano", Kind::Long),
    one(3, "timeUnixNano", Kind::Long),
    one(4, "asDouble", Kind::Double),
];
static HISTOGRAM_POINT: [Field; 9] = [
    list(9, "attributes", &KEY_VALUE),
    one(2, "startTimeUnixNano", Kind::Long),
    one(3, "timeUnixNano", Kind::Long),
    one(4, "count", Kind::Long),
    one(5, "sum", Kind::Double),
    one(6, "bucketCounts", Kind::Longs),
    one(7, "explicitBounds", Kind::Doubles),
    one(11, "min", Kind::Double),
    one(12, "max", Kind::Double),
];

/// A field as it is on the wire.
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
}

fn message(schema: &[Field], mut bytes: &[u8]) -> Value {
    let mut members = Map::new();
    while let Some((number, raw)) = next(&mut bytes) {
        let Some(field) = schema.iter().find(|field| field.number == number) else { continue };
        let value = value(field.kind, raw);
        if !field.is_list {
            members.insert(field.name.to_owned(), value);
        } else if let Some(Value::Array(values)) = members.get_mut(field.name) {
            values.push(value);
        } else {
            members.insert(field.name.to_owned(), Value::Array(vec![value]));
        }
    }
    Value::Object(members)
}

fn value(kind: Kind, raw: Raw<'_>) -> Value {
    match (kind, raw) {
        (Kind::Text, Raw::Bytes(bytes)) => String::from_utf8_lossy(bytes).into(),
        (Kind::Id, Raw::Bytes(bytes)) => hex(bytes).into(),
        (Kind::Message(schema), Raw::Bytes(bytes)) => message(schema, bytes),
        (Kind::Longs, Raw::Bytes(bytes)) => longs(bytes).map(|long| Value::from(long.to_string())).collect(),
        (Kind::Doubles, Raw::Bytes(bytes)) => longs(bytes).map(f64::from_bits).collect(),
        (Kind::Number, Raw::Integer(number)) => number.into(),
        (Kind::Long, Raw::Integer(number)) => number.to_string().into(),
        (Kind::Signed, Raw::Integer(number)) => number.cast_signed().to_string().into(),
        (Kind::Double, Raw::Integer(bits)) => f64::from_bits(bits).into(),
        (Kind::Flag, Raw::Integer(flag)) => (flag != 0).into(),
        _ => Value::Null,
    }
}

fn longs(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).filter_map(|long| Some(u64::from_le_bytes(long.try_into().ok()?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The next field's number and value.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Raw<'a>)> {
    let key = varint(bytes)?;
    let raw = match key & 7 {
        0 => Raw::Integer(varint(bytes)?),
        1 => Raw::Integer(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Raw::Bytes(take(bytes, length)?)
        }
        5 => Raw::Integer(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?).into()),
        _ => return None,
    };
    Some((key >> 3, raw))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{
            logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
            trace::v1::ExportTraceServiceRequest,
        },
        common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
        metrics::v1::{
            Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
            metric::Data, number_data_point,
        },
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
    };
    use serde_json::json;

    use super::*;

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)), key_strindex: 0 }
    }

    fn read(signal: Signal, request: &impl prost::Message) -> Value {
        serde_json::from_slice(&super::request(signal, &request.encode_to_vec())).unwrap()
    }

    #[test]
    fn logs_are_as_otlp_writes_them() {
        let list = ArrayValue { values: vec![any(Any::StringValue("x".into())), any(Any::BoolValue(true))] };
        let record = LogRecord {
            time_unix_nano: u64::MAX,
            severity_number: 9,
            body: Some(any(Any::StringValue("é\n".into()))),
            attributes: vec![
                pair("i", Any::IntValue(-7)),
                pair("d", Any::DoubleValue(0.5)),
                pair("l", Any::ArrayValue(list)),
            ],
            flags: 1,
            trace_id: vec![0xab; 16],
            span_id: vec![1, 2, 3, 4, 5, 6, 7, 0xff],
            ..LogRecord::default()
        };
        let scope = InstrumentationScope { name: "s".into(), version: "1".into(), ..Default::default() };
        let scope_logs = ScopeLogs { scope: Some(scope), log_records: vec![record], schema_url: "u".into() };
        let resource =
            Resource { attributes: vec![pair("r", Any::StringValue("1".into()))], ..Default::default() };
        let logs =
            ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs], schema_url: "u".into() };
        let found = read(Signal::Logs, &ExportLogsServiceRequest { resource_logs: vec![logs] });
        let expected = json!({ "resourceLogs": [{
            "resource": { "attributes": [{ "key": "r", "value": { "stringValue": "1" } }] },
            "schemaUrl": "u",
            "scopeLogs": [{ "scope": { "name": "s", "version": "1" }, "schemaUrl": "u", "logRecords": [{
                "timeUnixNano": "18446744073709551615", "severityNumber": 9,
                "body": { "stringValue": "é\n" }, "flags": 1,
                "attributes": [
                    { "key": "i", "value": { "intValue": "-7" } },
                    { "key": "d", "value": { "doubleValue": 0.5 } },
                    { "key": "l", "value": { "arrayValue": { "values": [
                        { "stringValue": "x" }, { "boolValue": true }] } } },
                ],
                "traceId": "ab".repeat(16), "spanId": "01020304050607ff",
            }] }],
        }] });
        assert_eq!(found, expected);
    }

    #[test]
    fn spans_are_as_otlp_writes_them() {
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            parent_span_id: vec![2; 8],
            flags: 0x101,
            name: "chat m".into(),
            kind: 3,
            start_time_unix_nano: 5,
            end_time_unix_nano: 7,
            status: Some(Status { message: "no".into(), code: 2 }),
            ..Span::default()
        };
        let scope_spans = ScopeSpans { spans: vec![span.clone(), span], ..Default::default() };
        let spans = ResourceSpans { scope_spans: vec![scope_spans], ..Default::default() };
        let found = read(Signal::Traces, &ExportTraceServiceRequest { resource_spans: vec![spans] });
        let expected = json!({
            "traceId": "ab".repeat(16), "spanId": "01".repeat(8), "parentSpanId": "02".repeat(8), "flags": 257,
            "name": "chat m", "kind": 3, "startTimeUnixNano": "5", "endTimeUnixNano": "7",
            "status": { "message": "no", "code": 2 },
        });
        assert_eq!(
            found,
            json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [expected, expected] }] }] })
        );
    }

    #[test]
    fn metrics_are_as_otlp_writes_them() {
        let number = NumberDataPoint {
            start_time_unix_nano: 1,
            time_unix_nano: 2,
            value: Some(number_data_point::Value::AsDouble(0.25)),
            ..Default::default()
        };
        let sum = Sum { data_points: vec![number], aggregation_temporality: 2, is_monotonic: true };
        let point = HistogramDataPoint {
            count: 3,
            sum: Some(1.5),
            bucket_counts: vec![1, 2],
            explicit_bounds: vec![0.5],
            min: Some(0.25),
            max: Some(1.0),
            ..Default::default()
        };
        let histogram = Histogram { data_points: vec![point], aggregation_temporality: 1 };
        let metric = |name: &str, data| Metric {
            name: name.into(),
            unit: "s".into(),
            data: Some(data),
            ..Default::default()
        };
        let metrics = vec![metric("a", Data::Sum(sum)), metric("b", Data::Histogram(histogram))];
        let scope_metrics = ScopeMetrics { metrics, ..Default::default() };
        let resource = ResourceMetrics { scope_metrics: vec![scope_metrics], ..Default::default() };
        let found = read(Signal::Metrics, &ExportMetricsServiceRequest { resource_metrics: vec![resource] });
        let expected = json!([
            { "name": "a", "unit": "s", "sum": { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
                { "startTimeUnixNano": "1", "timeUnixNano": "2", "asDouble": 0.25 }] } },
            { "name": "b", "unit": "s", "histogram": { "aggregationTemporality": 1, "dataPoints": [
                { "count": "3", "sum": 1.5, "bucketCounts": ["1", "2"], "explicitBounds": [0.5],
                  "min": 0.25, "max": 1.0 }] } },
        ]);
        assert_eq!(found["resourceMetrics"][0]["scopeMetrics"][0]["metrics"], expected);
    }

    #[test]
    fn nothing_is_an_empty_request_and_what_is_cut_ends_there() {
        assert_eq!(request(Signal::Logs, b""), b"{}");
        assert_eq!(request(Signal::Traces, &[0x0a, 0x05, 0x01]), b"{}");
    }
}
