//! One record in one exporter's queue: what this exporter may see of it, and since when it waits.

use std::sync::Arc;

use bytes::Bytes;
use plugin_api::{Content, RequestMetrics, abi::part};
use tokio::time::Instant;

use crate::{
    loader::BatchSource,
    recorder::{Record, Shed},
};

#[derive(Debug, Clone)]
pub(crate) struct Item {
    record: Arc<Record>,
    content: Content,
    queued_at: Instant,
}

impl Item {
    pub(crate) fn new(record: Arc<Record>, content: Content, now: Instant) -> Self {
        let record = if content == Content::None { Arc::new(without_names(&record)) } else { record };
        Self { record, content, queued_at: now }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    pub(crate) fn queued_at(&self) -> Instant {
        self.queued_at
    }

    /// Bytes that this exporter gets to see.
    pub(crate) fn size(&self) -> u64 {
        let record = &self.record;
        let bodies =
            if self.content == Content::Full { record.request.len() + record.response.len() } else { 0 };
        (record.metrics.len() + bodies) as u64
    }

    /// The record without as many of its bodies as it takes to fit into `room`, or without all of them if that is
    /// not enough; `None` when there is nothing to shed.
    pub(crate) fn shed_to(&self, room: u64) -> Option<Self> {
        if self.content != Content::Full {
            return None;
        }
        let mut smallest = None;
        for level in Shed::ORDER {
            if let Some(record) = self.record.shed(level) {
                let item = Self { record: Arc::new(record), ..self.clone() };
                let fits = item.size() <= room;
                smallest = Some(item);
                if fits {
                    break;
                }
            }
        }
        smallest
    }

    /// The record's parts as far as this exporter may see them; nothing is copied.
    pub(crate) fn parts(&self) -> [Bytes; 3] {
        let Record { metrics, request, response, .. } = &*self.record;
        match self.content {
            Content::Full => [metrics.clone(), request.clone(), response.clone()],
            _ => [metrics.clone(), Bytes::new(), Bytes::new()],
        }
    }

    fn part(&self, part: u32) -> &[u8] {
        match part {
            part::METRICS => &self.record.metrics,
            part::REQUEST if self.content == Content::Full => &self.record.request,
            part::RESPONSE if self.content == Content::Full => &self.record.response,
            _ => &[],
        }
    }
}

/// A batch as the loader hands it to a plugin.
#[derive(Debug)]
pub(crate) struct Items(pub Vec<Item>);

impl BatchSource for Items {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn part(&self, index: usize, part: u32) -> &[u8] {
        self.0.get(index).map_or(&[], |item| item.part(part))
    }
}

/// The record with everything taken out that names a person, an organisation or a conversation.
fn without_names(record: &Record) -> Record {
    let metrics = serde_json::from_slice::<RequestMetrics<'_>>(&record.metrics)
        .and_then(|metrics| {
            serde_json::to_vec(&RequestMetrics {
                thread_id: metrics.id.clone(),
                org_id: None,
                user_id: None,
                project_id: None,
                project_name: None,
                experiment_id: None,
                trace_id: None,
                span_id: None,
                ..metrics
            })
        })
        .unwrap_or_default();
    Record { metrics: metrics.into(), request: Bytes::new(), response: Bytes::new(), ..record.clone() }
}
