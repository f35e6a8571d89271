//! Elasticsearch's `_bulk`, and what an exporter needs around it; by option serverless or OpenSearch.
//!
//! Sources: <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>,
//! <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-bulk.html>. The error objects are those of real
//! answers quoted in the issues linked beside them.

mod auth;
mod bulk;
mod filter;
mod store;

use std::sync::Mutex;

use serde_json::{Value, json};

pub use self::auth::Auth;
use self::store::Store;
use crate::{
    fake::{Fake, Semantics},
    message::{Answer, Request},
    script::Script,
};

/// `http.max_content_length`, 100 MB. Of the body after decompression here, which is the stricter reading.
/// <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/modules-network.html#http-settings>
pub const MAX_CONTENT_LENGTH: usize = 100 * 1024 * 1024;

/// A running fake of Elasticsearch.
pub type Elasticsearch = Fake<ElasticsearchApi>;

/// Which product answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    /// A cluster.
    #[default]
    Elasticsearch,
    /// Elastic's serverless: no cluster API.
    Serverless,
    /// Without the `X-Elastic-Product` header.
    OpenSearch,
}

/// What Elasticsearch does, and what it keeps.
#[derive(Debug, Default)]
pub struct ElasticsearchApi(Mutex<Node>);

#[derive(Debug)]
struct Node {
    flavour: Flavour,
    auth: Auth,
    max_content_length: usize,
    health: String,
    store: Store,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            flavour: Flavour::default(),
            auth: Auth::default(),
            max_content_length: MAX_CONTENT_LENGTH,
            health: "green".to_owned(),
            store: Store::default(),
        }
    }
}

/// A document as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The index; of a data stream, the backing index.
    pub index: String,
    /// `_id`.
    pub id: String,
    /// `_source`.
    pub source: Value,
}

impl Fake<ElasticsearchApi> {
    /// The documents held, in the order stored.
    pub fn documents(&self) -> Vec<Document> {
        self.node(|node| node.store.documents.clone())
    }

    /// Answers as this product.
    pub fn set_flavour(&self, flavour: Flavour) {
        self.node(|node| node.flavour = flavour);
    }

    /// Demands these credentials.
    pub fn set_auth(&self, auth: Auth) {
        self.inner.backend.0.lock().unwrap().auth = auth;
    }

    /// Answers 413 to larger bodies.
    pub fn set_max_content_length(&self, bytes: usize) {
        self.node(|node| node.max_content_length = bytes);
    }

    /// `action.auto_create_index`: off, a bulk item for an index that does not exist gets 404.
    pub fn set_auto_create_index(&self, on: bool) {
        self.node(|node| node.store.auto_create = on);
    }

    /// `green`, `yellow` or `red`.
    pub fn set_health(&self, health: &str) {
        self.node(|node| health.clone_into(&mut node.health));
    }

    /// Gives a data stream a new backing index, as a rollover does. The same `_id` is no conflict there: a `create`
    /// looks only into the index it writes to.
    pub fn rollover(&self, data_stream: &str) {
        self.node(|node| node.store.rollover(data_stream));
    }

    /// The body of an index template.
    pub fn template(&self, name: &str) -> Option<Value> {
        self.node(|node| node.store.templates.get(name).cloned())
    }

    fn node<T>(&self, mut f: impl FnMut(&mut Node) -> T) -> T {
        f(&mut self.inner.backend.0.lock().unwrap())
    }
}

impl Semantics for ElasticsearchApi {
    const DEDUPLICATES: bool = true;

    fn answer(&self, request: &Request, script: &Script) -> Option<Answer> {
        let mut node = self.0.lock().unwrap();
        let answer = node.answer(request, script)?;
        // Clients check it; it is not on the answer to a request without credentials:
        // <https://github.com/elastic/elasticsearch/pull/73434>.
        if node.flavour == Flavour::OpenSearch || answer.status == 401 {
            return Some(answer);
        }
        Some(answer.with("x-elastic-product", "Elasticsearch"))
    }

    fn stored_ids(&self, _: &Script) -> Vec<String> {
        self.0.lock().unwrap().store.documents.iter().map(|document| document.id.clone()).collect()
    }

    fn take_ids(&self, _: &Script) -> Vec<String> {
        let mut node = self.0.lock().unwrap();
        // Every `_source` was an object; their documents' ids stay, since a second `create` is a conflict.
        let kept = node.store.documents.iter_mut().filter(|document| !document.source.is_null());
        kept.map(|document| {
            document.source = Value::Null;
            document.id.clone()
        })
        .collect()
    }
}

impl Node {
    fn answer(&mut self, request: &Request, script: &Script) -> Option<Answer> {
        if request.body.len() > self.max_content_length {
            return Some(Answer::empty(413));
        }
        if let Some(refused) = self.auth.refuse(request) {
            return Some(refused);
        }
        let parts: Vec<&str> = request.path().split('/').filter(|part| !part.is_empty()).collect();
        Some(match (request.method.as_str(), &parts[..]) {
            ("POST" | "PUT", ["_bulk"]) => return bulk::answer(&mut self.store, request, script, None),
            ("POST" | "PUT", [index, "_bulk"]) => {
                return bulk::answer(&mut self.store, request, script, Some(index));
            }
            ("GET" | "HEAD", []) => self.root(),
            ("GET", ["_cluster", "health"]) => self.cluster_health(request),
            (method, ["_index_template", name]) => self.index_template(method, name, request),
            (method, ["_data_stream", name]) => self.data_stream(method, name),
            (method, [index]) if !index.starts_with('_') => self.index(method, index, request),
            _ => no_handler(request),
        })
    }

    /// <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-info>
    fn root(&self) -> Answer {
        let version = match self.flavour {
            Flavour::Elasticsearch => json!({ "number": "8.19.0", "build_flavor": "default" }),
            Flavour::Serverless => json!({ "number": "8.11.0", "build_flavor": "serverless" }),
            Flavour::OpenSearch => json!({ "number": "2.19.0", "distribution": "opensearch" }),
        };
        let tagline = match self.flavour {
            Flavour::OpenSearch => "The OpenSearch Project: https://opensearch.org/",
            Flavour::Elasticsearch | Flavour::Serverless => "You Know, for Search",
        };
        let root = json!({ "name": "fake", "cluster_name": "fake", "version": version, "tagline": tagline });
        Answer::json(200, &root)
    }

    /// Serverless: <https://github.com/elastic/elastic-labs/issues/450>.
    fn cluster_health(&self, request: &Request) -> Answer {
        if self.flavour == Flavour::Serverless {
            let why = format!(
                "Request for uri [{}] with method [GET] exists but is not available when running in serverless mode",
                request.target
            );
            return error(410, "api_not_available_exception", &why);
        }
        Answer::json(
            200,
            &json!({
                "cluster_name": "fake", "status": self.health, "timed_out": false, "number_of_nodes": 1,
                "number_of_data_nodes": 1, "active_primary_shards": 1, "active_shards": 1, "unassigned_shards": 0,
            }),
        )
    }

    /// <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-indices-put-index-template>
    fn index_template(&mut self, method: &str, name: &str, request: &Request) -> Answer {
        match (method, self.store.templates.get(name)) {
            ("PUT" | "POST", _) => match request.json() {
                Some(body) if body["index_patterns"].is_array() => {
                    self.store.templates.insert(name.to_owned(), body);
                    Answer::json(200, &json!({ "acknowledged": true }))
                }
                _ => error(400, "x_content_parse_exception", "Required [index_patterns]"),
            },
            ("GET", Some(body)) => {
                let template = json!({ "name": name, "index_template": body });
                Answer::json(200, &json!({ "index_templates": [template] }))
            }
            ("HEAD", Some(_)) => Answer::empty(200),
            ("HEAD", None) => Answer::empty(404),
            ("GET", None) => error(
                404,
                "resource_not_found_exception",
                &format!("index template matching [{name}] not found"),
            ),
            _ => no_handler(request),
        }
    }

    fn data_stream(&mut self, method: &str, name: &str) -> Answer {
        match (method, self.store.is_stream(name)) {
            ("PUT", true) if self.store.open_stream(name) => {
                Answer::json(200, &json!({ "acknowledged": true }))
            }
            ("PUT", true) => error(
                400,
                "resource_already_exists_exception",
                &format!("data_stream [{name}] already exists"),
            ),
            ("PUT", false) => error(
                400,
                "illegal_argument_exception",
                &format!("no matching index template found for data stream [{name}]"),
            ),
            (_, true) if self.store.has(name) => {
                Answer::json(200, &json!({ "data_streams": [{ "name": name }] }))
            }
            _ => error(404, "index_not_found_exception", &format!("no such index [{name}]")),
        }
    }

    fn index(&mut self, method: &str, name: &str, request: &Request) -> Answer {
        match (method, self.store.has(name)) {
            ("PUT", false) => {
                self.store.create_index(name);
                Answer::json(
                    200,
                    &json!({ "acknowledged": true, "shards_acknowledged": true, "index": name }),
                )
            }
            ("PUT", true) => {
                error(400, "resource_already_exists_exception", &format!("index [{name}] already exists"))
            }
            ("GET", true) => {
                Answer::json(200, &json!({ name: { "aliases": {}, "mappings": {}, "settings": {} } }))
            }
            ("HEAD", true) => Answer::empty(200),
            ("HEAD", false) => Answer::empty(404),
            ("GET", false) => error(404, "index_not_found_exception", &format!("no such index [{name}]")),
            _ => no_handler(request),
        }
    }
}

fn no_handler(request: &Request) -> Answer {
    let why = format!("no handler found for uri [{}] and method [{}]", request.target, request.method);
    Answer::json(400, &json!({ "error": why }))
}

/// The error object of a whole request.
fn error(status: u16, kind: &str, reason: &str) -> Answer {
    let cause = json!({ "type": kind, "reason": reason });
    let error = json!({ "root_cause": [cause], "type": kind, "reason": reason });
    Answer::json(status, &json!({ "error": error, "status": status }))
}

#[cfg(test)]
mod tests;
