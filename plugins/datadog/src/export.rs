//! One batch: logs, then metrics, then spans.

use std::time::SystemTime;

use exporter_kit::{
    pack::Packed,
    round::{Delivery, Part, Round},
    source::Sources,
};
use plugin_api::{Batch, ExportError, Field, Fields, Record};
use tracing::warn;

use crate::{
    Datadog,
    age::{self, When},
    intake::Kind,
    logs,
    metrics::Distributions,
    spans::Spans,
};

const LOGS: Part = Part { name: "logs", bit: 1, delivery: Delivery::AtLeastOnce, can_shed_bodies: true };
const METRICS: Part =
    Part { name: "metrics", bit: 2, delivery: Delivery::AtMostOnce, can_shed_bodies: false };
const SPANS: Part = Part { name: "spans", bit: 4, delivery: Delivery::AtLeastOnce, can_shed_bodies: true };

/// One call of `export`.
#[derive(Debug)]
pub struct Export<'a> {
    datadog: &'a Datadog,
    round: Round<'a, Request<'a>>,
    /// Records without metrics, since Datadog takes none so old.
    without_metrics: usize,
}

/// What is known of a record's request.
#[derive(Debug)]
struct Request<'a> {
    fields: Fields<'a>,
    when: When,
}

impl<'a> Export<'a> {
    /// Looks at each record, and rejects those that Datadog would drop.
    #[must_use]
    pub fn new(datadog: &'a Datadog, batch: Batch<'a>) -> Self {
        let round = Round::new(batch, &datadog.progress, "Datadog");
        let mut export = Self { datadog, round, without_metrics: 0 };
        let now = SystemTime::now();
        for record in batch.iter() {
            if let Err(reason) = export.add(record, now) {
                record.reject(&reason);
            }
        }
        export
    }

    /// Sends what is missing.
    ///
    /// # Errors
    /// When not everything was delivered or judged.
    pub async fn run(mut self) -> Result<(), ExportError> {
        if self.without_metrics > 0 {
            warn!(
                records = self.without_metrics,
                "no metrics for records over an hour old: Datadog would drop them"
            );
        }
        for (kind, part) in [(Kind::Logs, LOGS), (Kind::Distributions, METRICS), (Kind::Spans, SPANS)] {
            if self.round.is_over() {
                break;
            }
            let requests = match kind {
                Kind::Logs => self.log_requests(),
                Kind::Distributions => self.metric_requests(),
                Kind::Spans => self.span_requests(),
            };
            let intake = &self.datadog.intake;
            self.round.send(part, requests, async |body| intake.post(kind, body).await).await;
        }
        self.round.finish()
    }

    fn add(&mut self, record: Record<'a>, now: SystemTime) -> Result<(), String> {
        let fields = record.fields().map_err(|error| error.to_string())?;
        let when = When::of(&fields, now).ok_or("the record's timestamp is none")?;
        let id = fields.text(Field::Id).unwrap_or_default();
        let signals = &self.datadog.signals;
        let has_metrics = signals.metrics && when.since_end() <= age::METRIC;
        let parts = [(signals.logs, LOGS), (has_metrics, METRICS), (signals.spans, SPANS)];
        let wanted =
            parts.iter().filter(|(is_wanted, _)| *is_wanted).fold(0, |all, (_, part)| all | part.bit);
        let too_old = |what: &str, hours: u64| {
            let age = when.age().as_secs() / 60;
            let (hour, minute) = (age / 60, age % 60);
            format!("the record is {hour} h {minute} min old: Datadog drops {what} over {hours} h old unseen")
        };
        if signals.metrics && wanted == 0 {
            return Err(too_old("points of metrics", 1));
        }
        let item = self.round.add(record, id, wanted, Request { fields, when });
        if item.lacks(LOGS) && when.age() > age::LOG {
            item.reject(&too_old("logs", 18));
        } else if item.lacks(SPANS) && when.age() > age::SPAN {
            item.reject(&too_old("spans", 24));
        } else if signals.metrics && !has_metrics {
            self.without_metrics += 1;
        }
        Ok(())
    }

    fn log_requests(&mut self) -> Vec<Packed> {
        let mut packer = logs::packer();
        let mut entry = Vec::new();
        for item in self.round.due(LOGS) {
            let encoded = logs::encode(&mut entry, &self.datadog.who, item.record, &item.data.fields);
            let packed = encoded.and_then(|()| {
                let is_packed = packer.add(item.record.index(), &entry);
                if is_packed { Ok(()) } else { Err("the log entry does not fit into a request".to_owned()) }
            });
            if let Err(reason) = packed {
                item.reject(&reason);
            }
        }
        packer.finish()
    }

    fn metric_requests(&mut self) -> Vec<Packed> {
        let Datadog { who, models, signals, .. } = self.datadog;
        let mut distributions = Distributions::new(who, models, &signals.metric_prefix);
        for item in self.round.due(METRICS) {
            let Request { fields, when } = &item.data;
            let from = Sources::of(item.record, fields);
            if !distributions.add(item.record.index(), from, when.end.as_secs()) {
                item.reject("the record's metrics do not fit into a request");
            }
        }
        distributions.finish()
    }

    fn span_requests(&mut self) -> Vec<Packed> {
        let mut spans = Spans::new(&self.datadog.who, self.datadog.signals.ml_app.as_deref());
        for item in self.round.due(SPANS) {
            if !spans.add(item.record, &item.data.fields, item.data.when) {
                item.reject("the record's span is over 1 MB");
            }
        }
        spans.finish()
    }
}
