//! What an exporter may see of a record. What it may not see is not kept for it either.

use std::sync::Arc;

use bytes::Bytes;
use exporter_pipeline::Shed;
use plugin_api::{Content, RequestMetrics, abi::part};

use crate::{loader::BatchSource, recorder::Record};

/// One set of records, as far as the exporters of each kind may see them. Each view is made once, when it is asked for.
#[derive(Debug)]
pub(super) struct Views<'a> {
    full: &'a [Arc<Record>],
    metadata: Option<Vec<Arc<Record>>>,
    nameless: Option<Vec<Arc<Record>>>,
}

impl<'a> Views<'a> {
    pub(super) fn of(records: &'a [Arc<Record>]) -> Self {
        Self { full: records, metadata: None, nameless: None }
    }

    pub(super) fn view(&mut self, content: Content) -> &[Arc<Record>] {
        let all =
            |view: fn(&Record) -> Record| self.full.iter().map(|record| Arc::new(view(record))).collect();
        match content {
            Content::Full => self.full,
            Content::Metadata => self.metadata.get_or_insert_with(|| all(without_bodies)),
            _ => self.nameless.get_or_insert_with(|| all(without_names)),
        }
    }
}

fn without_bodies(record: &Record) -> Record {
    Record { request: Bytes::new(), response: Bytes::new(), before_streamed_data: None, ..record.clone() }
}

/// The record with everything taken out that names a person, an organisation or a conversation.
fn without_names(record: &Record) -> Record {
    let metrics = serde_json::from_slice::<RequestMetrics<'_>>(&record.metrics)
        .and_then(|mut metrics| {
            metrics.thread_id = metrics.id.clone();
            for name in [
                &mut metrics.org_id,
                &mut metrics.user_id,
                &mut metrics.project_id,
                &mut metrics.project_name,
                &mut metrics.experiment_id,
                &mut metrics.trace_id,
                &mut metrics.span_id,
                &mut metrics.parent_span_id,
                // By them, one answer of a conversation names the one before.
                &mut metrics.response_id,
                &mut metrics.previous_response_id,
            ] {
                *name = None;
            }
            serde_json::to_vec(&metrics)
        })
        .unwrap_or_default();
    Record { metrics: metrics.into(), ..without_bodies(record) }
}

/// The record without as many of its bodies as it takes to be no larger than `size`, or without all of them if that is not
/// enough; `None` when there is nothing to take off.
pub(super) fn reduced(record: &Record, size: u64) -> Option<(Arc<Record>, u64)> {
    let without = |level| {
        let record = record.shed(level)?;
        let size = record.size() as u64;
        Some((Arc::new(record), size))
    };
    Shed::reduce(size, without)
}

/// A batch as the loader hands it to a plugin.
#[derive(Debug)]
pub(super) struct Records(pub Vec<Arc<Record>>);

impl BatchSource for Records {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn part(&self, index: usize, part: u32) -> &[u8] {
        let Some(record) = self.0.get(index) else { return &[] };
        match part {
            part::METRICS => &record.metrics,
            part::REQUEST => &record.request,
            part::RESPONSE => &record.response,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Field;

    use super::*;

    fn record() -> Arc<Record> {
        Arc::new(Record::of_parts((&b"{\"m\":1}"[..]).into(), (&b"{}"[..]).into(), (&b"[]"[..]).into()))
    }

    #[test]
    fn an_exporter_keeps_alive_only_what_it_may_see() {
        let records = [record()];
        let mut views = Views::of(&records);
        let seen = |record: &Record| [record.metrics.len(), record.request.len(), record.response.len()];
        assert_eq!(seen(&views.view(Content::Full)[0]), [7, 2, 2]);
        assert!(Arc::ptr_eq(&views.view(Content::Full)[0], &records[0]));
        assert_eq!(seen(&views.view(Content::Metadata)[0]), [7, 0, 0]);
        let first = views.view(Content::Metadata)[0].clone();
        assert!(Arc::ptr_eq(&first, &views.view(Content::Metadata)[0]), "made once");
        let alone = Arc::downgrade(&records[0]);
        drop(records);
        assert!(alone.upgrade().is_none(), "a view keeps the whole record");
    }

    #[test]
    fn what_is_hidden_of_a_nameless_record_is_what_the_contract_says() {
        const CHAT: &str = include_str!("../../../plugin-api/tests/golden/record-chat.json");
        let mut metrics: serde_json::Value = serde_json::from_str(CHAT).unwrap();
        for field in Field::ALL.iter().filter(|field| !Content::None.shows(**field)) {
            metrics[field.name()] = "a name".into();
        }
        let whole = Record::of_parts(metrics.to_string().into(), Bytes::new(), Bytes::new());
        let nameless: serde_json::Value = serde_json::from_slice(&without_names(&whole).metrics).unwrap();
        for field in Field::ALL {
            let (name, seen) = (field.name(), &nameless[field.name()]);
            match (Content::None.shows(*field), *field) {
                (true, _) => assert_eq!(seen, &metrics[name], "{name}"),
                (false, Field::ThreadId) => assert_eq!(seen, &metrics["id"]),
                (false, _) => assert!(seen.is_null(), "{name} is {seen}"),
            }
        }
    }

    #[test]
    fn a_record_loses_no_more_bodies_than_it_must() {
        let sizes =
            |size| reduced(&record(), size).map(|(record, _)| [record.request.len(), record.response.len()]);
        assert_eq!(sizes(100), Some([2, 0]), "whoever asks wants something taken off");
        assert_eq!(sizes(9), Some([2, 0]));
        assert_eq!(sizes(8), Some([0, 0]));
        assert_eq!(sizes(0), Some([0, 0]));
        assert!(reduced(&reduced(&record(), 0).unwrap().0, 0).is_none());
    }
}
