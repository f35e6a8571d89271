//! The name table: which field of the record has which name in OpenTelemetry. A release of the conventions that renames
//! something is a change of this file alone.

use plugin_api::Field;

/// Version of the [GenAI conventions](https://github.com/open-telemetry/semantic-conventions-genai) that the names
/// follow. All of them are in development.
pub const VERSION: &str = "1.42.0";
/// Their schema, as every request names it.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/gen-ai/1.42.0";
/// The instrumentation scope.
pub const SCOPE: &str = "magicapi.gateway";

/// An attribute of logs and spans.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// Where its value comes from. An attribute without a value is left out.
    pub source: Source,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The path, by [`OPERATIONS`].
    Operation,
    /// The provider, by [`PROVIDERS`].
    Provider,
    /// The thread, unless the gateway made it up from the record's id.
    Conversation,
    /// What went wrong, of a request that failed.
    ErrorType,
    /// A text.
    Text(Field),
    /// A list of texts; left out when it is empty.
    Texts(Field),
    /// A whole number.
    Whole(Field),
    /// A number.
    Number(Field),
    /// Milliseconds, as seconds.
    Seconds(Field),
    /// Milliseconds, as seconds, of a stream.
    SecondsOfStream(Field),
    /// A flag; left out when it is false.
    True(Field),
}

const fn attribute(name: &'static str, source: Source) -> Attribute {
    Attribute { name, source }
}

/// Attributes of a log and of a span. What the conventions have no name for begins with `magicapi.`.
#[rustfmt::skip]
pub const ATTRIBUTES: &[Attribute] = &[
    attribute("gen_ai.operation.name", Source::Operation),
    attribute("gen_ai.provider.name", Source::Provider),
    attribute("gen_ai.request.model", Source::Text(Field::RequestModel)),
    attribute("gen_ai.response.model", Source::Text(Field::Model)),
    attribute("gen_ai.request.stream", Source::True(Field::IsStreaming)),
    attribute("gen_ai.response.time_to_first_chunk", Source::SecondsOfStream(Field::Ttfb)),
    // The record's input tokens include cached ones, its output tokens include reasoning, as the conventions ask.
    attribute("gen_ai.usage.input_tokens", Source::Whole(Field::InputTokens)),
    attribute("gen_ai.usage.output_tokens", Source::Whole(Field::OutputTokens)),
    attribute("gen_ai.usage.cache_read.input_tokens", Source::Whole(Field::CachedReadTokens)),
    attribute("gen_ai.usage.cache_creation.input_tokens", Source::Whole(Field::CachedWriteTokens)),
    attribute("gen_ai.usage.reasoning.output_tokens", Source::Whole(Field::ReasoningTokens)),
    attribute("gen_ai.conversation.id", Source::Conversation),
    attribute("error.type", Source::ErrorType),
    attribute("http.request.method", Source::Text(Field::Method)),
    attribute("url.path", Source::Text(Field::Path)),
    attribute("http.response.status_code", Source::Whole(Field::StatusCode)),
    attribute("http.request.body.size", Source::Whole(Field::RequestSize)),
    attribute("http.response.body.size", Source::Whole(Field::ResponseSize)),
    attribute("user.id", Source::Text(Field::UserId)),
    attribute("magicapi.record.id", Source::Text(Field::Id)),
    attribute("magicapi.organization.id", Source::Text(Field::OrgId)),
    attribute("magicapi.project.id", Source::Text(Field::ProjectId)),
    attribute("magicapi.project.name", Source::Text(Field::ProjectName)),
    attribute("magicapi.experiment.id", Source::Text(Field::ExperimentId)),
    attribute("magicapi.client.request_id", Source::Text(Field::ClientRequestId)),
    attribute("magicapi.provider.request_id", Source::Text(Field::ProviderRequestId)),
    attribute("magicapi.provider.status_code", Source::Whole(Field::ProviderStatusCode)),
    attribute("magicapi.provider.error_type", Source::Text(Field::ProviderErrorType)),
    attribute("magicapi.provider.duration", Source::Seconds(Field::ProviderLatency)),
    attribute("magicapi.response.time_to_first_token", Source::Seconds(Field::Ttft)),
    attribute("magicapi.gateway.overhead", Source::Seconds(Field::GatewayOverhead)),
    attribute("magicapi.usage.source", Source::Text(Field::UsageSource)),
    attribute("magicapi.cost.usd", Source::Number(Field::Cost)),
    attribute("magicapi.cost.source", Source::Text(Field::CostSource)),
    attribute("magicapi.end_reason", Source::Text(Field::EndReason)),
    attribute("magicapi.truncated", Source::Texts(Field::Truncated)),
];

/// The record's id on a log record alone, where log stores look for it.
pub const LOG_RECORD_UID: &str = "log.record.uid";
/// What a span carries of the conversation, by option.
pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
/// The same of the answer.
pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
/// The same of the instructions that stand beside the conversation.
pub const SYSTEM_INSTRUCTIONS: &str = "gen_ai.system_instructions";
/// `error.type` where nothing says what kind of error it was.
pub const OTHER_ERROR: &str = "_OTHER";
/// Marks the series that takes what has no series of its own.
pub const OVERFLOW: &str = "otel.metric.overflow";

/// Attributes of the resource, each with the record's field.
pub const RESOURCE: &[(&str, Field)] = &[
    ("service.name", Field::ServiceName),
    ("service.version", Field::ServiceVersion),
    ("deployment.environment.name", Field::Environment),
    // The name until semantic conventions 1.27, which many backends still group by.
    ("deployment.environment", Field::Environment),
];
/// Tells this process from others whose resource is the same: a metric stream has one writer.
pub const INSTANCE_ID: &str = "service.instance.id";

/// Operations by how the path ends, first match first.
pub const OPERATIONS: &[(&str, &str)] = &[
    ("/chat/completions", "chat"),
    ("/messages", "chat"),
    ("/responses", "chat"),
    ("/converse", "chat"),
    ("/converse-stream", "chat"),
    ("/completions", "text_completion"),
    ("/embeddings", "embeddings"),
    (":generateContent", "generate_content"),
    (":streamGenerateContent", "generate_content"),
];
/// Any other path. Not the path itself: a client chooses that.
pub const OTHER_OPERATION: &str = "other";

/// Providers whose name in a gateway's configuration differs from the conventions'; others keep theirs.
pub const PROVIDERS: &[(&str, &str)] = &[
    ("azure", "azure.ai.openai"),
    ("bedrock", "aws.bedrock"),
    ("gemini", "gcp.gemini"),
    ("google", "gcp.gen_ai"),
    ("mistral", "mistral_ai"),
    ("moonshot", "moonshot_ai"),
    ("vertex", "gcp.vertex_ai"),
    ("vertexai", "gcp.vertex_ai"),
    ("watsonx", "ibm.watsonx.ai"),
    ("xai", "x_ai"),
];

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit, in UCUM.
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// What a record adds to it.
    pub values: Values,
    /// Upper bounds of the buckets; none makes it a sum.
    pub bounds: &'static [f64],
}

/// What a record adds to a metric. A value that the record lacks adds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Milliseconds, as seconds; with `error.type`.
    Duration(Field),
    /// Input and output tokens, told apart by [`TOKEN_TYPE`].
    Tokens,
    /// Milliseconds, as seconds, of a stream.
    OfStream(Field),
    /// Milliseconds, as seconds, of a stream that succeeded.
    OfSuccess(Field),
    /// Dollars.
    Cost,
}

/// Attributes of every metric. A user or an organisation would be a series for each.
pub const METRIC_ATTRIBUTES: &[Attribute] = &[
    attribute("gen_ai.operation.name", Source::Operation),
    attribute("gen_ai.provider.name", Source::Provider),
    attribute("gen_ai.request.model", Source::Text(Field::RequestModel)),
    attribute("gen_ai.response.model", Source::Text(Field::Model)),
];
/// What went wrong, of a duration.
pub const ERROR_TYPE: Attribute = attribute("error.type", Source::ErrorType);
/// `input` or `output`.
pub const TOKEN_TYPE: &str = "gen_ai.token.type";

const SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The metrics. To its clients the gateway is the model's server: the time to the first *content* token is the server's
/// metric, the time to the first byte of a stream the client's.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "gen_ai.client.operation.duration",
        unit: "s",
        description: "GenAI operation duration.",
        values: Values::Duration(Field::TotalLatency),
        bounds: SECONDS,
    },
    Metric {
        name: "gen_ai.client.token.usage",
        unit: "{token}",
        description: "Number of input and output tokens used.",
        values: Values::Tokens,
        bounds: TOKENS,
    },
    Metric {
        name: "gen_ai.client.operation.time_to_first_chunk",
        unit: "s",
        description: "Time from the request until the first chunk of a stream.",
        values: Values::OfStream(Field::Ttfb),
        bounds: SECONDS,
    },
    Metric {
        name: "gen_ai.server.time_to_first_token",
        unit: "s",
        description: "Time from the request until the first content token of a stream that succeeded.",
        values: Values::OfSuccess(Field::Ttft),
        bounds: FIRST_TOKEN,
    },
    Metric {
        name: "magicapi.cost",
        unit: "{USD}",
        description: "Cost of requests in US dollars.",
        values: Values::Cost,
        bounds: &[],
    },
];

/// The operation that a path stands for.
#[must_use]
pub fn operation(path: &str) -> &'static str {
    let path = path.trim_end_matches('/');
    OPERATIONS.iter().find(|(end, _)| path.ends_with(end)).map_or(OTHER_OPERATION, |(_, name)| name)
}

/// The conventions' name of a provider.
#[must_use]
pub fn provider(name: &str) -> &str {
    PROVIDERS.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_path_stands_for_an_operation() {
        for (path, expected) in [
            ("/v1/chat/completions", "chat"),
            ("/openai/v1/chat/completions/", "chat"),
            ("/v1/messages", "chat"),
            ("/v1/messages/count_tokens", "other"),
            ("/v1/responses", "chat"),
            ("/model/anthropic.claude/converse-stream", "chat"),
            ("/v1/completions", "text_completion"),
            ("/v1/embeddings", "embeddings"),
            ("/v1beta/models/gemini-2.0:streamGenerateContent", "generate_content"),
            ("/v1/anything", "other"),
            ("", "other"),
        ] {
            assert_eq!(operation(path), expected, "{path}");
        }
    }

    #[test]
    fn a_provider_has_the_conventions_name() {
        for (name, expected) in [("openai", "openai"), ("bedrock", "aws.bedrock"), ("my-own", "my-own")] {
            assert_eq!(provider(name), expected);
        }
    }

    #[test]
    fn no_name_is_there_twice_and_bounds_ascend() {
        let mut names = HashSet::new();
        assert!(ATTRIBUTES.iter().all(|attribute| names.insert(attribute.name)));
        assert!(METRICS.iter().all(|metric| metric.bounds.is_sorted() && names.insert(metric.name)));
        assert!(SCHEMA_URL.ends_with(VERSION));
    }
}
