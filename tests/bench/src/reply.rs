//! Reads one HTTP/1.1 answer, however its bytes are cut, and keeps none of it.

use std::fmt;

/// An answer being read.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    state: State,
    /// The part of a head or of a chunk's size line that has come so far.
    line: Vec<u8>,
    /// Bytes of the body.
    pub(crate) body: u64,
    /// Line ends in it.
    pub(crate) lines: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So many bytes are missing.
    Length(u64),
    ChunkSize,
    /// So many bytes are missing, and then an empty line.
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Done,
}

/// What is wrong with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Not 200.
    Status(String),
    /// Not an answer that this reader understands.
    Malformed,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(line) => write!(formatter, "the answer was '{line}'"),
            Self::Malformed => formatter.write_str("the answer is not HTTP/1.1 with a length or chunks"),
        }
    }
}

impl std::error::Error for Broken {}

impl Reply {
    /// Takes the next bytes; true once the answer is whole.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, Broken> {
        while !bytes.is_empty() && self.state != State::Done {
            bytes = match self.state {
                State::Head => self.head(bytes)?,
                State::Length(missing) => self.data(bytes, missing, State::Length, State::Done),
                State::Chunk(missing) => self.data(bytes, missing, State::Chunk, State::ChunkEnd),
                State::ChunkSize | State::ChunkEnd | State::Trailer => self.line(bytes)?,
                State::Done => bytes,
            };
        }
        Ok(self.state == State::Done)
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        // The end may straddle two reads.
        let from = self.line.len().saturating_sub(3);
        let before = self.line.len();
        self.line.extend_from_slice(bytes);
        let Some(at) = memchr::memmem::find(&self.line[from..], b"\r\n\r\n") else { return Ok(&[]) };
        let end = from + at + 4;
        self.state = body_of(&self.line[..end])?;
        self.line.clear();
        Ok(&bytes[end - before..])
    }

    fn data<'a>(&mut self, bytes: &'a [u8], missing: u64, more: fn(u64) -> State, then: State) -> &'a [u8] {
        let taken = missing.min(bytes.len() as u64);
        self.body += taken;
        self.lines += memchr::memchr_iter(b'\n', &bytes[..taken as usize]).count() as u64;
        self.state = if taken == missing { then } else { more(missing - taken) };
        &bytes[taken as usize..]
    }

    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            return Ok(&[]);
        };
        self.line.extend_from_slice(&bytes[..end]);
        let line = self.line.trim_ascii();
        self.state = match self.state {
            State::ChunkSize => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                match number(digits, 16).ok_or(Broken::Malformed)? {
                    0 => State::Trailer,
                    size => State::Chunk(size),
                }
            }
            State::Trailer if line.is_empty() => State::Done,
            State::Trailer => State::Trailer,
            _ => State::ChunkSize,
        };
        self.line.clear();
        Ok(&bytes[end + 1..])
    }
}

/// How the body after this head is delimited.
fn body_of(head: &[u8]) -> Result<State, Broken> {
    let head = std::str::from_utf8(head).map_err(|_| Broken::Malformed)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(Broken::Status(status.to_owned()));
    }
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            return match number(value.as_bytes(), 10).ok_or(Broken::Malformed)? {
                0 => Ok(State::Done),
                length => Ok(State::Length(length)),
            };
        }
        if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            return Ok(State::ChunkSize);
        }
    }
    Err(Broken::Malformed)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?.trim(), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na\n\r\nA;x=y\r\n0123456\n\n9\r\n0\r\nt: u\r\n\r\n";

    #[test]
    fn an_answer_is_whole_however_it_is_cut() {
        for (answer, body, lines) in [(PLAIN, 5, 0), (CHUNKED, 12, 3)] {
            for size in 1..=answer.len() {
                let mut reply = Reply::default();
                let pieces: Vec<&[u8]> = answer.chunks(size).collect();
                let (last, others) = pieces.split_last().expect("pieces");
                for piece in others {
                    assert_eq!(reply.feed(piece), Ok(false), "{size}");
                }
                assert_eq!(reply.feed(last), Ok(true), "{size}");
                assert_eq!((reply.body, reply.lines), (body, lines));
            }
        }
    }

    #[test]
    fn what_is_not_a_good_answer_is_refused() {
        let feed = |answer: &[u8]| Reply::default().feed(answer);
        let refused = Err(Broken::Status("HTTP/1.1 502 Bad Gateway".to_owned()));
        assert_eq!(feed(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"), refused);
        assert_eq!(feed(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Broken::Malformed));
        assert_eq!(
            feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"),
            Err(Broken::Malformed)
        );
    }
}
