//! Addresses, as people write them: `"127.0.0.1:3000"`, `"https://host/path"`. Each names a JSON Schema `format`, and
//! the parser here is the only judge of it: the schema check calls it too.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// The schema format of addresses to listen on.
pub(crate) const LISTEN_ADDRESS: &str = "listen-address";
/// The schema format of a provider's base URL.
pub(crate) const HTTP_URL: &str = "http-base-url";

/// Reads an address to listen on; `localhost` stands for 127.0.0.1.
pub(crate) fn parse_listen_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// True for `http://host[:port][/path]` and `https://…` without user, query or fragment.
pub(crate) fn is_http_base_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let scheme_fits = matches!(uri.scheme_str(), Some("http" | "https"));
    // `http::Uri` drops a fragment without a word.
    let plain = uri.query().is_none() && !text.contains('#');
    let authority_fits = uri.authority().is_some_and(|authority| {
        !authority.host().is_empty() && !authority.as_str().contains('@') && has_fit_port(authority)
    });
    scheme_fits && plain && authority_fits
}

/// Whether the port, where there is one, can be connected to. `http::Uri` takes any number for one.
fn has_fit_port(authority: &http::uri::Authority) -> bool {
    let host = authority.host();
    let port = authority.as_str().rsplit_once(host).map(|(_, port)| port).unwrap_or_default();
    port.is_empty() || authority.port_u16().is_some_and(|port| port > 0)
}

/// A text that may be a URL, or was meant for one, as it may stand in a message: without login, query and fragment.
pub(crate) fn shown_url(text: &str) -> Cow<'_, str> {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let (is_url, colon) = (!scheme.is_empty(), if scheme.is_empty() { "" } else { "://" });
    // A password may hold any character, so it ends where the last `@` is.
    let place = match rest.rsplit_once('@') {
        Some((login, place)) if is_url || login.contains(':') => (place, "***@"),
        _ => (rest, ""),
    };
    let hidden = place.0.find(['?', '#']).filter(|at| is_url || place.0[*at..].contains('='));
    match (place, hidden) {
        ((_, ""), None) => Cow::Borrowed(text),
        ((place, login), None) => Cow::Owned(format!("{scheme}{colon}{login}{place}")),
        ((place, login), Some(at)) => Cow::Owned(format!("{scheme}{colon}{login}{}?***", &place[..at])),
    }
}

/// For `#[serde(with = "ListenAddress")]` on a [`SocketAddr`]: `"127.0.0.1:3000"`.
#[derive(Debug)]
pub(crate) struct ListenAddress;

impl ListenAddress {
    pub(crate) fn serialize<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(address)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        parse_listen_address(&text).ok_or_else(|| D::Error::custom("not an address with a port"))
    }
}

impl JsonSchema for ListenAddress {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ListenAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": LISTEN_ADDRESS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_urls() {
        for (text, expected) in [
            ("127.0.0.1:3000", Some("127.0.0.1:3000")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost", None),
            (":3000", None),
            ("example.org:3000", None),
        ] {
            assert_eq!(parse_listen_address(text).map(|a| a.to_string()).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("https://api.openai.com", true),
            ("http://127.0.0.1:8000/v1", true),
            ("http://[::1]:8000/", true),
            ("api.openai.com", false),
            ("ftp://host", false),
            ("https://user:pass@host", false),
            ("https://host/?a=b", false),
            ("https://host/#x", false),
            ("https://", false),
            ("http://h:65535", true),
            ("http://h:65536", false),
            ("http://h:99999/v1", false),
            ("http://h:0", false),
            ("http://h:", false),
            ("http://[::1]:99999", false),
        ] {
            assert_eq!(is_http_base_url(text), expected, "{text}");
        }
    }

    #[test]
    fn a_url_in_a_message_has_neither_login_nor_query() {
        for (text, expected) in [
            ("https://user:secret@host/path?key=secret#secret", "https://***@host/path?***"),
            ("https://user:s?/e@cret@host", "https://***@host"),
            ("https://host/?key=secret", "https://host/?***"),
            ("https://host#secret", "https://host?***"),
            ("ftp://secret@host", "ftp://***@host"),
            ("user:secret@host", "***@host"),
            ("host/v1?key=secret", "host/v1?***"),
            ("me@example.org", "me@example.org"),
            ("http://h:99999", "http://h:99999"),
            ("no URL at all?", "no URL at all?"),
        ] {
            assert_eq!(shown_url(text), expected, "{text}");
        }
    }
}
