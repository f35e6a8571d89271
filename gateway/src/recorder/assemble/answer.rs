//! Stage: the answer's body, plain or streamed, and what it says.

use std::time::Duration;

use http::Method;

use super::{Draft, END_BYTES, Settings};
use crate::recorder::{
    answer_facts::AnswerFacts,
    body::{self, Body, Opened},
    dialect::{Api, Grammar, ProviderError},
    exchange::{Captured, Exchange, Kept, id},
    fold::{self, Answer, Folded},
    json::Fields,
    sse::{self, Splitter},
    usage::Usage,
};

/// What the provider's answer says.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) is_streaming: bool,
    pub(crate) model: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) facts: AnswerFacts,
    /// Whether the usage is all there will be.
    pub(crate) usage_is_final: bool,
    pub(crate) error: Option<ProviderError>,
    pub(crate) first_content: Option<Duration>,
    /// The event came that closes a stream.
    pub(crate) closed: bool,
    /// A stream passed to its end, and its answer did not come to one.
    pub(crate) unfinished: bool,
}

impl Draft {
    pub(crate) fn read_response(&mut self, settings: &Settings) {
        if self.exchange.response.is_event_stream() || self.is_unlabelled_stream(settings) {
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
        let Events { chunks, lost, whole, has_end } = Events::of(&opened, is_timed(captured), settings);
        let grammar = self.exchange.dialect.grammar();
        let api = self.api();
        let folded = fold::fold(&chunks, || grammar.fold(api));
        self.answered = Answered::streamed(grammar, api, captured, &folded, has_end);
        if !settings.capture_response || captured.size == 0 {
            return;
        }
        if !whole {
            self.response = opened.remains(captured);
            return;
        }
        // The chunks go first; the answer stays, however many they were. Where they are the answer, they stay with it.
        let wants_times = settings.capture_streamed_data && settings.capture_chunk_times && opened.is_timed();
        let times = if wants_times { folded.times() } else { None };
        let [answer, with_chunks] = folded.sizes(times.as_deref());
        let (is_verbatim, malformed) = (folded.is_verbatim(), folded.malformed);
        let fits = with_chunks <= settings.max_body_bytes;
        if answer > settings.max_body_bytes || (is_verbatim && !fits) {
            self.response = Body::Shed;
            return;
        }
        let carries_chunks = is_verbatim || (settings.capture_streamed_data && fits);
        let wants_chunks = is_verbatim || settings.capture_streamed_data;
        self.chunks_lost = wants_chunks && (!carries_chunks || lost + malformed > 0);
        let (json, head) = folded.write(carries_chunks, times.as_deref());
        self.before_streamed_data = (carries_chunks && !is_verbatim).then_some(head);
        self.response = Body::Json(json.into());
    }

    /// Some providers do not say that what they send is a stream of events. It is read as one where the client asked for
    /// one, and it begins like one.
    fn is_unlabelled_stream(&self, settings: &Settings) -> bool {
        let Exchange { response, provider_status_code, .. } = &self.exchange;
        let could_be = self.asked.stream
            && provider_status_code.is_some_and(|status| status < 400)
            && response.content_type.as_deref().is_none_or(|kind| {
                kind.trim().is_empty()
                    || response.is_media_type(|subtype| matches!(subtype, "plain" | "octet-stream"))
                    || response.is_media_type(|subtype| subtype.ends_with("json"))
            });
        could_be
            && body::open(response, settings.stream_limit())
                .is_some_and(|opened| sse::begins_like_events(opened.contiguous()))
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
            facts: if counts { AnswerFacts::of(api, answer, &[]) } else { AnswerFacts::default() },
            usage_is_final: true,
            error,
            ..Self::default()
        }
    }

    /// `has_end`: the end of the body is among what was read.
    fn streamed(
        grammar: &dyn Grammar,
        api: Api,
        captured: &Captured,
        folded: &Folded<'_>,
        has_end: bool,
    ) -> Self {
        let Answer { fields: answer, finished, closed, is_open, .. } = &folded.answer;
        let named_error = folded.error.map(|data| {
            let fields = Fields::read(data).0;
            grammar.error(&fields).unwrap_or_else(|| ProviderError::of(&fields))
        });
        let error = named_error.or_else(|| grammar.error(answer));
        let unfinished = captured.complete && has_end && *is_open && error.is_none();
        // A failure breaks the count off, unless it is told by the event that has all of it.
        let usage_is_final = if error.is_some() || unfinished {
            api == Api::Responses && *closed
        } else {
            captured.complete || *closed || *finished
        };
        Self {
            is_streaming: true,
            model: id(grammar.model(answer)),
            request_id: id(grammar.request_id(answer)),
            usage: (api != Api::Unknown).then(|| grammar.usage(answer)).flatten(),
            facts: match api {
                Api::Unknown => AnswerFacts::default(),
                _ => AnswerFacts::of(api, answer, &folded.answer.finish_reasons),
            },
            usage_is_final,
            error,
            first_content: folded.first_content,
            closed: *closed,
            unfinished,
        }
    }
}

/// Whether it is known when the bytes of a body passed.
fn is_timed(captured: &Captured) -> bool {
    match &captured.kept {
        Kept::Whole(bytes) | Kept::Ends { head: bytes, .. } => bytes.is_timed(),
        Kept::Nothing | Kept::Shed => false,
    }
}

/// What a stream was split into.
struct Events<'a> {
    chunks: Vec<fold::Chunk<'a>>,
    /// Events that were too large.
    lost: usize,
    whole: bool,
    /// What comes last in the body is among them.
    has_end: bool,
}

impl<'a> Events<'a> {
    /// Each line counts as at least so many bytes of content: a stream that is all framing is bounded, too, in memory and
    /// in time. The longest answers of today's models have some 130,000 events of two or three lines.
    const BYTES_PER_LINE: usize = 10;

    fn of(opened: &'a Opened<'_>, is_timed: bool, settings: &Settings) -> Self {
        let limit = settings.stream_limit();
        let most_lines = settings.max_body_bytes / Self::BYTES_PER_LINE;
        let mut splitter = Splitter::new(limit);
        let head = opened.pieces().map(|(bytes, at)| (bytes, is_timed.then_some(at)));
        let (mut chunks, is_all) = fold::split(&mut splitter, head, most_lines);
        let whole = opened.is_whole() && is_all;
        let mut has_end = whole && splitter.lost() == 0;
        if !whole {
            let bytes = opened.contiguous();
            let tail = if is_all { opened.tail() } else { &bytes[bytes.len().saturating_sub(END_BYTES)..] };
            let tail = [(tail, None)].into_iter();
            let last = fold::split(&mut Splitter::midway(limit), tail, most_lines).0;
            // None is there when the last event is longer than the tail.
            has_end = !last.is_empty() && (opened.is_whole() || !opened.tail().is_empty());
            chunks.extend(last);
        }
        Self { chunks, lost: splitter.lost(), whole, has_end }
    }
}
