//! OpenAI, and the many that speak as it does. The base of every dialect: see the defaults of [`Grammar`].

use super::Grammar;

pub(super) struct OpenAi;

impl Grammar for OpenAi {
    fn kind(&self) -> &'static str {
        "openai"
    }
}
