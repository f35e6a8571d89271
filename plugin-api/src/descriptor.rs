//! What a plugin says about itself, before it is asked to do anything.

use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::{exporter::TelemetryExporter, flat::Field};

/// What a plugin says about itself: the `DESCRIPTOR` of a [`TelemetryExporter`](crate::TelemetryExporter).
///
/// ```
/// use std::time::Duration;
/// use plugin_api::{Content, Descriptor};
///
/// const DESCRIPTOR: Descriptor = Descriptor::new("tally", env!("CARGO_PKG_VERSION"))
///     .description("Counts requests by model")
///     .content(Content::Metadata)
///     .batch(1_000, 1024 * 1024, Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) author: &'static str,
    pub(crate) description: &'static str,
    pub(crate) license: &'static str,
    pub(crate) content: Content,
    pub(crate) batch: BatchDefaults,
    pub(crate) limits: HardLimits,
    pub(crate) concurrent: bool,
    pub(crate) background_tasks: bool,
}

impl Descriptor {
    /// A descriptor with defaults that suit most backends: full content, batches of up to 500 records or 5 MiB that
    /// wait at most 1 s, no hard limits, one call at a time.
    ///
    /// `name` consists of lower-case letters, digits, `-` and `_`; `version` is the plugin's own. Anything else is a
    /// compile error.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        assert!(is_name(name), "a plugin's name consists of lower-case letters, digits, '-' and '_'");
        assert!(is_plain(version), "a plugin's version has no quotes, backslashes or control characters");
        Self {
            name,
            version,
            author: "",
            description: "",
            license: "",
            content: Content::Full,
            batch: BatchDefaults {
                max_records: 500,
                max_bytes: 5 * 1024 * 1024,
                max_delay: Duration::from_secs(1),
            },
            limits: HardLimits::NONE,
            concurrent: false,
            background_tasks: false,
        }
    }

    /// Who made it.
    #[must_use]
    pub const fn author(mut self, author: &'static str) -> Self {
        self.author = author;
        self
    }

    /// One sentence on what it does.
    #[must_use]
    pub const fn description(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// SPDX expression of its licence, for instance `MIT OR Apache-2.0`.
    #[must_use]
    pub const fn license(mut self, license: &'static str) -> Self {
        self.license = license;
        self
    }

    /// How much of a record it needs. An operator may allow less.
    #[must_use]
    pub const fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// Size of a batch unless the operator says otherwise: at most `max_records` records, `max_bytes` bytes of
    /// serialized parts, and `max_delay` between a batch's first record and its sending.
    #[must_use]
    pub const fn batch(mut self, max_records: u32, max_bytes: u64, max_delay: Duration) -> Self {
        self.batch = BatchDefaults { max_records, max_bytes, max_delay };
        self
    }

    /// What the backend can take at the most. It caps the operator's settings too.
    #[must_use]
    pub const fn limits(mut self, limits: HardLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Says that `export` may run on several threads at once, for operators who set `workers`.
    #[must_use]
    pub const fn concurrent(mut self) -> Self {
        self.concurrent = true;
        self
    }

    /// Keeps the runtime going between calls, on one more thread. Without it, a task that the plugin spawned makes
    /// progress only during its calls. Connection pools and keep-alives want it.
    #[must_use]
    pub const fn background_tasks(mut self) -> Self {
        self.background_tasks = true;
        self
    }
}

/// How much of each record a plugin sees: the least of what it asks for and of what the operator lets it see.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Content {
    /// Numbers and labels alone: no bodies, and nothing that names a person, an organisation or a conversation.
    None,
    /// Everything but the bodies.
    Metadata,
    /// Everything, bodies included.
    #[default]
    Full,
}

impl Content {
    /// As the settings write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Metadata => "metadata",
            Self::Full => "full",
        }
    }

    /// Whether a plugin of this content sees what a field says. [`None`](Self::None) hides those that name a person, an
    /// organisation or a conversation: they are `null`, and `thread_id` is the record's own id.
    #[must_use]
    pub const fn shows(self, field: Field) -> bool {
        let is_name = matches!(
            field,
            Field::ThreadId
                | Field::OrgId
                | Field::UserId
                | Field::ProjectId
                | Field::ProjectName
                | Field::ExperimentId
                | Field::TraceId
                | Field::SpanId
                | Field::ParentSpanId
                | Field::ResponseId
                | Field::PreviousResponseId
        );
        !is_name || !matches!(self, Self::None)
    }
}

/// How much of each record an instance with certain settings needs: what
/// [`TelemetryExporter::content`](crate::TelemetryExporter::content) says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContentNeed {
    /// What it makes use of. An operator may allow less.
    pub content: Content,
    /// What it cannot do without. An operator who allows less has made a mistake, and is told.
    #[serde(default)]
    pub required: Option<RequiredContent>,
}

/// The least that a setting needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequiredContent {
    /// How much of each record.
    pub content: Content,
    /// Which setting, and what for, such as ``metrics: `prompt_size` reads `request:/messages` ``.
    pub reason: String,
}

impl ContentNeed {
    /// So much is of use, and less will do.
    #[must_use]
    pub const fn new(content: Content) -> Self {
        Self { content, required: None }
    }

    /// A setting is of no use with less than `content`. Of several the one that needs most is told.
    #[must_use]
    pub fn requires(mut self, content: Content, reason: impl Into<String>) -> Self {
        self.content = self.content.max(content);
        if self.required.as_ref().is_none_or(|known| known.content < content) {
            self.required = Some(RequiredContent { content, reason: reason.into() });
        }
        self
    }
}

/// Size of a batch unless the operator says otherwise: what [`Descriptor::batch`] was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BatchDefaults {
    /// Records in a batch. At least 1.
    pub max_records: u32,
    /// Bytes of the serialized parts in a batch.
    pub max_bytes: u64,
    /// From a batch's first record until it is sent at the latest. In JSON: `max_delay_ms`.
    #[serde(rename = "max_delay_ms", with = "milliseconds")]
    pub max_delay: Duration,
}

/// What the backend can take at the most; `None` where it has no limit.
///
/// ```
/// use plugin_api::HardLimits;
///
/// const LIMITS: HardLimits = HardLimits::NONE.records(1_000).record_bytes(256 * 1024);
/// assert_eq!((LIMITS.max_records, LIMITS.max_bytes), (Some(1_000), None));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HardLimits {
    /// Records in one call.
    pub max_records: Option<u32>,
    /// Bytes of the serialized parts in one call.
    pub max_bytes: Option<u64>,
    /// Bytes of one record's serialized parts. A larger one loses its bodies; if that is not enough, it is dropped
    /// and counted.
    pub max_record_bytes: Option<u64>,
}

impl HardLimits {
    /// The backend has no limit.
    pub const NONE: Self = Self { max_records: None, max_bytes: None, max_record_bytes: None };

    /// Sets the records in one call.
    #[must_use]
    pub const fn records(mut self, max: u32) -> Self {
        self.max_records = Some(max);
        self
    }

    /// Sets the bytes of the serialized parts in one call.
    #[must_use]
    pub const fn bytes(mut self, max: u64) -> Self {
        self.max_bytes = Some(max);
        self
    }

    /// Sets the bytes of one record's serialized parts.
    #[must_use]
    pub const fn record_bytes(mut self, max: u64) -> Self {
        self.max_record_bytes = Some(max);
        self
    }
}

/// The descriptor as it crosses the boundary: one JSON object, written by `describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    /// The plugin's name.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// Who made it; may be empty.
    #[serde(default)]
    pub author: String,
    /// One sentence on what it does; may be empty.
    #[serde(default)]
    pub description: String,
    /// SPDX expression of its licence; may be empty.
    #[serde(default)]
    pub license: String,
    /// Version of the plugin API that it was built with.
    pub api_version: String,
    /// How much of a record it needs.
    pub content: Content,
    /// Size of a batch unless the operator says otherwise.
    pub batch: BatchDefaults,
    /// What its backend can take at the most.
    #[serde(default)]
    pub limits: HardLimits,
    /// Whether `export` may run on several threads at once.
    #[serde(default)]
    pub concurrent: bool,
    /// JSON Schema (draft 2020-12) of its settings. A property's `x-env` names the environment variable (or a list of
    /// them) that sets it when the configuration does not; `x-secret` marks a value that is never shown.
    pub config_schema: Schema,
}

/// Version of this crate.
pub(crate) const API_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Description {
    /// What exporter `E` says about itself.
    #[must_use]
    pub fn of<E: TelemetryExporter>() -> Self {
        Self::new(&E::DESCRIPTOR, schemars::schema_for!(E::Config))
    }

    /// What a plugin of this descriptor says, whose settings have this schema.
    #[must_use]
    pub fn new(descriptor: &Descriptor, config_schema: Schema) -> Self {
        Self {
            name: descriptor.name.to_owned(),
            version: descriptor.version.to_owned(),
            author: descriptor.author.to_owned(),
            description: descriptor.description.to_owned(),
            license: descriptor.license.to_owned(),
            api_version: API_VERSION.to_owned(),
            content: descriptor.content,
            batch: descriptor.batch,
            limits: descriptor.limits,
            concurrent: descriptor.concurrent,
            config_schema,
        }
    }
}

const fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if !matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty()
}

/// Printable ASCII that needs no escape in JSON.
const fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if !matches!(bytes[i], 0x20..=0x7e) || matches!(bytes[i], b'"' | b'\\') {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty()
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_the_boundary() {
        let descriptor = Descriptor::new("tally", "1.2.3")
            .author("someone")
            .content(Content::Metadata)
            .batch(10, 1000, Duration::from_millis(1500))
            .limits(HardLimits::NONE.record_bytes(5));
        let description = Description::new(&descriptor, schemars::schema_for!(u8));
        let json = serde_json::to_string(&description).unwrap();
        assert!(json.contains(r#""max_delay_ms":1500"#), "{json}");
        assert_eq!(serde_json::from_str::<Description>(&json).unwrap(), description);
    }

    #[test]
    fn of_several_needs_the_greatest_is_told() {
        let need = ContentNeed::new(Content::Full).requires(Content::Metadata, "a label");
        assert_eq!(
            (need.content, need.required.as_ref().unwrap().content),
            (Content::Full, Content::Metadata)
        );
        let need = need.requires(Content::Full, "a body").requires(Content::Full, "another");
        let needed = RequiredContent { content: Content::Full, reason: "a body".to_owned() };
        assert_eq!(need, ContentNeed { content: Content::Full, required: Some(needed) });
        let low = ContentNeed::new(Content::None).requires(Content::Metadata, "a label");
        assert_eq!(low.content, Content::Metadata);
    }

    #[test]
    fn a_content_is_called_as_the_settings_write_it() {
        for content in [Content::None, Content::Metadata, Content::Full] {
            assert_eq!(serde_json::json!(content), content.as_str());
            assert!(content.shows(Field::Model));
            assert_eq!(content.shows(Field::UserId), content != Content::None);
        }
    }

    #[test]
    fn a_description_of_a_later_release_is_read() {
        let description = Description::new(&Descriptor::new("a", "1"), schemars::schema_for!(u8));
        let mut value = serde_json::to_value(&description).unwrap();
        value["of_a_later_release"] = serde_json::json!({ "x": 1 });
        assert_eq!(serde_json::from_value::<Description>(value).unwrap(), description);
    }
}
