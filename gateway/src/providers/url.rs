//! Where a request goes: the provider's base address with the client's path and query.

use std::borrow::Cow;

/// A path as clients know it, and the path at which a provider serves it.
pub type MovedPath = (&'static str, &'static str);

/// The client's path and query, with a moved path put in place.
#[must_use]
pub fn relocate<'a>(moved: &[MovedPath], path_and_query: &'a str) -> Cow<'a, str> {
    let path = path_and_query.split('?').next().unwrap_or_default();
    match moved.iter().find(|(known, _)| *known == path) {
        Some((_, place)) => Cow::Owned(format!("{place}{}", &path_and_query[path.len()..])),
        None => Cow::Borrowed(path_and_query),
    }
}

/// Joins a base address and a path with query. The path is kept byte for byte; a base that ends in `/v1` is not doubled
/// before a path that begins with it.
#[must_use]
pub fn join(base: &str, path_and_query: &str) -> String {
    let base = base.trim_end_matches('/');
    let base = match base.strip_suffix("/v1") {
        Some(root) if begins_with_v1(path_and_query) => root,
        _ => base,
    };
    format!("{base}{path_and_query}")
}

fn begins_with_v1(path_and_query: &str) -> bool {
    path_and_query.strip_prefix("/v1").is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/' | b'?', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_takes_the_clients_path_and_query_as_they_are() {
        let chat = "/v1/chat/completions";
        for (base, path, expected) in [
            ("https://api.openai.com", chat, "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/", chat, "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/v1", chat, "https://api.openai.com/v1/chat/completions"),
            ("https://api.openai.com/v1/", chat, "https://api.openai.com/v1/chat/completions"),
            ("https://api.groq.com/openai/v1", chat, "https://api.groq.com/openai/v1/chat/completions"),
            ("http://127.0.0.1:8000", "/v1", "http://127.0.0.1:8000/v1"),
            ("http://127.0.0.1:8000/v1", "/v1?a=b", "http://127.0.0.1:8000/v1?a=b"),
            ("http://127.0.0.1:8000/v1", "/v12/x", "http://127.0.0.1:8000/v1/v12/x"),
            ("http://127.0.0.1:8000/v1", "/models", "http://127.0.0.1:8000/v1/models"),
            ("http://h/api/v1", "/v1beta/models/x:y", "http://h/api/v1/v1beta/models/x:y"),
            ("http://h/xv1", "/v1/a", "http://h/xv1/v1/a"),
            (
                "http://h",
                "/v1/a%20b/%C3%BC//c/../d?q=%2F&&r=+ü",
                "http://h/v1/a%20b/%C3%BC//c/../d?q=%2F&&r=+ü",
            ),
        ] {
            assert_eq!(join(base, path), expected, "{base} + {path}");
        }
    }
}
