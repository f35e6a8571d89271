//! One call of `export`: each signal is a delivery of its own, of the records that lack it; then what becomes of each record
//! is judged.

use std::time::{Duration, Instant};

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
    transport::Refused,
};

/// The metrics have the record.
const COUNTED: Parts = part(Signal::Metrics);
/// The signals that carry a record. Metrics carry none: what a failed request of theirs had is in the next one.
const CARRIERS: [Signal; 2] = [Signal::Logs, Signal::Traces];

const fn part(signal: Signal) -> Parts {
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

/// What the receiver answered to the requests of a signal. Those behind one that failed in a way that waiting heals were
/// not sent, and stand nowhere.
#[derive(Debug)]
struct Delivery {
    signal: Signal,
    taken: Vec<(Vec<usize>, Taken)>,
    refused: Vec<(Vec<usize>, Refused)>,
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
        let packed = CARRIERS.map(|signal| self.pack(signal));
        self.count();
        let [logs, traces] = packed;
        let (logs, traces, metrics) = tokio::join!(
            self.deliver(Signal::Logs, logs),
            self.deliver(Signal::Traces, traces),
            self.send_metrics(),
        );
        let deliveries = [logs, traces];
        // What the receiver knows is noted first: it decides what an answer of 404 means for the others.
        deliveries.iter().filter(|delivery| delivery.is_known()).for_each(|known| self.knows(known.signal));
        if metrics.as_ref().is_ok_and(|had_any| *had_any) {
            self.knows(Signal::Metrics);
        }
        for delivery in deliveries {
            self.settle_delivery(delivery);
        }
        if let Err(refused) = metrics {
            self.metrics_refused(refused);
        }
        self.finish()
    }

    fn finish(mut self) -> Result<(), ExportError> {
        let mut unsent = Vec::new();
        for item in self.items.iter().filter(|item| item.is_open) {
            if self.has_all(item) {
                item.record.delivered();
                self.settle(item);
            } else {
                unsent.push(item.record.index());
            }
        }
        self.ending.unsent(unsent);
        self.ending.into_outcome(self.batch)
    }

    fn pack(&mut self, signal: Signal) -> Vec<Packed> {
        let exporter = self.exporter;
        if !exporter.switches.is_on(signal) {
            return Vec::new();
        }
        let mut requests = Requests::new(&exporter.origin, exporter.max_request_bytes);
        let (mut memory, observed) = (Memory::default(), now());
        for item in self.items.iter_mut().filter(|item| item.is_open && item.parts & part(signal) == 0) {
            if signal == Signal::Traces && exporter.skips_unsampled && item.facts.is_unsampled() {
                item.parts |= part(signal);
                continue;
            }
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

    /// Counts the records that the metrics lack. That is noted at once, since the call may be given up.
    fn count(&mut self) {
        let (exporter, resources) = (self.exporter, &self.resources);
        if !exporter.switches.is_on(Signal::Metrics) {
            return;
        }
        let is_new = |item: &&Item<'_>| item.is_open && item.parts & COUNTED == 0;
        let new = self.items.iter().filter(is_new);
        exporter.tally.add(new.map(|item| (resources.get(item.resource), &item.facts)));
        for item in self.items.iter_mut().filter(|item| item.is_open && item.parts & COUNTED == 0) {
            item.parts |= COUNTED;
            exporter.progress.note(&item.facts.id, COUNTED);
        }
    }

    /// Sends the requests of one signal, one after the other.
    async fn deliver(&self, signal: Signal, requests: Vec<Packed>) -> Delivery {
        let mut delivery = Delivery { signal, taken: Vec::new(), refused: Vec::new() };
        for Packed { body, records } in requests {
            match self.exporter.transport.send(signal, body, self.time()).await {
                Ok(taken) => {
                    if !taken.is_none_of(records.len()) {
                        self.of(&records).for_each(|item| {
                            self.exporter.progress.note(&item.facts.id, part(signal));
                        });
                    }
                    delivery.taken.push((records, taken));
                }
                Err(refused) => {
                    let goes_on = is_judged(&refused);
                    delivery.refused.push((records, refused));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        delivery
    }

    /// Whether there was anything to send.
    async fn send_metrics(&self) -> Result<bool, Refused> {
        if !self.exporter.switches.is_on(Signal::Metrics) {
            return Ok(false);
        }
        self.exporter.tally.send(self.exporter, || self.time()).await.map(|()| true)
    }

    fn knows(&self, signal: Signal) {
        self.exporter.switches.knows(signal);
    }

    fn settle_delivery(&mut self, delivery: Delivery) {
        let Delivery { signal, taken, refused } = delivery;
        for (records, taken) in taken {
            self.taken(signal, &records, &taken);
        }
        for (records, refused) in refused {
            if refused.is_absent && self.exporter.is_off(signal, &refused.error) {
                continue;
            }
            let open = self.close(&records);
            self.ending.failed(self.batch, open, refused.error);
        }
    }

    fn taken(&mut self, signal: Signal, records: &[usize], taken: &Taken) {
        if taken.is_none_of(records.len()) {
            let target = self.exporter.transport.target(signal);
            let said =
                if taken.message.is_empty() { String::new() } else { format!(": \"{}\"", taken.message) };
            let reason = format!("{target} took none of {} records{said}", records.len());
            for index in self.close(records) {
                let item = self.items.iter().find(|item| item.record.index() == index);
                item.into_iter().for_each(|item| {
                    item.record.reject(&reason);
                    self.settle(item);
                });
            }
            return;
        }
        if *taken != Taken::default() {
            self.exporter.partly_taken(signal, taken.rejected, &taken.message);
        }
        let among = |item: &&mut Item<'_>| records.binary_search(&item.record.index()).is_ok();
        self.items.iter_mut().filter(among).for_each(|item| item.parts |= part(signal));
    }

    /// Records that a log or a span carries do not wait for the metrics.
    fn metrics_refused(&mut self, refused: Refused) {
        let exporter = self.exporter;
        if refused.is_absent && exporter.is_off(Signal::Metrics, &refused.error) {
            return;
        }
        if CARRIERS.iter().any(|signal| exporter.switches.is_on(*signal)) {
            exporter.metrics_failed(&refused.error);
            return;
        }
        let all: Vec<usize> = self.items.iter().map(|item| item.record.index()).collect();
        let open = self.close(&all);
        let error = match refused.error.kind() {
            // There is no record without whose bodies a point would be smaller.
            ErrorKind::TooLarge => ExportError::reject(refused.error.to_string()),
            _ => refused.error,
        };
        self.ending.failed(self.batch, open, error);
    }

    /// Time that is left for a request: the call is to end by itself, with verdicts.
    fn time(&self) -> Duration {
        self.batch.deadline().mul_f64(0.9).saturating_sub(self.started.elapsed())
    }

    fn of<'s>(&'s self, records: &'s [usize]) -> impl Iterator<Item = &'s Item<'a>> {
        self.items.iter().filter(|item| records.binary_search(&item.record.index()).is_ok())
    }

    /// Seals the fate of those records for this call. Returns those whose fate was open.
    fn close(&mut self, records: &[usize]) -> Vec<usize> {
        let among =
            |item: &&mut Item<'_>| item.is_open && records.binary_search(&item.record.index()).is_ok();
        let closed = self.items.iter_mut().filter(among).map(|item| {
            item.is_open = false;
            item.record.index()
        });
        closed.collect()
    }

    fn has_all(&self, item: &Item<'_>) -> bool {
        let lacks =
            |signal: &Signal| item.parts & part(*signal) == 0 && self.exporter.switches.is_on(*signal);
        !CARRIERS.iter().any(lacks)
    }

    /// A record that is done needs no memory.
    fn settle(&self, item: &Item<'_>) {
        self.exporter.progress.settle(&item.facts.id);
    }
}

impl Delivery {
    /// Whether the receiver knows the signal: it took a request, or judged its content.
    fn is_known(&self) -> bool {
        !self.taken.is_empty() || self.refused.iter().any(|(_, refused)| is_judged(refused))
    }
}

/// Whether the receiver has judged the content of a request, so that the next one may fare better.
fn is_judged(refused: &Refused) -> bool {
    matches!(refused.error.kind(), ErrorKind::Reject | ErrorKind::TooLarge)
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
            let names = exporter.origin.names();
            encode::log(&mut self.piece, &mut self.scratch, names, &item.facts, observed, body);
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
        let conversation = exporter.captures_content.then(|| {
            Conversation::read(item.facts.operation.work, record.request_json(), record.response_json())
        });
        for conversation in [conversation.as_ref(), None] {
            self.piece.clear();
            encode::span(&mut self.piece, exporter.origin.names(), &item.facts, conversation);
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
