//! Exporter `elasticsearch`: every record as a document of an index or a data stream, in Elasticsearch 7, 8 and 9 and
//! in OpenSearch.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | the settings |
//! | [`index`] | names of indices and data streams, with the record's date if wanted |
//! | [`encode`] | a record as the two lines that `_bulk` takes |
//! | [`answer`] | what `_bulk` answers: a verdict on each record |
//! | [`template`] | the index template |
//! | [`nodes`] | which node to ask |
//! | [`cluster`] | the calls to the cluster |
//!
//! Invariants: a document's `_id` is the record's id and it is only ever created, so that a record that is sent again is
//! not there twice; no body is parsed; nothing is sent before the template is there, if it is to be; no request is
//! larger than `max_request_bytes`.

#![forbid(unsafe_code)]

pub mod answer;
pub mod cluster;
pub mod config;
pub mod encode;
pub mod index;
pub mod nodes;
pub mod template;

use std::time::Duration;

use exporter_kit::{
    http::{Answer, Body, Client},
    pack::{Packed, deliver},
};
use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter, export_plugin};
use tokio::{sync::OnceCell, time::Instant};
use tracing::warn;

use crate::{
    answer::{Fate, Verdicts},
    cluster::Cluster,
    config::{Auth, Bodies, Config},
    encode::Encoder,
    nodes::Nodes,
    template::{Product, index_template},
};

/// The exporter.
#[derive(Debug)]
pub struct Elasticsearch {
    config: Config,
    cluster: Cluster,
    encoder: Encoder,
    /// Set once the template is there, and the pipeline was seen.
    ready: OnceCell<()>,
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
            has_bodies: config.bodies != Bodies::Off,
            max_request_bytes: config.max_request_bytes.as_usize(),
        };
        let cluster = Cluster {
            client,
            nodes: Nodes::new(urls),
            auth,
            timeout: config.timeout.0,
            pipeline: config.pipeline.clone(),
        };
        let exporter = Self { config, cluster, encoder, ready: OnceCell::new() };
        if let Err(error) = exporter.get_ready(Instant::now() + FIRST_LOOK).await {
            warn!(%error, "the cluster cannot be used yet; records wait for it");
        } else if let Health::Unhealthy(error) = exporter.cluster.health().await {
            warn!(%error, "the cluster is not healthy");
        }
        Ok(exporter)
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let deadline = Instant::now() + batch.deadline();
        self.get_ready(deadline).await?;
        let encoded = self.encoder.encode(batch);
        if encoded.shed > 0 {
            warn!(records = encoded.shed, "larger than max_request_bytes, sent without their bodies");
        }
        deliver(batch, encoded.requests, async |request| {
            let body =
                if self.config.gzip { Body::gzip(&request.body) } else { Body::plain(request.body.clone()) };
            judge(batch, request, &self.cluster.bulk(&body, deadline).await?)
        })
        .await
    }

    async fn health(&self) -> Health {
        self.cluster.health().await
    }
}

impl Elasticsearch {
    /// Puts the template and looks for the pipeline, once: at the start, or as soon as the cluster can be reached.
    async fn get_ready(&self, deadline: Instant) -> Result<(), ExportError> {
        let prepare = async || {
            self.cluster.find_pipeline(deadline).await?;
            if self.config.setup_template { self.put_template(deadline).await } else { Ok(()) }
        };
        self.ready.get_or_try_init(prepare).await?;
        Ok(())
    }

    async fn put_template(&self, deadline: Instant) -> Result<(), ExportError> {
        let product = match self.config.bodies {
            Bodies::Flattened => self.cluster.product(deadline).await?,
            Bodies::Stored | Bodies::Off => Product::Elasticsearch,
        };
        if product == Product::OpenSearch {
            warn!(
                "bodies = \"flattened\": OpenSearch refuses a record with a text over 32 KB in a body; \"stored\" has no limit"
            );
        }
        let index = &self.encoder.index;
        let template = index_template(&self.config, &index.template_pattern(), product);
        self.cluster.put_template(&index.template_name(), template.to_string().as_bytes(), deadline).await
    }
}

/// From an answer of `_bulk` to verdicts on the records of its request.
fn judge(batch: Batch<'_>, request: &Packed, answer: &Answer) -> Result<(), ExportError> {
    if !answer.status().is_success() {
        return answer.check();
    }
    let (target, sent) = (answer.target(), request.records.len());
    let incomplete = |why: &str| ExportError::retry(format!("{target}: {why}; the records are sent again"));
    let fates = match answer::read(answer.body()) {
        Ok(Verdicts::AllDelivered(count)) if count == sent => return Ok(()),
        // Which of them it speaks of is anybody's guess; those that are there already will be conflicts.
        Ok(Verdicts::AllDelivered(count)) => {
            return Err(incomplete(&format!("an answer of {count} items to {sent} records")));
        }
        Ok(Verdicts::Each(fates)) if fates.len() > sent => {
            return Err(incomplete(&format!("an answer of {} items to {sent} records", fates.len())));
        }
        Ok(Verdicts::Each(fates)) => fates,
        Err(error) => return Err(incomplete(&format!("no whole answer of _bulk ({error})"))),
    };
    if let Some(delay) = answer.retry_after() {
        batch.retry_after(delay);
    }
    give_verdicts(batch, request, target, fates)
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
