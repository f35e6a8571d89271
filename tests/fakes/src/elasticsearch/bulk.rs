//! `POST /_bulk`.

use serde_json::{Value, json};

use super::{
    Document, error,
    filter::filter,
    store::{Store, Written},
};
use crate::{
    message::{Answer, Request},
    script::{Fate, Script},
};

/// None with a document that stalls it.
pub(super) fn answer(
    store: &mut Store,
    request: &Request,
    script: &Script,
    index: Option<&str>,
) -> Option<Answer> {
    let actions = match accepted(request).and_then(|body| actions(body, index)) {
        Ok(actions) => actions,
        Err(refused) => return Some(refused),
    };
    let ids = || actions.iter().filter_map(|action| action.id.as_deref());
    if ids().any(|id| script.stalls(id)) {
        return None;
    }
    let paths = request.query("filter_path");
    if paths.as_deref().is_some_and(|paths| paths.split(',').any(|path| path.starts_with('-'))) {
        return Some(error(400, "illegal_argument_exception", "this fake knows no excluding filter_path"));
    }
    let items: Vec<Value> = actions.into_iter().map(|action| item(store, script, action)).collect();
    let is_error =
        |item: &Value| item.as_object().is_some_and(|i| i.values().any(|i| i.get("error").is_some()));
    let whole = json!({ "took": 1, "errors": items.iter().any(is_error), "items": items });
    Some(match paths {
        Some(paths) => Answer::json(200, &filter(&whole, &paths)),
        None => Answer::json(200, &whole),
    })
}

/// What one item asks for.
struct Action<'a> {
    name: &'static str,
    index: String,
    id: Option<String>,
    source: &'a [u8],
}

/// The checks of the whole request.
fn accepted(request: &Request) -> Result<&[u8], Answer> {
    // <https://github.com/internetitem/logback-elasticsearch-appender/issues/50>
    let kind = request.content_type();
    let kinds = ["application/x-ndjson", "application/json", "application/vnd.elasticsearch+x-ndjson"];
    if !kinds.contains(&&*kind) {
        let why = format!("Content-Type header [{kind}] is not supported");
        return Err(Answer::json(406, &json!({ "error": why, "status": 406 })));
    }
    // Stricter than the product, which takes chunks and asks clients not to send them:
    // <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/modules-network.html>.
    if !request.has_content_length() {
        return Err(Answer::empty(411));
    }
    if request.unreadable.is_some() {
        return Err(error(400, "illegal_argument_exception", "the body is not what Content-Encoding says"));
    }
    match request.body.last() {
        None => Err(error(400, "parse_exception", "request body is required")),
        Some(b'\n') => Ok(&request.body),
        // <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-bulk.html>: "the final line of data must
        // end with a newline character".
        Some(_) => {
            let why = "The bulk request must be terminated by a newline [\\n]";
            Err(error(400, "illegal_argument_exception", why))
        }
    }
}

fn actions<'a>(body: &'a [u8], index: Option<&str>) -> Result<Vec<Action<'a>>, Answer> {
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
    let mut actions = Vec::new();
    while let Some((n, line)) = lines.next() {
        let malformed = |what: &str| {
            error(
                400,
                "illegal_argument_exception",
                &format!("Malformed action/metadata line [{}], {what}", n + 1),
            )
        };
        let Ok(Value::Object(action)) = serde_json::from_slice::<Value>(line) else {
            return Err(malformed("expected an object"));
        };
        let Some((name, of)) = ["create", "index"].into_iter().find_map(|n| Some((n, action.get(n)?))) else {
            return Err(malformed("expected field [create] or [index]; this fake knows no other"));
        };
        if action.len() != 1 || !of.is_object() {
            return Err(malformed("expected one field, an object"));
        }
        let Some(index) = of["_index"].as_str().or(index) else {
            let why = "Validation Failed: 1: index is missing;";
            return Err(error(400, "action_request_validation_exception", why));
        };
        let Some((_, source)) = lines.next() else {
            let why = "Validation Failed: 1: no requests added;";
            return Err(error(400, "action_request_validation_exception", why));
        };
        let id = of["_id"].as_str().map(str::to_owned);
        actions.push(Action { name, index: index.to_owned(), id, source });
    }
    Ok(actions)
}

fn item(store: &mut Store, script: &Script, action: Action<'_>) -> Value {
    let id = action.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let (index, outcome) = match attempt(store, script, &action, &id) {
        Ok((index, result)) => (index, result),
        Err(failure) => (action.index, failure),
    };
    let mut item = json!({ "_index": index, "_id": id });
    for (name, value) in outcome.as_object().into_iter().flatten() {
        item[name] = value.clone();
    }
    json!({ action.name: item })
}

/// The index and what is said of a document that was written, or what is said of one that was not.
fn attempt(
    store: &mut Store,
    script: &Script,
    action: &Action<'_>,
    id: &str,
) -> Result<(String, Value), Value> {
    // <https://github.com/anthonygauthier/jmeter-elasticsearch-backend-listener/issues/123>
    let is_stream = store.is_stream(&action.index);
    if is_stream && action.name != "create" {
        let why = "only write ops with an op_type of create are allowed in data streams";
        return Err(failure(400, "illegal_argument_exception", why));
    }
    match script.judge(id) {
        // A request with one that stalls is not answered.
        Fate::Take | Fate::Stall => {}
        // <https://www.elastic.co/guide/en/elasticsearch/reference/current/rejected-requests.html>
        Fate::Retry => {
            let why = "rejected execution of coordinating operation: the script says so";
            return Err(failure(429, "es_rejected_execution_exception", why));
        }
        Fate::Refuse => {
            return Err(failure(
                400,
                "document_parsing_exception",
                "[1:1] failed to parse: the script says so",
            ));
        }
    }
    let Ok(source @ Value::Object(_)) = serde_json::from_slice::<Value>(action.source) else {
        return Err(failure(400, "document_parsing_exception", "[1:1] failed to parse"));
    };
    if is_stream && source.get("@timestamp").is_none() {
        let why = "[1:1] failed to parse: data stream timestamp field [@timestamp] is missing";
        return Err(failure(400, "document_parsing_exception", why));
    }
    let Some(index) = store.write_index(&action.index) else { return Err(no_index(&action.index)) };
    let document = Document { index: index.clone(), id: id.to_owned(), source };
    let (result, status) = match store.write(document, action.name == "index") {
        Written::Created => ("created", 201),
        Written::Updated => ("updated", 200),
        Written::Conflict => return Err(conflict(&index, id)),
    };
    let shards = json!({ "total": 2, "successful": 1, "failed": 0 });
    let written = json!({
        "_version": 1, "result": result, "_shards": shards, "_seq_no": store.documents.len() - 1, "_primary_term": 1,
        "status": status,
    });
    Ok((index, written))
}

fn failure(status: u16, kind: &str, reason: &str) -> Value {
    json!({ "status": status, "error": { "type": kind, "reason": reason } })
}

/// <https://github.com/elastic/elasticsearch/pull/112537>
fn conflict(index: &str, id: &str) -> Value {
    let reason = format!("[{id}]: version conflict, document already exists (current version [1])");
    let mut failure = failure(409, "version_conflict_engine_exception", &reason);
    failure["_index"] = json!(index);
    failure["error"]["index_uuid"] = json!("Zm9vYmFyMDAwMDAwMDAwMD");
    failure["error"]["shard"] = json!("0");
    failure["error"]["index"] = json!(index);
    failure
}

/// <https://github.com/logstash-plugins/logstash-output-elasticsearch/issues/584>
fn no_index(index: &str) -> Value {
    let reason = format!("no such index [{index}] and [action.auto_create_index] is [false]");
    let mut failure = failure(404, "index_not_found_exception", &reason);
    failure["error"]["index_uuid"] = json!("_na_");
    failure["error"]["index"] = json!(index);
    failure
}
