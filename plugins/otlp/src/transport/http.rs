//! Protobuf over HTTP/1.1.

use std::time::Duration;

use exporter_kit::{
    http::{Answer, Body, Class, Client, shown},
    tls::Tls,
};
use plugin_api::{Host, InitError};

use super::{Refused, Settings, refused};
use crate::{
    answer::{self, Failure, Taken},
    config::Signal,
};

/// The client.
#[derive(Debug)]
pub struct Http {
    client: Client,
    settings: Settings,
}

impl Http {
    pub(super) fn new(host: &Host, tls: &Tls, settings: Settings) -> Result<Self, InitError> {
        let client = Client::new(host, tls, settings.timeout)?.hiding(&settings.secrets());
        Ok(Self { client, settings })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) async fn send(
        &self,
        signal: Signal,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Taken, Refused> {
        let settings = &self.settings;
        let url = settings.endpoint(signal);
        let mut request = self
            .client
            .post(url.clone())
            .header("content-type", PROTOBUF)
            .timeout(timeout.min(settings.timeout))
            .body(Body::new(body, settings.gzip));
        for (name, value) in &settings.headers {
            request = request.header(name.as_str(), value.to_str().unwrap_or_default());
        }
        let answer = request.send().await?;
        if answer.status().is_success() {
            answer.check_as(Class::Delivered)?;
            return Ok(if is_protobuf(&answer) { Taken::read(answer.body()) } else { Taken::default() });
        }
        let failure = failure(&answer);
        let colon = if failure.message.is_empty() { "" } else { ": " };
        let cure = match answer.status().as_u16() {
            300..=399 | 404 | 405 => " (is the endpoint right?)",
            _ => "",
        };
        let message = settings.redacted(failure.message.clone());
        let sentence = format!("POST {} answered {}{colon}{message}{cure}", shown(url), answer.status());
        let meaning = settings.answers.http(answer.status().as_u16(), &failure.message);
        Err(refused(meaning, sentence, &failure))
    }
}

const PROTOBUF: &str = "application/x-protobuf";

fn is_protobuf(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.starts_with(PROTOBUF))
}

/// The body of a failure is a `google.rpc.Status`, or whatever a proxy writes.
fn failure(answer: &Answer) -> Failure {
    let read = if is_protobuf(answer) { Failure::read(answer.body()) } else { None };
    let text =
        || Failure { message: answer::one_line(&String::from_utf8_lossy(answer.body())), retry_after: None };
    let failure = read.unwrap_or_else(text);
    Failure { retry_after: answer.retry_after().or(failure.retry_after), ..failure }
}
