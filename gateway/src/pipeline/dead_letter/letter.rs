//! One dead letter: a record as far as its exporter may see it, and why it was not delivered.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use bytes::Bytes;
use exporter_pipeline::{self as pipeline, DropReason, RejectReason};
use uuid::Uuid;

use crate::{clock, recorder::Record};

/// A record that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// The record's.
    pub id: Uuid,
    /// When it was given up.
    pub time: SystemTime,
    /// Whose record it was.
    pub plugin: Arc<str>,
    pub cause: Cause,
    /// In the words of the backend, the plugin or the gateway.
    pub message: Cow<'static, str>,
    /// Calls that it was part of.
    pub attempts: u32,
    pub metrics: Bytes,
    pub request: Bytes,
    pub response: Bytes,
    /// Length of the response before `streamed_data`, when it has that.
    pub before_streamed_data: Option<usize>,
}

/// Who gave it up, and why: the names are those of the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cause {
    pub fate: Cow<'static, str>,
    pub reason: Cow<'static, str>,
}

impl From<RejectReason> for Cause {
    fn from(reason: RejectReason) -> Self {
        Self { fate: "rejected".into(), reason: reason.label().into() }
    }
}

impl From<DropReason> for Cause {
    fn from(reason: DropReason) -> Self {
        Self { fate: "dropped".into(), reason: reason.label().into() }
    }
}

impl From<pipeline::Cause> for Cause {
    fn from(cause: pipeline::Cause) -> Self {
        match cause {
            pipeline::Cause::Rejected(reason) => reason.into(),
            pipeline::Cause::Dropped(reason) => reason.into(),
        }
    }
}

impl DeadLetter {
    /// A record as its exporter sees it, given up now.
    pub(crate) fn new(
        plugin: &Arc<str>,
        record: &Record,
        cause: Cause,
        message: impl Into<Cow<'static, str>>,
        attempts: u32,
    ) -> Self {
        Self {
            id: record.id,
            time: clock::now(),
            plugin: plugin.clone(),
            cause,
            message: message.into(),
            attempts,
            before_streamed_data: record.before_streamed_data,
            metrics: record.metrics.clone(),
            request: record.request.clone(),
            response: record.response.clone(),
        }
    }

    /// Bytes that it holds in memory, about.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.metrics.len() + self.request.len() + self.response.len() + self.message.len()
    }

    pub(crate) fn into_record(self) -> Record {
        Record {
            id: self.id,
            before_streamed_data: self.before_streamed_data,
            ..Record::of_parts(self.metrics, self.request, self.response)
        }
    }
}
