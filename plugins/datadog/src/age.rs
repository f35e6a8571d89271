//! How old a record may be. Datadog answers 202 to what is too old, and drops it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugin_api::{Field, Fields};

const HOUR: Duration = Duration::from_hours(1);
/// Time for a request to arrive in.
const MARGIN: Duration = Duration::from_mins(1);

/// Oldest log: <https://docs.datadoghq.com/api/latest/logs/send-logs/>.
pub const LOG: Duration = Duration::from_hours(18).saturating_sub(MARGIN);
/// Oldest span: <https://docs.datadoghq.com/llm_observability/instrumentation/api/>.
pub const SPAN: Duration = Duration::from_hours(24).saturating_sub(MARGIN);
/// Oldest point of a metric: <https://docs.datadoghq.com/metrics/custom_metrics/historical_metrics/>.
pub const METRIC: Duration = HOUR.saturating_sub(MARGIN);

/// When a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Its start, since 1970.
    pub start: Duration,
    /// Its end, since 1970; not in the future.
    pub end: Duration,
    /// Now, since 1970.
    pub now: Duration,
}

impl When {
    /// Reads the times of a record; `None` when its time stamp is none.
    #[must_use]
    pub fn of(fields: &Fields<'_>, now: SystemTime) -> Option<Self> {
        let start = humantime::parse_rfc3339(&fields.text(Field::Timestamp)?).ok()?;
        let start = start.duration_since(UNIX_EPOCH).ok()?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let latency = fields.number(Field::TotalLatency).unwrap_or_default() / 1e3;
        let end = start + Duration::try_from_secs_f64(latency).unwrap_or_default();
        Some(Self { start, end: end.min(now), now })
    }

    /// Time since the request's start.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.now.saturating_sub(self.start)
    }

    /// Time since the request's end.
    #[must_use]
    pub fn since_end(&self) -> Duration {
        self.now.saturating_sub(self.end)
    }
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;

    use super::*;

    #[test]
    fn a_request_ends_after_its_latency_and_not_in_the_future() {
        // The sample started at 16:03:20.123 and took 6250.25 ms.
        let start = humantime::parse_rfc3339("2025-03-05T16:03:20.123Z").unwrap();
        let json = Sample::chat().metrics_json();
        let fields = Fields::parse(&json).unwrap();
        for (later, age, since_end) in [(0.0, 0.0, 0.0), (5.0, 5.0, 0.0), (10.0, 10.0, 3.749_75)] {
            let when = When::of(&fields, start + Duration::from_secs_f64(later)).unwrap();
            assert_eq!(when.age(), Duration::from_secs_f64(age));
            assert_eq!(when.since_end(), Duration::from_secs_f64(since_end));
        }
        for (latency, timestamp, is_time) in
            [(1e300, "2025-03-05T16:03:20Z", true), (1.0, "yesterday", false)]
        {
            let odd = Sample::chat().with(|metrics| {
                metrics.total_latency = latency;
                metrics.timestamp = timestamp.into();
            });
            let json = odd.metrics_json();
            assert_eq!(When::of(&Fields::parse(&json).unwrap(), start).is_some(), is_time);
        }
    }
}
