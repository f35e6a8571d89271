//! The copy that is kept of a body while it passes. It never holds the body up, and it is bounded: per body, and over
//! all requests together.
//!
//! The bound on one body is on its *content*: of an event stream about 330 bytes of framing pass for every token, and
//! they go before the answer does. See [`Cap`].

use std::{mem, sync::Arc, time::Duration};

use http::{HeaderMap, header};

use super::model_scan::ModelScan;
use crate::{
    budget::{Budget, Reservation},
    recorder::{
        self, Captured, END_BYTES, Kept, MAX_ID_BYTES, MarkedBytes, STREAM_FACTOR, sse::begins_like_events,
    },
};

/// What the ends of bodies may take beyond the limit of the budget, so that a record keeps its model and its usage when
/// others fill the budget. Without even that room, nothing of a body is kept.
const ROOM_FOR_ENDS: u64 = 16 * 1024 * 1024;

/// How much to keep.
#[derive(Debug, Clone)]
pub(crate) struct CaptureSettings {
    /// False: nothing is kept, only counted.
    pub enabled: bool,
    pub max_body_bytes: u64,
    pub budget: Arc<Budget>,
}

/// Takes in one body, piece by piece.
#[derive(Debug)]
pub(crate) struct Capture {
    keeping: Keeping,
    captured: Captured,
    cap: Cap,
    /// The length that was announced.
    expected: Option<usize>,
    /// It may turn out to be a stream of events that is not said to be one.
    may_be_stream: bool,
    /// Reads on when both ends of the body may not have its model. None before there is need, and after it is known that
    /// there is none.
    model: Option<Box<ModelScan>>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
enum Keeping {
    Nothing,
    Whole(MarkedBytes),
    Ends { head: MarkedBytes, tail: Vec<u8> },
    Shed,
}

/// How large a body may pass and still be kept whole.
#[derive(Debug, Clone, Copy)]
struct Cap {
    content: u64,
    /// Lines that passed, of an event stream in no coding.
    lines: Option<u64>,
}

impl Cap {
    /// What a line of an event stream may have around its content. An event has two lines: its data, and a blank one.
    const FRAMING_OF_LINE: u64 = 512;

    /// A stream of small events may pass in many times the size of its content; one of large events is all content.
    fn bytes(self) -> u64 {
        let framing = self.lines.unwrap_or(0).saturating_mul(Self::FRAMING_OF_LINE);
        let most = self.content.saturating_mul(STREAM_FACTOR as u64);
        self.content.saturating_add(framing).min(most).min(MarkedBytes::MAX_BYTES)
    }

    fn count_lines(&mut self, bytes: &[u8]) {
        if let Some(lines) = &mut self.lines {
            *lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        }
    }
}

impl Capture {
    pub(crate) fn new(settings: &CaptureSettings) -> Self {
        let bytes = MarkedBytes::new(Reservation::of(&settings.budget));
        Self {
            keeping: if settings.enabled { Keeping::Whole(bytes) } else { Keeping::Nothing },
            captured: Captured::default(),
            cap: Cap { content: settings.max_body_bytes, lines: None },
            expected: None,
            may_be_stream: false,
            model: None,
            budget: settings.budget.clone(),
        }
    }

    /// Notes how the body is described.
    pub(crate) fn describe(&mut self, headers: &HeaderMap) {
        // Copies: a header's value is a slice of the connection's read buffer, and keeps all of it.
        let content_type = headers.get(header::CONTENT_TYPE);
        self.captured.content_type = content_type.map(|value| recorder::text(value.as_bytes(), MAX_ID_BYTES));
        self.captured.content_encoding = codings(headers);
        self.expected = headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let is_too_large = self.expected.is_some_and(|expected| expected as u64 > self.cap.bytes());
        if is_too_large && !self.captured.is_event_stream() {
            // That is known before it comes: nothing but its ends is ever held.
            self.keep_only_ends(&[], Duration::ZERO);
        }
    }

    /// The same of an answer, of which the times matter when it is a stream.
    pub(crate) fn describe_answer(&mut self, headers: &HeaderMap) {
        self.describe(headers);
        if self.captured.is_event_stream() {
            self.keep_as_stream();
        } else {
            self.may_be_stream = true;
        }
    }

    fn keep_as_stream(&mut self) {
        self.cap.lines = self.captured.content_encoding.is_none().then_some(0);
        if let Keeping::Whole(bytes) = &mut self.keeping
            && bytes.is_empty()
        {
            *bytes = MarkedBytes::with_marks(Reservation::of(&self.budget));
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], at: Duration) {
        if bytes.is_empty() {
            return;
        }
        self.captured.first_byte.get_or_insert(at);
        if mem::take(&mut self.may_be_stream) && begins_like_events(bytes) {
            self.keep_as_stream();
        }
        self.captured.size += bytes.len() as u64;
        self.look_for_model(bytes);
        match &mut self.keeping {
            Keeping::Nothing | Keeping::Shed => {}
            Keeping::Whole(kept) => {
                self.cap.count_lines(bytes);
                let fits = self.captured.size <= self.cap.bytes();
                if !fits || kept.push(bytes, at, self.expected).is_err() {
                    self.keep_only_ends(bytes, at);
                }
            }
            Keeping::Ends { head, tail } => {
                let to_head = if tail.is_empty() { END_BYTES - head.as_slice().len() } else { 0 };
                let (first, rest) = bytes.split_at(bytes.len().min(to_head));
                // Its buffer has room for as much; only a mark may find none.
                let rest = if head.push(first, at, None).is_ok() { rest } else { bytes };
                append_tail(tail, rest);
            }
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.captured.size
    }

    /// Bytes that are counted and not kept: of a body that the gateway made itself, of a tunnel.
    pub(crate) fn count(&mut self, bytes: u64) {
        self.captured.size += bytes;
        self.keeping = Keeping::Nothing;
    }

    /// The body passed to its end.
    pub(crate) fn complete(&mut self) {
        self.captured.complete = true;
    }

    /// What was kept, with its share of the budget. Nothing more is kept after it.
    pub(crate) fn take(&mut self) -> Captured {
        let kept = match mem::replace(&mut self.keeping, Keeping::Nothing) {
            Keeping::Nothing => Kept::Nothing,
            Keeping::Whole(bytes) if bytes.is_empty() => Kept::Nothing,
            Keeping::Whole(bytes) => Kept::Whole(bytes),
            // Announced, and never sent: the answer to a HEAD.
            Keeping::Ends { .. } | Keeping::Shed if self.captured.size == 0 => Kept::Nothing,
            Keeping::Ends { head, tail } => Kept::Ends { head, tail },
            Keeping::Shed => Kept::Shed,
        };
        let model = self.model.take().filter(|_| matches!(kept, Kept::Ends { .. }));
        let model = model.and_then(|scan| scan.into_model());
        Captured { kept, model, ..mem::take(&mut self.captured) }
    }

    /// Of a body that may become too large, from the moment on when its start alone is longer than what is kept of it.
    fn look_for_model(&mut self, bytes: &[u8]) {
        if let Some(scan) = &mut self.model {
            scan.push(bytes);
            return;
        }
        let before = self.captured.size - bytes.len() as u64;
        let begins = before <= END_BYTES as u64 && self.captured.size > END_BYTES as u64;
        let may_be_too_large = self.expected.is_none_or(|expected| expected as u64 > self.cap.content);
        if !begins || !may_be_too_large {
            return;
        }
        let (Keeping::Whole(kept) | Keeping::Ends { head: kept, .. }) = &self.keeping else { return };
        let mut scan = Box::<ModelScan>::default();
        scan.push(kept.as_slice());
        scan.push(bytes);
        self.model = Some(scan);
    }

    /// Copies the ends out of what was kept and of `more`, and frees the rest.
    fn keep_only_ends(&mut self, more: &[u8], at: Duration) {
        let whole = match mem::replace(&mut self.keeping, Keeping::Shed) {
            Keeping::Whole(whole) => whole,
            other => {
                self.keeping = other;
                return;
            }
        };
        let mut reserved = Reservation::of(&self.budget);
        let capacity = (whole.bytes_of_head(END_BYTES) + 2 * END_BYTES) as u64;
        // The whole body is still held: what it frees is not room yet.
        if !reserved.grow_beyond(capacity, ROOM_FOR_ENDS.saturating_add(whole.reserved_bytes())) {
            return;
        }
        let (head, taken) = whole.head(END_BYTES, more, at, reserved);
        let mut tail = Vec::with_capacity(2 * END_BYTES);
        append_tail(&mut tail, &whole.as_slice()[head.as_slice().len() - taken..]);
        append_tail(&mut tail, &more[taken..]);
        self.keeping = Keeping::Ends { head, tail };
    }
}

/// The codings of a body, in one list: they may stand in several headers.
fn codings(headers: &HeaderMap) -> Option<String> {
    let lists = headers.get_all(header::CONTENT_ENCODING).iter();
    let lists: Vec<_> = lists.map(|list| recorder::text(list.as_bytes(), MAX_ID_BYTES)).collect();
    (!lists.is_empty()).then(|| recorder::text(lists.join(",").as_bytes(), MAX_ID_BYTES))
}

/// Keeps the last [`END_BYTES`] of everything appended, moving bytes only every [`END_BYTES`].
fn append_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(END_BYTES)..];
    if tail.len() + bytes.len() > 2 * END_BYTES {
        let keep = END_BYTES - bytes.len();
        tail.drain(..tail.len().saturating_sub(keep));
    }
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn settings(max_body_bytes: u64, budget: u64) -> CaptureSettings {
        CaptureSettings { enabled: true, max_body_bytes, budget: Budget::new(budget) }
    }

    fn push_all(capture: &mut Capture, total: usize, step: usize) -> Vec<u8> {
        let all: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for chunk in all.chunks(step) {
            capture.push(chunk, Duration::from_millis(1));
        }
        all
    }

    fn stream(settings: &CaptureSettings) -> Capture {
        let mut capture = Capture::new(settings);
        let event_stream = HeaderValue::from_static("text/event-stream");
        capture.describe_answer(&HeaderMap::from_iter([(header::CONTENT_TYPE, event_stream)]));
        capture
    }

    #[test]
    fn a_small_body_is_kept_whole() {
        let settings = settings(1000, 10_000);
        let mut capture = Capture::new(&settings);
        let all = push_all(&mut capture, 1000, 7);
        capture.complete();
        assert!(settings.budget.used() >= 1000);
        let captured = capture.take();
        assert_eq!((captured.size, captured.complete), (1000, true));
        let Kept::Whole(bytes) = &captured.kept else { panic!("{:?}", captured.kept) };
        assert_eq!(bytes.as_slice(), all);
        drop(captured);
        assert_eq!(settings.budget.used(), 0);
    }

    #[test]
    fn of_a_large_body_both_ends_are_kept_and_little_more() {
        for (total, step) in [(100_000, 1), (500_000, 4096), (500_000, 100_000), (40_000, 40_000)] {
            let settings = settings(20_000, 1_000_000);
            let mut capture = Capture::new(&settings);
            let all = push_all(&mut capture, total, step);
            assert!(settings.budget.used() <= 6 * END_BYTES as u64, "{total} by {step}");
            let captured = capture.take();
            assert_eq!(captured.size, total as u64);
            let Kept::Ends { head, tail } = &captured.kept else { panic!("kept whole: {total} by {step}") };
            assert_eq!(head.as_slice(), &all[..END_BYTES], "{total} by {step}");
            assert!(tail.len() <= 2 * END_BYTES && tail.len() >= END_BYTES.min(total - END_BYTES));
            assert_eq!(tail[..], all[total - tail.len()..], "{total} by {step}");
            drop(captured);
            assert_eq!(settings.budget.used(), 0, "{total} by {step}");
        }
    }

    #[test]
    fn over_the_budget_of_all_requests_the_copy_is_shed() {
        let settings = settings(4000, 5000);
        let mut first = Capture::new(&settings);
        push_all(&mut first, 4000, 100);
        let mut second = Capture::new(&settings);
        push_all(&mut second, 4000, 100);
        assert!(matches!(second.take().kept, Kept::Ends { .. }));
        assert!(settings.budget.used() <= 5000);
        assert!(matches!(first.take().kept, Kept::Whole(_)));
    }

    #[test]
    fn the_ends_of_very_many_bodies_are_bounded_too() {
        let settings = settings(1000, 5000);
        let mut captures: Vec<_> = (0..1000).map(|_| Capture::new(&settings)).collect();
        captures.iter_mut().for_each(|capture| drop(push_all(capture, 2000, 2000)));
        assert!(settings.budget.used() <= 5000 + ROOM_FOR_ENDS);
        let kept: Vec<_> = captures.iter_mut().map(|capture| capture.take().kept).collect();
        assert!(matches!(kept[0], Kept::Ends { .. }) && matches!(kept[999], Kept::Shed));
    }

    #[test]
    fn of_a_stream_the_content_counts_and_not_the_framing() {
        let event = format!("data: {{{}}}\n\n", "x".repeat(320));
        for (events, text, is_whole) in [(1000, &event, true), (1, &"x".repeat(30_000), false)] {
            let settings = settings(100_000, 10_000_000);
            let mut capture = stream(&settings);
            (0..4 * events).for_each(|_| capture.push(text.as_bytes(), Duration::ZERO));
            assert_eq!(matches!(capture.take().kept, Kept::Whole(_)), is_whole, "{events} events");
        }
        let settings = settings(100_000, 10_000_000);
        let mut capture = stream(&settings);
        let most = 100_000 * STREAM_FACTOR;
        capture.push(&vec![b'\n'; most], Duration::ZERO);
        assert!(matches!(capture.keeping, Keeping::Whole(_)));
        capture.push(b"\n", Duration::ZERO);
        assert!(matches!(capture.keeping, Keeping::Ends { .. }), "framing has a bound as well");
    }

    #[test]
    fn a_stream_that_is_not_said_to_be_one_is_kept_as_one() {
        for (content_type, first, is_timed) in [
            ("application/json", "data: {}\n\n", true),
            ("text/plain", ": ping\n\n", true),
            ("application/json", "{\"data\": 1}", false),
        ] {
            let settings = settings(500, 10_000_000);
            let mut capture = Capture::new(&settings);
            let content_type = HeaderValue::from_static(content_type);
            capture.describe_answer(&HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]));
            (0..100).for_each(|at| capture.push(first.as_bytes(), Duration::from_millis(at)));
            let Kept::Whole(bytes) = capture.take().kept else {
                assert!(!is_timed, "framing counted as content");
                continue;
            };
            assert_eq!((bytes.is_timed(), bytes.pieces().count()), (is_timed, 100), "{first}");
        }
    }

    #[test]
    fn the_model_of_a_large_body_is_known_wherever_it_stands() {
        let filling = |bytes: usize| format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
        let body = format!(
            r#"{{"a":{},"model":"m","b":{},"c":{}}}"#,
            filling(30_000),
            filling(30_000),
            filling(90_000)
        );
        for expected in [None, Some(body.len())] {
            for (cap, step, is_known) in
                [(50_000, 1000, true), (50_000, 150_000, true), (200_000, 1000, false)]
            {
                let mut capture = Capture::new(&settings(cap, 1 << 30));
                let length = expected.map(|length| (header::CONTENT_LENGTH, HeaderValue::from(length)));
                capture.describe(&HeaderMap::from_iter(length));
                body.as_bytes().chunks(step).for_each(|bytes| capture.push(bytes, Duration::ZERO));
                let model = capture.take().model;
                assert_eq!(model.as_deref(), is_known.then_some("\"m\""), "{expected:?}, {cap} by {step}");
            }
        }
    }

    #[test]
    fn a_request_in_15_000_chunks_of_a_byte_costs_little_more_than_its_bytes() {
        let settings = settings(1 << 20, 1 << 30);
        let mut capture = Capture::new(&settings);
        (0..15_000).for_each(|chunk| capture.push(b"x", Duration::from_millis(chunk)));
        assert!(settings.budget.used() < 40_000, "{}", settings.budget.used());
    }

    #[test]
    fn of_an_answer_that_is_announced_as_too_large_only_the_ends_are_ever_held() {
        let settings = settings(1 << 20, 1 << 30);
        let mut capture = Capture::new(&settings);
        capture
            .describe_answer(&HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(2 << 20))]));
        let all = push_all(&mut capture, 1 << 19, 10_000);
        assert!(settings.budget.used() <= 4 * END_BYTES as u64);
        let Kept::Ends { head, tail } = capture.take().kept else { panic!() };
        assert_eq!(head.as_slice(), &all[..END_BYTES]);
        assert!(tail.len() >= END_BYTES && all.ends_with(&tail));
        let mut never_sent = Capture::new(&settings);
        never_sent
            .describe_answer(&HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(2 << 20))]));
        assert!(matches!(never_sent.take().kept, Kept::Nothing));
    }

    #[test]
    fn switched_off_it_only_counts() {
        let mut capture = Capture::new(&CaptureSettings { enabled: false, ..settings(1, 1) });
        capture.describe_answer(&HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(100))]));
        push_all(&mut capture, 100, 10);
        let captured = capture.take();
        assert_eq!(captured.size, 100);
        assert!(captured.first_byte.is_some() && matches!(captured.kept, Kept::Nothing));
    }
}
