use serde_json::{Value, json};

use super::*;
use crate::{
    client::{Call, Got, call, gzip, noise},
    script::{Fate, Fault},
    when,
};

fn post<'a>(fake: &NewRelic, path: &str) -> Call<'a> {
    call("POST", fake.url() + path).header("Api-Key", LICENSE_KEY).header("Content-Type", "application/json")
}

fn send(fake: &NewRelic, path: &str, body: &Value) -> Got {
    post(fake, path).gzip(body.to_string()).send()
}

#[test]
fn both_forms_of_a_log_payload_become_flat_events() {
    let fake = NewRelic::start();
    let detailed = json!([{
        "common": { "attributes": { "service": "s", "level": "INFO" } },
        "logs": [{ "message": "hi", "attributes": { "level": "WARN", "user": { "id": 1, "tags": [1] } } }],
    }]);
    let got = send(&fake, "/log/v1", &detailed);
    assert_eq!(got.status, 202);
    assert_eq!(got.json()["requestId"].as_str().unwrap().len(), 36);
    assert_eq!(send(&fake, "/log/v1", &json!({ "log": "renamed", "accountId": 1 })).status, 202);
    let logs = fake.stored_logs();
    assert_eq!(fake.logs()[0], json!({ "service": "s", "level": "WARN", "message": "hi", "user.id": 1 }));
    assert_eq!(fake.logs()[1], json!({ "message": "renamed" }));
    assert_eq!(
        (&logs[0].lost[..], &logs[1].lost[..]),
        (&["user.tags".to_owned()][..], &["accountId".to_owned()][..])
    );
}

#[test]
fn a_message_that_is_json_adds_its_attributes() {
    let fake = NewRelic::start();
    send(&fake, "/log/v1", &json!({ "message": r#"{"a":{"b":1},"kept":2}"#, "kept": "own" }));
    assert_eq!(fake.logs()[0]["a.b"], 1);
    assert_eq!(fake.logs()[0]["kept"], "own");
    // Which is how an event that looks small can have too many.
    let many: Value = (0..300).map(|n| (format!("a{n}"), json!(n))).collect();
    assert_eq!(send(&fake, "/log/v1", &json!({ "message": many.to_string() })).status, 202);
    assert_eq!((fake.logs().len(), fake.dropped_logs().len()), (1, 1));
}

#[test]
fn what_is_wrong_with_a_request_has_its_status() {
    let fake = NewRelic::start();
    for path in ["/log/v1", "/metric/v1"] {
        let plain = |name: &str, value: &str| {
            let call = call("POST", fake.url() + path).header(name, value);
            call.header("Content-Type", "application/json").body("[]").send().status
        };
        assert_eq!(plain("Api-Key", LICENSE_KEY), 202);
        assert_eq!(plain("X-License-Key", LICENSE_KEY), 202);
        assert_eq!(plain("Api-Key", "wrong"), 403);
        assert_eq!(plain("X-Other", LICENSE_KEY), 403);
        let in_query = call("POST", format!("{}{path}?Api-Key={LICENSE_KEY}", fake.url()));
        assert_eq!(in_query.header("Content-Type", "application/json").body("[]").send().status, 202);
        for body in ["[{]", "1", "[1]", r#"[{"common":{}}]"#, r#"[{"logs":1,"metrics":1}]"#] {
            assert_eq!(post(&fake, path).body(body).send().status, 400, "{path} {body}");
        }
        assert_eq!(post(&fake, path).header("Content-Encoding", "deflate").body("x").send().status, 415);
        assert_eq!(post(&fake, path).header("Content-Encoding", "gzip").body("x").send().status, 400);
        let text = call("POST", fake.url() + path)
            .header("Api-Key", LICENSE_KEY)
            .header("Content-Type", "text/plain");
        assert_eq!(text.body("[]").send().status, 415);
        assert_eq!(post(&fake, path).send().status, 411);
        assert_eq!(call("GET", fake.url() + path).send().status, 405);
    }
    assert_eq!(post(&fake, "/log/v2").body("[]").send().status, 404);
}

#[test]
fn gzip_as_content_type_is_a_compressed_body() {
    let fake = NewRelic::start();
    let call = call("POST", fake.url() + "/log/v1").header("Api-Key", LICENSE_KEY);
    assert_eq!(
        call.header("Content-Type", "application/gzip").body(gzip(br#"{"message":"m"}"#)).send().status,
        202
    );
    assert_eq!(fake.logs(), [json!({ "message": "m" })]);
}

#[test]
fn the_limit_of_a_payload_is_on_the_wire_and_holds_to_the_byte() {
    let fake = NewRelic::start();
    let logs = [(LOGS_MAX_BYTES - 1, 202), (LOGS_MAX_BYTES, 202), (LOGS_MAX_BYTES + 1, 413)];
    let metrics =
        [(METRICS_BELOW_BYTES - 1, 202), (METRICS_BELOW_BYTES, 413), (METRICS_BELOW_BYTES + 1, 413)];
    for (path, limits) in [("/log/v1", logs), ("/metric/v1", metrics)] {
        for (size, status) in limits {
            let frame = json!([{ "logs": [], "metrics": [], "pad": "" }]).to_string().len();
            let body = json!([{ "logs": [], "metrics": [], "pad": noise(size - frame) }]).to_string();
            assert_eq!(body.len(), size);
            assert_eq!(post(&fake, path).body(body).send().status, status, "{size} bytes to {path}");
        }
        // Ten megabytes that shrink are no matter.
        let body = json!([{ "logs": [], "metrics": [], "pad": "p".repeat(10_000_000) }]);
        assert_eq!(send(&fake, path, &body).status, 202);
    }
}

#[test]
fn long_text_is_kept_in_pieces_and_the_rest_is_gone_without_a_word() {
    let fake = NewRelic::start();
    let text = "x".repeat(VALUE_MAX_CHARS + BLOB_MAX_BYTES + 1);
    let name = "n".repeat(256);
    let body =
        json!([{ "logs": [{ "message": text, "attributes": { name.clone(): 1, "n".repeat(255): 2 } }] }]);
    assert_eq!(send(&fake, "/log/v1", &body).status, 202);
    let log = &fake.stored_logs()[0];
    assert_eq!((&log.cut[..], &log.lost[..]), (&["message".to_owned()][..], &[name][..]));
    assert_eq!(log.attributes["message"].as_str().unwrap().len(), VALUE_MAX_CHARS);
    assert_eq!(log.attributes["newrelic.ext.message"].as_str().unwrap().len(), BLOB_MAX_BYTES);
    assert_eq!(log.attributes["n".repeat(255).as_str()], 2);
}

#[test]
fn what_is_dropped_after_the_202_shows_as_an_integration_error() {
    let fake = NewRelic::start();
    let old = when::now_ms() - 49 * 3_600_000;
    let got = send(&fake, "/log/v1", &json!([{ "logs": [{ "timestamp": old }, { "id": "new" }] }]));
    assert_eq!(got.status, 202);
    assert_eq!(fake.stored_ids(), ["new"]);
    assert_eq!(fake.dropped_logs(), [json!({ "timestamp": old })]);
    assert_eq!(fake.integration_errors()[0]["requestId"], got.json()["requestId"]);
}

#[test]
fn a_request_shares_the_fate_of_its_records() {
    let fake = NewRelic::start();
    fake.judge_by(|id, tries| match id {
        "later" if tries == 0 => Fate::Retry,
        "never" => Fate::Refuse,
        _ => Fate::Take,
    });
    let send = |ids: &[&str]| {
        let logs: Vec<_> = ids.iter().map(|id| json!({ "attributes": { "id": id } })).collect();
        send(&fake, "/log/v1", &json!([{ "logs": logs }])).status
    };
    assert_eq!(send(&["a", "later"]), 503);
    assert_eq!(send(&["a", "later"]), 202);
    assert_eq!(send(&["b", "never"]), 400);
    assert_eq!(fake.stored_ids(), ["a", "later"]);
    fake.fail_next(1, Fault::too_many_requests("3"));
    assert_eq!(send(&["c"]), 429);
}

#[test]
fn metrics_are_validated_after_the_202() {
    let fake = NewRelic::start();
    let now = when::now_ms();
    let metric = |name: &str, patch: Value| {
        let mut metric =
            json!({ "name": name, "type": "gauge", "value": 1, "timestamp": now, "attributes": {} });
        for (key, value) in patch.as_object().unwrap() {
            metric[key] = value.clone();
        }
        metric
    };
    let summary = json!({ "count": 1, "sum": 1, "min": 1, "max": 1 });
    let many: Value = (0..101).map(|n| (format!("a{n}"), json!(n))).collect();
    let good = [
        json!({}),
        json!({ "type": "count", "interval.ms": 1000 }),
        json!({ "type": "summary", "interval.ms": 1000, "value": summary }),
        json!({ "timestamp": now / 1000 }),
        json!({ "attributes": { "text": "x".repeat(4096), "n": 1, "b": true } }),
        json!({ "name": "x".repeat(254) }),
    ];
    let bad = [
        json!({ "name": 1 }),
        json!({ "name": "x".repeat(255) }),
        json!({ "type": "count" }),
        json!({ "type": "count", "interval.ms": 0 }),
        json!({ "type": "summary", "interval.ms": 1000 }),
        json!({ "type": "histogram" }),
        json!({ "value": "1" }),
        json!({ "timestamp": null }),
        json!({ "timestamp": now - 49 * 3_600_000 }),
        json!({ "timestamp": now + 25 * 3_600_000 }),
        json!({ "attributes": { "text": "x".repeat(4097) } }),
        json!({ "attributes": { "list": [] } }),
        json!({ "attributes": many }),
    ];
    for patch in &good {
        let (before, errors) = (fake.metrics().len(), fake.integration_errors().len());
        assert_eq!(
            send(&fake, "/metric/v1", &json!([{ "metrics": [metric("m", patch.clone())] }])).status,
            202
        );
        assert_eq!((fake.metrics().len(), fake.integration_errors().len()), (before + 1, errors), "{patch}");
    }
    for patch in &bad {
        assert_eq!(
            send(&fake, "/metric/v1", &json!([{ "metrics": [metric("m", patch.clone())] }])).status,
            202
        );
    }
    assert_eq!((fake.metrics().len(), fake.rejected_metrics().len()), (good.len(), bad.len()));
    assert_eq!(fake.integration_errors().len(), bad.len());
}

#[test]
fn common_values_of_metrics_are_merged_in() {
    let fake = NewRelic::start();
    let common = json!({ "timestamp": when::now_ms(), "interval.ms": 10, "attributes": { "a": 1, "b": 1 } });
    let metric = json!({ "name": "m", "type": "count", "value": 2, "attributes": { "b": 2 } });
    send(&fake, "/metric/v1", &json!([{ "common": common, "metrics": [metric] }]));
    assert_eq!(fake.metrics()[0]["attributes"], json!({ "a": 1, "b": 2 }));
    assert_eq!(fake.metrics()[0]["interval.ms"], 10);
}
