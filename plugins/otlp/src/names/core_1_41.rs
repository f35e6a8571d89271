//! Core semantic conventions 1.41, the last release that holds the GenAI conventions. Source: `model/gen-ai`,
//! `model/openai` and `model/server` of <https://github.com/open-telemetry/semantic-conventions>, tag `v1.41.0`.

use plugin_api::Field;

use super::{Conventions, Extra, Metric, Of, Source, Values, bounds, metric, row};

/// The table.
pub(super) const CONVENTIONS: Conventions = Conventions {
    version: "1.41",
    schema_url: "https://opentelemetry.io/schemas/1.41.0",
    usage: &[row("gen_ai.usage.cache_creation.input_tokens", Source::Usage(Field::CachedWriteTokens))],
    parameters: &[row("gen_ai.request.top_k", Source::NumberOf(&["top_k"]))],
    metrics: METRICS,
};

/// To its clients the gateway is the model's server: the time to the first *content* token is the server's metric, the
/// time to the first byte of a stream the client's.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    metric("gen_ai.client.operation.duration", "s", Values::Seconds(Field::TotalLatency), bounds::SECONDS)
        .with(Extra::Error)
        .says("GenAI operation duration."),
    metric("gen_ai.client.token.usage", "{token}", Values::Whole(Field::InputTokens), bounds::TOKENS)
        .of(Of::Usage)
        .with(Extra::Text("gen_ai.token.type", "input"))
        .says("Number of input and output tokens used."),
    metric("gen_ai.client.token.usage", "{token}", Values::Whole(Field::OutputTokens), bounds::TOKENS)
        .of(Of::Usage)
        .with(Extra::Text("gen_ai.token.type", "output"))
        .says("Number of input and output tokens used."),
    metric("gen_ai.client.operation.time_to_first_chunk", "s", Values::Seconds(Field::Ttfb), bounds::SECONDS)
        .of(Of::Stream)
        .says("Time from the request until the first chunk of a stream."),
    metric("gen_ai.client.operation.time_per_output_chunk", "s", Values::ChunkGaps, bounds::SECONDS)
        .of(Of::Stream)
        .says("Time from one chunk of a stream to the next."),
    metric("gen_ai.server.request.duration", "s", Values::Seconds(Field::TotalLatency), bounds::SECONDS)
        .with(Extra::Error)
        .says("Time from the request until the last byte of the answer."),
    metric("gen_ai.server.time_per_output_token", "s", Values::PerToken, bounds::PER_TOKEN)
        .of(Of::Success)
        .says("Time per output token after the first one, of a stream that succeeded."),
    metric("gen_ai.server.time_to_first_token", "s", Values::Seconds(Field::Ttft), bounds::FIRST_TOKEN)
        .of(Of::Success)
        .says("Time from the request until the first content token of a stream that succeeded."),
    super::COST,
];
