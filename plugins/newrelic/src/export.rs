//! One batch: logs, then metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exporter_kit::{
    pack::Packed,
    round::{Delivery, Part, Round},
    source::Sources,
};
use plugin_api::{Batch, ExportError, Field, Fields, Record};

use crate::{NewRelic, intake::Kind, logs, metrics, metrics::Points};

/// A record alone cannot be split, and its request is within the limits: too large for New Relic is too large for ever.
const LOGS: Part = Part { name: "logs", bit: 1, delivery: Delivery::AtLeastOnce, can_shed_bodies: false };
const METRICS: Part =
    Part { name: "metrics", bit: 2, delivery: Delivery::AtMostOnce, can_shed_bodies: false };

/// Oldest log and oldest data point that New Relic keeps, less a minute to arrive in:
/// <https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/#limits>,
/// <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/metric-api-limits-restricted-attributes/>.
const OLDEST: Duration = Duration::from_mins(48 * 60 - 1);

/// One call of `export`.
#[derive(Debug)]
pub struct Export<'a> {
    newrelic: &'a NewRelic,
    round: Round<'a, Request<'a>>,
}

/// What is known of a record's request.
#[derive(Debug)]
struct Request<'a> {
    fields: Fields<'a>,
    /// Its start and its end, in milliseconds since 1970.
    times: (u64, u64),
}

impl<'a> Export<'a> {
    /// Looks at each record, and rejects those that New Relic would drop.
    #[must_use]
    pub fn new(newrelic: &'a NewRelic, batch: Batch<'a>) -> Self {
        let mut round = Round::new(batch, &newrelic.progress, "New Relic");
        let signals = &newrelic.signals;
        let wanted = if signals.logs { LOGS.bit } else { 0 } | if signals.metrics { METRICS.bit } else { 0 };
        let now = SystemTime::now();
        for record in batch.iter() {
            match Request::read(record, now) {
                Ok(request) => {
                    let id = request.fields.text(Field::Id).unwrap_or_default();
                    round.add(record, id, wanted, request);
                }
                Err(reason) => record.reject(&reason),
            }
        }
        Self { newrelic, round }
    }

    /// Sends what is missing.
    ///
    /// # Errors
    /// When not everything was delivered or judged.
    pub async fn run(mut self) -> Result<(), ExportError> {
        self.send_logs().await;
        self.send_metrics().await?;
        self.round.finish()
    }

    async fn send_logs(&mut self) {
        let signals = &self.newrelic.signals;
        let prefix = logs::prefix(&signals.common);
        let mut packer = logs::packer(&prefix);
        let mut entry = Vec::new();
        let how =
            logs::How { bodies: signals.bodies, tags: &signals.record_tags, max: logs::max_entry(&prefix) };
        for item in self.round.due(LOGS) {
            let Request { fields, times } = &item.data;
            match logs::encode(&mut entry, Sources::of(item.record, fields), times.0, how) {
                Ok(()) if packer.add(item.record.index(), &entry) => {}
                Ok(()) => item.reject(&format!(
                    "the log entry has {} bytes without its bodies; New Relic takes 1 MB",
                    entry.len()
                )),
                Err(error) => item.reject(&error.to_string()),
            }
        }
        self.send(Kind::Logs, LOGS, &prefix, packer.finish()).await;
    }

    async fn send_metrics(&mut self) -> Result<(), ExportError> {
        let NewRelic { models, signals, .. } = self.newrelic;
        let prefix = metrics::prefix(&signals.common);
        let mut points = Points::new(models, &signals.record_tags, &signals.metric_prefix);
        for item in self.round.due(METRICS) {
            let from = Sources::of(item.record, &item.data.fields);
            points.add(item.record.index(), from, item.data.times.1);
        }
        let (requests, left_out) = points.finish(&prefix)?;
        for index in left_out {
            self.round.reject(index, "the record's metrics do not fit into a request");
        }
        self.send(Kind::Metrics, METRICS, &prefix, requests).await;
        Ok(())
    }

    async fn send(&mut self, kind: Kind, part: Part, prefix: &str, requests: Vec<Packed>) {
        let intake = &self.newrelic.intake;
        let post = async |body: Vec<u8>| intake.post(kind, [prefix.as_bytes(), &body].concat()).await;
        self.round.send(part, requests, post).await;
    }
}

impl<'a> Request<'a> {
    fn read(record: Record<'a>, now: SystemTime) -> Result<Self, String> {
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
        Ok(Self { fields, times })
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
    use exporter_testkit::Sample;

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
