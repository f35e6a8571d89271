//! The exporter against a fake of Datadog.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use exporter_testkit::{Plugin, Records, Sample};
use fake_backends::{
    Behaviour, Fault, Request,
    datadog::{API_KEY, Datadog as Fake, LOG_MAX_BYTES, LOGS_MAX_BYTES, LOGS_MAX_ENTRIES},
};
use plugin_api::{Content, abi::status};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::Datadog;

const SPANS: &str = "/api/intake/llm-obs/v1/trace/spans";

fn settings(fake: &Fake, more: &Value) -> String {
    let mut settings = json!({
        "api_key": API_KEY, "logs_url": fake.url(), "api_url": fake.url(), "hostname": "web-1", "tags": ["team:llm"],
    });
    let more = more.as_object().unwrap().clone();
    settings.as_object_mut().unwrap().extend(more);
    settings.to_string()
}

fn plugin(fake: &Fake, more: &Value) -> Plugin<Datadog> {
    Plugin::create(settings(fake, more)).unwrap()
}

fn requests(fake: &Fake, path: &str) -> Vec<Request> {
    fake.requests().into_iter().filter(|request| request.path() == path).collect()
}

/// All values of a distribution.
fn values(fake: &Fake, name: &str) -> Vec<f64> {
    let named = |series: &Value| series["metric"] == name;
    let points = |series: Value| series["points"].as_array().unwrap().clone();
    let all = fake.distributions().into_iter().filter(named).flat_map(points);
    all.flat_map(|point| point[1].as_array().unwrap().clone()).map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn a_record_becomes_a_log_entry_with_datadogs_attributes() {
    let fake = Fake::start();
    let sample = Sample::fresh(1);
    let id = sample.id().replace('-', "");
    assert!(plugin(&fake, &json!({})).export([sample]).is_all_delivered());
    let [entry] = fake.logs().try_into().unwrap();
    for (pointer, expected) in [
        ("/ddsource", json!("magicapi-gateway")),
        (
            "/ddtags",
            json!(
                "env:production,version:1.0.0,provider:openai,model:gpt-4o-mini-2024-07-18,status:success,\
                 status_code:200,is_streaming:false,team:llm"
            ),
        ),
        ("/service", json!("noveum_ai_gateway")),
        ("/hostname", json!("web-1")),
        ("/status", json!("info")),
        (
            "/message",
            json!("POST /v1/chat/completions 200 openai gpt-4o-mini-2024-07-18 6250 ms 48+865 tokens"),
        ),
        (
            "/http",
            json!({ "method": "POST", "url_details": { "path": "/v1/chat/completions" }, "status_code": 200 }),
        ),
        ("/duration", json!(6_250_250_000_u64)),
        ("/usr/id", json!("user_456")),
        ("/dd", json!({ "trace_id": "11803532876627986230", "span_id": "67667974448284343" })),
        ("/trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("/attributes/id", json!(format!("msg_{id}"))),
        ("/attributes/request/model", json!("gpt-4o-mini")),
        ("/attributes/response/usage/total_tokens", json!(913)),
        ("/attributes/metadata/cost", json!(0.0456)),
    ] {
        assert_eq!(entry.pointer(pointer), Some(&expected), "{pointer}: {entry:#}");
    }
    assert!(entry["timestamp"].is_string() && entry.get("error").is_none(), "{entry:#}");
    let [request] = requests(&fake, "/api/v2/logs").try_into().unwrap();
    assert_eq!((request.encoding().as_str(), request.header("dd-api-key")), ("gzip", Some(API_KEY)));
}

#[test]
fn a_failure_is_an_error_with_its_kind_and_the_settings_name_the_sender() {
    let fake = Fake::start();
    let named =
        json!({ "env": "test", "service": "billing", "version": "7", "source": "llm", "hostname": "" });
    let failed = Sample::failed().number(1).started_ago(Duration::ZERO);
    assert!(plugin(&fake, &named).export([failed]).is_all_delivered());
    let [entry] = fake.logs().try_into().unwrap();
    let tags = entry["ddtags"].as_str().unwrap();
    assert!(tags.starts_with("env:test,version:7,provider:openai,model:gpt-4o-mini,status:error,"), "{tags}");
    assert_eq!((&entry["service"], &entry["ddsource"]), (&json!("billing"), &json!("llm")));
    let error = json!({ "message": "Rate limit reached", "kind": "rate_limit_exceeded" });
    assert_eq!((&entry["status"], &entry["error"]), (&json!("error"), &error));
    assert!(entry.get("hostname").is_none());
}

#[test]
fn numbers_become_distributions() {
    let fake = Fake::start();
    let stream = Sample::stream().number(2).started_ago(Duration::from_secs(10));
    assert!(
        plugin(&fake, &json!({})).export([Sample::fresh(1), Sample::fresh(3), stream]).is_all_delivered()
    );
    for (name, expected) in [
        ("magicapi.request.duration", &[6.25025, 6.25025, 6.25025][..]),
        ("magicapi.provider.latency", &[0.2555, 0.2555, 0.2555]),
        ("magicapi.time_to_first_token", &[0.4125]),
        ("magicapi.tokens.input", &[48.0, 48.0, 48.0]),
        ("magicapi.tokens.cached_write", &[]),
        ("magicapi.cost", &[0.0456, 0.0456, 0.0456]),
    ] {
        // The fake's JSON parser may be a hair off, depending on which of its features a build has.
        let (sent, is_near) = (values(&fake, name), |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9);
        let is_same = sent.len() == expected.len() && sent.iter().zip(expected).all(is_near);
        assert!(is_same, "{name}: {sent:?} instead of {expected:?}");
    }
    let series = fake.distributions();
    let duration = series.iter().find(|series| series["metric"] == "magicapi.request.duration").unwrap();
    assert_eq!(duration["host"], "web-1");
    let tags: HashSet<&str> = duration["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for tag in ["env:production", "service:noveum_ai_gateway", "model:gpt-4o-mini-2024-07-18", "team:llm"] {
        assert!(tags.contains(tag), "{tags:?}");
    }
    let [request] = requests(&fake, "/api/v1/distribution_points").try_into().unwrap();
    assert_eq!(request.encoding(), "deflate");
}

#[test]
fn models_that_clients_make_up_have_no_tags_of_their_own() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({ "max_models": 2 }));
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
    assert!(datadog.export(junk.chain(real)).is_all_delivered());
    let tags = fake.distributions().into_iter().flat_map(|series| series["tags"].as_array().unwrap().clone());
    let models: HashSet<String> =
        tags.filter_map(|tag| Some(tag.as_str()?.strip_prefix("model:")?.to_owned())).collect();
    assert_eq!(models, ["a", "b", "other"].map(str::to_owned).into());
    assert!(fake.logs()[7]["ddtags"].as_str().unwrap().contains("model:junk-7"));
}

#[test]
fn an_entry_that_would_be_cut_goes_without_its_bodies() {
    let fake = Fake::start();
    let big = format!("\"{}\"", "x".repeat(LOG_MAX_BYTES));
    let tight = format!("\"{}\"", "x".repeat(LOG_MAX_BYTES - 1000));
    let huge = Sample::fresh(3).with(|metrics| metrics.project_name = Some("p".repeat(LOG_MAX_BYTES).into()));
    let datadog = plugin(&fake, &json!({}));
    let outcome = datadog.export([
        Sample::fresh(0).response(big),
        Sample::fresh(1).request(tight).response(""),
        Sample::fresh(2),
        huge,
    ]);
    assert!((0..3).all(|index| outcome.is_delivered(index)), "{outcome:?}");
    let reason = outcome.rejections();
    assert!(reason.len() == 1 && reason[0].contains("bytes without its bodies"), "{reason:?}");
    let stored = fake.stored_logs();
    assert!(stored.len() == 3 && stored.iter().all(|log| !log.was_cut));
    let truncated = |index: usize| &stored[index].entry["attributes"]["metadata"]["truncated"];
    assert_eq!(truncated(0), &json!(["response", "request"]));
    assert_eq!((truncated(1), truncated(2)), (&json!(["request"]), &json!([])));
    assert_eq!(stored[0].entry["attributes"]["response"], Value::Null);
}

#[test]
fn what_datadog_would_drop_is_rejected_with_its_age() {
    let fake = Fake::start();
    let hours = |number, hours| Sample::chat().number(number).started_ago(Duration::from_hours(hours));
    let outcome = plugin(&fake, &json!({})).export([hours(1, 2), hours(2, 18), Sample::fresh(3)]);
    assert!(outcome.is_delivered(0) && outcome.is_delivered(2), "{outcome:?}");
    assert_eq!(
        outcome.rejections(),
        ["the record is 18 h 0 min old: Datadog drops logs over 18 h old unseen"]
    );
    assert_eq!((fake.logs().len(), fake.dropped_logs().len()), (2, 0));
    // The metrics of two hours ago would be dropped too.
    assert_eq!(values(&fake, "magicapi.cost").len(), 1);
    let outcome = plugin(&fake, &json!({ "logs": false })).export([hours(1, 2), Sample::fresh(3)]);
    assert!(outcome.rejections()[0].contains("points of metrics over 1 h"), "{outcome:?}");
    let spans = json!({ "logs": false, "metrics": false, "llm_observability": true });
    let outcome = plugin(&fake, &spans).export([hours(1, 20), hours(2, 24)]);
    assert!(outcome.is_delivered(0) && outcome.rejections()[0].contains("spans over 24 h"), "{outcome:?}");
    assert_eq!((fake.spans().len(), fake.dropped_spans().len()), (1, 0));
}

#[test]
fn an_answer_decides_what_becomes_of_the_records() {
    for (fault, expected, text) in [
        (Fault::status(400), status::REJECT, "answered 400 Bad Request"),
        (Fault::status(401), status::UNAUTHORIZED, "DD_API_KEY"),
        (Fault::status(403), status::UNAUTHORIZED, "DD_SITE"),
        (Fault::status(408), status::RETRY, "answered 408"),
        (Fault::status(413), status::TOO_LARGE, "answered 413"),
        (Fault::too_many_requests("7"), status::RETRY, "answered 429 Too Many Requests"),
        (Fault::status(503), status::RETRY, "answered 503"),
    ] {
        let fake = Fake::start();
        let datadog = plugin(&fake, &json!({}));
        fake.fail(fault.clone());
        let outcome = datadog.export([Sample::fresh(1), Sample::fresh(2)]);
        assert_eq!(outcome.status, expected, "{fault:?}: {outcome:?}");
        assert!(outcome.message.contains(text) && !outcome.message.contains(API_KEY), "{outcome:?}");
        assert!(outcome.verdicts.iter().all(Option::is_none) && outcome.faults.is_empty(), "{outcome:?}");
        let asked = matches!(&fault, Fault::Status { code: 429, .. }).then_some(Duration::from_secs(7));
        assert_eq!(outcome.retry_after, asked);
    }
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The check of the key, and the logs.
    let limited = thread::spawn(move || {
        for _ in 0..2 {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
            let answer = "HTTP/1.1 429 Too Many Requests\r\nx-ratelimit-reset: 9\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    let settings = json!({ "api_key": API_KEY, "logs_url": url, "api_url": url });
    let outcome = Plugin::<Datadog>::create(settings.to_string()).unwrap().export([Sample::fresh(1)]);
    limited.join().unwrap();
    assert_eq!((outcome.status, outcome.retry_after), (status::RETRY, Some(Duration::from_secs(9))));
}

#[test]
fn a_record_that_only_lacks_its_metrics_is_not_too_old_for_its_log() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({}));
    fake.fail_on("/api/v1/distribution_points", Fault::status(503));
    assert_eq!(datadog.export([Sample::fresh(1)]).status, status::RETRY);
    // The same record, a day later.
    let outcome = datadog.export([Sample::chat().number(1).started_ago(Duration::from_hours(24))]);
    assert!(outcome.is_all_delivered(), "{outcome:?}");
    assert_eq!(fake.logs().len(), 1);
}

#[test]
fn the_key_is_a_secret_and_every_setting_is_documented() {
    let schema = schemars::schema_for!(crate::config::Config);
    let properties = schema.get("properties").and_then(Value::as_object).unwrap();
    assert_eq!(properties["api_key"]["x-secret"], true);
    assert_eq!(properties["api_key"]["x-env"], "DD_API_KEY");
    for (name, property) in properties {
        assert!(property["description"].is_string(), "{name}");
    }
}

#[test]
fn a_failure_of_the_metrics_sends_no_log_twice_and_counts_nothing_twice() {
    for fault in [Fault::status(503), Fault::status(403), Fault::status(400), Fault::CutAnswer] {
        let fake = Fake::start();
        let datadog = plugin(&fake, &json!({}));
        let records = Records::of([Sample::fresh(1), Sample::fresh(2)]);
        fake.fail_on("/api/v1/distribution_points", fault.clone());
        let first = datadog.export_records(&records);
        assert!(!first.is_delivered(0) && !first.is_delivered(1), "{fault:?}: {first:?}");
        assert_eq!(fake.logs().len(), 2);
        fake.behave(Behaviour::Accept);
        assert!(datadog.export_again(&records, 1).is_all_delivered());
        assert_eq!(fake.logs().len(), 2, "{fault:?}");
        assert_eq!(values(&fake, "magicapi.cost").len(), 2, "{fault:?}");
        // It is forgotten then: the same record is a new one.
        assert!(datadog.export_records(&records).is_all_delivered());
        assert_eq!(fake.logs().len(), 4);
    }
}

#[test]
fn metrics_that_are_refused_for_good_leave_the_record_to_the_gateway() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({}));
    for code in [400, 413] {
        fake.behave(Behaviour::Accept);
        fake.fail_on("/api/v1/distribution_points", Fault::status(code));
        let outcome = datadog.export([Sample::fresh(code.into())]);
        let expected = format!("/api/v1/distribution_points answered {code}");
        assert_eq!((outcome.status, &*outcome.letters()), (status::REJECT, "-"), "{outcome:?}");
        assert!(outcome.message.contains(&expected), "{outcome:?}");
    }
}

#[test]
fn requests_are_spans_with_messages_where_content_is_full() {
    for (content, has_messages) in [(Content::Full, true), (Content::Metadata, false)] {
        let fake = Fake::start();
        let settings = settings(&fake, &json!({ "llm_observability": true, "ml_app": "My Bot" }));
        let datadog = Plugin::<Datadog>::create_seeing(content, settings).unwrap();
        assert!(
            datadog
                .export([Sample::fresh(1), Sample::failed().number(2).started_ago(Duration::ZERO)])
                .is_all_delivered()
        );
        let [span, failed] = fake.spans().try_into().unwrap();
        for (pointer, expected) in [
            ("/name", json!("POST /v1/chat/completions")),
            ("/trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
            ("/duration", json!(6_250_250_000_u64)),
            ("/status", json!("ok")),
            ("/session_id", json!("thread_1")),
            ("/meta/kind", json!("llm")),
            ("/meta/metadata/model_name", json!("gpt-4o-mini-2024-07-18")),
            ("/parent_id", json!("b7ad6b7169203331")),
            ("/meta/metadata/cost_usd", Value::Null),
            ("/_payload/ml_app", json!("my_bot")),
        ] {
            assert_eq!(span.pointer(pointer).unwrap_or(&Value::Null), &expected, "{pointer}: {span:#}");
        }
        let messages = [
            json!({ "role": "user", "content": "Say hello" }),
            json!({ "role": "assistant", "content": "Hello!" }),
        ];
        for (pointer, message) in ["/meta/input/messages/0", "/meta/output/messages/0"].iter().zip(&messages)
        {
            assert_eq!(span.pointer(pointer), Some(message).filter(|_| has_messages));
        }
        let text = if has_messages { "Rate limit reached" } else { "HTTP status 429" };
        let error = json!({ "message": text, "type": "rate_limit_exceeded" });
        assert_eq!((&failed["status"], &failed["meta"]["error"]), (&json!("error"), &error));
    }
}

#[test]
fn a_span_has_all_that_prices_it() {
    let fake = Fake::start();
    let sample = Sample::fresh(1).with(|metrics| {
        (metrics.input_tokens, metrics.cached_read_tokens) = (Some(50), Some(22));
        (metrics.cached_write_tokens, metrics.reasoning_tokens) = (Some(15), Some(128));
    });
    assert!(plugin(&fake, &json!({ "llm_observability": true })).export([sample]).is_all_delivered());
    let [span] = fake.spans().try_into().unwrap();
    for (name, expected) in [
        ("input_tokens", 50.0),
        ("non_cached_input_tokens", 13.0),
        ("cache_read_input_tokens", 22.0),
        ("cache_write_input_tokens", 15.0),
        ("output_tokens", 865.0),
        ("reasoning_output_tokens", 128.0),
        ("total_tokens", 913.0),
        ("total_cost", 0.0456),
    ] {
        let sent = span["metrics"][name].as_f64();
        assert!(sent.is_some_and(|sent| (sent - expected).abs() < 1e-9), "{name}: {span:#}");
    }
    assert_eq!(requests(&fake, SPANS)[0].encoding(), "gzip");
}

#[test]
fn an_intake_that_takes_no_compressed_spans_has_them_plain() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({ "llm_observability": true }));
    fake.fail_next_on(SPANS, 1, Fault::status(415));
    for number in 1..4 {
        assert!(datadog.export([Sample::fresh(number)]).is_all_delivered());
    }
    let encodings: Vec<_> = requests(&fake, SPANS).iter().map(Request::encoding).collect();
    assert_eq!(encodings, ["gzip", "identity", "identity", "identity"], "it is asked once");
    assert_eq!(fake.spans().len(), 3);
}

#[test]
fn spans_that_are_refused_as_gzip_and_plain_are_refused() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({ "llm_observability": true, "logs": false, "metrics": false }));
    fake.fail_on(SPANS, Fault::status(400));
    assert_eq!(datadog.export([Sample::fresh(1)]).status, status::REJECT);
    fake.behave(Behaviour::Accept);
    assert!(datadog.export([Sample::fresh(2)]).is_all_delivered());
    assert_eq!(requests(&fake, SPANS).last().unwrap().encoding(), "gzip", "plain was no cure");
}

#[test]
fn a_failure_counts_under_the_model_that_was_asked_for() {
    let fake = Fake::start();
    let model = |answered: Option<&'static str>, sample: Sample| {
        sample.started_ago(Duration::ZERO).with(|metrics| {
            (metrics.request_model, metrics.model) = (Some("gpt-4o".into()), answered.map(Into::into));
        })
    };
    let answered = (0..7).map(|n| model(Some("gpt-4o-2024-08-06"), Sample::chat().number(n)));
    let failed = (7..9).map(|n| model(None, Sample::failed().number(n)));
    assert!(plugin(&fake, &json!({ "max_models": 2 })).export(answered.chain(failed)).is_all_delivered());
    let tagged = |tag: &str| {
        let with_tag = fake.distributions().into_iter().filter(|series| {
            series["metric"] == "magicapi.request.duration"
                && series["tags"].as_array().unwrap().contains(&json!(tag))
        });
        with_tag.map(|series| series["points"][0][1].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!((tagged("model:gpt-4o-2024-08-06"), tagged("model:gpt-4o"), tagged("model:other")), (7, 2, 0));
}

#[test]
fn tags_show_what_a_record_says_and_are_bounded_in_metrics() {
    let fake = Fake::start();
    let settings = json!({
        "llm_observability": true, "max_tag_values": 1,
        "record_tags": { "squad": "project_id", "tier": "request:/service_tier" },
    });
    let of = |number: u32, squad: &'static str| {
        Sample::fresh(number)
            .with(|metrics| metrics.project_id = Some(squad.into()))
            .request(r#"{"service_tier":"Flex"}"#)
    };
    assert!(plugin(&fake, &settings).export([of(1, "design"), of(2, "sales")]).is_all_delivered());
    for (number, squad) in [(0, "squad:design"), (1, "squad:sales")] {
        let tags = fake.logs()[number]["ddtags"].as_str().unwrap().to_owned();
        assert!(tags.contains(&format!(",{squad},tier:flex,")), "{tags}");
        assert!(fake.spans()[number]["tags"].as_array().unwrap().contains(&json!(squad)));
    }
    let tags = fake.distributions().into_iter().flat_map(|series| series["tags"].as_array().unwrap().clone());
    let squads: HashSet<String> =
        tags.filter_map(|tag| Some(tag.as_str()?.strip_prefix("squad:")?.to_owned())).collect();
    assert_eq!(squads, ["design", "other"].map(str::to_owned).into());
}

#[test]
fn settings_that_cannot_work_are_errors_that_name_them() {
    for (settings, expected) in [
        (json!({}), "no API key: set DD_API_KEY"),
        (json!({ "api_key": "k", "site": "datadoghq.de" }), "site: `datadoghq.de` is no Datadog site"),
        (json!({ "api_key": "k", "api_url": "localhost" }), "api_url: "),
        (json!({ "api_key": "k", "tags": ["x"] }), "tags: `x` is no tag"),
        (
            json!({ "api_key": "k", "record_tags": { "team": "teem" } }),
            "record_tags: `team`: `teem` is no field",
        ),
        (json!({ "api_key": "k", "record_tags": { "1": "model" } }), "record_tags: `1` is no key of a tag"),
        (json!({ "api_key": "k", "llm_observability": true, "site": "ddog-gov.com" }), "government site"),
    ] {
        let failure = Plugin::<Datadog>::create(settings.to_string()).unwrap_err();
        assert_eq!(failure.status, status::INVALID_CONFIG);
        assert!(failure.message.starts_with(expected) || failure.message.contains(expected), "{failure}");
    }
}

#[test]
fn health_is_the_key_and_the_last_export() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({}));
    for _ in 0..3 {
        datadog.health().unwrap();
    }
    assert_eq!(requests(&fake, "/api/v1/validate").len(), 1);
    fake.fail_next(1, Fault::status(503));
    assert_eq!(datadog.export([Sample::fresh(1)]).status, status::RETRY);
    assert!(datadog.health().unwrap_err().message.contains("503"));
    assert!(datadog.export([Sample::fresh(1)]).is_all_delivered());
    datadog.health().unwrap();
    let stranger = plugin(&fake, &json!({ "api_key": "another" }));
    let unhealthy = stranger.health().unwrap_err();
    assert!(unhealthy.message.contains("403") && !unhealthy.message.contains("another"), "{unhealthy}");
}

/// Names and bodies of any size, with characters that JSON escapes.
fn any_sample() -> impl Strategy<Value = (usize, usize, usize, u8)> {
    let size =
        prop_oneof![Just(0_usize), 1..5_000_usize, 300_000..1_200_000_usize, 2_000_000..4_000_000_usize];
    (size.clone(), size, prop_oneof![4 => 0..300_usize, 1 => 30_000..700_000_usize], 0..6_u8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_record_of_any_size_breaks_a_limit(sizes in vec(any_sample(), 1..9)) {
        let fake = Fake::start();
        let datadog = plugin(&fake, &json!({ "llm_observability": true })).with_deadline(Duration::from_mins(1));
        let samples = sizes.iter().zip(0..).map(|(&(request, response, name, odd), number)| {
            let character = ["x", "é", "\\n", "\\u0000", "\\\"", "😀"][usize::from(odd)];
            let body = |size: usize| match size {
                0 => String::new(),
                size => format!("{{\"messages\":[{{\"content\":\"{}\"}}]}}", character.repeat(size / character.len())),
            };
            let text = ["n", "é", "\n", "\0", "\"", "😀"][usize::from(odd)].repeat(name / 4);
            Sample::fresh(number).request(body(request)).response(body(response)).with(|metrics| {
                metrics.user_id = Some(Cow::Owned(text.clone()));
                metrics.request_model = Some(Cow::Owned(text.clone()));
                metrics.path = Cow::Owned(text);
            })
        });
        let outcome = datadog.export(samples);
        prop_assert_eq!(outcome.status, status::OK, "{}", outcome.message);
        let stored = fake.stored_logs();
        prop_assert!(stored.iter().all(|log| !log.was_cut && log.size <= LOG_MAX_BYTES));
        let delivered = (0..sizes.len()).filter(|index| outcome.is_delivered(*index)).count();
        prop_assert_eq!(delivered + outcome.rejections().len(), sizes.len());
        prop_assert_eq!(stored.len(), delivered);
        prop_assert!(fake.duplicates().is_empty());
        prop_assert_eq!(values(&fake, "magicapi.cost").len(), delivered);
        prop_assert_eq!(fake.spans().len(), delivered);
        for request in requests(&fake, "/api/v2/logs") {
            let entries = request.json().and_then(|body| Some(body.as_array()?.len())).unwrap_or(0);
            prop_assert!(request.body.len() <= LOGS_MAX_BYTES && (1..=LOGS_MAX_ENTRIES).contains(&entries));
        }
        for request in requests(&fake, "/api/intake/llm-obs/v1/trace/spans") {
            prop_assert!(request.body.len() <= 5_000_000);
        }
    }
}

#[test]
fn many_small_records_are_several_requests_of_a_thousand() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({})).with_deadline(Duration::from_mins(1));
    let outcome = datadog.export((0..2_500).map(Sample::fresh));
    assert!(outcome.is_all_delivered());
    let entries = |request: Request| request.json().unwrap().as_array().unwrap().len();
    let sent: Vec<usize> = requests(&fake, "/api/v2/logs").into_iter().map(entries).collect();
    assert_eq!(sent, [1000, 1000, 500]);
    assert_eq!(values(&fake, "magicapi.request.duration").len(), 2_500);
}

#[test]
fn distributions_of_many_series_are_several_requests_below_the_limit() {
    let fake = Fake::start();
    let datadog = plugin(&fake, &json!({ "max_models": 10_000 }));
    let named = |number: u32| {
        Sample::fresh(number)
            .with(|metrics| metrics.model = Some(Cow::Owned(format!("{}-{number}", "m".repeat(180)))))
    };
    assert!(datadog.export((0..900).map(named)).is_all_delivered());
    let sent = requests(&fake, "/api/v1/distribution_points");
    assert!(sent.len() > 1);
    let sizes: Vec<usize> = sent.iter().map(|request| request.body.len()).collect();
    assert!(sizes.iter().all(|size| *size <= crate::metrics::MAX_BYTES), "{sizes:?}");
    // What is reserved for a series is not much more than what it takes.
    assert!(sizes[0] > 200_000, "{sizes:?}");
    assert_eq!(values(&fake, "magicapi.cost").len(), 900);
}
