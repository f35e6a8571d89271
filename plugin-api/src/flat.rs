//! A record's fields as the JSON they are: one walk over the `metrics` part, without a copy and without parsing what
//! nobody asked for.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

macro_rules! fields {
    ($($variant:ident = $name:literal,)+) => {
        /// A field of [`RequestMetrics`](crate::RequestMetrics), by name. A minor release may add some.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Field {
            $(
                #[doc = concat!("[`RequestMetrics::", $name, "`](crate::RequestMetrics::", $name, ").")]
                $variant,
            )+
        }

        impl Field {
            /// All of them, in the order in which the gateway writes them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in the record.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The field of that name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// What follows this field's key and colon, where `text` starts with them.
            fn strip(self, text: &str) -> Option<&str> {
                match self {
                    $(Self::$variant => text.strip_prefix(concat!("\"", $name, "\":")),)+
                }
            }
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
    ParentSpanId = "parent_span_id",
    TraceFlags = "trace_flags",
    ServiceName = "service_name",
    ServiceVersion = "service_version",
    Environment = "environment",
    Provider = "provider",
    Model = "model",
    RequestModel = "request_model",
    Path = "path",
    Method = "method",
    IsStreaming = "is_streaming",
    ResponseId = "response_id",
    PreviousResponseId = "previous_response_id",
    FinishReasons = "finish_reasons",
    ServiceTier = "service_tier",
    RequestServiceTier = "request_service_tier",
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
    CachedWrite1hTokens = "cached_write_1h_tokens",
    ReasoningTokens = "reasoning_tokens",
    AudioInputTokens = "audio_input_tokens",
    AudioOutputTokens = "audio_output_tokens",
    ImageInputTokens = "image_input_tokens",
    ImageOutputTokens = "image_output_tokens",
    AudioSeconds = "audio_seconds",
    SearchQueries = "search_queries",
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
    ProviderErrorCode = "provider_error_code",
    EndReason = "end_reason",
    ProviderRequestId = "provider_request_id",
    Truncated = "truncated",
    RequestBody = "request_body",
    ResponseBody = "response_body",
}

const COUNT: usize = Field::ALL.len();

/// A record's fields, each as the JSON text it is. The quickest way to read a record: nothing is allocated, and only
/// what is asked for is parsed.
///
/// ```
/// use plugin_api::{Field, Fields};
///
/// let fields = Fields::parse(br#"{"provider":"openai","total_latency":6250.25,"ttft":null,"output_tokens":865}"#)?;
/// assert_eq!(fields.text(Field::Provider).as_deref(), Some("openai"));
/// assert_eq!(fields.whole(Field::OutputTokens), Some(865));
/// assert_eq!(fields.number(Field::TotalLatency), Some(6250.25));
/// assert_eq!((fields.raw(Field::Ttft), fields.raw(Field::Ttfb)), (Some("null"), None));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Empty where the record lacks the field.
    raw: [&'a str; COUNT],
    /// No text has an escape.
    is_plain: bool,
}

impl<'a> Fields<'a> {
    /// Reads the `metrics` part of a record: by a scan where it is as the gateway writes it, else with serde. Fields
    /// in another order, unknown ones and white space are no obstacle.
    ///
    /// # Errors
    /// When it is no JSON object, or has a field twice.
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        match str::from_utf8(json).ok().and_then(Self::scan) {
            Some(fields) => Ok(fields),
            None => serde_json::from_slice(json),
        }
    }

    /// The field's JSON, without white space around it; `None` where the record lacks the field.
    #[must_use]
    pub fn raw(&self, field: Field) -> Option<&'a str> {
        Some(self.raw[field as usize]).filter(|raw| !raw.is_empty())
    }

    /// The same fields, one of them with other JSON.
    pub(crate) fn with_raw(mut self, field: Field, json: &'a str) -> Self {
        self.raw[field as usize] = json;
        self
    }

    /// A field that is a string; `None` where it is not, also where it is `null` or absent.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        let raw = self.raw[field as usize];
        let text = raw.strip_prefix('"')?.strip_suffix('"')?;
        if self.is_plain || !text.contains('\\') {
            return Some(Cow::Borrowed(text));
        }
        serde_json::from_str(raw).ok().map(Cow::Owned)
    }

    /// A field that is a number; `None` where it is not, also where it is `null` or absent.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "15 digits fit a float")]
    pub fn number(&self, field: Field) -> Option<f64> {
        let raw = self.raw[field as usize];
        if raw.len() <= 15
            && let Some(whole) = self.whole(field)
        {
            return Some(whole as f64);
        }
        raw.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// A field that is a whole number from 0 to 2⁶⁴ − 1; `None` where it is not, also where it is `null` or absent.
    #[must_use]
    pub fn whole(&self, field: Field) -> Option<u64> {
        self.raw[field as usize].parse().ok()
    }

    /// A field that is `true` or `false`; `None` where it is not.
    #[must_use]
    pub fn flag(&self, field: Field) -> Option<bool> {
        match self.raw[field as usize] {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Whether every text is written without an escape, so that its JSON is the text between quotes.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Reads one object without white space and escapes, three times as quickly as serde does. `None` for anything
    /// else, which is for serde to judge.
    fn scan(json: &'a str) -> Option<Self> {
        // With these out of the way, a text ends at the next quotation mark. (Written so that it is vectorized.)
        if json.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'\\')) {
            return None;
        }
        let mut fields = Self { raw: [""; COUNT], is_plain: true };
        let mut rest = json.strip_prefix('{')?;
        let mut next = 0;
        loop {
            // The gateway writes the fields in one order: the next one is nearly always the one expected.
            let expected = Field::ALL.get(next).copied();
            let known = expected.and_then(|field| Some((Some(field), field.strip(rest)?)));
            let (found, text) = known.or_else(|| scan_key(rest))?;
            let (value, after) = scan_value(text)?;
            if let Some(field) = found {
                fields.add(field, value)?;
                next = field as usize + 1;
            }
            match after.as_bytes() {
                [b',', ..] => rest = &after[1..],
                [b'}'] => return Some(fields),
                _ => return None,
            }
        }
    }

    /// `None` where the field is there already.
    fn add(&mut self, field: Field, value: &'a str) -> Option<()> {
        let place = &mut self.raw[field as usize];
        std::mem::replace(place, value).is_empty().then_some(())
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = Field::ALL.iter().filter_map(|field| Some((field.name(), self.raw(*field)?)));
        f.debug_map().entries(present).finish()
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
                let mut fields = Fields { raw: [""; COUNT], is_plain: false };
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    if let Some(field) = Field::named(&key) {
                        fields
                            .add(field, value.get())
                            .ok_or_else(|| A::Error::duplicate_field(field.name()))?;
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The field of a key that was not the one expected, and what follows the colon.
#[cold]
fn scan_key(text: &str) -> Option<(Option<Field>, &str)> {
    let (key, rest) = text.strip_prefix('"')?.split_once('"')?;
    Some((Field::named(key), rest.strip_prefix(':')?))
}

/// A value, and what follows it.
fn scan_value(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let word = |word: &str| text.starts_with(word).then_some(word.len());
    let end = match bytes.first()? {
        b'"' => memchr::memchr(b'"', &bytes[1..])? + 2,
        b'-' | b'0'..=b'9' => {
            let end = bytes.iter().position(|byte| matches!(byte, b',' | b'}'))?;
            is_number(&text[..end]).then_some(end)?
        }
        b'n' => word("null")?,
        b't' => word("true")?,
        b'f' => word("false")?,
        b'[' | b'{' => match plain_list(text) {
            Some(length) => length,
            None => {
                let mut nested = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
                nested.next()?.ok()?;
                nested.byte_offset()
            }
        },
        _ => return None,
    };
    Some(text.split_at(end))
}

/// The length of the list of strings that `text` begins with, where it is written without white space. Where there are
/// no escapes, a string ends at the next quotation mark.
pub(crate) fn plain_list(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.starts_with(b"[]") {
        return Some(2);
    }
    let mut quote = bytes.starts_with(b"[").then_some(1)?;
    loop {
        let inside = bytes.get(quote + 1..).filter(|_| bytes[quote] == b'"')?;
        let end = quote + 2 + memchr::memchr(b'"', inside)?;
        match bytes.get(end)? {
            b',' if end + 1 < bytes.len() => quote = end + 1,
            b']' => return Some(end + 1),
            _ => return None,
        }
    }
}

/// Whether this is a number as JSON knows it.
fn is_number(text: &str) -> bool {
    let is_plain = match text.split_once('.') {
        Some((whole, fraction)) => is_whole(whole) && !fraction.is_empty() && is_digits(fraction),
        None => is_whole(text),
    };
    // A sign or an exponent is rare: serde knows their rules.
    is_plain
        || (text.ends_with(|last: char| last.is_ascii_digit())
            && serde_json::from_str::<&RawValue>(text).is_ok())
}

fn is_whole(text: &str) -> bool {
    text == "0" || (text.starts_with(|first| matches!(first, '1'..='9')) && is_digits(text))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BodyDescription, RequestMetrics};

    /// A record as the gateway writes it.
    fn wire(change: impl FnOnce(&mut RequestMetrics<'static>)) -> String {
        let mut metrics = serde_json::from_str(include_str!("../tests/golden/record-chat.json")).unwrap();
        change(&mut metrics);
        serde_json::to_string(&metrics).unwrap()
    }

    #[test]
    fn a_number_is_what_json_says_it_is() {
        for text in ["0", "7", "10", "0.5", "12.340", "-1", "-0.5", "1e5", "1.5E-3", "18446744073709551616"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "01", "1.", ".5", "00.1", "1.5.2", "1e", "+1", "0x1", "1 ", "NaN", "1.x"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn a_list_of_strings_ends_where_it_ends() {
        for (text, list) in [
            ("[]", "[]"),
            ("[],\"a\":1", "[]"),
            (r#"["stop"]"#, r#"["stop"]"#),
            (r#"["a,]","","é"],"x":[]"#, r#"["a,]","","é"]"#),
        ] {
            assert_eq!(plain_list(text), Some(list.len()), "{text}");
        }
        for text in [
            "",
            "[",
            "{}",
            "[1]",
            "[ ]",
            r#"["#,
            r#"[""#,
            r#"["a"#,
            r#"["a""#,
            r#"["a","#,
            r#"["a",]"#,
            r#"["a" ]"#,
        ] {
            assert_eq!(plain_list(text), None, "{text}");
        }
    }

    #[test]
    fn fields_are_those_of_the_record_in_the_order_of_the_wire() {
        let json = wire(|_| ());
        let fields = Fields::scan(&json).unwrap();
        let together: Vec<_> = Field::ALL
            .iter()
            .map(|field| format!("\"{}\":{}", field.name(), fields.raw(*field).unwrap()))
            .collect();
        assert_eq!(format!("{{{}}}", together.join(",")), json);
        for field in Field::ALL {
            assert_eq!(Field::named(field.name()), Some(*field));
        }
        assert_eq!(Field::named("later"), None);
    }

    #[test]
    fn the_quick_way_reads_what_serde_reads() {
        let described = wire(|metrics| {
            metrics.truncated = vec!["response".into(), "a,\u{e9}]".into()];
            metrics.finish_reasons = Some(vec!["stop".into(), "a,]".into()]);
            metrics.request_body = Some(BodyDescription::new(7).content_type("audio/x; a={["));
        });
        for (text, is_quick) in [
            (&*wire(|_| ()), true),
            (&*described, true),
            (&*wire(|_| ()).replace(',', ",\n "), false),
            (&*wire(|metrics| metrics.path = "/a\"b\\".into()), false),
            (r#"{"later":{"x":[1]},"status_code":200,"id":"é","cost":1e-3,"ttft":-0.5,"later":null}"#, true),
            (r#"{"truncated":[],"id":"a"}"#, true),
            (r#"{ "id": "a", "cost" : 1 }"#, false),
            ("{}", false),
        ] {
            let parsed: Fields<'_> = serde_json::from_str(text).unwrap();
            let scanned = Fields::scan(text);
            assert_eq!(scanned.is_some(), is_quick, "{text}");
            assert_eq!(scanned.as_ref().unwrap_or(&parsed).raw, parsed.raw, "{text}");
            assert_eq!(Fields::parse(text.as_bytes()).unwrap().raw, parsed.raw);
        }
    }

    #[test]
    fn values_are_read_by_their_type() {
        let text = r#"{"id":"a\"b","path":"","cost":-1.5e3,"ttft":12345678901234567,"error_count":7,"is_streaming":true,"model":null}"#;
        let fields = Fields::parse(text.as_bytes()).unwrap();
        assert_eq!(fields.text(Field::Id).as_deref(), Some("a\"b"));
        assert_eq!(fields.text(Field::Path).as_deref(), Some(""));
        assert_eq!(fields.number(Field::Cost), Some(-1500.0));
        assert_eq!(fields.number(Field::Ttft), Some(12_345_678_901_234_567.0));
        assert_eq!((fields.whole(Field::ErrorCount), fields.number(Field::ErrorCount)), (Some(7), Some(7.0)));
        assert_eq!((fields.whole(Field::Cost), fields.flag(Field::IsStreaming)), (None, Some(true)));
        for field in [Field::Model, Field::Provider] {
            let nothing = (fields.text(field), fields.number(field), fields.whole(field), fields.flag(field));
            assert_eq!(nothing, (None, None, None, None));
        }
        assert_eq!((fields.raw(Field::Model), fields.raw(Field::Provider)), (Some("null"), None));
    }

    #[test]
    fn a_record_that_was_cut_is_none() {
        let json = wire(|_| ());
        for end in 0..json.len() {
            assert!(Fields::parse(&json.as_bytes()[..end]).is_err(), "cut at {end}");
        }
        for junk in [
            r#"{"id":1}}"#,
            r#"{"id":1-}"#,
            r#"{"id":01}"#,
            r#"{"id":1.}"#,
            r#"{"id":nul}"#,
            r#"{"id":[1,}"#,
            r#"{"id":1,"id":2}"#,
            "{\"id\":\"a\nb\"}",
            "[]",
            "\u{feff}{}",
        ] {
            assert!(Fields::parse(junk.as_bytes()).is_err(), "{junk}");
        }
        assert!(Fields::parse(b"{\"id\":\"\xff\"}").is_err());
    }
}
