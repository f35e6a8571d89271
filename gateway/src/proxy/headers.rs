//! Headers on their way through: what is taken off, what is read, what is put on.

use http::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use crate::{
    recorder::{self, Identity, MAX_ID_BYTES},
    settings::Secret,
};

pub(super) const X_PROVIDER: HeaderName = HeaderName::from_static("x-provider");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Where clients put keys, beside `Authorization`: Anthropic, Azure, Google.
static KEYS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// Takes off what concerns one connection only, see RFC 9110, section 7.6.1.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Takes the telemetry headers off and reads them, as far as [`MAX_ID_BYTES`] allows.
pub(super) fn take_identity(headers: &mut HeaderMap) -> Identity {
    let mut take = |name: &'static str| {
        let text = take_text(headers, &HeaderName::from_static(name))?;
        Some(if text.len() > MAX_ID_BYTES { recorder::cut(&text, MAX_ID_BYTES).to_owned() } else { text })
    };
    let british = take("x-organisation-id");
    let american = take("x-organization-id");
    Identity {
        thread_id: take("x-thread-id"),
        org_id: british.or(american),
        user_id: take("x-user-id"),
        project_id: take("x-project-id"),
        project_name: take("x-project-name"),
        experiment_id: take("x-experiment-id"),
        client_request_id: take("x-request-id"),
    }
}

/// Takes a header off; its text, if it is text and not blank.
pub(super) fn take_text(headers: &mut HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.remove(name)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// What the client proves itself with, one header a line, for the record's mask.
pub(super) fn credential(headers: &HeaderMap) -> Option<Secret> {
    let keys = KEYS.iter().filter_map(|name| headers.get(name));
    let sent = headers.get(header::AUTHORIZATION).into_iter().chain(keys);
    let sent = sent.filter_map(|value| value.to_str().ok()).chain(key_in_protocol(headers));
    let text = sent.fold(
        String::new(),
        |text, value| {
            if text.is_empty() { value.to_owned() } else { text + "\n" + value }
        },
    );
    (!text.is_empty()).then(|| Secret::new(text))
}

/// The client's own credentials go first; the configured ones fill in. Two kinds of them at once are never sent: which
/// one counts would be the provider's choice.
pub(super) fn authorize(headers: &mut HeaderMap, credentials: Option<&HeaderValue>) {
    if let Some(credentials) = credentials
        && !has_credentials(headers)
    {
        headers.insert(header::AUTHORIZATION, credentials.clone());
    }
}

fn has_credentials(headers: &HeaderMap) -> bool {
    let is_given = |name| headers.get(name).is_some_and(|value| !value.as_bytes().trim_ascii().is_empty());
    headers.contains_key(header::AUTHORIZATION)
        || KEYS.iter().any(is_given)
        || key_in_protocol(headers).is_some()
}

/// How browsers, which can set no other header, open a session of OpenAI's realtime API.
fn key_in_protocol(headers: &HeaderMap) -> Option<&str> {
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut names = protocols.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    names.find_map(|name| name.trim().strip_prefix("openai-insecure-api-key."))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::proxy) fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_concerns_one_connection_only_is_taken_off() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-checksum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("content-type", "application/json"),
            ("x-custom", "2"),
        ]);
        remove_hop_by_hop(&mut headers);
        let rest = [("trailer", "x-checksum"), ("content-type", "application/json"), ("x-custom", "2")];
        assert_eq!(headers, map(&rest));
    }

    #[test]
    fn telemetry_headers_are_read_and_taken_off() {
        let mut headers = map(&[
            ("x-organization-id", "us"),
            ("x-user-id", "  user_456 "),
            ("x-project-id", ""),
            ("x-thread-id", "thread_29"),
            ("authorization", "Bearer x"),
        ]);
        let identity = take_identity(&mut headers);
        assert_eq!(identity.org_id.as_deref(), Some("us"));
        assert_eq!(identity.user_id.as_deref(), Some("user_456"));
        assert_eq!(identity.project_id, None);
        assert_eq!(identity.thread_id.as_deref(), Some("thread_29"));
        assert_eq!(headers, map(&[("authorization", "Bearer x")]));
    }

    #[test]
    fn a_telemetry_header_of_any_length_is_cut() {
        let mut headers = HeaderMap::new();
        headers.insert("x-thread-id", HeaderValue::try_from("ü".repeat(30_000)).unwrap());
        let thread_id = take_identity(&mut headers).thread_id.unwrap();
        assert_eq!(thread_id, "ü".repeat(MAX_ID_BYTES / 2));
        assert_eq!(thread_id.capacity(), MAX_ID_BYTES);
    }

    #[test]
    fn both_spellings_of_organisation_are_understood_and_the_guides_goes_first() {
        let mut headers = map(&[("x-organization-id", "american"), ("x-organisation-id", "british")]);
        assert_eq!(take_identity(&mut headers).org_id.as_deref(), Some("british"));
        assert!(headers.is_empty());
    }

    #[test]
    fn all_that_a_client_proves_itself_with_is_known_to_the_mask() {
        let headers = map(&[
            ("authorization", "Bearer a"),
            ("x-api-key", "b"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.c, openai-beta.realtime-v1"),
        ]);
        assert_eq!(credential(&headers).unwrap().expose(), "Bearer a\nb\nc");
    }

    #[test]
    fn configured_credentials_only_fill_in() {
        let ours = HeaderValue::from_static("Bearer ours");
        let mut headers = map(&[("authorization", "Bearer theirs")]);
        authorize(&mut headers, Some(&ours));
        assert_eq!(headers["authorization"], "Bearer theirs");
        let mut headers = HeaderMap::new();
        authorize(&mut headers, Some(&ours));
        assert_eq!(headers["authorization"], "Bearer ours");
        authorize(&mut headers, None);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_client_with_a_key_of_its_own_gets_no_second_one() {
        let ours = HeaderValue::from_static("Bearer ours");
        for (given, expected) in [
            (("x-api-key", "theirs"), false),
            (("api-key", "theirs"), false),
            (("x-goog-api-key", "theirs"), false),
            (("sec-websocket-protocol", "realtime, openai-insecure-api-key.theirs"), false),
            (("sec-websocket-protocol", "realtime"), true),
            (("x-api-key", " "), true),
            (("x-other", "theirs"), true),
        ] {
            let mut headers = map(&[given]);
            authorize(&mut headers, Some(&ours));
            assert_eq!(headers.contains_key("authorization"), expected, "{given:?}");
        }
    }
}
