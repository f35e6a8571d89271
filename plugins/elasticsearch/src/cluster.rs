//! The calls to the cluster.

use std::time::Duration;

use exporter_kit::http::{Answer, Body, Class, Client, Method, Request, Url, classify, join};
use plugin_api::{ExportError, Health};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    config::Auth,
    nodes::{Node, Nodes},
    template::Product,
};

/// A cluster, as seen by one instance.
#[derive(Debug)]
pub struct Cluster {
    /// Hides the credentials in what it quotes.
    pub client: Client,
    /// Whom to ask.
    pub nodes: Nodes,
    /// Who asks.
    pub auth: Auth,
    /// Time for one request to one node.
    pub timeout: Duration,
    /// The ingest pipeline.
    pub pipeline: Option<String>,
}

/// All that is read of an answer of `_bulk`.
const FILTER: &str = "errors,items.*.status,items.*.error";

/// Time for a look at the cluster's health.
const HEALTH_TIME: Duration = Duration::from_secs(5);

impl Cluster {
    /// Sends documents. The answer's status may be any.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn bulk(&self, body: &Body, deadline: Instant) -> Result<Answer, ExportError> {
        self.ask(deadline, |base| {
            let mut url = join(base, "_bulk");
            url.query_pairs_mut().append_pair("filter_path", FILTER);
            if let Some(pipeline) = &self.pipeline {
                url.query_pairs_mut().append_pair("pipeline", pipeline);
            }
            let request = self.client.post(url).header("content-type", "application/x-ndjson");
            self.authorized(request.body(body.clone()))
        })
        .await
    }

    /// Puts an index template, over the one of that name if there is one.
    ///
    /// # Errors
    /// When it is not there in the end, with what to do.
    pub async fn put_template(
        &self,
        name: &str,
        template: &[u8],
        deadline: Instant,
    ) -> Result<(), ExportError> {
        let answer = self
            .ask(deadline, |base| {
                let request =
                    self.client.request(Method::PUT, join(base, &format!("_index_template/{name}")));
                let request = request.header("content-type", "application/json");
                self.authorized(request.body(Body::plain(template.to_vec())))
            })
            .await?;
        let sentence = answer.sentence();
        match classify(answer.status()) {
            Class::Unauthorized => Err(ExportError::unauthorized(format!(
                "{sentence}; the index template needs the privilege manage_index_templates: grant it, or put the \
                 template by hand and set setup_template = false"
            ))),
            Class::Reject | Class::TooLarge => Err(ExportError::retry(format!(
                "{sentence}; the index template is not taken: remove what contradicts it, set template_priority, or \
                 put one by hand and set setup_template = false"
            ))),
            class => answer.check_as(class),
        }
    }

    /// Finds out whether the ingest pipeline exists: without it every record would be refused for good.
    ///
    /// # Errors
    /// When it does not, or nobody answers. Credentials that may use a pipeline and not look at it are no error.
    pub async fn find_pipeline(&self, deadline: Instant) -> Result<(), ExportError> {
        let Some(name) = &self.pipeline else { return Ok(()) };
        let path = format!("_ingest/pipeline/{name}");
        let answer = self.get(&path, deadline).await?;
        match (answer.status().as_u16(), classify(answer.status())) {
            (404, _) => Err(ExportError::retry(format!(
                "there is no ingest pipeline `{name}`; put it, or correct the setting pipeline ({})",
                answer.sentence()
            ))),
            (_, Class::Retry) => answer.check(),
            _ => Ok(()),
        }
    }

    /// What the cluster says it is. One that does not say counts as Elasticsearch.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn product(&self, deadline: Instant) -> Result<Product, ExportError> {
        Ok(Product::of(self.get("", deadline).await?.body()))
    }

    /// Whether the cluster takes records: what it says of itself, or, where it does not say (serverless), whether it
    /// answers.
    pub async fn health(&self) -> Health {
        let deadline = Instant::now() + HEALTH_TIME;
        let said = match self.get("_cluster/health", deadline).await {
            Ok(answer) if has_no_such_api(&answer) => self.get("", deadline).await,
            said => said,
        };
        match said {
            Ok(answer) => judge_health(&answer),
            Err(error) => Health::Unhealthy(error.to_string()),
        }
    }

    async fn get(&self, path: &str, deadline: Instant) -> Result<Answer, ExportError> {
        self.ask(deadline, |base| self.authorized(self.client.get(join(base, path)))).await
    }

    fn authorized<'a>(&self, request: Request<'a>) -> Result<Request<'a>, ExportError> {
        match &self.auth {
            // Basic: the user is in the URL, and the client makes a header of it.
            Auth::None | Auth::Basic(_) => Ok(request),
            Auth::ApiKey(key) => request.prefixed_secret_header("authorization", "ApiKey ", key),
            Auth::Bearer(token) => request.prefixed_secret_header("authorization", "Bearer ", token),
        }
    }

    /// Asks one node, and the next when that one does not answer: each once, as long as there is time. Whether and
    /// when to come back with the same records is for the gateway to decide.
    async fn ask<'a>(
        &'a self,
        deadline: Instant,
        request: impl Fn(&Url) -> Result<Request<'a>, ExportError>,
    ) -> Result<Answer, ExportError> {
        let order = self.nodes.order(Instant::now());
        let mut said = Err(ExportError::retry("no time left to ask a node"));
        for (place, node) in order.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let others = order.len() - place - 1;
            let time = self.timeout.min(share(left, others));
            if time.is_zero() {
                break;
            }
            said = request(node.url())?.timeout(time).send().await;
            if note(node, &said, others) {
                return said;
            }
        }
        said
    }
}

/// The time that a node gets of what is left: half of it where there are others to ask, else nearly all, so that it is
/// this side that gives up, and knows on whom.
fn share(left: Duration, others: usize) -> Duration {
    if others > 0 { left / 2 } else { left * 9 / 10 }
}

/// Whether the node gave an answer that is the cluster's; else it is left out for a while.
fn note(node: &Node, said: &Result<Answer, ExportError>, others: usize) -> bool {
    // From a proxy, or a node that starts or stops.
    let is_answer = said.as_ref().is_ok_and(|answer| !matches!(answer.status().as_u16(), 502..=504));
    if is_answer {
        node.answered();
    } else {
        let time = node.failed(Instant::now());
        if others > 0 {
            let error = said.as_ref().map_or_else(ToString::to_string, Answer::sentence);
            warn!(%error, left_out_for = ?time, "a node does not answer, the next one is asked");
        }
    }
    is_answer
}

/// Serverless clusters have no cluster API, and an API key may not be allowed to look.
fn has_no_such_api(answer: &Answer) -> bool {
    matches!(answer.status().as_u16(), 400 | 403 | 404 | 405 | 410 | 501)
}

fn judge_health(answer: &Answer) -> Health {
    #[derive(Deserialize)]
    struct Cluster<'a> {
        #[serde(borrow, default)]
        status: Option<&'a str>,
    }
    match answer.status().as_u16() {
        // The credentials are good, but not for this.
        403 | 404 | 410 => Health::Unknown,
        200..=299 => match serde_json::from_slice::<Cluster<'_>>(answer.body()) {
            Ok(Cluster { status: Some("red") }) => {
                Health::Unhealthy(format!("{}; the cluster is red: shards are missing", answer.sentence()))
            }
            Ok(_) => Health::Healthy,
            Err(_) => Health::Unhealthy(format!("{}; this is no Elasticsearch", answer.sentence())),
        },
        _ => Health::Unhealthy(answer.sentence()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leaves_time_for_the_next() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(30), 1), seconds(15));
        assert_eq!(share(seconds(30), 0), seconds(27));
        assert_eq!(share(seconds(0), 3), seconds(0));
    }
}
