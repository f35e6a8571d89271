//! Forms (`multipart/form-data`, RFC 7578) as JSON: the text fields as they are, files described and never carried.
//!
//! A form whose middle was not kept gives the fields of its ends: clients put `model` before the file or behind it.

use std::borrow::Cow;

use memchr::memmem;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::exchange::{MAX_ID_BYTES, cut};
use crate::hex::hex;

/// RFC 2046 allows 70; some clients have more.
const MAX_BOUNDARY: usize = 200;
/// Parts beyond this number are no request to a model.
const MAX_PARTS: usize = 256;
/// Headers of one part.
const MAX_HEADERS: usize = 8 * 1024;

/// A form, as far as it was kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// One object. A name that comes more than once has a list.
    pub(crate) json: String,
    /// No part is left out.
    pub(crate) whole: bool,
}

/// What stands between the parts of a form of that content type; `None` where it is no form.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    let (essence, rest) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let (_, boundary) = Parameters(rest).find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
    (1..=MAX_BOUNDARY).contains(&boundary.len()).then(|| boundary.into_owned())
}

/// Reads a form. `tail` is what was kept of its end where its middle was not. `None` where there is no part.
pub(crate) fn read(head: &[u8], tail: Option<&[u8]>, boundary: &str) -> Option<Form> {
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = Parts::begin(head, delimiter.as_bytes());
    let mut fields: Vec<(Cow<'_, str>, Value<'_>)> = Vec::new();
    let mut more = parts.take_into(&mut fields, tail.is_some());
    if let Some(tail) = tail {
        let mut parts = Parts::midway(tail, delimiter.as_bytes());
        more |= parts.take_into(&mut fields, false);
    }
    (!fields.is_empty()).then(|| Form { json: json(&fields), whole: !more && tail.is_none() })
}

/// A part's value in the JSON.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Text(&'a str),
    File {
        filename: Option<Cow<'a, str>>,
        content_type: Option<Cow<'a, str>>,
        /// `null` where its end was not kept.
        size: Option<usize>,
        sha256: Option<String>,
    },
}

/// What stands behind a delimiter, and behind those after it.
struct Parts<'a, 'd> {
    rest: Option<&'a [u8]>,
    delimiter: &'d [u8],
}

struct Part<'a> {
    headers: &'a [u8],
    content: &'a [u8],
    /// Its end was kept.
    ended: bool,
}

impl<'a, 'd> Parts<'a, 'd> {
    /// The first delimiter needs no line before it.
    fn begin(bytes: &'a [u8], delimiter: &'d [u8]) -> Self {
        match bytes.strip_prefix(&delimiter[2..]) {
            Some(rest) if is_line_end(rest) => Self { rest: Some(rest), delimiter },
            _ => Self::midway(bytes, delimiter),
        }
    }

    fn midway(bytes: &'a [u8], delimiter: &'d [u8]) -> Self {
        Self { rest: split(bytes, delimiter).map(|(_, rest)| rest), delimiter }
    }

    /// Adds the parts. True: there are more than may be. `cut` says that what has no end here goes on elsewhere.
    fn take_into(&mut self, fields: &mut Vec<(Cow<'a, str>, Value<'a>)>, cut: bool) -> bool {
        for part in self.by_ref() {
            if fields.len() == MAX_PARTS {
                return true;
            }
            fields.extend(part.field(cut));
        }
        false
    }
}

impl<'a> Iterator for Parts<'a, '_> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let rest = self.rest.take()?;
        if rest.starts_with(b"--") {
            return None;
        }
        let start = memmem::find(rest, b"\r\n")? + 2;
        let part = &rest[start..];
        // A part may have no headers at all: then a blank line comes at once.
        let head = memmem::find(&rest[start - 2..], b"\r\n\r\n").filter(|length| *length <= MAX_HEADERS)?;
        let headers = &rest[start - 2..start - 2 + head];
        let body = part.get(head + 2..)?;
        // An empty part's delimiter begins with the line end of its headers.
        let with_line_end = &rest[start + head..];
        let (content, rest, ended) = match split(with_line_end, self.delimiter) {
            Some((before, rest)) => (before.get(2..).unwrap_or_default(), Some(rest), true),
            None => (body, None, false),
        };
        self.rest = rest;
        Some(Part { headers, content, ended })
    }
}

impl<'a> Part<'a> {
    fn field(&self, cut_short: bool) -> Option<(Cow<'a, str>, Value<'a>)> {
        let headers = std::str::from_utf8(self.headers).ok()?;
        let disposition = header(headers, "content-disposition")?;
        let (kind, parameters) = disposition.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return None;
        }
        let parameter = |wanted: &str| {
            Parameters(parameters).find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
        };
        let name = shortened(parameter("name")?);
        let filename =
            parameter("filename*").and_then(|value| extended(&value)).or_else(|| parameter("filename"));
        let content_type = header(headers, "content-type");
        let is_complete = self.ended || !cut_short;
        let text = std::str::from_utf8(self.content).ok().filter(|_| filename.is_none());
        let value = match text {
            // Half a text says something else than the whole.
            Some(_) if !is_complete => return None,
            Some(text) => Value::Text(text),
            None => Value::File {
                filename: filename.map(shortened),
                content_type: content_type.map(|it| Cow::Borrowed(cut(it, MAX_ID_BYTES))),
                size: is_complete.then_some(self.content.len()),
                sha256: is_complete.then(|| hex(&Sha256::digest(self.content))),
            },
        };
        Some((name, value))
    }
}

/// What stands before the next delimiter, and what stands behind it.
fn split<'a>(bytes: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut ends = memmem::find_iter(bytes, delimiter);
    // A longer boundary may begin with this one.
    let at = ends.find(|at| is_line_end(&bytes[at + delimiter.len()..]))?;
    Some((&bytes[..at], &bytes[at + delimiter.len()..]))
}

/// Whether a delimiter may end here: at a line's end, white space before it counted, or with the dashes of the last one.
fn is_line_end(rest: &[u8]) -> bool {
    let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.starts_with(b"--") || rest[blank..].starts_with(b"\r\n")
}

/// A header's value.
fn header<'a>(headers: &'a str, wanted: &str) -> Option<&'a str> {
    let mut lines = headers.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    Some(value.trim())
}

/// `; name=value; name="value"`.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches([';', ' ', '\t']);
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, rest) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
                (Cow::Borrowed(value.trim()), rest)
            }
        };
        self.0 = rest;
        Some((name.trim(), value))
    }
}

/// What stands before the closing quote, and behind it. A backslash is an escape only where it must be: old browsers send
/// whole Windows paths.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut end = 0;
    loop {
        end += text[end..].find(['"', '\\'])?;
        if text[end..].starts_with('"') {
            break;
        }
        end += if text[end..].starts_with("\\\"") || text[end..].starts_with("\\\\") { 2 } else { 1 };
    }
    let inside = &text[..end];
    let value = if inside.contains('\\') {
        Cow::Owned(inside.replace("\\\"", "\"").replace("\\\\", "\\"))
    } else {
        Cow::Borrowed(inside)
    };
    Some((value, &text[end + 1..]))
}

/// `UTF-8''na%C3%AFve.txt`, RFC 5987.
fn extended(value: &str) -> Option<Cow<'static, str>> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let text =
        percent_decode_str(encoded).decode_utf8().ok().filter(|_| charset.eq_ignore_ascii_case("utf-8"))?;
    Some(Cow::Owned(text.into_owned()))
}

fn shortened(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() > MAX_ID_BYTES { Cow::Owned(cut(&text, MAX_ID_BYTES).to_owned()) } else { text }
}

fn json(fields: &[(Cow<'_, str>, Value<'_>)]) -> String {
    let mut json = "{".to_owned();
    for (index, (name, value)) in fields.iter().enumerate() {
        if fields[..index].iter().any(|(before, _)| before == name) {
            continue;
        }
        let all: Vec<&Value<'_>> =
            fields[index..].iter().filter(|(it, _)| it == name).map(|(_, value)| value).collect();
        if index > 0 {
            json.push(',');
        }
        super::json::write_key(&mut json, name);
        // Strings, numbers and lists of them always serialize.
        let written =
            if let [_] = all[..] { serde_json::to_string(value) } else { serde_json::to_string(&all) };
        json.push_str(&written.unwrap_or_default());
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn form(parts: &[(&str, &str)], boundary: &str) -> String {
        let parts =
            parts.iter().map(|(headers, content)| format!("--{boundary}\r\n{headers}\r\n\r\n{content}\r\n"));
        format!("{}--{boundary}--\r\n", parts.collect::<String>())
    }

    fn field(name: &str) -> String {
        format!("Content-Disposition: form-data; name=\"{name}\"")
    }

    fn parsed(form: Option<Form>) -> Json {
        form.map_or(Json::Null, |form| serde_json::from_str(&form.json).unwrap())
    }

    fn hash(content: &[u8]) -> String {
        hex(&Sha256::digest(content))
    }

    #[test]
    fn the_boundary_is_read_however_it_is_written() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data;boundary=\"a b'()+_,-./:=?c\"", Some("a b'()+_,-./:=?c")),
            ("multipart/form-data; charset=utf-8; BOUNDARY=abc ; x=y", Some("abc")),
            ("multipart/form-data; x=\"; boundary=no\"; boundary=yes", Some("yes")),
            ("multipart/form-data; boundary=a=b", Some("a=b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"open", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json; boundary=abc", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
        let long = |length| format!("multipart/form-data; boundary={}", "b".repeat(length));
        assert_eq!([boundary(&long(200)).is_some(), boundary(&long(201)).is_some()], [true, false]);
    }

    #[test]
    fn texts_are_carried_and_files_described() {
        let file =
            "Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg";
        let body = form(&[(&field("model"), "whisper-1"), (file, "ID3\r\n--X"), (&field("prompt"), "")], "X");
        let expected = json!({
            "model": "whisper-1", "prompt": "",
            "file": {"filename": "a.mp3", "content_type": "audio/mpeg", "size": 8, "sha256": hash(b"ID3\r\n--X")},
        });
        // A line that looks like a delimiter is one: this file ends where its content says so.
        assert_ne!(parsed(read(body.as_bytes(), None, "X")), expected);
        let body = body.replace("--X", "--Y").replace("ID3\r\n--Y", "ID3\r\n--X");
        let read = read(body.as_bytes(), None, "Y");
        assert!(read.as_ref().unwrap().whole);
        assert_eq!(parsed(read), expected);
    }

    #[test]
    fn parts_are_read_in_every_way_that_clients_write_them() {
        for (headers, content, expected) in [
            ("content-disposition:form-data;name=a", "x", json!({"a": "x"})),
            (
                "Content-Type: text/plain\r\nContent-Disposition: form-data; name=\"a\"",
                "é\r\n\r\n",
                json!({"a": "é\r\n\r\n"}),
            ),
            ("Content-Disposition: form-data; name=\"a\\\"b\\\\c\"", "x", json!({"a\"b\\c": "x"})),
            (
                "Content-Disposition: form-data; name=\"a\"; filename=\"C:\\dir\\x.txt\"",
                "x",
                json!({"a": {"filename": "C:\\dir\\x.txt", "content_type": null, "size": 1, "sha256": hash(b"x")}}),
            ),
            (
                "Content-Disposition: form-data; name=\"a\"; filename=\"x\"; filename*=UTF-8''na%C3%AFve%20x",
                "",
                json!({"a": {"filename": "naïve x", "content_type": null, "size": 0, "sha256": hash(b"")}}),
            ),
            ("Content-Disposition: attachment; name=\"a\"", "x", Json::Null),
            ("Content-Disposition: form-data", "x", Json::Null),
            ("Content-Type: text/plain", "x", Json::Null),
            ("", "x", Json::Null),
        ] {
            let body = form(&[(headers, content)], "b");
            assert_eq!(parsed(read(body.as_bytes(), None, "b")), expected, "{headers}");
        }
        let bytes =
            [b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--b--".as_slice()].concat();
        assert_eq!(parsed(read(&bytes, None, "b"))["a"]["size"], 1, "what is no text is a file");
    }

    #[test]
    fn a_name_that_comes_twice_has_a_list() {
        let name = field("granularities[]");
        let body = form(&[(&name, "word"), (&field("model"), "m"), (&name, "segment")], "b");
        let expected = json!({"granularities[]": ["word", "segment"], "model": "m"});
        assert_eq!(parsed(read(body.as_bytes(), None, "b")), expected);
    }

    #[test]
    fn delimiters_are_told_from_what_looks_like_them() {
        let model = "Content-Disposition: form-data; name=model\r\n\r\nm";
        for body in [
            format!("--b\r\n{model}\r\n--b--"),
            format!("preamble\r\n--b \t\r\n{model}\r\n--b--\r\nepilogue"),
            format!("--bb\r\n\r\n--b\r\n{model}\r\n--b--"),
        ] {
            assert_eq!(parsed(read(body.as_bytes(), None, "b")), json!({"model": "m"}), "{body}");
        }
        let longer = format!("--b\r\n{model}\r\n--bc\r\n--b--");
        assert_eq!(parsed(read(longer.as_bytes(), None, "b")), json!({"model": "m\r\n--bc"}));
        for junk in ["", "--b", "--b--", "--b\r\n", "--b\r\n\r\n", "b\r\n", "--b\r\n--b\r\n--b--"] {
            assert_eq!(read(junk.as_bytes(), None, "b"), None, "{junk:?}");
        }
    }

    #[test]
    fn a_form_that_breaks_off_gives_what_came() {
        let body = form(&[(&field("model"), "m"), (&field("prompt"), "Say")], "b");
        let cut = body.find("Say").unwrap() + 2;
        assert_eq!(parsed(read(&body.as_bytes()[..cut], None, "b")), json!({"model": "m", "prompt": "Sa"}));
    }

    #[test]
    fn of_a_form_without_its_middle_the_fields_at_its_ends_are_read() {
        let file = "Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"";
        let body = form(&[(&field("before"), "b"), (file, &"x".repeat(1000)), (&field("model"), "m")], "b");
        let described = json!({"filename": "a.mp3", "content_type": null, "size": null, "sha256": null});
        let whole = json!({"before": "b", "file": described, "model": "m"});
        let (head, tail) = (&body.as_bytes()[..300], &body.as_bytes()[body.len() - 200..]);
        let read_ends = read(head, Some(tail), "b");
        assert!(!read_ends.as_ref().unwrap().whole);
        assert_eq!(parsed(read_ends), whole);
        // Half a text is left out.
        let cut = body.find("\r\nx").unwrap_or_default().min(60);
        assert_eq!(parsed(read(&body.as_bytes()[..cut], Some(tail), "b")), json!({"model": "m"}));
    }

    #[test]
    fn parts_and_headers_are_bounded() {
        let name = |number: usize| field(&format!("n{number}"));
        for (count, whole) in [(MAX_PARTS, true), (MAX_PARTS + 1, false), (10 * MAX_PARTS, false)] {
            let body: String =
                (0..count).map(|number| format!("--b\r\n{}\r\n\r\nv\r\n", name(number))).collect();
            let form = read(format!("{body}--b--").as_bytes(), None, "b");
            assert_eq!(form.as_ref().unwrap().whole, whole, "{count}");
            assert_eq!(parsed(form).as_object().unwrap().len(), count.min(MAX_PARTS));
        }
        let long = "n".repeat(MAX_ID_BYTES + 1);
        let read_name = parsed(read(form(&[(&field(&long), "v")], "b").as_bytes(), None, "b"));
        assert_eq!(read_name, json!({ &long[1..]: "v" }));
        let huge = format!("X: {}\r\n{}", "x".repeat(MAX_HEADERS), field("a"));
        assert_eq!(read(form(&[(&huge, "v")], "b").as_bytes(), None, "b"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_json_or_nothing(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(b"--b".to_vec()), Just(b"\r\n".to_vec()), Just(b"--".to_vec()), Just(b"\r\n\r\n".to_vec()),
                    Just(b"Content-Disposition: form-data; name=a".to_vec()), Just(b"; filename=\"".to_vec()),
                    Just(b"\"".to_vec()), Just(b"\\".to_vec()), Just("é".as_bytes().to_vec()), any::<u8>().prop_map(|byte| vec![byte]),
                ],
                0..40,
            ),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let bytes = pieces.concat();
            let (head, tail) = match cut {
                Some(cut) => { let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1)); (head, Some(tail)) }
                None => (bytes.as_slice(), None),
            };
            if let Some(form) = read(head, tail, "b") {
                prop_assert!(serde_json::from_str::<Json>(&form.json).is_ok(), "{}", form.json);
            }
        }
    }
}
