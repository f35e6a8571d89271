//! The stand-in itself.

use std::time::{Duration, SystemTime};

use exporter_pipeline::Shed;
use plugin_api::{
    Batch, Content, Descriptor, ExportError, Health, Host, InitError, RequestMetrics, TelemetryExporter,
    abi::status,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;

#[derive(Deserialize, JsonSchema)]
struct Script {
    does: String,
}

/// Does what its settings say.
struct Actor(String);

impl TelemetryExporter for Actor {
    type Config = Script;
    const DESCRIPTOR: Descriptor = Descriptor::new("actor", "1.0.0").content(Content::Metadata);

    async fn init(config: Script, _: Host) -> Result<Self, InitError> {
        match &*config.does {
            "refuse" => Err(InitError::invalid_config("no such play")),
            _ => Ok(Self(config.does)),
        }
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        match &*self.0 {
            "panic" => panic!("stage fright"),
            "wait" => Err(ExportError::retry("busy").after(Duration::from_secs(2))),
            "lie" => {
                batch.delivered(9);
                Err(ExportError::per_record())
            }
            "peek" => Err(ExportError::retry(format!("{}", batch.iter().map(|r| r.size()).sum::<usize>()))),
            _ => Ok(()),
        }
    }

    async fn health(&self) -> Health {
        Health::Unhealthy("hoarse".to_owned())
    }
}

fn actor(does: &str) -> Plugin<Actor> {
    Plugin::create(format!(r#"{{"does":"{does}"}}"#)).unwrap()
}

#[test]
fn an_instance_that_cannot_be_made_says_why() {
    let refused = Plugin::<Actor>::create(r#"{"does":"refuse"}"#).unwrap_err();
    assert_eq!(refused, Failure { status: status::INVALID_CONFIG, message: "no such play".to_owned() });
    assert_eq!(Plugin::<Actor>::create("{}").unwrap_err().status, status::INVALID_CONFIG);
}

#[test]
fn the_outcome_is_what_the_gateway_would_see() {
    let well = actor("well").export([Sample::chat(), Sample::failed()]);
    assert!(well.is_all_delivered() && !well.is_delivered(2), "{well:?}");
    let panicked = actor("panic").export([Sample::chat()]);
    assert_eq!(panicked.status, status::PANIC);
    assert!(panicked.message.starts_with("stage fright"), "{}", panicked.message);
    let busy = actor("wait").export([Sample::chat()]);
    assert_eq!((busy.status, busy.retry_after), (status::RETRY, Some(Duration::from_secs(2))));
    let lied = actor("lie").export([Sample::chat()]);
    assert_eq!(lied.faults.len(), 2, "{lied:?}");
    assert!(!lied.is_all_delivered());
}

#[test]
fn bodies_are_seen_only_with_full_content() {
    let sample = Sample::stream();
    let seen = |plugin: &Plugin<Actor>| plugin.export([sample.clone()]).message;
    assert_eq!(seen(&actor("peek")), sample.metrics_json().len().to_string());
    let full = Plugin::create_seeing(Content::Full, r#"{"does":"peek"}"#).unwrap();
    let all = sample.metrics_json().len() + sample.request.len() + sample.response.len();
    assert_eq!(seen(&full), all.to_string());
}

#[test]
fn every_function_of_the_life_cycle_answers() {
    let plugin = actor("well");
    assert_eq!(plugin.health(), Err(Failure { status: status::RETRY, message: "hoarse".to_owned() }));
    assert_eq!(plugin.scrape().unwrap_err().status, status::UNSUPPORTED);
    assert_eq!(plugin.scrape_openmetrics().unwrap_err().status, status::UNSUPPORTED);
    plugin.close().unwrap();
}

#[test]
fn samples_are_records_that_read_back() {
    for (number, sample) in
        [Sample::chat(), Sample::stream(), Sample::failed(), Sample::disconnected()].into_iter().enumerate()
    {
        let sample = sample.number(u32::try_from(number).unwrap());
        let json = sample.metrics_json();
        let metrics: RequestMetrics<'_> = serde_json::from_slice(&json).unwrap();
        assert!(metrics.id.ends_with(&number.to_string()), "{}", metrics.id);
        for body in [&sample.request, &sample.response] {
            serde_json::from_slice::<serde_json::Value>(body).unwrap();
        }
    }
}

#[test]
fn a_sample_starts_when_it_is_told() {
    let started = |sample: Sample| {
        let json = sample.metrics_json();
        let metrics: RequestMetrics<'_> = serde_json::from_slice(&json).unwrap();
        (metrics.id.into_owned(), metrics.timestamp.into_owned())
    };
    let (id, time) = started(Sample::chat().number(7).started(SystemTime::UNIX_EPOCH));
    assert!(id.ends_with("-000000000007") && time == "1970-01-01T00:00:00.000Z", "{id} {time}");
    let (id, time) = started(Sample::fresh(8));
    let age = SystemTime::now().duration_since(humantime::parse_rfc3339(&time).unwrap()).unwrap();
    assert!(id.ends_with("-000000000008") && age >= Duration::from_secs(10), "{id} {time}");
}

#[test]
fn an_outcome_reads_as_letters_and_as_reasons() {
    let rejected = |reason: &str| Some(Verdict::Rejected(reason.to_owned()));
    let outcome = Outcome {
        status: status::PER_RECORD,
        message: String::new(),
        verdicts: vec![
            rejected("too old"),
            Some(Verdict::Delivered),
            Some(Verdict::Retry("busy".to_owned())),
            None,
            rejected("too large"),
        ],
        retry_after: None,
        faults: Vec::new(),
    };
    assert_eq!(outcome.letters(), "xDr-x");
    assert_eq!(outcome.rejections(), ["too old", "too large"]);
}

#[test]
fn a_sample_loses_its_chunks_first_its_answer_next_and_its_request_last() {
    let stream = Sample::stream();
    let seen = |level| {
        let shed = stream.shed(level).unwrap();
        let json = shed.metrics_json();
        let metrics: RequestMetrics<'_> = serde_json::from_slice(&json).unwrap();
        let has_chunks = shed.response.windows(13).any(|bytes| bytes == b"streamed_data");
        assert!(!has_chunks && shed.size() < stream.size());
        (metrics.truncated.join(" "), shed.response.is_empty(), shed.request.is_empty())
    };
    assert_eq!(seen(Shed::StreamedData), ("streamed_data".to_owned(), false, false));
    assert_eq!(seen(Shed::Response), ("streamed_data response".to_owned(), true, false));
    assert_eq!(seen(Shed::Request), ("streamed_data response request".to_owned(), true, true));
    assert!(Sample::chat().shed(Shed::StreamedData).is_none(), "it was no stream");
    assert!(Sample::chat().visible(Content::Metadata).shed(Shed::Request).is_none(), "it has no bodies");
}
