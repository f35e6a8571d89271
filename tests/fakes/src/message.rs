//! A request as it was recorded, and an answer.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde_json::Value;

/// No body is inflated beyond this: above the largest limit of any backend here (Elasticsearch: 100 MB).
const INFLATED_MAX: u64 = 256 * 1024 * 1024;

/// A request that reached a fake.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body as sent, still compressed.
    pub wire: Bytes,
    /// The body, decompressed; empty when `wire` cannot be.
    pub body: Bytes,
    /// Why `body` could not be read, if so.
    pub unreadable: Option<Unreadable>,
    /// The number of the connection that it came on, from 1.
    pub connection: u64,
}

/// Why a body could not be decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// `Content-Encoding` names something else than gzip, deflate and identity.
    UnknownEncoding(String),
    /// The bytes are not what `Content-Encoding` says.
    Broken(String),
}

impl Request {
    pub(crate) fn new(
        method: String,
        target: String,
        headers: Vec<(String, String)>,
        wire: Bytes,
        connection: u64,
    ) -> Self {
        let mut request =
            Self { method, target, headers, wire, body: Bytes::new(), unreadable: None, connection };
        match inflate(&request.encoding(), &request.wire) {
            Ok(body) => request.body = body,
            Err(why) => request.unreadable = Some(why),
        }
        request
    }

    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The value of a query parameter, `%` escapes undone.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| unescape(value))
    }

    /// `Content-Encoding`, in lower case; `identity` when there is none.
    pub fn encoding(&self) -> String {
        self.header("content-encoding").unwrap_or("identity").trim().to_ascii_lowercase()
    }

    /// `Content-Type` without its parameters, in lower case.
    pub fn content_type(&self) -> String {
        let header = self.header("content-type").unwrap_or_default();
        header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The size of the body on the wire.
    pub fn compressed_size(&self) -> usize {
        self.wire.len()
    }

    /// Whether the body's length was announced.
    pub fn has_content_length(&self) -> bool {
        self.header("content-length").is_some()
    }

    /// Whether the body came in chunks instead.
    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some()
    }

    /// The body as JSON; `None` when it is not.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Undoes one `Content-Encoding`.
pub(crate) fn inflate(encoding: &str, wire: &Bytes) -> Result<Bytes, Unreadable> {
    let inflated = match encoding {
        "identity" => return Ok(wire.clone()),
        "gzip" => read_all(MultiGzDecoder::new(&wire[..])),
        // HTTP's "deflate" is the zlib format.
        "deflate" => read_all(ZlibDecoder::new(&wire[..])),
        other => return Err(Unreadable::UnknownEncoding(other.to_owned())),
    };
    inflated.map_err(|e| Unreadable::Broken(e.to_string()))
}

fn read_all(reader: impl Read) -> io::Result<Bytes> {
    let mut out = Vec::new();
    reader.take(INFLATED_MAX + 1).read_to_end(&mut out)?;
    if out.len() as u64 > INFLATED_MAX {
        return Err(io::Error::other("inflates to more than 256 MiB"));
    }
    Ok(out.into())
}

/// Undoes `%41`; what is no escape stays as it is.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high * 16 + low);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// What a fake answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Beside `Content-Length`, which the server adds.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string().into() }
    }

    /// No body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn request(target: &str, headers: &[(&str, &str)], wire: &[u8]) -> Request {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Request::new("POST".into(), target.into(), headers, Bytes::copy_from_slice(wire), 1)
    }

    #[test]
    fn query_parameters_are_unescaped() {
        for (target, expect) in [
            ("/_bulk?filter_path=errors%2Citems", Some("errors,items")),
            ("/_bulk?a=1&filter_path=x", Some("x")),
            ("/_bulk?filter_path=100%", Some("100%")),
            ("/_bulk?filter_path=%zz", Some("%zz")),
            ("/_bulk?other=x", None),
            ("/_bulk", None),
        ] {
            assert_eq!(request(target, &[], b"").query("filter_path").as_deref(), expect, "{target}");
        }
    }

    #[test]
    fn a_body_is_inflated_as_its_header_says() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"hello").unwrap();
        let gzip = gzip.finish().unwrap();
        let read = request("/", &[("content-encoding", "GZIP")], &gzip);
        assert_eq!((&read.body[..], read.unreadable, read.wire.len()), (&b"hello"[..], None, gzip.len()));
        let cut = request("/", &[("content-encoding", "gzip")], &gzip[..gzip.len() - 4]);
        assert!(matches!(cut.unreadable, Some(Unreadable::Broken(_))), "{:?}", cut.unreadable);
        let zstd = request("/", &[("content-encoding", "zstd")], b"x");
        assert_eq!(zstd.unreadable, Some(Unreadable::UnknownEncoding("zstd".into())));
    }
}
