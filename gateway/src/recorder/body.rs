//! Captured bytes, made readable: content codings taken off (of the copy; the client's bytes stay as they are), the JSON
//! checked, what is not JSON described.

use std::{borrow::Cow, mem, time::Duration};

use bytes::Bytes;
use plugin_api::BodyDescription;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use super::{
    decode::{Decoded, Limits, codings, decode_all},
    exchange::{Captured, Kept},
    json::{self, Fields},
    marked_bytes::MarkedBytes,
    multipart::{self, Form},
    sse::MARK,
};
use crate::{budget::Reservation, hex::hex};

/// A captured body, readable.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    bytes: Timed<'a>,
    /// The last bytes of a body of which only the ends were kept.
    tail: &'a [u8],
    /// Every byte is there, as far as the body passed.
    whole: bool,
    /// Decoding was given up at a limit.
    inflated: bool,
}

#[derive(Debug)]
enum Timed<'a> {
    Raw(&'a MarkedBytes),
    Decoded {
        decoded: Decoded,
        is_timed: bool,
        /// While they are read they count as the captured bytes do.
        _held: Reservation,
    },
}

/// What becomes of a body in the record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none, or it is not wanted.
    #[default]
    Nothing,
    /// One line of JSON.
    Json(Bytes),
    /// A form: its fields as one line of JSON, files described in it. What is not `whole` is named as shed.
    Form { json: Bytes, description: BodyDescription<'static>, whole: bool },
    /// Not JSON: described.
    Described(BodyDescription<'static>),
    /// Too large.
    Shed,
    /// Too large, or too costly, once its coding is taken off: described, and named as shed.
    Inflated(BodyDescription<'static>),
}

impl Body {
    /// This, when it is wanted.
    pub(crate) fn when(self, wanted: bool) -> Self {
        if wanted { self } else { Self::Nothing }
    }

    /// Whether it is left out because of its size.
    pub(crate) fn is_shed(&self) -> bool {
        matches!(self, Self::Shed | Self::Inflated(_) | Self::Form { whole: false, .. })
    }
}

/// Opens a captured body; `None` when nothing was kept, or it cannot be decoded. `limit` bounds the decoded bytes.
pub(crate) fn open(captured: &Captured, limit: usize) -> Option<Opened<'_>> {
    let (bytes, tail, whole) = match &captured.kept {
        Kept::Nothing | Kept::Shed => return None,
        Kept::Whole(bytes) => (bytes, [].as_slice(), true),
        Kept::Ends { head, tail } => (head, tail.as_slice(), false),
    };
    let codings = codings(captured.content_encoding.as_deref().unwrap_or_default())?;
    if codings.is_empty() {
        return Some(Opened { bytes: Timed::Raw(bytes), tail, whole, inflated: false });
    }
    let limits = Limits::of(bytes.as_slice().len(), limit);
    let decoded = decode_all(&codings, bytes.as_slice(), bytes.marks(), limits, processor_time).ok()?;
    let (inflated, held) = (decoded.over, bytes.count_beside(decoded.bytes.capacity()));
    let is_timed = bytes.is_timed();
    // A tail cannot be decoded by itself.
    let bytes = Timed::Decoded { decoded, is_timed, _held: held };
    Some(Opened { bytes, tail: &[], whole: whole && !inflated, inflated })
}

impl<'a> Opened<'a> {
    /// Whether every byte is there that passed.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// What becomes of a body that is not whole.
    pub(crate) fn remains(&self, captured: &Captured) -> Body {
        if self.inflated { Body::Inflated(description(captured)) } else { Body::Shed }
    }

    /// Whether it is known when its pieces passed.
    pub(crate) fn is_timed(&self) -> bool {
        match &self.bytes {
            Timed::Raw(bytes) => bytes.is_timed(),
            Timed::Decoded { is_timed, .. } => *is_timed,
        }
    }

    /// The last bytes of a body that is not whole.
    pub(crate) fn tail(&self) -> &'a [u8] {
        self.tail
    }

    /// The bytes from the start, in pieces, with the times at which these passed.
    pub(crate) fn pieces(&self) -> Box<dyn Iterator<Item = (&[u8], Duration)> + '_> {
        match &self.bytes {
            Timed::Raw(bytes) => Box::new(bytes.pieces()),
            Timed::Decoded { decoded, .. } => {
                let mut start = 0;
                Box::new(
                    decoded
                        .ends
                        .iter()
                        .map(move |(end, at)| (&decoded.bytes[mem::replace(&mut start, *end)..*end], *at)),
                )
            }
        }
    }

    /// The bytes from the start, in one.
    pub(crate) fn contiguous(&self) -> &[u8] {
        match &self.bytes {
            Timed::Raw(bytes) => bytes.as_slice(),
            Timed::Decoded { decoded, .. } => &decoded.bytes,
        }
    }
}

/// The fields of a body that is a JSON object, as far as they can be read, and what becomes of the body.
pub(crate) fn read<T>(
    captured: &Captured,
    limit: usize,
    then: impl FnOnce(&Fields<'_>) -> T,
) -> (Body, Option<T>) {
    let Some(opened) = open(captured, limit) else { return (undecoded(captured), None) };
    let bytes = opened.contiguous();
    if let Some(form) = form(captured, &opened) {
        let fields = Fields::read(&form.json).0;
        let then = then(&fields);
        return (form_body(captured, form, limit), Some(then));
    }
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    if !opened.is_whole() {
        let is_binary = is_binary(captured.content_type.as_deref());
        let shed = if is_binary { describe(captured) } else { opened.remains(captured) };
        let mut fields = ends(bytes, opened.tail());
        if let (None, Some(model)) = (fields.get("model"), &captured.model) {
            fields.push(Cow::Borrowed("model"), Cow::Borrowed(model));
        }
        return (shed, Some(then(&fields)));
    }
    let text = utf8(bytes);
    let (fields, end) = Fields::read(text);
    if let Some(text) = end.as_ref().err().and_then(|_| json::finite(text))
        && let (fields, Ok(())) = Fields::read(&text)
        && std::str::from_utf8(bytes).is_ok()
    {
        return (Body::Json(one_line(&text)), Some(then(&fields)));
    }
    let is_json = text.len() == bytes.len() && (end.is_ok() || is_other_json(captured, text));
    let body = match text {
        "" if captured.size == 0 => Body::Nothing,
        _ if is_json => Body::Json(one_line(text)),
        _ => describe(captured),
    };
    (body, Some(then(&fields)))
}

fn form(captured: &Captured, opened: &Opened<'_>) -> Option<Form> {
    let boundary = multipart::boundary(captured.content_type.as_deref()?)?;
    let tail = (!opened.is_whole()).then(|| opened.tail());
    multipart::read(opened.contiguous(), tail, &boundary)
}

/// Its files have hashes of their own; that of all of it, with a boundary made up for this request, would say nothing.
fn form_body(captured: &Captured, form: Form, limit: usize) -> Body {
    let mut description = BodyDescription::new(captured.size);
    description.content_type = captured.content_type.clone().map(Cow::Owned);
    if form.json.len() > limit {
        return Body::Inflated(description);
    }
    Body::Form { json: form.json.into(), description, whole: form.whole }
}

/// What is carried of a body that could not be read, or of which nothing was kept.
pub(crate) fn undecoded(captured: &Captured) -> Body {
    match captured.kept {
        Kept::Nothing => Body::Nothing,
        Kept::Shed if !is_binary(captured.content_type.as_deref()) => Body::Shed,
        Kept::Whole(_) | Kept::Ends { .. } | Kept::Shed => describe(captured),
    }
}

/// JSON that is not an object. A bare number or word is taken for JSON only where the sender says so.
fn is_other_json(captured: &Captured, text: &str) -> bool {
    let is_array = text.trim_start().starts_with('[');
    (is_array || captured.is_media_type(|subtype| subtype.ends_with("json")))
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

fn one_line(text: &str) -> Bytes {
    let mut json = text.trim().as_bytes().to_vec();
    json::flatten(&mut json);
    Bytes::from(json)
}

/// The longest start of `bytes` that is UTF-8.
fn utf8(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Fields that stand in the head of a large JSON object, or after its bulk.
fn ends<'a>(head: &'a [u8], tail: &'a [u8]) -> Fields<'a> {
    let mut fields = Fields::read(utf8(head)).0;
    fields.extend(last_fields(tail));
    fields
}

/// The last fields of the object that ends with `tail`, from `model` or `usage` on.
///
/// Unescaped, `"usage":` cannot stand inside of a string; and when all from there to the end, with a brace put before it,
/// is an object, then it is a field of the object that ends there. So this reads, and does not guess.
fn last_fields(tail: &[u8]) -> Fields<'static> {
    let starts = ["\"model\":", "\"usage\":"].map(|key| memchr::memmem::rfind(tail, key.as_bytes()));
    let mut starts: Vec<usize> = starts.into_iter().flatten().collect();
    starts.sort_unstable();
    for start in starts {
        let Ok(rest) = std::str::from_utf8(&tail[start..]) else { continue };
        let object = format!("{{{rest}");
        let (fields, end) = Fields::read(&object);
        if end.is_ok() && !tail[..start].ends_with(b"\\") {
            return fields.into_owned();
        }
    }
    Fields::default()
}

/// Whether a body is not even meant to be text: then it is described, and never called shed.
fn is_binary(content_type: Option<&str>) -> bool {
    let kind = content_type.unwrap_or_default().trim_start().to_ascii_lowercase();
    ["audio/", "image/", "video/", "multipart/", "application/octet-stream"]
        .iter()
        .any(|binary| kind.starts_with(binary))
}

/// Content type, size and hash in place of a body.
pub(crate) fn describe(captured: &Captured) -> Body {
    Body::Described(description(captured))
}

fn description(captured: &Captured) -> BodyDescription<'static> {
    let mut description = BodyDescription::new(captured.size);
    description.content_type = captured.content_type.clone().map(Cow::Owned);
    description.sha256 = match &captured.kept {
        Kept::Whole(bytes) => Some(hex(&Sha256::digest(bytes.as_slice())).into()),
        Kept::Nothing | Kept::Ends { .. } | Kept::Shed => None,
    };
    description
}

/// Time that this thread has had of the processor: what others make it wait is not the body's fault.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
pub(in crate::recorder) mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;
    use crate::{
        budget::Budget,
        recorder::tests::golden::{captured, marked, piece},
    };

    /// `bytes` in every coding that is known.
    pub(in crate::recorder) fn encoded(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let level = Compression::fast();
        let mut gzip = GzEncoder::new(Vec::new(), level);
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        let mut bare = DeflateEncoder::new(Vec::new(), level);
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 4, 20);
        for encoder in [&mut gzip as &mut dyn Write, &mut zlib, &mut bare, &mut brotli] {
            encoder.write_all(bytes).unwrap();
        }
        vec![
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("br", brotli.into_inner()),
            ("zstd", zstd::stream::encode_all(bytes, 1).unwrap()),
        ]
    }

    fn read_json(captured: &Captured, limit: usize) -> Body {
        read(captured, limit, |_| ()).0
    }

    fn in_coding(coding: &'static str, bytes: &[u8]) -> Captured {
        let mut captured = captured("application/json", vec![piece(bytes, 0)]);
        captured.content_encoding = Some(coding.to_owned());
        captured
    }

    #[test]
    fn a_body_in_any_known_coding_is_read_as_if_it_had_none() {
        let json = format!("{{\"model\":\"m\",\"text\":\"{}\"}}", "wörd ".repeat(3000));
        for (coding, bytes) in encoded(json.as_bytes()) {
            let captured = in_coding(coding, &bytes);
            let (body, model) = read(&captured, 1 << 20, |fields| fields.text("model").map(Cow::into_owned));
            assert_eq!(body, Body::Json(json.clone().into()), "{coding}");
            assert_eq!(model.flatten().as_deref(), Some("m"), "{coding}");
        }
    }

    #[test]
    fn a_few_bytes_that_decode_to_very_many_are_shed_and_cost_no_more_than_the_limit() {
        let json = format!("{{\"model\":\"m\",\"text\":\"{}\"}}", "a".repeat(20 << 20));
        for (coding, bytes) in encoded(json.as_bytes()) {
            let captured = in_coding(coding, &bytes);
            let opened = open(&captured, 1 << 16).unwrap();
            assert!(!opened.is_whole(), "{coding}");
            assert!(opened.contiguous().len() <= 1 << 16, "{coding}");
            let (body, model) = read(&captured, 1 << 16, |fields| fields.text("model").map(Cow::into_owned));
            assert!(matches!(body, Body::Inflated(_)), "{coding}: {body:?}");
            assert_eq!(model.flatten().as_deref(), Some("m"), "{coding}");
        }
    }

    #[test]
    fn decoded_bytes_count_against_the_budget_while_they_are_read() {
        let budget = Budget::new(1 << 30);
        for (coding, zipped) in encoded("a".repeat(100_000).as_bytes()) {
            let mut bytes = MarkedBytes::new(Reservation::of(&budget));
            bytes.push(&zipped, Duration::ZERO, None).unwrap();
            let captured = Captured {
                content_encoding: Some(coding.to_owned()),
                kept: Kept::Whole(bytes),
                ..Captured::default()
            };
            let before = budget.used();
            let opened = open(&captured, 1 << 20).unwrap();
            assert!(budget.used() >= before + opened.contiguous().len() as u64, "{coding}");
            drop(opened);
            assert_eq!(budget.used(), before, "{coding}");
        }
    }

    #[test]
    fn a_body_in_no_known_coding_or_not_in_the_one_it_names_is_described() {
        for (coding, bytes) in [
            ("compress", b"{}".as_slice()),
            ("gzip, x", b"{}"),
            ("zstd", b"{\"a\":1}"),
            ("gzip", b"{\"a\":1}"),
            ("br", b"{\"a\":1}xx"),
        ] {
            let Body::Described(described) = read_json(&in_coding(coding, bytes), 1 << 20) else {
                panic!("{coding}")
            };
            assert_eq!((described.size, described.sha256.is_some()), (bytes.len() as u64, true), "{coding}");
        }
        assert_eq!(read_json(&in_coding("identity", b"{}"), 1 << 20), Body::Json("{}".into()));
    }

    #[test]
    fn codings_in_a_row_are_taken_off_from_the_last_to_the_first() {
        let json = format!("{{\"model\":\"m\",\"text\":\"{}\"}}", "wörd ".repeat(3000));
        for (inner, once) in encoded(json.as_bytes()) {
            for (outer, twice) in encoded(&once) {
                for names in
                    [format!("{inner}, {outer}"), format!("{inner},identity , {}", outer.to_uppercase())]
                {
                    let mut captured = captured("application/json", vec![piece(&twice, 0)]);
                    captured.content_encoding = Some(names.clone());
                    assert_eq!(read_json(&captured, 1 << 20), Body::Json(json.clone().into()), "{names}");
                }
            }
        }
    }

    #[test]
    fn a_byte_order_mark_and_numbers_of_python_are_no_part_of_json() {
        for (bytes, expected) in [
            ("\u{FEFF}{\"model\":\"m\"}", "{\"model\":\"m\"}"),
            ("{\"model\":\"m\",\"x\":[NaN,-Infinity]}", "{\"model\":\"m\",\"x\":[null,null]}"),
        ] {
            let captured = captured("application/json", vec![piece(bytes, 0)]);
            let (body, model) = read(&captured, 1 << 20, |fields| fields.text("model").map(Cow::into_owned));
            assert_eq!(
                (body, model.flatten().as_deref()),
                (Body::Json(expected.into()), Some("m")),
                "{bytes}"
            );
        }
    }

    #[test]
    fn a_form_is_carried_as_its_fields_and_one_without_its_middle_is_named_as_shed() {
        let form = "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper-1\r\n\
            --b\r\nContent-Disposition: form-data; name=file; filename=a.mp3\r\n\r\nID3\r\n--b--\r\n";
        let content_type = "multipart/form-data; boundary=b";
        let model = |fields: &Fields<'_>| fields.text("model").map(Cow::into_owned);
        let whole = captured(content_type, vec![piece(form, 0)]);
        let (body, read_model) = read(&whole, 1 << 20, model);
        assert_eq!(read_model.flatten().as_deref(), Some("whisper-1"));
        let Body::Form { json, description, whole: true } = &body else { panic!("{body:?}") };
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!((&json["model"], &json["file"]["size"]), (&"whisper-1".into(), &3.into()));
        assert_eq!(
            (description.content_type.as_deref(), description.size),
            (Some(content_type), form.len() as u64)
        );
        assert!(!body.is_shed());
        // What is made of few bytes is bounded too.
        assert!(matches!(read(&whole, 20, model).0, Body::Inflated(_)));
        let mut ends = captured(content_type, Vec::new());
        ends.size = 25 << 20;
        ends.kept = Kept::Ends {
            head: marked(&[piece(&form[..form.len() - 20], 0)]),
            tail: b"xx\r\n--b--\r\n".to_vec(),
        };
        let (body, read_model) = read(&ends, 1 << 20, model);
        assert_eq!(read_model.flatten().as_deref(), Some("whisper-1"));
        assert!(body.is_shed() && matches!(body, Body::Form { .. }), "{body:?}");
    }

    #[test]
    fn json_is_carried_on_one_line() {
        let captured = captured("text/plain", vec![piece(" {\r\n \"a\": [1,\n2] }\n", 0)]);
        let Body::Json(json) = read_json(&captured, 1 << 20) else { panic!() };
        assert_eq!(json, "{   \"a\": [1, 2] }".as_bytes());
    }

    #[test]
    fn what_is_not_json_is_described_with_its_hash() {
        let cases: [(&'static str, &[u8]); 6] = [
            ("multipart/form-data; boundary=x", b"--x\r\n"),
            ("audio/mpeg", &[0xff, 0xfb, 0x90]),
            ("text/plain", b"5"),
            ("application/json", b"{\"a\":"),
            ("application/json", b"{\"a\":\"\xff\"}"),
            ("text/html", b"<html>"),
        ];
        for (content_type, bytes) in cases {
            let Body::Described(described) =
                read_json(&captured(content_type, vec![piece(bytes, 0)]), 1 << 20)
            else {
                panic!("{content_type}")
            };
            assert_eq!(described.content_type.as_deref(), Some(content_type));
            assert_eq!(described.size, bytes.len() as u64);
            assert_eq!(described.sha256.map(|hash| hash.len()), Some(64));
        }
        let Body::Described(abc) = read_json(&captured("text/plain", vec![piece("a", 0), piece("bc", 1)]), 9)
        else {
            panic!()
        };
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(abc.sha256.as_deref(), Some(expected));
    }

    #[test]
    fn a_bare_value_is_json_where_it_is_said_to_be() {
        assert_eq!(
            read_json(&captured("application/problem+json", vec![piece("5", 0)]), 9),
            Body::Json("5".into())
        );
        assert_eq!(read_json(&captured("text/plain", vec![piece("[1]", 0)]), 9), Body::Json("[1]".into()));
    }

    #[test]
    fn of_a_large_body_the_facts_at_its_ends_are_read() {
        let ends = |content_type: &'static str, head: &str, tail: &str| {
            let mut captured = captured(content_type, Vec::new());
            captured.size = 50 << 20;
            captured.kept = Kept::Ends { head: marked(&[piece(head, 0)]), tail: tail.as_bytes().to_vec() };
            let facts = |fields: &Fields<'_>| {
                (fields.text("model").map(Cow::into_owned), fields.get("usage").map(str::to_owned))
            };
            let (body, facts) = read(&captured, 1 << 20, facts);
            (body, facts.unwrap_or_default())
        };
        let usage = r#"{"prompt_tokens":8,"total_tokens":8}"#;
        let both = (Some("m".to_owned()), Some(usage.to_owned()));
        let json = "application/json";
        let embeddings = format!(r#"1,0.2]}}],"model":"m","usage":{usage}}}"#);
        assert_eq!(
            ends(json, r#"{"object":"list","data":[{"embedding":[0."#, &embeddings),
            (Body::Shed, both.clone())
        );
        let chat = format!(r#"…"}}}}],"usage":{usage},"service_tier":"default"}}"#);
        assert_eq!(ends(json, r#"{"id":"c","model":"m","choices":[{"#, &chat), (Body::Shed, both));
        // Inside of a string, or of an inner object, it is not the answer's.
        let none = (Body::Shed, (None, None));
        assert_eq!(ends(json, "{", &format!(r#" \"usage\":{usage}}} \"usage\": "}}"#)), none);
        assert_eq!(ends(json, "{", &format!(r#"{{"inner":{{"usage":{usage}}},"x":1}}"#)), none);
        assert_eq!(ends(json, "{", &format!(r#""usage":{usage}"#)), none, "cut off");
        let mut between = captured(json, Vec::new());
        between.kept = Kept::Ends { head: marked(&[piece("{\"a\":\"", 0)]), tail: b"x\"}".to_vec() };
        between.model = Some("\"m\"".to_owned());
        let model = read(&between, 9, |fields| fields.text("model").map(Cow::into_owned)).1;
        assert_eq!(model.flatten().as_deref(), Some("m"));
        let Body::Described(audio) = ends("audio/mpeg", "ID3", "zzz").0 else { panic!() };
        assert_eq!((audio.size, audio.sha256), (50 << 20, None));
    }
}
