use std::collections::HashSet;

use super::*;

#[test]
fn a_provider_has_the_conventions_name() {
    for (name, expected) in [("openai", "openai"), ("bedrock", "aws.bedrock"), ("my-own", "my-own")] {
        assert_eq!(provider(name), expected);
    }
}

#[test]
fn no_name_is_there_twice_and_bounds_ascend() {
    for conventions in [CORE_1_41, DEVELOPMENT] {
        let mut names = HashSet::new();
        assert!(conventions.attributes().all(|attribute| names.insert(attribute.name)));
        let mut rows = HashSet::new();
        for metric in conventions.metrics {
            let extra = format!("{:?}", metric.extra);
            assert!(metric.bounds.is_sorted() && rows.insert((metric.name, extra)), "{}", metric.name);
            assert!(!metric.description.is_empty(), "{}", metric.name);
        }
        let apart = conventions.metrics.chunk_by(|one, next| one.name == next.name).count();
        let all: HashSet<_> = conventions.metrics.iter().map(|metric| metric.name).collect();
        assert_eq!(apart, all.len(), "rows of one metric stand together");
    }
}

#[test]
fn a_span_has_fewer_attributes_than_anybody_cuts_at_and_the_important_ones_come_first() {
    const CONTENT: usize = 4;
    for conventions in [CORE_1_41, DEVELOPMENT] {
        let names: Vec<_> = conventions.attributes().map(|attribute| attribute.name).collect();
        assert!(names.len() + CONTENT <= 128, "{}", names.len());
        let place = |name| names.iter().position(|found| *found == name).unwrap();
        for name in [
            "gen_ai.operation.name",
            "gen_ai.request.model",
            "gen_ai.response.model",
            "gen_ai.conversation.id",
            "user.id",
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
        ] {
            assert!(place(name) < place("http.request.method"), "{name}");
            assert!(place(name) < place("gen_ai.request.temperature"), "{name}");
        }
    }
}

#[test]
fn every_member_that_a_row_reads_is_looked_for() {
    let mut read = vec!["n", "response_format", "text", "modalities", "reasoning_effort", "reasoning"];
    let mut of_answer = vec![CHUNK_TIMES];
    for attribute in [CORE_1_41, DEVELOPMENT].into_iter().flat_map(Conventions::attributes) {
        match attribute.source {
            Source::WholeOf(members) | Source::NumberOf(members) | Source::TextsOf(members) => {
                read.extend(members);
            }
            Source::TextOfAnswer(member) => of_answer.push(member),
            _ => {}
        }
    }
    let set = |names: &[&'static str]| names.iter().copied().collect::<HashSet<_>>();
    assert_eq!(set(PARAMETER_MEMBERS), set(&read));
    assert_eq!(set(ANSWER_MEMBERS), set(&of_answer));
}
