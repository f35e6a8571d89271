//! A dialect: how one family of providers writes its requests, answers, streams, usage and errors. One module each.
//!
//! Nothing outside of this folder asks which provider it has.

mod groq;
mod openai;
mod xai;

use std::{borrow::Cow, fmt};

use self::{groq::Groq, openai::OpenAi, xai::Xai};
use super::{
    exchange::id,
    fold::{Fold, Verbatim},
    fold_chunks::Chunks,
    fold_responses::Response,
    json::{self, Fields},
    usage::Usage,
};

pub(crate) const OPENAI: Dialect = Dialect(&OpenAi);
pub(crate) const GROQ: Dialect = Dialect(&Groq);
pub(crate) const XAI: Dialect = Dialect(&Xai);

/// Every dialect there is.
static DIALECTS: [Dialect; 3] = [OPENAI, GROQ, XAI];

/// The dialect that a provider's `kind` in the configuration names.
#[must_use]
pub fn by_kind(kind: &str) -> Option<Dialect> {
    DIALECTS.iter().copied().find(|dialect| dialect.kind() == kind)
}

/// The kinds there are.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    DIALECTS.iter().map(|dialect| dialect.kind())
}

/// A handle to a dialect.
#[derive(Clone, Copy)]
pub struct Dialect(&'static dyn Grammar);

impl Dialect {
    /// Its name in the configuration.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.0.kind()
    }

    /// Which API a path belongs to.
    #[must_use]
    pub fn api(self, path: &str) -> Api {
        self.0.api(path)
    }

    /// What there is to ask about an answer.
    pub(crate) fn grammar(self) -> &'static dyn Grammar {
        self.0
    }
}

/// OpenAI's, which nearly everybody speaks.
impl Default for Dialect {
    fn default() -> Self {
        OPENAI
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialect({})", self.kind())
    }
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }
}

impl Eq for Dialect {}

/// The APIs whose answers are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// Speech and images: they report usage, and have no text to fold.
    Media,
    /// Anything else: models, files, batches, a stored answer. No usage is read there, since what stands in a stored
    /// answer was counted when it was made.
    Unknown,
}

/// The reading of a provider's bodies. The defaults are OpenAI's ways; a dialect says where it differs.
pub(crate) trait Grammar: Send + Sync {
    /// The dialect's name in the configuration.
    fn kind(&self) -> &'static str;

    /// Which API a path belongs to.
    fn api(&self, path: &str) -> Api {
        let path = path.trim_end_matches('/');
        PATHS.iter().find(|(end, _)| path.ends_with(end)).map_or(Api::Unknown, |(_, api)| *api)
    }

    /// A fold for a stream of server-sent events of that API.
    fn fold<'e>(&self, api: Api) -> Box<dyn Fold<'e> + 'e> {
        match api {
            Api::ChatCompletions | Api::Completions => Box::<Chunks<'e>>::default(),
            Api::Responses => Box::<Response<'e>>::default(),
            Api::Embeddings | Api::Media | Api::Unknown => Box::<Verbatim<'e>>::default(),
        }
    }

    /// The model that answered. `answer` is a plain answer's fields or a folded stream's, here and below.
    fn model<'a>(&self, answer: &'a Fields<'_>) -> Option<Cow<'a, str>> {
        answer.text("model").filter(|model| !model.is_empty())
    }

    /// Token counts.
    fn usage(&self, answer: &Fields<'_>) -> Option<Usage> {
        Usage::of(answer)
    }

    /// The provider's id of the request, where the answer itself carries it.
    fn request_id<'a>(&self, _answer: &'a Fields<'_>) -> Option<Cow<'a, str>> {
        None
    }

    /// The provider's error, when the answer, or one of its choices, says that it is one.
    fn error(&self, answer: &Fields<'_>) -> Option<ProviderError> {
        let is = |name: &str, value: &str| answer.text(name).is_some_and(|text| text == value);
        if let Some(error) = answer.get("error").filter(|raw| !json::is_nothing(raw)) {
            let inner = Fields::read(error).0;
            // `{"error": "text", "code": "…"}` has the name beside the error, not inside.
            return Some(ProviderError::of(&inner).or(ProviderError::of(answer)));
        }
        if is("object", "error") || is("type", "error") {
            return Some(ProviderError::of(answer));
        }
        if is("object", "response") && is("status", "failed") {
            return Some(ProviderError::default());
        }
        error_of_choices(answer.get("choices")?)
    }
}

/// The error of the first choice that failed: some providers answer with 200 and say only there that something did.
fn error_of_choices(choices: &str) -> Option<ProviderError> {
    // Nearly every answer is passed over here, unread.
    memchr::memmem::find(choices.as_bytes(), b"\"error\"")?;
    let mut found = None;
    let _ = json::each_raw(choices, |choice| {
        if found.is_none() && choice.starts_with('{') {
            found = error_of_choice(&Fields::read(choice).0);
        }
    });
    found
}

fn error_of_choice(choice: &Fields<'_>) -> Option<ProviderError> {
    match choice.get("error").filter(|raw| !json::is_nothing(raw)) {
        Some(error) => Some(ProviderError::of(&Fields::read(error).0)),
        None => (choice.get("finish_reason")? == "\"error\"").then(ProviderError::default),
    }
}

/// The ends of paths, longest first where one ends in another.
const PATHS: &[(&str, Api)] = &[
    ("/chat/completions", Api::ChatCompletions),
    ("/completions", Api::Completions),
    ("/embeddings", Api::Embeddings),
    ("/responses", Api::Responses),
    ("/audio/transcriptions", Api::Media),
    ("/audio/translations", Api::Media),
    ("/audio/speech", Api::Media),
    ("/images/generations", Api::Media),
    ("/images/edits", Api::Media),
    ("/images/variations", Api::Media),
];

/// What a provider calls its error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ProviderError {
    /// Its type.
    pub(crate) kind: Option<String>,
    /// Its code; a number as text.
    pub(crate) code: Option<String>,
}

impl ProviderError {
    /// The name of the error that these fields are. Names like `error` say nothing that is not known.
    pub(crate) fn of(fields: &Fields<'_>) -> Self {
        let name = |field: &str| match fields.text(field) {
            Some(text) if text.is_empty() || text == "error" => None,
            Some(text) => id(Some(text)),
            None => fields.get(field).and_then(json::count).map(|code| code.to_string()),
        };
        Self { kind: name("type"), code: name("code") }
    }

    /// What tells it best: its code, since many errors share a type. A code that is a number says less than a type: it
    /// repeats the status, or has to be looked up.
    pub(crate) fn name(&self) -> Option<&str> {
        let is_number = |code: &&str| code.bytes().all(|byte| byte.is_ascii_digit());
        let code = self.code.as_deref();
        code.filter(|code| !is_number(code)).or(self.kind.as_deref()).or(code)
    }

    fn or(self, other: Self) -> Self {
        if self.name().is_some() { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(answer: &Value) -> Option<Option<String>> {
        let answer = answer.to_string();
        let error = OPENAI.grammar().error(&Fields::read(&answer).0);
        error.map(|error| error.name().map(str::to_owned))
    }

    #[test]
    fn an_error_is_one_that_says_something() {
        for nothing in [json!(null), json!(""), json!(false), json!(0), json!([]), json!({})] {
            let choice = json!({"error": nothing, "finish_reason": "stop"});
            assert_eq!(error(&json!({"error": nothing, "choices": [choice]})), None, "{nothing}");
        }
        let named = |name: &str| Some(Some(name.to_owned()));
        for (answer, expected) in [
            (json!({"error": {"code": 502, "message": "m"}}), named("502")),
            (json!({"error": "text", "code": "c"}), named("c")),
            (json!({"error": true}), Some(None)),
            (json!({"object": "error", "message": "m", "type": "BadRequestError"}), named("BadRequestError")),
            (json!({"type": "error", "message": "m", "code": "c"}), named("c")),
            (json!({"object": "response", "status": "failed", "error": null}), Some(None)),
            (json!({"object": "response", "status": "incomplete", "error": null}), None),
            (json!({"object": "batch", "status": "failed"}), None),
            (
                json!({"choices": [{"finish_reason": "stop"}, {"error": {"code": 524, "message": "m"}}]}),
                named("524"),
            ),
            (json!({"choices": [{"finish_reason": "error"}]}), Some(None)),
            (json!({"choices": [{"finish_reason": "error", "error": "text"}]}), Some(None)),
            (
                json!({"choices": [{"finish_reason": "stop", "message": {"content": "\"error\"", "error": 1}}]}),
                None,
            ),
            (json!({"choices": "error"}), None),
            (json!({"choices": [null, "error", []]}), None),
        ] {
            assert_eq!(error(&answer), expected, "{answer}");
        }
    }
}
