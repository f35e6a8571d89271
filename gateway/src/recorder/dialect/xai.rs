//! xAI: as OpenAI, but chat completions report reasoning beside `completion_tokens` and not in it, while `total_tokens`
//! has both: 32 + 9 + 94 of reasoning = 135.

use super::Grammar;
use crate::recorder::{json::Fields, usage::Usage};

pub(super) struct Xai;

impl Grammar for Xai {
    fn kind(&self) -> &'static str {
        "xai"
    }

    fn usage(&self, answer: &Fields<'_>) -> Option<Usage> {
        let mut usage = Usage::of(answer)?;
        if let Usage { input: Some(input), output: Some(output), total: Some(total), reasoning, .. } = usage {
            // Only where the provider's own sum says so: other of its APIs count as OpenAI does.
            let with_reasoning = output.saturating_add(reasoning.unwrap_or(0));
            if input.saturating_add(with_reasoning) == total {
                usage.output = Some(with_reasoning);
            }
        }
        Some(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(usage: &str) -> Option<u64> {
        let answer = format!("{{\"usage\":{usage}}}");
        Xai.usage(&Fields::read(&answer).0)?.output
    }

    #[test]
    fn reasoning_that_is_reported_beside_the_output_is_part_of_it() {
        let beside = r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,
            "completion_tokens_details":{"reasoning_tokens":94}}"#;
        assert_eq!(output(beside), Some(103));
    }

    #[test]
    fn reasoning_that_is_in_the_output_already_is_not_added() {
        let inside = r#"{"input_tokens":32,"output_tokens":103,"total_tokens":135,
            "output_tokens_details":{"reasoning_tokens":94}}"#;
        assert_eq!(output(inside), Some(103));
        assert_eq!(output(r#"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#), Some(2));
    }
}
