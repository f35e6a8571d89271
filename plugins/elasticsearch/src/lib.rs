//! Exporter `elasticsearch`: every record as a document of an index or a data stream, in Elasticsearch 7, 8 and 9 and
//! in OpenSearch.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`index`] | names of indices and data streams, with the record's date if wanted |
//! | [`encode`] | a record as the two lines that `_bulk` takes |
//! | [`fit`] | a body as a cluster takes it: mended, or left out |
//! | [`text`] | what was said, as one text that is searched by words |
//! | [`tokens`] | the tokens of JSON, which both read |
//! | [`tally`] | how many bodies went otherwise than they came |
//! | [`answer`] | what `_bulk` answers: a verdict on each record |
//! | [`template`] | the index template |
//! | [`nodes`] | which node to ask |
//! | [`cluster`] | the calls to the cluster |
//!
//! Invariants: a document's `_id` is the record's id and it is only ever created, so that a record that is sent again is
//! not there twice; no body keeps its record out; nothing is sent before the template is there, if it is to be; no request
//! is larger than `max_request_bytes`.

#![forbid(unsafe_code)]

pub mod answer;
pub mod cluster;
pub mod config;
pub mod encode;
pub mod fit;
pub mod index;
pub mod nodes;
pub mod tally;
pub mod template;
pub mod text;
pub mod tokens;

use std::{
    io::{self, Write},
    time::Duration,
};

use exporter_kit::{
    http::{Answer, Body, Client},
    pack::{Packed, deliver},
};
use plugin_api::{
    Batch, Descriptor, ErrorKind, ExportError, Health, Host, InitError, TelemetryExporter, export_plugin,
};
use tokio::{sync::OnceCell, time::Instant};
use tracing::warn;

use crate::{
    answer::{Fate, Verdicts},
    cluster::Cluster,
    config::{Auth, Bodies, Config},
    encode::Encoder,
    nodes::Nodes,
    tally::Tally,
    template::{Product, index_template},
};

/// The exporter.
#[derive(Debug)]
pub struct Elasticsearch {
    config: Config,
    cluster: Cluster,
    encoder: Encoder,
    /// What the cluster is. Set once the template is there, and the pipeline was seen.
    ready: OnceCell<Product>,
    tally: Tally,
}

/// Time for the first look at the cluster.
const FIRST_LOOK: Duration = Duration::from_secs(5);

impl TelemetryExporter for Elasticsearch {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("elasticsearch", env!("CARGO_PKG_VERSION"))
        .description("Writes records as documents to Elasticsearch or OpenSearch")
        .license("MIT OR Apache-2.0")
        .batch(500, 5 * 1024 * 1024, Duration::from_secs(1))
        .concurrent()
        .background_tasks();

    async fn init(config: Config, host: Host) -> Result<Self, InitError> {
        config.check()?;
        let (urls, auth) = config.nodes()?;
        let secrets = match &auth {
            Auth::None => None,
            Auth::ApiKey(secret) | Auth::Bearer(secret) | Auth::Basic(secret) => Some(secret),
        };
        let client = Client::new(&host, &config.tls, config.timeout.0)?.hiding(secrets);
        let encoder = Encoder {
            index: config.index()?,
            bodies: config.bodies,
            max_text_bytes: config.max_text_bytes.as_usize(),
            max_request_bytes: config.max_request_bytes.as_usize(),
        };
        let cluster = Cluster {
            client,
            nodes: Nodes::new(urls),
            auth,
            timeout: config.timeout.0,
            pipeline: config.pipeline.clone(),
        };
        let tally = Tally::of(host.instance());
        let exporter = Self { config, cluster, encoder, ready: OnceCell::new(), tally };
        if let Err(error) = exporter.get_ready(Instant::now() + FIRST_LOOK).await {
            warn!(%error, "the cluster cannot be used yet; records wait for it");
        } else if let Health::Unhealthy(error) = exporter.cluster.health().await {
            warn!(%error, "the cluster is not healthy");
        }
        Ok(exporter)
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let deadline = Instant::now() + batch.deadline();
        let product = self.get_ready(deadline).await?;
        let encoded = self.encoder.encode(batch, product);
        self.tally.encoded(&encoded);
        deliver(batch, encoded.requests, async |request| self.send(batch, request, deadline).await).await
    }

    async fn health(&self) -> Health {
        self.cluster.health().await
    }

    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        self.tally.write_to(out)
    }
}

impl Elasticsearch {
    /// Sends a request. Records that are refused are sent once more without their bodies, which may be why.
    async fn send(&self, batch: Batch<'_>, request: &Packed, deadline: Instant) -> Result<(), ExportError> {
        let answer = self.bulk(request, deadline).await?;
        let mut fates = match fates(request, &answer) {
            Ok(Some(fates)) => fates,
            Ok(None) => return Ok(()),
            Err(error) => return self.send_refused_again(batch, request, error, deadline).await,
        };
        let may_be_the_bodies = |(record, fate): &(&usize, &Fate)| {
            matches!(fate, Fate::Rejected(_)) && self.has_bodies(batch, **record)
        };
        let refused = request.records.iter().zip(&fates).filter(may_be_the_bodies);
        let refused: Vec<usize> = refused.map(|(record, _)| *record).collect();
        for (record, fate) in self.send_without_bodies(batch, &refused, deadline).await {
            if let Some(place) = request.records.iter().position(|sent| *sent == record) {
                fates[place] = fate;
            }
        }
        if let Some(delay) = answer.retry_after() {
            batch.retry_after(delay);
        }
        give_verdicts(batch, request, answer.target(), fates)
    }

    /// The same where a request was refused as a whole: with one record in it, that may be its bodies' fault.
    async fn send_refused_again(
        &self,
        batch: Batch<'_>,
        request: &Packed,
        error: ExportError,
        deadline: Instant,
    ) -> Result<(), ExportError> {
        let [record] = request.records[..] else { return Err(error) };
        if error.kind() != ErrorKind::Reject || !self.has_bodies(batch, record) {
            return Err(error);
        }
        match self.send_without_bodies(batch, &[record], deadline).await[..] {
            [(_, Fate::Delivered)] => Ok(()),
            _ => Err(error),
        }
    }

    async fn send_without_bodies(
        &self,
        batch: Batch<'_>,
        records: &[usize],
        deadline: Instant,
    ) -> Vec<(usize, Fate)> {
        let mut all = Vec::with_capacity(records.len());
        for request in self.encoder.encode_without_bodies(batch, records) {
            let answered = match self.bulk(&request, deadline).await {
                Ok(answer) => fates(&request, &answer),
                Err(error) => Err(error),
            };
            let count = request.records.len();
            let mut fates = match answered {
                Ok(Some(fates)) => fates,
                Ok(None) => vec![Fate::Delivered; count],
                Err(error) => vec![Fate::Retry(error.to_string()); count],
            };
            fates.resize(count, Fate::Retry("no verdict on this record in the answer".to_owned()));
            all.extend(request.records.into_iter().zip(fates));
        }
        let delivered = all.iter().filter(|(_, fate)| *fate == Fate::Delivered).count();
        self.tally.refused(delivered);
        all
    }

    async fn bulk(&self, request: &Packed, deadline: Instant) -> Result<Answer, ExportError> {
        self.cluster.bulk(&Body::new(request.body.clone(), self.config.gzip), deadline).await
    }

    fn has_bodies(&self, batch: Batch<'_>, record: usize) -> bool {
        batch.get(record).is_some_and(|record| self.encoder.has_bodies(record))
    }

    /// Puts the template and looks for the pipeline, once: at the start, or as soon as the cluster can be reached.
    async fn get_ready(&self, deadline: Instant) -> Result<Product, ExportError> {
        let prepare = async || {
            self.cluster.find_pipeline(deadline).await?;
            let product = match self.config.bodies {
                Bodies::Flattened => self.cluster.product(deadline).await?,
                Bodies::Stored | Bodies::Text | Bodies::Off => Product::Elasticsearch,
            };
            if self.config.setup_template {
                self.put_template(product, deadline).await?;
            }
            Ok(product)
        };
        self.ready.get_or_try_init(prepare).await.copied()
    }

    async fn put_template(&self, product: Product, deadline: Instant) -> Result<(), ExportError> {
        if product == Product::OpenSearch {
            warn!(
                "bodies = \"flattened\": for OpenSearch a body with a text over 32 KB is left out; \"stored\" and \
                 \"text\" have no limit"
            );
        }
        let index = &self.encoder.index;
        let template = index_template(&self.config, &index.template_pattern(), product);
        self.cluster.put_template(&index.template_name(), template.to_string().as_bytes(), deadline).await
    }
}

/// What an answer of `_bulk` says of the records of its request: `None` where all are delivered.
fn fates(request: &Packed, answer: &Answer) -> Result<Option<Vec<Fate>>, ExportError> {
    if !answer.status().is_success() {
        answer.check()?;
    }
    let (target, sent) = (answer.target(), request.records.len());
    let incomplete = |why: &str| ExportError::retry(format!("{target}: {why}; the records are sent again"));
    match answer::read(answer.body()) {
        Ok(Verdicts::AllDelivered(count)) if count == sent => Ok(None),
        // Which of them it speaks of is anybody's guess; those that are there already will be conflicts.
        Ok(Verdicts::AllDelivered(count)) => {
            Err(incomplete(&format!("an answer of {count} items to {sent} records")))
        }
        Ok(Verdicts::Each(fates)) if fates.len() > sent => {
            Err(incomplete(&format!("an answer of {} items to {sent} records", fates.len())))
        }
        Ok(Verdicts::Each(fates)) => Ok(Some(fates)),
        Err(error) => Err(incomplete(&format!("no whole answer of _bulk ({error})"))),
    }
}

fn give_verdicts(
    batch: Batch<'_>,
    request: &Packed,
    target: &str,
    fates: Vec<Fate>,
) -> Result<(), ExportError> {
    let nothing_taken = fates.iter().all(|fate| matches!(fate, Fate::Retry(_)));
    let answered = fates.len();
    let mut error = None;
    for (record, fate) in request.records.iter().zip(fates) {
        match fate {
            Fate::Delivered => batch.delivered(*record),
            Fate::Rejected(reason) => batch.reject(*record, &reason),
            Fate::Retry(reason) => {
                // When nothing goes, the circuit breaker is to know; one busy shard is no reason for it to open.
                if nothing_taken && error.is_none() {
                    error = Some(ExportError::retry(format!("{target}: {reason}")));
                }
                batch.retry(*record, &reason);
            }
            Fate::Unauthorized(reason) => {
                let text =
                    format!("{target}: {reason} (may these credentials create documents in the index?)");
                batch.retry(*record, &text);
                error = Some(ExportError::unauthorized(text));
            }
        }
    }
    for record in &request.records[answered..] {
        batch.retry(*record, &format!("{target}: no verdict on this record in the answer"));
    }
    Err(error.unwrap_or_else(ExportError::per_record))
}

export_plugin!(Elasticsearch);

#[cfg(test)]
mod tests;
