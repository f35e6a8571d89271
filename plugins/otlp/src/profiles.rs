//! Backends that want something of their own: a row each, and no code. A row is here when its facts stood on the vendor's own
//! page, which it names.

use plugin_api::{Field, InitError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Protocol, Signal},
    names::{Attribute, Source, row},
};

/// The backends with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// Braintrust.
    Braintrust,
    /// Honeycomb.
    Honeycomb,
    /// Langfuse.
    Langfuse,
    /// Arize Phoenix.
    Phoenix,
    /// Weave, of Weights & Biases.
    Weave,
}

/// What a backend wants.
#[derive(Debug)]
pub struct Profile {
    /// Which one it is.
    pub name: Name,
    /// The `endpoint` where none is set.
    pub endpoint: &'static str,
    /// The `signals` where none are set.
    pub signals: &'static [Signal],
    /// Protocols that it takes.
    pub protocols: &'static [Protocol],
    /// Headers that the operator has to set, each with what it holds.
    pub required_headers: &'static [(&'static str, &'static str)],
    /// Attributes of the resource that the operator has to set.
    pub required_resource: &'static [&'static str],
    /// Headers that every request has.
    pub headers: &'static [(&'static str, &'static str)],
    /// Attributes beside the conventions', under names that it reads.
    pub attributes: &'static [Attribute],
}

const TRACES: &[Signal] = &[Signal::Traces];
const HTTP: &[Protocol] = &[Protocol::Http, Protocol::HttpJson];
const ANY: &[Protocol] = &[Protocol::Http, Protocol::HttpJson, Protocol::Grpc];

/// The rows.
pub const PROFILES: &[Profile] = &[
    // https://www.braintrust.dev/docs/integrations/opentelemetry
    Profile {
        name: Name::Braintrust,
        endpoint: "https://api.braintrust.dev/otel",
        signals: TRACES,
        protocols: HTTP,
        required_headers: &[
            ("authorization", "`Bearer` and an API key"),
            ("x-bt-parent", "where spans go, such as `project_name:mine`"),
        ],
        required_resource: &[],
        headers: &[],
        attributes: &[],
    },
    // https://docs.honeycomb.io/send-data/opentelemetry: `x-honeycomb-dataset` names the dataset of metrics.
    Profile {
        name: Name::Honeycomb,
        endpoint: "https://api.honeycomb.io",
        signals: &Signal::ALL,
        protocols: ANY,
        required_headers: &[("x-honeycomb-team", "an ingest key")],
        required_resource: &[],
        headers: &[],
        attributes: &[],
    },
    // https://langfuse.com/integrations/native/opentelemetry
    Profile {
        name: Name::Langfuse,
        endpoint: "https://cloud.langfuse.com/api/public/otel",
        signals: TRACES,
        protocols: HTTP,
        required_headers: &[("authorization", "`Basic` and the Base64 of public key, colon and secret key")],
        required_resource: &[],
        headers: &[("x-langfuse-ingestion-version", "4")],
        attributes: &[
            row("langfuse.session.id", Source::Conversation),
            row("langfuse.user.id", Source::Text(Field::UserId)),
            row("gen_ai.usage.cost", Source::Number(Field::Cost)),
        ],
    },
    // `arize-phoenix` 20.26 itself: it answers 405 to logs, and reads the conventions' names. A key is for servers with
    // authentication alone.
    Profile {
        name: Name::Phoenix,
        endpoint: "http://localhost:6006",
        signals: TRACES,
        protocols: &[Protocol::Http, Protocol::Grpc],
        required_headers: &[],
        required_resource: &[],
        headers: &[],
        attributes: &[],
    },
    // https://docs.wandb.ai/weave/guides/tracking/otel
    Profile {
        name: Name::Weave,
        endpoint: "https://trace.wandb.ai/otel",
        signals: TRACES,
        protocols: &[Protocol::Http],
        required_headers: &[("wandb-api-key", "an API key")],
        required_resource: &["wandb.entity", "wandb.project"],
        headers: &[],
        attributes: &[],
    },
];

/// The row of a backend.
#[must_use]
pub fn profile(name: Name) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

impl Profile {
    /// Whether the settings have what the backend wants.
    ///
    /// # Errors
    /// What they lack.
    pub fn check(&self, config: &Config) -> Result<(), InitError> {
        let lacks = |what: String| Err(InitError::invalid_config(format!("profile {:?}: {what}", self.name)));
        for signal in config.signals() {
            let own = config.of(signal);
            let protocol = own.protocol.unwrap_or(config.protocol);
            if !self.protocols.contains(&protocol) {
                return lacks(format!("it does not take {} by this protocol", signal.name()));
            }
            let headers = if own.headers.0.is_empty() { &config.headers } else { own.headers };
            let has = |name: &str| headers.0.keys().any(|key| key.eq_ignore_ascii_case(name));
            // What stands in a file is the file's business.
            let missing = self.required_headers.iter().find(|(name, _)| !has(name));
            if let Some((name, holds)) = missing.filter(|_| config.headers_file.is_none()) {
                return lacks(format!("headers lack `{name}`: {holds}"));
            }
        }
        let attributes = &config.resource_attributes.0;
        match self.required_resource.iter().find(|name| !attributes.contains_key(**name)) {
            Some(name) => lacks(format!("resource_attributes lack `{name}`")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(settings: &Value) -> Config {
        serde_json::from_value(settings.clone()).unwrap()
    }

    #[test]
    fn every_backend_has_a_row() {
        for name in ["braintrust", "honeycomb", "langfuse", "phoenix", "weave"] {
            let config = config(&json!({ "profile": name }));
            assert!(profile(config.profile.unwrap()).is_some(), "{name}");
        }
    }

    #[test]
    fn a_profile_sets_what_is_not_set() {
        for (settings, signals, endpoint) in [
            (json!({}), &Signal::ALL[..], None),
            (json!({ "profile": "phoenix" }), TRACES, Some("http://localhost:6006")),
            (json!({ "profile": "honeycomb" }), &Signal::ALL, Some("https://api.honeycomb.io")),
            (
                json!({ "profile": "langfuse", "signals": ["traces", "metrics"], "endpoint": "http://l:3000/api/public/otel" }),
                &[Signal::Traces, Signal::Metrics],
                Some("http://l:3000/api/public/otel"),
            ),
        ] {
            let config = config(&settings);
            assert_eq!((config.signals(), config.endpoint()), (signals.to_vec(), endpoint), "{settings}");
        }
    }

    #[test]
    fn what_a_backend_wants_is_asked_for() {
        for (settings, expected) in [
            (json!({ "profile": "phoenix" }), None),
            (
                json!({ "profile": "phoenix", "protocol": "http/json" }),
                Some("it does not take traces by this protocol"),
            ),
            (json!({ "profile": "langfuse" }), Some("headers lack `authorization`: `Basic` and")),
            (json!({ "profile": "langfuse", "headers": "Authorization=Basic%20x" }), None),
            (json!({ "profile": "langfuse", "traces_headers": "authorization=Basic%20x" }), None),
            (json!({ "profile": "langfuse", "headers_file": "/etc/keys" }), None),
            (
                json!({ "profile": "braintrust", "headers": "authorization=x" }),
                Some("headers lack `x-bt-parent`"),
            ),
            (
                json!({ "profile": "weave", "headers": "wandb-api-key=x", "resource_attributes": "wandb.entity=e" }),
                Some("resource_attributes lack `wandb.project`"),
            ),
            (
                json!({ "profile": "weave", "headers": "wandb-api-key=x",
                "resource_attributes": "wandb.entity=e,wandb.project=p" }),
                None,
            ),
        ] {
            let config = config(&settings);
            let found =
                profile(config.profile.unwrap()).unwrap().check(&config).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(found, None, "{settings}"),
                Some(expected) => {
                    assert!(found.as_ref().unwrap().contains(expected), "{settings}: {found:?}");
                }
            }
        }
    }
}
