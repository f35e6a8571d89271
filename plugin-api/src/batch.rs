//! A batch as the plugin sees it: records to read, verdicts to give.

use std::{fmt, io, time::Duration};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    abi::{BatchV1, Slice, part, verdict},
    flat::Fields,
    metrics::RequestMetrics,
    otel_log,
};

/// Records to deliver in one call of [`export`](crate::TelemetryExporter::export).
///
/// A record without a verdict shares the fate of the call: delivered with `Ok(())`, else what the error says.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    table: &'a BatchV1,
}

impl<'a> Batch<'a> {
    /// # Safety
    /// `table` is a batch as the ABI describes it, valid for `'a`.
    pub(crate) unsafe fn new(table: &'a BatchV1) -> Self {
        Self { table }
    }

    /// Number of records; at least 1.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.length
    }

    /// Whether there is no record. The gateway sends no empty batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often this batch was sent before: 0 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.table.attempt
    }

    /// From the start of the call until the gateway gives up on it.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.table.deadline_ms)
    }

    /// The records, in the order in which their requests ended.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        let table = self.table;
        (0..table.length).map(move |index| Record { table, index })
    }

    /// Record `index`, if there is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Record<'a>> {
        (index < self.len()).then_some(Record { table: self.table, index })
    }

    /// Record `index` is with the backend, whatever this call returns in the end.
    pub fn delivered(&self, index: usize) {
        self.judge(index, verdict::DELIVERED, "");
    }

    /// Record `index` is to be sent again.
    pub fn retry(&self, index: usize, reason: &str) {
        self.judge(index, verdict::RETRY, reason);
    }

    /// The backend will never take record `index`. It is counted as rejected, with the reason in the log.
    pub fn reject(&self, index: usize, reason: &str) {
        self.judge(index, verdict::REJECTED, reason);
    }

    /// Asks to wait at least this long before the records to be retried are sent again.
    pub fn retry_after(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        (self.table.retry_after)(self.table.context, milliseconds);
    }

    fn judge(&self, index: usize, verdict: u32, reason: &str) {
        (self.table.verdict)(self.table.context, index, verdict, Slice::of(reason.as_bytes()));
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).field("attempt", &self.attempt()).finish()
    }
}

/// One record of a batch.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    table: &'a BatchV1,
    index: usize,
}

impl<'a> Record<'a> {
    /// Its place in the batch.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// [`RequestMetrics`] without the bodies, as one JSON object.
    #[must_use]
    pub fn metrics_json(&self) -> &'a [u8] {
        self.part(part::METRICS)
    }

    /// The request's body as JSON; empty when there is none, or this plugin may not see it.
    #[must_use]
    pub fn request_json(&self) -> &'a [u8] {
        self.part(part::REQUEST)
    }

    /// The response's body as JSON; empty when there is none, or this plugin may not see it.
    #[must_use]
    pub fn response_json(&self) -> &'a [u8] {
        self.part(part::RESPONSE)
    }

    /// Bytes of all parts together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.metrics_json().len() + self.request_json().len() + self.response_json().len()
    }

    /// The record, typed, with the bodies as [`RawValue`]s.
    ///
    /// # Errors
    /// When the gateway sent what is no record; a bug of the gateway's.
    pub fn metrics(&self) -> serde_json::Result<RequestMetrics<'a>> {
        let mut metrics: RequestMetrics<'a> = serde_json::from_slice(self.metrics_json())?;
        metrics.request = body(self.request_json())?;
        metrics.response = body(self.response_json())?;
        Ok(metrics)
    }

    /// The record's fields as the JSON they are: the quickest way to read some of them.
    ///
    /// # Errors
    /// When the gateway sent what is no record; a bug of the gateway's.
    pub fn fields(&self) -> serde_json::Result<Fields<'a>> {
        Fields::parse(self.metrics_json())
    }

    /// Reads only those fields of the record that `T` names.
    ///
    /// # Errors
    /// When a field of `T` is missing or has another type.
    pub fn read<T: Deserialize<'a>>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(self.metrics_json())
    }

    /// The record in its OpenTelemetry log form, spliced from the parts when it is written.
    #[must_use]
    pub fn to_otel_log(&self) -> RecordLog<'a> {
        RecordLog { record: *self, request: self.request_json(), response: self.response_json() }
    }

    /// This record is with the backend, whatever the call returns in the end.
    pub fn delivered(&self) {
        Batch { table: self.table }.delivered(self.index);
    }

    /// This record is to be sent again.
    pub fn retry(&self, reason: &str) {
        Batch { table: self.table }.retry(self.index, reason);
    }

    /// The backend will never take this record.
    pub fn reject(&self, reason: &str) {
        Batch { table: self.table }.reject(self.index, reason);
    }

    fn part(&self, part: u32) -> &'a [u8] {
        let slice = (self.table.part)(self.table.context, self.index, part);
        // SAFETY: the ABI promises that a part is valid until `export` returns, which `'a` does not outlive.
        unsafe { slice.as_bytes() }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("index", &self.index).field("size", &self.size()).finish()
    }
}

/// [`OtelLog`](crate::OtelLog) of one record of a batch.
#[derive(Clone, Copy)]
pub struct RecordLog<'a> {
    record: Record<'a>,
    request: &'a [u8],
    response: &'a [u8],
}

impl<'a> RecordLog<'a> {
    /// The log without the bodies, for a backend that limits the size of one entry: `request` and `response` are
    /// `null`, and `metadata.truncated` names what is missing.
    #[must_use]
    pub fn without_bodies(self) -> Self {
        self.with_bodies(&[], &[])
    }

    /// The log with these bodies in the place of the record's own, for a backend that does not take all JSON. Each is
    /// JSON, or empty: then it is `null`, and `metadata.truncated` names it if the record has one.
    #[must_use]
    pub fn with_bodies<'b>(self, request: &'b [u8], response: &'b [u8]) -> RecordLog<'b>
    where
        'a: 'b,
    {
        RecordLog { record: self.record, request, response }
    }

    /// Writes the log as one line of JSON, without a newline at its end, in many small pieces: give it a `Vec` or a
    /// `BufWriter`. A line break between two tokens of a body becomes a space.
    ///
    /// # Errors
    /// When the gateway sent what is no record, and those of `out`. What was written until then is no whole log.
    pub fn write_to(&self, out: &mut impl io::Write) -> io::Result<()> {
        let fields = self.record.fields()?;
        let lost = |own: &'a [u8], sent: &[u8]| if sent.is_empty() { own } else { &[] };
        let request = lost(self.record.request_json(), self.request);
        let response = lost(self.record.response_json(), self.response);
        let fields = if request.is_empty() && response.is_empty() {
            fields
        } else {
            otel_log::naming_bodies_as_truncated(&fields, request, response)
        };
        otel_log::write(out, &fields, self.request, self.response)
    }
}

impl fmt::Debug for RecordLog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.request.len() + self.response.len();
        f.debug_struct("RecordLog").field("record", &self.record).field("bodies", &size).finish()
    }
}

impl Serialize for RecordLog<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        otel_log::serialize(serializer, |json| self.write_to(json), self.record.size())
    }
}

/// The gateway validated the body; reading it as a `RawValue` only finds its end.
fn body(json: &[u8]) -> serde_json::Result<Option<&RawValue>> {
    if json.is_empty() { Ok(None) } else { serde_json::from_slice(json).map(Some) }
}
