//! The exporter against a fake of New Relic.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use exporter_testkit::{Plugin, Records, Sample};
use fake_backends::{
    Behaviour, Fault, Request,
    newrelic::{LICENSE_KEY, NewRelic as Fake, StoredLog},
};
use plugin_api::{BodyDescription, abi::status};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::{NewRelic, logs, metrics, text};

const LOGS: &str = "/log/v1";
const METRICS: &str = "/metric/v1";

fn plugin(fake: &Fake, more: &Value) -> Plugin<NewRelic> {
    let mut settings = json!({
        "license_key": LICENSE_KEY, "logs_url": fake.url(), "metrics_url": fake.url(), "hostname": "web-1",
        "attributes": { "team": "llm" },
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Plugin::create(settings.to_string()).unwrap()
}

/// Requests with records; the check of the key at the start has none.
fn requests(fake: &Fake, path: &str) -> Vec<Request> {
    fake.requests().into_iter().filter(|request| request.path() == path && request.body != "[]").collect()
}

/// A log's attribute that was cut into pieces.
fn joined(log: &BTreeMap<String, Value>, name: &str) -> String {
    (0..).map_while(|number| log.get(&format!("{name}.{number}"))?.as_str()).collect()
}

/// The sum of a count's data points.
fn total(fake: &Fake, name: &str) -> f64 {
    let points = fake.metrics().into_iter().filter(|point| point["name"] == name);
    points.map(|point| point["value"].as_f64().unwrap()).sum()
}

/// What New Relic lost without a word; there must be nothing.
fn losses(fake: &Fake) -> Vec<String> {
    let of_log = |log: StoredLog| log.cut.into_iter().chain(log.lost).collect::<Vec<_>>();
    let of_logs = fake.stored_logs().into_iter().flat_map(of_log);
    let errors =
        fake.integration_errors().into_iter().chain(fake.dropped_logs()).map(|error| error.to_string());
    of_logs.chain(errors).chain(fake.rejected_metrics().into_iter().map(|(_, why)| why)).collect()
}

#[test]
fn a_record_becomes_a_log_with_flat_attributes() {
    let fake = Fake::start();
    let sample = Sample::fresh(1).with(|metrics| {
        metrics.truncated = vec!["streamed_data".into()];
        metrics.finish_reasons = Some(vec!["stop".into(), "length".into()]);
    });
    let id = sample.id().to_owned();
    assert!(plugin(&fake, &json!({})).export([sample]).is_all_delivered());
    let [log] = fake.stored_logs().try_into().unwrap();
    for (name, expected) in [
        (
            "message",
            json!("POST /v1/chat/completions 200 openai gpt-4o-mini-2024-07-18 6250 ms 48+865 tokens"),
        ),
        ("level", json!("INFO")),
        ("logtype", json!("magicapi-gateway")),
        ("hostname", json!("web-1")),
        ("team", json!("llm")),
        ("id", json!(id)),
        ("trace.id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("span.id", json!("00f067aa0ba902b7")),
        ("service.name", json!("noveum_ai_gateway")),
        ("deployment.environment", json!("production")),
        ("user_id", json!("user_456")),
        ("is_streaming", json!(false)),
        ("status_code", json!(200)),
        ("total_latency", json!(6250.25)),
        ("input_tokens", json!(48)),
        ("cost", json!(0.0456)),
        ("truncated", json!("streamed_data")),
        ("finish_reasons", json!("stop,length")),
    ] {
        assert_eq!(log.attributes.get(name), Some(&expected), "{name}: {log:#?}");
    }
    // What is unknown is absent; nothing is an object or an array.
    for name in ["ttft", "error_type", "experiment_id", "request_body", "trace_id", "service_name"] {
        assert_eq!(log.attributes.get(name), None, "{name}");
    }
    let request: Value = serde_json::from_str(&joined(&log.attributes, "request")).unwrap();
    assert_eq!(request["messages"][0]["content"], "Say hello");
    let response: Value = serde_json::from_str(&joined(&log.attributes, "response")).unwrap();
    assert_eq!(response["usage"]["total_tokens"], 913);
    let [request] = requests(&fake, LOGS).try_into().unwrap();
    let headers = ["api-key", "content-type", "content-encoding"].map(|name| request.header(name));
    assert_eq!(headers, [Some(LICENSE_KEY), Some("application/json"), Some("gzip")]);
    assert_eq!(losses(&fake), [""; 0]);
}

#[test]
fn a_failure_is_an_error_and_a_body_that_is_no_json_is_described() {
    let fake = Fake::start();
    let audio = BodyDescription::new(7).content_type("audio/mpeg");
    let failed = Sample::failed()
        .number(1)
        .started_ago(Duration::ZERO)
        .with(|metrics| metrics.request_body = Some(audio));
    assert!(plugin(&fake, &json!({ "gzip": false })).export([failed.request("")]).is_all_delivered());
    let log = &fake.logs()[0];
    assert_eq!((&log["level"], &log["error_type"]), (&json!("ERROR"), &json!("rate_limit_exceeded")));
    assert_eq!(
        (&log["request_body.size"], &log["request_body.content_type"]),
        (&json!(7), &json!("audio/mpeg"))
    );
    assert!(log.get("request.0").is_none() && log.get("input_tokens").is_none(), "{log:#}");
    assert_eq!(requests(&fake, LOGS)[0].encoding(), "identity");
    assert_eq!((total(&fake, "magicapi.requests"), total(&fake, "magicapi.errors")), (1.0, 1.0));
    assert!(fake.metrics().iter().all(|point| point["name"] != "magicapi.tokens.input"));
}

#[test]
fn bodies_are_whole_or_begun_or_left_out_as_the_operator_says() {
    let long = format!("{{\"text\":\"{}\"}}", "é\\n".repeat(5_000));
    for (bodies, request, response, truncated) in [
        ("split", &*long, "{}", None),
        ("summary", text::cut(&long, text::MAX_CHARS), "{}", Some(json!("request"))),
        ("off", "", "", None),
    ] {
        let fake = Fake::start();
        let newrelic = plugin(&fake, &json!({ "bodies": bodies }));
        assert!(newrelic.export([Sample::fresh(1).request(&*long).response("{}")]).is_all_delivered());
        let log = &fake.stored_logs()[0].attributes;
        assert_eq!((&*joined(log, "request"), &*joined(log, "response")), (request, response), "{bodies}");
        assert_eq!(log.get("truncated"), truncated.as_ref(), "{bodies}");
        assert_eq!(losses(&fake), [""; 0]);
    }
}

#[test]
fn a_body_that_does_not_fit_is_left_out_whole_and_named() {
    let body = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    let quotes = |size: usize| format!("\"{}\"", "\\\"".repeat(size / 2));
    let most = logs::MAX_PIECES * text::MAX_CHARS;
    for (request, response, kept, truncated) in [
        (body(most), String::new(), (most, 0), None),
        (body(most + 1), body(10), (0, 10), Some(json!("request"))),
        (body(most - 10), body(10), (most - 10, 0), Some(json!("response"))),
        (body(most - text::MAX_CHARS), body(10), (most - text::MAX_CHARS, 10), None),
        (body(2_000_000), body(2_000_000), (0, 0), Some(json!("request,response"))),
        // Escapes double it.
        (quotes(most - 10), body(10), (0, 10), Some(json!("request"))),
    ] {
        let fake = Fake::start();
        let newrelic = plugin(&fake, &json!({}));
        assert!(newrelic.export([Sample::fresh(1).request(request).response(response)]).is_all_delivered());
        let log = &fake.stored_logs()[0].attributes;
        assert_eq!((joined(log, "request").len(), joined(log, "response").len()), kept);
        assert_eq!(log.get("truncated"), truncated.as_ref());
        assert_eq!(losses(&fake), [""; 0]);
    }
}

#[test]
fn text_that_new_relic_would_cut_or_take_apart_is_cut_or_quoted_and_named() {
    let fake = Fake::start();
    let many: Value = (0..300).map(|n| (format!("a{n}"), json!(n))).collect();
    let sample = Sample::fresh(1).with(|metrics| {
        metrics.user_id = Some(Cow::Owned(many.to_string()));
        metrics.org_id = Some("😀".repeat(4000).into());
        metrics.truncated = (0..400).map(|n| Cow::Owned(format!("response.choices.{n}"))).collect();
        metrics.input_tokens = Some(u64::MAX);
    });
    assert!(plugin(&fake, &json!({})).export([sample]).is_all_delivered());
    let log = &fake.stored_logs()[0].attributes;
    assert_eq!(log["user_id"], json!(format!("'{many}'")));
    assert!(log["org_id"].as_str().unwrap().ends_with("😀…"));
    assert!(log["truncated"].as_str().unwrap().ends_with('…'), "{}", log["truncated"]);
    assert_eq!(log["input_tokens"].as_f64(), Some(18_446_744_073_709_551_615.0));
    assert_eq!(losses(&fake), [""; 0]);
}

#[test]
fn numbers_become_counts_and_summaries() {
    let fake = Fake::start();
    let stream = Sample::stream().number(3).started_ago(Duration::from_secs(10));
    // Both end in the same interval, since the latency carries the end beyond now.
    let newrelic = plugin(&fake, &json!({ "metric_prefix": "llm" }));
    assert!(newrelic.export([Sample::fresh(1), Sample::fresh(2), stream]).is_all_delivered());
    for (name, expected) in [
        ("llm.requests", 3.0),
        ("llm.errors", 0.0),
        ("llm.tokens.input", 144.0),
        ("llm.tokens.cached_write", 0.0),
        ("llm.tokens.reasoning", 384.0),
        ("llm.cost", 0.1368),
    ] {
        assert!((total(&fake, name) - expected).abs() < 1e-9, "{name}: {}", total(&fake, name));
    }
    let points = fake.metrics();
    assert!(points.iter().all(|point| point["name"] != "llm.tokens.cached_write"));
    let of = |name: &str| points.iter().find(|point| point["name"] == name).unwrap();
    let first = of("llm.time_to_first_token");
    assert_eq!(first["value"], json!({ "count": 1, "sum": 0.4125, "min": 0.4125, "max": 0.4125 }));
    assert_eq!((&first["type"], &first["interval.ms"]), (&json!("summary"), &json!(metrics::INTERVAL)));
    let expected = json!({
        "service.name": "noveum_ai_gateway", "service.version": "1.0.0", "deployment.environment": "production",
        "provider": "openai", "model": "gpt-4o-mini-2024-07-18", "status": "success", "status_code": 200,
        "is_streaming": true, "hostname": "web-1", "logtype": "magicapi-gateway", "team": "llm",
    });
    assert_eq!(first["attributes"], expected);
    assert_eq!((requests(&fake, METRICS).len(), losses(&fake)), (1, vec![]));
}

#[test]
fn models_that_clients_make_up_have_no_data_points_of_their_own() {
    let fake = Fake::start();
    let newrelic = plugin(&fake, &json!({ "max_models": 2 }));
    let asked = |number: u32, model: &str, sample: Sample| {
        let model = model.to_owned();
        sample.number(number).started_ago(Duration::ZERO).with(|metrics| {
            metrics.model = None;
            metrics.request_model = Some(Cow::Owned(model));
        })
    };
    let junk = (0..50).map(|number| asked(number, &format!("junk-{number}"), Sample::failed()));
    let real =
        ["a", "b", "c", "d"].iter().zip(50..).map(|(model, number)| asked(number, model, Sample::chat()));
    assert!(newrelic.export(junk.chain(real)).is_all_delivered());
    let models: BTreeSet<String> = fake
        .metrics()
        .iter()
        .map(|point| point["attributes"]["model"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(models, ["a", "b", "other"].map(str::to_owned).into());
    assert_eq!(fake.logs()[7]["request_model"], "junk-7");
}

#[test]
fn a_failure_counts_under_the_model_that_was_asked_for_and_says_why() {
    let fake = Fake::start();
    let model = |answered: Option<&'static str>, sample: Sample| {
        sample.started_ago(Duration::ZERO).with(|metrics| {
            (metrics.request_model, metrics.model) = (Some("gpt-4o".into()), answered.map(Into::into));
        })
    };
    let answered = (0..7).map(|n| model(Some("gpt-4o-2024-08-06"), Sample::chat().number(n)));
    let failed = (7..9).map(|n| model(None, Sample::failed().number(n)));
    let newrelic = plugin(&fake, &json!({ "max_models": 2 }));
    assert!(newrelic.export(answered.chain(failed)).is_all_delivered());
    let counted = |model: &str| {
        let points = fake.metrics().into_iter();
        let of_model =
            points.filter(|p| p["name"] == "magicapi.requests" && p["attributes"]["model"] == model);
        of_model.map(|point| point["value"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((counted("gpt-4o-2024-08-06"), counted("gpt-4o"), counted("other")), (7, 2, 0));
    let logs = fake.logs();
    let said = |number: usize| (&logs[number]["error.message"], &logs[number]["error_type"]);
    assert_eq!(said(8), (&json!("Rate limit reached"), &json!("rate_limit_exceeded")));
    assert!(logs[0].get("error.message").is_none());
}

#[test]
fn tags_show_what_a_record_says_and_are_bounded_in_metrics() {
    let fake = Fake::start();
    let settings = json!({ "max_tag_values": 1, "record_tags": { "squad": "project_id", "tier": "request:/service_tier" } });
    let of = |number: u32, squad: &'static str| {
        Sample::fresh(number)
            .with(|metrics| metrics.project_id = Some(squad.into()))
            .request(r#"{"service_tier":"flex"}"#)
    };
    assert!(plugin(&fake, &settings).export([of(1, "design"), of(2, "sales")]).is_all_delivered());
    for (log, squad) in fake.logs().iter().zip(["design", "sales"]) {
        assert_eq!((&log["squad"], &log["tier"]), (&json!(squad), &json!("flex")));
    }
    let metrics = fake.metrics();
    let squads: BTreeSet<&str> =
        metrics.iter().map(|point| point["attributes"]["squad"].as_str().unwrap()).collect();
    assert_eq!((squads, losses(&fake)), (BTreeSet::from(["design", "other"]), vec![]));
}

#[test]
fn what_new_relic_would_drop_is_rejected_with_its_age() {
    let fake = Fake::start();
    let hours = |number, hours| Sample::chat().number(number).started_ago(Duration::from_hours(hours));
    let outcome = plugin(&fake, &json!({})).export([hours(1, 47), hours(2, 48), Sample::fresh(3)]);
    assert!(outcome.is_delivered(0) && outcome.is_delivered(2), "{outcome:?}");
    assert_eq!(
        outcome.rejections(),
        ["the record is 48 h 0 min old: New Relic drops what is over 48 h old unseen"]
    );
    assert_eq!((fake.logs().len(), total(&fake, "magicapi.requests"), losses(&fake)), (2, 2.0, vec![]));
}

#[test]
fn an_answer_decides_what_becomes_of_the_records() {
    for (fault, expected, text) in [
        (Fault::status(400), status::REJECT, "answered 400 Bad Request"),
        (Fault::status(401), status::UNAUTHORIZED, "NEW_RELIC_LICENSE_KEY"),
        (Fault::status(403), status::UNAUTHORIZED, "not a license key of this region"),
        (Fault::status(404), status::RETRY, "is the URL right?"),
        (Fault::status(405), status::RETRY, "is the URL right?"),
        (Fault::status(408), status::RETRY, "answered 408"),
        (Fault::status(411), status::REJECT, "answered 411"),
        (Fault::status(413), status::TOO_LARGE, "answered 413"),
        (Fault::status(415), status::REJECT, "answered 415"),
        (Fault::too_many_requests("7"), status::RETRY, "answered 429 Too Many Requests"),
        (Fault::status(431), status::REJECT, "answered 431"),
        (Fault::status(503), status::RETRY, "answered 503"),
    ] {
        let fake = Fake::start();
        let newrelic = plugin(&fake, &json!({}));
        fake.fail(fault.clone());
        let outcome = newrelic.export([Sample::fresh(1), Sample::fresh(2)]);
        assert_eq!(outcome.status, expected, "{fault:?}: {outcome:?}");
        assert!(outcome.message.contains(text) && !outcome.message.contains(LICENSE_KEY), "{outcome:?}");
        assert!(outcome.verdicts.iter().all(Option::is_none) && outcome.faults.is_empty(), "{outcome:?}");
        let asked = matches!(&fault, Fault::Status { code: 429, .. }).then_some(Duration::from_secs(7));
        assert_eq!(outcome.retry_after, asked);
        // A record alone cannot be split.
        if expected == status::TOO_LARGE {
            let alone = newrelic.export([Sample::fresh(1)]);
            assert_eq!((alone.status, &*alone.letters()), (status::REJECT, "-"), "{alone:?}");
            assert!(alone.message.contains("413"), "{alone:?}");
        }
    }
}

#[test]
fn a_failure_of_the_metrics_sends_no_log_twice_and_counts_nothing_twice() {
    for fault in [Fault::status(503), Fault::status(403), Fault::status(400), Fault::CutAnswer] {
        let fake = Fake::start();
        let newrelic = plugin(&fake, &json!({}));
        let records = Records::of([Sample::fresh(1), Sample::fresh(2)]);
        fake.fail_on(METRICS, fault.clone());
        let first = newrelic.export_records(&records);
        assert!(!first.is_delivered(0) && !first.is_delivered(1), "{fault:?}: {first:?}");
        assert_eq!(fake.logs().len(), 2);
        fake.behave(Behaviour::Accept);
        assert!(newrelic.export_again(&records, 1).is_all_delivered());
        assert_eq!((fake.logs().len(), total(&fake, "magicapi.requests")), (2, 2.0), "{fault:?}");
        // It is forgotten then: the same record is a new one.
        assert!(newrelic.export_records(&records).is_all_delivered());
        assert_eq!((fake.logs().len(), total(&fake, "magicapi.requests")), (4, 4.0));
    }
}

#[test]
fn each_signal_can_be_switched_off() {
    for (settings, logs, metrics) in
        [(json!({ "logs": false }), 0, 1.0), (json!({ "metrics": false }), 1, 0.0)]
    {
        let fake = Fake::start();
        assert!(plugin(&fake, &settings).export([Sample::fresh(1)]).is_all_delivered());
        assert_eq!((fake.logs().len(), total(&fake, "magicapi.requests")), (logs, metrics), "{settings}");
    }
}

#[test]
fn settings_that_cannot_work_are_errors_that_name_them() {
    for (settings, expected) in [
        (json!({}), "no license key: set NEW_RELIC_LICENSE_KEY"),
        (
            json!({ "license_key": "k", "license_key_file": "/k" }),
            "license_key and license_key_file are both set",
        ),
        (json!({ "license_key": "k", "logs_url": "localhost" }), "logs_url: "),
        (
            json!({ "license_key": "k", "attributes": { "eventType": "x" } }),
            "attributes: New Relic keeps `eventType`",
        ),
        (json!({ "license_key": "k", "logs": false, "metrics": false }), "nothing to send"),
    ] {
        let failure = Plugin::<NewRelic>::create(settings.to_string()).unwrap_err();
        assert_eq!(failure.status, status::INVALID_CONFIG);
        assert!(failure.message.contains(expected), "{failure}");
    }
}

#[test]
fn health_is_the_key_and_the_last_export() {
    let fake = Fake::start();
    let newrelic = plugin(&fake, &json!({}));
    for _ in 0..3 {
        newrelic.health().unwrap();
    }
    assert_eq!((fake.requests().len(), fake.integration_errors().len()), (1, 0));
    fake.fail_next(1, Fault::status(503));
    assert_eq!(newrelic.export([Sample::fresh(1)]).status, status::RETRY);
    assert!(newrelic.health().unwrap_err().message.contains("503"));
    assert!(newrelic.export([Sample::fresh(1)]).is_all_delivered());
    newrelic.health().unwrap();
    let stranger = plugin(&fake, &json!({ "license_key": "another" }));
    let unhealthy = stranger.health().unwrap_err();
    assert!(unhealthy.message.contains("403") && !unhealthy.message.contains("another"), "{unhealthy}");
}

#[test]
fn many_records_are_requests_below_a_million_bytes() {
    let fake = Fake::start();
    let newrelic = plugin(&fake, &json!({ "max_models": 10_000 })).with_deadline(Duration::from_mins(1));
    let named = |number: u32| {
        Sample::fresh(number)
            .with(|metrics| metrics.model = Some(Cow::Owned(format!("{number}-{}", "m".repeat(240)))))
    };
    let outcome = newrelic.export((0..1_000).map(named));
    assert!(outcome.is_all_delivered(), "{}", outcome.message);
    for (path, limit) in [(LOGS, logs::MAX_BYTES), (METRICS, metrics::MAX_BYTES)] {
        let sizes: Vec<_> = requests(&fake, path).iter().map(|request| request.body.len()).collect();
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size <= limit), "{path}: {sizes:?}");
        // Full but for the last one.
        assert!(sizes[..sizes.len() - 1].iter().all(|size| *size > limit - 10_000), "{path}: {sizes:?}");
    }
    assert_eq!(
        (fake.logs().len(), total(&fake, "magicapi.requests"), losses(&fake)),
        (1_000, 1_000.0, vec![])
    );
}

/// Names and bodies of any size, with characters that JSON escapes.
fn any_sample() -> impl Strategy<Value = (usize, usize, usize, usize, usize)> {
    let size = prop_oneof![Just(0_usize), 1..9_000_usize, 300_000..700_000_usize, 900_000..3_000_000_usize];
    (size.clone(), size, prop_oneof![4 => 0..300_usize, 1 => 3_000..60_000_usize], 0..7_usize, 0..600_usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_record_of_any_size_breaks_a_limit(
        samples in vec(any_sample(), 1..10), attributes in 0..=40_usize, gzip in any::<bool>(),
    ) {
        let fake = Fake::start();
        let attributes: Value = (0..attributes).map(|n| (format!("own.{n}"), "\0".repeat(200))).collect();
        let newrelic = plugin(&fake, &json!({ "attributes": attributes, "gzip": gzip })).with_deadline(Duration::from_mins(1));
        let built: Vec<_> = samples.iter().zip(0..).map(|(&(request, response, name, odd, truncated), number)| {
            let character = ["x", "é", "\\n", "\\u0000", "\\\"", "😀", "{},"][odd];
            let body = |size: usize| match size {
                0 => String::new(),
                size => format!("{{\"messages\":[{{\"content\":\"{}\"}}]}}", character.repeat(size / character.len())),
            };
            let text = ["n", "é", "\n", "\0", "\"", "😀", "{}"][odd].repeat(name / 4);
            let sample = Sample::fresh(number).request(body(request)).response(body(response)).with(|metrics| {
                for field in [
                    &mut metrics.org_id, &mut metrics.user_id, &mut metrics.project_id, &mut metrics.project_name,
                    &mut metrics.experiment_id, &mut metrics.client_request_id, &mut metrics.provider, &mut metrics.model,
                    &mut metrics.request_model, &mut metrics.error_type, &mut metrics.provider_error_type,
                    &mut metrics.provider_request_id,
                ] {
                    *field = Some(Cow::Owned(text.clone()));
                }
                for field in [&mut metrics.thread_id, &mut metrics.path, &mut metrics.method, &mut metrics.service_name] {
                    *field = Cow::Owned(text.clone());
                }
                metrics.truncated = (0..truncated).map(|n| Cow::Owned(format!("part {n}"))).collect();
            });
            (sample, body(request), body(response))
        }).collect();
        let outcome = newrelic.export(built.iter().map(|(sample, ..)| sample.clone()));
        // Nothing is over a limit, so nothing is even rejected, and each is there once.
        prop_assert!(outcome.is_all_delivered(), "{}", outcome.message);
        let stored = fake.stored_logs();
        prop_assert_eq!(losses(&fake), [""; 0]);
        prop_assert_eq!((stored.len(), fake.duplicates().len()), (samples.len(), 0));
        #[allow(clippy::cast_precision_loss)]
        let sent = samples.len() as f64;
        prop_assert!((total(&fake, "magicapi.requests") - sent).abs() < 0.5);
        for (path, limit) in [(LOGS, logs::MAX_BYTES), (METRICS, metrics::MAX_BYTES)] {
            let is_within = |request: &Request| request.body.len() <= limit && request.wire.len() <= request.body.len();
            prop_assert!(requests(&fake, path).iter().all(is_within));
        }
        for log in &stored {
            prop_assert!(log.attributes.len() <= logs::MAX_ENTRY_ATTRIBUTES);
            for (name, value) in &log.attributes {
                let text = value.as_str().unwrap_or_default();
                let is_object = serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object() || value.is_array());
                prop_assert!(text.encode_utf16().count() <= text::MAX_CHARS && !is_object, "{}", name);
            }
        }
        // A body is there as it was, or not at all and named; a small one is there.
        for (sample, request, response) in &built {
            let log = stored.iter().find(|log| log.attributes["id"] == sample.id()).unwrap();
            for (name, body, other) in [("request", request, response), ("response", response, request)] {
                let kept = joined(&log.attributes, name);
                let truncated = log.attributes.get("truncated").and_then(Value::as_str).unwrap_or_default();
                let is_named = truncated.ends_with('…') || truncated.split(',').any(|part| part == name);
                prop_assert!(kept == **body || kept.is_empty() && is_named, "{name}: {truncated}");
                let is_small = body.len() + other.len() < 20_000;
                prop_assert!(!is_small || kept == **body, "{name}");
            }
        }
    }
}
