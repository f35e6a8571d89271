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

/// What the conventions say of a name, and what this exporter sends under it: see the table's head.
const CORE: &str = include_str!("../../conventions/core-1.41.0.tsv");
/// Names that are in the conventions after 1.41 and are sent with it all the same.
const AHEAD: [&str; 2] = ["gen_ai.request.reasoning.level", "gen_ai.request.previous_response.id"];
/// The name until semantic conventions 1.27.
const OLDER: [&str; 1] = ["deployment.environment"];

fn facts(kind: &str) -> Vec<[&'static str; 3]> {
    let rows = CORE.lines().filter(|line| !line.starts_with('#'));
    let rows = rows.map(|line| line.split('\t').collect::<Vec<_>>());
    let of_kind = rows.filter(|row| row[0] == kind);
    of_kind.map(|row| row[1..].try_into().unwrap_or_else(|_| panic!("{row:?}"))).collect()
}

/// The type that a source gives an attribute, where the table has an enum as text.
fn type_of(source: Source) -> &'static str {
    match source {
        Source::Whole(_) | Source::Usage(_) | Source::WholeOf(_) | Source::Choices => "int",
        Source::Number(_) | Source::Seconds(_) | Source::SecondsOfStream(_) | Source::NumberOf(_) => "double",
        Source::Texts(_) | Source::TextsOf(_) | Source::FinishReasons => "string[]",
        Source::True(_) => "boolean",
        Source::Operation
        | Source::ApiType
        | Source::Provider
        | Source::Conversation
        | Source::ErrorType
        | Source::Text(_)
        | Source::OutputType
        | Source::ReasoningLevel
        | Source::TextOfAnswer(_) => "string",
    }
}

#[test]
fn every_attribute_is_one_of_the_conventions_with_its_type_or_ours() {
    let known = facts("attribute");
    let type_in = |name: &str| known.iter().find(|[known, ..]| *known == name).map(|[_, kind, _]| *kind);
    for attribute in CORE_1_41.attributes() {
        let name = attribute.name;
        if name.starts_with("magicapi.") || AHEAD.contains(&name) {
            assert_eq!(type_in(name), None, "{name} is in the conventions");
            continue;
        }
        let expected = type_in(name).unwrap_or_else(|| panic!("{name} is not in the conventions"));
        let expected = if expected == "enum" { "string" } else { expected };
        assert_eq!(type_of(attribute.source), expected, "{name}");
    }
    let content = [SYSTEM_INSTRUCTIONS, TOOL_DEFINITIONS, INPUT_MESSAGES, OUTPUT_MESSAGES];
    assert_eq!(content.map(type_in), [Some("any"); 4]);
    for name in [LOG_RECORD_UID, INSTANCE_ID].into_iter().chain(RESOURCE.iter().map(|(name, _)| *name)) {
        assert!(type_in(name).is_some() || OLDER.contains(&name), "{name}");
    }
}

#[test]
fn what_the_conventions_require_is_sent_and_what_is_not_sent_is_known() {
    // A record does not know its provider's address.
    const UNKNOWN: [&str; 2] = ["server.address", "server.port"];
    let mut sent: HashSet<_> = CORE_1_41.attributes().map(|attribute| attribute.name).collect();
    sent.extend([SYSTEM_INSTRUCTIONS, TOOL_DEFINITIONS, INPUT_MESSAGES, OUTPUT_MESSAGES]);
    for [name, _, requirement] in facts("attribute") {
        let is_sent = sent.contains(name) || UNKNOWN.contains(&name);
        assert!(requirement == "-" || is_sent, "{name} is {requirement}");
    }
}

#[test]
fn every_metric_is_one_of_the_conventions_with_its_instrument_and_attributes() {
    let known = facts("metric");
    for metric in CORE_1_41.metrics.iter().filter(|metric| !metric.name.starts_with("magicapi.")) {
        let [_, instrument, required] = known
            .iter()
            .find(|[name, ..]| *name == metric.name)
            .unwrap_or_else(|| panic!("{} is not in the conventions", metric.name));
        assert_eq!(format!("histogram {}", metric.unit), *instrument, "{}", metric.name);
        let mut sent: Vec<_> = METRIC_ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
        if let Extra::Text(name, _) = metric.extra {
            sent.push(name);
        }
        assert!(required.split(',').all(|name| sent.contains(&name)), "{}: {required}", metric.name);
    }
    let sent: HashSet<_> = CORE_1_41.metrics.iter().map(|metric| metric.name).collect();
    assert!(known.iter().all(|[name, ..]| sent.contains(name)), "all of them are sent");
}
