//! The name table: which field of the record has which name in OpenTelemetry. What is the same in all versions of the
//! conventions is here; each version has a file with what is its own, and with its source.

mod core_1_41;
mod development;
pub mod operation;

use plugin_api::Field;

/// The instrumentation scope.
pub const SCOPE: &str = "magicapi.gateway";

/// A version of the GenAI conventions. All of them are in development.
#[derive(Debug)]
pub struct Conventions {
    /// Its name in the settings.
    pub version: &'static str,
    /// Its schema, as every request names it.
    pub schema_url: &'static str,
    /// Attributes of usage that other versions call otherwise.
    pub usage: &'static [Attribute],
    /// The same of parameters.
    pub parameters: &'static [Attribute],
    /// The metrics.
    pub metrics: &'static [Metric],
}

/// The released one, and the one that its authors work on.
pub static CORE_1_41: &Conventions = &core_1_41::CONVENTIONS;
/// See [`CORE_1_41`].
pub static DEVELOPMENT: &Conventions = &development::CONVENTIONS;

impl Conventions {
    /// The attributes of a log and of a span, most important first: SDKs and backends keep 128, some fewer.
    pub fn attributes(&self) -> impl Iterator<Item = &'static Attribute> {
        [IDENTITY, self.usage, OUTCOME, PARAMETERS, self.parameters, OURS].into_iter().flatten()
    }
}

/// The names of one exporter.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The conventions'.
    pub conventions: &'static Conventions,
    /// A backend's own beside them.
    pub extra: &'static [Attribute],
}

impl Names {
    /// The attributes of a log and of a span.
    pub fn attributes(self) -> impl Iterator<Item = &'static Attribute> {
        self.conventions.attributes().chain(self.extra)
    }
}

impl From<&'static Conventions> for Names {
    fn from(conventions: &'static Conventions) -> Self {
        Self { conventions, extra: &[] }
    }
}

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
    /// Method and path, by [`operation::operation`].
    Operation,
    /// The path, by [`operation::api_type`].
    ApiType,
    /// The provider, by [`PROVIDERS`].
    Provider,
    /// The thread, unless the gateway made it up from the record's id.
    Conversation,
    /// What went wrong, of a request that failed.
    ErrorType,
    /// Why the model stopped; `error` where a stream was cut before it said so.
    FinishReasons,
    /// A text.
    Text(Field),
    /// A list of texts; left out when it is empty.
    Texts(Field),
    /// A whole number.
    Whole(Field),
    /// A whole number, unless nothing was used: see [`operation::Work::None`].
    Usage(Field),
    /// A number.
    Number(Field),
    /// Milliseconds, as seconds.
    Seconds(Field),
    /// Milliseconds, as seconds, of a stream.
    SecondsOfStream(Field),
    /// A flag; left out when it is false.
    True(Field),
    /// A whole number in the request: the first of these members that is one.
    WholeOf(&'static [&'static str]),
    /// A number in the request.
    NumberOf(&'static [&'static str]),
    /// A text or a list of texts in the request, as a list.
    TextsOf(&'static [&'static str]),
    /// The number of choices asked for, unless it is one.
    Choices,
    /// What kind of output is asked for.
    OutputType,
    /// How much the model is to reason.
    ReasoningLevel,
    /// A text in the answer.
    TextOfAnswer(&'static str),
}

/// A row of a table.
#[must_use]
pub const fn row(name: &'static str, source: Source) -> Attribute {
    Attribute { name, source }
}

/// What was asked of whom, and by whom.
#[rustfmt::skip]
const IDENTITY: &[Attribute] = &[
    row("gen_ai.operation.name", Source::Operation),
    row("gen_ai.provider.name", Source::Provider),
    row("gen_ai.request.model", Source::Text(Field::RequestModel)),
    row("gen_ai.response.model", Source::Text(Field::Model)),
    row("gen_ai.response.id", Source::Text(Field::ResponseId)),
    row("gen_ai.conversation.id", Source::Conversation),
    row("user.id", Source::Text(Field::UserId)),
    row("error.type", Source::ErrorType),
    // The record's input tokens include cached ones, its output tokens include reasoning, as the conventions ask.
    row("gen_ai.usage.input_tokens", Source::Usage(Field::InputTokens)),
    row("gen_ai.usage.output_tokens", Source::Usage(Field::OutputTokens)),
    row("gen_ai.usage.cache_read.input_tokens", Source::Usage(Field::CachedReadTokens)),
    row("gen_ai.usage.reasoning.output_tokens", Source::Usage(Field::ReasoningTokens)),
];

/// What came of it.
#[rustfmt::skip]
const OUTCOME: &[Attribute] = &[
    row("gen_ai.response.finish_reasons", Source::FinishReasons),
    row("gen_ai.request.stream", Source::True(Field::IsStreaming)),
    row("gen_ai.response.time_to_first_chunk", Source::SecondsOfStream(Field::Ttfb)),
    row("magicapi.cost.usd", Source::Number(Field::Cost)),
    row("http.request.method", Source::Text(Field::Method)),
    row("url.path", Source::Text(Field::Path)),
    row("http.response.status_code", Source::Whole(Field::StatusCode)),
    row("http.request.body.size", Source::Whole(Field::RequestSize)),
    row("http.response.body.size", Source::Whole(Field::ResponseSize)),
];

/// How it was asked. Parameters stand in the request: an exporter that sees no bodies has none.
#[rustfmt::skip]
const PARAMETERS: &[Attribute] = &[
    row("gen_ai.request.max_tokens", Source::WholeOf(&["max_completion_tokens", "max_output_tokens", "max_tokens"])),
    row("gen_ai.request.temperature", Source::NumberOf(&["temperature"])),
    row("gen_ai.request.top_p", Source::NumberOf(&["top_p"])),
    row("gen_ai.request.frequency_penalty", Source::NumberOf(&["frequency_penalty"])),
    row("gen_ai.request.presence_penalty", Source::NumberOf(&["presence_penalty"])),
    row("gen_ai.request.stop_sequences", Source::TextsOf(&["stop", "stop_sequences"])),
    row("gen_ai.request.seed", Source::WholeOf(&["seed"])),
    row("gen_ai.request.choice.count", Source::Choices),
    row("gen_ai.request.encoding_formats", Source::TextsOf(&["encoding_format"])),
    row("gen_ai.embeddings.dimension.count", Source::WholeOf(&["dimensions"])),
    row("gen_ai.output.type", Source::OutputType),
    row("gen_ai.request.reasoning.level", Source::ReasoningLevel),
    row("gen_ai.request.previous_response.id", Source::Text(Field::PreviousResponseId)),
    row("openai.api.type", Source::ApiType),
    row("openai.request.service_tier", Source::Text(Field::RequestServiceTier)),
    row("openai.response.service_tier", Source::Text(Field::ServiceTier)),
    row("openai.response.system_fingerprint", Source::TextOfAnswer("system_fingerprint")),
];

/// What the conventions have no name for.
#[rustfmt::skip]
const OURS: &[Attribute] = &[
    row("magicapi.record.id", Source::Text(Field::Id)),
    row("magicapi.organization.id", Source::Text(Field::OrgId)),
    row("magicapi.project.id", Source::Text(Field::ProjectId)),
    row("magicapi.project.name", Source::Text(Field::ProjectName)),
    row("magicapi.experiment.id", Source::Text(Field::ExperimentId)),
    row("magicapi.client.request_id", Source::Text(Field::ClientRequestId)),
    row("magicapi.provider.request_id", Source::Text(Field::ProviderRequestId)),
    row("magicapi.provider.status_code", Source::Whole(Field::ProviderStatusCode)),
    row("magicapi.provider.error_type", Source::Text(Field::ProviderErrorType)),
    row("magicapi.provider.error_code", Source::Text(Field::ProviderErrorCode)),
    row("magicapi.provider.duration", Source::Seconds(Field::ProviderLatency)),
    row("magicapi.response.time_to_first_token", Source::Seconds(Field::Ttft)),
    row("magicapi.gateway.overhead", Source::Seconds(Field::GatewayOverhead)),
    row("magicapi.usage.source", Source::Text(Field::UsageSource)),
    row("magicapi.usage.cache_write_1h.input_tokens", Source::Usage(Field::CachedWrite1hTokens)),
    row("magicapi.usage.audio_seconds", Source::Number(Field::AudioSeconds)),
    row("magicapi.usage.search_queries", Source::Usage(Field::SearchQueries)),
    row("magicapi.cost.source", Source::Text(Field::CostSource)),
    row("magicapi.end_reason", Source::Text(Field::EndReason)),
    row("magicapi.truncated", Source::Texts(Field::Truncated)),
];

/// Members of a request that [`PARAMETERS`] read.
pub const PARAMETER_MEMBERS: &[&str] = &[
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "stop_sequences",
    "seed",
    "n",
    "encoding_format",
    "dimensions",
    "response_format",
    "text",
    "modalities",
    "reasoning_effort",
    "reasoning",
];
/// Members of an answer that are read.
pub const ANSWER_MEMBERS: &[&str] = &["system_fingerprint", CHUNK_TIMES];
/// When each chunk of a stream came, in milliseconds from the request's start: the gateway's own member of a folded answer.
pub const CHUNK_TIMES: &str = "streamed_data_ms";

/// The record's id on a log record alone, where log stores look for it.
pub const LOG_RECORD_UID: &str = "log.record.uid";
/// What a span carries of the conversation, by option.
pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
/// The same of the answer.
pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
/// The same of the instructions that stand beside the conversation.
pub const SYSTEM_INSTRUCTIONS: &str = "gen_ai.system_instructions";
/// The same of the tools that the model may call.
pub const TOOL_DEFINITIONS: &str = "gen_ai.tool.definitions";
/// The same of what embeddings are made of, for which the conventions have no name.
pub const EMBEDDED: &str = "magicapi.embeddings.input";
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

/// A metric, or those of its points that have this extra attribute. Rows of one metric stand together.
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
    /// Which records add to it.
    pub of: Of,
    /// An attribute beside [`METRIC_ATTRIBUTES`].
    pub extra: Extra,
    /// Upper bounds of the buckets; none makes it a sum.
    pub bounds: &'static [f64],
}

/// What a record adds to a metric. A value that the record lacks adds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// A number.
    Number(Field),
    /// A whole number.
    Whole(Field),
    /// A whole number without what is counted by itself.
    Rest(Field, [Field; 2]),
    /// Milliseconds, as seconds.
    Seconds(Field),
    /// Seconds per output token after the first one.
    PerToken,
    /// Seconds between the chunks of a stream, one value each.
    ChunkGaps,
}

/// Which records add to a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// All.
    All,
    /// Those that used tokens, or may have.
    Usage,
    /// [`operation::Work::Inference`], and what may be.
    Inference,
    /// [`operation::Work::Embeddings`]
    Embeddings,
    /// Neither.
    Other,
    /// Streams.
    Stream,
    /// Streams that succeeded: they alone have a time to the first token.
    Success,
}

/// An attribute of some metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// None.
    None,
    /// [`ERROR_TYPE`].
    Error,
    /// This one.
    Text(&'static str, &'static str),
}

const fn metric(name: &'static str, unit: &'static str, values: Values, bounds: &'static [f64]) -> Metric {
    Metric { name, unit, description: "", values, of: Of::All, extra: Extra::None, bounds }
}

impl Metric {
    const fn of(self, of: Of) -> Self {
        Self { of, ..self }
    }

    const fn with(self, extra: Extra) -> Self {
        Self { extra, ..self }
    }

    const fn says(self, description: &'static str) -> Self {
        Self { description, ..self }
    }
}

/// Attributes of every metric. A user or an organisation would be a series for each.
pub const METRIC_ATTRIBUTES: &[Attribute] = &[
    row("gen_ai.operation.name", Source::Operation),
    row("gen_ai.provider.name", Source::Provider),
    row("gen_ai.request.model", Source::Text(Field::RequestModel)),
    row("gen_ai.response.model", Source::Text(Field::Model)),
];
/// What went wrong, of a duration.
pub const ERROR_TYPE: Attribute = row("error.type", Source::ErrorType);

const COST: Metric = metric("magicapi.cost", "{USD}", Values::Number(Field::Cost), &[])
    .says("Cost of requests in US dollars.");

/// Bounds of histograms, as the conventions recommend them.
mod bounds {
    pub(super) const SECONDS: &[f64] =
        &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
    pub(super) const TOKENS: &[f64] = &[
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
    pub(super) const FIRST_TOKEN: &[f64] =
        &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    pub(super) const PER_TOKEN: &[f64] =
        &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
}

/// The conventions' name of a provider.
#[must_use]
pub fn provider(name: &str) -> &str {
    PROVIDERS.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

#[cfg(test)]
mod tests;
