//! Folding a stream: many events into the one answer that they tell.
//!
//! The folded answer is kept in two parts, the fields and every chunk as it came (`streamed_data`), so that the second
//! can be shed without reading the first again.

use std::{borrow::Cow, time::Duration};

use super::{
    chunk_times,
    json::{self, Fields},
    sse::{Event, Splitter},
};

/// Lines are counted once for so many bytes; an event that lies in two such parts is copied.
const BYTES_PER_LOOK: usize = 64 << 10;

/// One event's data as text, with the time at which its last byte passed, where that is known.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    name: Option<Cow<'a, str>>,
    data: Cow<'a, str>,
    at: Option<Duration>,
}

/// What one event brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Something that the model made: text, reasoning, a refusal, a call, audio. A role alone, or empty text, is none.
    pub(crate) content: bool,
}

/// Takes the events of one stream, in order, and tells the answer. One per API and stream.
pub(crate) trait Fold<'e> {
    /// Takes the next event's data. An error means that it is no JSON object, and that nothing of it was taken.
    fn take(&mut self, data: &'e str) -> Result<Seen, serde_json::Error>;

    /// The answer, as far as it came.
    fn finish(self: Box<Self>) -> Answer<'e>;
}

/// What a fold makes of its events.
#[derive(Debug, Default)]
pub(crate) struct Answer<'e> {
    /// The answer's JSON object without its closing brace.
    pub(crate) head: String,
    /// Its fields, for reading model and usage.
    pub(crate) fields: Fields<'e>,
    /// Everything that the model makes has come; a closing event may not have.
    pub(crate) finished: bool,
    /// The event came that closes such a stream.
    pub(crate) closed: bool,
}

/// A whole stream, folded.
#[derive(Debug)]
pub(crate) struct Folded<'e> {
    /// The answer.
    pub(crate) answer: Answer<'e>,
    /// When the first content passed.
    pub(crate) first_content: Option<Duration>,
    /// Data of the first event that was named `error`.
    pub(crate) error: Option<&'e str>,
    /// Events that are no JSON objects: neither folded nor kept in `streamed_data`, where a backend that indexes objects
    /// would refuse them, and the whole record with them.
    pub(crate) malformed: usize,
    chunks: Vec<&'e str>,
    /// When each of these passed, where that is known.
    times: Vec<Option<Duration>>,
}

/// Splits the pieces of a body into chunks, and stops soon after `most_lines`. True: there were no more.
pub(crate) fn split<'a>(
    splitter: &mut Splitter,
    pieces: impl Iterator<Item = (&'a [u8], Option<Duration>)>,
    most_lines: usize,
) -> (Vec<Chunk<'a>>, bool) {
    let mut chunks = Vec::with_capacity(64);
    let parts = pieces.flat_map(|(piece, at)| piece.chunks(BYTES_PER_LOOK).map(move |part| (part, at)));
    for (part, at) in parts {
        splitter.push(part, |event: Event<'a>| {
            chunks.push(Chunk { name: event.name.map(decode), data: decode(event.data), at });
        });
        if splitter.lines() > most_lines {
            return (chunks, false);
        }
    }
    (chunks, true)
}

/// UTF-8, with what is not replaced, as the specification of server-sent events wants it.
fn decode(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        // `from_utf8_lossy` alone is several times slower where nothing is to be replaced.
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(bytes),
        },
        Cow::Owned(bytes) => Cow::Owned(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
    }
}

/// Folds chunks.
pub(crate) fn fold<'e>(chunks: &'e [Chunk<'e>], mut fold: Box<dyn Fold<'e> + 'e>) -> Folded<'e> {
    let mut kept = Vec::with_capacity(chunks.len());
    let mut times = Vec::with_capacity(chunks.len());
    let (mut first_content, mut error, mut closed, mut malformed) = (None, None, false, 0);
    for chunk in chunks {
        let data = chunk.data.as_ref();
        if data.trim() == "[DONE]" {
            closed = true;
            continue;
        }
        if error.is_none() && chunk.name.as_deref() == Some("error") {
            error = Some(data);
        }
        match fold.take(data) {
            Ok(seen) => {
                kept.push(data);
                times.push(chunk.at);
                if seen.content && first_content.is_none() {
                    first_content = Some(chunk.at);
                }
            }
            Err(_) => malformed += 1,
        }
    }
    let first_content = first_content.flatten();
    let mut answer = fold.finish();
    answer.closed |= closed;
    Folded { answer, first_content, error, malformed, chunks: kept, times }
}

impl Folded<'_> {
    /// When the chunks passed, as JSON; `None` when that is not known of each.
    pub(crate) fn times(&self) -> Option<String> {
        self.times.iter().copied().collect::<Option<Vec<_>>>().map(chunk_times::json)
    }

    /// How large [`Self::write`] will be without `streamed_data`, and with it and its times.
    pub(crate) fn sizes(&self, times: Option<&str>) -> [usize; 2] {
        let answer = self.answer.head.len() + 1;
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.len() + 1).sum();
        [answer, answer + chunks + 20 + times.map_or(0, |times| times.len() + 20)]
    }

    /// The answer as one JSON object of one line, with `streamed_data` and its times as its last fields where they are
    /// wanted, and the length of what stands before these fields.
    pub(crate) fn write(self, streamed_data: bool, times: Option<&str>) -> (Vec<u8>, usize) {
        let mut json = self.answer.head.into_bytes();
        let head = json.len();
        if streamed_data {
            let size: usize = self.chunks.iter().map(|chunk| chunk.len() + 1).sum();
            json.reserve_exact(size + 20 + times.map_or(0, |times| times.len() + 20));
            json.extend_from_slice(if head > 1 { b",\"streamed_data\":[" } else { b"\"streamed_data\":[" });
            for (index, chunk) in self.chunks.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                json.extend_from_slice(chunk.as_bytes());
            }
            json.push(b']');
            if let Some(times) = times {
                json.extend_from_slice(b",\"streamed_data_ms\":");
                json.extend_from_slice(times.as_bytes());
            }
        }
        json.push(b'}');
        json::flatten(&mut json);
        (json, head)
    }
}

/// For streams of no known form: nothing is folded, what names model and usage is read, the chunks are kept.
#[derive(Debug, Default)]
pub(crate) struct Verbatim<'e> {
    fields: Fields<'e>,
}

impl<'e> Fold<'e> for Verbatim<'e> {
    fn take(&mut self, data: &'e str) -> Result<Seen, serde_json::Error> {
        let mut known = Fields::default();
        json::each_field(data, |key, raw| {
            if raw != "null" && matches!(key.as_ref(), "model" | "usage" | "error") {
                known.push(key, Cow::Borrowed(raw));
            }
        })?;
        self.fields.extend(known);
        Ok(Seen::default())
    }

    fn finish(self: Box<Self>) -> Answer<'e> {
        Answer { head: "{".to_owned(), fields: self.fields, ..Answer::default() }
    }
}
