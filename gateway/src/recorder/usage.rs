//! Token counts, as providers report them. What is not reported is `None`, never 0.

use plugin_api::Usd;

use super::json::{Fields, count, each_field};

/// The counts of one answer.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
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
    /// Of the tokens written: to be kept for an hour.
    pub cached_write_1h: Option<u64>,
    /// Of the output: spent on reasoning.
    pub reasoning: Option<u64>,
    /// Of the input: audio.
    pub audio_input: Option<u64>,
    /// Of the output: audio.
    pub audio_output: Option<u64>,
    /// Of the input: images.
    pub image_input: Option<u64>,
    /// Of the output: images.
    pub image_output: Option<u64>,
    /// Seconds of audio that were read.
    pub audio_seconds: Option<f64>,
    /// Searches that the provider made.
    pub searches: Option<u64>,
    /// What the provider takes for it.
    pub cost: Option<Usd>,
}

impl Usage {
    /// Reads a `usage` object in OpenAI's names, those of chat completions and those of the responses API, and in the
    /// names that others have beside them.
    pub(crate) fn read(raw: &str) -> Option<Self> {
        let mut usage = Self::default();
        // Names for the same count; OpenAI's own is preferred.
        let mut others = Self::default();
        // What stands before an error counts all the same.
        let _ = each_field(raw, |key, raw| match key.as_ref() {
            "prompt_tokens" | "input_tokens" => usage.input = count(raw).or(usage.input),
            "completion_tokens" | "output_tokens" => usage.output = count(raw).or(usage.output),
            "total_tokens" => usage.total = count(raw),
            "prompt_tokens_details" | "input_tokens_details" | "input_token_details" => {
                usage.read_input_details(raw);
            }
            "completion_tokens_details" | "output_tokens_details" | "output_token_details" => {
                usage.read_output_details(raw);
            }
            // OpenAI's transcriptions; Mistral's.
            "seconds" | "prompt_audio_seconds" => usage.audio_seconds = seconds(raw),
            "cost" => usage.cost = amount(raw),
            _ => others.read_other(&key, raw),
        });
        usage.cached_read = usage.cached_read.or(others.cached_read);
        usage.cached_write = usage.cached_write.or(others.cached_write);
        usage.reasoning = usage.reasoning.or(others.reasoning);
        usage.searches = usage.searches.or(others.searches);
        (usage != Self::default()).then_some(usage)
    }

    fn read_other(&mut self, key: &str, raw: &str) {
        match key {
            // DeepSeek's, Moonshot's, LiteLLM's.
            "prompt_cache_hit_tokens" | "cached_tokens" | "cache_read_input_tokens" => {
                self.cached_read = count(raw).or(self.cached_read);
            }
            "cache_creation_input_tokens" => self.cached_write = count(raw),
            // Perplexity's.
            "reasoning_tokens" => self.reasoning = count(raw),
            "num_search_queries" => self.searches = count(raw),
            "server_tool_use" => {
                self.searches = Fields::read(raw).0.get("web_search_requests").and_then(count);
            }
            _ => {}
        }
    }

    fn read_input_details(&mut self, raw: &str) {
        let _ = each_field(raw, |key, raw| match key.as_ref() {
            "cached_tokens" => self.cached_read = count(raw),
            "cache_write_tokens" => self.cached_write = count(raw),
            "cache_creation_tokens" => self.cached_write = self.cached_write.or(count(raw)),
            "cache_creation_token_details" => {
                self.cached_write_1h = Fields::read(raw).0.get("ephemeral_1h_input_tokens").and_then(count);
            }
            "audio_tokens" => self.audio_input = count(raw),
            "image_tokens" => self.image_input = count(raw),
            _ => {}
        });
    }

    fn read_output_details(&mut self, raw: &str) {
        let _ = each_field(raw, |key, raw| match key.as_ref() {
            "reasoning_tokens" => self.reasoning = count(raw),
            "audio_tokens" => self.audio_output = count(raw),
            "image_tokens" => self.image_output = count(raw),
            _ => {}
        });
    }

    /// The `usage` field of an answer.
    pub(crate) fn of(answer: &Fields<'_>) -> Option<Self> {
        Self::read(answer.get("usage")?)
    }
}

fn seconds(raw: &str) -> Option<f64> {
    raw.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

/// A cost in dollars: OpenRouter's number, or the sum in Perplexity's object.
fn amount(raw: &str) -> Option<Usd> {
    let total = raw.starts_with('{').then(|| Fields::read(raw).0.get("total_cost").map(str::to_owned));
    let raw = match &total {
        Some(total) => total.as_deref()?,
        None => raw,
    };
    let amount = raw.parse().ok().or_else(|| rounded(raw))?;
    (amount >= Usd::default()).then_some(amount)
}

/// An amount with more decimal places than are exact: some providers calculate in floats, and write all of these.
#[allow(
    clippy::cast_possible_truncation,
    reason = "below a thousand dollars a float is exact to a picodollar"
)]
fn rounded(raw: &str) -> Option<Usd> {
    let dollars: f64 = raw.parse().ok()?;
    (dollars.abs() < 1000.0).then(|| Usd::from_picodollars((dollars * 1e12).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, [input, output, total, cached_read, cached_write, reasoning]: [Option<u64>; 6]) {
        let expected =
            Usage { input, output, total, cached_read, cached_write, reasoning, ..Usage::default() };
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
                "prompt_tokens_details":{"cached_tokens":16,"text_tokens":4},
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
    fn modalities_times_and_searches_are_read_wherever_a_provider_has_them() {
        let known = |input, output| Usage { input, output, ..Usage::default() };
        for (raw, expected) in [
            (
                // OpenAI realtime and images: one with `token`, the other with `tokens`.
                r#"{"input_tokens":9,"output_tokens":8,"input_token_details":{"cached_tokens":3,"text_tokens":4,"audio_tokens":5,"image_tokens":0},
                    "output_token_details":{"text_tokens":2,"audio_tokens":6}}"#,
                Usage {
                    cached_read: Some(3),
                    audio_input: Some(5),
                    image_input: Some(0),
                    audio_output: Some(6),
                    ..known(Some(9), Some(8))
                },
            ),
            (
                r#"{"input_tokens":9,"input_tokens_details":{"image_tokens":7,"text_tokens":2},"output_tokens":8,
                    "output_tokens_details":{"image_tokens":8,"text_tokens":0}}"#,
                Usage { image_input: Some(7), image_output: Some(8), ..known(Some(9), Some(8)) },
            ),
            (
                r#"{"type":"duration","seconds":12.5}"#,
                Usage { audio_seconds: Some(12.5), ..Usage::default() },
            ),
            (
                r#"{"prompt_audio_seconds":30,"prompt_tokens":9}"#,
                Usage { audio_seconds: Some(30.0), ..known(Some(9), None) },
            ),
            (r#"{"seconds":-1,"prompt_tokens":9}"#, known(Some(9), None)),
            (r#"{"seconds":"12","prompt_tokens":9}"#, known(Some(9), None)),
            (
                r#"{"prompt_tokens":9,"cached_tokens":4,"reasoning_tokens":2,"num_search_queries":3}"#,
                Usage { cached_read: Some(4), reasoning: Some(2), searches: Some(3), ..known(Some(9), None) },
            ),
            (
                // LiteLLM, of a model of Anthropic's: all names at once.
                r#"{"prompt_tokens":17,"prompt_tokens_details":{"cached_tokens":2,"cache_creation_tokens":10,
                    "cache_creation_token_details":{"ephemeral_5m_input_tokens":7,"ephemeral_1h_input_tokens":3}},
                    "cache_creation_input_tokens":99,"cache_read_input_tokens":99,"server_tool_use":{"web_search_requests":1}}"#,
                Usage {
                    cached_read: Some(2),
                    cached_write: Some(10),
                    cached_write_1h: Some(3),
                    searches: Some(1),
                    ..known(Some(17), None)
                },
            ),
            (
                r#"{"prompt_tokens":17,"cache_creation_input_tokens":5,"cache_read_input_tokens":6}"#,
                Usage { cached_read: Some(6), cached_write: Some(5), ..known(Some(17), None) },
            ),
        ] {
            assert_eq!(Usage::read(raw), Some(expected), "{raw}");
        }
    }

    #[test]
    fn a_cost_is_what_the_provider_says_and_never_negative() {
        for (raw, picodollars) in [
            ("0.00011018", Some(110_180_000)),
            ("0", Some(0)),
            ("1.96e-6", Some(1_960_000)),
            // A float's noise is rounded off.
            ("0.00014655000000000002", Some(146_550_000)),
            ("1e-15", Some(0)),
            (r#"{"input_tokens_cost":0.001,"total_cost":0.006}"#, Some(6_000_000_000)),
            (r#"{"input_tokens_cost":0.001}"#, None),
            ("-0.5", None),
            ("-1e-15", Some(0)),
            ("1e300", None),
            ("1e2147483647", None),
            ("null", None),
            ("\"0.5\"", None),
            ("[]", None),
        ] {
            assert_eq!(amount(raw).map(Usd::picodollars), picodollars, "{raw}");
        }
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
