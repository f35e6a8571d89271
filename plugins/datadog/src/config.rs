//! The settings: `[plugin.config]`.

use std::path::PathBuf;

use exporter_kit::{
    http::{self, Url},
    record_tags::{RecordTag, RecordTags},
    settings::{self, HumanDuration, Secret},
    tls::Tls,
};
use plugin_api::{Content, ContentNeed, InitError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::tag;

/// Settings of the Datadog exporter.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// API key of the organisation. Required, here or in `api_key_file`.
    #[schemars(extend("x-env" = "DD_API_KEY"))]
    pub api_key: Option<Secret>,
    /// A file that holds the API key, in the place of `api_key`. It is read once, at the start.
    pub api_key_file: Option<PathBuf>,
    /// The Datadog site that the key belongs to: `datadoghq.com`, `us3.datadoghq.com`, `us5.datadoghq.com`,
    /// `datadoghq.eu`, `ap1.datadoghq.com`, `ap2.datadoghq.com`, `uk1.datadoghq.com`, `ddog-gov.com` or
    /// `us2.ddog-gov.com`. Another one needs `logs_url` and `api_url` beside it.
    #[serde(default = "default_site")]
    #[schemars(extend("x-env" = "DD_SITE"))]
    pub site: String,
    /// Where logs go, for PrivateLink or a proxy, such as `https://proxy.internal:8443`. Default:
    /// `https://http-intake.logs.` and the site.
    pub logs_url: Option<String>,
    /// Where metrics, spans and the check of the key go. Default: `https://api.` and the site.
    pub api_url: Option<String>,
    /// `env` of everything that is sent. Default: the gateway's `telemetry.environment`.
    #[schemars(extend("x-env" = "DD_ENV"))]
    pub env: Option<String>,
    /// `service` of everything that is sent. Default: the gateway's `telemetry.service_name`.
    #[schemars(extend("x-env" = "DD_SERVICE"))]
    pub service: Option<String>,
    /// `version` of everything that is sent. Default: the gateway's version.
    #[schemars(extend("x-env" = "DD_VERSION"))]
    pub version: Option<String>,
    /// More tags for everything that is sent, each `key:value`, such as `["team:llm", "region:eu"]`. At most 50. The
    /// variable holds them with commas or spaces between them.
    #[serde(default)]
    #[schemars(extend("x-env" = "DD_TAGS"))]
    pub tags: Vec<String>,
    /// Tags that show what a record says: a tag's key, and a field of the record or a place in a body, such as
    /// `{ team = "project_id", tier = "response:/service_tier" }`. At most 20.
    #[serde(default)]
    pub record_tags: RecordTags,
    /// Values of each of these tags in metrics, 0 to 10,000; further ones are `other`. Datadog bills every combination of
    /// tags.
    #[serde(default = "default_max_tag_values")]
    #[schemars(range(max = 10_000))]
    pub max_tag_values: usize,
    /// `hostname` of logs and metrics. Default: the machine's name. `""`: none.
    #[schemars(extend("x-env" = "DD_HOSTNAME"))]
    pub hostname: Option<String>,
    /// `ddsource` of logs; it selects the log pipeline in Datadog.
    #[serde(default = "default_source")]
    pub source: String,
    /// Whether records are sent as logs.
    #[serde(default = "yes")]
    pub logs: bool,
    /// Whether metrics are sent: durations, tokens and cost, as distributions.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// First part of the metrics' names.
    #[serde(default = "default_prefix")]
    #[schemars(extend("pattern" = "^[A-Za-z]([A-Za-z0-9_.]{0,98}[A-Za-z0-9_])?$"))]
    pub metric_prefix: String,
    /// Model names that have a `model` tag of their own in metrics, 0 to 10,000; further ones are `other`. Clients
    /// choose model names, and Datadog bills every combination of tags.
    #[serde(default = "default_max_models")]
    #[schemars(range(max = 10_000))]
    pub max_models: usize,
    /// Whether requests are sent as spans of LLM Observability, with messages where the plugin's `content` is `full`.
    /// Not on the government sites.
    #[serde(default)]
    pub llm_observability: bool,
    /// `ml_app` of the spans. Default: the service.
    #[schemars(extend("x-env" = "DD_LLMOBS_ML_APP"))]
    pub ml_app: Option<String>,
    /// Time for one request to Datadog, from 100 ms to 5 minutes.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-min" = "100ms", "x-max" = "5m"))]
    pub timeout: HumanDuration,
    /// TLS to Datadog, or to what stands before it.
    #[serde(default)]
    pub tls: Tls,
}

fn default_site() -> String {
    "datadoghq.com".to_owned()
}

fn default_source() -> String {
    "magicapi-gateway".to_owned()
}

fn default_prefix() -> String {
    "magicapi".to_owned()
}

fn default_max_models() -> usize {
    100
}

fn default_max_tag_values() -> usize {
    100
}

fn default_timeout() -> HumanDuration {
    HumanDuration::seconds(10)
}

fn yes() -> bool {
    true
}

/// Datadog's sites: <https://docs.datadoghq.com/getting_started/site/>.
pub const SITES: [&str; 9] = [
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "datadoghq.eu",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "uk1.datadoghq.com",
    "ddog-gov.com",
    "us2.ddog-gov.com",
];

/// Most tags that the settings may add; Datadog takes 100 on a log.
const MAX_TAGS: usize = 50;
/// Most of those that show what a record says.
const MAX_RECORD_TAGS: usize = 20;

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls {
    /// Logs.
    pub logs: Url,
    /// Distributions.
    pub distributions: Url,
    /// Spans of LLM Observability.
    pub spans: Url,
    /// The check of the key.
    pub validate: Url,
}

impl Config {
    /// The API key.
    ///
    /// # Errors
    /// When there is none, or two.
    pub fn key(&self) -> Result<Secret, InitError> {
        let inline = ("api_key", self.api_key.as_ref());
        settings::secret(inline, ("api_key_file", self.api_key_file.as_deref()))?.ok_or_else(|| {
            InitError::invalid_config(
                "no API key: set DD_API_KEY, or api_key or api_key_file in [plugin.config]",
            )
        })
    }

    /// The URLs of the site, or those that the settings put in their place.
    ///
    /// # Errors
    /// When the site is unknown, or a URL is none.
    pub fn urls(&self) -> Result<Urls, InitError> {
        let site = self.site.trim().to_ascii_lowercase();
        let is_known = SITES.contains(&&*site);
        if !is_known && (self.logs_url.is_none() || self.api_url.is_none()) {
            return Err(InitError::invalid_config(format!(
                "site: `{site}` is no Datadog site; they are {}. For another one set logs_url and api_url too",
                SITES.join(", ")
            )));
        }
        let base = |key: &str, given: Option<&String>, subdomain: &str| match given {
            Some(url) => http::url(key, url),
            None => http::url(key, &format!("https://{subdomain}.{site}")),
        };
        let logs = base("logs_url", self.logs_url.as_ref(), "http-intake.logs")?;
        let api = base("api_url", self.api_url.as_ref(), "api")?;
        Ok(Urls {
            logs: http::join(&logs, "api/v2/logs"),
            distributions: http::join(&api, "api/v1/distribution_points"),
            spans: http::join(&api, "api/intake/llm-obs/v1/trace/spans"),
            validate: http::join(&api, "api/v1/validate"),
        })
    }

    /// Whether what is to be sent can be sent.
    ///
    /// # Errors
    /// When nothing is to be sent, spans to a government site, or metrics without a name.
    pub fn check_signals(&self) -> Result<(), InitError> {
        if !(self.logs || self.metrics || self.llm_observability) {
            return Err(InitError::invalid_config(
                "logs, metrics and llm_observability are all false: there is nothing to send",
            ));
        }
        let prefix = self.metric_prefix.as_str();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let is_prefix = prefix.starts_with(|c: char| c.is_ascii_alphabetic()) && prefix.chars().all(is_part);
        if !is_prefix || prefix.ends_with('.') || prefix.len() > 100 {
            return Err(InitError::invalid_config(format!(
                "metric_prefix: `{prefix}` cannot begin a metric's name: letters, digits, _ and . (not at the end)"
            )));
        }
        if self.llm_observability && self.site.trim().to_ascii_lowercase().ends_with("ddog-gov.com") {
            return Err(InitError::invalid_config(format!(
                "llm_observability: the government site {} has no LLM Observability; set it to false",
                self.site.trim()
            )));
        }
        Ok(())
    }

    /// The operator's tags, as Datadog will show them.
    ///
    /// # Errors
    /// When one is no `key:value`, or there are too many.
    pub fn own_tags(&self) -> Result<Vec<String>, InitError> {
        // `DD_TAGS` comes split at commas, and Datadog's own tools also take spaces.
        let texts: Vec<_> = self.tags.iter().flat_map(|tag| tag.split([',', ' '])).collect();
        let mut tags = Vec::new();
        for text in texts.into_iter().map(str::trim).filter(|text| !text.is_empty()) {
            let tag = text.split_once(':').and_then(|(key, value)| tag::tag(key, value));
            tags.push(tag.ok_or_else(|| {
                InitError::invalid_config(format!(
                    "tags: `{text}` is no tag; write key:value, and begin the key with a letter"
                ))
            })?);
        }
        if tags.len() > MAX_TAGS {
            return Err(InitError::invalid_config(format!("tags: {} tags; at most {MAX_TAGS}", tags.len())));
        }
        Ok(tags)
    }

    /// The tags that show what a record says.
    ///
    /// # Errors
    /// When one has no key that Datadog takes, or shows what is not there, or there are too many.
    pub fn record_tags(&self) -> Result<Vec<RecordTag>, InitError> {
        let tags = self.record_tags.read(self.max_tag_values).map_err(InitError::invalid_config)?;
        if let Some(odd) = tags.iter().find(|own| tag::tag(&own.name, "x").is_none()) {
            return Err(InitError::invalid_config(format!(
                "record_tags: `{}` is no key of a tag; begin it with a letter",
                odd.name
            )));
        }
        if tags.len() > MAX_RECORD_TAGS {
            let many = tags.len();
            return Err(InitError::invalid_config(format!("record_tags: {many}; at most {MAX_RECORD_TAGS}")));
        }
        Ok(tags)
    }

    /// How much of each record these settings need: bodies stand in logs and spans.
    #[must_use]
    pub fn needed(&self) -> ContentNeed {
        let has_bodies = self.logs || self.llm_observability;
        self.record_tags.needed(ContentNeed::new(if has_bodies { Content::Full } else { Content::Metadata }))
    }

    /// The name of this machine for Datadog; `None` when it is to have none.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        Some(tag::cut(&settings::hostname(self.hostname.as_deref())?, 255).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(settings: Value) -> Config {
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn every_site_has_its_urls() {
        let urls = config(json!({})).urls().unwrap();
        assert_eq!(urls.logs.as_str(), "https://http-intake.logs.datadoghq.com/api/v2/logs");
        assert_eq!(urls.distributions.as_str(), "https://api.datadoghq.com/api/v1/distribution_points");
        assert_eq!(urls.validate.as_str(), "https://api.datadoghq.com/api/v1/validate");
        for site in SITES {
            let urls = config(json!({ "site": format!(" {site} ") })).urls().unwrap();
            assert_eq!(urls.logs.host_str(), Some(&*format!("http-intake.logs.{site}")));
            assert_eq!(urls.spans.as_str(), format!("https://api.{site}/api/intake/llm-obs/v1/trace/spans"));
        }
        let urls = config(json!({ "logs_url": "http://p:1/dd/" })).urls().unwrap();
        assert_eq!(urls.logs.as_str(), "http://p:1/dd/api/v2/logs");
        assert_eq!(urls.validate.host_str(), Some("api.datadoghq.com"));
    }

    #[test]
    fn a_site_that_is_none_is_an_error_with_the_list_unless_both_urls_are_given() {
        for site in ["datadoghq.de", "app.datadoghq.com", "https://datadoghq.eu", ""] {
            let error = config(json!({ "site": site })).urls().unwrap_err().to_string();
            assert!(error.starts_with("site: ") && error.contains("us5.datadoghq.com"), "{error}");
            let one = config(json!({ "site": site, "api_url": "http://a" }));
            assert!(one.urls().is_err());
            let both = config(json!({ "site": site, "api_url": "http://a", "logs_url": "http://b" }));
            assert!(both.urls().is_ok());
        }
    }

    #[test]
    fn a_missing_key_names_the_variable() {
        for settings in [json!({}), json!({ "api_key": " " })] {
            let error = config(settings).key().unwrap_err().to_string();
            assert!(error.contains("DD_API_KEY"), "{error}");
        }
        assert_eq!(config(json!({ "api_key": "k\n" })).key().unwrap().expose(), "k");
    }

    #[test]
    fn spans_do_not_go_to_government_sites_and_something_must_go_somewhere() {
        for (settings, expected) in [
            (json!({ "llm_observability": true }), None),
            (
                json!({ "llm_observability": true, "site": "ddog-gov.com" }),
                Some("government site ddog-gov.com"),
            ),
            (json!({ "llm_observability": true, "site": "US2.ddog-gov.com" }), Some("no LLM Observability")),
            (json!({ "site": "ddog-gov.com" }), None),
            (json!({ "logs": false, "metrics": false }), Some("nothing to send")),
            (json!({ "metric_prefix": "a.b_c1" }), None),
            (json!({ "metric_prefix": "a." }), Some("metric_prefix: `a.`")),
            (json!({ "metric_prefix": "a\"b" }), Some("cannot begin a metric's name")),
            (json!({ "metric_prefix": "" }), Some("cannot begin a metric's name")),
        ] {
            let said = config(settings.clone()).check_signals().err().map(|error| error.to_string());
            let is_expected = |said: &String| expected.is_some_and(|text| said.contains(text));
            assert!(said.as_ref().map_or(expected.is_none(), is_expected), "{settings}: {said:?}");
        }
    }

    #[test]
    fn tags_are_cleaned_and_what_is_no_tag_is_an_error() {
        let tags = config(json!({ "tags": ["Team:LLM a:b", "", "region:eu west"] })).own_tags();
        assert!(tags.unwrap_err().to_string().starts_with("tags: `west` is no tag"));
        let tags = config(json!({ "tags": ["Team:LLM a:b", "region:eu,x:1"] })).own_tags().unwrap();
        assert_eq!(tags, ["team:llm", "a:b", "region:eu", "x:1"]);
        assert!(config(json!({ "tags": vec!["a:b"; 51] })).own_tags().is_err());
    }
}
