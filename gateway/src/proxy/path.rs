//! Paths that would leave `/v1/` at the provider: whoever joins them would reach what the operator's key opens there.
//!
//! Servers differ in what they take for a dot segment. So a path is refused when any of their readings has one: decoded
//! once or several times, with `\` for `/`, with `;parameters`, with characters around the dots that some leave out.
//! Everything else, encoded slashes included, passes byte for byte.

use std::borrow::Cow;

/// Whether some server would take a segment of this path for `.` or `..`.
pub(super) fn has_dot_segment(path: &str) -> bool {
    // Nearly every path ends here.
    if !path.bytes().any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    let mut reading = Cow::Borrowed(path.as_bytes());
    loop {
        if reading.split(|byte| matches!(byte, b'/' | b'\\')).any(is_dots) {
            return true;
        }
        // Each round is shorter than the one before it.
        match decode(&reading) {
            Some(decoded) => reading = Cow::Owned(decoded),
            None => return false,
        }
    }
}

fn is_dots(segment: &[u8]) -> bool {
    let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    let mut dots = 0;
    for byte in name {
        match byte {
            b'.' => dots += 1,
            // Left out by some: spaces, line breaks, what ends a string in C.
            0..=b' ' | 0x7f => {}
            _ => return false,
        }
    }
    matches!(dots, 1 | 2)
}

/// One round of percent decoding; none when there is nothing to decode.
fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, left) = match escape(rest) {
            Some((byte, left)) => (byte, left),
            None => (first, after),
        };
        push(&mut decoded, byte);
        rest = left;
    }
    (decoded.len() < bytes.len()).then_some(decoded)
}

/// `%2e`, and IIS's `%u002e`.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let digits = bytes.strip_prefix(b"%")?;
    let wide = [&b"u00"[..], b"U00"].into_iter().find_map(|prefix| digits.strip_prefix(prefix));
    let digits = wide.unwrap_or(digits);
    let pair = std::str::from_utf8(digits.get(..2)?).ok()?;
    let is_hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)?;
    Some((byte, &digits[2..]))
}

/// A character of ASCII in two bytes is no UTF-8, but some decoders read it (`%c0%ae` is a dot to them).
fn push(decoded: &mut Vec<u8>, byte: u8) {
    match decoded.last_mut() {
        Some(first @ (0xc0 | 0xc1)) if matches!(byte, 0x80..=0xbf) => {
            *first = (*first & 1) << 6 | byte & 0x3f;
        }
        _ => decoded.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_segment_is_found_in_every_dress() {
        for path in [
            "/v1/../admin",
            "/v1/..",
            "/v1/./models",
            "/v1/.",
            "/v1/%2e%2e/admin/keys",
            "/v1/%2E%2e/admin",
            "/v1/.%2e/admin",
            "/v1/%2e./admin",
            "/v1/%2e",
            "/v1/..%2fadmin/keys",
            "/v1/..%2Fadmin",
            "/v1/x%2f..%2f..%2fadmin",
            "/v1/%2e%2e%2fadmin",
            "/v1/..\\admin",
            "/v1/..%5cadmin",
            "/v1/x%5c%2e%2e%5cadmin",
            "/v1/..;/admin",
            "/v1/..;a=b/admin",
            "/v1/..%3b/admin",
            "/v1/%252e%252e/admin",
            "/v1/%25252e%25252e%25252fadmin",
            "/v1/..%00/admin",
            "/v1/..%20/admin",
            "/v1/%09../admin",
            "/v1/.%0a./admin",
            "/v1/%c0%ae%c0%ae/admin",
            "/v1/..%c0%afadmin",
            "/v1/..%c1%9cadmin",
            "/v1/%u002e%u002e/admin",
            "/v1//../admin",
            "/v1/chat/completions/..",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_one_passes() {
        for path in [
            "/v1/chat/completions",
            "/v1/models/gpt-4.1",
            "/v1/models/meta-llama%2fLlama-3.1",
            "/v1/models/a%2Fb%2Fc",
            "/v1/models/...",
            "/v1/models/..a",
            "/v1/models/a..",
            "/v1/models/.hidden",
            "/v1/files/report..final.pdf",
            "/v1/a%20b/%C3%BC//c",
            "/v1/100%",
            "/v1/100%zz/%2",
            "/v1/%u00",
            "/v1/a%5cb",
            "/v1/a;b/c",
            "/v1/",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
