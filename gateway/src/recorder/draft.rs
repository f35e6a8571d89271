//! A record in the making, and the stages that it goes through. Each stage is a method that fills in its part.

use std::time::Duration;

use http::{HeaderValue, Method};
use plugin_api::{CostSource, EndReason, Status, Usd, UsageSource};

use super::{
    assemble::Settings,
    body::{self, Body, Opened},
    exchange::{Captured, Exchange},
    fold::{self, Folded},
    json::Fields,
    sse::Splitter,
    usage::Usage,
};
use crate::providers::{
    Api,
    dialect::{Grammar, ProviderError},
};

/// A record in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) exchange: Exchange,
    pub(crate) asked: Asked,
    pub(crate) request: Body,
    pub(crate) answered: Answered,
    pub(crate) response: Body,
    /// Length of the response before `streamed_data`, when it has that.
    pub(crate) before_streamed_data: Option<usize>,
    /// Chunks were left out of `streamed_data`.
    pub(crate) chunks_lost: bool,
    pub(crate) cost: Cost,
    pub(crate) outcome: Outcome,
}

/// What the request's body says.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) model: Option<String>,
    pub(crate) thread_id: Option<String>,
    pub(crate) org_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) project_id: Option<String>,
    pub(crate) project_name: Option<String>,
    pub(crate) experiment_id: Option<String>,
}

/// What the provider's answer says.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) is_streaming: bool,
    pub(crate) model: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// Whether the usage is all there will be.
    pub(crate) usage_is_final: bool,
    pub(crate) error: Option<ProviderError>,
    pub(crate) first_content: Option<Duration>,
    /// The stream itself said that it is over.
    pub(crate) done: bool,
}

/// What the request cost. Unknown, until there is a price table.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) amount: Option<Usd>,
    pub(crate) source: CostSource,
    pub(crate) price_version: Option<String>,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) end_reason: EndReason,
    pub(crate) errors: u32,
    pub(crate) provider_errors: u32,
    pub(crate) error_type: Option<String>,
}

impl Draft {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self {
            exchange,
            asked: Asked::default(),
            request: Body::Nothing,
            answered: Answered::default(),
            response: Body::Nothing,
            before_streamed_data: None,
            chunks_lost: false,
            cost: Cost { amount: None, source: CostSource::None, price_version: None },
            outcome: Outcome {
                status: Status::Error,
                end_reason: EndReason::GatewayError,
                errors: 0,
                provider_errors: 0,
                error_type: None,
            },
        }
    }

    /// Stage: the request's body.
    pub(crate) fn read_request(&mut self, settings: &Settings) {
        let (body, asked) = body::read(&self.exchange.request, settings.decoded_limit(), Asked::of);
        self.asked = asked.unwrap_or_default();
        self.request = body.when(settings.capture_request);
    }

    /// Stage: the answer's body, plain or streamed.
    pub(crate) fn read_response(&mut self, settings: &Settings) {
        if is_event_stream(self.exchange.response.content_type.as_ref()) {
            self.answered.is_streaming = true;
            self.read_stream(settings);
            return;
        }
        let (grammar, api) = (self.exchange.dialect.grammar(), self.api());
        let (body, answered) = body::read(&self.exchange.response, settings.decoded_limit(), |answer| {
            Answered::plain(grammar, api, self.exchange.provider_status_code, answer)
        });
        self.answered = answered.unwrap_or_default();
        self.response = body.when(settings.capture_response);
    }

    fn read_stream(&mut self, settings: &Settings) {
        let captured = &self.exchange.response;
        let limit = settings.decoded_limit();
        let Some(opened) = body::open(captured, limit) else {
            self.response = body::undecoded(captured).when(settings.capture_response);
            return;
        };
        let (chunks, lost) = split(&opened, limit);
        let grammar = self.exchange.dialect.grammar();
        let folded = fold::fold(&chunks, grammar.fold(self.api()));
        self.answered = Answered::streamed(grammar, captured, &folded);
        if !settings.capture_response || captured.size == 0 {
            return;
        }
        if !opened.is_whole() {
            self.response = Body::Shed;
            return;
        }
        self.chunks_lost = settings.capture_streamed_data && lost + folded.malformed > 0;
        let (json, head) = folded.write(settings.capture_streamed_data);
        self.before_streamed_data = settings.capture_streamed_data.then_some(head);
        self.response = Body::Json(json.into());
    }

    /// The API that was called. Only `POST` has something made; other methods ask for what was made before.
    fn api(&self) -> Api {
        if self.exchange.method == Method::POST {
            self.exchange.dialect.api(&self.exchange.path)
        } else {
            Api::Unknown
        }
    }

    /// Stage: how it went, from what the proxy saw and what the answer says.
    pub(crate) fn judge(&mut self) {
        let Self { exchange, answered, .. } = self;
        let refused = exchange.provider_status_code.is_some_and(|status| status >= 400);
        let said_error = answered.error.is_some();
        let end_reason = match &exchange.end {
            EndReason::Complete | EndReason::ClientDisconnect if answered.is_streaming && said_error => {
                EndReason::ProviderError
            }
            // Some clients hang up at the last event, without waiting for the end of the body.
            EndReason::ClientDisconnect if answered.done => EndReason::Complete,
            end => end.clone(),
        };
        let by_provider = refused || said_error || end_reason == EndReason::ProviderError;
        let by_gateway = matches!(end_reason, EndReason::Timeout | EndReason::GatewayError)
            || (exchange.error.is_some() && !by_provider);
        let complete = end_reason == EndReason::Complete;
        let succeeded = complete && exchange.status_code.is_some_and(|status| status < 400);
        let provider_type = answered.error.as_ref().and_then(|error| error.kind.clone());
        self.outcome = Outcome {
            status: if succeeded && !by_provider && !by_gateway { Status::Success } else { Status::Error },
            end_reason,
            errors: u32::from(by_provider) + u32::from(by_gateway),
            provider_errors: u32::from(by_provider),
            error_type: exchange.error.map(str::to_owned).or(provider_type),
        };
    }

    /// Where the token counts come from.
    pub(crate) fn usage_source(&self) -> UsageSource {
        match self.answered {
            Answered { usage: None, .. } => UsageSource::None,
            Answered { usage_is_final: true, .. } => UsageSource::Provider,
            Answered { usage_is_final: false, .. } => UsageSource::Partial,
        }
    }
}

impl Asked {
    fn of(request: &Fields<'_>) -> Self {
        let metadata = request.object("metadata");
        let named = |name: &str| metadata.text(name).map(|text| text.into_owned()).filter(|text| !text.is_empty());
        let own = |name: &str| request.text(name).map(|text| text.into_owned()).filter(|text| !text.is_empty());
        Self {
            model: own("model"),
            thread_id: named("thread_id"),
            org_id: named("org_id"),
            user_id: named("user_id").or_else(|| own("user")),
            project_id: named("project_id"),
            project_name: named("project_name"),
            experiment_id: named("experiment_id"),
        }
    }
}

impl Answered {
    fn plain(grammar: &dyn Grammar, api: Api, status: Option<u16>, answer: &Fields<'_>) -> Self {
        // Without a status of the provider's, the answer is the gateway's own.
        let Some(status) = status else { return Self::default() };
        let refused = status >= 400;
        let counts = !refused && api != Api::Unknown;
        let error = if refused {
            Some(grammar.error(answer).unwrap_or_else(|| ProviderError::of(answer)))
        } else if counts {
            grammar.error(answer)
        } else {
            None
        };
        Self {
            model: grammar.model(answer).map(|model| model.into_owned()),
            request_id: grammar.request_id(answer).map(|id| id.into_owned()),
            usage: counts.then(|| grammar.usage(answer)).flatten(),
            usage_is_final: true,
            error,
            ..Self::default()
        }
    }

    fn streamed(grammar: &dyn Grammar, captured: &Captured, folded: &Folded<'_>) -> Self {
        let answer = &folded.answer.fields;
        let named_error = folded.error.map(|data| {
            let fields = Fields::read(data).0;
            grammar.error(&fields).unwrap_or_else(|| ProviderError::of(&fields))
        });
        let done = folded.done || folded.answer.finished;
        Self {
            is_streaming: true,
            model: grammar.model(answer).map(|model| model.into_owned()),
            request_id: grammar.request_id(answer).map(|id| id.into_owned()),
            usage: grammar.usage(answer),
            usage_is_final: captured.complete || done,
            error: named_error.or_else(|| grammar.error(answer)),
            first_content: folded.first_content,
            done,
        }
    }
}

fn is_event_stream(content_type: Option<&HeaderValue>) -> bool {
    body::is_media_type(content_type, |subtype| subtype == "event-stream")
}

fn split<'a>(opened: &'a Opened<'_>, limit: usize) -> (Vec<fold::Chunk<'a>>, usize) {
    let head = opened.pieces().map(|(bytes, at)| (bytes, Some(at)));
    let (mut chunks, lost) = fold::split(Splitter::new(limit), head);
    if !opened.is_whole() {
        chunks.extend(fold::split(Splitter::midway(limit), [(opened.tail(), None)].into_iter()).0);
    }
    (chunks, lost)
}
