//! The exporter against a real PostgreSQL.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use end_to_end::{Database, Postgres, wait_for};
use exporter_testkit::{Outcome, Plugin, Records, Sample, Verdict};
use plugin_api::abi::status;
use postgres_exporter::PostgresExporter;
use serde_json::{Value, json};

type Exporter = Plugin<PostgresExporter>;

const TABLE: &str = "ai_gateway_request_logs";

async fn database() -> Database {
    Postgres::shared().database().await
}

/// An exporter that logs in with a password, and these settings beside.
fn exporter(database: &Database, settings: &Value) -> Exporter {
    let mut config = json!({ "url": database.url_of(Postgres::USER) });
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    Plugin::create(config.to_string()).unwrap()
}

fn plain(database: &Database) -> Exporter {
    exporter(database, &json!({}))
}

fn samples(range: std::ops::Range<u32>) -> Vec<Sample> {
    range.map(|number| Sample::chat().number(number)).collect()
}

async fn count(database: &Database) -> u64 {
    let rows = database.rows(&format!("SELECT count(*) AS rows FROM {TABLE}")).await;
    rows[0]["rows"].as_u64().unwrap()
}

#[track_caller]
fn assert_delivered(outcome: &Outcome) {
    assert!(outcome.is_all_delivered(), "{outcome:?}");
}

/// A failed call with this status and this in its text; no text holds the password.
#[track_caller]
fn assert_failed(outcome: &Outcome, status: plugin_api::abi::Status, text: &str) {
    assert!(outcome.status == status && outcome.message.contains(text), "{outcome:?}");
    assert!(!outcome.message.contains(Postgres::PASSWORD), "{}", outcome.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_a_row_whose_columns_are_the_records_own_values() {
    let database = database().await;
    let plugin = plain(&database);
    let stream =
        Sample::stream().number(1).with(|metrics| metrics.cost = Some("0.000000045".parse().unwrap()));
    let mut bare = Sample::failed().number(2).request("").response("");
    bare = bare.with(|metrics| (metrics.org_id, metrics.status_code, metrics.ttfb) = (None, None, None));
    assert_delivered(&plugin.export([stream, bare]));
    let rows = database.rows(&format!("SELECT *, cost::text AS exact FROM {TABLE} ORDER BY id")).await;
    let mut first = rows[0].clone();
    let log = first["log_data"].take();
    let expected = json!({
        "id": "01956f3c-8d2b-7e11-9c7a-000000000001", "timestamp": "2025-03-05T16:00:00.001+00:00",
        "org_id": "org_123", "project_id": "proj_design", "user_id": "user_456", "thread_id": "thread_1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "provider": "openai",
        "model": "gpt-4o-mini-2024-07-18", "request_model": "gpt-4o-mini", "path": "/v1/chat/completions",
        "is_streaming": true, "status": "success", "status_code": 200, "end_reason": "complete",
        "error_type": null, "input_tokens": 48, "output_tokens": 865, "total_tokens": 913,
        "cached_read_tokens": 16, "cached_write_tokens": null, "reasoning_tokens": 128, "cost": 4.5e-8,
        "latency_ms": 6250.25, "ttft_ms": 412.5, "log_data": null, "exact": "0.000000045",
    });
    assert_eq!(first, expected);
    assert_eq!(log["attributes"]["id"], "msg_01956f3c8d2b7e119c7a000000000001");
    assert_eq!(log["attributes"]["request"]["messages"][0]["content"], "Say hello");
    let second = &rows[1];
    for nothing in ["org_id", "status_code", "cost", "input_tokens", "ttft_ms"] {
        assert_eq!(second[nothing], Value::Null, "{nothing}");
    }
    assert_eq!(second["model"], "gpt-4o-mini", "the model that was asked for, where none answered");
    assert_eq!(second["log_data"]["attributes"]["request"], Value::Null);
    plugin.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_is_there_once() {
    let database = database().await;
    let plugin = plain(&database);
    let records = Records::of(samples(0..50));
    assert_delivered(&plugin.export_records(&records));
    assert_delivered(&plugin.export_again(&records, 1));
    assert_delivered(&plugin.export(samples(40..60).into_iter().chain(samples(40..60))));
    assert_eq!(count(&database).await, 60);
}

/// A lock on the table that lasts until this is dropped, or the server goes.
async fn lock(database: &Database) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute(&format!("BEGIN; LOCK TABLE {TABLE}")).await.unwrap();
    client
}

/// Waits until a statement of the exporter waits for a lock.
async fn wait_for_waiting(database: &Database) {
    let waiting = format!(
        "SELECT 1 AS one FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{}'
         AND application_name = 'magicapi-gateway'",
        database.name()
    );
    wait_for("an insert that waits", || async { database.rows(&waiting).await.pop() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_a_batch_loses_nothing_and_doubles_nothing() {
    let mut server = Postgres::start();
    let database = server.database().await;
    let plugin = plain(&database).with_deadline(Duration::from_secs(20));
    assert_delivered(&plugin.export(samples(0..10)));
    let lock = lock(&database).await;
    let records = Records::of(samples(5..500));
    let failed = std::thread::scope(|scope| {
        let export = scope.spawn(|| plugin.export_records(&records));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(wait_for_waiting(&database));
        });
        server.stop_immediately();
        export.join().unwrap()
    });
    drop(lock);
    assert_failed(&failed, status::RETRY, "PostgreSQL at 127.0.0.1:");
    assert_failed(&plugin.export_records(&records), status::RETRY, "Connection refused");
    assert!(plugin.health().unwrap_err().message.contains("Connection refused"));
    server.start_again();
    assert_delivered(&plugin.export_again(&records, 2));
    assert_eq!(count(&database).await, 500);
    plugin.health().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_ended_by_the_server_and_sent_again() {
    let database = database().await;
    let plugin = exporter(&database, &json!({ "statement_timeout": "200ms" }));
    let lock = lock(&database).await;
    let begun = Instant::now();
    let failed = plugin.export(samples(0..3));
    assert_failed(&failed, status::RETRY, "(57014); raise statement_timeout if the server is merely slow");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(lock);
    assert_delivered(&plugin.export(samples(0..3)));
    assert_eq!(count(&database).await, 3);
}

/// Samples of two days, the first and the last of a year.
fn of_two_days(range: std::ops::Range<u32>) -> Vec<Sample> {
    let days = ["2024-12-31T23:59:59.999Z", "2025-01-01T00:00:00.000Z"];
    let of_day = |(place, sample): (usize, Sample)| {
        sample.with(|metrics| metrics.timestamp = Cow::Borrowed(days[place % 2]))
    };
    samples(range).into_iter().enumerate().map(of_day).collect()
}

async fn partitions(database: &Database) -> Vec<String> {
    let query = format!(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = '{TABLE}'::regclass ORDER BY 1"
    );
    let rows = database.rows(&query).await;
    rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_start_together_make_the_table_and_its_partitions_once() {
    let database = database().await;
    std::thread::scope(|scope| {
        for gateway in 0..4 {
            let database = &database;
            scope.spawn(move || {
                let plugin = exporter(database, &json!({ "partition": "day" }));
                let records = Records::of(of_two_days(gateway * 10..gateway * 10 + 20));
                assert_delivered(&plugin.export_records(&records));
                assert_delivered(&plugin.export_again(&records, 1));
            });
        }
    });
    assert_eq!(count(&database).await, 50);
    assert_eq!(partitions(&database).await, [format!("{TABLE}_20241231"), format!("{TABLE}_20250101")]);
    let of_first = database.rows(&format!("SELECT count(*) AS rows FROM {TABLE}_20241231")).await;
    assert_eq!(of_first[0]["rows"], 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_while_the_exporter_ran_is_made_again() {
    let database = database().await;
    let plugin = exporter(&database, &json!({ "partition": "day" }));
    assert_delivered(&plugin.export(of_two_days(0..4)));
    database.execute(&format!("DROP TABLE {TABLE}_20241231")).await;
    assert_delivered(&plugin.export(of_two_days(4..8)));
    assert_eq!(count(&database).await, 6);
    database.execute(&format!("DROP TABLE {TABLE}")).await;
    assert_delivered(&plugin.export(of_two_days(0..4)));
    assert_eq!(count(&database).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_somebody_else_are_used_and_what_is_in_the_way_is_named() {
    let database = database().await;
    let plugin = exporter(&database, &json!({ "partition": "day" }));
    database
        .execute(&format!(
            "CREATE TABLE january PARTITION OF {TABLE} FOR VALUES FROM ('2025-01-01 00:00Z') TO ('2025-02-01 00:00Z');
             CREATE TABLE {TABLE}_20241231 ()"
        ))
        .await;
    let january = of_two_days(0..8).into_iter().skip(1).step_by(2);
    assert_delivered(&plugin.export(january));
    // The day that is in the way holds up its own records alone.
    let mixed = plugin.export(of_two_days(8..12));
    assert_eq!(mixed.letters(), "rDrD", "{mixed:?}");
    let told = "_20241231\" is there and is no partition of \"ai_gateway_request_logs\": attach it, or rename or drop it";
    assert!(matches!(&mixed.verdicts[0], Some(Verdict::Retry(reason)) if reason.contains(told)), "{mixed:?}");
    let alone = plugin.export(of_two_days(12..13));
    assert_failed(&alone, status::RETRY, told);
    database.execute(&format!("DROP TABLE {TABLE}_20241231")).await;
    assert_delivered(&plugin.export(of_two_days(8..10)));
    assert_eq!(partitions(&database).await, [format!("{TABLE}_20241231"), "january".to_owned()]);
    assert_delivered(&plugin.export(of_two_days(10..13)));
    // Without `partition = "day"` a missing partition is the operator's to make, and no record's fault.
    let late = Sample::chat().number(21);
    let failed = plain(&database).export([late.clone()]);
    assert_failed(&failed, status::RETRY, "no partition of relation");
    let mixed = of_two_days(22..27).into_iter().chain([late]).chain(of_two_days(27..30));
    let mixed = plain(&database).export(mixed);
    assert_eq!(mixed.letters(), "DDDDDrDDD", "{mixed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_where_postgresql_puts_them_when_their_partition_cannot_be_made() {
    let database = database().await;
    let plugin = exporter(&database, &json!({ "partition": "day" }));
    let day = "'2024-12-31 12:00Z'";
    database
        .execute(&format!(
            "CREATE TABLE rest PARTITION OF {TABLE} DEFAULT;
             INSERT INTO rest (id, timestamp, log_data) VALUES (gen_random_uuid(), {day}, '{{}}')"
        ))
        .await;
    // A row of the first day is in the default partition, so that the day cannot have one of its own.
    assert_delivered(&plugin.export(of_two_days(0..6)));
    let at = async |name: &str| {
        database.rows(&format!("SELECT count(*) AS rows FROM {name}")).await[0]["rows"].as_u64().unwrap()
    };
    assert_eq!((at("rest").await, at(&format!("{TABLE}_20250101")).await), (4, 3));
    assert_eq!(partitions(&database).await, [format!("{TABLE}_20250101"), "rest".to_owned()]);
    // A detached day, and a record of it that comes late.
    database.execute(&format!("ALTER TABLE {TABLE} DETACH PARTITION {TABLE}_20250101")).await;
    assert_delivered(&plugin.export(of_two_days(6..10)));
    let new = exporter(&database, &json!({ "partition": "day" }));
    assert_delivered(&new.export(of_two_days(10..14)));
    assert_eq!((at("rest").await, at(&format!("{TABLE}_20250101")).await), (12, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn days_beyond_the_retention_are_dropped_and_nothing_else() {
    let database = database().await;
    let plugin = exporter(&database, &json!({ "partition": "day" }));
    let today = || Sample::chat().number(90).with(|it| it.timestamp = now().into());
    assert_delivered(&plugin.export(of_two_days(0..4).into_iter().chain([today()])));
    database
        .execute(&format!(
            "CREATE TABLE {TABLE}_20240101 PARTITION OF {TABLE} FOR VALUES FROM ('2024-01-01 00:00Z') TO ('2024-02-01 00:00Z');
             CREATE TABLE {TABLE}_20230101 (LIKE {TABLE}); CREATE TABLE rest PARTITION OF {TABLE} DEFAULT"
        ))
        .await;
    let before = partitions(&database).await;
    assert_delivered(&plugin.export([today()]));
    assert_eq!(partitions(&database).await, before, "nothing is dropped unless it is asked for");
    let plugin = exporter(&database, &json!({ "partition": "day", "retention": "90d" }));
    assert_delivered(&plugin.export([today()]));
    let left = partitions(&database).await;
    let gone: Vec<_> = before.iter().filter(|name| !left.contains(name)).collect();
    assert_eq!(gone, [&format!("{TABLE}_20241231"), &format!("{TABLE}_20250101")]);
    assert_eq!(
        database.rows(&format!("SELECT * FROM {TABLE}_20230101")).await.len(),
        0,
        "it is no partition"
    );
    assert_eq!(count(&database).await, 3);
    let refused = Exporter::create(json!({ "url": database.url(), "retention": "90d" }).to_string()).err();
    assert!(refused.unwrap().message.contains("set partition = \"day\""));
}

/// Now, as a record has it.
fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_older_release_goes_on_and_a_statement_adds_what_it_lacks() {
    let database = database().await;
    drop(plain(&database));
    let columns = "cached_read_tokens, DROP COLUMN cached_write_tokens, DROP COLUMN reasoning_tokens";
    database.execute(&format!("ALTER TABLE {TABLE} DROP COLUMN {columns}")).await;
    let plugin = plain(&database);
    assert_delivered(&plugin.export(samples(0..2)));
    database
        .execute(&format!(
            "ALTER TABLE {TABLE} ADD COLUMN cached_read_tokens bigint, ADD COLUMN cached_write_tokens bigint,
             ADD COLUMN reasoning_tokens bigint"
        ))
        .await;
    assert_delivered(&plain(&database).export(samples(2..3)));
    let rows =
        database.rows(&format!("SELECT reasoning_tokens, output_tokens FROM {TABLE} ORDER BY id")).await;
    let row = |reasoning: Value| json!({ "reasoning_tokens": reasoning, "output_tokens": 865 });
    assert_eq!(rows, [row(Value::Null), row(Value::Null), row(json!(128))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_is_named_with_the_statement_that_cures_it() {
    let database = database().await;
    let sql =
        format!("CREATE TABLE {TABLE} (id uuid, timestamp timestamptz NOT NULL, log_data jsonb NOT NULL)");
    database.execute(&format!("{sql}; ALTER TABLE {TABLE} OWNER TO {}", Postgres::USER)).await;
    let plugin = plain(&database);
    for expected in ["lacks org_id, ", "has no unique index on the record's id"] {
        let failed = plugin.export(samples(0..1));
        assert_failed(&failed, status::RETRY, expected);
        let (_, cure) = failed.message.split_once("run: ").unwrap();
        database.execute(cure).await;
    }
    assert_delivered(&plugin.export(samples(0..1)));
    database.execute(&format!("ALTER TABLE {TABLE} DROP COLUMN org_id, ADD org_id text[]")).await;
    let failed = plain(&database).export(samples(1..2));
    assert_failed(&failed, status::RETRY, "column \"org_id\" is of type text[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_must_put_right_is_told_with_the_cure_and_without_the_password() {
    let database = database().await;
    let right = database.url_of(Postgres::USER);
    let wrong_password = right.replace(Postgres::PASSWORD, "wrong-horse");
    let wrong_database = right.replace(database.name(), "nowhere");
    let over_tls_alone = format!("{}?sslmode=disable", database.url_of(Postgres::TLS_USER));
    let unknown = format!("{right}?sslmode=verify-full");
    for (url, table, status, expected) in [
        (&wrong_password, "logs", status::UNAUTHORIZED, "(28P01); check user and password"),
        (&wrong_database, "logs", status::RETRY, "(3D000); check database, or create it"),
        (&over_tls_alone, "logs", status::UNAUTHORIZED, "(28000); check user and sslmode"),
        (&unknown, "logs", status::RETRY, "error performing TLS handshake: invalid peer certificate"),
        (&right, "nowhere.logs", status::RETRY, "(3F000); check the schema in table, or create it"),
        (&right, "pg_catalog.logs", status::UNAUTHORIZED, "(42501); grant the user INSERT"),
    ] {
        let config = json!({ "url": url, "table": table });
        let plugin =
            Exporter::create(config.to_string()).expect("a backend out of order is no error of init");
        let failed = plugin.export(samples(0..1));
        assert_failed(&failed, status, expected);
        assert!(failed.message.starts_with("PostgreSQL at 127.0.0.1:"), "{}", failed.message);
        assert!(!failed.message.contains("horse"), "{}", failed.message);
    }
    let missing = exporter(&database, &json!({ "create_table": false })).export(samples(0..1));
    assert_failed(&missing, status::RETRY, "does not exist; set create_table = true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_insert_is_enough_for_a_table_that_is_there() {
    let database = database().await;
    drop(plain(&database));
    database
        .execute(&format!(
            "ALTER TABLE {TABLE} OWNER TO postgres; REVOKE ALL ON {TABLE} FROM {user}; GRANT INSERT ON {TABLE} TO {user}",
            user = Postgres::USER
        ))
        .await;
    let (plugin, records) = (plain(&database), Records::of(samples(0..5)));
    assert_delivered(&plugin.export_records(&records));
    assert_delivered(&plugin.export_again(&records, 1));
    assert_eq!(count(&database).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_encrypted_and_checked_as_sslmode_says() {
    let database = database().await;
    let port = database.port();
    let authority = json!({ "ca_file": database.authority() });
    let encrypted = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'ssl test' AND datname = current_database()";
    for (user, settings, ssl) in [
        // First, so that the table is this user's, whose rights the other one has.
        (Postgres::USER, json!({ "sslmode": "disable" }), false),
        (Postgres::TLS_USER, json!({ "sslmode": "verify-full", "tls": authority }), true),
        (Postgres::TLS_USER, json!({ "sslmode": "require", "tls": authority }), true),
        (Postgres::TLS_USER, json!({ "sslmode": "require" }), true),
        (Postgres::TLS_USER, json!({}), true),
    ] {
        let mut config = json!({
            "host": "localhost", "port": port, "user": user, "password": Postgres::PASSWORD,
            "database": database.name(), "application_name": "ssl test",
        });
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let plugin = Exporter::create(config.to_string()).unwrap();
        assert_delivered(&plugin.export(samples(0..1)));
        assert_eq!(database.rows(encrypted).await, [json!({ "ssl": ssl })], "{config}");
        plugin.close().unwrap();
        wait_for("the connection to close", || async {
            database.rows(encrypted).await.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_postgresql_cannot_hold_is_rejected_and_no_other() {
    let database = database().await;
    let plugin = plain(&database);
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    for (body, expected) in
        [(r#"{"seed":1e400000}"#, "(22003)"), (&*deep, "(54001)"), (r#"{"seed":1e400}"#, "")]
    {
        let outcome = plugin.export([Sample::chat().request(body)]);
        match expected {
            "" => assert_delivered(&outcome),
            code => assert_failed(&outcome, status::REJECT, code),
        }
    }
    assert_eq!(count(&database).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_bytes_and_lone_surrogates_are_replaced_and_counted() {
    let database = database().await;
    let plugin = plain(&database);
    let odd = Sample::chat()
        .number(1)
        .request(r#"{"content":"a\u0000b \ud800 \\u0000 \ud83d\ude00"}"#)
        .with(|metrics| metrics.user_id = Some("a\0b".into()));
    assert_delivered(&plugin.export([Sample::chat(), odd]));
    let rows = database.rows(&format!("SELECT user_id, log_data FROM {TABLE} ORDER BY id")).await;
    let log = &rows[1]["log_data"]["attributes"];
    assert_eq!(log["request"]["content"], "a\u{fffd}b \u{fffd} \\u0000 😀");
    assert_eq!((&rows[1]["user_id"], &log["user_id"]), (&json!("a\u{fffd}b"), &json!("a\u{fffd}b")));
    let metrics = plugin.scrape().unwrap();
    assert!(metrics.ends_with("magicapi_postgres_sanitized_records_total{plugin=\"test\"} 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_as_the_settings_say() {
    let database = database().await;
    let settings =
        json!({ "synchronous_commit": "off", "application_name": "gateway of team a", "table": "Odd-Name" });
    let plugin = exporter(&database, &settings);
    // What the session is set to shows in what it inserts.
    database
        .execute(
            r#"CREATE TABLE seen AS SELECT current_setting('synchronous_commit') AS commit, '' AS name WHERE false;
               GRANT ALL ON seen TO PUBLIC;
               CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   INSERT INTO seen VALUES (current_setting('synchronous_commit'), current_setting('application_name'));
                   RETURN NULL;
               END $$;
               CREATE TRIGGER look AFTER INSERT ON "Odd-Name" FOR EACH STATEMENT EXECUTE FUNCTION look()"#,
        )
        .await;
    assert_delivered(&plugin.export(samples(0..2)));
    let seen = database.rows("SELECT * FROM seen").await;
    assert_eq!(seen, [json!({ "commit": "off", "name": "gateway of team a" })]);
}
