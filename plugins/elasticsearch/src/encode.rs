//! A record as the two lines that `_bulk` takes.

use std::{borrow::Cow, io};

use exporter_kit::pack::{self, Frame, Packed, Packer};
use plugin_api::{Batch, Field, Record};

use crate::{
    config::Bodies,
    fit::{Fit, Limits, fit},
    index::Index,
    template::Product,
    text::{Keep, text},
};

/// What documents are made of, and how large a request may be.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Where they go.
    pub index: Index,
    /// What becomes of the bodies.
    pub bodies: Bodies,
    /// The most bytes of text of each body, where that is sent.
    pub max_text_bytes: usize,
    /// The most bytes of a request, before compression.
    pub max_request_bytes: usize,
}

/// Requests, and what became of the bodies in them.
#[derive(Debug)]
pub struct Encoded {
    /// Bodies of `_bulk`, each within the limit.
    pub requests: Vec<Packed>,
    /// Records that are sent without their bodies, because these do not fit a request.
    pub shed: usize,
    /// Bodies that were mended.
    pub mended: usize,
    /// Bodies that are left out, because no cluster takes them.
    pub left_out: usize,
}

impl Encoder {
    /// Packs a batch into requests. A record that cannot be sent at all is rejected.
    #[must_use]
    pub fn encode(&self, batch: Batch<'_>, product: Product) -> Encoded {
        let limits = self.bodies.limits(product);
        let mut packing = Packing::of(self);
        for record in batch.iter() {
            if let Err(error) = packing.add(record, &limits) {
                record.reject(&error.to_string());
            }
        }
        packing.finish()
    }

    /// The same for some of its records, without their bodies.
    #[must_use]
    pub fn encode_without_bodies(&self, batch: Batch<'_>, records: &[usize]) -> Vec<Packed> {
        let mut packing = Packing::of(self);
        for record in records.iter().filter_map(|index| batch.get(*index)) {
            if let Err(error) = packing.add_without_bodies(record) {
                record.reject(&error.to_string());
            }
        }
        packing.finish().requests
    }

    /// Whether less can be sent of a record than was.
    #[must_use]
    pub fn has_bodies(&self, record: Record<'_>) -> bool {
        let is_there = !record.request_json().is_empty() || !record.response_json().is_empty();
        is_there && self.bodies != Bodies::Off
    }

    /// Writes the action and the document over what is in `lines`. The document is the log with more put in front.
    fn write(&self, lines: &mut Vec<u8>, record: Record<'_>, sent: &Sent<'_>) -> io::Result<()> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let fields = record.fields()?;
        // As JSON, quotation marks included.
        let id = fields.raw(Field::Id).ok_or_else(|| bad("the record lacks `id`"))?;
        let timestamp = fields.raw(Field::Timestamp).ok_or_else(|| bad("the record lacks `timestamp`"))?;

        lines.clear();
        lines.extend_from_slice(br#"{"create":{"_index":""#);
        if !self.index.write_to(lines, timestamp.trim_matches('"')) {
            return Err(bad("the record's timestamp has no date for the index's name"));
        }
        lines.extend_from_slice(br#"","_id":"#);
        lines.extend_from_slice(id.as_bytes());
        lines.extend_from_slice(b"}}\n{\"@timestamp\":");
        lines.extend_from_slice(timestamp.as_bytes());
        if let Some([request, response]) = &sent.texts {
            lines.extend_from_slice(br#","text":{"request":"#);
            serde_json::to_writer(&mut *lines, request)?;
            lines.extend_from_slice(br#","response":"#);
            serde_json::to_writer(&mut *lines, response)?;
            lines.push(b'}');
        }
        let start = lines.len();
        record.to_otel_log().with_bodies(&sent.request, &sent.response).write_to(lines)?;
        // The log's opening brace: the document has one already.
        lines[start] = b',';
        lines.push(b'\n');
        Ok(())
    }
}

/// What is sent of a record's bodies.
#[derive(Debug, Default)]
struct Sent<'a> {
    request: Cow<'a, [u8]>,
    response: Cow<'a, [u8]>,
    texts: Option<[String; 2]>,
}

/// A batch that becomes requests.
struct Packing<'e> {
    encoder: &'e Encoder,
    packer: Packer,
    lines: Vec<u8>,
    shed: usize,
    mended: usize,
    left_out: usize,
}

impl<'e> Packing<'e> {
    fn of(encoder: &'e Encoder) -> Self {
        let limits = pack::Limits { max_records: usize::MAX, max_bytes: encoder.max_request_bytes };
        let packer = Packer::new(Frame::NONE, limits);
        Self { encoder, packer, lines: Vec::new(), shed: 0, mended: 0, left_out: 0 }
    }

    fn add(&mut self, record: Record<'_>, limits: &Limits) -> io::Result<()> {
        let before = (self.mended, self.left_out);
        let sent = self.sent(record, limits);
        self.encoder.write(&mut self.lines, record, &sent)?;
        if self.packer.add(record.index(), &self.lines) {
            return Ok(());
        }
        (self.mended, self.left_out) = before;
        self.add_without_bodies(record)?;
        self.shed += 1;
        Ok(())
    }

    fn add_without_bodies(&mut self, record: Record<'_>) -> io::Result<()> {
        self.encoder.write(&mut self.lines, record, &Sent::default())?;
        if self.packer.add(record.index(), &self.lines) {
            return Ok(());
        }
        Err(io::Error::other("larger than max_request_bytes, even without its bodies"))
    }

    fn sent<'a>(&mut self, record: Record<'a>, limits: &Limits) -> Sent<'a> {
        let Encoder { bodies, max_text_bytes: max, .. } = *self.encoder;
        if bodies == Bodies::Off {
            return Sent::default();
        }
        let (request, response) = (record.request_json(), record.response_json());
        let texts = (bodies == Bodies::Text)
            .then(|| [text(request, max, Keep::Last), text(response, max, Keep::First)]);
        Sent { request: self.fitted(request, limits), response: self.fitted(response, limits), texts }
    }

    fn fitted<'a>(&mut self, body: &'a [u8], limits: &Limits) -> Cow<'a, [u8]> {
        match fit(body, limits) {
            Fit::AsItIs => Cow::Borrowed(body),
            Fit::Mended(mended) => {
                self.mended += 1;
                Cow::Owned(mended)
            }
            Fit::Unfit => {
                self.left_out += 1;
                Cow::Borrowed(&[])
            }
        }
    }

    fn finish(self) -> Encoded {
        let Self { packer, shed, mended, left_out, .. } = self;
        Encoded { requests: packer.finish(), shed, mended, left_out }
    }
}
