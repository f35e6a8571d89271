//! The harness's real servers: each does what the exporters' tests rely on, comes back with what it acknowledged, and
//! leaves nothing behind.

use std::{io::Write as _, path::Path};

use end_to_end::{Client, Collector, OpenSearch, Postgres, client::post};
use serde_json::{Value, json};

#[tokio::test]
async fn postgres_keeps_what_it_committed_over_an_immediate_stop() {
    let mut server = Postgres::start();
    let database = server.database().await;
    database.execute("CREATE TABLE notes (id int PRIMARY KEY, note jsonb)").await;
    database.execute(r#"INSERT INTO notes VALUES (1, '{"text": "two\nlines"}'), (2, NULL)"#).await;

    let processes = family(server.process_id().unwrap());
    assert!(processes.len() > 3, "the server has processes of its own: {processes:?}");
    server.stop_immediately();
    assert_gone(&processes);
    let refused = database.rows_by(&database.url(), "SELECT 1").await.unwrap_err();
    assert!(refused.contains("Connection refused"), "{refused}");

    server.start_again();
    assert!(server.said().contains("automatic recovery in progress"), "{}", server.said());
    let rows = database.rows("SELECT * FROM notes ORDER BY id").await;
    assert_eq!(
        rows,
        [json!({ "id": 1, "note": { "text": "two\nlines" } }), json!({ "id": 2, "note": null })]
    );

    let processes = family(server.process_id().unwrap());
    drop(server);
    assert_gone(&processes);
    assert!(!database.authority().exists(), "its folder is removed");
}

#[tokio::test]
async fn postgres_lets_in_by_password_and_by_verified_tls() {
    let database = Postgres::shared().database().await;
    let who = "SELECT current_user AS name, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let plain = format!("{}?sslmode=disable", database.url_of(Postgres::USER));
    let verified = |user| {
        let authority = database.authority().display();
        format!("{}?sslmode=verify-full&sslrootcert={authority}", database.url_of(user))
    };
    let answer = |name, ssl| Ok(vec![json!({ "name": name, "ssl": ssl })]);
    assert_eq!(database.rows_by(&plain, who).await, answer(Postgres::USER, false));
    assert_eq!(database.rows_by(&verified(Postgres::USER), who).await, answer(Postgres::USER, true));
    assert_eq!(database.rows_by(&verified(Postgres::TLS_USER), who).await, answer(Postgres::TLS_USER, true));

    let wrong = plain.replace(Postgres::PASSWORD, "wrong");
    let refused = database.rows_by(&wrong, who).await.unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
    let without_tls = format!("{}?sslmode=disable", database.url_of(Postgres::TLS_USER));
    let refused = database.rows_by(&without_tls, who).await.unwrap_err();
    assert!(refused.contains("no pg_hba.conf entry"), "{refused}");
}

#[tokio::test]
async fn postgres_gives_each_test_a_database_of_its_own() {
    let (one, other) = (Postgres::shared().database().await, Postgres::shared().database().await);
    one.execute("CREATE TABLE mine ()").await;
    let found = "SELECT to_regclass('mine') AS it";
    assert_eq!(one.rows(found).await, [json!({ "it": "mine" })]);
    assert_eq!(other.rows(found).await, [json!({ "it": null })]);
}

#[tokio::test]
async fn opensearch_keeps_what_it_acknowledged_when_it_is_killed() {
    let mut server = OpenSearch::start();
    let create = [json!({ "create": { "_index": "notes", "_id": "1" } }), json!({ "text": "first" })];
    assert_eq!(statuses(&server.bulk("/_bulk", &create).await.json()), [201]);
    assert_eq!(statuses(&server.bulk("/_bulk", &create).await.json()), [409]);

    let processes = family(server.process_id().unwrap());
    server.kill();
    assert_gone(&processes);
    server.start_again();
    assert_eq!(server.count("notes").await, 1);
    assert_eq!(statuses(&server.bulk("/_bulk", &create).await.json()), [409], "{}", server.said());

    let (processes, folder) = (family(server.process_id().unwrap()), server.folder().to_owned());
    drop(server);
    assert_gone(&processes);
    assert!(!folder.exists(), "its folder is removed");
}

#[tokio::test]
async fn opensearch_has_templates_data_streams_and_verdicts_per_item() {
    let server = OpenSearch::shared();
    let template = json!({
        "index_patterns": ["smoke-stream*"],
        "data_stream": {},
        "template": { "mappings": { "properties": { "count": { "type": "long" } } } },
    });
    assert_eq!(server.put("/_index_template/smoke", &template).await.status, 200);

    let create = |id: &str, count: Value| {
        [json!({ "create": { "_id": id } }), json!({ "@timestamp": "2026-01-01T00:00:00Z", "count": count })]
    };
    let lines = [create("1", json!(1)), create("2", json!("many")), create("3", json!(3))].concat();
    let answer = server.bulk("/smoke-stream/_bulk", &lines).await.json();
    assert_eq!(statuses(&answer), [201, 400, 201]);
    assert_eq!(answer["items"][1]["create"]["error"]["type"], "mapper_parsing_exception");

    let mut ids: Vec<_> =
        server.documents("smoke-stream").await.into_iter().map(|hit| hit["_id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, ["1", "3"]);
    let streams = server.get("/_data_stream/smoke-stream").await.json();
    assert_eq!(streams["data_streams"][0]["template"], "smoke");
    let health = server.get("/_cluster/health/smoke-stream?wait_for_status=yellow").await.json();
    assert_eq!(health["timed_out"], false);
}

#[tokio::test]
async fn opensearch_reads_gzip() {
    let server = OpenSearch::shared();
    let lines = "{\"create\":{\"_index\":\"smoke-gzip\",\"_id\":\"1\"}}\n{\"text\":\"small\"}\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let request =
        post(&format!("{}/_bulk", server.url()), gzip.finish().unwrap(), &[("content-encoding", "gzip")]);
    assert_eq!(statuses(&Client::default().send(request).await.json()), [201]);
    assert_eq!(server.documents("smoke-gzip").await[0]["_source"], json!({ "text": "small" }));
}

#[tokio::test]
async fn the_collector_hands_on_what_arrived_before_it_answers() {
    let mut collector = Collector::start().await;
    let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "smoke" } }] });
    let log = |text: &str| {
        json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": [{ "scope": { "name": "s" }, "logRecords": [
            { "timeUnixNano": "1", "body": { "stringValue": text } },
        ] }] }] })
    };
    let span = json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [{
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat",
        "attributes": [{ "key": "gen_ai.usage.input_tokens", "value": { "intValue": "7" } }],
    }] }] }] });
    let metric = json!({ "resourceMetrics": [{ "resource": resource, "scopeMetrics": [{ "metrics": [{
        "name": "requests", "sum": { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
            { "asInt": "3", "attributes": [{ "key": "model", "value": { "stringValue": "m" } }] },
        ] },
    }] }] }] });

    send(&collector, "/v1/logs", &log("first")).await;
    send(&collector, "/v1/traces", &span).await;
    send(&collector, "/v1/metrics", &metric).await;
    assert_eq!(collector.logs()[0]["resource"]["attributes"], json!({ "service.name": "smoke" }));
    assert_eq!(collector.logs()[0]["scope"]["name"], "s");
    assert_eq!(collector.spans()[0]["attributes"], json!({ "gen_ai.usage.input_tokens": 7 }));
    assert_eq!(collector.spans()[0]["traceId"], "5b8efff798038103d269b633813fc60c");
    let point = &collector.metrics()[0]["sum"]["dataPoints"][0];
    assert_eq!((&point["asInt"], &point["attributes"]), (&json!("3"), &json!({ "model": "m" })));

    let processes = family(collector.process_id().unwrap());
    collector.stop();
    assert_gone(&processes);
    collector.start_again();
    send(&collector, "/v1/logs", &log("second")).await;
    let bodies: Vec<_> = collector.logs().into_iter().map(|log| log["body"].clone()).collect();
    assert_eq!(bodies, ["first", "second"]);

    let processes = family(collector.process_id().unwrap());
    drop(collector);
    assert_gone(&processes);
}

async fn send(collector: &Collector, path: &str, body: &Value) {
    let request = post(&format!("{}{path}", collector.http_url()), body.to_string(), &[]);
    let answer = Client::default().open(request).await;
    let answer = answer.unwrap_or_else(|error| panic!("{path}: {error:?}: {}", collector.said()));
    assert_eq!(answer.status(), 200, "{path}: {}", collector.said());
}

fn statuses(bulk: &Value) -> Vec<u64> {
    let items = bulk["items"].as_array().unwrap_or_else(|| panic!("{bulk}"));
    items.iter().map(|item| item["create"]["status"].as_u64().unwrap()).collect()
}

/// A process and its children.
fn family(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    let children = children.split_whitespace().map(|id| id.parse().unwrap());
    children.chain([process]).collect()
}

fn assert_gone(processes: &[u32]) {
    let left: Vec<_> = processes.iter().filter(|id| Path::new(&format!("/proc/{id}")).exists()).collect();
    assert!(left.is_empty(), "still there: {left:?}");
}
