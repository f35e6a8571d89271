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
    let authority_fits = uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'));
    scheme_fits && plain && authority_fits
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
        ] {
            assert_eq!(is_http_base_url(text), expected, "{text}");
        }
    }
}
