use std::{
    cell::Cell,
    io::Write as _,
    time::{Duration, Instant},
};

use flate2::{
    Compression, GzBuilder,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use proptest::prelude::*;

use super::*;

const NONE: [(usize, Duration); 0] = [];
const PLENTY: Limits = Limits { bytes: 64 << 20, members: 1 << 20, time: Duration::MAX };

fn stopped_clock() -> Duration {
    Duration::ZERO
}

/// `bytes` in every coding that is known.
fn encoded(bytes: &[u8]) -> Vec<(&'static str, Coding, Vec<u8>)> {
    crate::recorder::body::tests::encoded(bytes)
        .into_iter()
        .map(|(name, encoded)| (name, Coding::named(name).unwrap(), encoded))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not shrink.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_body_may_reach_its_limit_and_not_go_over_it() {
    for limit in [1, 100, STEP_OUT, SMALL - 17, SMALL - 16, SMALL, SMALL + 1, 1 << 20] {
        for length in [limit - 1, limit, limit + 1, 10 * limit] {
            // Noise comes out byte by byte, zeroes all at once.
            for content in [noise(length), vec![0; length]] {
                for (name, coding, bytes) in encoded(&content) {
                    let limits = Limits { bytes: limit, ..PLENTY };
                    let decoded = decode(coding, &bytes, NONE, limits, stopped_clock).unwrap();
                    assert_eq!(decoded.over, length > limit, "{name}: {length} of {limit}");
                    assert!(decoded.bytes == content[..length.min(limit)], "{name}: {length} of {limit}");
                    assert!(decoded.bytes.capacity() <= limit, "{name}: {}", decoded.bytes.capacity());
                    assert!(decoded.bytes.capacity() <= 2 * length + STEP_OUT, "{name}");
                }
            }
        }
    }
}

#[test]
fn what_a_body_may_cost_grows_with_it() {
    for (length, bytes, expected) in [
        (0, 1 << 20, (SMALL, 16, 20_000)),
        (36, 1 << 20, (SMALL, 16, 20_001)),
        (36, 1 << 10, (1 << 10, 16, 20_001)),
        (8_000, 8 << 20, (800_000, 23, 20_400)),
        (1 << 20, 8 << 20, (8 << 20, 1040, 72_428)),
    ] {
        let limits = Limits::of(length, bytes);
        let microseconds = limits.time.as_micros();
        assert_eq!((limits.bytes, limits.members, microseconds), expected, "{length} {bytes}");
    }
}

#[test]
fn no_window_is_larger_than_rfc_7932_has_them() {
    // "Large window": a code that the format has no use for, and then the size, here 2^30.
    let large = [&[0x11, 0x1e, 0x3c, 0, 2][..], &[b'x'; 31]].concat();
    assert!(matches!(decode(Coding::Brotli, &large, NONE, PLENTY, stopped_clock), Err(Undecodable)));
}

#[test]
fn a_window_is_as_large_as_the_output_may_become() {
    let first = |bits: u8| if bits == 16 { 0 } else { ((bits - 17) << 1) | 1 };
    for (bits, max_bytes, expected) in [
        (24, 0, 18),
        (24, SMALL - 17, 18),
        (24, SMALL - 16, 19),
        (24, SMALL, 19),
        (24, 8 << 20, 24),
        (22, 8 << 20, 22),
        (18, 8 << 20, 18),
        (16, 0, 16),
    ] {
        let others = 0b1010_0000;
        assert_eq!(narrowed(first(bits) | others, max_bytes), first(expected) | others, "{bits} {max_bytes}");
    }
    for small in [0x01, 0x21, 0x31, 0x41, 0x51, 0x61, 0x71] {
        assert_eq!(narrowed(small, 0), small, "a code of seven bits stays");
    }
}

#[test]
fn references_over_the_whole_window_are_followed_though_it_is_narrowed() {
    let mut content = noise(SMALL - 100);
    content.extend_from_within(..80);
    for window in [18, 20, 22, 24] {
        let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 9, window);
        encoder.write_all(&content).unwrap();
        let bytes = encoder.into_inner();
        for limit in [content.len(), SMALL, 4 << 20] {
            let limits = Limits { bytes: limit, ..PLENTY };
            let decoded = decode(Coding::Brotli, &bytes, NONE, limits, stopped_clock).unwrap();
            assert!(decoded.bytes == content, "{window} {limit}");
        }
    }
}

#[test]
fn members_of_gzip_follow_each_other_up_to_a_number() {
    let all = [gzip(b"one, "), gzip(b""), gzip(b"two")].concat();
    for (members, expected, over) in [(2, "one, ", true), (3, "one, two", false), (4, "one, two", false)] {
        let limits = Limits { members, ..PLENTY };
        let decoded = decode(Coding::Gzip, &all, NONE, limits, stopped_clock).unwrap();
        assert_eq!((decoded.bytes.as_slice(), decoded.over), (expected.as_bytes(), over), "{members}");
    }
}

#[test]
fn a_header_of_gzip_may_have_all_that_the_format_knows() {
    let mut encoder = GzBuilder::new()
        .extra(*b"extra")
        .filename("name")
        .comment("comment")
        .write(Vec::new(), Compression::fast());
    encoder.write_all(b"text").unwrap();
    let whole = encoder.finish().unwrap();
    // With a checksum of the header, which no encoder here writes.
    let mut summed = gzip(b"text");
    summed[3] = 2;
    summed.splice(10..10, [1, 2]);
    for whole in [whole, summed] {
        let decoded = decode(Coding::Gzip, &whole, NONE, PLENTY, stopped_clock).unwrap();
        assert_eq!(decoded.bytes, b"text");
        for cut in 0..whole.len() {
            let decoded = decode(Coding::Gzip, &whole[..cut], NONE, PLENTY, stopped_clock).unwrap();
            assert!(b"text".starts_with(&decoded.bytes), "{cut}");
        }
    }
}

#[test]
fn frames_of_zstd_follow_each_other_up_to_a_number_and_some_are_skipped() {
    let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'x', b'x'];
    let all = [frame(b"one, ").as_slice(), &skipped, &frame(b""), &frame(b"two")].concat();
    for (members, expected, over) in [(2, "one, ", true), (4, "one, two", false), (5, "one, two", false)] {
        let limits = Limits { members, ..PLENTY };
        let decoded = decode(Coding::Zstd, &all, NONE, limits, stopped_clock).unwrap();
        assert_eq!((decoded.bytes.as_slice(), decoded.over), (expected.as_bytes(), over), "{members}");
    }
}

#[test]
fn no_window_of_zstd_is_larger_than_rfc_9659_has_them() {
    for (log, is_decoded) in [(20, true), (23, true), (24, false), (27, false), (31, false)] {
        // A frame with that window, and a last block of one byte as it is. The descriptor's exponent begins at 10.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 0x09, 0, 0, b'x'];
        let decoded = decode(Coding::Zstd, &frame, NONE, PLENTY, stopped_clock);
        assert_eq!(decoded.map(|decoded| decoded.bytes).ok(), is_decoded.then(|| b"x".to_vec()), "{log}");
    }
    // A frame of one segment has a window as large as its content.
    let segment = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 0x09, 0, 0, b'x'];
    assert!(decode(Coding::Zstd, &segment, NONE, PLENTY, stopped_clock).is_err());
}

#[test]
fn codings_are_read_from_the_header_in_order() {
    use Coding::{Brotli, Deflate, Gzip, Zstd};
    for (header, expected) in [
        ("", Some(vec![])),
        (" identity ", Some(vec![])),
        ("GZip", Some(vec![Gzip])),
        ("x-gzip,br", Some(vec![Gzip, Brotli])),
        ("deflate, , identity, zstd", Some(vec![Deflate, Zstd])),
        ("gzip, gzip, gzip, gzip", Some(vec![Gzip; 4])),
        ("gzip, gzip, gzip, gzip, gzip", None),
        ("compress", None),
        ("gzip, compress", None),
    ] {
        assert_eq!(codings(header), expected, "{header}");
    }
}

#[test]
fn codings_in_a_row_are_bounded_as_one_is() {
    let zeroes = gzip(&vec![0; 8 << 20]);
    let twice = zstd::stream::encode_all(&*gzip(&zeroes), 1).unwrap();
    let codings = [Coding::Gzip, Coding::Gzip, Coding::Zstd];
    for limit in [100, SMALL, 1 << 20] {
        let limits = Limits { bytes: limit, ..PLENTY };
        let decoded = decode_all(&codings, &twice, NONE, limits, stopped_clock).unwrap();
        assert!(decoded.over && decoded.bytes.len() <= limit, "{limit}: {}", decoded.bytes.len());
    }
    let decoded = decode_all(&codings, &twice, NONE, PLENTY, stopped_clock).unwrap();
    assert_eq!((decoded.over, decoded.bytes.len()), (false, 8 << 20));
    // The first one takes all the time; nothing is left for the second.
    let looks = Cell::new(0);
    let clock = || {
        looks.set(looks.get() + 1);
        Duration::from_millis(looks.get())
    };
    let limits = Limits { time: Duration::from_millis(8), ..PLENTY };
    let once = gzip(&noise(1 << 20));
    let decoded = decode_all(&[Coding::Gzip, Coding::Gzip], &gzip(&once), NONE, limits, clock).unwrap();
    assert!(decoded.over && decoded.bytes.len() < 12 * BYTES_PER_LOOK, "{}", decoded.bytes.len());
    assert!(matches!(decode_all(&[], b"x", NONE, PLENTY, stopped_clock), Err(Undecodable)));
}

#[test]
fn what_is_damaged_or_has_something_behind_it_is_not_of_the_coding() {
    for (name, coding, bytes) in encoded(b"{\"model\":\"m\"}") {
        let longer = [bytes.as_slice(), b"xx"].concat();
        let end = decode(coding, &longer, NONE, PLENTY, stopped_clock).err();
        assert_eq!(end, Some(Undecodable), "{name}");
    }
    let good = gzip(b"text");
    for (at, name) in [(0, "magic"), (2, "method"), (good.len() - 8, "checksum"), (good.len() - 1, "length")]
    {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let end = decode(Coding::Gzip, &bad, NONE, PLENTY, stopped_clock).err();
        assert_eq!(end, Some(Undecodable), "{name}");
    }
}

#[test]
fn a_body_that_takes_too_long_is_given_up() {
    for (name, coding, bytes) in encoded(&noise(1 << 20)) {
        let looks = Cell::new(0);
        let clock = || {
            looks.set(looks.get() + 1);
            Duration::from_millis(looks.get())
        };
        let limits = Limits { time: Duration::from_millis(5), ..PLENTY };
        let decoded = decode(coding, &bytes, NONE, limits, clock).unwrap();
        assert!(decoded.over && decoded.bytes.len() < 8 * BYTES_PER_LOOK, "{name}: {}", decoded.bytes.len());
    }
}

#[test]
fn bodies_made_to_be_dear_cost_no_more_than_their_budget() {
    let empty = [0, 0, 0, 0xff, 0xff];
    let table = {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&noise(64).iter().map(|byte| byte & 31).collect::<Vec<_>>()).unwrap();
        encoder.flush().unwrap();
        encoder.get_ref().clone()
    };
    let zeroes = {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 8 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let mut metadata = vec![0x0b];
    metadata.extend([0x06, 0x00].repeat(500_000));
    // Blocks of four bytes that stand for 128 KiB each.
    let repeated = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x68][..], &[0x02, 0, 0x10, b'x'].repeat(200_000)].concat();
    for (name, coding, bytes) in [
        ("empty members", Coding::Gzip, gzip(b"").repeat(45_000)),
        ("empty blocks", Coding::Deflate, empty.repeat(180_000)),
        ("tables", Coding::Deflate, table.repeat(900_000 / table.len())),
        ("zeroes", Coding::Deflate, zeroes),
        ("metadata", Coding::Brotli, metadata),
        ("empty frames", Coding::Zstd, [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0].repeat(100_000)),
        ("repeated bytes", Coding::Zstd, repeated),
    ] {
        let limits = Limits::of(bytes.len(), 8 << 20);
        let start = Instant::now();
        let time = || start.elapsed();
        let _ = decode(coding, &bytes, NONE, limits, time);
        let cost = start.elapsed();
        eprintln!("{name}: {} bytes, {cost:?} of {:?}", bytes.len(), limits.time);
        assert!(cost < limits.time + Duration::from_millis(50), "{name}: {cost:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pieces_cut_anywhere_decode_to_the_whole(
        text in "[a-d]{0,40}",
        repeat in 1_usize..2_000,
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        limit in 1_usize..100_000,
    ) {
        let content = text.repeat(repeat).into_bytes();
        for (name, coding, bytes) in encoded(&content) {
            let limits = Limits { bytes: limit, ..PLENTY };
            let whole = decode(coding, &bytes, NONE, limits, stopped_clock).unwrap();
            prop_assert_eq!(&whole.bytes, &content[..content.len().min(limit)], "{}", name);
            cuts.sort_unstable_by_key(|cut| cut.index(bytes.len() + 1));
            let ends = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]);
            let marks: Vec<_> = ends.zip((0..).map(Duration::from_secs)).collect();
            let pieces = decode(coding, &bytes, marks.iter().copied(), limits, stopped_clock).unwrap();
            prop_assert_eq!(&pieces.bytes, &whole.bytes, "{}", name);
            prop_assert_eq!(pieces.over, whole.over, "{}", name);
            prop_assert_eq!(pieces.ends.last().map_or(0, |(end, _)| *end), whole.bytes.len(), "{}", name);
            prop_assert!(pieces.ends.is_sorted(), "{}", name);
            // What of a piece has come out is what comes out of a body that ends with it.
            for ((cut, time), (end, at)) in marks.iter().zip(&pieces.ends) {
                prop_assert_eq!(time, at);
                let short = decode(coding, &bytes[..*cut], NONE, limits, stopped_clock).unwrap();
                prop_assert_eq!(*end, short.bytes.len(), "{}: {}", name, cut);
            }
        }
    }

    #[test]
    fn any_bytes_at_all_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            if let Ok(decoded) = decode(coding, &bytes, NONE, Limits::of(bytes.len(), 1 << 20), stopped_clock) {
                prop_assert!(decoded.bytes.len() <= SMALL);
            }
        }
    }
}
