//! Server-sent events, split out of a stream of bytes that may be cut anywhere.
//!
//! Follows the WHATWG specification: a byte order mark, lines ending in LF, CR or CRLF, comments, `data` over several
//! lines, `event`. `id` and `retry` concern reconnecting clients and are passed over. An event ends at a blank line;
//! one that the stream breaks off in is none, here as in every client.

use std::{borrow::Cow, mem};

/// UTF-8's byte order mark, which some servers begin a body with.
pub(crate) const MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event. Borrowed from the piece it came in, unless it was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The `event` field; absent means `message`.
    pub(crate) name: Option<Cow<'a, [u8]>>,
    /// The `data` lines, joined with a line feed.
    pub(crate) data: Cow<'a, [u8]>,
}

/// Splits pieces into events. Holds at most about twice its limit, and only of an event that is not whole yet.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// Bytes that one event's data, or one line, may have. A larger event is left out and counted.
    limit: usize,
    /// A line whose end has not come.
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    first_line: bool,
    after_cr: bool,
    oversize: bool,
    lost: usize,
    lines: usize,
}

/// The event that is being read, as far as it lies in the piece at hand.
#[derive(Default)]
struct Pending<'a> {
    data: Option<Cow<'a, [u8]>>,
    name: Option<Cow<'a, [u8]>>,
}

impl Splitter {
    /// A splitter at the start of a stream.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: None,
            name: None,
            first_line: true,
            after_cr: false,
            oversize: false,
            lost: 0,
            lines: 0,
        }
    }

    /// A splitter inside a stream: all up to the first blank line belongs to an event whose start is not known, and
    /// is left out.
    pub(crate) fn midway(limit: usize) -> Self {
        Self { first_line: false, oversize: true, line: vec![b'?'], ..Self::new(limit) }
    }

    /// Number of events that were over the limit.
    pub(crate) fn lost(&self) -> usize {
        self.lost
    }

    /// Number of lines that have ended.
    pub(crate) fn lines(&self) -> usize {
        self.lines
    }

    /// Takes the next piece, and calls `emit` with each event that it completes.
    pub(crate) fn push<'a>(&mut self, piece: &'a [u8], mut emit: impl FnMut(Event<'a>)) {
        let mut pending =
            Pending { data: self.data.take().map(Cow::Owned), name: self.name.take().map(Cow::Owned) };
        let mut rest = piece;
        if mem::take(&mut self.after_cr) {
            match rest.first() {
                Some(b'\n') => rest = &rest[1..],
                Some(_) => {}
                None => self.after_cr = true,
            }
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let line = &rest[..end];
            let ending = match (rest[end], rest.get(end + 1)) {
                (b'\r', Some(b'\n')) => 2,
                (b'\r', None) => {
                    self.after_cr = true;
                    1
                }
                _ => 1,
            };
            rest = &rest[end + ending..];
            self.lines += 1;
            if self.line.is_empty() {
                self.line(Cow::Borrowed(line), &mut pending, &mut emit);
            } else {
                self.extend_line(line);
                let line = mem::take(&mut self.line);
                self.line(Cow::Owned(line), &mut pending, &mut emit);
            }
        }
        self.extend_line(rest);
        self.data = pending.data.map(Cow::into_owned);
        self.name = pending.name.map(Cow::into_owned);
    }

    /// Keeps one byte more than the limit, so that a line that is too long still looks so when it ends.
    fn extend_line(&mut self, more: &[u8]) {
        let room = (self.limit + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&more[..more.len().min(room)]);
    }

    fn line<'a>(
        &mut self,
        mut line: Cow<'a, [u8]>,
        pending: &mut Pending<'a>,
        emit: &mut impl FnMut(Event<'a>),
    ) {
        if mem::take(&mut self.first_line) && line.starts_with(MARK) {
            line = skip(line, MARK.len());
        }
        if line.len() > self.limit {
            self.oversize = true;
        } else if line.is_empty() {
            self.dispatch(pending, emit);
        } else if let Some(data) = value(&line, b"data") {
            self.append(&mut pending.data, skip(line, data));
        } else if let Some(name) = value(&line, b"event") {
            pending.name = Some(skip(line, name));
        }
    }

    fn append<'a>(&mut self, data: &mut Option<Cow<'a, [u8]>>, line: Cow<'a, [u8]>) {
        let size = data.as_ref().map_or(0, |data| data.len() + 1) + line.len();
        if size > self.limit {
            self.oversize = true;
            return;
        }
        match data {
            None => *data = Some(line),
            Some(data) => {
                let data = data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(&line);
            }
        }
    }

    fn dispatch<'a>(&mut self, pending: &mut Pending<'a>, emit: &mut impl FnMut(Event<'a>)) {
        let Pending { data, name } = mem::take(pending);
        if mem::take(&mut self.oversize) {
            self.lost += 1;
        } else if let Some(data) = data {
            emit(Event { name: name.filter(|name| !name.is_empty()), data });
        }
    }
}

/// Whether a body, of which these are the first bytes, is a stream of events and neither JSON nor prose.
pub(crate) fn begins_like_events(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let start = text.iter().position(|byte| !matches!(byte, b'\n' | b'\r')).unwrap_or(text.len());
    let starts: [&[u8]; 5] = [b"data:", b"event:", b":", b"id:", b"retry:"];
    starts.iter().any(|field| text[start..].starts_with(field))
}

/// Where the value of field `name` begins in `line`, when the line is that field.
fn value(line: &[u8], name: &[u8]) -> Option<usize> {
    let rest = line.strip_prefix(name)?;
    match rest {
        [] => Some(line.len()),
        [b':', b' ', ..] => Some(name.len() + 2),
        [b':', ..] => Some(name.len() + 1),
        _ => None,
    }
}

fn skip(bytes: Cow<'_, [u8]>, count: usize) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[count..]),
        Cow::Owned(mut bytes) => {
            bytes.drain(..count);
            Cow::Owned(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMY: usize = 1 << 20;

    fn split(pieces: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let mut splitter = Splitter::new(ROOMY);
        let mut events = Vec::new();
        for piece in pieces {
            splitter.push(piece, |event| events.push(owned(&event)));
        }
        assert_eq!(splitter.lost(), 0);
        events
    }

    fn owned(event: &Event<'_>) -> (Option<String>, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (event.name.as_deref().map(text), text(&event.data))
    }

    fn check(stream: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, data)| ((!name.is_empty()).then(|| (*name).to_owned()), (*data).to_owned()))
            .collect();
        let bytes = stream.as_bytes();
        assert_eq!(split(&[bytes]), expected, "whole: {stream:?}");
        for cut in 0..=bytes.len() {
            assert_eq!(split(&[&bytes[..cut], &bytes[cut..]]), expected, "cut at {cut}: {stream:?}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(split(&single), expected, "byte by byte: {stream:?}");
    }

    #[test]
    fn events_are_split_as_the_specification_says_wherever_they_are_cut() {
        check("data: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]);
        check("data: a\r\n\r\ndata: b\r\n\r\n", &[("", "a"), ("", "b")]);
        check("data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]);
        check("data: a\n\r\ndata: b\r\n\n", &[("", "a"), ("", "b")]);
        check("\u{FEFF}data: a\n\n", &[("", "a")]);
        check("\n\u{FEFF}data: a\n\n", &[]);
        check(": comment\ndata: a\n: another\n\n:\n\n", &[("", "a")]);
        check("data: one\ndata: two\ndata\ndata:four\n\n", &[("", "one\ntwo\n\nfour")]);
        check("event: ping\ndata: {}\n\nevent: lost\n\ndata: x\n\n", &[("ping", "{}"), ("", "x")]);
        check("event: a\nevent: b\ndata: x\n\n", &[("b", "x")]);
        check("event:\ndata:  two spaces\n\n", &[("", " two spaces")]);
        check("data:\n\n", &[("", "")]);
        check("id: 7\nretry: 10\ndatas: no\ndata : no\nother\n\n", &[]);
        check("data: grüße 👋 日本\n\n", &[("", "grüße 👋 日本")]);
        check("data: whole\n\ndata: broken off\n", &[("", "whole")]);
    }

    #[test]
    fn an_event_that_was_not_cut_is_not_copied() {
        let stream = b"event: e\ndata: a\n\n".as_slice();
        Splitter::new(ROOMY).push(stream, |event| {
            assert!(matches!(event.data, Cow::Borrowed(_)) && matches!(event.name, Some(Cow::Borrowed(_))));
        });
    }

    #[test]
    fn an_event_over_the_limit_is_left_out_and_its_neighbours_are_not() {
        let stream =
            format!("data: a\n\ndata: {}\n\ndata: b\n\ndata: {}\n", "x".repeat(50), "y\ndata: ".repeat(20));
        let stream = format!("{stream}\n: {}\ndata: c\n\ndata: d\n\n", "z".repeat(50));
        for size in 1..stream.len() {
            let mut splitter = Splitter::new(32);
            let mut events = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                splitter.push(piece, |event| events.push(owned(&event).1));
                assert!(
                    splitter.line.len() <= 64 && splitter.data.as_ref().is_none_or(|data| data.len() <= 64)
                );
            }
            assert_eq!(events, ["a", "b", "d"], "pieces of {size}");
            assert_eq!(splitter.lost(), 3, "pieces of {size}");
        }
    }

    #[test]
    fn a_splitter_midway_begins_with_the_first_whole_event() {
        for (tail, expected) in [
            ("rest of a line\n\ndata: a\n\n", vec!["a"]),
            ("\n\ndata: a\n\n", vec!["a"]),
            ("data: looks whole\n\ndata: a\n\n", vec!["a"]),
            ("no end in sight", vec![]),
        ] {
            let mut events = Vec::new();
            Splitter::midway(ROOMY).push(tail.as_bytes(), |event| events.push(owned(&event).1));
            assert_eq!(events, expected, "{tail}");
        }
    }

    #[test]
    fn a_stream_begins_with_a_field_or_a_comment() {
        for stream in
            ["data: {}", "data:{}", "event: e\n", ": ping", "id: 1\n", "\u{FEFF}\r\n\ndata:", "retry:9"]
        {
            assert!(begins_like_events(stream.as_bytes()), "{stream}");
        }
        for other in ["", "{\"data\":1}", "[", "data", "database: no", " data: x", "\n{}", "\u{FEFF}{}"] {
            assert!(!begins_like_events(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anyhow_give_the_same_events(
            stream in proptest::collection::vec(
                prop_oneof![
                    Just(b"data: ".to_vec()), Just(b"data".to_vec()), Just(b"\n".to_vec()), Just(b"\r".to_vec()),
                    Just(b"\r\n".to_vec()), Just(b"event: e".to_vec()), Just(b":".to_vec()), Just(vec![0xEF, 0xBB, 0xBF]),
                    Just("ü".as_bytes().to_vec()), any::<u8>().prop_map(|byte| vec![byte]),
                ],
                0..60,
            ),
            sizes in proptest::collection::vec(1_usize..9, 1..9),
        ) {
            let stream = stream.concat();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = stream.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                pieces.push(b"");
                rest = after;
            }
            prop_assert_eq!(split(&pieces), split(&[&stream]));
            prop_assert_eq!(split(&[&stream]), by_the_book(&stream));
        }
    }

    /// The specification again, over the whole text at once and without care for speed.
    fn by_the_book(stream: &[u8]) -> Vec<(Option<String>, String)> {
        let stream = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
        let (mut events, mut data, mut name) = (Vec::new(), Vec::new(), Vec::new());
        let (mut line, mut at) = (Vec::new(), 0);
        while at < stream.len() {
            let byte = stream[at];
            at += 1;
            if byte != b'\n' && byte != b'\r' {
                line.push(byte);
                continue;
            }
            if byte == b'\r' && stream.get(at) == Some(&b'\n') {
                at += 1;
            }
            let line = mem::take(&mut line);
            if line.is_empty() {
                let (data, name) = (mem::take(&mut data), mem::take(&mut name));
                if let Some(data) = data.strip_suffix(b"\n".as_slice()) {
                    let name = (!name.is_empty()).then_some(Cow::Borrowed(name.as_slice()));
                    events.push(owned(&Event { name, data: Cow::Borrowed(data) }));
                }
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &line[..colon] {
                b"data" => data.extend(value.iter().chain(b"\n").copied()),
                b"event" => name = value.to_vec(),
                _ => {}
            }
        }
        events
    }
}
