//! The exporter as the gateway runs it, and its verdicts when the stream fails.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    os::fd::OwnedFd,
};

use exporter_testkit::{Plugin, Sample, Verdict};
use plugin_api::abi::status;

use super::*;

/// The exporter on a stream of the test's in place of a standard one.
struct Elsewhere(Console);

/// Streams by number, since settings are JSON.
static STREAMS: Mutex<Vec<Option<File>>> = Mutex::new(Vec::new());

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Settings {
    stream: usize,
    format: Format,
}

impl TelemetryExporter for Elsewhere {
    type Config = Settings;
    const DESCRIPTOR: Descriptor = Console::DESCRIPTOR;

    async fn init(settings: Settings, _: Host) -> Result<Self, InitError> {
        let file = STREAMS.lock().unwrap()[settings.stream].take().unwrap();
        Ok(Self(Console::on(Output::new(file, "pipe"), settings.format, false)))
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.0.export(batch).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}

fn on(file: File, format: &str) -> Plugin<Elsewhere> {
    let mut streams = STREAMS.lock().unwrap();
    streams.push(Some(file));
    let number = streams.len() - 1;
    drop(streams);
    Plugin::create(format!(r#"{{"stream":{number},"format":"{format}"}}"#)).unwrap()
}

fn pipe() -> (io::PipeReader, File) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, File::from(OwnedFd::from(writer)))
}

#[test]
fn a_batch_comes_out_as_one_line_per_record() {
    let (reader, writer) = pipe();
    let plugin = on(writer, "text");
    assert!(plugin.export([Sample::chat(), Sample::failed()]).is_all_delivered());
    plugin.health().unwrap();
    plugin.close().unwrap();
    let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("  200  POST ") && lines[1].contains("  429  POST "), "{lines:?}");
}

#[test]
fn json_is_the_log_form_even_when_a_body_has_line_breaks() {
    let (reader, writer) = pipe();
    let plugin = on(writer, "json");
    let pretty = Sample::chat().request("{\n  \"model\": \"a\\nb\",\r\n  \"messages\": []\n}");
    assert!(plugin.export([pretty, Sample::stream()]).is_all_delivered());
    plugin.close().unwrap();
    let lines: Vec<serde_json::Value> =
        BufReader::new(reader).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["name"], "ai_gateway_request_log");
    assert_eq!(lines[0]["attributes"]["request"]["model"], "a\nb");
    assert!(lines[1]["attributes"]["response"]["streamed_data"].is_array());
}

#[test]
fn a_closed_pipe_rejects_the_records_and_is_no_panic() {
    let (reader, writer) = pipe();
    let plugin = on(writer, "text");
    drop(reader);
    for _ in 0..3 {
        let outcome = plugin.export([Sample::chat(), Sample::chat()]);
        assert_eq!(outcome.status, status::OK);
        assert!(outcome.verdicts.iter().all(|v| matches!(v, Some(Verdict::Rejected(_)))), "{outcome:?}");
    }
    assert!(plugin.health().unwrap_err().message.contains("reader has gone"));
}

#[test]
fn a_full_disk_keeps_the_records_for_later() {
    let plugin = on(File::options().write(true).open("/dev/full").unwrap(), "text");
    let outcome = plugin.export([Sample::chat()]);
    assert_eq!(outcome.status, status::RETRY, "{outcome:?}");
    assert!(outcome.message.starts_with("cannot write to pipe: "), "{outcome:?}");
    assert!(plugin.health().is_err());
}

#[test]
fn lines_that_are_out_are_not_sent_again() {
    // The reader takes part of the batch and goes: some lines are whole, one is torn, the rest never left.
    let (mut reader, writer) = pipe();
    let plugin = on(writer, "json");
    let body = format!("\"{}\"", "x".repeat(30_000));
    let batch: Vec<_> = (0..20).map(|number| Sample::chat().number(number).request(&*body)).collect();
    let taking = std::thread::spawn(move || {
        let mut taken = vec![0; 100_000];
        io::Read::read_exact(&mut reader, &mut taken).unwrap();
    });
    let outcome = plugin.export(batch);
    taking.join().unwrap();
    let delivered = outcome.verdicts.iter().filter(|v| **v == Some(Verdict::Delivered)).count();
    let rejected = outcome.verdicts.iter().filter(|v| matches!(v, Some(Verdict::Rejected(_)))).count();
    assert!(delivered >= 2 && rejected >= 1 && delivered + rejected == 20, "{delivered} {rejected}");
}

#[test]
fn a_record_that_is_none_is_rejected_alone() {
    let (_reader, writer) = pipe();
    let plugin = on(writer, "text");
    let odd = Sample::chat().with(|metrics| metrics.total_latency = f64::NAN);
    let outcome = plugin.export([Sample::chat(), odd, Sample::chat()]);
    assert!(outcome.is_delivered(0) && outcome.is_delivered(2), "{outcome:?}");
    assert!(matches!(outcome.verdicts[1], Some(Verdict::Rejected(_))), "{outcome:?}");
}

#[test]
fn settings_are_checked() {
    for (config, works) in [
        ("{}", true),
        (r#"{"format":"json","stream":"stderr","color":"never"}"#, true),
        (r#"{"format":"xml"}"#, false),
        (r#"{"colour":"never"}"#, false),
    ] {
        assert_eq!(Plugin::<Console>::create(config).is_ok(), works, "{config}");
    }
}
