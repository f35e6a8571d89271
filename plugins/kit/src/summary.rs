//! A record as one line of text: the message of a log entry, which people read in lists.

use std::fmt::Write as _;

use plugin_api::{Field, Fields};

/// Longest piece of a line in bytes. A client chooses the path and the model.
const LONGEST: usize = 200;

/// A line such as `POST /v1/chat/completions 200 openai gpt-4o 1244 ms 38+256 tokens`; what is unknown is left out. A
/// failure ends with its kind. The line may hold any character: escape it.
#[must_use]
pub fn line(fields: &Fields<'_>) -> String {
    let mut line = String::with_capacity(96);
    for field in [Field::Method, Field::Path] {
        push(&mut line, &fields.text(field).unwrap_or_default());
    }
    match fields.whole(Field::StatusCode) {
        Some(status) => push(&mut line, &status.to_string()),
        // The client left before it was sent a status.
        None => push(&mut line, &fields.text(Field::EndReason).unwrap_or_default()),
    }
    let model = fields.text(Field::Model).or_else(|| fields.text(Field::RequestModel));
    push(&mut line, &fields.text(Field::Provider).unwrap_or_default());
    push(&mut line, &model.unwrap_or_default());
    if let Some(latency) = fields.number(Field::TotalLatency) {
        let _ = write!(line, " {latency:.0} ms");
    }
    match (fields.whole(Field::InputTokens), fields.whole(Field::OutputTokens)) {
        (Some(input), Some(output)) => drop(write!(line, " {input}+{output} tokens")),
        (Some(input), None) => drop(write!(line, " {input} input tokens")),
        (None, Some(output)) => drop(write!(line, " {output} output tokens")),
        (None, None) => {}
    }
    let kind = fields.text(Field::ErrorType).unwrap_or_default();
    if !line.contains(&*kind) {
        push(&mut line, &kind);
    }
    line
}

/// Adds a piece after a space, where there is one.
fn push(line: &mut String, piece: &str) {
    if piece.is_empty() {
        return;
    }
    if !line.is_empty() {
        line.push(' ');
    }
    let end = piece.floor_char_boundary(LONGEST);
    line.push_str(&piece[..end]);
    if end < piece.len() {
        line.push('…');
    }
}

#[cfg(test)]
mod tests {
    use exporter_testkit::Sample;

    use super::*;

    fn of(sample: &Sample) -> String {
        line(&Fields::parse(&sample.metrics_json()).unwrap())
    }

    #[test]
    fn a_line_says_what_was_asked_and_what_came_of_it() {
        for (sample, expected) in [
            (
                Sample::chat(),
                "POST /v1/chat/completions 200 openai gpt-4o-mini-2024-07-18 6250 ms 48+865 tokens",
            ),
            (
                Sample::failed(),
                "POST /v1/chat/completions 429 openai gpt-4o-mini 6250 ms rate_limit_exceeded",
            ),
            (
                Sample::disconnected().with(|metrics| {
                    (metrics.status_code, metrics.provider) = (None, None);
                    metrics.input_tokens = Some(7);
                }),
                "POST /v1/chat/completions client_disconnect gpt-4o-mini-2024-07-18 6250 ms 7 input tokens",
            ),
        ] {
            assert_eq!(of(&sample), expected);
        }
        let long = of(&Sample::chat().with(|metrics| metrics.path = "/é".repeat(1000).into()));
        assert!(long.len() < 400 && long.contains("… 200"), "{long}");
    }
}
