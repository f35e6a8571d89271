//! One call of `export`: signal by signal, the records that lack it are sent, and what becomes of each is judged.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use exporter_kit::{
    pack::{Ending, Packed},
    progress::Parts,
};
use plugin_api::{Batch, ErrorKind, ExportError, Record};

use crate::{
    Otlp,
    answer::Taken,
    config::{LogBody, Signal},
    conversation::Conversation,
    encode,
    facts::Facts,
    now,
    request::{Requests, Resources},
};

/// A cumulative metric has the record, whether or not that was sent.
const COUNTED: Parts = 1 << 3;

fn part(signal: Signal) -> Parts {
    1 << signal as u8
}

/// A record of the batch, and how far it is.
#[derive(Debug)]
struct Item<'a> {
    record: Record<'a>,
    facts: Facts<'a>,
    resource: usize,
    /// What the receiver has of it.
    parts: Parts,
    /// Whether nothing stands against its delivery so far.
    is_open: bool,
}

/// One call of `export`.
#[derive(Debug)]
pub struct Export<'a> {
    exporter: &'a Otlp,
    batch: Batch<'a>,
    started: Instant,
    items: Vec<Item<'a>>,
    resources: Resources,
    ending: Ending,
}

impl<'a> Export<'a> {
    /// Reads the batch. What is no record is rejected.
    #[must_use]
    pub fn new(exporter: &'a Otlp, batch: Batch<'a>) -> Self {
        let mut resources = Resources::default();
        let mut items = Vec::with_capacity(batch.len());
        let remembers = !exporter.progress.is_empty();
        for record in batch.iter() {
            match Facts::read(&record) {
                Ok(facts) => {
                    let parts = if remembers { exporter.progress.of(&facts.id) } else { 0 };
                    let resource = resources.place(&exporter.origin, &facts);
                    items.push(Item { record, facts, resource, parts, is_open: true });
                }
                Err(reason) => record.reject(&reason),
            }
        }
        Self { exporter, batch, started: Instant::now(), items, resources, ending: Ending::default() }
    }

    /// Sends what is to be sent, and gives every record its verdict.
    ///
    /// # Errors
    /// When something was not delivered, as [`Ending`] says.
    pub async fn run(mut self) -> Result<(), ExportError> {
        for signal in self.exporter.signals.iter().copied() {
            if self.ending.is_over() {
                break;
            }
            match signal {
                Signal::Logs | Signal::Traces => self.send_records(signal).await,
                Signal::Metrics => self.send_metrics().await,
            }
        }
        let is_over = self.ending.is_over();
        let mut unsent = Vec::new();
        for item in &self.items {
            if item.is_open && is_over && !self.has_all(item) {
                unsent.push(item.record.index());
            } else if item.is_open {
                item.record.delivered();
                self.settle(item);
            }
        }
        self.ending.unsent(unsent);
        self.ending.into_outcome(self.batch)
    }

    /// Logs or spans.
    async fn send_records(&mut self, signal: Signal) {
        for request in self.pack(signal) {
            let records = request.records;
            if self.ending.is_over() {
                self.close(&records);
                self.ending.unsent(records);
                continue;
            }
            match self.exporter.transport.send(signal, request.body, self.time()).await {
                Ok(taken) => self.taken(signal, &records, &taken),
                Err(error) => {
                    self.close(&records);
                    self.ending.failed(self.batch, records, error);
                }
            }
        }
    }

    fn pack(&mut self, signal: Signal) -> Vec<Packed> {
        let exporter = self.exporter;
        let mut requests = Requests::new(&exporter.origin, exporter.max_request_bytes);
        let (mut memory, observed) = (Memory::default(), now());
        for item in self.items.iter_mut().filter(|item| item.is_open && item.parts & part(signal) == 0) {
            let resource = self.resources.get(item.resource);
            let added = match signal {
                Signal::Logs => memory.add_log(exporter, &mut requests, resource, item, observed),
                _ => memory.add_span(exporter, &mut requests, resource, item),
            };
            if let Err(reason) = added {
                item.is_open = false;
                item.record.reject(&reason);
                exporter.progress.settle(&item.facts.id);
            }
        }
        requests.finish()
    }

    fn taken(&mut self, signal: Signal, records: &[usize], taken: &Taken) {
        if taken.rejected > 0 && taken.rejected >= records.len() as u64 {
            let target = self.exporter.transport.target(signal);
            let reason = format!("{target} took none of {} records: {}", records.len(), taken.message);
            self.of(records).for_each(|item| {
                item.record.reject(&reason);
                self.settle(item);
            });
            return self.close(records);
        }
        if *taken != Taken::default() {
            self.exporter.partly_taken(signal, taken.rejected, &taken.message);
        }
        let is_last = self.exporter.signals.last() == Some(&signal);
        for item in self.items.iter_mut().filter(|item| records.binary_search(&item.record.index()).is_ok()) {
            item.parts |= part(signal);
            // Noted now: the call may be given up at any later await.
            if !is_last {
                self.exporter.progress.note(&item.facts.id, item.parts);
            }
        }
    }

    async fn send_metrics(&mut self) {
        let exporter = self.exporter;
        let lacks = |item: &&mut Item<'_>| item.is_open && item.parts & part(Signal::Metrics) == 0;
        let waiting: Vec<usize> =
            self.items.iter_mut().filter(lacks).map(|item| item.record.index()).collect();
        if waiting.is_empty() {
            return;
        }
        let Ok(mut metrics) = tokio::time::timeout(self.time(), exporter.metrics.lock()).await else {
            let error = ExportError::retry("the metrics of an earlier batch are still on their way");
            return self.metrics_failed(waiting, error);
        };
        metrics.begin();
        for item in self.items.iter_mut().filter(lacks).filter(|item| item.parts & COUNTED == 0) {
            metrics.add(self.resources.get(item.resource), &item.facts);
            if metrics.remembers() {
                item.parts |= COUNTED;
                exporter.progress.note(&item.facts.id, item.parts);
            }
        }
        exporter.series.store(metrics.len() as u64, Ordering::Relaxed);
        exporter.overflowed.store(metrics.overflowed(), Ordering::Relaxed);
        let time = now();
        for request in metrics.requests(&exporter.origin, time, exporter.max_request_bytes) {
            match exporter.transport.send(Signal::Metrics, request.body, self.time()).await {
                Ok(taken) if taken == Taken::default() => {}
                Ok(taken) => exporter.partly_taken(Signal::Metrics, taken.rejected, &taken.message),
                Err(error) => return self.metrics_failed(waiting, error),
            }
        }
        metrics.delivered(time);
        let places = |item: &&mut Item<'_>| waiting.binary_search(&item.record.index()).is_ok();
        self.items.iter_mut().filter(places).for_each(|item| item.parts |= part(Signal::Metrics));
    }

    /// A point belongs to many records: there is none without whose bodies it would be smaller.
    fn metrics_failed(&mut self, records: Vec<usize>, error: ExportError) {
        self.close(&records);
        let error = match error.kind() {
            ErrorKind::TooLarge => ExportError::reject(error.to_string()),
            _ => error,
        };
        self.ending.failed(self.batch, records, error);
    }

    /// Time that is left for a request: the call is to end by itself, with verdicts.
    fn time(&self) -> Duration {
        self.batch.deadline().mul_f64(0.9).saturating_sub(self.started.elapsed())
    }

    fn of<'s>(&'s self, records: &'s [usize]) -> impl Iterator<Item = &'s Item<'a>> {
        self.items.iter().filter(|item| records.binary_search(&item.record.index()).is_ok())
    }

    fn close(&mut self, records: &[usize]) {
        let among = |item: &&mut Item<'_>| records.binary_search(&item.record.index()).is_ok();
        self.items.iter_mut().filter(among).for_each(|item| item.is_open = false);
    }

    fn has_all(&self, item: &Item<'_>) -> bool {
        self.exporter.signals.iter().all(|signal| item.parts & part(*signal) != 0)
    }

    /// A record that is done needs no memory.
    fn settle(&self, item: &Item<'_>) {
        self.exporter.progress.settle(&item.facts.id);
    }
}

/// Buffers that are used again for each record.
#[derive(Debug, Default)]
struct Memory {
    piece: Vec<u8>,
    scratch: Vec<u8>,
    json: Vec<u8>,
}

impl Memory {
    fn add_log<'r>(
        &mut self,
        exporter: &Otlp,
        requests: &mut Requests<'r>,
        resource: &'r [u8],
        item: &Item<'_>,
        observed: u64,
    ) -> Result<(), String> {
        let whole = item.record.to_otel_log();
        for (log, is_whole) in [(whole, true), (whole.without_bodies(), false)] {
            let body = match exporter.body {
                LogBody::None => None,
                LogBody::Json => {
                    self.json.clear();
                    log.write_to(&mut self.json).map_err(|error| error.to_string())?;
                    Some(
                        str::from_utf8(&self.json)
                            .map_err(|error| format!("the record's log is no UTF-8: {error}"))?,
                    )
                }
            };
            self.piece.clear();
            encode::log(&mut self.piece, &mut self.scratch, &item.facts, observed, body);
            if requests.add(resource, item.record.index(), &self.piece) {
                if !is_whole {
                    exporter.counters.body_shed();
                }
                return Ok(());
            }
        }
        Err(too_large("log", self.piece.len()))
    }

    fn add_span<'r>(
        &mut self,
        exporter: &Otlp,
        requests: &mut Requests<'r>,
        resource: &'r [u8],
        item: &Item<'_>,
    ) -> Result<(), String> {
        let record = item.record;
        let conversation = exporter
            .captures_content
            .then(|| Conversation::read(record.request_json(), record.response_json()));
        for conversation in [conversation.as_ref(), None] {
            self.piece.clear();
            encode::span(&mut self.piece, &item.facts, conversation);
            if requests.add(resource, record.index(), &self.piece) {
                return Ok(());
            }
            if conversation.is_some() {
                exporter.counters.conversation_shed();
            }
        }
        Err(too_large("span", self.piece.len()))
    }
}

fn too_large(what: &str, bytes: usize) -> String {
    format!("its {what} is {bytes} bytes without content, more than max_request_size takes")
}
