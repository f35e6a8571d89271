//! One batch: logs, then metrics, then spans.
//!
//! A record is delivered when Datadog has all of its parts. Datadog knows no idempotency key, so the parts that it has
//! are remembered for a record that is tried again:
//!
//! - a log or span is noted when it was accepted; it is sent again when nobody knows;
//! - metrics are noted *before* they are sent, and the note is taken back when Datadog refused them or was never
//!   reached: when nobody knows they may be lost, and are never counted twice.

use std::{borrow::Cow, time::SystemTime};

use exporter_kit::{
    pack::{Ending, Packed},
    progress::Parts,
};
use plugin_api::{Batch, ErrorKind, ExportError, Field, Fields, Record};
use tracing::warn;

use crate::{
    Datadog,
    age::{self, When},
    intake::Kind,
    logs,
    metrics::Distributions,
    spans::Spans,
};

const LOG: Parts = 1;
const METRICS: Parts = 2;
const SPAN: Parts = 4;

/// A batch under way.
#[derive(Debug)]
pub struct Round<'a> {
    datadog: &'a Datadog,
    batch: Batch<'a>,
    ending: Ending,
    items: Vec<Item<'a>>,
    /// Records without metrics, since Datadog takes none so old.
    without_metrics: usize,
}

/// A record that has no verdict yet.
#[derive(Debug)]
struct Item<'a> {
    record: Record<'a>,
    fields: Fields<'a>,
    id: Cow<'a, str>,
    when: When,
    /// Parts that Datadog lacks.
    missing: Parts,
    /// False once a request with this record has failed: its fate is sealed for this call.
    is_open: bool,
}

impl<'a> Round<'a> {
    /// Looks at each record, and rejects those that Datadog would drop.
    #[must_use]
    pub fn new(datadog: &'a Datadog, batch: Batch<'a>) -> Self {
        let mut round =
            Self { datadog, batch, ending: Ending::default(), items: Vec::new(), without_metrics: 0 };
        let now = SystemTime::now();
        for record in batch.iter() {
            match round.item(record, now) {
                Ok(item) => round.items.push(item),
                Err(reason) => record.reject(&reason),
            }
        }
        round
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
        for (kind, part) in [(Kind::Logs, LOG), (Kind::Distributions, METRICS), (Kind::Spans, SPAN)] {
            self.send(kind, part).await;
        }
        for item in self.items.iter().filter(|item| item.is_open) {
            if item.missing == 0 {
                item.record.delivered();
                self.datadog.progress.settle(&item.id);
            } else {
                self.ending.unsent([item.record.index()]);
            }
        }
        self.ending.into_outcome(self.batch)
    }

    fn item(&mut self, record: Record<'a>, now: SystemTime) -> Result<Item<'a>, String> {
        let fields = record.fields().map_err(|error| error.to_string())?;
        let when = When::of(&fields, now).ok_or("the record's timestamp is none")?;
        let id = fields.text(Field::Id).unwrap_or_default();
        let (signals, has) = (&self.datadog.signals, self.datadog.progress.of(&id));
        let too_old = |what: &str, hours: u64| {
            let age = when.age().as_secs() / 60;
            let (hour, minute) = (age / 60, age % 60);
            format!("the record is {hour} h {minute} min old: Datadog drops {what} over {hours} h old unseen")
        };
        let mut wanted = 0;
        if signals.logs {
            wanted |= LOG;
            if has & LOG == 0 && when.age() > age::LOG {
                return Err(too_old("logs", 18));
            }
        }
        if signals.spans {
            wanted |= SPAN;
            if has & SPAN == 0 && when.age() > age::SPAN {
                return Err(too_old("spans", 24));
            }
        }
        if signals.metrics {
            if when.since_end() <= age::METRIC {
                wanted |= METRICS;
            } else if wanted == 0 {
                return Err(too_old("points of metrics", 1));
            } else {
                self.without_metrics += 1;
            }
        }
        Ok(Item { record, fields, id, when, missing: wanted & !has, is_open: true })
    }

    fn log_requests(&mut self) -> Vec<Packed> {
        let mut packer = logs::packer();
        let mut entry = Vec::new();
        for item in self.items.iter_mut().filter(|item| item.lacks(LOG)) {
            let encoded = logs::encode(&mut entry, &self.datadog.who, item.record, &item.fields);
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
        for item in self.items.iter_mut().filter(|item| item.lacks(METRICS) && !item.lacks(LOG)) {
            if !distributions.add(item.record.index(), &item.fields, item.when.end.as_secs()) {
                item.reject("the record's metrics do not fit into a request");
            }
        }
        distributions.finish()
    }

    fn span_requests(&mut self) -> Vec<Packed> {
        let mut spans = Spans::new(&self.datadog.who, self.datadog.signals.ml_app.as_deref());
        for item in self.items.iter_mut().filter(|item| item.lacks(SPAN) && !item.lacks(LOG | METRICS)) {
            if !spans.add(item.record, &item.fields, item.when) {
                item.reject("the record's span is over 1 MB");
            }
        }
        spans.finish()
    }

    /// Sends one part of the records, request after request, until one fails in a way that waiting heals.
    async fn send(&mut self, kind: Kind, part: Parts) {
        if self.ending.is_over() {
            return;
        }
        let requests = match kind {
            Kind::Logs => self.log_requests(),
            Kind::Distributions => self.metric_requests(),
            Kind::Spans => self.span_requests(),
        };
        for request in requests {
            self.send_one(kind, part, request).await;
            if self.ending.is_over() {
                return;
            }
        }
    }

    async fn send_one(&mut self, kind: Kind, part: Parts, request: Packed) {
        let Packed { body, records } = request;
        let is_once = part == METRICS;
        if is_once {
            self.note(&records, part);
        }
        let Err(failure) = self.datadog.intake.post(kind, body).await else {
            self.note(&records, part);
            return;
        };
        if is_once && failure.may_have_arrived {
            let (reason, records) = (failure.error.to_string(), records.len());
            warn!(
                reason,
                records, "metrics may be lost: nobody knows whether Datadog has them, and none is sent twice"
            );
        } else if is_once {
            self.take_back(&records, part);
        }
        for index in &records {
            self.item_of(*index).is_open = false;
        }
        let error = match (failure.error.kind(), records.as_slice()) {
            // The gateway would try the record without its bodies, and metrics have none.
            (ErrorKind::TooLarge, [_]) if is_once => ExportError::reject(failure.error.to_string()),
            _ => failure.error,
        };
        self.ending.failed(self.batch, records, error);
    }

    /// Datadog has this part of these records, or may have it.
    fn note(&mut self, records: &[usize], part: Parts) {
        for index in records {
            let item = self.item_of(*index);
            item.missing &= !part;
            let id = item.id.clone();
            self.datadog.progress.note(&id, part);
        }
    }

    fn take_back(&mut self, records: &[usize], part: Parts) {
        for index in records {
            let item = self.item_of(*index);
            item.missing |= part;
            let id = item.id.clone();
            let rest = self.datadog.progress.of(&id) & !part;
            self.datadog.progress.settle(&id);
            if rest != 0 {
                self.datadog.progress.note(&id, rest);
            }
        }
    }

    /// Items are in the order of their records.
    fn item_of(&mut self, index: usize) -> &mut Item<'a> {
        let place = self.items.binary_search_by_key(&index, |item| item.record.index());
        &mut self.items[place.unwrap_or_else(|place| place)]
    }
}

impl Item<'_> {
    fn lacks(&self, parts: Parts) -> bool {
        self.is_open && self.missing & parts != 0
    }

    fn reject(&mut self, reason: &str) {
        self.record.reject(reason);
        self.is_open = false;
    }
}
