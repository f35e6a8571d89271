//! What a request does: by its method and the shape of its path.

/// What kind of work a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A model makes something.
    Inference,
    /// A model makes vectors.
    Embeddings,
    /// Nobody knows: a path that has no name here.
    Unknown,
    /// None: what was made before is fetched, listed, changed or cancelled. Tokens in such an answer were reported when
    /// they were used.
    None,
}

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// `gen_ai.operation.name`
    pub name: &'static str,
    /// What kind of work it is.
    pub work: Work,
}

/// `POST`s by how their path ends, first match first.
const ENDS: &[(&str, Operation)] = &[
    ("/chat/completions", CHAT),
    ("/messages", CHAT),
    ("/responses", CHAT),
    ("/converse", CHAT),
    ("/converse-stream", CHAT),
    ("/completions", inference("text_completion")),
    ("/embeddings", Operation { name: "embeddings", work: Work::Embeddings }),
    (":generateContent", CONTENT),
    (":streamGenerateContent", CONTENT),
    ("/images/generations", CONTENT),
    ("/images/edits", CONTENT),
    ("/images/variations", CONTENT),
    ("/audio/speech", CONTENT),
    ("/audio/transcriptions", CONTENT),
    ("/audio/translations", CONTENT),
];
const CHAT: Operation = inference("chat");
const CONTENT: Operation = inference("generate_content");
/// An answer that was made before is fetched by its id.
const FETCH: Operation = Operation { name: "fetch_response", work: Work::None };
/// The name of any other operation. Not the path itself: a client chooses that.
const OTHER: &str = "other";
/// What lies below these was made before, or is no answer.
const COLLECTIONS: [&str; 3] = ["/responses/", "/chat/completions/", "/threads/"];

const fn inference(name: &'static str) -> Operation {
    Operation { name, work: Work::Inference }
}

/// The operation of a request.
#[must_use]
pub fn operation(method: &str, path: &str) -> Operation {
    let path = path.trim_end_matches('/');
    let below = COLLECTIONS
        .iter()
        .find_map(|collection| path.split_once(collection).map(|(_, id)| (*collection, id)));
    match (method, below) {
        ("GET", Some(("/responses/" | "/chat/completions/", id))) if !id.contains('/') => FETCH,
        ("POST", None) => ENDS
            .iter()
            .find(|(end, _)| path.ends_with(end))
            .map_or(Operation { name: OTHER, work: Work::Unknown }, |(_, operation)| *operation),
        // A WebSocket.
        ("GET", None) if path.ends_with("/realtime") => Operation { name: OTHER, work: Work::Unknown },
        _ => Operation { name: OTHER, work: Work::None },
    }
}

/// `openai.api.type` of an operation on this path.
#[must_use]
pub fn api_type(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    let is = |name: &str| path.ends_with(name) || path.contains(&format!("{name}/"));
    if is("/chat/completions") { Some("chat_completions") } else { is("/responses").then_some("responses") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_path_stand_for_an_operation() {
        for (request, name, work) in [
            ("POST /v1/chat/completions", "chat", Work::Inference),
            ("POST /openai/v1/chat/completions/", "chat", Work::Inference),
            ("POST /v1/messages", "chat", Work::Inference),
            ("POST /v1/responses", "chat", Work::Inference),
            ("POST /model/anthropic.claude/converse-stream", "chat", Work::Inference),
            ("POST /v1/completions", "text_completion", Work::Inference),
            ("POST /v1/embeddings", "embeddings", Work::Embeddings),
            ("POST /v1beta/models/gemini-2.0:streamGenerateContent", "generate_content", Work::Inference),
            ("POST /v1/images/generations", "generate_content", Work::Inference),
            ("POST /v1/audio/transcriptions", "generate_content", Work::Inference),
            ("GET /v1/responses/resp_1", "fetch_response", Work::None),
            ("GET /v1/chat/completions/chatcmpl-1", "fetch_response", Work::None),
            ("GET /v1/responses/resp_1/input_items", "other", Work::None),
            ("GET /v1/chat/completions", "other", Work::None),
            ("GET /v1/models", "other", Work::None),
            ("DELETE /v1/responses/resp_1", "other", Work::None),
            ("POST /v1/responses/resp_1/cancel", "other", Work::None),
            ("POST /v1/chat/completions/chatcmpl-1", "other", Work::None),
            ("POST /v1/threads/t/messages", "other", Work::None),
            ("GET /v1/threads/t/messages", "other", Work::None),
            ("GET /v1/realtime", "other", Work::Unknown),
            ("POST /v1/messages/count_tokens", "other", Work::Unknown),
            ("POST /v1/rerank", "other", Work::Unknown),
            ("POST ", "other", Work::Unknown),
        ] {
            let (method, path) = request.split_once(' ').unwrap();
            assert_eq!(operation(method, path), Operation { name, work }, "{request}");
        }
    }

    #[test]
    fn a_path_says_which_of_openais_apis_it_is() {
        for (path, expected) in [
            ("/v1/chat/completions", Some("chat_completions")),
            ("/v1/chat/completions/c1", Some("chat_completions")),
            ("/v1/responses", Some("responses")),
            ("/v1/responses/r1", Some("responses")),
            ("/v1/completions", None),
            ("/v1/embeddings", None),
        ] {
            assert_eq!(api_type(path), expected, "{path}");
        }
    }
}
