//! W3C trace context, see <https://www.w3.org/TR/trace-context/>: the request joins its caller's trace, and the
//! provider sees the gateway's span as its parent.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::recorder::Trace;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SAMPLED: u8 = 1;

/// Reads the caller's `traceparent` and puts the gateway's own in its place. What is no valid one starts a new trace.
pub(super) fn join(headers: &mut HeaderMap) -> Trace {
    let caller = headers.get(&TRACEPARENT).and_then(|value| parse(value.as_bytes()));
    let span_id = fastrand::u64(1..).to_be_bytes();
    let trace = match caller {
        Some(caller) => Trace { span_id, parent_span_id: Some(caller.span_id), ..caller },
        None => {
            let trace_id = fastrand::u128(1..).to_be_bytes();
            Trace { trace_id, span_id, parent_span_id: None, flags: SAMPLED }
        }
    };
    headers.insert(TRACEPARENT, format(&trace));
    trace
}

/// The caller's span. Version 00, or a later one read as version 00 as the specification asks.
fn parse(text: &[u8]) -> Option<Trace> {
    let is_dashed = text.len() >= 55 && [2, 35, 52].iter().all(|&at| text[at] == b'-');
    if !is_dashed || &text[..2] == b"ff" || (text.len() > 55 && (&text[..2] == b"00" || text[55] != b'-')) {
        return None;
    }
    let mut trace_id = [0; 16];
    let mut span_id = [0; 8];
    let mut flags = [0; 1];
    decode(&text[..2], &mut [0; 1])?;
    decode(&text[3..35], &mut trace_id)?;
    decode(&text[36..52], &mut span_id)?;
    decode(&text[53..55], &mut flags)?;
    let [flags] = flags;
    (trace_id != [0; 16] && span_id != [0; 8]).then_some(Trace {
        trace_id,
        span_id,
        parent_span_id: None,
        flags,
    })
}

/// Lower-case hexadecimal only, as the specification says.
fn decode(text: &[u8], out: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (pair, out) in text.chunks_exact(2).zip(out) {
        *out = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

fn format(trace: &Trace) -> HeaderValue {
    let mut text = *b"00-................................-................-..";
    encode(&trace.trace_id, &mut text[3..35]);
    encode(&trace.span_id, &mut text[36..52]);
    encode(&[trace.flags], &mut text[53..55]);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn encode(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_trace_goes_on_with_a_span_of_our_own() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(CALLER));
        let trace = join(&mut headers);
        let sent = headers[TRACEPARENT].to_str().unwrap();
        assert!(sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent.ends_with("-01"), "{sent}");
        assert_ne!(sent, CALLER, "the caller's span must not pass unchanged");
        let callers = 0xb7ad_6b71_6920_3331_u64.to_be_bytes();
        assert_eq!((trace.parent_span_id, trace.flags), (Some(callers), 1));
        assert_eq!(parse(sent.as_bytes()), Some(Trace { parent_span_id: None, ..trace }));
    }

    #[test]
    fn what_is_no_trace_context_starts_a_new_trace() {
        for text in [
            "",
            "x",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert!(parse(format!("cc{}-more", &CALLER[2..]).as_bytes()).is_some(), "a later version");
        let mut headers = HeaderMap::new();
        let trace = join(&mut headers);
        assert_ne!(trace.trace_id, [0; 16]);
        assert_eq!((trace.parent_span_id, trace.flags), (None, SAMPLED));
        assert!(parse(headers[TRACEPARENT].as_bytes()).is_some());
    }
}
