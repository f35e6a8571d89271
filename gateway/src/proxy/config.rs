//! `[proxy]` and `[providers.NAME]`: where requests go.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::strip;
use crate::recorder::dialect::{self, Dialect};
use crate::settings::{HumanDuration, SchemaProblem, Secret, address::HTTP_URL};

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The provider of a request without the header x-provider.
    pub default_provider: String,
    /// Headers that no request takes along to a provider; a "*" at the end stands for any rest of a name.
    pub strip_headers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_provider: "openai".to_owned(),
            strip_headers: strip::DEFAULT.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

impl Config {
    /// The rules no schema can say.
    pub(crate) fn check(&self, problems: &mut Vec<SchemaProblem>) {
        for (index, name) in self.strip_headers.iter().enumerate() {
            if !strip::is_pattern(name) {
                problems.push(SchemaProblem::new(
                    format!("/proxy/strip_headers/{index}"),
                    format!("{name:?} is not a header's name"),
                    "write a name such as \"via\", or the beginning of one such as \"x-forwarded-*\"",
                ));
            }
        }
    }
}

/// A provider: overrides a built-in one of that name, or adds one. Absent keys keep the built-in value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// The API that the provider speaks; "openai" for every compatible server.
    #[schemars(example = Kind(Dialect::default()))]
    pub kind: Option<Kind>,
    /// Where the provider is; the client's path is appended, and a base that ends in /v1 is not doubled.
    #[schemars(extend("format" = HTTP_URL, "x-in-example" = true), example = "http://127.0.0.1:8000")]
    pub base_url: Option<String>,
    /// The key that is sent when the client sends none; empty is none.
    #[schemars(example = "${MY_PROVIDER_API_KEY:-}")]
    pub api_key: Option<Secret>,
    /// A file that holds the key, instead of `api_key`.
    #[schemars(example = "/run/secrets/my-provider-key")]
    pub api_key_file: Option<PathBuf>,
    /// A PEM file with the certificates of a private authority, trusted for this provider besides the system's.
    #[schemars(example = "/etc/ssl/private-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// When to speak HTTP/2.
    pub http2: Http2,
    /// How long to wait. There is no total limit: long streams are normal.
    pub timeout: Timeout,
}

/// The dialect of a provider, by its name in the table of dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(Dialect);

/// When HTTP/2 is spoken to a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Http2 {
    /// When TLS negotiates it; HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Never,
    /// HTTP/2 only, without TLS by prior knowledge.
    Always,
}

/// How long to wait for a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeout {
    /// Until a connection stands, TLS and the greetings of HTTP/2 included.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub connect: Duration,
    /// From the end of the request until the answer's head. The provider has as long to take each piece of a large request.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub first_byte: Duration,
    /// Between two pieces of the answer.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub idle: Duration,
    /// Between two pieces of a WebSocket, in either direction. A ping is one.
    #[serde(with = "HumanDuration")]
    #[schemars(extend("x-min" = "1ms"))]
    pub websocket_idle: Duration,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            // As long as the official SDKs wait (5 s, and 10 min for any piece): a model may reason for minutes in silence.
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(600),
            websocket_idle: Duration::from_secs(600),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.kind())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        dialect::by_kind(&name).map(Self).ok_or_else(|| D::Error::custom("no such kind"))
    }
}

impl JsonSchema for Kind {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Kind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": dialect::kinds().collect::<Vec<_>>() })
    }
}

impl Provider {
    /// The dialect that the configuration names, if it names one.
    pub fn dialect(&self) -> Option<Dialect> {
        self.kind.map(|kind| kind.0)
    }

    /// The rules no schema can say. `at` is the provider's place, `known` whether it is a built-in one.
    pub(crate) fn check(&self, at: &str, known: bool, problems: &mut Vec<SchemaProblem>) {
        if self.base_url.is_none() && !known {
            problems.push(SchemaProblem::new(
                format!("{at}/base_url"),
                "missing, and no built-in provider has this name",
                "give it the server's address, or use a built-in name",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_built_in_provider_can_do_without_an_address() {
        let with_url = Provider { base_url: Some("http://x".into()), ..Provider::default() };
        for (provider, known, expected) in
            [(&Provider::default(), true, 0), (&Provider::default(), false, 1), (&with_url, false, 0)]
        {
            let mut problems = Vec::new();
            provider.check("/providers/x", known, &mut problems);
            assert_eq!(problems.len(), expected);
        }
    }

    #[test]
    fn every_dialect_can_be_named() {
        for kind in dialect::kinds() {
            let provider: Provider = serde_json::from_value(json!({ "kind": kind })).unwrap();
            assert_eq!(provider.dialect().map(Dialect::kind), Some(kind));
            assert_eq!(serde_json::to_value(&provider).unwrap()["kind"], kind);
        }
        assert!(serde_json::from_value::<Provider>(json!({ "kind": "cobol" })).is_err());
        assert_eq!(Provider::default().dialect(), None);
    }
}
