//! A record as the two lines that `_bulk` takes.

use std::io;

use exporter_kit::pack::{Frame, Limits, Packed, Packer};
use plugin_api::{Batch, Field, Record};

use crate::index::Index;

/// What documents are made of, and how large a request may be.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// Where they go.
    pub index: Index,
    /// Whether the bodies are sent.
    pub has_bodies: bool,
    /// The most bytes of a request, before compression.
    pub max_request_bytes: usize,
}

/// Requests, and how many of their records lost their bodies because these did not fit.
#[derive(Debug)]
pub struct Encoded {
    /// Bodies of `_bulk`, each within the limit.
    pub requests: Vec<Packed>,
    /// Records that are sent without their bodies.
    pub shed: usize,
}

impl Encoder {
    /// Packs a batch into requests. A record that cannot be sent at all is rejected.
    #[must_use]
    pub fn encode(&self, batch: Batch<'_>) -> Encoded {
        let limits = Limits { max_records: usize::MAX, max_bytes: self.max_request_bytes };
        let mut packer = Packer::new(Frame::NONE, limits);
        let (mut lines, mut shed) = (Vec::new(), 0);
        for record in batch.iter() {
            match self.add(&mut packer, &mut lines, record) {
                Ok(has_lost_bodies) => shed += usize::from(has_lost_bodies),
                Err(error) => record.reject(&error.to_string()),
            }
        }
        Encoded { requests: packer.finish(), shed }
    }

    /// True when the record had to lose its bodies.
    fn add(&self, packer: &mut Packer, lines: &mut Vec<u8>, record: Record<'_>) -> io::Result<bool> {
        self.write(lines, record, self.has_bodies)?;
        if packer.add(record.index(), lines) {
            return Ok(false);
        }
        self.write(lines, record, false)?;
        if packer.add(record.index(), lines) {
            return Ok(true);
        }
        Err(io::Error::other("larger than max_request_bytes, even without its bodies"))
    }

    /// Writes the action and the document over what is in `lines`. The document is the log with `@timestamp` put in
    /// front: no body is parsed.
    fn write(&self, lines: &mut Vec<u8>, record: Record<'_>, has_bodies: bool) -> io::Result<()> {
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
        let log = record.to_otel_log();
        let start = lines.len();
        let log = if has_bodies { log } else { log.without_bodies() };
        log.write_to(lines)?;
        // The log's opening brace: the document has one already.
        lines[start] = b',';
        lines.push(b'\n');
        Ok(())
    }
}
