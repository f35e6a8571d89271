//! A record's telemetry as the reference implementation reads it.

use std::collections::BTreeMap;

use exporter_kit::pack::Packed;
use exporter_testkit::Sample;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{Histogram, HistogramDataPoint, metric::Data, number_data_point},
};
use plugin_api::Fields;
use prost::Message as _;
use serde_json::json;

use super::*;
use crate::{
    config::Temporality,
    conversation::Conversation,
    facts::Facts,
    metrics::{Metrics, Sent},
    request::{Requests, Resources},
};

fn plain(value: Option<&AnyValue>) -> serde_json::Value {
    match value.and_then(|value| value.value.as_ref()) {
        None => json!(null),
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::BoolValue(flag)) => json!(flag),
        Some(Value::IntValue(whole)) => json!(whole),
        Some(Value::DoubleValue(number)) => json!(number),
        Some(Value::ArrayValue(list)) => list.values.iter().map(|value| plain(Some(value))).collect(),
        Some(other) => panic!("{other:?}"),
    }
}

/// Attributes as JSON; none may be there twice.
fn map(attributes: &[KeyValue]) -> serde_json::Value {
    let map: serde_json::Map<_, _> =
        attributes.iter().map(|pair| (pair.key.clone(), plain(pair.value.as_ref()))).collect();
    assert_eq!(map.len(), attributes.len(), "{attributes:?}");
    map.into()
}

fn origin() -> Origin {
    let attributes = [("service.instance.id", "i-1"), ("service.name", "renamed"), ("team", "llm")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Origin::new(names::CORE_1_41, "1.2.3", &BTreeMap::from(attributes))
}

/// A request with one piece, made of this sample.
fn request(sample: &Sample, write: impl FnOnce(&mut Vec<u8>, &Facts<'_>)) -> Vec<u8> {
    let (metrics, origin) = (sample.metrics_json(), origin());
    let facts = Facts::of(Fields::parse(&metrics).unwrap()).unwrap();
    let (mut piece, mut resources) = (Vec::new(), Resources::default());
    let place = resources.place(&origin, &facts);
    write(&mut piece, &facts);
    let mut requests = Requests::new(&origin, 1 << 20);
    assert!(requests.add(resources.get(place), 0, &piece));
    requests.finish().remove(0).body
}

/// The attributes of [`Sample::chat`].
fn golden() -> serde_json::Value {
    json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.usage.input_tokens": 48, "gen_ai.usage.output_tokens": 865,
        "gen_ai.usage.cache_read.input_tokens": 16, "gen_ai.usage.reasoning.output_tokens": 128,
        "gen_ai.conversation.id": "thread_29", "openai.api.type": "chat_completions",
        "gen_ai.response.id": "chatcmpl-1", "gen_ai.response.finish_reasons": ["stop"],
        "openai.response.service_tier": "default",
        "http.request.method": "POST", "url.path": "/v1/chat/completions", "http.response.status_code": 200,
        "http.request.body.size": 193, "http.response.body.size": 52280, "user.id": "user_456",
        "magicapi.record.id": "01956f3c-8d2b-7e11-9c7a-000000000000",
        "magicapi.organization.id": "org_123", "magicapi.project.id": "proj_design",
        "magicapi.project.name": "UX Design", "magicapi.provider.request_id": "req_01jnkrrz2ken1bej7emqf9j2af",
        "magicapi.provider.status_code": 200, "magicapi.provider.duration": 0.2555,
        "magicapi.gateway.overhead": 0.000_125, "magicapi.usage.source": "provider",
        "magicapi.cost.usd": 0.0456, "magicapi.cost.source": "table", "magicapi.end_reason": "complete",
    })
}

#[test]
fn a_log_is_what_the_reference_reads() {
    let body = r#"{"é":"x"}"#;
    let request = request(&Sample::chat(), |piece, facts| {
        encode::log(piece, &mut Vec::new(), names::CORE_1_41.into(), facts, 7, Some(body));
    });
    let read = ExportLogsServiceRequest::decode(&*request).unwrap();
    let [logs] = &read.resource_logs[..] else { panic!("{read:?}") };
    assert_eq!(
        map(&logs.resource.as_ref().unwrap().attributes),
        json!({
            "service.name": "renamed", "service.version": "1.0.0", "service.instance.id": "i-1", "team": "llm",
            "deployment.environment": "production", "deployment.environment.name": "production",
        })
    );
    let [scope] = &logs.scope_logs[..] else { panic!("{logs:?}") };
    let found = scope.scope.as_ref().unwrap();
    assert_eq!((&*found.name, &*found.version), ("magicapi.gateway", "1.2.3"));
    assert_eq!(
        (&logs.schema_url, &scope.schema_url),
        (&"https://opentelemetry.io/schemas/1.41.0".to_owned(), &logs.schema_url)
    );
    let [log] = &scope.log_records[..] else { panic!("{scope:?}") };
    assert_eq!((log.time_unix_nano, log.observed_time_unix_nano), (1_741_190_600_123_000_000, 7));
    assert_eq!((log.severity_number, &*log.severity_text), (9, "INFO"));
    assert_eq!(log.event_name, "ai_gateway_request_log");
    assert_eq!(plain(log.body.as_ref()), json!(body));
    assert_eq!(log.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(log.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    let mut expected = golden();
    expected["log.record.uid"] = expected["magicapi.record.id"].clone();
    assert_eq!(map(&log.attributes), expected);
}

#[test]
fn a_log_may_have_no_body_and_an_error_is_one() {
    let request = request(&Sample::failed(), |piece, facts| {
        encode::log(piece, &mut Vec::new(), names::CORE_1_41.into(), facts, 7, None);
    });
    let read = ExportLogsServiceRequest::decode(&*request).unwrap();
    let log = &read.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((log.severity_number, &*log.severity_text, &log.body), (17, "ERROR", &None));
    assert_eq!(map(&log.attributes)["error.type"], "rate_limit_exceeded");
}

fn span(sample: &Sample, conversation: Option<&Conversation>) -> opentelemetry_proto::tonic::trace::v1::Span {
    let request =
        request(sample, |piece, facts| encode::span(piece, names::CORE_1_41.into(), facts, conversation));
    let mut read = ExportTraceServiceRequest::decode(&*request).unwrap();
    read.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

#[test]
fn a_span_is_what_the_reference_reads() {
    let found = span(&Sample::chat(), None);
    assert_eq!((&*found.name, found.kind), ("chat gpt-4o-mini", 3));
    assert_eq!(found.start_time_unix_nano, 1_741_190_600_123_000_000);
    assert_eq!(found.end_time_unix_nano - found.start_time_unix_nano, 6_250_250_000);
    assert_eq!(found.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(found.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!((found.flags, &found.status), (0x301, &None));
    assert_eq!(map(&found.attributes), golden());
}

#[test]
fn what_is_special_of_a_record_is_on_its_span() {
    let stream = Sample::stream().with(|metrics| metrics.truncated = vec!["response".into()]);
    let attributes = map(&span(&stream, None).attributes);
    for (name, expected) in [
        ("gen_ai.request.stream", json!(true)),
        ("gen_ai.response.time_to_first_chunk", json!(0.256)),
        ("magicapi.response.time_to_first_token", json!(0.4125)),
        ("magicapi.truncated", json!(["response"])),
    ] {
        assert_eq!(attributes[name], expected, "{name}");
    }
    let failed = span(&Sample::failed().with(|metrics| metrics.request_model = None), None);
    assert_eq!(failed.name, "chat");
    let status = failed.status.unwrap();
    assert_eq!((status.code, &*status.message), (2, "rate_limit_exceeded"));
    let huge = Sample::chat().with(|metrics| metrics.input_tokens = Some(u64::MAX));
    assert_eq!(map(&span(&huge, None).attributes)["gen_ai.usage.input_tokens"], i64::MAX);
}

#[test]
fn a_thread_that_the_gateway_made_up_is_no_conversation() {
    let id = "01956f3c-8d2b-7e11-9c7a-000000000000";
    for (thread, is_own) in
        [(id, true), ("msg_01956f3c8d2b7e119c7a000000000000", true), ("t", false), ("msg_1", false)]
    {
        let sample = Sample::chat().with(|metrics| metrics.thread_id = thread.into());
        let found = map(&span(&sample, None).attributes).get("gen_ai.conversation.id").is_none();
        assert_eq!(found, is_own, "{thread}");
    }
}

#[test]
fn a_conversation_is_on_the_span() {
    let conversation = Conversation::read(names::operation::Work::Inference, br#"{"prompt":"Hi"}"#, b"");
    let attributes = map(&span(&Sample::chat(), Some(&conversation)).attributes);
    let expected = json!([{ "role": "user", "parts": [{ "type": "text", "content": "Hi" }] }]);
    let found: serde_json::Value =
        serde_json::from_str(attributes["gen_ai.input.messages"].as_str().unwrap()).unwrap();
    assert_eq!(found, expected);
    assert_eq!(attributes.get("gen_ai.output.messages"), None);
}

/// The attributes of a span whose record has these bodies.
fn with_bodies(
    conventions: &'static names::Conventions,
    bodies: [&str; 2],
    sample: &Sample,
) -> serde_json::Value {
    let (json, mut piece) = (sample.metrics_json(), Vec::new());
    let facts = Facts::of(Fields::parse(&json).unwrap()).unwrap();
    let facts = facts.with_bodies(bodies[0].as_bytes(), bodies[1].as_bytes());
    encode::span(&mut piece, conventions.into(), &facts, None);
    let span = opentelemetry_proto::tonic::trace::v1::ScopeSpans::decode(&*piece).unwrap().spans.remove(0);
    map(&span.attributes)
}

#[test]
fn parameters_of_the_request_are_on_the_span() {
    let names = |request: &str, path: &'static str| {
        let sample = Sample::chat().with(|metrics| metrics.path = path.into());
        let attributes = with_bodies(names::CORE_1_41, [request, "{}"], &sample);
        let of_parameters = |name: &str| {
            (name.starts_with("gen_ai.request.") && name != "gen_ai.request.model")
                || name.starts_with("gen_ai.output.")
                || name.starts_with("gen_ai.embeddings.")
        };
        let all = attributes.as_object().unwrap().iter();
        let found: serde_json::Map<_, _> = all
            .filter(|(name, _)| of_parameters(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        serde_json::Value::from(found)
    };
    let chat = "/v1/chat/completions";
    for (request, path, expected) in [
        (
            r#"{"messages":[{"temperature":9}],"max_tokens":5,"temperature":0.5,"top_p":1,"top_k":40,"frequency_penalty":-0.1,
                "presence_penalty":0,"stop":["a","b"],"seed":7,"n":2,"reasoning_effort":"low",
                "response_format":{"type":"json_schema","json_schema":{}}}"#,
            chat,
            json!({
                "gen_ai.request.max_tokens": 5, "gen_ai.request.temperature": 0.5, "gen_ai.request.top_p": 1.0,
                "gen_ai.request.top_k": 40.0, "gen_ai.request.frequency_penalty": -0.1,
                "gen_ai.request.presence_penalty": 0.0, "gen_ai.request.stop_sequences": ["a", "b"],
                "gen_ai.request.seed": 7, "gen_ai.request.choice.count": 2, "gen_ai.request.reasoning.level": "low",
                "gen_ai.output.type": "json",
            }),
        ),
        (
            r#"{"max_output_tokens":9,"text":{"format":{"type":"text"}},"reasoning":{"effort":"high"}}"#,
            "/v1/responses",
            json!({
                "gen_ai.request.max_tokens": 9, "gen_ai.output.type": "text",
                "gen_ai.request.reasoning.level": "high",
            }),
        ),
        (
            r#"{"input":"x","encoding_format":"base64","dimensions":64}"#,
            "/v1/embeddings",
            json!({ "gen_ai.request.encoding_formats": ["base64"], "gen_ai.embeddings.dimension.count": 64 }),
        ),
        (
            r#"{"stop":"x","modalities":["text","audio"]}"#,
            chat,
            json!({
                "gen_ai.request.stop_sequences": ["x"], "gen_ai.output.type": "speech",
            }),
        ),
        (r#"{"prompt":"x"}"#, "/v1/images/generations", json!({ "gen_ai.output.type": "image" })),
        (r#"{"input":"x"}"#, "/v1/audio/speech", json!({ "gen_ai.output.type": "speech" })),
        // What is odd is left out, and the rest stays.
        (
            r#"{"temperature":"hot","top_p":1e999,"seed":null,"n":1,"max_tokens":1.5,"stop":[1],"user":"\ud800","seed":3}"#,
            chat,
            json!({ "gen_ai.request.seed": 3 }),
        ),
    ] {
        assert_eq!(names(request, path), expected, "{request}");
    }
    let top_k = with_bodies(names::DEVELOPMENT, [r#"{"top_k":40}"#, ""], &Sample::chat());
    assert_eq!(top_k["gen_ai.request.top_k"], 40, "a whole number since");
}

#[test]
fn what_the_answer_says_of_itself_is_on_the_span() {
    let sample = Sample::chat().with(|metrics| {
        metrics.response_id = Some("chatcmpl-1".into());
        metrics.previous_response_id = Some("r".into());
        metrics.finish_reasons = Some(vec!["stop".into(), "length".into()]);
        metrics.request_service_tier = Some("flex".into());
        metrics.service_tier = Some("default".into());
    });
    let answer = r#"{"choices":[],"system_fingerprint":"fp_1"}"#;
    let attributes = with_bodies(names::CORE_1_41, ["", answer], &sample);
    for (name, expected) in [
        ("gen_ai.response.id", json!("chatcmpl-1")),
        ("gen_ai.request.previous_response.id", json!("r")),
        ("gen_ai.response.finish_reasons", json!(["stop", "length"])),
        ("openai.request.service_tier", json!("flex")),
        ("openai.response.service_tier", json!("default")),
        ("openai.response.system_fingerprint", json!("fp_1")),
    ] {
        assert_eq!(attributes[name], expected, "{name}");
    }
}

#[test]
fn a_stream_that_was_cut_has_error_for_its_reason_and_nothing_else_has_an_invented_one() {
    let without = |sample: Sample| sample.with(|metrics| metrics.finish_reasons = None);
    let reasons = |sample: &Sample| {
        with_bodies(names::CORE_1_41, ["", ""], sample).get("gen_ai.response.finish_reasons").cloned()
    };
    let cut = |metrics: &mut plugin_api::RequestMetrics<'static>| metrics.status = plugin_api::Status::Error;
    assert_eq!(reasons(&without(Sample::stream()).with(cut)), Some(json!(["error"])));
    assert_eq!(reasons(&without(Sample::stream())), None);
    assert_eq!(reasons(&without(Sample::failed())), None, "there was no generation");
}

#[test]
fn a_span_is_the_child_of_the_callers_and_has_its_flags() {
    for (parent, flags, expected) in [
        (Some("00f067aa0ba902b8"), Some(1), (0x00f0_67aa_0ba9_02b8_u64.to_be_bytes().to_vec(), 0x301)),
        (Some("00f067aa0ba902b8"), Some(0), (0x00f0_67aa_0ba9_02b8_u64.to_be_bytes().to_vec(), 0x300)),
        (None, Some(1), (vec![], 1)),
        (None, None, (vec![], 0)),
        (Some("0000000000000000"), None, (vec![], 0)),
    ] {
        let sample = Sample::chat().with(|metrics| {
            metrics.parent_span_id = parent.map(Into::into);
            metrics.trace_flags = flags;
        });
        let found = span(&sample, None);
        assert_eq!((found.parent_span_id, found.flags), expected, "{parent:?} {flags:?}");
    }
    let request = request(&Sample::chat().with(|metrics| metrics.trace_flags = Some(1)), |piece, facts| {
        encode::log(piece, &mut Vec::new(), names::CORE_1_41.into(), facts, 7, None);
    });
    let read = ExportLogsServiceRequest::decode(&*request).unwrap();
    assert_eq!(read.resource_logs[0].scope_logs[0].log_records[0].flags, 1);
}

#[test]
fn tokens_of_a_modality_are_counted_by_themselves() {
    let mut metrics = Metrics::new(names::DEVELOPMENT, Temporality::Cumulative, 2000, 5);
    add(&mut metrics, &Sample::chat().with(|metrics| metrics.audio_input_tokens = Some(8)));
    let found = read(&mut metrics, 9, 1 << 20);
    let Data::Sum(input) = &found["gen_ai.client.inference.usage.input_tokens"].1 else { panic!() };
    let points = input.data_points.iter().map(|point| {
        let modality = map(&point.attributes)["gen_ai.token.modality"].as_str().unwrap().to_owned();
        (modality, point.value)
    });
    let value = |tokens| Some(number_data_point::Value::AsDouble(tokens));
    let expected = [("audio".to_owned(), value(8.0)), ("unknown".to_owned(), value(40.0))];
    assert_eq!(points.collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
}

#[test]
fn what_was_made_before_is_no_inference_and_uses_no_tokens() {
    let fetched = Sample::chat()
        .with(|metrics| (metrics.method, metrics.path) = ("GET".into(), "/v1/responses/resp_1".into()));
    for conventions in [names::CORE_1_41, names::DEVELOPMENT] {
        let attributes = with_bodies(conventions, ["", ""], &fetched);
        assert_eq!(attributes["gen_ai.operation.name"], "fetch_response");
        let is_usage = |name: &String| name.starts_with("gen_ai.usage.");
        assert!(!attributes.as_object().unwrap().keys().any(is_usage), "{attributes}");
        let mut metrics = Metrics::new(conventions, Temporality::Cumulative, 2000, 5);
        add(&mut metrics, &fetched);
        let found: Vec<_> = read(&mut metrics, 9, 1 << 20).into_keys().collect();
        let expected =
            ["gen_ai.client.operation.duration", "gen_ai.server.request.duration", "magicapi.cost"];
        assert_eq!(found, expected);
    }
}

#[test]
fn caches_are_written_under_the_names_of_each_version() {
    let sample = Sample::chat().with(|metrics| metrics.cached_write_tokens = Some(7));
    for (conventions, old, new) in
        [(names::CORE_1_41, json!(7), None), (names::DEVELOPMENT, json!(7), Some(json!(7)))]
    {
        let attributes = with_bodies(conventions, ["", ""], &sample);
        assert_eq!(attributes["gen_ai.usage.cache_creation.input_tokens"], old);
        assert_eq!(attributes.get("gen_ai.usage.cache_write.input_tokens"), new.as_ref());
    }
}

#[test]
fn the_metrics_in_development_are_counters_and_histograms_of_their_own() {
    let mut metrics = Metrics::new(names::DEVELOPMENT, Temporality::Cumulative, 2000, 5);
    add(&mut metrics, &Sample::stream());
    add(&mut metrics, &Sample::chat().with(|metrics| metrics.path = "/v1/embeddings".into()));
    let found = read(&mut metrics, 9, 1 << 20);
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "gen_ai.client.embeddings.duration",
            "gen_ai.client.embeddings.operation.input_tokens",
            "gen_ai.client.inference.duration",
            "gen_ai.client.inference.operation.input_tokens",
            "gen_ai.client.inference.operation.output_tokens",
            "gen_ai.client.inference.time_to_first_chunk",
            "gen_ai.client.inference.usage.cache_read.input_tokens",
            "gen_ai.client.inference.usage.input_tokens",
            "gen_ai.client.inference.usage.output_tokens",
            "gen_ai.client.inference.usage.reasoning.output_tokens",
            "gen_ai.server.request.duration",
            "gen_ai.server.time_per_output_token",
            "gen_ai.server.time_to_first_token",
            "magicapi.cost",
        ]
    );
    let Data::Sum(input) = &found["gen_ai.client.inference.usage.input_tokens"].1 else { panic!() };
    assert_eq!(input.data_points[0].value, Some(number_data_point::Value::AsDouble(48.0)));
    assert_eq!(map(&input.data_points[0].attributes)["gen_ai.token.modality"], "unknown");
}

#[test]
fn the_time_from_chunk_to_chunk_is_counted_for_each_and_that_of_tokens_once() {
    let sample = Sample::stream();
    let json = sample.metrics_json();
    let facts = Facts::of(Fields::parse(&json).unwrap()).unwrap();
    let facts =
        facts.with_bodies(b"", br#"{"streamed_data":[1,2,3],"streamed_data_ms":[400.5,500.5,1500.5]}"#);
    let mut metrics = Metrics::new(names::CORE_1_41, Temporality::Cumulative, 2000, 5);
    metrics.add(b"", &facts);
    let found = read(&mut metrics, 9, 1 << 20);
    let gaps = &histogram(&found["gen_ai.client.operation.time_per_output_chunk"].1).data_points[0];
    assert_eq!((gaps.count, gaps.min, gaps.max), (2, Some(0.1), Some(1.0)));
    let tokens = &histogram(&found["gen_ai.server.time_per_output_token"].1).data_points[0];
    assert_eq!((tokens.count, tokens.sum), (1, Some((6.250_25 - 0.4125) / 864.0)));
}

fn add(metrics: &mut Metrics, sample: &Sample) {
    let json = sample.metrics_json();
    metrics.add(b"", &Facts::of(Fields::parse(&json).unwrap()).unwrap());
}

/// The metrics of all requests, by name.
fn read(metrics: &mut Metrics, now: u64, max_bytes: usize) -> BTreeMap<String, (String, Data)> {
    by_name(&metrics.take(&origin(), now, max_bytes).0, max_bytes)
}

fn by_name(requests: &[Packed], max_bytes: usize) -> BTreeMap<String, (String, Data)> {
    let mut found = BTreeMap::new();
    for request in requests {
        assert!(request.body.len() <= max_bytes);
        let read = ExportMetricsServiceRequest::decode(&*request.body).unwrap();
        for metric in read
            .resource_metrics
            .into_iter()
            .flat_map(|resource| resource.scope_metrics)
            .flat_map(|scope| scope.metrics)
        {
            found.insert(metric.name, (metric.unit, metric.data.unwrap()));
        }
    }
    found
}

fn histogram(data: &Data) -> &Histogram {
    let Data::Histogram(histogram) = data else { panic!("{data:?}") };
    histogram
}

fn by<'a>(histogram: &'a Histogram, name: &str, value: &str) -> &'a HistogramDataPoint {
    let is =
        |point: &&HistogramDataPoint| map(&point.attributes).get(name).is_some_and(|found| found == value);
    histogram.data_points.iter().find(is).unwrap_or_else(|| panic!("no {name}={value}: {histogram:?}"))
}

#[test]
fn metrics_are_what_the_reference_reads() {
    let mut metrics = Metrics::new(names::CORE_1_41, Temporality::Cumulative, 2000, 5);
    add(&mut metrics, &Sample::chat());
    add(&mut metrics, &Sample::stream());
    add(&mut metrics, &Sample::failed());
    let found = read(&mut metrics, 9, 1 << 20);
    let names: Vec<_> = found.iter().map(|(name, (unit, _))| format!("{name} {unit}")).collect();
    assert_eq!(
        names,
        [
            "gen_ai.client.operation.duration s",
            "gen_ai.client.operation.time_to_first_chunk s",
            "gen_ai.client.token.usage {token}",
            "gen_ai.server.request.duration s",
            "gen_ai.server.time_per_output_token s",
            "gen_ai.server.time_to_first_token s",
            "magicapi.cost {USD}",
        ]
    );
    let duration = histogram(&found["gen_ai.client.operation.duration"].1);
    assert_eq!((duration.aggregation_temporality, duration.data_points.len()), (2, 2));
    let failed = by(duration, "error.type", "rate_limit_exceeded");
    assert_eq!((failed.count, failed.sum), (1, Some(6.250_25)));
    let done = duration.data_points.iter().find(|point| point.count == 2).unwrap();
    assert_eq!(
        map(&done.attributes),
        json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        })
    );
    assert_eq!((done.start_time_unix_nano, done.time_unix_nano, done.sum), (5, 9, Some(12.5005)));
    assert_eq!((done.min, done.max), (Some(6.250_25), Some(6.250_25)));
    let bound = done.explicit_bounds.iter().position(|bound| *bound == 10.24).unwrap();
    let expected: Vec<u64> =
        (0..=done.explicit_bounds.len()).map(|at| if at == bound { 2 } else { 0 }).collect();
    assert_eq!(done.bucket_counts, expected);
    let tokens = histogram(&found["gen_ai.client.token.usage"].1);
    assert_eq!(by(tokens, "gen_ai.token.type", "input").sum, Some(96.0));
    assert_eq!(by(tokens, "gen_ai.token.type", "output").sum, Some(1730.0));
    assert_eq!(histogram(&found["gen_ai.server.time_to_first_token"].1).data_points[0].sum, Some(0.4125));
    assert_eq!(histogram(&found["gen_ai.client.operation.time_to_first_chunk"].1).data_points[0].count, 1);
    let Data::Sum(cost) = &found["magicapi.cost"].1 else { panic!() };
    assert!(cost.is_monotonic && cost.aggregation_temporality == 2);
    assert_eq!(cost.data_points[0].value, Some(number_data_point::Value::AsDouble(0.0912)));
}

/// Count and start of the one series of durations that is sent now, and what was sent.
fn durations(metrics: &mut Metrics, now: u64) -> (Option<(u64, u64)>, Sent) {
    let (requests, sent) = metrics.take(&origin(), now, 1 << 20);
    let found = by_name(&requests, 1 << 20).get("gen_ai.client.operation.duration").map(|(_, data)| {
        let point = &histogram(data).data_points[0];
        (point.count, point.start_time_unix_nano)
    });
    (found, sent)
}

#[test]
fn cumulative_series_send_what_changed_and_deltas_begin_anew() {
    for (temporality, after) in [(Temporality::Cumulative, (2, 5)), (Temporality::Delta, (1, 9))] {
        let mut metrics = Metrics::new(names::CORE_1_41, temporality, 2000, 5);
        add(&mut metrics, &Sample::chat());
        assert_eq!(durations(&mut metrics, 9).0, Some((1, 5)));
        assert_eq!(durations(&mut metrics, 9).0, None, "{temporality:?}: nothing changed");
        add(&mut metrics, &Sample::chat());
        assert_eq!(durations(&mut metrics, 11).0, Some(after), "{temporality:?}");
    }
}

#[test]
fn what_was_not_taken_is_sent_with_what_came_since() {
    for temporality in [Temporality::Cumulative, Temporality::Delta] {
        let mut metrics = Metrics::new(names::CORE_1_41, temporality, 2000, 5);
        add(&mut metrics, &Sample::chat());
        let (found, sent) = durations(&mut metrics, 9);
        assert_eq!(found, Some((1, 5)));
        add(&mut metrics, &Sample::chat());
        metrics.give_back(sent);
        assert_eq!(durations(&mut metrics, 11).0, Some((2, 5)), "{temporality:?}");
        assert_eq!(durations(&mut metrics, 12).0, None, "{temporality:?}");
    }
}

#[test]
fn what_clients_send_cannot_make_more_series_than_allowed_and_no_value_is_lost() {
    let max_series = 30;
    let mut metrics = Metrics::new(names::CORE_1_41, Temporality::Cumulative, max_series, 5);
    for number in 0..1000 {
        add(
            &mut metrics,
            &Sample::failed().with(|metrics| {
                metrics.request_model = Some(format!("junk-{number}-{}", "x".repeat(10_000)).into());
                metrics.error_type = Some(format!("error-{number}").into());
            }),
        );
    }
    // Failures have two durations, each with a series of overflow.
    let most = max_series + 2;
    assert_eq!(metrics.len(), most);
    assert!(metrics.overflowed() >= 900);
    let mut points = |max_bytes| -> usize {
        let (requests, sent) = metrics.take(&origin(), 9, max_bytes);
        metrics.give_back(sent);
        assert!(requests.iter().all(|request| request.body.len() <= max_bytes));
        let read = |request: &Packed| ExportMetricsServiceRequest::decode(&*request.body).unwrap();
        let metrics = requests.iter().flat_map(|request| read(request).resource_metrics);
        let metrics = metrics.flat_map(|resource| resource.scope_metrics).flat_map(|scope| scope.metrics);
        metrics.map(|metric| histogram(&metric.data.unwrap()).data_points.len()).sum()
    };
    assert_eq!((points(8 << 10), points(1 << 20)), (most, most), "also in parts");
    let found = read(&mut metrics, 9, 1 << 20);
    let duration = histogram(&found["gen_ai.client.operation.duration"].1);
    assert_eq!(duration.data_points.iter().map(|point| point.count).sum::<u64>(), 1000);
    let is_overflow =
        |point: &&HistogramDataPoint| map(&point.attributes) == json!({ "otel.metric.overflow": true });
    assert_eq!(duration.data_points.iter().filter(is_overflow).count(), 1);
}

#[test]
fn an_instance_is_named_by_a_uuid_of_its_own() {
    let (one, other) = (random_uuid(), random_uuid());
    assert_ne!(one, other);
    let groups: Vec<usize> = one.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{one}");
    assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
}
