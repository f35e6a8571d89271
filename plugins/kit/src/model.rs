//! The model that a record counts under, in metrics.
//!
//! A client can ask for anything, and a provider answers with a name of its own (`gpt-4o` is `gpt-4o-2024-08-06`). A
//! failure names no model, so it counts under the one that was asked for. Whether that exists is known once it was
//! answered.

use std::borrow::Cow;

use plugin_api::{Field, Fields};

use crate::bounded::BoundedLabel;

/// The model that a record counts under.
#[derive(Debug, PartialEq, Eq)]
pub struct CountedModel<'a> {
    /// The one that answered, else the one that was asked for.
    pub name: Option<Cow<'a, str>>,
    /// Whether it exists for certain: the request succeeded.
    pub is_proven: bool,
    /// The name that it was asked for by, where it is another one. It exists as well.
    pub alias: Option<Cow<'a, str>>,
}

impl<'a> CountedModel<'a> {
    /// That of a record.
    #[must_use]
    pub fn of(fields: &Fields<'a>) -> Self {
        let is_proven = fields.text(Field::Status).is_some_and(|status| status == "success");
        let (answered, asked) = (fields.text(Field::Model), fields.text(Field::RequestModel));
        let Some(answered) = answered else { return Self { name: asked, is_proven, alias: None } };
        let alias = asked.filter(|asked| is_proven && *asked != answered);
        Self { name: Some(answered), is_proven, alias }
    }
}

/// Models, bounded in number.
#[derive(Debug)]
pub struct BoundedModels(BoundedLabel);

impl BoundedModels {
    /// At most `limit` models beside `other`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(BoundedLabel::new(limit))
    }

    /// The model that a record counts under, or `other`.
    #[must_use]
    pub fn of(&self, fields: &Fields<'_>) -> Option<String> {
        let CountedModel { name, is_proven, alias } = CountedModel::of(fields);
        if let Some(alias) = alias {
            self.0.vouch(&alias);
        }
        Some(self.0.bound(&name?, is_proven).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;

    use super::*;

    fn models(limit: usize, samples: impl IntoIterator<Item = Sample>) -> Vec<Option<String>> {
        let models = BoundedModels::new(limit);
        let of = |sample: Sample| models.of(&Fields::parse(&sample.metrics_json()).unwrap());
        samples.into_iter().map(of).collect()
    }

    fn named(sample: Sample, asked: &str, answered: Option<&str>) -> Sample {
        let (asked, answered) = (asked.to_owned(), answered.map(str::to_owned));
        sample.with(|metrics| {
            metrics.request_model = Some(asked.into());
            metrics.model = answered.map(Into::into);
        })
    }

    #[test]
    fn a_failure_counts_under_the_model_that_was_asked_for() {
        let answered = named(Sample::chat(), "gpt-4o", Some("gpt-4o-2024-08-06"));
        let failed = named(Sample::failed(), "gpt-4o", None);
        let all = models(2, [failed.clone(), answered, failed]);
        assert_eq!(all, ["other", "gpt-4o-2024-08-06", "gpt-4o"].map(|name| Some(name.to_owned())));
    }

    #[test]
    fn names_that_were_never_answered_are_a_quarter_at_the_most() {
        let junk = (0..50).map(|n| named(Sample::failed(), &format!("junk-{n}"), None));
        let real = (0..10).map(|n| named(Sample::chat(), &format!("m{n}"), Some(&format!("m{n}-2024"))));
        let broken = (0..10).map(|n| named(Sample::failed(), &format!("m{n}"), None));
        let all = models(20, junk.chain(real).chain(broken));
        let count = |of: &str| all.iter().flatten().filter(|name| name.starts_with(of)).count();
        assert_eq!((count("junk"), count("m")), (5, 10 + 5), "20 places in all");
    }

    #[test]
    fn a_record_without_a_model_has_none() {
        let nameless = Sample::chat().with(|metrics| (metrics.model, metrics.request_model) = (None, None));
        assert_eq!(models(10, [nameless]), [None]);
    }
}
