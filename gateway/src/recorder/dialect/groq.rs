//! Groq: as OpenAI, with an `x_groq` object that carries the request's id and, in the last chunk of a stream, the usage.

use std::borrow::Cow;

use super::Grammar;
use crate::recorder::{json::Fields, usage::Usage};

pub(super) struct Groq;

impl Grammar for Groq {
    fn kind(&self) -> &'static str {
        "groq"
    }

    fn usage(&self, answer: &Fields<'_>) -> Option<Usage> {
        Usage::of(answer).or_else(|| Usage::of(&answer.object("x_groq")))
    }

    fn request_id<'a>(&self, answer: &'a Fields<'_>) -> Option<Cow<'a, str>> {
        answer.object("x_groq").text("id").map(|id| Cow::Owned(id.into_owned()))
    }
}
