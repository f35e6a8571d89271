//! The finished record: three byte strings, and what of them can be let go without reading them.

use std::time::SystemTime;

use bytes::Bytes;
use exporter_pipeline::Shed;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock;

/// The record of one request, serialized once. Cloning it copies no body.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: Uuid,
    /// When the request started.
    pub started: SystemTime,
    /// When the record was made, which is when the request was over.
    pub finished: Instant,
    /// Everything but the bodies: one JSON object on one line.
    pub metrics: Bytes,
    /// The request's body: JSON on one line, or empty.
    pub request: Bytes,
    /// The answer's body: JSON on one line, or empty.
    pub response: Bytes,
    /// Length of `response` before `streamed_data`, when it has that.
    pub(crate) before_streamed_data: Option<usize>,
}

impl Record {
    /// A record of parts that are ready, for measurements and tests of what comes after the recorder.
    pub(crate) fn of_parts(metrics: Bytes, request: Bytes, response: Bytes) -> Self {
        let (started, finished) = (clock::now(), Instant::now());
        let id = clock::id(started);
        Self { id, started, finished, metrics, request, response, before_streamed_data: None }
    }

    /// Bytes of its three parts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.metrics.len() + self.request.len() + self.response.len()
    }

    /// The record without what `level` lets go, which `truncated` then names; `None` when there is nothing of that.
    /// No body is read for it.
    #[must_use]
    pub fn shed(&self, level: Shed) -> Option<Self> {
        let mut record = self.clone();
        let mut gone = Vec::new();
        if let Some(folded) =
            record.before_streamed_data.take().and_then(|length| self.response.get(..length))
        {
            record.response = [folded, b"}"].concat().into();
            gone.push(Shed::StreamedData);
        }
        if level >= Shed::Response && !record.response.is_empty() {
            record.response = Bytes::new();
            gone.push(Shed::Response);
        }
        if level >= Shed::Request && !record.request.is_empty() {
            record.request = Bytes::new();
            gone.push(Shed::Request);
        }
        if gone.is_empty() {
            return None;
        }
        record.metrics = name_truncated(&self.metrics, &gone);
        Some(record)
    }
}

/// The metrics with more names in their `truncated`. Unescaped, that key stands nowhere but where it is a key.
fn name_truncated(metrics: &[u8], gone: &[Shed]) -> Bytes {
    const KEY: &[u8] = b"\"truncated\":[";
    let Some(key) = memchr::memmem::find(metrics, KEY) else { return Bytes::copy_from_slice(metrics) };
    let (before, list) = metrics.split_at(key + KEY.len());
    let (list, after) = list.split_at(memchr::memchr(b']', list).unwrap_or(list.len()));
    let is_named = |level: &Shed| {
        gone.contains(level)
            || memchr::memmem::find(list, format!("\"{}\"", level.name()).as_bytes()).is_some()
    };
    let names: Vec<String> = Shed::ORDER
        .iter()
        .filter(|level| is_named(level))
        .map(|level| format!("\"{}\"", level.name()))
        .collect();
    [before, names.join(",").as_bytes(), after].concat().into()
}
