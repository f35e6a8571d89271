//! Who sends: what is the same on everything that one instance sends, unless the record says it.

use std::borrow::Cow;

use exporter_kit::{record_tags::RecordTag, source::Sources};
use plugin_api::{Field, Fields, InitError};

use crate::{config::Config, tag};

/// The sender's names and tags.
#[derive(Debug, Default)]
pub struct Identity {
    /// `env`, where the settings have one.
    pub env: Option<String>,
    /// `service`, where the settings have one.
    pub service: Option<String>,
    /// `version`, where the settings have one.
    pub version: Option<String>,
    /// The machine's name.
    pub hostname: Option<String>,
    /// `ddsource`.
    pub source: String,
    /// The operator's tags, clean.
    pub tags: Vec<String>,
    /// Those that show what a record says.
    pub record_tags: Vec<RecordTag>,
}

/// What tags are for: those of metrics are billed by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagsOf {
    /// A log or a span.
    Event,
    /// A metric.
    Metric,
}

impl Identity {
    /// The sender as the settings have it.
    ///
    /// # Errors
    /// When a tag is none.
    pub fn new(config: &Config) -> Result<Self, InitError> {
        let given = |text: &Option<String>| {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Ok(Self {
            env: given(&config.env),
            service: given(&config.service),
            version: given(&config.version),
            hostname: config.host(),
            source: config.source.clone(),
            tags: config.own_tags()?,
            record_tags: config.record_tags()?,
        })
    }

    /// `service` of a record, no longer than a tag.
    #[must_use]
    pub fn service<'a>(&'a self, fields: &Fields<'a>) -> Cow<'a, str> {
        let service = or_field(self.service.as_deref(), fields, Field::ServiceName);
        match service {
            Cow::Borrowed(text) => Cow::Borrowed(tag::cut(text, tag::MAX_LENGTH)),
            Cow::Owned(text) => Cow::Owned(tag::cut(&text, tag::MAX_LENGTH).to_owned()),
        }
    }

    /// Calls `add` with each tag of a record: `env`, `version`, `provider`, `model` (this one), `status`,
    /// `status_code`, `is_streaming`, and the operator's.
    pub fn tags(&self, of: TagsOf, from: Sources<'_>, model: Option<&str>, mut add: impl FnMut(&str)) {
        let fields = from.fields;
        let mut field = |key: &str, value: &str| {
            if let Some(tag) = tag::tag(key, value) {
                add(&tag);
            }
        };
        field("env", &or_field(self.env.as_deref(), fields, Field::Environment));
        field("version", &or_field(self.version.as_deref(), fields, Field::ServiceVersion));
        field("provider", &fields.text(Field::Provider).unwrap_or_default());
        field("model", model.unwrap_or_default());
        field("status", &fields.text(Field::Status).unwrap_or_default());
        if let Some(status) = fields.whole(Field::StatusCode) {
            field("status_code", &status.to_string());
        }
        match fields.flag(Field::IsStreaming) {
            Some(true) => field("is_streaming", "true"),
            _ => field("is_streaming", "false"),
        }
        for own in &self.record_tags {
            let value = match of {
                TagsOf::Event => own.value(from),
                TagsOf::Metric => own.bounded(from),
            };
            field(&own.name, &value.unwrap_or_default());
        }
        self.tags.iter().for_each(|tag| add(tag));
    }
}

/// The model that answered, else the one that was asked for.
#[must_use]
pub fn model<'a>(fields: &Fields<'a>) -> Option<Cow<'a, str>> {
    fields.text(Field::Model).or_else(|| fields.text(Field::RequestModel))
}

fn or_field<'a>(given: Option<&'a str>, fields: &Fields<'a>, field: Field) -> Cow<'a, str> {
    match given {
        Some(text) => Cow::Borrowed(text),
        None => fields.text(field).unwrap_or_default(),
    }
}
