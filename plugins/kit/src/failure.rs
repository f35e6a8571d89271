//! What went wrong with a request: in the provider's own words where it has some, else in the gateway's.

use std::{borrow::Cow, sync::LazyLock};

use plugin_api::Field;

use crate::{
    source::{Pointer, Sources},
    value::Value,
};

/// Longest text in bytes; what is longer ends with `…`.
pub const LONGEST: usize = 2_000;

/// Where providers put the text of an error, the usual place first: OpenAI and most; some as a text alone; a choice of a
/// stream (OpenRouter); the list of Gemini's compatible API; Mistral; FastAPI, as vLLM has it, for an error and for a
/// request that does not fit.
static PLACES: LazyLock<Vec<Pointer>> = LazyLock::new(|| {
    let places = [
        "/error/message",
        "/error",
        "/choices/0/error/message",
        "/0/error/message",
        "/message",
        "/detail",
        "/detail/0/msg",
    ];
    places.iter().filter_map(|place| Pointer::parse(place).ok()).collect()
});

/// The text for a request that failed; `None` for one that succeeded.
#[must_use]
pub fn message(from: Sources<'_>) -> Option<String> {
    let fields = from.fields;
    if fields.text(Field::Status).is_some_and(|status| status == "success") {
        return None;
    }
    let said = PLACES.iter().find_map(|place| match place.find(from.response) {
        Value::Text(text) if !text.trim().is_empty() => Some(text),
        _ => None,
    });
    Some(cut(&said.unwrap_or_else(|| in_our_words(from))))
}

/// For a failure of which the provider says nothing, or whose answer this exporter does not see.
fn in_our_words<'a>(from: Sources<'a>) -> Cow<'a, str> {
    let fields = from.fields;
    let end = fields.text(Field::EndReason).unwrap_or_default();
    match (&*end, fields.whole(Field::StatusCode)) {
        ("client_disconnect", _) => "the client left before the answer was complete".into(),
        ("timeout", _) => "a time limit of the gateway passed".into(),
        ("provider_error", _) => "the provider broke off or could not be reached".into(),
        (_, Some(status)) if status >= 400 => format!("HTTP status {status}").into(),
        _ => fields.text(Field::ErrorType).unwrap_or(end),
    }
}

fn cut(text: &str) -> String {
    let text = text.trim();
    let end = text.floor_char_boundary(LONGEST);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;
    use plugin_api::{EndReason, Fields};

    use super::*;

    fn of(sample: &Sample, response: &str) -> Option<String> {
        let json = sample.metrics_json();
        let fields = Fields::parse(&json).unwrap();
        message(Sources { fields: &fields, request: b"", response: response.as_bytes() })
    }

    #[test]
    fn a_failure_is_told_in_the_providers_words() {
        for (response, expected) in [
            (r#"{"error":{"message":"Rate limit reached","type":"requests"}}"#, "Rate limit reached"),
            (r#"{"error":"model is overloaded"}"#, "model is overloaded"),
            (r#"{"choices":[{"error":{"code":502,"message":"upstream died"}}]}"#, "upstream died"),
            (r#"[{"error":{"code":400,"message":"API key not valid"}}]"#, "API key not valid"),
            (r#"{"object":"error","message":"Invalid model","type":"invalid_model"}"#, "Invalid model"),
            (r#"{"detail":"Unauthorized"}"#, "Unauthorized"),
            (r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, "field required"),
            (r#"{"error":{"message":"","type":"x"}}"#, "HTTP status 429"),
            (r#"{"error":null,"message":" spaced\n"}"#, "spaced"),
            ("", "HTTP status 429"),
            ("not JSON", "HTTP status 429"),
        ] {
            assert_eq!(of(&Sample::failed(), response).as_deref(), Some(expected), "{response}");
        }
        assert_eq!(of(&Sample::chat(), r#"{"message":"all is well"}"#), None);
    }

    #[test]
    fn a_failure_without_words_is_told_by_how_it_ended() {
        for (reason, status, expected) in [
            (EndReason::ClientDisconnect, Some(200), "the client left before the answer was complete"),
            (EndReason::Timeout, Some(504), "a time limit of the gateway passed"),
            (EndReason::ProviderError, None, "the provider broke off or could not be reached"),
            (EndReason::GatewayError, Some(503), "HTTP status 503"),
            (EndReason::Complete, Some(200), "rate_limit_exceeded"),
        ] {
            let sample = Sample::failed().with(|metrics| {
                (metrics.end_reason, metrics.status_code) = (reason, status);
            });
            assert_eq!(of(&sample, "").as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(5_000));
        let text = of(&Sample::failed(), &long).unwrap();
        assert!(text.len() <= LONGEST + 3 && text.ends_with("é…"), "{}", text.len());
    }
}
