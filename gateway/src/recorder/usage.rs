//! Token counts, as providers report them. What is not reported is `None`, never 0.

use super::json::{Fields, count, each_field};

/// The counts of one answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input: Option<u64>,
    /// Tokens of the answer, reasoning included.
    pub output: Option<u64>,
    /// Their sum, as the provider reports it.
    pub total: Option<u64>,
    /// Of the input: read from the provider's cache.
    pub cached_read: Option<u64>,
    /// Of the input: written to the provider's cache.
    pub cached_write: Option<u64>,
    /// Of the output: spent on reasoning.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Reads a `usage` object in OpenAI's names, those of chat completions and those of the responses API.
    pub(crate) fn read(raw: &str) -> Option<Self> {
        let mut usage = Self::default();
        let mut cache_hits = None;
        // What stands before an error counts all the same.
        let _ = each_field(raw, |key, raw| match key.as_ref() {
            "prompt_tokens" | "input_tokens" => usage.input = count(raw).or(usage.input),
            "completion_tokens" | "output_tokens" => usage.output = count(raw).or(usage.output),
            "total_tokens" => usage.total = count(raw),
            // DeepSeek's name for cached tokens; some servers have it beside OpenAI's.
            "prompt_cache_hit_tokens" => cache_hits = count(raw),
            "prompt_tokens_details" | "input_tokens_details" => usage.read_input_details(raw),
            "completion_tokens_details" | "output_tokens_details" => usage.read_output_details(raw),
            _ => {}
        });
        usage.cached_read = usage.cached_read.or(cache_hits);
        (usage != Self::default()).then_some(usage)
    }

    fn read_input_details(&mut self, raw: &str) {
        let _ = each_field(raw, |key, raw| match key.as_ref() {
            "cached_tokens" => self.cached_read = count(raw),
            "cache_write_tokens" => self.cached_write = count(raw),
            _ => {}
        });
    }

    fn read_output_details(&mut self, raw: &str) {
        let _ = each_field(raw, |key, raw| {
            if key == "reasoning_tokens" {
                self.reasoning = count(raw);
            }
        });
    }

    /// The `usage` field of an answer.
    pub(crate) fn of(answer: &Fields<'_>) -> Option<Self> {
        Self::read(answer.get("usage")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, [input, output, total, cached_read, cached_write, reasoning]: [Option<u64>; 6]) {
        let expected = Usage { input, output, total, cached_read, cached_write, reasoning };
        assert_eq!(Usage::read(raw), (expected != Usage::default()).then_some(expected), "{raw}");
    }

    #[test]
    fn usage_is_read_in_every_name_it_goes_by() {
        let n = Some;
        check(
            r#"{"prompt_tokens":38,"completion_tokens":256,"total_tokens":294}"#,
            [n(38), n(256), n(294), None, None, None],
        );
        check(
            r#"{"prompt_tokens":20,"completion_tokens":10,"total_tokens":30,
                "prompt_tokens_details":{"cached_tokens":16,"audio_tokens":0},
                "completion_tokens_details":{"reasoning_tokens":4,"accepted_prediction_tokens":0}}"#,
            [n(20), n(10), n(30), n(16), None, n(4)],
        );
        check(
            r#"{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,
                "output_tokens_details":{"reasoning_tokens":0},"total_tokens":123}"#,
            [n(36), n(87), n(123), n(0), None, n(0)],
        );
        check(
            r#"{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,
                "prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":1}"#,
            [n(9), n(1), n(10), n(8), None, None],
        );
        check(r#"{"prompt_tokens":8,"total_tokens":8}"#, [n(8), None, n(8), None, None, None]);
        check(
            r#"{"prompt_tokens":8,"prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":6}}"#,
            [n(8), None, None, n(2), n(6), None],
        );
    }

    #[test]
    fn what_is_not_reported_is_unknown_and_never_zero() {
        for nothing in ["{}", "null", "[]", "7", r#"{"prompt_tokens":null}"#, r#"{"prompt_tokens":"12"}"#] {
            assert_eq!(Usage::read(nothing), None, "{nothing}");
        }
        check(r#"{"prompt_tokens":-1,"completion_tokens":2}"#, [None, Some(2), None, None, None, None]);
        check(
            r#"{"prompt_tokens":1,"prompt_tokens_details":null,"completion_tokens_details":[]}"#,
            [Some(1), None, None, None, None, None],
        );
    }
}
