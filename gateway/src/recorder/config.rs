//! `[telemetry]`: what a record says about this gateway, and how much of the bodies it keeps.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{ByteSize, HumanDuration, SchemaProblem};

/// What a record says about this gateway, and how much of the bodies it keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `service.name` in every record.
    #[schemars(length(min = 1))]
    pub service_name: String,
    /// `deployment.environment` in every record. When absent: the environment variable DEPLOYMENT_ENVIRONMENT.
    #[schemars(length(min = 1), extend("x-env" = "DEPLOYMENT_ENVIRONMENT"))]
    pub environment: String,
    /// How long the exporters may take at shutdown to deliver what is queued.
    #[serde(with = "HumanDuration")]
    pub drain_timeout: Duration,
    /// What is kept of requests and answers.
    pub capture: Capture,
}

/// What is kept of requests and answers. It never changes what clients and providers get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Keep the request's body.
    pub request: bool,
    /// Keep the answer's body; of a stream, the folded answer.
    pub response: bool,
    /// Keep every chunk of a stream. Of a stream that cannot be folded they are the answer, and are kept with it.
    pub streamed_data: bool,
    /// Keep when each of these chunks came, as `streamed_data_ms`.
    pub chunk_times: bool,
    /// The most that a record carries of a request and of an answer, each; a larger one is left out whole and named. Of a
    /// stream the answer counts: its chunks go first, and it may pass in 16 times this size.
    #[schemars(extend("x-max" = "1 GiB"))]
    pub max_body_bytes: ByteSize,
    /// Memory for the bodies of all requests that are not recorded yet; beyond it bodies are left out, never requests.
    pub max_in_flight_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service_name: "noveum_ai_gateway".to_owned(),
            environment: "production".to_owned(),
            drain_timeout: Duration::from_secs(10),
            capture: Capture::default(),
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            request: true,
            response: true,
            streamed_data: true,
            chunk_times: true,
            max_body_bytes: ByteSize::mib(4),
            max_in_flight_bytes: ByteSize::mib(256),
        }
    }
}

impl Config {
    /// The rules no schema can say.
    pub(crate) fn check(&self, problems: &mut Vec<SchemaProblem>) {
        let Capture { max_body_bytes, max_in_flight_bytes, .. } = self.capture;
        if max_body_bytes > max_in_flight_bytes {
            problems.push(SchemaProblem::new(
                "/telemetry/capture/max_body_bytes",
                format!("{max_body_bytes} is more than max_in_flight_bytes, {max_in_flight_bytes}"),
                "no body of that size could be kept: lower the one or raise the other",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_body_fits_into_the_memory_for_all() {
        let mut config = Config::default();
        let mut problems = Vec::new();
        config.check(&mut problems);
        assert_eq!(problems, []);
        config.capture.max_in_flight_bytes = ByteSize::mib(3);
        config.check(&mut problems);
        assert_eq!(problems[0].pointer, "/telemetry/capture/max_body_bytes");
    }
}
