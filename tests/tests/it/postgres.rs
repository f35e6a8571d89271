//! The gateway's binary and the real plugin before a real PostgreSQL.

use std::{collections::HashMap, sync::Arc};

use end_to_end::{Database, Gateway, Postgres, Provider, Running, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const TABLE: &str = "ai_gateway_request_logs";

/// A gateway with the exporter, whose settings come from its table and from the environment.
async fn gateway(provider: &Provider, database: &Database, keys: &str) -> Running {
    let keys = format!(
        "retry.initial = \"20ms\"\nretry.max = \"500ms\"\ncircuit_breaker.cool_down = \"100ms\"\n\
         circuit_breaker.max_cool_down = \"200ms\"\n{keys}"
    );
    Gateway::new()
        .provider("demo", &provider.url())
        .plugin("postgres", "postgres", &keys)
        .environment("DATABASE_URL", &database.url_of(Postgres::USER))
        .start()
        .await
}

/// Questions, each with a text of its own; all at once.
async fn ask(gateway: &Arc<Running>, range: std::ops::Range<u32>) {
    let mut asked = JoinSet::new();
    for number in range {
        let gateway = gateway.clone();
        asked.spawn(async move {
            let content = format!("Question {number}");
            let question = json!({ "model": "demo", "messages": [{ "role": "user", "content": content }] });
            assert_eq!(gateway.post("/v1/chat/completions", question.to_string()).await.status, 200);
        });
    }
    asked.join_all().await;
}

/// How often each question is in the table.
async fn questions(database: &Database) -> HashMap<String, u64> {
    let query = format!(
        "SELECT log_data #>> '{{attributes,request,messages,0,content}}' AS question, count(*) AS rows
         FROM {TABLE} GROUP BY 1"
    );
    let rows = database.rows(&query).await;
    let pair = |row: Value| (row["question"].as_str().unwrap().to_owned(), row["rows"].as_u64().unwrap());
    rows.into_iter().map(pair).collect()
}

fn once_each(count: u32) -> HashMap<String, u64> {
    (0..count).map(|number| (format!("Question {number}"), 1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_rows_with_what_was_asked_answered_and_measured() {
    let provider = Provider::start().await;
    let database = Postgres::shared().database().await;
    let keys = "workers = 2\nconfig.partition = \"day\"\nconfig.table = \"public.requests\"\n";
    let gateway = gateway(&provider, &database, keys).await;
    let question = json!({ "model": "demo-words:7", "messages": [{ "role": "user", "content": "Hi \0" }] });
    let headers = [("x-organisation-id", "org_1"), ("x-project-id", "proj_1")];
    let answer = gateway.post_with("/v1/chat/completions", question.to_string(), &headers).await.json();
    gateway.wait_for_books("postgres", |books| books["delivered"] == 1).await;
    let day = "'requests_' || to_char(timestamp AT TIME ZONE 'UTC', 'YYYYMMDD')";
    let query = format!("SELECT *, tableoid::regclass::text AS partition, {day} AS day FROM requests");
    let rows = database.rows(&query).await;
    let row = &rows[0];
    assert_eq!(row["partition"], row["day"], "each day has its partition");
    for (column, expected) in [
        ("org_id", json!("org_1")),
        ("project_id", json!("proj_1")),
        ("provider", json!("demo")),
        ("request_model", json!("demo-words:7")),
        ("status", json!("success")),
        ("status_code", json!(200)),
        ("is_streaming", json!(false)),
        ("output_tokens", answer["usage"]["completion_tokens"].clone()),
        ("total_tokens", answer["usage"]["total_tokens"].clone()),
    ] {
        assert_eq!(row[column], expected, "{column}");
    }
    let attributes = &row["log_data"]["attributes"];
    assert_eq!(attributes["request"]["messages"][0]["content"], "Hi \u{fffd}");
    assert_eq!(attributes["response"]["choices"], answer["choices"]);
    let metrics = gateway.admin("/metrics").await.text();
    let counted = "magicapi_postgres_sanitized_records_total{plugin=\"postgres\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_in_the_middle_of_a_batch_has_every_record_once_in_the_end() {
    let mut server = Postgres::start();
    let provider = Provider::start().await;
    let database = server.database().await;
    let gateway = Arc::new(gateway(&provider, &database, "").await);
    ask(&gateway, 0..20).await;
    gateway.wait_for_books("postgres", |books| books["delivered"] == 20).await;

    // A slow insert: the batch is half done for as long as it takes to stop the server.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(1); RETURN NEW; END'";
    let trigger =
        format!("CREATE TRIGGER slow BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION slow()");
    database.execute(&format!("{slow}; {trigger}")).await;
    ask(&gateway, 20..70).await;
    let inserting = "SELECT 1 AS one FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_for("an insert under way", || async { database.rows(inserting).await.pop() }).await;
    server.stop_immediately();
    ask(&gateway, 70..100).await;
    server.start_again();
    database.execute(&format!("DROP TRIGGER slow ON {TABLE}")).await;

    let books = gateway.wait_for_books("postgres", |books| books["delivered"] == 100).await;
    assert!(books["retries"].as_u64() > Some(0), "{books}");
    assert_eq!(questions(&database).await, once_each(100));
    let log = gateway.log();
    assert!(!log.contains(Postgres::PASSWORD), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_day_without_a_place_wait_with_the_reason_and_go_to_the_default_partition() {
    let provider = Provider::start().await;
    let database = Postgres::shared().database().await;
    let gateway = Arc::new(gateway(&provider, &database, "config.partition = \"day\"\n").await);
    ask(&gateway, 0..1).await;
    gateway.wait_for_books("postgres", |books| books["delivered"] == 1).await;
    let parent = format!("'{TABLE}'::regclass");
    let rows = database
        .rows(&format!("SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = {parent}"))
        .await;
    let day = rows[0]["name"].as_str().unwrap().to_owned();
    database.execute(&format!("ALTER TABLE {TABLE} DETACH PARTITION {day}")).await;
    ask(&gateway, 1..4).await;
    gateway.wait_for_books("postgres", |books| books["retries"].as_u64() > Some(2)).await;
    let log = gateway.log();
    assert!(
        log.contains("is there and is no partition of") && log.contains("attach it, or rename or drop it"),
        "{log}"
    );
    assert!(!log.contains("credentials"), "{log}");
    database.execute(&format!("CREATE TABLE rest PARTITION OF {TABLE} DEFAULT")).await;
    gateway.wait_for_books("postgres", |books| books["delivered"] == 4).await;
    assert_eq!(database.rows("SELECT id FROM rest").await.len(), 3);
}
