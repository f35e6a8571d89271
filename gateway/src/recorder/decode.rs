//! Content codings taken off a copy of a body: pure functions of bytes, bounded in what they make, hold and cost.
//!
//! What a client or a provider sends can be made to cost far more than it weighs: few bytes that stand for very many,
//! a window of a gigabyte, members or blocks without content. So a body has a budget, and what goes over it is given
//! up. Memory follows what is decoded: apart from that there are the decoder's own tables, and a window that is never
//! much larger than the output may become.

use std::{iter::Peekable, time::Duration};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

/// Output may be this many times as large as the input, where it is larger than [`SMALL`]. JSON and event streams
/// shrink to a fourth to a thirtieth.
const MAX_RATIO: usize = 100;
/// As much output as this is never too much.
const SMALL: usize = 256 << 10;
/// What decoding may cost, however small the body is.
const TIME: Duration = Duration::from_millis(20);
/// And for each byte of it: honest bodies take a tenth of this.
const TIME_PER_BYTE: Duration = Duration::from_nanos(50);
/// Codings of one body, one around the other.
const CODINGS: usize = 4;
/// 8 MiB: as large as a window of zstd may be on the web (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// Members of a gzip body, frames of a zstd body: one, or one for each block of those programs that compress in parallel.
const MEMBERS: usize = 16;
/// And one more for so many bytes.
const BYTES_PER_MEMBER: usize = 1 << 10;

/// Input is taken and output is made in steps of at most this, so that no step costs much.
const STEP_IN: usize = 1 << 10;
const STEP_OUT: usize = 16 << 10;
/// The clock is read once for so many bytes of input and output.
const BYTES_PER_LOOK: usize = 32 << 10;

/// A coding that can be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// What decoding one body may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of output.
    pub(super) bytes: usize,
    /// Members of a gzip body, or frames of a zstd body.
    pub(super) members: usize,
    /// Time of the processor.
    pub(super) time: Duration,
}

/// Decoded bytes, and where in them each piece ends.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<(usize, Duration)>,
    /// A limit was reached: this is only the beginning.
    pub(super) over: bool,
}

/// The bytes are not of the coding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

impl Coding {
    /// The coding of that name, in lower case.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

impl Limits {
    /// For a body of `length` bytes, where no body may decode to more than `bytes`.
    pub(super) fn of(length: usize, bytes: usize) -> Self {
        let time_per_body = TIME_PER_BYTE.saturating_mul(u32::try_from(length).unwrap_or(u32::MAX));
        Self {
            bytes: bytes.min(length.saturating_mul(MAX_RATIO).max(SMALL)),
            members: MEMBERS + length / BYTES_PER_MEMBER,
            time: TIME + time_per_body,
        }
    }
}

/// The codings that a `Content-Encoding` names, in the order in which they were applied; `None` where one is not known, or
/// there are too many.
pub(super) fn codings(content_encoding: &str) -> Option<Vec<Coding>> {
    let names = content_encoding.split(',').map(|name| name.trim().to_ascii_lowercase());
    let names = names.filter(|name| !name.is_empty() && name != "identity");
    let codings = names.map(|name| Coding::named(&name)).collect::<Option<Vec<_>>>()?;
    (codings.len() <= CODINGS).then_some(codings)
}

/// Takes codings off, the last one first. Together they may cost what one may.
pub(super) fn decode_all(
    codings: &[Coding],
    bytes: &[u8],
    marks: impl IntoIterator<Item = (usize, Duration)>,
    limits: Limits,
    clock: impl Fn() -> Duration,
) -> Result<Decoded, Undecodable> {
    let [before @ .., last] = codings else { return Err(Undecodable) };
    let began = clock();
    let mut decoded = decode(*last, bytes, marks, limits, &clock)?;
    for coding in before.iter().rev() {
        let time = limits.time.saturating_sub(clock().saturating_sub(began));
        let ends = decoded.ends.iter().copied();
        let inner = decode(*coding, &decoded.bytes, ends, Limits { time, ..limits }, &clock)?;
        decoded = Decoded { over: inner.over || decoded.over, ..inner };
    }
    Ok(decoded)
}

/// Takes a coding off. `marks` are the places in `bytes` where pieces end, and the times at which they passed; `clock`
/// is the time that the processor has spent. Bytes that merely end too soon are decoded as far as they go.
pub(super) fn decode(
    coding: Coding,
    bytes: &[u8],
    marks: impl IntoIterator<Item = (usize, Duration)>,
    limits: Limits,
    clock: impl Fn() -> Duration,
) -> Result<Decoded, Undecodable> {
    let deadline = clock() + limits.time;
    let marks = marks.into_iter().peekable();
    let mut run =
        Run { bytes, at: 0, marks, decoded: Decoded::default(), limits, clock, deadline, unseen: 0 };
    let end = match coding {
        Coding::Gzip => run.gzip(),
        Coding::Deflate => run.only(&mut Engine::deflate(is_zlib(bytes))),
        Coding::Brotli => run.only(&mut Engine::brotli(limits.bytes)),
        Coding::Zstd => run.zstd(),
    };
    match end {
        Ok(()) | Err(Stop::Short) => {}
        Err(Stop::Over) => run.decoded.over = true,
        Err(Stop::Undecodable) => return Err(Undecodable),
    }
    run.end_last_piece();
    Ok(run.decoded)
}

/// Why decoding ends before the end of what is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// There is no more input.
    Short,
    /// It would cost more than it may.
    Over,
    /// It is not of the coding.
    Undecodable,
}

/// One body under way.
struct Run<'a, M: Iterator<Item = (usize, Duration)>, C> {
    bytes: &'a [u8],
    /// Input up to here is taken.
    at: usize,
    marks: Peekable<M>,
    decoded: Decoded,
    limits: Limits,
    clock: C,
    deadline: Duration,
    /// Bytes since the last look at the clock.
    unseen: usize,
}

impl<M: Iterator<Item = (usize, Duration)>, C: Fn() -> Duration> Run<'_, M, C> {
    /// A body that is one stream, and nothing behind it.
    fn only(&mut self, engine: &mut Engine) -> Result<(), Stop> {
        self.stream(engine, None)?;
        if self.at == self.bytes.len() { Ok(()) } else { Err(Stop::Undecodable) }
    }

    /// RFC 1952: members in a row.
    fn gzip(&mut self) -> Result<(), Stop> {
        let mut engine = Engine::deflate(false);
        for _ in 0..self.limits.members {
            self.at += gzip_header(&self.bytes[self.at..])?;
            let mut crc = Crc::new();
            self.stream(&mut engine, Some(&mut crc))?;
            self.gzip_trailer(&crc)?;
            if self.at == self.bytes.len() {
                return Ok(());
            }
            engine.reset();
        }
        Err(Stop::Over)
    }

    /// RFC 8878: frames in a row, of which some may be skipped.
    fn zstd(&mut self) -> Result<(), Stop> {
        let mut engine = Engine::zstd()?;
        for _ in 0..self.limits.members {
            self.stream(&mut engine, None)?;
            if self.at == self.bytes.len() {
                return Ok(());
            }
        }
        Err(Stop::Over)
    }

    fn gzip_trailer(&mut self, crc: &Crc) -> Result<(), Stop> {
        let trailer = self.bytes[self.at..].first_chunk::<8>().ok_or(Stop::Short)?;
        self.at += trailer.len();
        let expected = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
        if expected == trailer { Ok(()) } else { Err(Stop::Undecodable) }
    }

    /// One stream to its end.
    fn stream(&mut self, engine: &mut Engine, mut crc: Option<&mut Crc>) -> Result<(), Stop> {
        let mut output = [0; STEP_OUT];
        loop {
            let piece = self.end_of_piece();
            let to = piece.min(self.at + STEP_IN);
            let step = engine.step(&self.bytes[self.at..to], &mut output)?;
            self.at += step.read;
            if let Some(crc) = crc.as_deref_mut() {
                crc.update(&output[..step.written]);
            }
            self.keep(&output[..step.written])?;
            self.spend(step.read + step.written)?;
            if step.ended {
                return Ok(());
            }
            if step.read + step.written > 0 {
                continue;
            }
            // Only now has everything come out that the input so far stands for.
            if self.at == self.bytes.len() {
                return Err(Stop::Short);
            }
            if self.at < piece {
                return Err(Stop::Undecodable);
            }
            self.end_pieces();
        }
    }

    /// Where the piece ends that is to be taken next.
    fn end_of_piece(&mut self) -> usize {
        self.end_pieces_before();
        self.marks.peek().map_or(self.bytes.len(), |(end, _)| (*end).min(self.bytes.len()))
    }

    /// Pieces that end before the next byte, such as those within a header.
    fn end_pieces_before(&mut self) {
        while let Some((_, time)) = self.marks.next_if(|(end, _)| *end < self.at) {
            self.decoded.ends.push((self.decoded.bytes.len(), time));
        }
    }

    /// Pieces of which everything has come out.
    fn end_pieces(&mut self) {
        while let Some((_, time)) = self.marks.next_if(|(end, _)| *end <= self.at) {
            self.decoded.ends.push((self.decoded.bytes.len(), time));
        }
    }

    /// The piece within which decoding ended.
    fn end_last_piece(&mut self) {
        self.end_pieces();
        let is_open = self.decoded.ends.last().is_none_or(|(end, _)| *end < self.decoded.bytes.len());
        if is_open && let Some((_, time)) = self.marks.next() {
            self.decoded.ends.push((self.decoded.bytes.len(), time));
        }
    }

    fn keep(&mut self, output: &[u8]) -> Result<(), Stop> {
        let Decoded { bytes, .. } = &mut self.decoded;
        let kept = output.len().min(self.limits.bytes - bytes.len());
        if bytes.capacity() - bytes.len() < kept {
            let capacity = (2 * bytes.len()).max(bytes.len() + kept).min(self.limits.bytes);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&output[..kept]);
        if kept < output.len() { Err(Stop::Over) } else { Ok(()) }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        self.unseen += bytes;
        if self.unseen < BYTES_PER_LOOK {
            return Ok(());
        }
        self.unseen = 0;
        if (self.clock)() > self.deadline { Err(Stop::Over) } else { Ok(()) }
    }
}

/// The length of a member's header.
fn gzip_header(bytes: &[u8]) -> Result<usize, Stop> {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    const CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(Stop::Undecodable);
    }
    let flags = *bytes.get(3).ok_or(Stop::Short)?;
    if flags & RESERVED != 0 {
        return Err(Stop::Undecodable);
    }
    let mut length = 10;
    if flags & EXTRA != 0 {
        let extra = bytes.get(length..).and_then(|rest| rest.first_chunk()).ok_or(Stop::Short)?;
        length += 2 + usize::from(u16::from_le_bytes(*extra));
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(length..).ok_or(Stop::Short)?;
            length += memchr::memchr(0, rest).ok_or(Stop::Short)? + 1;
        }
    }
    if flags & CRC != 0 {
        length += 2;
    }
    if length <= bytes.len() { Ok(length) } else { Err(Stop::Short) }
}

/// `deflate` means zlib's format, and some servers send the bare one. Zlib's begins with a checked pair of bytes.
fn is_zlib(bytes: &[u8]) -> bool {
    let Some(pair) = bytes.first_chunk() else { return true };
    pair[0] & 0x0f == 8 && u16::from_be_bytes(*pair).is_multiple_of(31)
}

/// A decoder of one stream.
enum Engine {
    Deflate(Decompress),
    // Its state is large.
    Brotli(Box<Brotli>),
    Zstd(ZstdDecoder<'static>),
}

struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    /// The first byte is still to come; output is bounded by this.
    begins: Option<usize>,
}

/// What became of a call.
struct Step {
    read: usize,
    written: usize,
    ended: bool,
}

impl Engine {
    fn deflate(zlib: bool) -> Self {
        Self::Deflate(Decompress::new(zlib))
    }

    fn brotli(max_bytes: usize) -> Self {
        let alloc = StandardAlloc::default;
        // Strict: no windows but those of RFC 7932.
        let state = BrotliState::new_strict(alloc(), alloc(), alloc());
        Self::Brotli(Box::new(Brotli { state, begins: Some(max_bytes) }))
    }

    /// Larger windows are refused. One is allocated when a frame begins, and takes memory as output is made.
    fn zstd() -> Result<Self, Stop> {
        let mut decoder = ZstdDecoder::new().map_err(|_| Stop::Undecodable)?;
        let limited = decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG));
        limited.map(|()| Self::Zstd(decoder)).map_err(|_| Stop::Undecodable)
    }

    /// A bare deflate stream begins anew.
    fn reset(&mut self) {
        if let Self::Deflate(decoder) = self {
            decoder.reset(false);
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Stop> {
        match self {
            Self::Deflate(decoder) => {
                let (read, written) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output, FlushDecompress::None);
                let status = status.map_err(|_| Stop::Undecodable)?;
                let since = |before: u64, now: u64| usize::try_from(now - before).unwrap_or_default();
                Ok(Step {
                    read: since(read, decoder.total_in()),
                    written: since(written, decoder.total_out()),
                    ended: status == Status::StreamEnd,
                })
            }
            Self::Brotli(decoder) => match (decoder.begins, input) {
                (Some(max_bytes), [first, ..]) => {
                    decoder.begins = None;
                    decoder.step(&[narrowed(*first, max_bytes)], output)
                }
                _ => decoder.step(input, output),
            },
            Self::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output).map_err(|_| Stop::Undecodable)?;
                Ok(Step {
                    read: status.bytes_read,
                    written: status.bytes_written,
                    ended: status.remaining == 0,
                })
            }
        }
    }
}

impl Brotli {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Stop> {
        let (mut left, mut read) = (input.len(), 0);
        let (mut room, mut written) = (output.len(), 0);
        let mut total = 0;
        let result = BrotliDecompressStream(
            &mut left,
            &mut read,
            input,
            &mut room,
            &mut written,
            output,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => Err(Stop::Undecodable),
            BrotliResult::ResultSuccess => Ok(Step { read, written, ended: true }),
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
                Ok(Step { read, written, ended: false })
            }
        }
    }
}

/// The first byte of a stream, with a window that is no larger than output of `max_bytes` needs: 16 MiB of zeroes would
/// cost more than most bodies. Output that ends before the window is full does not depend on its size. The sizes from
/// 2^18 to 2^24 have codes of the same length (RFC 7932, 9.1), so the rest of the stream stays as it is.
fn narrowed(first: u8, max_bytes: usize) -> u8 {
    /// Bytes at a window's end that it does not reach.
    const GAP: usize = 16;
    let code = (first >> 1) & 7;
    if first & 1 == 0 || code == 0 {
        return first;
    }
    let fits = |code: &u8| (1_usize << (17 + code)) - GAP > max_bytes;
    let code = (1..code).find(fits).unwrap_or(code);
    (first & 0xf0) | (code << 1) | 1
}

#[cfg(test)]
mod tests;
