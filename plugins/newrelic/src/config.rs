//! The settings: `[plugin.config]`.

use std::{collections::BTreeMap, path::PathBuf};

use exporter_kit::{
    http::{self, Url},
    record_tags::{RecordTag, RecordTags},
    settings::{self, HumanDuration, Secret},
    tls::Tls,
};
use plugin_api::{Content, ContentNeed, Field, InitError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::text;

/// Settings of the New Relic exporter.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// License key of the account (the ingest key of 40 characters, not a user key). Required, here or in
    /// `license_key_file`.
    #[schemars(extend("x-env" = "NEW_RELIC_LICENSE_KEY"))]
    pub license_key: Option<Secret>,
    /// A file that holds the license key, in the place of `license_key`. It is read once, at the start.
    pub license_key_file: Option<PathBuf>,
    /// Where the account is. Default: what the key says, `eu` or `jp` where it begins with that, else `us`.
    pub region: Option<Region>,
    /// Where logs go in the place of the region's host, for a proxy or PrivateLink, such as `https://proxy.internal:8443`;
    /// without `/log/v1`.
    pub logs_url: Option<String>,
    /// Where metrics go in the place of the region's host; without `/metric/v1`.
    pub metrics_url: Option<String>,
    /// Whether records are sent as logs.
    #[serde(default = "yes")]
    pub logs: bool,
    /// What becomes of the bodies in logs. An attribute holds 4,094 characters.
    #[serde(default)]
    pub bodies: Bodies,
    /// Whether metrics are sent: requests, errors, durations, tokens and cost.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// First part of the metrics' names.
    #[serde(default = "default_prefix")]
    #[schemars(extend("pattern" = "^[A-Za-z][A-Za-z0-9_.]{0,99}$"))]
    pub metric_prefix: String,
    /// Model names that have a `model` of their own in metrics, 0 to 10,000; further ones are `other`. Clients choose
    /// model names, and New Relic limits the combinations of attributes a day.
    #[serde(default = "default_max_models")]
    #[schemars(range(max = 10_000))]
    pub max_models: usize,
    /// More attributes for every log and metric, such as `{ team = "llm" }`. At most 40, with names of letters, digits,
    /// `_`, `.` and `:`. `logtype`, which selects parsing rules in New Relic, is `magicapi-gateway` unless it is here.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Attributes that show what a record says: a name, and a field of the record or a place in a body, such as
    /// `{ team = "project_id", tier = "response:/service_tier" }`, for every log and metric. At most 20, with names as in
    /// `attributes`.
    #[serde(default)]
    pub record_tags: RecordTags,
    /// Values of each of these in metrics, 0 to 10,000; further ones are `other`. New Relic limits the combinations of
    /// attributes a day.
    #[serde(default = "default_max_tag_values")]
    #[schemars(range(max = 10_000))]
    pub max_tag_values: usize,
    /// `hostname` of logs and metrics. Default: the machine's name. `""`: none.
    pub hostname: Option<String>,
    /// Whether requests are compressed.
    #[serde(default = "yes")]
    pub gzip: bool,
    /// Time for one request to New Relic, from 100 ms to 5 minutes.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-min" = "100ms", "x-max" = "5m"))]
    pub timeout: HumanDuration,
    /// TLS to New Relic, or to what stands before it.
    #[serde(default)]
    pub tls: Tls,
}

/// New Relic's data centres: <https://docs.newrelic.com/docs/accounts/accounts-billing/account-setup/choose-your-data-center/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// United States.
    Us,
    /// European Union.
    Eu,
    /// Japan.
    Jp,
    /// The FedRAMP endpoints, for US government.
    Fedramp,
}

/// What becomes of the bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bodies {
    /// Whole, in numbered attributes (`request.0`, `request.1`, …); one that does not fit is left out and named in
    /// `truncated`.
    #[default]
    Split,
    /// The first 4,094 characters of each; one that has more is named in `truncated`.
    Summary,
    /// Left out.
    Off,
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

/// Most attributes that the settings may add.
pub const MAX_ATTRIBUTES: usize = 40;
/// Most of those that show what a record says.
pub const MAX_RECORD_TAGS: usize = 20;
/// Most bytes of these attributes as JSON; a request has a million for all that is in it.
const MAX_ATTRIBUTES_BYTES: usize = 64_000;
/// Names that New Relic keeps for itself, drops, or takes for something else:
/// <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/#limits>,
/// <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/metric-api-limits-restricted-attributes/>.
const RESERVED: [&str; 23] = [
    "accountId",
    "accountID",
    "appId",
    "attributes",
    "common",
    "count",
    "endTimestamp",
    "entity.guid",
    "entity.name",
    "entity.type",
    "eventType",
    "interval.ms",
    "log",
    "LOG",
    "max",
    "message",
    "MESSAGE",
    "metricName",
    "metrics",
    "min",
    "sum",
    "timestamp",
    "value",
];

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls {
    /// Logs.
    pub logs: Url,
    /// Metrics.
    pub metrics: Url,
}

impl Config {
    /// The license key.
    ///
    /// # Errors
    /// When there is none, or two.
    pub fn key(&self) -> Result<Secret, InitError> {
        let inline = ("license_key", self.license_key.as_ref());
        let file = ("license_key_file", self.license_key_file.as_deref());
        settings::secret(inline, file)?.ok_or_else(|| {
            InitError::invalid_config(
                "no license key: set NEW_RELIC_LICENSE_KEY, or license_key or license_key_file in [plugin.config]",
            )
        })
    }

    /// What is odd about the key, if anything. New Relic alone knows whether it is good.
    #[must_use]
    pub fn doubt(&self, key: &Secret) -> Option<String> {
        let key = key.expose();
        if key.starts_with("NRAK") {
            return Some(
                "license_key is a user key (NRAK…); New Relic takes records with a license key alone"
                    .to_owned(),
            );
        }
        if key.len() != 40 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Some(format!(
                "license_key has {} characters where license keys have 40 letters and digits",
                key.chars().count()
            ));
        }
        let is_own = self.logs_url.is_some() && self.metrics_url.is_some();
        // Keys of the United States and of FedRAMP name no region.
        let named = |region: Region| match region {
            Region::Us | Region::Fedramp => None,
            Region::Eu | Region::Jp => Some(region),
        };
        match (self.region?, region_of(key)) {
            _ if is_own => None,
            (given, of_key) if named(given) == of_key => None,
            (_, Some(of_key)) => {
                Some(format!("license_key is one of region {}, and region is another", of_key.name()))
            }
            (given, None) => {
                let given = given.name();
                Some(format!("region is {given}, and license_key is not one of region {given}"))
            }
        }
    }

    /// The URLs of the region, or those that the settings put in their place.
    ///
    /// # Errors
    /// When a URL is none.
    pub fn urls(&self, key: &Secret) -> Result<Urls, InitError> {
        let of_key = || region_of(key.expose()).unwrap_or(Region::Us);
        let (logs, metrics) = match self.region.unwrap_or_else(of_key) {
            Region::Us => ("https://log-api.newrelic.com", "https://metric-api.newrelic.com"),
            Region::Eu => ("https://log-api.eu.newrelic.com", "https://metric-api.eu.newrelic.com"),
            Region::Jp => ("https://log-api.jp.nr-data.net", "https://metric-api.jp.nr-data.net"),
            Region::Fedramp => ("https://gov-log-api.newrelic.com", "https://gov-metric-api.newrelic.com"),
        };
        let logs = http::url("logs_url", self.logs_url.as_deref().unwrap_or(logs))?;
        let metrics = http::url("metrics_url", self.metrics_url.as_deref().unwrap_or(metrics))?;
        Ok(Urls { logs: http::join(&logs, "log/v1"), metrics: http::join(&metrics, "metric/v1") })
    }

    /// Whether there is something to send, under names that New Relic keeps.
    ///
    /// # Errors
    /// When not.
    pub fn check(&self) -> Result<(), InitError> {
        if !(self.logs || self.metrics) {
            return Err(InitError::invalid_config(
                "logs and metrics are both false: there is nothing to send",
            ));
        }
        let bad = |why: String| Err(InitError::invalid_config(format!("attributes: {why}")));
        if self.attributes.len() > MAX_ATTRIBUTES {
            return bad(format!("{} attributes; at most {MAX_ATTRIBUTES}", self.attributes.len()));
        }
        for (name, value) in &self.attributes {
            self.check_name(name).or_else(bad)?;
            if text::value(value).1 {
                return bad(format!("the value of `{name}` has over {} characters", text::MAX_CHARS));
            }
        }
        let size = serde_json::to_vec(&self.attributes).map_or(0, |json| json.len());
        if size > MAX_ATTRIBUTES_BYTES {
            return bad(format!("{size} bytes together; at most {MAX_ATTRIBUTES_BYTES}"));
        }
        Ok(())
    }

    /// Whether New Relic keeps an attribute of this name.
    fn check_name(&self, name: &str) -> Result<(), String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic())
            || !name.chars().all(is_plain)
            || name.len() > 254
        {
            return Err(format!(
                "`{name}` is no name; it begins with a letter and has letters, digits, `_`, `.` and `:`, at most 254"
            ));
        }
        if RESERVED.contains(&name) || name.starts_with("newrelic.") {
            return Err(format!("New Relic keeps `{name}` for itself; choose another name"));
        }
        if name.strip_prefix(&*self.metric_prefix).is_some_and(|rest| rest.starts_with('.')) {
            return Err(format!(
                "`{name}` may be the name of a metric, begins with metric_prefix; choose another"
            ));
        }
        Ok(())
    }

    /// The attributes that show what a record says.
    ///
    /// # Errors
    /// When one has a name that New Relic does not keep, or that another attribute has, or shows what is not there, or
    /// there are too many.
    pub fn record_tags(&self) -> Result<Vec<RecordTag>, InitError> {
        let bad = |why: String| InitError::invalid_config(format!("record_tags: {why}"));
        let tags = self.record_tags.read(self.max_tag_values).map_err(InitError::invalid_config)?;
        if tags.len() > MAX_RECORD_TAGS {
            return Err(bad(format!("{} attributes; at most {MAX_RECORD_TAGS}", tags.len())));
        }
        for RecordTag { name, .. } in &tags {
            self.check_name(name).map_err(bad)?;
            if Field::named(name).is_some() || self.attributes.contains_key(name) {
                return Err(bad(format!("another attribute is called `{name}`; choose another name")));
            }
        }
        Ok(tags)
    }

    /// How much of each record these settings need: bodies stand in logs alone.
    #[must_use]
    pub fn needed(&self) -> ContentNeed {
        let has_bodies = self.logs && self.bodies != Bodies::Off;
        self.record_tags.needed(ContentNeed::new(if has_bodies { Content::Full } else { Content::Metadata }))
    }

    /// The attributes that all logs and metrics share, as the JSON object they are.
    #[must_use]
    pub fn common_attributes(&self) -> String {
        let mut attributes = BTreeMap::from([("logtype", "magicapi-gateway")]);
        let hostname = settings::hostname(self.hostname.as_deref());
        if let Some(hostname) = &hostname {
            attributes.insert("hostname", text::cut(hostname, 255));
        }
        attributes.extend(self.attributes.iter().map(|(name, value)| (&**name, &**value)));
        let attributes = attributes.into_iter().map(|(name, value)| (name, text::value(value).0));
        serde_json::Value::from_iter(attributes).to_string()
    }
}

impl Region {
    fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Eu => "eu",
            Self::Jp => "jp",
            Self::Fedramp => "fedramp",
        }
    }
}

/// A key that names its region begins with it, as in `eu01xx…` and `jp01xx…`.
fn region_of(key: &str) -> Option<Region> {
    let start = key.get(..2)?;
    [Region::Eu, Region::Jp].into_iter().find(|region| start.eq_ignore_ascii_case(region.name()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const US: &str = "0123456789abcdef0123456789abcdef0123NRAL";
    const EU: &str = "eu01xx6789abcdef0123456789abcdef0123NRAL";
    const JP: &str = "jp01xx6789abcdef0123456789abcdef0123NRAL";

    fn config(settings: Value) -> Config {
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn every_region_has_its_urls_and_the_key_names_one() {
        for (settings, key, logs, metrics) in [
            (
                json!({}),
                US,
                "https://log-api.newrelic.com/log/v1",
                "https://metric-api.newrelic.com/metric/v1",
            ),
            (
                json!({}),
                EU,
                "https://log-api.eu.newrelic.com/log/v1",
                "https://metric-api.eu.newrelic.com/metric/v1",
            ),
            (
                json!({ "region": "eu", "metrics_url": "http://p:1/nr/" }),
                US,
                "https://log-api.eu.newrelic.com/log/v1",
                "http://p:1/nr/metric/v1",
            ),
            (
                json!({}),
                JP,
                "https://log-api.jp.nr-data.net/log/v1",
                "https://metric-api.jp.nr-data.net/metric/v1",
            ),
            (
                json!({ "region": "jp" }),
                US,
                "https://log-api.jp.nr-data.net/log/v1",
                "https://metric-api.jp.nr-data.net/metric/v1",
            ),
            (
                json!({ "region": "fedramp" }),
                US,
                "https://gov-log-api.newrelic.com/log/v1",
                "https://gov-metric-api.newrelic.com/metric/v1",
            ),
        ] {
            let urls = config(settings).urls(&Secret::new(key)).unwrap();
            assert_eq!((urls.logs.as_str(), urls.metrics.as_str()), (logs, metrics));
        }
    }

    #[test]
    fn an_odd_key_is_a_doubt_and_never_shown() {
        let proxied = json!({ "region": "us", "logs_url": "http://p", "metrics_url": "http://p" });
        for (settings, key, expected) in [
            (json!({}), US, None),
            (json!({}), EU, None),
            (json!({ "region": "us" }), US, None),
            (json!({ "region": "eu" }), EU, None),
            (json!({ "region": "eu" }), US, Some("region is eu")),
            (json!({ "region": "us" }), EU, Some("one of region eu")),
            (json!({ "region": "jp" }), JP, None),
            (json!({ "region": "jp" }), US, Some("region is jp")),
            (json!({ "region": "eu" }), JP, Some("one of region jp")),
            (json!({ "region": "fedramp" }), US, None),
            (proxied, EU, None),
            (json!({}), "NRAK-0123456789ABCDEF", Some("user key")),
            (json!({}), "0123", Some("has 4 characters")),
            (json!({}), "é", Some("has 1 characters")),
        ] {
            let doubt = config(settings.clone()).doubt(&Secret::new(key));
            assert_eq!(doubt.is_some(), expected.is_some(), "{settings} {doubt:?}");
            assert!(doubt.unwrap_or_default().contains(expected.unwrap_or_default()), "{settings}");
        }
        for settings in [json!({}), json!({ "license_key": " " })] {
            assert!(config(settings).key().unwrap_err().to_string().contains("NEW_RELIC_LICENSE_KEY"));
        }
    }

    #[test]
    fn attributes_that_new_relic_would_lose_are_errors() {
        let many: Value = (0..41).map(|n| (format!("a{n}"), "x")).collect();
        let large: Value = (0..20).map(|n| (format!("a{n}"), "x".repeat(4000))).collect();
        for (attributes, expected) in [
            (json!({ "team": "llm", "a.b:c_1": "" }), None),
            (json!({ "entity.guid": "x" }), Some("keeps `entity.guid` for itself")),
            (json!({ "newrelic.source": "x" }), Some("keeps `newrelic.source`")),
            (json!({ "magicapi.cost": "x" }), Some("may be the name of a metric")),
            (json!({ "a-b": "x" }), Some("`a-b` is no name")),
            (json!({ "": "x" }), Some("`` is no name")),
            (json!({ "a": "x".repeat(4095) }), Some("over 4094 characters")),
            (many, Some("41 attributes; at most 40")),
            (large, Some("bytes together")),
        ] {
            let said =
                config(json!({ "attributes": attributes })).check().err().map(|error| error.to_string());
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
        assert!(config(json!({ "logs": false, "metrics": false })).check().is_err());
    }

    #[test]
    fn record_tags_that_new_relic_would_lose_are_errors() {
        for (tags, expected) in [
            (json!({ "team": "project_id" }), None),
            (json!({ "team": "projectid" }), Some("record_tags: `team`: `projectid` is no field")),
            (json!({ "eventType": "model" }), Some("record_tags: New Relic keeps `eventType`")),
            (json!({ "model": "request_model" }), Some("record_tags: another attribute is called `model`")),
            (json!({ "env": "environment" }), Some("record_tags: another attribute is called `env`")),
        ] {
            let settings = json!({ "record_tags": tags, "attributes": { "env": "test" } });
            let said = config(settings).record_tags().err().map(|error| error.to_string());
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().starts_with(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn what_is_needed_of_a_record_follows_from_what_is_sent() {
        for (settings, expected) in [
            (json!({}), Content::Full),
            (json!({ "bodies": "off" }), Content::Metadata),
            (json!({ "logs": false }), Content::Metadata),
            (json!({ "logs": false, "record_tags": { "tier": "request:/tier" } }), Content::Full),
        ] {
            assert_eq!(config(settings.clone()).needed().content, expected, "{settings}");
        }
    }

    #[test]
    fn common_attributes_are_the_operators_before_ours() {
        let common = |settings: Value| config(settings).common_attributes();
        assert_eq!(common(json!({ "hostname": "" })), r#"{"logtype":"magicapi-gateway"}"#);
        let own = json!({ "hostname": "web-1", "attributes": { "logtype": "llm", "team": "{}" } });
        assert_eq!(common(own), r#"{"hostname":"web-1","logtype":"llm","team":"'{}'"}"#);
    }
}
