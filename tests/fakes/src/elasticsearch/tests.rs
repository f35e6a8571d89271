use serde_json::{Value, json};

use super::*;
use crate::{
    client::{Call, Got, call, noise},
    script::{Behaviour, Fate},
};

fn bulk<'a>(fake: &Elasticsearch, query: &str) -> Call<'a> {
    call("POST", format!("{}/_bulk{query}", fake.url())).header("Content-Type", "application/x-ndjson")
}

fn lines(action: &str, index: &str, ids: &[&str]) -> String {
    let pair = |id: &&str| {
        format!("{}\n{}\n", json!({ action: { "_index": index, "_id": id } }), json!({ "n": id }))
    };
    ids.iter().map(pair).collect()
}

fn create(fake: &Elasticsearch, ids: &[&str]) -> Value {
    bulk(fake, "").gzip(lines("create", "logs", ids)).send().json()
}

fn statuses(got: &Value) -> Vec<u64> {
    let items = got["items"].as_array().unwrap().iter();
    items.map(|item| item.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap()).collect()
}

#[test]
fn an_id_that_was_taken_is_still_a_conflict() {
    let fake = Elasticsearch::start();
    create(&fake, &["a", "b"]);
    assert_eq!(fake.take_ids(), ["a", "b"]);
    assert!(fake.requests().is_empty());
    assert_eq!(statuses(&create(&fake, &["b", "c"])), [409, 201]);
    assert_eq!(fake.take_ids(), ["c"]);
}

#[test]
fn a_second_create_is_a_conflict_and_an_index_replaces() {
    let fake = Elasticsearch::start();
    let first = create(&fake, &["a", "b"]);
    assert_eq!((statuses(&first), &first["errors"]), (vec![201, 201], &json!(false)));
    let second = create(&fake, &["b", "c"]);
    assert_eq!((statuses(&second), &second["errors"]), (vec![409, 201], &json!(true)));
    let error = &second["items"][0]["create"]["error"];
    assert_eq!(error["type"], "version_conflict_engine_exception");
    assert_eq!(error["reason"], "[b]: version conflict, document already exists (current version [1])");
    let replaced = bulk(&fake, "").body(lines("index", "logs", &["a", "d"])).send().json();
    assert_eq!(statuses(&replaced), [200, 201]);
    assert_eq!(fake.stored_ids(), ["a", "b", "c", "d"]);
    assert!(fake.duplicates().is_empty());
    assert_eq!(fake.documents()[0].source, json!({ "n": "a" }));
}

#[test]
fn what_is_wrong_with_a_request_has_its_status() {
    let fake = Elasticsearch::start();
    let good = lines("create", "logs", &["x"]);
    let send = |kind: &str, body: &str| {
        call("POST", fake.url() + "/_bulk").header("Content-Type", kind).body(body).send()
    };
    let ndjson = "application/x-ndjson";
    for (kind, body, status) in [
        ("text/plain", &*good, 406),
        (ndjson, good.trim_end(), 400),
        (ndjson, "not json\n{}\n", 400),
        (ndjson, "{\"delete\":{\"_index\":\"i\",\"_id\":\"1\"}}\n", 400),
        (ndjson, "{\"create\":{\"_id\":\"1\"}}\n{}\n", 400),
        (ndjson, "{\"create\":{\"_index\":\"i\"}}\n", 400),
        ("application/json; charset=utf-8", &*good, 200),
    ] {
        assert_eq!(send(kind, body).status, status, "{kind} {body:?}");
    }
    assert_eq!(
        send("text/plain", &good).json()["error"],
        "Content-Type header [text/plain] is not supported"
    );
    assert_eq!(bulk(&fake, "").body(good).chunked().send().status, 411);
    assert_eq!(call("POST", fake.url() + "/_nothing").send().status, 400);
    assert_eq!(fake.documents().len(), 1);
}

#[test]
fn a_source_that_is_no_object_fails_alone() {
    let fake = Elasticsearch::start();
    let body =
        lines("create", "logs", &["a"]) + "{\"create\":{\"_index\":\"logs\",\"_id\":\"b\"}}\nnot json\n";
    let got = bulk(&fake, "?filter_path=errors,items.*.status,items.*.error").body(body).send().json();
    let error = json!({ "type": "document_parsing_exception", "reason": "[1:1] failed to parse" });
    let items = json!([{ "create": { "status": 201 } }, { "create": { "status": 400, "error": error } }]);
    assert_eq!(got, json!({ "errors": true, "items": items }));
}

#[test]
fn the_limit_of_a_body_holds_to_the_byte() {
    let fake = Elasticsearch::start();
    let frame = "{\"create\":{\"_index\":\"i\"}}\n{\"n\":\"\"}\n".len();
    fake.set_max_content_length(2000);
    for (size, status) in [(1999, 200), (2000, 200), (2001, 413)] {
        let body = format!("{{\"create\":{{\"_index\":\"i\"}}}}\n{{\"n\":\"{}\"}}\n", noise(size - frame));
        assert_eq!(body.len(), size);
        assert_eq!(bulk(&fake, "").gzip(body).send().status, status, "{size}");
    }
}

#[test]
fn each_record_has_its_own_fate() {
    let fake = Elasticsearch::start();
    fake.judge_by(|id, tries| match id {
        "later" if tries == 0 => Fate::Retry,
        "never" => Fate::Refuse,
        _ => Fate::Take,
    });
    let ids = ["good", "later", "never"];
    let first = create(&fake, &ids);
    assert_eq!(statuses(&first), [201, 429, 400]);
    assert_eq!(first["items"][1]["create"]["error"]["type"], "es_rejected_execution_exception");
    assert_eq!(statuses(&create(&fake, &ids)), [409, 201, 400]);
    fake.behave(Behaviour::Thirds);
    // 0x0a % 3 == 1 is put off once, 0x0b % 3 == 2 refused.
    let ids = ["0009", "000a", "000b"];
    assert_eq!(statuses(&create(&fake, &ids)), [201, 429, 400]);
    assert_eq!(statuses(&create(&fake, &ids)), [409, 201, 400]);
}

#[test]
fn an_index_is_created_unless_that_is_off() {
    let fake = Elasticsearch::start();
    fake.set_auto_create_index(false);
    let missing = create(&fake, &["a"]);
    assert_eq!(statuses(&missing), [404]);
    assert_eq!(missing["items"][0]["create"]["error"]["type"], "index_not_found_exception");
    let of = |method| call(method, fake.url() + "/logs").send();
    assert_eq!((of("HEAD").status, of("GET").status), (404, 404));
    assert_eq!((of("PUT").status, of("PUT").status), (200, 400));
    assert_eq!((of("HEAD").status, of("GET").status), (200, 200));
    assert_eq!(statuses(&create(&fake, &["a"])), [201]);
}

#[test]
fn a_template_makes_a_data_stream_that_rolls_over() {
    let fake = Elasticsearch::start();
    let of = |method, body: &str| call(method, fake.url() + "/_index_template/t").body(body).send();
    assert_eq!((of("HEAD", "").status, of("GET", "").status, of("PUT", "{}").status), (404, 404, 400));
    let template = json!({ "index_patterns": ["logs*"], "data_stream": {}, "priority": 200 });
    assert_eq!(of("PUT", &template.to_string()).json(), json!({ "acknowledged": true }));
    assert_eq!(of("GET", "").json()["index_templates"][0]["index_template"], template);
    assert_eq!(fake.template("t"), Some(template));
    let write = |action: &str, source: Value| {
        let body = format!("{}\n{source}\n", json!({ action: { "_index": "logs", "_id": "a" } }));
        bulk(&fake, "").body(body).send().json()
    };
    let source = json!({ "@timestamp": "2026-01-01T00:00:00Z" });
    assert_eq!(statuses(&write("index", source.clone())), [400]);
    assert_eq!(statuses(&write("create", json!({}))), [400]);
    assert_eq!(statuses(&write("create", source.clone())), [201]);
    assert_eq!(statuses(&write("create", source.clone())), [409]);
    fake.rollover("logs");
    assert_eq!(statuses(&write("create", source)), [201]);
    let indices: Vec<_> = fake.documents().into_iter().map(|document| document.index).collect();
    assert_eq!(indices, [".ds-logs-2026.01.01-000001", ".ds-logs-2026.01.01-000002"]);
    assert_eq!(fake.duplicates(), ["a"]);
}

#[test]
fn credentials_are_checked() {
    let fake = Elasticsearch::start();
    let get = |header: Option<&str>| -> Got {
        let call = call("GET", fake.url() + "/");
        if let Some(value) = header { call.header("Authorization", value) } else { call }.send()
    };
    assert_eq!(get(None).status, 200);
    for (auth, header) in [
        (Auth::Basic("elastic".into(), "changeme".into()), "Basic ZWxhc3RpYzpjaGFuZ2VtZQ=="),
        (Auth::ApiKey("aWQ6a2V5".into()), "ApiKey aWQ6a2V5"),
        (Auth::Bearer("token".into()), "Bearer token"),
    ] {
        fake.set_auth(auth);
        assert_eq!(get(Some(header)).status, 200, "{header}");
        assert_eq!(get(Some("Basic d3Jvbmc=")).status, 401);
        let refused = get(None);
        assert_eq!((refused.status, refused.header("www-authenticate").is_some()), (401, true));
        assert_eq!(refused.json()["error"]["type"], "security_exception");
        assert_eq!(refused.header("x-elastic-product"), None);
    }
}

#[test]
fn each_flavour_answers_as_itself() {
    let fake = Elasticsearch::start();
    let get = |path: &str| call("GET", fake.url() + path).send();
    assert_eq!(get("/").header("x-elastic-product"), Some("Elasticsearch"));
    fake.set_health("red");
    assert_eq!(get("/_cluster/health").json()["status"], "red");
    fake.set_flavour(Flavour::Serverless);
    let health = get("/_cluster/health");
    assert_eq!(
        (health.status, &health.json()["error"]["type"]),
        (410, &json!("api_not_available_exception"))
    );
    assert_eq!(get("/").json()["version"]["build_flavor"], "serverless");
    fake.set_flavour(Flavour::OpenSearch);
    assert_eq!(get("/").json()["version"]["distribution"], "opensearch");
    assert_eq!(get("/").header("x-elastic-product"), None);
    assert_eq!(get("/_cluster/health").status, 200);
}
