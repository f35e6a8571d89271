//! Protobuf and JSON over HTTP/1.1.

use std::time::Duration;

use exporter_kit::{
    http::{Answer, Body, Class, Client, shown},
    settings::Secret,
    tls::Tls,
};
use plugin_api::{Host, InitError};

use super::{Refused, body, refused, settings::Settings};
use crate::{
    answer::{self, Failure, Taken},
    config::{Protocol, Signal},
    otlp_json,
};

/// The client.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
}

/// Longest time for any request; each has one of its own.
const LONGEST: Duration = Duration::from_secs(3600);

impl Http {
    pub(super) fn new(host: &Host, tls: &Tls) -> Result<Self, InitError> {
        Ok(Self { client: Client::new(host, tls, LONGEST)? })
    }

    pub(super) async fn send(
        &self,
        settings: &Settings,
        signal: Signal,
        message: Vec<u8>,
        timeout: Duration,
    ) -> Result<Taken, Refused> {
        let is_json = settings.protocol == Protocol::HttpJson;
        let message = if is_json { otlp_json::request(signal, &message) } else { message };
        let values = settings.headers.iter().filter_map(|(_, value)| value.to_str().ok());
        let hidden: Vec<_> = values.map(Secret::new).collect();
        let client = self.client.clone().hiding(&hidden);
        let mut request = client
            .post(settings.endpoint.clone())
            .header("content-type", if is_json { JSON } else { PROTOBUF })
            .timeout(timeout)
            .body(Body::plain(body::append(Vec::new(), &message, settings.compression)));
        drop(message);
        if let Some(encoding) = body::encoding(settings.compression) {
            request = request.header("content-encoding", encoding);
        }
        for (name, value) in &settings.headers {
            request = request.header(name.as_str(), value.to_str().unwrap_or_default());
        }
        let answer = request.send().await?;
        if answer.status().is_success() {
            answer.check_as(Class::Delivered)?;
            return Ok(taken(&answer));
        }
        Err(failed(settings, &answer))
    }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn is(answer: &Answer, kind: &str) -> bool {
    answer.header("content-type").is_some_and(|found| found.starts_with(kind))
}

fn taken(answer: &Answer) -> Taken {
    if is(answer, PROTOBUF) {
        Taken::read(answer.body())
    } else if is(answer, JSON) {
        Taken::read_json(answer.body())
    } else {
        Taken::default()
    }
}

fn failed(settings: &Settings, answer: &Answer) -> Refused {
    let failure = failure(answer);
    let colon = if failure.message.is_empty() { "" } else { ": " };
    let cure = match answer.status().as_u16() {
        300..=399 | 404 | 405 => " (is the endpoint right?)",
        _ => "",
    };
    let message = settings.redacted(failure.message.clone());
    let target = shown(&settings.endpoint);
    let sentence = format!("POST {target} answered {}{colon}{message}{cure}", answer.status());
    let meaning = settings.answers.http(answer.status().as_u16(), &failure.message);
    refused(meaning, sentence, &failure)
}

/// The body of a failure is a `google.rpc.Status`, or whatever a proxy writes.
fn failure(answer: &Answer) -> Failure {
    let read = if is(answer, PROTOBUF) {
        Failure::read(answer.body())
    } else if is(answer, JSON) {
        Failure::read_json(answer.body())
    } else {
        None
    };
    let text =
        || Failure { message: answer::one_line(&String::from_utf8_lossy(answer.body())), retry_after: None };
    let failure = read.unwrap_or_else(text);
    Failure { retry_after: answer.retry_after().or(failure.retry_after), ..failure }
}
