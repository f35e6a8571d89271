//! The settings: `[plugin.config]`.

use std::{collections::BTreeMap, path::PathBuf};

use exporter_kit::{
    http::{self, Url},
    settings::{self, ByteSize, HumanDuration, Secret},
    tls::Tls,
};
use plugin_api::InitError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{fit::Limits, index::Index, template::Product};

const DEFAULT_URL: &str = "http://localhost:9200";

/// Settings of the Elasticsearch exporter. Every one has a default.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the cluster, for instance `"https://es.example.com:9200"`, with a path where a proxy needs one.
    /// Several nodes of one cluster are separated by commas.
    #[schemars(extend("x-env" = "ELASTICSEARCH_URL"))]
    pub url: String,
    /// Several nodes of one cluster, instead of `url`. They take turns; one that does not answer is left out for 1 s,
    /// then 2 s, 4 s … up to 1 min, and the next takes the request.
    pub urls: Vec<String>,
    /// Name of the index or data stream, or of daily indices: `"llm-{yyyy.MM.dd}"`. `{yyyy}`, `{yyyy.MM}` and other
    /// separators work too. The date is the record's own timestamp, in UTC.
    #[schemars(extend("x-env" = "ELASTICSEARCH_INDEX"))]
    pub index: String,
    /// Whether `index` is a data stream. Elasticsearch 7.9 or OpenSearch 1.0 is needed.
    #[schemars(extend("x-env" = "ELASTICSEARCH_DATA_STREAM"))]
    pub data_stream: bool,
    /// Whether the exporter puts its index template, `magicapi-<index>`, when it starts: over the one that is there,
    /// and before the first record is sent. Without it the cluster guesses a type for every field of every body.
    #[schemars(extend("x-env" = "ELASTICSEARCH_SETUP_TEMPLATE"))]
    pub setup_template: bool,
    /// Priority of the template. Templates that come with Elasticsearch have up to 500.
    pub template_priority: u32,
    /// Index settings in the template, for instance `{ "index.lifecycle.name" = "llm", "index.number_of_replicas" = 1 }`.
    pub index_settings: BTreeMap<String, Value>,
    /// What becomes of the bodies, `attributes.request` and `attributes.response`. `"stored"`: kept, not searchable,
    /// and of any shape. `"text"`: the same, and what was said in them can be searched by words, in `text.request` and
    /// `text.response`. `"flattened"`: each value can be searched as a keyword; a body that is no object or more than 20
    /// levels deep is left out, for OpenSearch also one with a text over 32 KB. `"off"`: not sent.
    #[schemars(extend("x-env" = "ELASTICSEARCH_BODIES"))]
    pub bodies: Bodies,
    /// With `bodies = "text"`: the most bytes of each of the two texts. Of a longer request the end is kept, which is
    /// where the question is, and of a longer response the beginning.
    #[schemars(extend("x-env" = "ELASTICSEARCH_MAX_TEXT_BYTES"))]
    pub max_text_bytes: ByteSize,
    /// An ingest pipeline that every record goes through.
    #[schemars(extend("x-env" = "ELASTICSEARCH_PIPELINE"))]
    pub pipeline: Option<String>,
    /// An API key in its encoded form, as Elasticsearch shows it when it makes one.
    #[schemars(extend("x-env" = "ELASTICSEARCH_API_KEY"))]
    pub api_key: Option<Secret>,
    /// A file that holds the API key.
    #[schemars(extend("x-env" = "ELASTICSEARCH_API_KEY_FILE"))]
    pub api_key_file: Option<PathBuf>,
    /// User for basic authentication; needs a password.
    #[schemars(extend("x-env" = ["ELASTICSEARCH_USER", "ELASTICSEARCH_USERNAME"]))]
    pub user: Option<String>,
    /// Password of `user`.
    #[schemars(extend("x-env" = "ELASTICSEARCH_PASSWORD"))]
    pub password: Option<Secret>,
    /// A file that holds the password of `user`.
    #[schemars(extend("x-env" = "ELASTICSEARCH_PASSWORD_FILE"))]
    pub password_file: Option<PathBuf>,
    /// A bearer token: a service account's, or a JSON Web Token.
    #[schemars(extend("x-env" = "ELASTICSEARCH_BEARER_TOKEN"))]
    pub bearer_token: Option<Secret>,
    /// A file that holds the bearer token.
    #[schemars(extend("x-env" = "ELASTICSEARCH_BEARER_TOKEN_FILE"))]
    pub bearer_token_file: Option<PathBuf>,
    /// TLS to the cluster.
    pub tls: Tls,
    /// Whether requests are compressed.
    #[schemars(extend("x-env" = "ELASTICSEARCH_GZIP"))]
    pub gzip: bool,
    /// Time for one request to one node, connecting included: 100 ms or more.
    #[schemars(extend("x-env" = "ELASTICSEARCH_TIMEOUT"))]
    pub timeout: HumanDuration,
    /// The most bytes of a request before compression, from `"64 KiB"` to `"100 MiB"`. Keep it below the cluster's
    /// `http.max_content_length`. A record that is larger is sent without its bodies.
    #[schemars(extend("x-env" = "ELASTICSEARCH_MAX_REQUEST_BYTES"))]
    pub max_request_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: DEFAULT_URL.to_owned(),
            urls: Vec::new(),
            index: "magicapi-metrics".to_owned(),
            data_stream: false,
            setup_template: true,
            template_priority: 501,
            index_settings: BTreeMap::new(),
            bodies: Bodies::Stored,
            max_text_bytes: ByteSize::new(64 << 10),
            pipeline: None,
            api_key: None,
            api_key_file: None,
            user: None,
            password: None,
            password_file: None,
            bearer_token: None,
            bearer_token_file: None,
            tls: Tls::default(),
            gzip: true,
            timeout: HumanDuration::seconds(10),
            max_request_bytes: ByteSize::mib(5),
        }
    }
}

/// What becomes of the bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bodies {
    /// Kept and not indexed.
    Stored,
    /// Kept, and what was said in them can be searched by words.
    Text,
    /// One field each, whose values are keywords.
    Flattened,
    /// Not sent.
    Off,
}

/// `flattened` takes no more levels (`depth_limit`), and `flat_object` becomes slow by more.
const FLATTENED_DEPTH: usize = 20;
/// Bytes of the longest term that Lucene takes, less the name of the field.
const LONGEST_TERM: usize = 32_766 - "attributes.response.".len();

impl Bodies {
    /// What the cluster takes of a body that is sent in this way. Around it are the document and `attributes`.
    #[must_use]
    pub fn limits(self, product: Product) -> Limits {
        let any = Limits {
            // `StreamReadConstraints` of Jackson: 1,000.
            depth: 998,
            object_depth: 998,
            // `index.mapping.depth.limit`, which OpenSearch applies to them too.
            outer_arrays: 18,
            term: usize::MAX,
            must_be_object: false,
        };
        let flattened = Limits { object_depth: FLATTENED_DEPTH, must_be_object: true, ..any };
        match (self, product) {
            (Self::Stored | Self::Text | Self::Off, _) => any,
            (Self::Flattened, Product::Elasticsearch) => flattened,
            (Self::Flattened, Product::OpenSearch) => {
                Limits { depth: FLATTENED_DEPTH, term: LONGEST_TERM, ..flattened }
            }
        }
    }
}

/// How this side says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all, or by a client certificate.
    None,
    /// `Authorization: ApiKey …`
    ApiKey(Secret),
    /// `Authorization: Bearer …`
    Bearer(Secret),
    /// `Authorization: Basic …`, made of user and password in the nodes' URLs.
    Basic(Secret),
}

impl Config {
    /// The name of the index, checked.
    ///
    /// # Errors
    /// When Elasticsearch has no such names.
    pub fn index(&self) -> Result<Index, InitError> {
        let index = Index::parse(&self.index)
            .map_err(|why| InitError::invalid_config(format!("index: `{}` {why}", self.index)))?;
        if self.data_stream && index.is_dated() {
            return Err(InitError::invalid_config(
                "index: a data stream has no date in its name; it rolls over by itself",
            ));
        }
        Ok(index)
    }

    /// The nodes' addresses, with user and password in them where these are the credentials, and how to authenticate.
    ///
    /// # Errors
    /// When an address is none, or the credentials contradict each other.
    pub fn nodes(&self) -> Result<(Vec<Url>, Auth), InitError> {
        let bad = |why: &str| InitError::invalid_config(why);
        let (key, texts): (_, Vec<&str>) = match self.urls.as_slice() {
            [] => ("url", self.url.split(',').filter(|text| !text.trim().is_empty()).collect()),
            _ if self.url != DEFAULT_URL => return Err(bad("url and urls are both set; keep one")),
            urls => ("urls", urls.iter().map(String::as_str).collect()),
        };
        let mut urls = texts.into_iter().map(|text| http::url(key, text)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(bad("url: empty; write it as https://host:port"));
        }
        let auth = self.auth(&urls)?;
        if let (Auth::Basic(password), Some(user)) = (&auth, &self.user) {
            for url in &mut urls {
                let set = url.set_username(user).and_then(|()| url.set_password(Some(password.expose())));
                set.map_err(|()| bad("url: an address that has no place for a user"))?;
            }
        }
        Ok((urls, auth))
    }

    fn auth(&self, urls: &[Url]) -> Result<Auth, InitError> {
        let api_key = settings::secret(
            ("api_key", self.api_key.as_ref()),
            ("api_key_file", self.api_key_file.as_deref()),
        )?;
        let password = settings::secret(
            ("password", self.password.as_ref()),
            ("password_file", self.password_file.as_deref()),
        )?;
        let bearer = settings::secret(
            ("bearer_token", self.bearer_token.as_ref()),
            ("bearer_token_file", self.bearer_token_file.as_deref()),
        )?;
        let in_url = urls.iter().find_map(Url::password).map(Secret::new);
        let bad = |why: &str| Err(InitError::invalid_config(why));
        match (api_key, (self.user.as_ref(), password), bearer, in_url) {
            (None, (None, None), None, None) => Ok(Auth::None),
            (Some(key), (None, None), None, None) if key.expose().contains(':') => {
                bad("api_key: this is `id:key`; write the encoded form, which is base64 of it")
            }
            (Some(key), (None, None), None, None) => Ok(Auth::ApiKey(key)),
            (None, (Some(_), Some(password)), None, None) | (None, (None, None), None, Some(password)) => {
                Ok(Auth::Basic(password))
            }
            (None, (None, None), Some(token), None) => Ok(Auth::Bearer(token)),
            (_, (Some(_), None), ..) => bad("user needs password or password_file"),
            (_, (None, Some(_)), ..) => bad("password needs user"),
            _ => bad("more than one of api_key, user, bearer_token and a user in url are set; keep one"),
        }
    }

    /// Checks what stands for itself.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub fn check(&self) -> Result<(), InitError> {
        if self.timeout.0.as_millis() < 100 {
            return Err(InitError::invalid_config("timeout: less than 100ms; write for instance \"10s\""));
        }
        if !(64 << 10..=100 << 20).contains(&self.max_request_bytes.bytes()) {
            return Err(InitError::invalid_config(
                "max_request_bytes: not between \"64 KiB\" and \"100 MiB\", which is what a cluster takes",
            ));
        }
        if !(1 << 10..=1 << 20).contains(&self.max_text_bytes.bytes()) {
            return Err(InitError::invalid_config("max_text_bytes: not between \"1 KiB\" and \"1 MiB\""));
        }
        if self.pipeline.as_ref().is_some_and(|name| name.is_empty() || name.contains('/')) {
            return Err(InitError::invalid_config("pipeline: no name of a pipeline; leave the setting out"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(settings: Value) -> Config {
        serde_json::from_value(settings).unwrap()
    }

    /// What is wrong with these settings, or nothing.
    fn problem(settings: Value) -> String {
        let config = read(settings);
        let checked = config.check().and_then(|()| config.index()).and_then(|_| config.nodes());
        checked.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn nothing_is_required() {
        let config = read(json!({}));
        assert_eq!(problem(json!({})), "");
        let (urls, auth) = config.nodes().unwrap();
        assert_eq!((urls[0].as_str(), urls.len(), auth), ("http://localhost:9200/", 1, Auth::None));
        assert_eq!(config.index().unwrap().template_pattern(), "magicapi-metrics");
    }

    #[test]
    fn nodes_are_listed_in_two_ways() {
        for settings in
            [json!({ "url": "http://a:1, http://b:2" }), json!({ "urls": ["http://a:1", "http://b:2"] })]
        {
            let (urls, _) = read(settings).nodes().unwrap();
            assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1/", "http://b:2/"]);
        }
    }

    #[test]
    fn credentials_come_from_one_place() {
        let auth =
            |settings: Value| read(settings).nodes().map(|(urls, auth)| (urls[0].to_string(), auth)).unwrap();
        let key = || Secret::new("k3y");
        assert_eq!(auth(json!({ "api_key": "k3y" })).1, Auth::ApiKey(key()));
        assert_eq!(auth(json!({ "bearer_token": "k3y" })).1, Auth::Bearer(key()));
        let (url, basic) = auth(json!({ "user": "me@home", "password": "k3y", "url": "https://a" }));
        assert_eq!((&*url, basic), ("https://me%40home:k3y@a/", Auth::Basic(key())));
        let (url, basic) = auth(json!({ "url": "https://me:k3y@a" }));
        assert_eq!((&*url, basic), ("https://me:k3y@a/", Auth::Basic(key())));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (settings, expected) in [
            (json!({ "url": "http://a", "urls": ["http://b"] }), "url and urls are both set"),
            (json!({ "url": " , " }), "url: empty"),
            (json!({ "urls": ["b:9200"] }), "urls: a URL here starts with http:// or https://"),
            (json!({ "index": "Llm" }), "index: `Llm` has upper-case letters"),
            (json!({ "index": "a-{yyyy}", "data_stream": true }), "index: a data stream has no date"),
            (json!({ "user": "me" }), "user needs password"),
            (json!({ "password": "hunter2" }), "password needs user"),
            (json!({ "api_key": "a", "bearer_token": "hunter2" }), "more than one of api_key"),
            (json!({ "api_key": "a", "url": "http://u:hunter2@b" }), "more than one of api_key"),
            (json!({ "api_key": "id:hunter2" }), "api_key: this is `id:key`"),
            (json!({ "api_key": "a", "api_key_file": "/b" }), "api_key and api_key_file are both set"),
            (json!({ "timeout": "1ms" }), "timeout: less than 100ms"),
            (json!({ "max_request_bytes": "1 KiB" }), "max_request_bytes: not between"),
            (json!({ "max_request_bytes": "1 GiB" }), "max_request_bytes: not between"),
            (json!({ "max_text_bytes": "2 MiB" }), "max_text_bytes: not between"),
            (json!({ "pipeline": "a/b" }), "pipeline: no name"),
        ] {
            let said = problem(settings.clone());
            assert!(said.starts_with(expected) && !said.contains("hunter2"), "{settings}: {said}");
        }
        let unknown = serde_json::from_value::<Config>(json!({ "indexx": "a" })).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `indexx`"), "{unknown}");
    }
}
