//! Where a message ends, so that two servers never read the same bytes as different messages.
//!
//! hyper reads and writes the framing; what is left here is what it leaves to its users: headers that say something else
//! than the framing that was used, codings that nobody has taken off, answers that should have no body.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::headers;

/// What is wrong with a message's framing, or with the address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `Transfer-Encoding` names another coding than `chunked`, or one twice.
    TransferCoding,
    /// `Content-Length` is no length, or several.
    ContentLength,
    /// None, more than one, or none that is a host.
    Host,
}

impl Fault {
    /// In a sentence about the message.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TransferCoding => "its Transfer-Encoding is not just `chunked`",
            Self::ContentLength => "its Content-Length is not one length",
            Self::Host => "it needs exactly one valid Host header",
        }
    }
}

/// What no server should take, although it can be parsed (RFC 9112, sections 3.2 and 6.1; RFC 9113, section 8.3.1).
pub(super) fn check_request(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_needed = version == Version::HTTP_11;
    let host = hosts.next();
    if hosts.next().is_some()
        || (is_needed && host.is_none())
        || !host.is_none_or(|host| is_host(host.as_bytes()))
    {
        return Err(Fault::Host);
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let is_other = |authority| version == Version::HTTP_2 && host.is_some_and(|host| host != authority);
    if authority.is_some_and(|authority| !is_host(authority) || is_other(authority)) {
        return Err(Fault::Host);
    }
    check_transfer_coding(headers)
}

/// Says of the request what its body is: no other length reaches the provider than that of the body that does.
pub(super) fn set_request(headers: &mut HeaderMap, length: Option<u64>) {
    let named = headers.contains_key(header::CONTENT_LENGTH);
    // Of a request no trailers are passed on.
    headers.remove(header::TRAILER);
    // The client was told to go on when its body was asked for.
    headers.remove(header::EXPECT);
    match length {
        Some(length) if length > 0 || named => set_length(headers, length),
        Some(_) => {}
        None => {
            headers.remove(header::CONTENT_LENGTH);
            // hyper sends the body of a GET only when its framing is named. HTTP/2 leaves this header out.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// Makes an answer's headers say what its framing is (RFC 9112, section 6.3). `length` is that of the body that follows.
pub(super) fn set_answer(
    headers: &mut HeaderMap,
    status: StatusCode,
    method: &Method,
    length: Option<u64>,
) -> Result<(), Fault> {
    check_transfer_coding(headers)?;
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
        return Ok(());
    }
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(());
    }
    let announced = one_length(headers).ok_or(Fault::ContentLength)?;
    match length {
        // The answer to a HEAD has the length of one that is not there.
        _ if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED => set_length(headers, announced),
        Some(length) => set_length(headers, length),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
    Ok(())
}

/// Whether an answer has no body by its kind (RFC 9110, section 6.4.1), whatever comes.
pub(super) fn has_no_body(status: StatusCode, method: &Method) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether an answer has no body by its kind, but says that it has one. A provider that sends it all the same sends what
/// would be taken for the answer to the next request on its connection.
pub(super) fn may_leave_bytes_behind(headers: &HeaderMap, status: StatusCode, method: &Method) -> bool {
    let is_empty = has_no_body(status, method) || status == StatusCode::RESET_CONTENT;
    let names_body = || {
        headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
    };
    is_empty && names_body()
}

/// Whether an answer names its length in two ways: its connection is not used again (RFC 9112, section 6.3).
pub(super) fn names_two_lengths(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH)
}

/// Takes off an answer's trailers what means something in a head alone (RFC 9110, section 6.5.1): framing, routing, and what
/// the gateway decides itself.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    headers::remove_hop_by_hop(trailers);
    let means_nothing_here = |name: &HeaderName| {
        matches!(
            *name,
            header::CONTENT_LENGTH
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::HOST
                | header::SET_COOKIE
                | header::TRAILER
        ) || name.as_str().starts_with("access-control-")
    };
    let names: Vec<HeaderName> = trailers.keys().filter(|name| means_nothing_here(name)).cloned().collect();
    for name in names {
        trailers.remove(name);
    }
}

fn set_length(headers: &mut HeaderMap, length: u64) {
    let mut named = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = named.next().and_then(|value| value.to_str().ok());
    // The usual case, which allocates nothing.
    let is_said = named.next().is_none() && first.and_then(parse) == Some(length);
    if !is_said {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

/// The one length that all values of all headers name.
fn one_length(headers: &HeaderMap) -> Option<u64> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in value.to_str().ok()?.split(',') {
            let named = parse(text.trim_matches([' ', '\t']))?;
            if *length.get_or_insert(named) != named {
                return None;
            }
        }
    }
    length
}

/// Digits only: no sign, no space.
fn parse(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Fault> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_known = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_known && codings.next().is_none() { Ok(()) } else { Err(Fault::TransferCoding) }
}

/// Characters of a host and a port. An empty one is right where a request has no host.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::map;

    #[test]
    fn a_request_has_one_host_and_one_coding() {
        let one = ("host", "gateway:3000");
        for (headers, version, expected) in [
            (vec![one], Version::HTTP_11, Ok(())),
            (vec![("host", "[::1]:3000")], Version::HTTP_11, Ok(())),
            (vec![("host", "")], Version::HTTP_11, Ok(())),
            (vec![], Version::HTTP_11, Err(Fault::Host)),
            (vec![], Version::HTTP_10, Ok(())),
            (vec![], Version::HTTP_2, Ok(())),
            (vec![one, one], Version::HTTP_11, Err(Fault::Host)),
            (vec![one, one], Version::HTTP_10, Err(Fault::Host)),
            (vec![("host", "a, b")], Version::HTTP_11, Err(Fault::Host)),
            (vec![("host", "a/b")], Version::HTTP_11, Err(Fault::Host)),
            (vec![("host", "user@a")], Version::HTTP_11, Err(Fault::Host)),
            (vec![one, ("transfer-encoding", "Chunked")], Version::HTTP_11, Ok(())),
            (vec![one, ("transfer-encoding", "gzip, chunked")], Version::HTTP_11, Err(Fault::TransferCoding)),
            (
                vec![one, ("transfer-encoding", "chunked, chunked")],
                Version::HTTP_11,
                Err(Fault::TransferCoding),
            ),
            (
                vec![one, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Version::HTTP_11,
                Err(Fault::TransferCoding),
            ),
        ] {
            let uri = Uri::from_static("/v1/models");
            assert_eq!(check_request(version, &uri, &map(&headers)), expected, "{headers:?} {version:?}");
        }
    }

    #[test]
    fn over_http2_a_request_has_one_authority_and_no_user_in_it() {
        for (uri, headers, expected) in [
            ("http://gateway:3000/v1", vec![], Ok(())),
            ("http://gateway:3000/v1", vec![("host", "gateway:3000")], Ok(())),
            ("http://gateway:3000/v1", vec![("host", "other")], Err(Fault::Host)),
            ("http://user:password@gateway/v1", vec![], Err(Fault::Host)),
            ("/v1", vec![("host", "gateway")], Ok(())),
        ] {
            let checked = check_request(Version::HTTP_2, &Uri::from_static(uri), &map(&headers));
            assert_eq!(checked, expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn trailers_say_nothing_that_belongs_into_a_head() {
        let mut trailers = map(&[
            ("connection", "x-named"),
            ("x-named", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("content-length", "5"),
            ("host", "evil.example"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("x-checksum", "abc"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("x-checksum", "abc")]));
    }

    #[test]
    fn a_request_says_what_its_body_is() {
        for (headers, length, expected) in [
            (vec![("content-length", "5")], Some(5), vec![("content-length", "5")]),
            (vec![], Some(5), vec![("content-length", "5")]),
            (vec![], Some(0), vec![]),
            (vec![("content-length", "0")], Some(0), vec![("content-length", "0")]),
            (vec![("content-length", "7"), ("content-length", "5")], Some(0), vec![("content-length", "0")]),
            (vec![("content-length", "+5")], Some(5), vec![("content-length", "5")]),
            (vec![("content-length", "5")], None, vec![("transfer-encoding", "chunked")]),
            (vec![("trailer", "x-a")], None, vec![("transfer-encoding", "chunked")]),
            (vec![("expect", "100-continue")], Some(5), vec![("content-length", "5")]),
        ] {
            let mut got = map(&headers);
            set_request(&mut got, length);
            assert_eq!(got, map(&expected), "{headers:?} {length:?}");
        }
    }

    #[test]
    fn an_answer_says_what_its_framing_is() {
        let chunked = ("transfer-encoding", "chunked");
        for (headers, status, method, length, expected) in [
            (vec![chunked, ("content-length", "5")], 200, Method::GET, None, Ok(vec![chunked])),
            (
                vec![("transfer-encoding", "gzip, chunked")],
                200,
                Method::GET,
                None,
                Err(Fault::TransferCoding),
            ),
            (vec![("transfer-encoding", "identity")], 200, Method::GET, None, Err(Fault::TransferCoding)),
            (vec![("content-length", "5, 5")], 200, Method::GET, Some(5), Ok(vec![("content-length", "5")])),
            (
                vec![("content-length", "5"), ("content-length", "5")],
                200,
                Method::GET,
                Some(5),
                Ok(vec![("content-length", "5")]),
            ),
            (vec![("content-length", "5, 6")], 200, Method::HEAD, Some(0), Err(Fault::ContentLength)),
            (vec![("content-length", "+5")], 200, Method::HEAD, Some(0), Err(Fault::ContentLength)),
            (vec![("content-length", "5, 5")], 200, Method::HEAD, Some(0), Ok(vec![("content-length", "5")])),
            (vec![("content-length", "5")], 204, Method::GET, Some(0), Ok(vec![("content-length", "0")])),
            (vec![("content-length", "5")], 304, Method::GET, Some(0), Ok(vec![("content-length", "5")])),
            (vec![], 200, Method::GET, None, Ok(vec![])),
        ] {
            let mut got = map(&headers);
            let status = StatusCode::from_u16(status).unwrap();
            let outcome = set_answer(&mut got, status, &method, length).map(|()| got);
            assert_eq!(outcome, expected.map(|it| map(&it)), "{headers:?} {status} {method}");
        }
    }

    #[test]
    fn an_answer_without_a_body_that_announces_one_is_known() {
        let five = map(&[("content-length", "5")]);
        let none = map(&[("content-length", "0")]);
        for (headers, status, method, expected) in [
            (&five, 204, Method::POST, true),
            (&five, 304, Method::GET, true),
            (&five, 200, Method::HEAD, true),
            (&five, 200, Method::GET, false),
            (&none, 204, Method::GET, false),
            (&none, 200, Method::HEAD, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(may_leave_bytes_behind(headers, status, &method), expected, "{status} {method}");
        }
    }
}
