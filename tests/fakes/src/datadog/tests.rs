use serde_json::{Value, json};

use super::*;
use crate::{
    client::{Call, Got, call, gzip, noise, zlib},
    script::{Behaviour, Fate, Fault},
    when,
};

fn post<'a>(fake: &Datadog, path: &str) -> Call<'a> {
    let call = call("POST", fake.url() + path).header("DD-API-KEY", API_KEY);
    call.header("Content-Type", "application/json")
}

fn send_logs(fake: &Datadog, body: &str) -> Got {
    post(fake, "/api/v2/logs").body(body).send()
}

/// An entry of exactly this many bytes of JSON.
fn entry(bytes: usize) -> String {
    let frame = json!({ "message": "" }).to_string().len();
    json!({ "message": "m".repeat(bytes - frame) }).to_string()
}

#[test]
fn logs_are_kept_in_order_whatever_the_encoding() {
    let fake = Datadog::start();
    let body = json!([{ "id": "a", "message": "1" }, { "id": "b" }]).to_string();
    let got = send_logs(&fake, &body);
    assert_eq!((got.status, got.json()), (202, json!({})));
    assert_eq!(post(&fake, "/api/v2/logs").gzip(&body).send().status, 202);
    let deflate =
        post(&fake, "/api/v2/logs").header("Content-Encoding", "deflate").body(zlib(body.as_bytes()));
    assert_eq!(deflate.send().status, 202);
    assert_eq!(send_logs(&fake, r#"{"id":"single"}"#).status, 202);
    assert_eq!(fake.stored_ids(), ["a", "b", "a", "b", "a", "b", "single"]);
    assert_eq!(fake.duplicates(), ["a", "b", "a", "b"]);
    let requests = fake.requests();
    assert_eq!(requests[1].body, requests[0].body);
    assert_eq!(requests[1].compressed_size(), gzip(body.as_bytes()).len());
    assert!(requests.iter().all(Request::has_content_length));
    assert_eq!(fake.connections(), 4);
}

#[test]
fn what_is_wrong_with_a_request_has_its_status() {
    let fake = Datadog::start();
    let call = |key: Option<&str>, kind: &str, body: &str| {
        let call = call("POST", fake.url() + "/api/v2/logs").header("Content-Type", kind).body(body);
        if let Some(key) = key { call.header("DD-API-KEY", key) } else { call }.send().status
    };
    let json = "application/json";
    for (key, kind, body, status) in [
        (None, json, "[]", 401),
        (Some("wrong"), json, "[]", 403),
        (Some(API_KEY), "text/plain", "[]", 400),
        (Some(API_KEY), json, "[{]", 400),
        (Some(API_KEY), json, "[1]", 400),
        (Some(API_KEY), json, "", 400),
        (Some(API_KEY), "application/json; charset=utf-8", "[]", 202),
    ] {
        assert_eq!(call(key, kind, body), status, "{key:?} {kind} {body:?}");
    }
    let broken = post(&fake, "/api/v2/logs").header("Content-Encoding", "gzip").body("[]").send();
    assert_eq!(broken.status, 400);
    assert!(fake.logs().is_empty());
}

#[test]
fn the_limits_of_a_logs_request_hold_to_the_byte_and_the_entry() {
    let fake = Datadog::start();
    for (size, status) in [(LOGS_MAX_BYTES - 1, 202), (LOGS_MAX_BYTES, 202), (LOGS_MAX_BYTES + 1, 413)] {
        let body = format!("[{}]", entry(size - 2));
        assert_eq!(body.len(), size);
        // The limit is on the uncompressed size.
        assert_eq!(post(&fake, "/api/v2/logs").gzip(&body).send().status, status, "{size} bytes");
    }
    for (entries, status) in [(999, 202), (1000, 202), (1001, 413)] {
        let body = Value::from(vec![json!({ "message": "m" }); entries]).to_string();
        assert_eq!(send_logs(&fake, &body).status, status, "{entries} entries");
    }
    assert_eq!(fake.logs().len(), 2 + 999 + 1000);
}

#[test]
fn an_entry_over_one_megabyte_is_accepted_and_cut() {
    let fake = Datadog::start();
    for (size, was_cut) in [(LOG_MAX_BYTES - 1, false), (LOG_MAX_BYTES, false), (LOG_MAX_BYTES + 1, true)] {
        assert_eq!(send_logs(&fake, &format!("[{}]", entry(size))).status, 202);
        let last = fake.stored_logs().pop().unwrap();
        assert_eq!((last.size, last.was_cut), (size, was_cut));
        assert_eq!(last.entry.to_string().len(), size.min(LOG_MAX_BYTES));
    }
    // Nothing else of the entry remains when its message alone cannot make room.
    let nested = json!({ "id": "x", "body": { "text": "t".repeat(LOG_MAX_BYTES) } }).to_string();
    send_logs(&fake, &nested);
    assert!(fake.stored_ids().is_empty());
    assert!(fake.stored_logs().pop().unwrap().was_cut);
}

#[test]
fn an_old_entry_is_accepted_and_gone() {
    let fake = Datadog::start();
    let hour = 3_600_000;
    let old = json!({ "id": "old", "timestamp": when::now_ms() - 19 * hour });
    let new = json!({ "id": "new", "timestamp": when::now_ms() - 17 * hour });
    assert_eq!(send_logs(&fake, &json!([old, new]).to_string()).status, 202);
    assert_eq!(fake.logs(), [new]);
    assert_eq!(fake.dropped_logs(), [old]);
}

#[test]
fn a_request_shares_the_fate_of_its_records() {
    let fake = Datadog::start();
    fake.judge_by(|id, tries| match id {
        "later" if tries == 0 => Fate::Retry,
        "never" => Fate::Refuse,
        _ => Fate::Take,
    });
    let send = |ids: &[&str]| {
        let entries: Vec<_> = ids.iter().map(|id| json!({ "id": id })).collect();
        send_logs(&fake, &Value::from(entries).to_string()).status
    };
    assert_eq!(send(&["good", "later", "never"]), 429);
    assert_eq!(send(&["good", "later", "never"]), 400);
    assert!(fake.logs().is_empty());
    assert_eq!(send(&["good", "later"]), 202);
    assert_eq!(send(&["never"]), 400);
    fake.behave(Behaviour::RejectHalf);
    assert_eq!(send(&["00000000000b"]), 400);
    assert_eq!(send(&["00000000000a"]), 202);
    assert_eq!(fake.stored_ids(), ["good", "later", "00000000000a"]);
}

#[test]
fn series_are_checked_and_kept() {
    let fake = Datadog::start();
    let send =
        |series: Value| post(&fake, "/api/v2/series").gzip(json!({ "series": series }).to_string()).send();
    let good = json!({
        "metric": "llm.requests", "type": 1, "interval": 10, "points": [{ "timestamp": 1_700_000_000, "value": 1.5 }],
        "resources": [{ "name": "h", "type": "host" }], "tags": ["env:test"], "unit": "request",
    });
    let got = send(json!([good.clone()]));
    assert_eq!((got.status, got.json()), (202, json!({ "errors": [] })));
    assert_eq!(fake.series(), std::slice::from_ref(&good));
    for (field, value) in [
        ("metric", json!("")),
        ("metric", json!(1)),
        ("type", json!("count")),
        ("type", json!(4)),
        ("points", json!([[1, 2]])),
        ("points", json!(null)),
        ("points", json!([{ "timestamp": 1.5, "value": 1 }])),
        ("points", json!([{ "timestamp": 1, "value": "1" }])),
        ("tags", json!({ "env": "test" })),
        ("resources", json!(["h"])),
        ("interval", json!("10s")),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert_eq!(send(json!([good.clone(), bad.clone()])).status, 400, "{bad}");
    }
    assert_eq!(fake.series().len(), 1);
    let no_key = call("POST", fake.url() + "/api/v2/series").body("{}").send();
    assert_eq!((no_key.status, no_key.json()), (403, json!({ "errors": ["Forbidden"] })));
}

#[test]
fn a_metrics_payload_has_a_limit_on_the_wire_and_one_unpacked() {
    let fake = Datadog::start();
    let frame = json!({ "series": [], "pad": "" }).to_string().len();
    let padded = |pad: String| json!({ "series": [], "pad": pad }).to_string();
    for (size, status) in
        [(SERIES_MAX_COMPRESSED - 1, 202), (SERIES_MAX_COMPRESSED, 202), (SERIES_MAX_COMPRESSED + 1, 413)]
    {
        for path in ["/api/v2/series", "/api/v1/distribution_points"] {
            let body = padded(noise(size - frame));
            assert_eq!(body.len(), size);
            assert_eq!(post(&fake, path).body(body).send().status, status, "{size} bytes to {path}");
        }
    }
    let below = SERIES_DECOMPRESSED_BELOW;
    for (size, status) in [(below - 1, 202), (below, 413), (below + 1, 413)] {
        let body = padded("p".repeat(size - frame));
        assert_eq!(post(&fake, "/api/v2/series").gzip(body).send().status, status, "{size} bytes unpacked");
    }
}

#[test]
fn distributions_take_lists_of_values_and_deflate_alone() {
    let fake = Datadog::start();
    let good = json!({ "metric": "llm.latency", "points": [[1_700_000_000, [1, 2.5]]], "tags": ["a:b"] });
    let send = |series: &Value, encoding: &str, pack: fn(&[u8]) -> Vec<u8>| {
        let body = pack(json!({ "series": [series] }).to_string().as_bytes());
        post(&fake, "/api/v1/distribution_points").header("Content-Encoding", encoding).body(body).send()
    };
    let got = send(&good, "deflate", zlib);
    assert_eq!((got.status, got.json()), (202, json!({ "status": "ok" })));
    assert_eq!(send(&good, "gzip", gzip).status, 400);
    for points in [json!([[1, 2]]), json!([[1, ["2"]]]), json!([[1]]), json!({}), json!([{ "timestamp": 1 }])]
    {
        let bad = json!({ "metric": "m", "points": points });
        assert_eq!(send(&bad, "deflate", zlib).status, 400, "{bad}");
    }
    assert_eq!(fake.distributions(), [good]);
}

#[test]
fn spans_are_checked_and_kept_unless_too_old() {
    let fake = Datadog::start();
    let span = |start_ms: i64| {
        json!({
            "name": "chat", "span_id": "1", "trace_id": "2", "parent_id": "undefined", "start_ns": start_ms * 1_000_000,
            "duration": 1e9, "status": "ok", "meta": { "kind": "llm" },
        })
    };
    let send = |attributes: Value| {
        let body = json!({ "data": { "type": "span", "attributes": attributes } }).to_string();
        post(&fake, "/api/intake/llm-obs/v1/trace/spans").body(body).send()
    };
    let now = when::now_ms();
    let got =
        send(json!({ "ml_app": "app", "tags": ["a:b"], "spans": [span(now), span(now - 25 * 3_600_000)] }));
    assert_eq!((got.status, got.body.len()), (202, 0));
    assert_eq!(fake.spans()[0]["_payload"]["ml_app"], "app");
    assert_eq!((fake.spans().len(), fake.dropped_spans().len()), (1, 1));
    for (field, value) in [
        ("name", json!(null)),
        ("parent_id", json!("")),
        ("start_ns", json!("now")),
        ("meta", json!({ "kind": "chat" })),
        ("status", json!("fine")),
    ] {
        let mut bad = span(now);
        bad[field] = value;
        assert_eq!(send(json!({ "ml_app": "app", "spans": [bad] })).status, 400, "{field}");
    }
    assert_eq!(send(json!({ "spans": [] })).status, 400);
    assert_eq!(send(json!({ "ml_app": "app", "tags": ["plain"], "spans": [] })).status, 400);
}

#[test]
fn a_key_is_validated() {
    let fake = Datadog::start();
    let validate = |key| call("GET", fake.url() + "/api/v1/validate").header("DD-API-KEY", key).send();
    assert_eq!(validate(API_KEY).json(), json!({ "valid": true }));
    assert_eq!(validate("wrong").status, 403);
}

#[test]
fn faults_come_as_planned_and_are_recorded() {
    let fake = Datadog::start();
    fake.fail_next(1, Fault::too_many_requests("7"));
    fake.fail_next(1, Fault::CutAnswer);
    let send = || send_logs(&fake, r#"[{"id":"a"}]"#);
    let busy = send();
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("7")));
    assert!(fake.logs().is_empty());
    let cut = send();
    assert_eq!((cut.status, &cut.body[..], cut.cut), (202, &b"{"[..], true));
    assert_eq!(fake.stored_ids(), ["a"]);
    assert!(!send().cut);
    fake.fail_on("/api/v2/series", Fault::status(503));
    assert_eq!(post(&fake, "/api/v2/series").body("{}").send().status, 503);
    assert_eq!(send().status, 202);
    assert_eq!(fake.requests().len(), 5);
}
