//! One batch: logs, then metrics.
//!
//! A record is delivered when New Relic has both. It knows no idempotency key, so the part that it has is remembered for
//! a record that is tried again:
//!
//! - a log is noted when it was accepted; it is sent again when nobody knows;
//! - metrics are noted *before* they are sent, and the note is taken back when New Relic refused them or was never
//!   reached: when nobody knows they may be lost, and are never counted twice.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use exporter_kit::{
    pack::{Ending, Packed},
    progress::Parts,
};
use plugin_api::{Batch, ErrorKind, ExportError, Field, Fields, Record};
use tracing::warn;

use crate::{NewRelic, intake::Kind, logs, metrics, metrics::Points};

const LOG: Parts = 1;
const METRICS: Parts = 2;

/// Oldest log and oldest data point that New Relic keeps, less a minute to arrive in:
/// <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/#limits>,
/// <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/metric-api-limits-restricted-attributes/>.
const OLDEST: Duration = Duration::from_mins(48 * 60 - 1);

/// A batch under way.
#[derive(Debug)]
pub struct Round<'a> {
    newrelic: &'a NewRelic,
    batch: Batch<'a>,
    ending: Ending,
    items: Vec<Item<'a>>,
}

/// A record that has no verdict yet.
#[derive(Debug)]
struct Item<'a> {
    record: Record<'a>,
    fields: Fields<'a>,
    id: Cow<'a, str>,
    /// Start and end of the request, in milliseconds since 1970.
    times: (u64, u64),
    /// Parts that New Relic lacks.
    missing: Parts,
    /// False once a request with this record has failed: its fate is sealed for this call.
    is_open: bool,
}

impl<'a> Round<'a> {
    /// Looks at each record, and rejects those that New Relic would drop.
    #[must_use]
    pub fn new(newrelic: &'a NewRelic, batch: Batch<'a>) -> Self {
        let mut items = Vec::with_capacity(batch.len());
        let now = SystemTime::now();
        for record in batch.iter() {
            match Item::new(newrelic, record, now) {
                Ok(item) => items.push(item),
                Err(reason) => record.reject(&reason),
            }
        }
        Self { newrelic, batch, ending: Ending::default(), items }
    }

    /// Sends what is missing.
    ///
    /// # Errors
    /// When not everything was delivered or judged.
    pub async fn run(mut self) -> Result<(), ExportError> {
        self.send_logs().await;
        self.send_metrics().await?;
        for item in self.items.iter().filter(|item| item.is_open) {
            if item.missing == 0 {
                item.record.delivered();
                self.newrelic.progress.settle(&item.id);
            } else {
                self.ending.unsent([item.record.index()]);
            }
        }
        self.ending.into_outcome(self.batch)
    }

    async fn send_logs(&mut self) {
        let signals = &self.newrelic.signals;
        let prefix = logs::prefix(&signals.common);
        let mut packer = logs::packer(&prefix);
        let mut entry = Vec::new();
        let how = |start| (start, signals.bodies, logs::max_entry(&prefix));
        for item in self.items.iter_mut().filter(|item| item.lacks(LOG)) {
            match logs::encode(&mut entry, item.record, &item.fields, how(item.times.0)) {
                Ok(()) if packer.add(item.record.index(), &entry) => {}
                Ok(()) => item.reject(&format!(
                    "the log entry has {} bytes without its bodies; New Relic takes 1 MB",
                    entry.len()
                )),
                Err(error) => item.reject(&error.to_string()),
            }
        }
        self.send(Kind::Logs, &prefix, packer.finish()).await;
    }

    async fn send_metrics(&mut self) -> Result<(), ExportError> {
        let NewRelic { models, signals, .. } = self.newrelic;
        let prefix = metrics::prefix(&signals.common);
        let mut points = Points::new(models, &signals.metric_prefix);
        for item in self.items.iter().filter(|item| item.lacks(METRICS) && !item.lacks(LOG)) {
            points.add(item.record.index(), &item.fields, item.times.1);
        }
        let (requests, left_out) = points.finish(&prefix)?;
        for index in left_out {
            self.item_of(index).reject("the record's metrics do not fit into a request");
        }
        self.send(Kind::Metrics, &prefix, requests).await;
        Ok(())
    }

    /// Sends requests of one part, one after the other, until one fails in a way that waiting heals.
    async fn send(&mut self, kind: Kind, prefix: &str, requests: Vec<Packed>) {
        for Packed { body, records } in requests {
            if self.ending.is_over() {
                return;
            }
            let body = [prefix.as_bytes(), &body].concat();
            match kind {
                Kind::Logs => self.send_once_at_least(body, records).await,
                Kind::Metrics => self.send_once_at_most(body, records).await,
            }
        }
    }

    async fn send_once_at_least(&mut self, body: Vec<u8>, records: Vec<usize>) {
        match self.newrelic.intake.post(Kind::Logs, body).await {
            Ok(()) => self.note(&records, LOG),
            Err(failure) => self.failed(records, failure.error),
        }
    }

    async fn send_once_at_most(&mut self, body: Vec<u8>, records: Vec<usize>) {
        self.note(&records, METRICS);
        let Err(failure) = self.newrelic.intake.post(Kind::Metrics, body).await else { return };
        if failure.may_have_arrived {
            let (reason, records) = (failure.error.to_string(), records.len());
            warn!(
                reason,
                records,
                "metrics may be lost: nobody knows whether New Relic has them, and none is sent twice"
            );
        } else {
            for index in &records {
                let item = self.item_of(*index);
                item.missing |= METRICS;
                let id = item.id.clone();
                self.newrelic.progress.take_back(&id, METRICS);
            }
        }
        self.failed(records, failure.error);
    }

    fn failed(&mut self, records: Vec<usize>, error: ExportError) {
        for index in &records {
            self.item_of(*index).is_open = false;
        }
        // A record alone cannot be split, and its request is within the limits: New Relic will never take it.
        let error = match (error.kind(), records.as_slice()) {
            (ErrorKind::TooLarge, [_]) => ExportError::reject(error.to_string()),
            _ => error,
        };
        self.ending.failed(self.batch, records, error);
    }

    /// New Relic has this part of these records, or may have it.
    fn note(&mut self, records: &[usize], part: Parts) {
        for index in records {
            let item = self.item_of(*index);
            item.missing &= !part;
            let id = item.id.clone();
            self.newrelic.progress.note(&id, part);
        }
    }

    /// Items are in the order of their records.
    fn item_of(&mut self, index: usize) -> &mut Item<'a> {
        let place = self.items.binary_search_by_key(&index, |item| item.record.index());
        &mut self.items[place.unwrap_or_else(|place| place)]
    }
}

impl<'a> Item<'a> {
    fn new(newrelic: &NewRelic, record: Record<'a>, now: SystemTime) -> Result<Self, String> {
        let fields = record.fields().map_err(|error| error.to_string())?;
        let times = times(&fields, now).ok_or("the record's timestamp is none")?;
        let age = Duration::from_millis(milliseconds(now).saturating_sub(times.0));
        if age > OLDEST {
            let minutes = age.as_secs() / 60;
            let (hours, minutes) = (minutes / 60, minutes % 60);
            return Err(format!(
                "the record is {hours} h {minutes} min old: New Relic drops what is over 48 h old unseen"
            ));
        }
        let id = fields.text(Field::Id).unwrap_or_default();
        let signals = &newrelic.signals;
        let wanted = if signals.logs { LOG } else { 0 } | if signals.metrics { METRICS } else { 0 };
        let missing = wanted & !newrelic.progress.of(&id);
        Ok(Self { record, fields, id, times, missing, is_open: true })
    }

    fn lacks(&self, parts: Parts) -> bool {
        self.is_open && self.missing & parts != 0
    }

    fn reject(&mut self, reason: &str) {
        self.record.reject(reason);
        self.is_open = false;
    }
}

/// Start and end of a request, in milliseconds since 1970; the end is not in the future. `None` when the record's time
/// stamp is none.
fn times(fields: &Fields<'_>, now: SystemTime) -> Option<(u64, u64)> {
    let start = milliseconds(humantime::parse_rfc3339(&fields.text(Field::Timestamp)?).ok()?);
    let latency = fields.number(Field::TotalLatency).unwrap_or_default() / 1e3;
    let latency = Duration::try_from_secs_f64(latency).unwrap_or_default();
    let end = start.saturating_add(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    Some((start, end.min(milliseconds(now))))
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::Sample;

    use super::*;

    #[test]
    fn a_request_ends_after_its_latency_and_not_in_the_future() {
        // The sample took 6250.25 ms.
        let start = UNIX_EPOCH + Duration::from_millis(1_741_190_600_123);
        for (change, later, expected) in [
            (None, 0, Some((0, 0))),
            (None, 5_000, Some((0, 5_000))),
            (None, 10_000, Some((0, 6_250))),
            (Some((1e300, "2025-03-05T16:03:20.123Z")), 10_000, Some((0, 0))),
            (Some((1.0, "yesterday")), 0, None),
        ] {
            let json = Sample::chat()
                .with(|metrics| {
                    if let Some((latency, timestamp)) = change {
                        (metrics.total_latency, metrics.timestamp) = (latency, timestamp.into());
                    }
                })
                .metrics_json();
            let times = times(&Fields::parse(&json).unwrap(), start + Duration::from_millis(later));
            let expected = expected.map(|(a, b)| (1_741_190_600_123 + a, 1_741_190_600_123 + b));
            assert_eq!(times, expected, "{change:?} {later}");
        }
    }
}
