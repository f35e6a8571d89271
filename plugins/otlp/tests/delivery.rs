//! The exporter as the gateway runs it, against a receiver that fails on command.

#![allow(missing_docs, clippy::unwrap_used)]

mod receiver;

use std::{collections::HashSet, time::Duration};

use exporter_testkit::{Outcome, Plugin, Records, Sample, Verdict};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use otlp_exporter::{Otlp, config::Signal};
use plugin_api::abi::status;
use proptest::{collection::vec, prelude::*, test_runner::Config as Cases};
use receiver::{Fault, Receiver, rpc_status, text};
use serde_json::{Value, json};

const PROTOCOLS: [&str; 2] = ["http/protobuf", "grpc"];

fn plugin(receiver: &Receiver, protocol: &str, more: &Value) -> Plugin<Otlp> {
    let mut settings = json!({ "protocol": protocol, "endpoint": receiver.url() });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Plugin::create(settings.to_string()).unwrap()
}

fn samples(count: u32) -> Vec<Sample> {
    (0..count).map(|number| Sample::chat().number(number)).collect()
}

/// The number of requests in the last cumulative point of each series.
fn counted(receiver: &Receiver) -> u64 {
    let name = "gen_ai.client.operation.duration";
    let last = receiver.metrics().into_iter().rfind(|metric| metric.name == name).unwrap();
    let Some(Data::Histogram(histogram)) = last.data else { panic!("{last:?}") };
    histogram.data_points.iter().map(|point| point.count).sum()
}

#[test]
fn all_signals_of_every_record_arrive_over_both_protocols() {
    for protocol in PROTOCOLS {
        for compression in ["gzip", "zstd", "none"] {
            let receiver = Receiver::start();
            let settings = json!({ "headers": { "x-key": "k" }, "compression": compression });
            let otlp = plugin(&receiver, protocol, &settings);
            otlp.health().unwrap();
            assert!(otlp.export(samples(20)).is_all_delivered());
            let expected: HashSet<String> = samples(20).iter().map(|sample| sample.id().to_owned()).collect();
            assert_eq!(receiver.log_ids().into_iter().collect::<HashSet<_>>(), expected);
            assert_eq!(receiver.span_ids().into_iter().collect::<HashSet<_>>(), expected);
            assert_eq!(
                (receiver.log_ids().len(), receiver.span_ids().len(), counted(&receiver)),
                (20, 20, 20)
            );
            for signal in Signal::ALL {
                let requests = receiver.requests(signal);
                assert_eq!(requests.len(), 1, "{protocol} {signal:?}");
                assert_eq!(requests[0].headers["x-key"], "k");
                assert_eq!(requests[0].headers["user-agent"], "magicapi-gateway/1.0.0");
            }
            let log = &receiver.log_records()[0];
            let body = log.body.clone().unwrap().value.unwrap();
            let opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(body) = body else {
                panic!()
            };
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["attributes"]["response"]["usage"]["total_tokens"], 913);
            otlp.close().unwrap();
        }
    }
}

#[test]
fn only_the_signals_that_are_wanted_are_sent() {
    for (signals, expected) in
        [(json!(["traces"]), [0, 1, 0]), (json!(["metrics", "logs", "logs"]), [1, 0, 1])]
    {
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, "http/protobuf", &json!({ "signals": signals, "body": "none" }));
        assert!(otlp.export(samples(2)).is_all_delivered());
        assert_eq!(Signal::ALL.map(|signal| receiver.requests(signal).len()), expected);
        assert!(receiver.log_records().iter().all(|log| log.body.is_none()));
    }
}

#[test]
fn what_is_taken_with_reservations_is_counted_and_never_sent_again() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, protocol, &json!({}));
        receiver.fail_next(Signal::Logs, Fault::Partial(2, "too old"));
        receiver.fail_next(Signal::Metrics, Fault::Partial(1, ""));
        assert!(otlp.export(samples(5)).is_all_delivered(), "{protocol}");
        assert_eq!(receiver.requests(Signal::Logs).len(), 1);
        let scrape = otlp.scrape().unwrap();
        for line in [
            "otlp_exporter_partial_success_rejected_total{signal=\"logs\"} 2\n",
            "otlp_exporter_partial_success_rejected_total{signal=\"traces\"} 0\n",
            "otlp_exporter_partial_success_rejected_total{signal=\"metrics\"} 1\n",
            "otlp_exporter_metric_series 5\n",
        ] {
            assert!(scrape.contains(line), "{line}{scrape}");
        }
    }
}

#[test]
fn a_request_of_which_nothing_was_taken_is_rejected_with_the_receivers_words() {
    let receiver = Receiver::start();
    let otlp = plugin(&receiver, "http/protobuf", &json!({}));
    receiver.fail_next(Signal::Logs, Fault::Partial(3, "index is\nread-only"));
    let outcome = otlp.export(samples(3));
    assert!(outcome.faults.is_empty(), "{outcome:?}");
    let reason = format!("{}/v1/logs took none of 3 records: \"index is read-only\"", receiver.url());
    assert_eq!(outcome.verdicts, vec![Some(Verdict::Rejected(reason)); 3]);
    assert_eq!((receiver.span_ids().len(), counted(&receiver)), (3, 3), "the other signals go on");
}

/// What becomes of records whose log meets this fault.
fn fate(protocol: &str, fault: Fault, settings: &Value) -> Outcome {
    let receiver = Receiver::start();
    let mut all = json!({ "headers": "authorization=Bearer%20hunter2" });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let otlp = plugin(&receiver, protocol, &all);
    receiver.fail_next(Signal::Logs, fault);
    let outcome = otlp.export(samples(2));
    assert!(outcome.faults.is_empty() && !format!("{outcome:?}").contains("hunter2"), "{outcome:?}");
    assert_eq!((receiver.span_ids().len(), counted(&receiver)), (2, 2), "the other signals go on");
    outcome
}

#[test]
fn an_http_failure_is_what_otlp_says_it_is() {
    let protobuf = || vec![("content-type", "application/x-protobuf".to_owned())];
    let wait = || vec![("retry-after", "7".to_owned())];
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (status, headers, body, expected, wait, said) in [
        (429, wait(), vec![], status::RETRY, seconds(7), "answered 429 Too Many Requests"),
        (503, vec![], b"busy".to_vec(), status::RETRY, None, "answered 503 Service Unavailable: busy"),
        (502, vec![], vec![], status::RETRY, None, "502"),
        (504, vec![], vec![], status::RETRY, None, "504"),
        (503, protobuf(), rpc_status("full", Some(3)), status::RETRY, seconds(3), ": full"),
        (
            400,
            protobuf(),
            rpc_status("bad span id", None),
            status::REJECT,
            None,
            "answered 400 Bad Request: bad span id",
        ),
        (500, vec![], vec![], status::RETRY, None, "500"),
        (408, vec![], vec![], status::RETRY, None, "408"),
        (302, vec![], b"<html>".to_vec(), status::RETRY, None, "302 Found: <html> (is the endpoint right?)"),
        (400, vec![], b"http: request body too large".to_vec(), status::TOO_LARGE, None, "400"),
        (
            401,
            vec![],
            b"no Bearer hunter2".to_vec(),
            status::UNAUTHORIZED,
            None,
            "no *** (are the headers right?)",
        ),
        (403, vec![], vec![], status::UNAUTHORIZED, None, "403"),
        (413, vec![], vec![], status::TOO_LARGE, None, "413"),
    ] {
        let outcome = fate("http/protobuf", Fault::Http(status, headers, body), &json!({}));
        assert_eq!((outcome.status, outcome.retry_after), (expected, wait), "{status}: {outcome:?}");
        assert!(
            outcome.message.starts_with("POST http://127.0.0.1:") && outcome.message.contains(said),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_grpc_failure_is_what_otlp_says_it_is() {
    for (code, details, expected, wait, said) in [
        (14, None, status::RETRY, None, "LogsService/Export answered UNAVAILABLE: no Bearer%20you"),
        (14, Some(rpc_status("", Some(3))), status::RETRY, Some(Duration::from_secs(3)), "UNAVAILABLE"),
        (4, None, status::RETRY, None, "DEADLINE_EXCEEDED"),
        (8, None, status::RETRY, None, "RESOURCE_EXHAUSTED"),
        (8, Some(rpc_status("", Some(3))), status::RETRY, Some(Duration::from_secs(3)), "RESOURCE_EXHAUSTED"),
        (3, None, status::REJECT, None, "INVALID_ARGUMENT"),
        (2, None, status::REJECT, None, "UNKNOWN"),
        (16, None, status::UNAUTHORIZED, None, "(are the headers right?)"),
        (7, None, status::UNAUTHORIZED, None, "PERMISSION_DENIED"),
    ] {
        let outcome = fate("grpc", Fault::Grpc(code, "no Bearer%2520you", details), &json!({}));
        assert_eq!((outcome.status, outcome.retry_after), (expected, wait), "{code}: {outcome:?}");
        assert!(
            outcome.message.starts_with("gRPC http://127.0.0.1:") && outcome.message.contains(said),
            "{outcome:?}"
        );
    }
    for (code, expected) in
        [(503, status::RETRY), (401, status::UNAUTHORIZED), (200, status::RETRY), (400, status::REJECT)]
    {
        let outcome = fate("grpc", Fault::Http(code, vec![], vec![]), &json!({}));
        assert_eq!(outcome.status, expected, "a proxy's {code}: {outcome:?}");
    }
    let words = "grpc: received message larger than max (5 vs. 4)";
    assert_eq!(fate("grpc", Fault::Grpc(8, words, None), &json!({})).status, status::TOO_LARGE);
}

#[test]
fn by_the_letter_a_bad_minute_is_for_good() {
    let letter = json!({ "strict_status": true });
    for status in [500, 408] {
        let outcome = fate("http/protobuf", Fault::Http(status, vec![], vec![]), &letter);
        assert_eq!(outcome.status, status::REJECT, "{outcome:?}");
    }
    assert_eq!(fate("grpc", Fault::Grpc(8, "busy", None), &letter).status, status::REJECT);
    let asked = Fault::Grpc(8, "busy", Some(rpc_status("", Some(3))));
    assert_eq!(fate("grpc", asked, &letter).status, status::RETRY);
}

/// A receiver that knows these signals alone.
fn knowing(known: &[Signal]) -> Receiver {
    let receiver = Receiver::start();
    receiver.with(|state| state.known = Some(known.to_vec()));
    receiver
}

#[test]
fn a_signal_that_the_receiver_does_not_know_is_switched_off_and_the_others_go_on() {
    for protocol in PROTOCOLS {
        for (known, logs, spans) in [
            (&[Signal::Traces][..], 0, 4),
            (&[Signal::Logs, Signal::Traces], 4, 4),
            (&[Signal::Logs, Signal::Metrics], 4, 0),
            (&[Signal::Metrics], 0, 0),
        ] {
            let receiver = knowing(known);
            let otlp = plugin(&receiver, protocol, &json!({}));
            for _ in 0..2 {
                assert!(otlp.export(samples(2)).is_all_delivered(), "{protocol} {known:?}");
            }
            assert_eq!((receiver.log_ids().len(), receiver.span_ids().len()), (logs, spans), "{known:?}");
            otlp.health().unwrap();
            for signal in Signal::ALL.into_iter().filter(|signal| !known.contains(signal)) {
                assert_eq!(receiver.requests(signal).len(), 0, "{signal:?} is off since the start");
            }
            if known.contains(&Signal::Metrics) {
                // The same records again: nothing of a record that is done is remembered.
                assert_eq!(counted(&receiver), 4);
            }
            otlp.close().unwrap();
        }
    }
}

#[test]
fn a_receiver_that_comes_later_is_asked_which_signals_it_knows() {
    for protocol in PROTOCOLS {
        let receiver = knowing(&[]);
        let otlp = plugin(&receiver, protocol, &json!({}));
        let batch = Records::of(samples(3));
        let outcome = otlp.export_records(&batch);
        assert_eq!((outcome.status, outcome.verdicts.clone()), (status::RETRY, vec![None; 3]), "{outcome:?}");
        assert!(otlp.health().is_err(), "a wrong address: the records wait");
        receiver.with(|state| state.known = Some(vec![Signal::Traces]));
        assert!(otlp.export_again(&batch, 1).is_all_delivered(), "{protocol}");
        assert_eq!(receiver.span_ids().len(), 3);
    }
}

#[test]
fn a_signal_that_was_taken_once_is_not_switched_off() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, protocol, &json!({}));
        assert!(otlp.export(samples(1)).is_all_delivered());
        receiver.with(|state| state.known = Some(vec![Signal::Traces, Signal::Metrics]));
        let batch = Records::of(samples(2));
        assert_eq!(otlp.export_records(&batch).status, status::RETRY, "{protocol}");
        receiver.with(|state| state.known = None);
        assert!(otlp.export_again(&batch, 1).is_all_delivered());
        assert_eq!((receiver.log_ids().len(), receiver.span_ids().len()), (3, 3));
    }
}

#[test]
fn records_do_not_wait_for_metrics_and_metrics_lose_nothing() {
    for protocol in PROTOCOLS {
        for temporality in ["cumulative", "delta"] {
            let receiver = Receiver::start();
            let otlp = plugin(&receiver, protocol, &json!({ "temporality": temporality }));
            receiver.fail_next(Signal::Metrics, busy(protocol));
            assert!(otlp.export(samples(2)).is_all_delivered(), "{protocol} {temporality}");
            assert_eq!(receiver.metrics().len(), 0);
            assert!(otlp.scrape().unwrap().contains("otlp_exporter_metrics_failed_total 1\n"));
            receiver.fail_next(Signal::Metrics, busy(protocol));
            assert!(otlp.export(samples(3)).is_all_delivered());
            otlp.close().unwrap();
            assert_eq!(counted(&receiver), 5, "{protocol} {temporality}: sent at the end");
        }
    }
}

fn busy(protocol: &str) -> Fault {
    match protocol {
        "grpc" => Fault::Grpc(14, "busy", None),
        _ => Fault::Http(503, vec![], vec![]),
    }
}

#[test]
fn without_logs_and_spans_records_wait_for_the_metrics() {
    let receiver = Receiver::start();
    let otlp = plugin(&receiver, "grpc", &json!({ "signals": ["metrics"] }));
    receiver.fail_next(Signal::Metrics, busy("grpc"));
    let batch = Records::of(samples(2));
    assert_eq!(otlp.export_records(&batch).status, status::RETRY);
    assert!(otlp.export_again(&batch, 1).is_all_delivered());
    assert_eq!(counted(&receiver), 2);
}

#[test]
fn a_connection_that_breaks_off_or_says_nothing_is_tried_again() {
    for protocol in PROTOCOLS {
        assert_eq!(fate(protocol, Fault::Cut, &json!({})).status, status::RETRY, "{protocol}");
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, protocol, &json!({ "timeout": "200ms" }));
        receiver.fail_next(Signal::Logs, Fault::Hang);
        let outcome = otlp.export(samples(1));
        assert_eq!(outcome.status, status::RETRY, "{outcome:?}");
        assert!(otlp.health().is_err());
        assert!(otlp.export(samples(1)).is_all_delivered(), "{protocol}");
        otlp.health().unwrap();
    }
}

#[test]
fn a_signal_that_was_taken_is_not_sent_again_when_another_one_failed() {
    for protocol in PROTOCOLS {
        for (failing, requests) in [(Signal::Traces, [1, 3]), (Signal::Logs, [3, 1])] {
            let receiver = Receiver::start();
            let otlp = plugin(&receiver, protocol, &json!({}));
            receiver.fail_next(failing, busy(protocol));
            receiver.fail_next(failing, busy(protocol));
            let batch = Records::of(samples(6));
            for attempt in 0..2 {
                let outcome = otlp.export_again(&batch, attempt);
                assert_eq!(outcome.status, status::RETRY, "{outcome:?}");
                assert_eq!(outcome.verdicts, vec![None; 6]);
            }
            assert!(otlp.export_again(&batch, 2).is_all_delivered());
            let found = [Signal::Logs, Signal::Traces].map(|signal| receiver.requests(signal).len());
            assert_eq!(found, requests, "{protocol} {failing:?}");
            assert_eq!((receiver.log_ids().len(), receiver.span_ids().len(), counted(&receiver)), (6, 6, 6));
            assert!(otlp.export(samples(1)).is_all_delivered(), "what is done is forgotten");
            assert_eq!((receiver.log_ids().len(), counted(&receiver)), (7, 7));
        }
    }
}

#[test]
fn whether_a_record_is_to_blame_for_a_refusal_is_left_to_the_gateway() {
    for signal in [Signal::Logs, Signal::Traces] {
        for (count, status, expected) in
            [(1, 400, status::REJECT), (4, 400, status::REJECT), (1, 413, status::TOO_LARGE)]
        {
            let receiver = Receiver::start();
            let otlp = plugin(&receiver, "http/protobuf", &json!({}));
            receiver.fail_next(signal, Fault::Http(status, vec![], vec![]));
            let batch = Records::of(samples(count));
            let outcome = otlp.export_records(&batch);
            assert_eq!(outcome.status, expected, "{signal:?} {status}: {outcome:?}");
            assert!(outcome.verdicts.iter().all(Option::is_none), "{signal:?} {status}: {outcome:?}");
            assert!(otlp.export_again(&batch, 1).is_all_delivered());
            let requests = receiver.requests(Signal::Logs).len();
            assert_eq!(requests, if signal == Signal::Logs { 2 } else { 1 }, "what it has is not sent again");
        }
    }
}

#[test]
fn metrics_that_are_refused_reject_no_record() {
    for status in [400, 413] {
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, "http/protobuf", &json!({}));
        receiver.fail_next(Signal::Metrics, Fault::Http(status, vec![], vec![]));
        assert!(otlp.export(samples(2)).is_all_delivered(), "{status}");
        assert!(otlp.export(samples(1)).is_all_delivered());
        assert_eq!(counted(&receiver), 3, "cumulative points make good what was refused");
    }
}

#[test]
fn a_record_that_is_none_is_rejected_alone() {
    let receiver = Receiver::start();
    let otlp = plugin(&receiver, "http/protobuf", &json!({}));
    let odd = Sample::chat().number(1).with(|metrics| metrics.timestamp = "yesterday".into());
    let outcome = otlp.export([Sample::chat().number(0), odd, Sample::chat().number(2)]);
    assert!(outcome.is_delivered(0) && outcome.is_delivered(2), "{outcome:?}");
    assert!(matches!(outcome.verdicts[1], Some(Verdict::Rejected(_))), "{outcome:?}");
    assert_eq!(receiver.log_ids().len(), 2);
}

#[test]
fn a_span_carries_the_conversation_only_when_told_to() {
    for (captures, expected) in [(false, None), (true, Some("Say hello"))] {
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, "grpc", &json!({ "capture_content": captures, "signals": ["traces"] }));
        assert!(otlp.export(samples(1)).is_all_delivered());
        let found = text(&receiver.spans()[0].attributes, "gen_ai.input.messages");
        assert_eq!(found.is_some(), expected.is_some());
        assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()));
    }
}

#[test]
fn spans_of_traces_that_are_not_sampled_can_be_left_out() {
    let unsampled = || Sample::chat().number(1).with(|metrics| metrics.trace_flags = Some(0));
    let sampled = || Sample::chat().number(2).with(|metrics| metrics.trace_flags = Some(1));
    for (unsampled_is, spans) in [("export", 2), ("skip", 1)] {
        let receiver = Receiver::start();
        let otlp = plugin(&receiver, "grpc", &json!({ "unsampled": unsampled_is }));
        assert!(otlp.export([unsampled(), sampled()]).is_all_delivered());
        let found = (receiver.log_ids().len(), receiver.span_ids().len(), counted(&receiver));
        assert_eq!(found, (2, spans, 2), "{unsampled_is}");
    }
}

#[test]
fn tls_is_spoken_with_a_private_ca_over_both_protocols() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let receiver = Receiver::start_with(Some(std::sync::Arc::new(config).into()));
    let endpoint = receiver.url().replace("http:", "https:");
    for protocol in PROTOCOLS {
        let trusting = json!({ "endpoint": endpoint, "tls": { "ca_file": ca } });
        assert!(plugin(&receiver, protocol, &trusting).export(samples(1)).is_all_delivered(), "{protocol}");
        let outcome = plugin(&receiver, protocol, &json!({ "endpoint": endpoint })).export(samples(1));
        assert_eq!(outcome.status, status::RETRY);
        assert!(outcome.message.contains("certificate"), "{outcome:?}");
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    for (settings, expected) in [
        (json!({ "endpoint": "localhost:4317" }), "endpoint: "),
        (json!({ "signals": [] }), "signals: "),
        (json!({ "headers": { "a b": "hunter2" } }), "headers: `a b`"),
        (json!({ "headers_file": "/no/such/file" }), "headers_file: cannot read /no/such/file"),
        (json!({ "tls": { "ca_file": "/no/such/file" } }), "tls.ca_file: cannot use /no/such/file"),
        (json!({ "resource_attributes": { "a": "x".repeat(1 << 20) } }), "resource_attributes: "),
    ] {
        let refused = Plugin::<Otlp>::create(settings.to_string()).unwrap_err();
        assert_eq!(refused.status, status::INVALID_CONFIG, "{refused}");
        assert!(refused.message.starts_with(expected) && !refused.message.contains("hunter2"), "{refused}");
    }
}

proptest! {
    #![proptest_config(Cases { cases: 12, ..Cases::default() })]

    #[test]
    fn no_request_is_larger_than_allowed_and_every_record_arrives(
        sizes in vec(prop_oneof![0_usize..2_000, 20_000_usize..200_000], 1..25), captures: bool,
    ) {
        const LARGEST: usize = 64 << 10;
        let receiver = Receiver::start();
        let settings = json!({ "max_request_size": "64 KiB", "capture_content": captures, "compression": "none" });
        let otlp = plugin(&receiver, "http/protobuf", &settings);
        let batch = sizes.iter().zip(0..).map(|(size, number)| {
            let body = json!({ "messages": [{ "role": "user", "content": "é".repeat(*size / 2) }] });
            Sample::chat().number(number).request(body.to_string())
        });
        let outcome = otlp.export(batch);
        prop_assert!(outcome.is_all_delivered(), "{outcome:?}");
        for signal in Signal::ALL {
            prop_assert!(receiver.requests(signal).iter().all(|request| request.size <= LARGEST));
        }
        prop_assert_eq!(receiver.log_ids().len(), sizes.len());
        prop_assert_eq!(receiver.span_ids().len(), sizes.len());
        let large = sizes.iter().filter(|size| **size > LARGEST).count();
        let shed = otlp.scrape().unwrap();
        let shed = shed.lines().find_map(|line| line.strip_prefix("otlp_exporter_shed_total{what=\"bodies\"} "));
        prop_assert!(shed.unwrap().parse::<usize>().unwrap() >= large);
    }
}
