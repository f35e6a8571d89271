//! What is read from a record once, for all signals.

use std::{borrow::Cow, time::SystemTime};

use plugin_api::{Field, Fields, Record};

use crate::{
    json,
    names::{
        self,
        operation::{Operation, operation},
    },
};

/// A record, read.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Its fields.
    pub fields: Fields<'a>,
    /// Its id.
    pub id: Cow<'a, str>,
    /// Start in nanoseconds since 1970.
    pub start: u64,
    /// End in nanoseconds since 1970.
    pub end: u64,
    /// The trace: the record's, else one made from its id.
    pub trace_id: [u8; 16],
    /// The gateway's span: the record's, else one made from its id.
    pub span_id: [u8; 8],
    /// The caller's span, whose child the gateway's is.
    pub parent_span_id: Option<[u8; 8]>,
    /// W3C trace flags.
    pub trace_flags: Option<u8>,
    /// What it does.
    pub operation: Operation,
    /// `error.type`, of a request that failed.
    pub error: Option<Cow<'a, str>>,
    /// Parameters of the request, as the JSON they are.
    pub parameters: Members<'a>,
    /// The same of the answer.
    pub answer: Members<'a>,
}

/// Some members of a body.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Members<'a> {
    /// Those of these names.
    fn of(body: &'a [u8], names: &'static [&'static str]) -> Self {
        let text = str::from_utf8(body).unwrap_or_default();
        let named = |name: &str| names.iter().find(|known| **known == name).copied();
        Self(json::members(text).filter_map(|(name, raw)| Some((named(&name)?, raw))).collect())
    }

    /// The JSON of one. Where it is there twice, the last one counts.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rfind(|(known, _)| *known == name).map(|(_, raw)| *raw)
    }
}

impl<'a> Facts<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(record: &Record<'a>) -> Result<Self, String> {
        let fields = record.fields().map_err(|error| format!("this is no record: {error}"))?;
        Self::of(fields).map(|facts| facts.with_bodies(record.request_json(), record.response_json()))
    }

    /// What is read from the bodies too.
    #[must_use]
    pub fn with_bodies(mut self, request: &'a [u8], response: &'a [u8]) -> Self {
        self.parameters = Members::of(request, names::PARAMETER_MEMBERS);
        self.answer = Members::of(response, names::ANSWER_MEMBERS);
        self
    }

    /// Whether the caller's trace is not sampled.
    #[must_use]
    pub fn is_unsampled(&self) -> bool {
        self.trace_flags.is_some_and(|flags| flags & 1 == 0)
    }

    /// The same of fields.
    ///
    /// # Errors
    /// Why they are no record's.
    pub fn of(fields: Fields<'a>) -> Result<Self, String> {
        let lacks = |field: Field| format!("the record lacks `{}`", field.name());
        let id = fields.text(Field::Id).ok_or_else(|| lacks(Field::Id))?;
        let timestamp = fields.text(Field::Timestamp).ok_or_else(|| lacks(Field::Timestamp))?;
        let start =
            nanoseconds(&timestamp).ok_or("`timestamp` of the record is no RFC 3339 time since 1970")?;
        let duration = fields.number(Field::TotalLatency).unwrap_or_default().max(0.0);
        let made = unique(&id);
        let (_, low) = made.split_at(8);
        let trace_id = fields.text(Field::TraceId).and_then(|hex| from_hex(&hex)).unwrap_or(made);
        let span_id = fields.text(Field::SpanId).and_then(|hex| from_hex(&hex));
        let span_id = span_id.unwrap_or_else(|| low.try_into().unwrap_or([1; 8]));
        let text = |field| fields.text(field).unwrap_or_default();
        let operation = operation(&text(Field::Method), &text(Field::Path));
        let error = (fields.text(Field::Status).as_deref() == Some("error")).then(|| error_type(&fields));
        let end = start.saturating_add(milliseconds(duration));
        let parent_span_id = fields.text(Field::ParentSpanId).and_then(|hex| from_hex(&hex));
        let trace_flags = fields.whole(Field::TraceFlags).and_then(|flags| u8::try_from(flags).ok());
        let (parameters, answer) = Default::default();
        Ok(Self {
            fields,
            id,
            start,
            end,
            trace_id,
            span_id,
            parent_span_id,
            trace_flags,
            operation,
            error,
            parameters,
            answer,
        })
    }
}

/// Milliseconds as nanoseconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
fn milliseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6).round() as u64
}

fn nanoseconds(timestamp: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(timestamp).ok()?;
    since_1970(time)
}

/// A time in nanoseconds since 1970; `None` for one that OTLP cannot express.
#[must_use]
pub fn since_1970(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// The gateway's code, the provider's error, or the status: whatever says what kind of error it was.
fn error_type<'a>(fields: &Fields<'a>) -> Cow<'a, str> {
    let named = fields.text(Field::ErrorType).or_else(|| fields.text(Field::ProviderErrorType));
    let status = || fields.whole(Field::StatusCode).map(|status| Cow::Owned(status.to_string()));
    named.or_else(status).unwrap_or(Cow::Borrowed(names::OTHER_ERROR))
}

/// Bytes from hexadecimal digits. All zeros are no id.
fn from_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

/// The id's own 16 bytes, the same in every attempt; a hash of it where it is no UUID.
fn unique(id: &str) -> [u8; 16] {
    let digits: String = id.chars().filter(|c| *c != '-').collect();
    from_hex(&digits).unwrap_or_else(|| {
        // FNV-1a: it need not resist anybody, it must never change.
        let hash = id.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
        (hash | 1).to_be_bytes()
    })
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;

    use super::*;

    fn facts<T>(sample: &Sample, read: impl FnOnce(Facts<'_>) -> T) -> Result<T, String> {
        Facts::of(Fields::parse(&sample.metrics_json()).unwrap()).map(read)
    }

    #[test]
    fn times_and_ids_are_the_records() {
        facts(&Sample::chat(), |facts| {
            assert_eq!(facts.start, 1_741_190_600_123_000_000);
            assert_eq!(facts.end - facts.start, 6_250_250_000);
            assert_eq!(u128::from_be_bytes(facts.trace_id), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
            assert_eq!(u64::from_be_bytes(facts.span_id), 0x00f0_67aa_0ba9_02b7);
            assert_eq!((facts.operation.name, facts.error), ("chat", None));
        })
        .unwrap();
    }

    #[test]
    fn ids_are_made_of_the_records_where_it_has_none() {
        for bad in [None, Some("0".repeat(32)), Some("xyz".to_owned()), Some("4bf9".to_owned())] {
            let sample = Sample::chat().number(7).with(|metrics| {
                metrics.trace_id = bad.clone().map(Into::into);
                metrics.span_id = bad.clone().map(Into::into);
            });
            let ids =
                |facts: Facts<'_>| (u128::from_be_bytes(facts.trace_id), u64::from_be_bytes(facts.span_id));
            let expected = (0x0195_6f3c_8d2b_7e11_9c7a_0000_0000_0007, 0x9c7a_0000_0000_0007);
            assert_eq!(facts(&sample, ids).unwrap(), expected);
        }
        let odd = Sample::chat().with(|metrics| (metrics.id, metrics.trace_id) = ("no uuid".into(), None));
        let id = facts(&odd, |facts| facts.trace_id).unwrap();
        assert!(id != [0; 16] && id == facts(&odd, |facts| facts.trace_id).unwrap());
    }

    #[test]
    fn a_failure_has_a_type() {
        use plugin_api::Status;
        let failed = |kind: Option<&'static str>, status: Option<u16>| {
            let sample = Sample::failed().with(|metrics| {
                metrics.status = Status::Error;
                metrics.error_type = kind.map(Into::into);
                metrics.provider_error_type = None;
                metrics.status_code = status;
            });
            facts(&sample, |facts| facts.error.map(Cow::into_owned)).unwrap().unwrap()
        };
        assert_eq!(failed(Some("timeout"), Some(504)), "timeout");
        assert_eq!(failed(None, Some(504)), "504");
        assert_eq!(failed(None, None), "_OTHER");
    }

    #[test]
    fn a_time_that_is_none_is_no_record_and_a_long_one_is_cut() {
        let error = |sample: Sample| facts(&sample, |_| ()).unwrap_err();
        let bad = error(Sample::chat().with(|metrics| metrics.timestamp = "yesterday".into()));
        assert!(bad.contains("timestamp"), "{bad}");
        let long = Sample::chat().with(|metrics| metrics.total_latency = 1e300);
        assert_eq!(facts(&long, |facts| facts.end).unwrap(), u64::MAX);
    }
}
