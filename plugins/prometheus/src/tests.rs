//! The exporter as the gateway runs it, its scrapes read by `promtool`, and what it costs.

use std::{
    collections::HashMap,
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use exporter_testkit::{Plugin, Records, Sample};
use plugin_api::{RequestMetrics, abi::status};

use super::*;

fn plugin(settings: &str) -> Plugin<Prometheus> {
    Plugin::create(settings).unwrap()
}

/// All kinds of requests.
fn mixture() -> Vec<Sample> {
    let groq = |metrics: &mut RequestMetrics<'static>| {
        metrics.provider = Some("groq".into());
        metrics.model = Some("llama-3.1-8b-instant".into());
    };
    vec![
        Sample::chat().number(1),
        Sample::stream().number(2).with(groq),
        Sample::failed().number(3),
        Sample::disconnected().number(4),
        Sample::chat().number(5),
    ]
}

/// Series and values of a scrape.
fn values(scrape: &str) -> HashMap<String, f64> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let mut values = HashMap::new();
    for line in samples {
        let sample = line.split(" # ").next().unwrap();
        let (series, value) = sample.rsplit_once(' ').unwrap();
        assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} comes twice");
    }
    values
}

/// The sum of all series of a name.
fn sum(scrape: &str, name: &str) -> f64 {
    let values = values(scrape);
    values.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, value)| value).sum()
}

/// What `promtool check metrics` has against a scrape; nothing where there is no `promtool`.
fn complaints(scrape: &str) -> String {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("promtool is not installed: not checked");
        return String::new();
    };
    child.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    if output.status.success() { text } else { format!("{text}{}", output.status) }
}

#[test]
fn a_scrape_counts_what_was_exported() {
    let plugin = plugin("{}");
    assert!(plugin.export(mixture()).is_all_delivered());
    let scrape = plugin.scrape().unwrap();
    let values = values(&scrape);
    let chat = r#"provider="openai",model="gpt-4o-mini-2024-07-18""#;
    for (series, expected) in [
        (format!(r#"magicapi_llm_requests_total{{{chat},status="success",status_code="200"}}"#), 2.0),
        (format!(r#"magicapi_llm_requests_total{{{chat},status="error",status_code="200"}}"#), 1.0),
        (r#"magicapi_llm_requests_total{provider="openai",model="gpt-4o-mini",status="error",status_code="429"}"#.to_owned(), 1.0),
        (format!(r#"magicapi_llm_request_ends_total{{{chat},end_reason="client_disconnect"}}"#), 1.0),
        (r#"magicapi_llm_errors_total{provider="openai",model="gpt-4o-mini",error_type="rate_limit_exceeded"}"#.to_owned(), 1.0),
        (format!(r#"magicapi_llm_request_duration_seconds_sum{{{chat},status="success"}}"#), 12.5005),
        (format!(r#"magicapi_llm_request_duration_seconds_bucket{{{chat},status="success",le="5.12"}}"#), 0.0),
        (format!(r#"magicapi_llm_request_duration_seconds_bucket{{{chat},status="success",le="10.24"}}"#), 2.0),
        (format!(r#"magicapi_llm_request_duration_seconds_bucket{{{chat},status="success",le="+Inf"}}"#), 2.0),
        (format!(r#"magicapi_llm_tokens_total{{{chat},usage_source="provider",type="input"}}"#), 96.0),
        (format!(r#"magicapi_llm_tokens_total{{{chat},usage_source="provider",type="reasoning"}}"#), 256.0),
        (format!(r#"magicapi_llm_request_tokens_count{{{chat},usage_source="provider",type="output"}}"#), 2.0),
        (format!(r#"magicapi_llm_cost_usd_total{{{chat},cost_source="table"}}"#), 0.0912),
        (r#"magicapi_llm_time_to_first_token_seconds_count{provider="groq",model="llama-3.1-8b-instant"}"#.to_owned(), 1.0),
        (format!("magicapi_llm_provider_latency_seconds_count{{{chat}}}"), 3.0),
        (format!("magicapi_llm_response_size_bytes_sum{{{chat}}}"), 156_840.0),
    ] {
        let value = values.get(&series).unwrap_or_else(|| panic!("{series} is not in\n{scrape}"));
        assert!((value - expected).abs() < 1e-9, "{series} is {value}");
    }
    assert!(!scrape.contains(r#"type="cached_write""#), "what nobody reported is not 0 but absent");
    assert_eq!(complaints(&scrape), "");
}

#[test]
fn a_scrape_of_nothing_is_well_formed() {
    let plugin = plugin("{}");
    let scrape = plugin.scrape().unwrap();
    assert!(scrape.contains("magicapi_llm_series 0\n"), "{scrape}");
    assert_eq!(complaints(&scrape), "");
    plugin.close().unwrap();
}

#[test]
fn hostile_values_stay_inside_their_quotes() {
    let plugin = plugin("{}");
    for model in
        ["a\"} 1\n# EOF\nx{y=\"", "\\", "a\r\0\u{1b}[2J", &"é".repeat(5000), "\u{feff}", "{}", "a,b=\"c\""]
    {
        assert!(
            plugin
                .export([Sample::chat().with(|metrics| metrics.model = Some(model.to_owned().into()))])
                .is_all_delivered()
        );
    }
    let scrape = plugin.scrape().unwrap();
    assert!((sum(&scrape, "magicapi_llm_requests_total") - 7.0).abs() < 1e-9, "{scrape}");
    assert!(scrape.lines().all(|line| line.len() < 400));
    assert_eq!(complaints(&scrape), "");
    let open = plugin.scrape_openmetrics().unwrap();
    assert!(!open.lines().any(|line| line == "# EOF"));
}

#[test]
fn clients_cannot_make_series() {
    let plugin = plugin(r#"{"max_models":3,"max_label_values":4,"max_series":100}"#);
    for number in 0..500 {
        let outcome = plugin.export([
            Sample::chat().with(|metrics| metrics.model = Some(format!("answered-{number}").into())),
            Sample::failed().with(|metrics| {
                metrics.request_model = Some(format!("asked-{number}").into());
                metrics.error_type = Some(format!("error-{number}").into());
                metrics.status_code = Some(400 + number % 100);
            }),
        ]);
        assert!(outcome.is_all_delivered());
    }
    let scrape = plugin.scrape().unwrap();
    let values = values(&scrape);
    assert!(!scrape.contains("asked-"), "a model that no provider knows has no place");
    assert!(scrape.contains("answered-2\"") && !scrape.contains("answered-3\""));
    assert!(values["magicapi_llm_series"] <= 100.0);
    assert!((values[r#"magicapi_llm_label_overflow_total{label="error_type"}"#] - 496.0).abs() < 1e-9);
    assert!((sum(&scrape, "magicapi_llm_requests_total") - 1000.0).abs() < 1e-9, "nothing goes uncounted");
    assert_eq!(complaints(&scrape), "");
}

#[test]
fn what_was_never_answered_has_a_quarter_of_the_places() {
    let plugin = plugin(r#"{"max_models":8}"#);
    let asked = |number: u32| {
        Sample::failed().with(|metrics| metrics.request_model = Some(format!("asked-{number}").into()))
    };
    let answered = |number: u32| {
        Sample::chat().with(|metrics| metrics.model = Some(format!("answered-{number}").into()))
    };
    assert!(plugin.export((0..50).map(asked).chain((0..50).map(answered))).is_all_delivered());
    let scrape = plugin.scrape().unwrap();
    let models = |start: &str| (0..50).filter(|n| scrape.contains(&format!("model=\"{start}-{n}\""))).count();
    assert_eq!((models("asked"), models("answered")), (2, 6), "{scrape}");
}

#[test]
fn what_is_needed_of_a_record_follows_from_the_settings() {
    for (settings, content, required) in [
        ("{}", Content::Metadata, None),
        (r#"{"record_tags":{"stream":"is_streaming"}}"#, Content::Metadata, Some(Content::None)),
        (r#"{"record_tags":{"team":"project_id"}}"#, Content::Metadata, Some(Content::Metadata)),
        (r#"{"record_tags":{"tier":"request:/service_tier"}}"#, Content::Full, Some(Content::Full)),
        (CUSTOM, Content::Full, Some(Content::Full)),
        (r#"{"record_tags":{"team":"no field"}}"#, Content::Metadata, None),
    ] {
        let need = Plugin::<Prometheus>::content(settings).unwrap();
        assert_eq!(
            (need.content, need.required.map(|least| least.content)),
            (content, required),
            "{settings}"
        );
    }
}

#[test]
fn sums_stay_right_when_max_series_is_reached() {
    let plugin = plugin(r#"{"max_series":20}"#);
    for number in 0..50 {
        assert!(
            plugin
                .export([Sample::chat().with(|m| m.model = Some(format!("m{number}").into()))])
                .is_all_delivered()
        );
    }
    let scrape = plugin.scrape().unwrap();
    let values = values(&scrape);
    assert!((values["magicapi_llm_series"] - 20.0).abs() < 1e-9);
    assert!(values["magicapi_llm_series_overflow_total"] > 400.0);
    assert!((sum(&scrape, "magicapi_llm_requests_total") - 50.0).abs() < 1e-9);
    assert!((sum(&scrape, "magicapi_llm_request_size_bytes_count") - 50.0).abs() < 1e-9);
    let input: f64 = values
        .iter()
        .filter(|(s, _)| s.contains("tokens_total") && s.contains(r#"type="input""#))
        .map(|(_, v)| v)
        .sum();
    assert!((input - 50.0 * 48.0).abs() < 1e-9, "the type of tokens is kept: {input}");
    assert_eq!(complaints(&scrape), "");
}

#[test]
fn allow_lists_hold() {
    let plugin = plugin(r#"{"models":["gpt-4o-mini-2024-07-18"],"providers":["openai"]}"#);
    assert!(plugin.export(mixture()).is_all_delivered());
    let scrape = plugin.scrape().unwrap();
    assert!(scrape.contains(r#"provider="openai",model="gpt-4o-mini-2024-07-18""#));
    assert!(scrape.contains(r#"provider="other",model="other""#) && !scrape.contains("groq"), "{scrape}");
}

#[test]
fn labels_can_be_added() {
    let plugin = plugin(r#"{"record_tags":{"project":"project_id","stream":"is_streaming"}}"#);
    assert!(plugin.export(mixture()).is_all_delivered());
    let scrape = plugin.scrape().unwrap();
    let labels = r#"usage_source="provider",type="input",project="proj_design",stream="true""#;
    assert!(scrape.contains(labels), "{scrape}");
    assert_eq!(complaints(&scrape), "");
}

const CUSTOM: &str = r#"{"metrics":[
    {"name":"max_tokens","kind":"histogram","help":"Tokens asked for.","value":"request:/max_tokens","buckets":[10,100,1000]},
    {"name":"messages_total","kind":"counter","help":"Messages sent \\ \"quoted\"\nand broken.","value":"request:/messages","labels":{"stream":"is_streaming"}},
    {"name":"queue_seconds","kind":"gauge","help":"Last queue time.","value":"response:/usage/queue_ms","scale":0.001,"labels":{}},
    {"name":"tiers","kind":"counter","help":"Requests by tier.","labels":{"tier":"response:/service_tier"}},
    {"name":"overhead_seconds","kind":"histogram","help":"Spent in the gateway.","value":"gateway_overhead","scale":0.001}
]}"#;

#[test]
fn metrics_of_the_operator_read_fields_and_bodies() {
    let plugin = plugin(CUSTOM);
    let sample = Sample::chat()
        .request(r#"{"messages":[{"a":1},{"b":[2,3]}],"max_tokens":100}"#)
        .response(r#"{"usage":{"queue_ms":250},"service_tier":"flex"}"#);
    assert!(plugin.export([sample.clone(), sample, Sample::chat().response("")]).is_all_delivered());
    let scrape = plugin.scrape().unwrap();
    let values = values(&scrape);
    let route = r#"model="gpt-4o-mini-2024-07-18",provider="openai""#;
    for (series, expected) in [
        (format!(r#"magicapi_llm_max_tokens_bucket{{{route},le="10.0"}}"#), 0.0),
        (format!(r#"magicapi_llm_max_tokens_bucket{{{route},le="100.0"}}"#), 2.0),
        (r#"magicapi_llm_messages_total{stream="false"}"#.to_owned(), 5.0),
        ("magicapi_llm_queue_seconds".to_owned(), 0.25),
        (r#"magicapi_llm_tiers_total{tier="flex"}"#.to_owned(), 2.0),
        (r#"magicapi_llm_tiers_total{tier="unknown"}"#.to_owned(), 1.0),
        (format!("magicapi_llm_overhead_seconds_count{{{route}}}"), 3.0),
    ] {
        let value = values.get(&series).unwrap_or_else(|| panic!("{series} is not in\n{scrape}"));
        assert!((value - expected).abs() < 1e-9, "{series} is {value}");
    }
    assert_eq!(complaints(&scrape), "");
}

#[test]
fn openmetrics_has_units_exemplars_and_no_end() {
    let plugin = plugin("{}");
    assert!(plugin.export(mixture()).is_all_delivered());
    let scrape = plugin.scrape_openmetrics().unwrap();
    for line in [
        "# TYPE magicapi_llm_requests counter",
        "# TYPE magicapi_llm_request_duration_seconds histogram",
        "# UNIT magicapi_llm_request_duration_seconds seconds",
        "# UNIT magicapi_llm_request_tokens tokens",
        "# UNIT magicapi_llm_cost_usd usd",
    ] {
        assert!(scrape.lines().any(|found| found == line), "{line} is not in\n{scrape}");
    }
    let exemplar =
        r##"status="success",le="10.24"} 2 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 6.25025 "##;
    assert!(scrape.contains(exemplar), "{scrape}");
    assert!(scrape.contains(r##"status_code="200"} 2 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 1 "##));
    assert!(!scrape.contains("# EOF"));
    assert_eq!(values(&scrape), values(&plugin.scrape().unwrap()), "both formats have the same series");
    for family in scrape.lines().filter_map(|line| line.strip_prefix("# UNIT ")) {
        let (name, unit) = family.split_once(' ').unwrap();
        assert!(name.ends_with(&format!("_{unit}")), "{family}");
    }
}

#[test]
fn an_exemplar_is_a_well_formed_trace_or_none() {
    for (settings, trace) in [
        ("{}", None),
        ("{}", Some("x\"} 1")),
        (r#"{"exemplars":false}"#, Some("4bf92f3577b34da6a3ce929d0e0e4736")),
    ] {
        let plugin = plugin(settings);
        assert!(
            plugin
                .export([Sample::chat().with(|metrics| metrics.trace_id = trace.map(Into::into))])
                .is_all_delivered()
        );
        assert!(!plugin.scrape_openmetrics().unwrap().contains("trace_id"), "{settings} {trace:?}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = Plugin::<Prometheus>::create(r#"{"record_tags":{"le":"org_id"}}"#).unwrap_err();
    assert_eq!(refused.status, status::INVALID_CONFIG);
    assert!(refused.message.starts_with("record_tags: `le`"), "{refused}");
}

/// Prints figures; run in release with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn export_and_scrape_are_quick() {
    let plugin = plugin("{}");
    let batch = Records::of((0..1000).map(|number| {
        let sample = if number % 3 == 0 { Sample::stream() } else { Sample::chat() };
        sample.number(number).with(|metrics| metrics.model = Some(format!("model-{}", number % 20).into()))
    }));
    let _ = plugin.export_records(&batch);
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        assert_eq!(plugin.export_records(&batch).status, status::OK);
        best = best.min(start.elapsed());
    }
    eprintln!("export: {:.0} ns a record", best.as_secs_f64() * 1e6);
    assert!(best < Duration::from_micros(1500), "{best:?} for 1000 records");

    let full = self::plugin(r#"{"max_models":1000}"#);
    for number in 0..400 {
        let sample = Sample::stream()
            .with(|metrics| metrics.model = Some(format!("a-model-with-a-name-{number}").into()));
        let _ = full.export([sample]);
    }
    for openmetrics in [false, true] {
        let scrape = || if openmetrics { full.scrape_openmetrics() } else { full.scrape() }.unwrap();
        let text = scrape();
        let took = (0..50).map(|_| {
            let start = Instant::now();
            let _ = scrape();
            start.elapsed()
        });
        let took = took.min().unwrap_or_default();
        eprintln!(
            "scrape of {} label sets, {} lines, {} bytes: {took:?}",
            values(&text)["magicapi_llm_series"],
            text.lines().count(),
            text.len()
        );
        assert!(took < Duration::from_millis(5), "{took:?}");
    }
}
