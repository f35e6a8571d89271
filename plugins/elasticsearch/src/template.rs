//! The index template: types for what people search by, and none for the bodies.

use serde_json::{Map, Value, json};

use crate::config::{Bodies, Config};

/// Goes up when the mapping changes.
const VERSION: u32 = 2;

/// What the cluster is, as far as the template cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Elasticsearch, or what claims to be.
    Elasticsearch,
    /// OpenSearch.
    OpenSearch,
}

impl Product {
    /// Read from the answer to `GET /`.
    #[must_use]
    pub fn of(root: &[u8]) -> Self {
        let root: Value = serde_json::from_slice(root).unwrap_or_default();
        match root["version"]["distribution"].as_str() {
            Some("opensearch") => Self::OpenSearch,
            _ => Self::Elasticsearch,
        }
    }
}

/// The body of `PUT /_index_template/…`.
#[must_use]
pub fn index_template(config: &Config, pattern: &str, product: Product) -> Value {
    let mut template = json!({
        "index_patterns": [pattern],
        "priority": config.template_priority,
        "version": VERSION,
        "_meta": { "description": "Records of MagicAPI Gateway; put by its Elasticsearch exporter at every start" },
        "template": { "settings": config.index_settings, "mappings": mappings(config.bodies, product) },
    });
    if config.data_stream {
        template["data_stream"] = json!({});
    }
    template
}

/// Fields that are not named here are kept and not indexed, so that no client can make a mapping grow.
fn mappings(bodies: Bodies, product: Product) -> Value {
    let mut mappings = json!({
        "dynamic": false,
        "properties": {
            "@timestamp": { "type": "date" },
            "timestamp": { "type": "date" },
            "name": keyword(),
            "trace_id": keyword(),
            "span_id": keyword(),
            "parent_span_id": keyword(),
            "trace_flags": number("integer"),
            "resource": object(keywords(&["service.name", "service.version", "deployment.environment"])),
            "attributes": object(with(
                keywords(&["id", "thread_id", "org_id", "user_id", "project_id", "provider", "model"]),
                [
                    ("request", body(bodies, product)),
                    ("response", body(bodies, product)),
                    ("metadata", object(metadata())),
                ],
            )),
        },
    });
    if bodies == Bodies::Text {
        // `norms` would make a short text weigh more, and cost a byte for each record.
        let texts = ["request", "response"].map(|name| (name, json!({ "type": "text", "norms": false })));
        mappings["properties"]["text"] = object(with(Map::new(), texts));
    }
    mappings
}

fn metadata() -> Map<String, Value> {
    let keywords = keywords(&[
        "project_id",
        "project_name",
        "experiment_id",
        "client_request_id",
        "provider_request_id",
        "request_model",
        "path",
        "method",
        "status",
        "end_reason",
        "error_type",
        "provider_error_type",
        "provider_error_code",
        "response_id",
        "previous_response_id",
        "finish_reasons",
        "service_tier",
        "request_service_tier",
        "usage_source",
        "cost_source",
        "price_version",
        "truncated",
    ]);
    let numbers = [
        ("latency", "long"),
        ("provider_latency", "long"),
        ("ttfb", "double"),
        ("ttft", "double"),
        ("gateway_overhead", "double"),
        ("request_size", "long"),
        ("response_size", "long"),
        ("cost", "double"),
        ("cached_read_tokens", "long"),
        ("cached_write_tokens", "long"),
        ("cached_write_1h_tokens", "long"),
        ("reasoning_tokens", "long"),
        ("audio_input_tokens", "long"),
        ("audio_output_tokens", "long"),
        ("image_input_tokens", "long"),
        ("image_output_tokens", "long"),
        ("audio_seconds", "double"),
        ("search_queries", "long"),
        ("status_code", "integer"),
        ("provider_status_code", "integer"),
        ("error_count", "long"),
        ("provider_error_count", "long"),
    ];
    let tokens = ["input", "output", "total"].map(|name| (name, number("long")));
    let described = || {
        let size = [("size", number("long"))];
        object(with(self::keywords(&["content_type", "sha256"]), size))
    };
    let others = [
        ("tokens", object(with(Map::new(), tokens))),
        ("is_streaming", json!({ "type": "boolean" })),
        ("request_body", described()),
        ("response_body", described()),
    ];
    with(with(keywords, numbers.map(|(name, kind)| (name, number(kind)))), others)
}

/// A longer text is kept and cannot be searched; without the bound, one of 32 KB would be refused with its record.
fn keyword() -> Value {
    json!({ "type": "keyword", "ignore_above": 1024 })
}

/// A provider may count more tokens than fit: the number is kept, and its record is not refused.
fn number(kind: &str) -> Value {
    json!({ "type": kind, "ignore_malformed": true })
}

fn body(bodies: Bodies, product: Product) -> Value {
    match (bodies, product) {
        (Bodies::Stored | Bodies::Text | Bodies::Off, _) => json!({ "type": "object", "enabled": false }),
        // In UTF-8 a value of so many UTF-16 units is below the 32766 bytes that Lucene takes.
        (Bodies::Flattened, Product::Elasticsearch) => json!({ "type": "flattened", "ignore_above": 8191 }),
        (Bodies::Flattened, Product::OpenSearch) => json!({ "type": "flat_object" }),
    }
}

fn object(properties: Map<String, Value>) -> Value {
    Value::Object(with(Map::new(), [("properties", Value::Object(properties))]))
}

fn keywords(names: &[&str]) -> Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), keyword())).collect()
}

fn with<const N: usize>(mut fields: Map<String, Value>, more: [(&str, Value); N]) -> Map<String, Value> {
    fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    fields
}
