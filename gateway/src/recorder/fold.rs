//! Folding a stream: many events into the one answer that they tell.
//!
//! The folded answer is kept in two parts, the fields and every chunk as it came (`streamed_data`), so that the second
//! can be shed without reading the first again.

use std::{borrow::Cow, cell::OnceCell, time::Duration};

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
    /// The data without numbers that JSON does not have, when it has such.
    finite: OnceCell<Box<str>>,
    /// The data without repeated keys, when it has such.
    unique: OnceCell<Box<str>>,
}

/// What one event brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Something that the model made: text, reasoning, a refusal, a call, audio. A role alone, or empty text, is none.
    pub(crate) content: bool,
    /// It says that something failed, whatever it is called.
    pub(crate) error: bool,
    /// An object had the same key twice, and both values were taken.
    pub(crate) repeats: bool,
}

/// Takes the events of one stream, in order, and tells the answer. One per API and stream.
pub(crate) trait Fold<'e> {
    /// Takes the next event's data. An error means that it is no JSON object, and that nothing of it was taken.
    fn take(&mut self, data: &'e str) -> Result<Seen, serde_json::Error>;

    /// `[DONE]` came.
    fn done(&mut self);

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
    /// Of its choices, in their order: why each ended, as JSON.
    pub(crate) finish_reasons: Vec<&'e str>,
    /// Everything that the model makes has come; a closing event may not have.
    pub(crate) finished: bool,
    /// The event came that closes such a stream.
    pub(crate) closed: bool,
    /// It has a form whose end is known, and the end is not among what came.
    pub(crate) is_open: bool,
}

/// A whole stream, folded.
#[derive(Debug, Default)]
pub(crate) struct Folded<'e> {
    /// The answer.
    pub(crate) answer: Answer<'e>,
    /// When the first content passed.
    pub(crate) first_content: Option<Duration>,
    /// Data of the first event that is an error, by its name or by what it says.
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
            let (finite, unique) = Default::default();
            chunks.push(Chunk { name: event.name.map(decode), data: decode(event.data), at, finite, unique });
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

impl<'a> Chunk<'a> {
    /// Gives its data to `fold`, and says what of it is kept. `unique`: without repeated keys.
    ///
    /// A `NaN` is no JSON, and no back end takes it; but SDKs in Python read it, and show what stands around it.
    fn take_into(
        &'a self,
        fold: &mut dyn Fold<'a>,
        unique: bool,
    ) -> Result<(Seen, &'a str), serde_json::Error> {
        let mut take = |data: &'a str| {
            let text = if unique { self.unique(data) } else { data };
            fold.take(text).map(|seen| (seen, data))
        };
        take(&self.data).or_else(|error| take(self.finite().ok_or(error)?))
    }

    fn unique(&'a self, data: &'a str) -> &'a str {
        json::unique_keys(data).map_or(data, |text| self.unique.get_or_init(|| text.into()))
    }

    fn finite(&'a self) -> Option<&'a str> {
        let text = self.finite.get_or_init(|| json::finite(&self.data).unwrap_or_default().into());
        (!text.is_empty()).then_some(text)
    }
}

/// Folds chunks; `new` is a fold at its start.
pub(crate) fn fold<'e>(chunks: &'e [Chunk<'e>], new: impl Fn() -> Box<dyn Fold<'e> + 'e>) -> Folded<'e> {
    // Repeated keys are looked for only where one was met: it is too late for that chunk then, so all are read again.
    fold_all(chunks, new(), false).or_else(|| fold_all(chunks, new(), true)).unwrap_or_default()
}

/// `None` when a chunk repeats a key, and that was not looked for.
fn fold_all<'e>(
    chunks: &'e [Chunk<'e>],
    mut fold: Box<dyn Fold<'e> + 'e>,
    unique: bool,
) -> Option<Folded<'e>> {
    let mut folded = Folded { chunks: Vec::with_capacity(chunks.len()), ..Folded::default() };
    let mut first_content = None;
    for chunk in chunks {
        let data = chunk.data.as_ref();
        let is_named_error = chunk.name.as_deref() == Some("error");
        match data.trim() {
            "[DONE]" => {
                fold.done();
                continue;
            }
            "" if !is_named_error => continue,
            _ => {}
        }
        let read = chunk.take_into(&mut *fold, unique);
        let seen = read.as_ref().map(|(seen, _)| *seen).unwrap_or_default();
        if seen.repeats && !unique {
            return None;
        }
        if folded.error.is_none() && (is_named_error || seen.error) {
            folded.error = Some(data);
        }
        if seen.content && first_content.is_none() {
            first_content = Some(chunk.at);
        }
        match read {
            Ok((_, kept)) => {
                folded.chunks.push(kept);
                folded.times.push(chunk.at);
            }
            Err(_) => folded.malformed += 1,
        }
    }
    folded.first_content = first_content.flatten();
    folded.answer = fold.finish();
    Some(folded)
}

/// Whether this field of an event says that something failed. Servers send such events with and without a name.
pub(crate) fn is_error(key: &str, raw: &str) -> bool {
    match key {
        "error" => !json::is_nothing(raw),
        "object" | "type" => raw == "\"error\"",
        _ => false,
    }
}

impl Folded<'_> {
    /// Nothing could be folded: what came is all there is to keep.
    pub(crate) fn is_verbatim(&self) -> bool {
        self.answer.head.len() <= 1
    }

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
    done: bool,
}

impl<'e> Fold<'e> for Verbatim<'e> {
    fn take(&mut self, data: &'e str) -> Result<Seen, serde_json::Error> {
        let (mut known, mut error) = (Fields::default(), false);
        json::each_field(data, |key, raw| {
            error |= is_error(&key, raw);
            if raw != "null" && matches!(key.as_ref(), "model" | "usage" | "error") {
                known.push(key, Cow::Borrowed(raw));
            }
        })?;
        self.fields.extend(known);
        Ok(Seen { error, ..Seen::default() })
    }

    fn done(&mut self) {
        self.done = true;
    }

    fn finish(self: Box<Self>) -> Answer<'e> {
        Answer { head: "{".to_owned(), fields: self.fields, closed: self.done, ..Answer::default() }
    }
}
