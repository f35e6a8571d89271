//! Which client does what, and of what it tells its caller nothing.

use end_to_end::RealClient;

pub(super) struct Row {
    /// What every client does that has words for answers.
    chats: &'static [&'static str],
    more: &'static [&'static str],
    /// By scenario, `*` for all others.
    pub(super) silent: &'static [(&'static str, &'static [&'static str])],
    /// Those that the real model is asked as well.
    pub(super) real: &'static [&'static str],
}

impl Row {
    pub(super) fn scenarios(&self) -> impl Iterator<Item = &'static str> {
        [self.chats, self.more].into_iter().flatten().copied()
    }
}

const CHATS: &[&str] =
    &["chat", "chat_stream", "tools", "tools_stream", "parse", "responses", "responses_stream"];
const ALL_BUT_CHATS: &[&str] = &["embeddings", "transcription", "speech", "files"];
const EMBEDDINGS: &[&str] = &["embeddings"];
const REAL: &[&str] = &["chat", "chat_stream", "embeddings"];

const OPENAI: Row = Row {
    chats: CHATS,
    more: ALL_BUT_CHATS,
    silent: &[("speech", &["model"]), ("transcription", &["model"])],
    real: REAL,
};

const LANGCHAIN: Row = Row {
    chats: CHATS,
    more: EMBEDDINGS,
    silent: &[("embeddings", &["model", "usage"]), ("chat_stream", &["id"]), ("tools_stream", &["id"])],
    real: REAL,
};

const VERCEL_AI: Row = Row {
    chats: CHATS,
    more: &["embeddings", "transcription", "speech"],
    silent: &[
        ("embeddings", &["model"]),
        ("responses", &["finish_reason"]),
        ("responses_stream", &["finish_reason"]),
        ("speech", &["model"]),
        ("transcription", &["model", "usage"]),
    ],
    real: REAL,
};

const LITELLM: Row = Row {
    chats: CHATS,
    more: ALL_BUT_CHATS,
    silent: &[
        ("chat_stream", &["model"]),
        ("tools_stream", &["model"]),
        ("speech", &["model"]),
        ("transcription", &["model", "usage"]),
    ],
    real: REAL,
};

const OPENAI_AGENTS: Row = Row {
    chats: CHATS,
    more: &["responses_tools"],
    silent: &[
        ("responses", &["finish_reason", "model"]),
        ("responses_stream", &["finish_reason", "model"]),
        ("responses_tools", &["finish_reason", "model"]),
        ("*", &["finish_reason", "id", "model"]),
    ],
    real: &["chat", "chat_stream"],
};

const PYDANTIC_AI: Row = Row { chats: CHATS, more: EMBEDDINGS, silent: &[], real: REAL };

const INSTRUCTOR: Row = Row {
    chats: &[],
    more: &["parse", "parse_by_schema", "parse_stream"],
    silent: &[("parse_stream", &["tool_calls", "finish_reason", "id", "model", "usage"])],
    real: &[],
};

pub(super) const fn row(client: RealClient) -> Row {
    match client {
        RealClient::OpenaiPython | RealClient::OpenaiNode => OPENAI,
        RealClient::LangChain => LANGCHAIN,
        RealClient::VercelAi => VERCEL_AI,
        RealClient::LiteLlm => LITELLM,
        RealClient::OpenaiAgents => OPENAI_AGENTS,
        RealClient::PydanticAi => PYDANTIC_AI,
        RealClient::Instructor => INSTRUCTOR,
    }
}
