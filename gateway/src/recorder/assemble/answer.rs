//! Stage: the answer's body, plain or streamed, and what it says.

use std::time::Duration;

use http::Method;

use super::{Draft, END_BYTES, Settings};
use crate::recorder::{
    body::{self, Body, Opened},
    dialect::{Api, Grammar, ProviderError},
    exchange::{Captured, id},
    fold::{self, Folded},
    json::Fields,
    sse::Splitter,
    usage::Usage,
};

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
    /// The event came that closes a stream.
    pub(crate) closed: bool,
}

impl Draft {
    pub(crate) fn read_response(&mut self, settings: &Settings) {
        if self.exchange.response.is_event_stream() {
            self.answered.is_streaming = true;
            self.read_stream(settings);
            return;
        }
        let (grammar, api) = (self.exchange.dialect.grammar(), self.api());
        let (body, answered) = body::read(&self.exchange.response, settings.max_body_bytes, |answer| {
            Answered::plain(grammar, api, self.exchange.provider_status_code, answer)
        });
        self.answered = answered.unwrap_or_default();
        self.response = body.when(settings.capture_response);
    }

    fn read_stream(&mut self, settings: &Settings) {
        let captured = &self.exchange.response;
        let Some(opened) = body::open(captured, settings.stream_limit()) else {
            self.response = body::undecoded(captured).when(settings.capture_response);
            return;
        };
        let Events { chunks, lost, whole } = Events::of(&opened, settings);
        let grammar = self.exchange.dialect.grammar();
        let api = self.api();
        let folded = fold::fold(&chunks, grammar.fold(api));
        self.answered = Answered::streamed(grammar, api, captured, &folded);
        if !settings.capture_response || captured.size == 0 {
            return;
        }
        if !whole {
            self.response = opened.remains(captured);
            return;
        }
        // The chunks go first; the answer stays, however many they were.
        let wants_times = settings.capture_streamed_data && settings.capture_chunk_times && opened.is_timed();
        let times = if wants_times { folded.times() } else { None };
        let [answer, with_chunks] = folded.sizes(times.as_deref());
        if answer > settings.max_body_bytes {
            self.response = Body::Shed;
            return;
        }
        let carries_chunks = settings.capture_streamed_data && with_chunks <= settings.max_body_bytes;
        self.chunks_lost = settings.capture_streamed_data && (!carries_chunks || lost + folded.malformed > 0);
        let (json, head) = folded.write(carries_chunks, times.as_deref());
        self.before_streamed_data = carries_chunks.then_some(head);
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
            model: id(grammar.model(answer)),
            request_id: id(grammar.request_id(answer)),
            usage: counts.then(|| grammar.usage(answer)).flatten(),
            usage_is_final: true,
            error,
            ..Self::default()
        }
    }

    fn streamed(grammar: &dyn Grammar, api: Api, captured: &Captured, folded: &Folded<'_>) -> Self {
        let answer = &folded.answer.fields;
        let named_error = folded.error.map(|data| {
            let fields = Fields::read(data).0;
            grammar.error(&fields).unwrap_or_else(|| ProviderError::of(&fields))
        });
        Self {
            is_streaming: true,
            model: id(grammar.model(answer)),
            request_id: id(grammar.request_id(answer)),
            usage: (api != Api::Unknown).then(|| grammar.usage(answer)).flatten(),
            usage_is_final: captured.complete || folded.answer.closed || folded.answer.finished,
            error: named_error.or_else(|| grammar.error(answer)),
            first_content: folded.first_content,
            closed: folded.answer.closed,
        }
    }
}

/// What a stream was split into.
struct Events<'a> {
    chunks: Vec<fold::Chunk<'a>>,
    /// Events that were too large.
    lost: usize,
    whole: bool,
}

impl<'a> Events<'a> {
    /// Each line counts as at least so many bytes of content: a stream that is all framing is bounded, too, in memory and
    /// in time. The longest answers of today's models have some 130,000 events of two or three lines.
    const BYTES_PER_LINE: usize = 10;

    fn of(opened: &'a Opened<'_>, settings: &Settings) -> Self {
        let limit = settings.stream_limit();
        let most_lines = settings.max_body_bytes / Self::BYTES_PER_LINE;
        let mut splitter = Splitter::new(limit);
        let head = opened.pieces().map(|(bytes, at)| (bytes, Some(at)));
        let (mut chunks, is_all) = fold::split(&mut splitter, head, most_lines);
        let whole = opened.is_whole() && is_all;
        if !whole {
            let bytes = opened.contiguous();
            let tail = if is_all { opened.tail() } else { &bytes[bytes.len().saturating_sub(END_BYTES)..] };
            let tail = [(tail, None)].into_iter();
            chunks.extend(fold::split(&mut Splitter::midway(limit), tail, most_lines).0);
        }
        Self { chunks, lost: splitter.lost(), whole }
    }
}
