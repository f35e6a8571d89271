//! The GenAI conventions after core 1.41, which have a repository of their own and no release yet. Source: `docs/gen-ai` of
//! <https://github.com/open-telemetry/semantic-conventions-genai> at 024a4f94 and 066d4a7f (October 2026), and its
//! `changelog.d/+embeddings.breaking.md`.

use plugin_api::Field;

use super::{Conventions, Extra, Metric, Of, Source, Values, bounds, metric, row};

/// The table.
pub(super) const CONVENTIONS: Conventions = Conventions {
    version: "development",
    schema_url: "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev",
    usage: &[
        row("gen_ai.usage.cache_write.input_tokens", Source::Usage(Field::CachedWriteTokens)),
        // Langfuse and others read the older name alone.
        row("gen_ai.usage.cache_creation.input_tokens", Source::Usage(Field::CachedWriteTokens)),
        row("gen_ai.usage.audio.input_tokens", Source::Usage(Field::AudioInputTokens)),
        row("gen_ai.usage.audio.output_tokens", Source::Usage(Field::AudioOutputTokens)),
        row("gen_ai.usage.image.input_tokens", Source::Usage(Field::ImageInputTokens)),
        row("gen_ai.usage.image.output_tokens", Source::Usage(Field::ImageOutputTokens)),
    ],
    parameters: &[row("gen_ai.request.top_k", Source::WholeOf(&["top_k"]))],
    metrics: METRICS,
};

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    metric("gen_ai.client.inference.duration", "s", Values::Seconds(Field::TotalLatency), bounds::SECONDS)
        .of(Of::Inference)
        .with(Extra::Error)
        .says("GenAI client inference operation duration."),
    metric("gen_ai.client.embeddings.duration", "s", Values::Seconds(Field::TotalLatency), bounds::SECONDS)
        .of(Of::Embeddings)
        .with(Extra::Error)
        .says("GenAI client embeddings operation duration."),
    metric("gen_ai.client.operation.duration", "s", Values::Seconds(Field::TotalLatency), bounds::SECONDS)
        .of(Of::Other)
        .with(Extra::Error)
        .says("GenAI operation duration."),
    metric("gen_ai.client.embeddings.operation.input_tokens", "{token}", Values::Whole(Field::InputTokens), bounds::TOKENS)
        .of(Of::Embeddings)
        .says("Input tokens of an embeddings operation."),
    metric("gen_ai.client.inference.operation.input_tokens", "{token}", Values::Whole(Field::InputTokens), bounds::TOKENS)
        .of(Of::Inference)
        .says("Input tokens of an inference operation."),
    metric("gen_ai.client.inference.operation.output_tokens", "{token}", Values::Whole(Field::OutputTokens), bounds::TOKENS)
        .of(Of::Inference)
        .says("Output tokens of an inference operation."),
    usage(INPUT, Values::Rest(Field::InputTokens, [Field::AudioInputTokens, Field::ImageInputTokens]), "unknown")
        .says(INPUT_SAYS),
    usage(INPUT, Values::Whole(Field::AudioInputTokens), "audio").says(INPUT_SAYS),
    usage(INPUT, Values::Whole(Field::ImageInputTokens), "image").says(INPUT_SAYS),
    usage(OUTPUT, Values::Rest(Field::OutputTokens, [Field::AudioOutputTokens, Field::ImageOutputTokens]), "unknown")
        .says(OUTPUT_SAYS),
    usage(OUTPUT, Values::Whole(Field::AudioOutputTokens), "audio").says(OUTPUT_SAYS),
    usage(OUTPUT, Values::Whole(Field::ImageOutputTokens), "image").says(OUTPUT_SAYS),
    usage("gen_ai.client.inference.usage.cache_read.input_tokens", Values::Whole(Field::CachedReadTokens), "unknown")
        .says("Input tokens read from a cache of the provider's."),
    usage("gen_ai.client.inference.usage.cache_write.input_tokens", Values::Whole(Field::CachedWriteTokens), "unknown")
        .says("Input tokens written to a cache of the provider's."),
    usage("gen_ai.client.inference.usage.reasoning.output_tokens", Values::Whole(Field::ReasoningTokens), "unknown")
        .says("Output tokens used for reasoning."),
    metric("gen_ai.client.inference.time_to_first_chunk", "s", Values::Seconds(Field::Ttfb), bounds::SECONDS)
        .of(Of::Stream)
        .says("Time from the request until the first chunk of a stream."),
    metric("gen_ai.client.inference.time_per_output_chunk", "s", Values::ChunkGaps, bounds::SECONDS)
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

const INPUT: &str = "gen_ai.client.inference.usage.input_tokens";
const INPUT_SAYS: &str = "Input tokens used, cached ones included.";
const OUTPUT: &str = "gen_ai.client.inference.usage.output_tokens";
const OUTPUT_SAYS: &str = "Output tokens used, reasoning included.";

/// A counter of tokens of one modality.
const fn usage(name: &'static str, values: Values, modality: &'static str) -> Metric {
    metric(name, "{token}", values, &[])
        .of(Of::Inference)
        .with(Extra::Text("gen_ai.token.modality", modality))
}
