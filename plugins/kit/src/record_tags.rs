//! `record_tags`: tags that show what a record says. Every exporter whose backend knows tags has this setting, under this
//! name and in this notation.

use std::collections::BTreeMap;

use plugin_api::ContentNeed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    bounded::BoundedLabel,
    source::{Source, Sources},
};

/// The setting: a tag's name and what it shows, a field of the record or a place in a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RecordTags(pub BTreeMap<String, String>);

impl RecordTags {
    /// Adds what the tags need to see of a record.
    #[must_use]
    pub fn needed(&self, need: ContentNeed) -> ContentNeed {
        let sources = self.0.iter().filter_map(|(name, text)| Some((name, text, Source::parse(text).ok()?)));
        sources.fold(need, |need, (name, text, source)| {
            need.requires(source.content(), format!("record_tags: `{name}` shows `{text}`"))
        })
    }

    /// The tags, each with at most `max_values` values where it is bounded.
    ///
    /// # Errors
    /// A sentence that names the tag, when it shows what is not there.
    pub fn read(&self, max_values: usize) -> Result<Vec<RecordTag>, String> {
        let tag = |(name, text): (&String, &String)| {
            let source = Source::parse(text).map_err(|error| format!("record_tags: `{name}`: {error}"))?;
            Ok(RecordTag { name: name.clone(), source, values: BoundedLabel::new(max_values) })
        };
        self.0.iter().map(tag).collect()
    }
}

/// One tag.
#[derive(Debug)]
pub struct RecordTag {
    /// Its name.
    pub name: String,
    source: Source,
    values: BoundedLabel,
}

impl RecordTag {
    /// What it shows of a record, for logs and spans; `None` where there is nothing.
    #[must_use]
    pub fn value(&self, from: Sources<'_>) -> Option<String> {
        let value = self.source.read(from);
        value.label(&mut itoa::Buffer::new()).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// The same for metrics, whose tags are billed: beyond the bound it is `other`.
    #[must_use]
    pub fn bounded(&self, from: Sources<'_>) -> Option<String> {
        Some(self.values.bound(&self.value(from)?, true).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;
    use plugin_api::{Content, Fields};

    use super::*;

    fn tags(list: &[(&str, &str)]) -> RecordTags {
        RecordTags(list.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect())
    }

    #[test]
    fn a_tag_shows_a_field_or_a_place_in_a_body() {
        let json = Sample::chat().metrics_json();
        let fields = Fields::parse(&json).unwrap();
        let from = Sources { fields: &fields, request: br#"{"tier":"flex","n":2}"#, response: b"" };
        for (source, expected) in [
            ("project_id", Some("proj_design")),
            ("status_code", Some("200")),
            ("is_streaming", Some("false")),
            ("request:/tier", Some("flex")),
            ("request:/n", Some("2")),
            ("request:/absent", None),
            ("response:/id", None),
            ("experiment_id", None),
        ] {
            let read = tags(&[("a", source)]).read(5).unwrap();
            assert_eq!(read[0].value(from).as_deref(), expected, "{source}");
        }
    }

    #[test]
    fn what_a_tag_shows_in_metrics_is_bounded() {
        let team = tags(&[("team", "project_id")]).read(1).unwrap().remove(0);
        let of = |project: &'static str| {
            let json =
                Sample::chat().with(|metrics| metrics.project_id = Some(project.into())).metrics_json();
            let fields = Fields::parse(&json).unwrap();
            let from = Sources { fields: &fields, request: b"", response: b"" };
            (team.bounded(from).unwrap(), team.value(from).unwrap())
        };
        assert_eq!(of("a"), ("a".to_owned(), "a".to_owned()));
        assert_eq!(of("b"), ("other".to_owned(), "b".to_owned()));
    }

    #[test]
    fn what_is_not_there_is_named_and_what_is_needed_is_told() {
        let error = tags(&[("team", "projectid")]).read(1).unwrap_err();
        assert!(error.starts_with("record_tags: `team`: `projectid` is no field"), "{error}");
        let need = |list| tags(list).needed(ContentNeed::new(Content::None));
        assert_eq!(need(&[("team", "model")]).content, Content::None);
        let need = need(&[("team", "project_id"), ("tier", "request:/tier")]);
        assert_eq!(need.required.unwrap().reason, "record_tags: `tier` shows `request:/tier`");
    }
}
