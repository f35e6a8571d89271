//! The built-in providers.

use super::url::MovedPath;
use crate::recorder::dialect::{Dialect, GROQ, OPENAI, XAI};

/// A provider as the gateway ships it. The configuration overrides any of it, or adds others.
#[derive(Debug)]
pub struct Provider {
    /// Its name in `x-provider` and in the configuration.
    pub name: &'static str,
    /// What comes before the client's `/v1/…`.
    pub base_url: &'static str,
    /// How to read its bodies.
    pub dialect: Dialect,
    /// The environment variable that, by custom, holds its API key; none where no key is needed.
    pub api_key_env: Option<&'static str>,
    /// The headers of its answers that name the request; the first that is there counts.
    pub request_id_headers: &'static [&'static str],
    /// Paths that it serves elsewhere than OpenAI does.
    pub moved_paths: &'static [MovedPath],
}

/// The headers that name a request, where nothing else is known of a provider.
pub const REQUEST_ID_HEADERS: &[&str] = &["x-request-id", "request-id"];

impl Provider {
    const fn new(name: &'static str, base_url: &'static str, api_key_env: &'static str) -> Self {
        Self { api_key_env: Some(api_key_env), ..Self::local(name, base_url) }
    }

    const fn local(name: &'static str, base_url: &'static str) -> Self {
        let (dialect, request_id_headers) = (OPENAI, REQUEST_ID_HEADERS);
        Self { name, base_url, dialect, api_key_env: None, request_id_headers, moved_paths: &[] }
    }
}

/// Every built-in provider.
#[must_use]
pub fn built_in() -> &'static [Provider] {
    TABLE
}

/// The built-in provider of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Provider> {
    TABLE.iter().find(|provider| provider.name == name)
}

static TABLE: &[Provider] = &[
    Provider::new("openai", "https://api.openai.com", "OPENAI_API_KEY"),
    Provider { dialect: GROQ, ..Provider::new("groq", "https://api.groq.com/openai", "GROQ_API_KEY") },
    Provider::new("together", "https://api.together.xyz", "TOGETHER_API_KEY"),
    Provider::new("fireworks", "https://api.fireworks.ai/inference", "FIREWORKS_API_KEY"),
    Provider {
        request_id_headers: &["mistral-correlation-id", "x-request-id"],
        ..Provider::new("mistral", "https://api.mistral.ai", "MISTRAL_API_KEY")
    },
    Provider {
        request_id_headers: &["x-ds-trace-id", "x-request-id"],
        ..Provider::new("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY")
    },
    Provider { dialect: XAI, ..Provider::new("xai", "https://api.x.ai", "XAI_API_KEY") },
    Provider {
        request_id_headers: &["x-generation-id", "x-request-id"],
        ..Provider::new("openrouter", "https://openrouter.ai/api", "OPENROUTER_API_KEY")
    },
    Provider {
        // Its documentation names `/chat/completions` for OpenAI's clients; `/v1/responses` and others are where
        // OpenAI has them.
        moved_paths: &[("/v1/chat/completions", "/chat/completions")],
        ..Provider::new("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY")
    },
    Provider::local("ollama", "http://127.0.0.1:11434"),
    Provider::local("vllm", "http://127.0.0.1:8000"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        providers::{join, relocate},
        recorder::dialect::{self, Api},
    };

    #[test]
    fn every_provider_has_its_own_name_and_a_chat_address() {
        let names: HashSet<_> = built_in().iter().map(|provider| provider.name).collect();
        assert_eq!(names.len(), built_in().len());
        for provider in built_in() {
            assert_eq!(find(provider.name).map(|found| found.base_url), Some(provider.base_url));
            let path = relocate(provider.moved_paths, "/v1/chat/completions");
            let address = join(provider.base_url, &path);
            assert!(address.ends_with("/chat/completions"), "{address}");
            assert_eq!(provider.dialect.api(&path), Api::ChatCompletions, "{}", provider.name);
            assert_eq!(dialect::by_kind(provider.dialect.kind()), Some(provider.dialect));
            assert!(!provider.request_id_headers.is_empty());
        }
    }

    #[test]
    fn path_prefixes_of_providers_come_before_the_clients_path() {
        for (name, path, expected) in [
            ("groq", "/v1/models?x=1", "https://api.groq.com/openai/v1/models?x=1"),
            ("fireworks", "/v1/completions", "https://api.fireworks.ai/inference/v1/completions"),
            ("openrouter", "/v1/chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
            ("perplexity", "/v1/chat/completions?a=b", "https://api.perplexity.ai/chat/completions?a=b"),
            ("perplexity", "/v1/responses", "https://api.perplexity.ai/v1/responses"),
            ("ollama", "/v1/embeddings", "http://127.0.0.1:11434/v1/embeddings"),
        ] {
            let provider = find(name).unwrap();
            assert_eq!(join(provider.base_url, &relocate(provider.moved_paths, path)), expected);
        }
    }
}
