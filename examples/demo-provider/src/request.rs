//! The fields of a request that matter here, borrowed from its body.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ApiError;

/// One call of any endpoint; the parts an endpoint needs are read by the functions below.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Call<'a> {
    #[serde(borrow, default)]
    pub(crate) model: Cow<'a, str>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    pub(crate) dimensions: Option<usize>,
    #[serde(borrow)]
    encoding_format: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What the client said: the part to answer, and the length of all of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) last: String,
    pub(crate) words: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    #[serde(borrow)]
    One(Cow<'a, str>),
    #[serde(borrow)]
    Many(Vec<Part<'a>>),
}

/// An element of an array of messages, of content parts or of plain strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Part<'a> {
    Plain(Cow<'a, str>),
    Content {
        text: Cow<'a, str>,
    },
    Message {
        #[serde(borrow)]
        content: Option<Box<Text<'a>>>,
    },
    Other(serde::de::IgnoredAny),
}

impl<'a> Call<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let call: Self = serde_json::from_slice(body).map_err(|error| {
            let message = format!("We could not parse the JSON body of your request: {error}.");
            ApiError::bad_request(None, message)
        })?;
        if call.model.is_empty() {
            return Err(ApiError::bad_request(None, "you must provide a model parameter"));
        }
        Ok(call)
    }

    pub(crate) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    pub(crate) fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true)
    }

    pub(crate) fn max_words(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_output_tokens).or(self.max_tokens)
    }

    pub(crate) fn wants_base64(&self) -> bool {
        self.encoding_format.as_deref() == Some("base64")
    }

    pub(crate) fn chat_prompt(&self) -> Result<Prompt, ApiError> {
        let wrong = |message| ApiError::bad_request(Some("messages"), message);
        let raw = self.messages.ok_or_else(|| wrong("Missing required parameter: 'messages'."))?;
        let messages: Vec<Part<'_>> = serde_json::from_str(raw.get())
            .map_err(|_| wrong("Invalid type for 'messages': expected an array of objects."))?;
        if messages.is_empty() {
            return Err(wrong("Invalid 'messages': empty array. Expected an array with minimum length 1."));
        }
        Ok(Text::Many(messages).prompt())
    }

    pub(crate) fn completion_prompt(&self) -> Result<Prompt, ApiError> {
        self.text("prompt", self.prompt).map(|text| text.prompt())
    }

    pub(crate) fn response_prompt(&self) -> Result<Prompt, ApiError> {
        self.text("input", self.input).map(|text| text.prompt())
    }

    /// The texts to embed, in order.
    pub(crate) fn embedding_inputs(&self) -> Result<Vec<String>, ApiError> {
        Ok(match self.text("input", self.input)? {
            Text::One(text) => vec![text.into_owned()],
            Text::Many(parts) => parts.iter().map(Part::text).collect(),
        })
    }

    fn text(&self, name: &'static str, raw: Option<&'a RawValue>) -> Result<Text<'a>, ApiError> {
        let wrong = |message: String| ApiError::bad_request(Some(name), message);
        let raw = raw.ok_or_else(|| wrong(format!("Missing required parameter: '{name}'.")))?;
        serde_json::from_str(raw.get())
            .map_err(|_| wrong(format!("Invalid type for '{name}': expected a string or an array.")))
    }
}

impl Text<'_> {
    fn prompt(&self) -> Prompt {
        let (last, words) = match self {
            Text::One(text) => (text.to_string(), count_words(text)),
            Text::Many(parts) => (
                parts.last().map(Part::text).unwrap_or_default(),
                parts.iter().map(|part| count_words(&part.text())).sum(),
            ),
        };
        Prompt { last, words }
    }

    fn text(&self) -> String {
        match self {
            Text::One(text) => text.to_string(),
            Text::Many(parts) => parts.iter().map(Part::text).collect::<Vec<_>>().join(" "),
        }
    }
}

impl Part<'_> {
    fn text(&self) -> String {
        match self {
            Part::Plain(text) | Part::Content { text } => text.to_string(),
            Part::Message { content } => content.as_ref().map(|text| text.text()).unwrap_or_default(),
            Part::Other(_) => String::new(),
        }
    }
}

pub(crate) fn count_words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Prompt, ApiError> {
        Call::parse(body.as_bytes())?.chat_prompt()
    }

    #[test]
    fn the_last_message_is_answered_and_all_are_counted() {
        let plain = r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"say \"hi\""}]}"#;
        assert_eq!(chat(plain), Ok(Prompt { last: "say \"hi\"".into(), words: 4 }));
        let parts = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"what is"},{"type":"text","text":"this"}]}]}"#;
        assert_eq!(chat(parts), Ok(Prompt { last: "what is this".into(), words: 3 }));
        let tool = r#"{"model":"m","messages":[{"role":"assistant","content":null},{"role":"user","content":"hi"}]}"#;
        assert_eq!(chat(tool), Ok(Prompt { last: "hi".into(), words: 1 }));
    }

    #[test]
    fn a_bad_request_names_its_parameter() {
        let check = |body: &str, param: Option<&str>, message: &str| {
            let error = chat(body).expect_err(body);
            assert_eq!((error.status.as_u16(), error.param), (400, param), "{body}");
            assert!(error.message.contains(message), "{body}: {}", error.message);
        };
        check(r#"{"messages":[]}"#, None, "must provide a model");
        check(r#"{"model":"m"}"#, Some("messages"), "Missing required");
        check(r#"{"model":"m","messages":[]}"#, Some("messages"), "empty array");
        check(r#"{"model":"m","messages":"none"}"#, Some("messages"), "expected an array");
        check("{", None, "could not parse");
        check(r#"{"model":7}"#, None, "could not parse");
    }

    #[test]
    fn inputs_may_be_one_text_or_many() {
        let inputs =
            |body: &str| Call::parse(body.as_bytes()).and_then(|call| call.embedding_inputs()).expect(body);
        assert_eq!(inputs(r#"{"model":"m","input":"a b"}"#), ["a b"]);
        assert_eq!(inputs(r#"{"model":"m","input":["a","b"]}"#), ["a", "b"]);
        assert_eq!(inputs(r#"{"model":"m","input":[[1,2],[3]]}"#), ["", ""]);
    }
}
