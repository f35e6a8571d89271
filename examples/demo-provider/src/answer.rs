//! What is answered: text, ids, usage, and the JSON of each endpoint.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    behaviour::Behaviour,
    request::{Call, Prompt},
    script::Run,
};

/// The endpoints that write text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Responses,
}

/// Stands for the text in an answer's JSON until [`render`] puts the pieces there.
pub(crate) const TEXT: &str = "\u{F8FF}text\u{F8FF}";

/// What a client is told, before it is written in an endpoint's shape.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) endpoint: Endpoint,
    pub(crate) id: String,
    /// The id of the one output item of a response.
    pub(crate) item_id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    /// One piece a chunk.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) truncated: bool,
    /// The text is the arguments of a tool's call.
    pub(crate) calls_tool: bool,
    pub(crate) usage: Option<Usage>,
}

/// A part of the text, written `times` times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) times: u64,
}

/// One word is one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Answer {
    pub(crate) fn new(endpoint: Endpoint, behaviour: Behaviour, call: &Call<'_>, prompt: &Prompt) -> Self {
        let mut pieces = text(behaviour, prompt);
        let limit = call.max_words().map_or(usize::MAX, |words| usize::try_from(words).unwrap_or(usize::MAX));
        let truncated = pieces.len() > limit;
        pieces.truncate(limit);
        let usage = Usage { input: prompt.words, output: pieces.iter().map(Piece::words).sum() };
        Self {
            endpoint,
            id: new_id(endpoint.id_prefix()),
            item_id: new_id("msg_"),
            created: unix_time(),
            model: call.model.to_string(),
            pieces,
            truncated,
            calls_tool: behaviour == Behaviour::ToolCall && endpoint == Endpoint::Chat,
            usage: (behaviour != Behaviour::NoUsage).then_some(usage),
        }
    }

    /// The whole answer in the endpoint's shape, with [`TEXT`] in the text's place.
    pub(crate) fn json(&self) -> Value {
        let Self { id, created, model, .. } = self;
        let mut body = match self.endpoint {
            Endpoint::Chat => json!({
                "id": id, "object": "chat.completion", "created": created, "model": model,
                "choices": [{
                    "index": 0,
                    "message": self.message(),
                    "logprobs": null,
                    "finish_reason": self.finish_reason(),
                }],
                "system_fingerprint": "fp_demo",
            }),
            Endpoint::Completions => json!({
                "id": id, "object": "text_completion", "created": created, "model": model,
                "choices": [{ "index": 0, "text": TEXT, "logprobs": null, "finish_reason": self.finish_reason() }],
            }),
            Endpoint::Responses => {
                self.response(self.end_status(), &[self.output_item("completed", Some(TEXT))])
            }
        };
        if let Some(usage) = self.usage {
            body["usage"] = usage.json(self.endpoint);
        }
        body
    }

    fn message(&self) -> Value {
        if !self.calls_tool {
            return json!({ "role": "assistant", "content": TEXT, "refusal": null });
        }
        let call = self.tool_call(TEXT);
        json!({ "role": "assistant", "content": null, "refusal": null, "tool_calls": [call] })
    }

    /// The call of the tool, with these arguments.
    pub(crate) fn tool_call(&self, arguments: &str) -> Value {
        let function = json!({ "name": "get_weather", "arguments": arguments });
        json!({ "id": self.item_id.replacen("msg_", "call_", 1), "type": "function", "function": function })
    }

    /// A response object as it stands at some point of its stream.
    pub(crate) fn response(&self, status: &str, output: &[Value]) -> Value {
        let incomplete = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
        json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status,
            "model": self.model, "output": output, "error": null, "incomplete_details": incomplete,
            "instructions": null, "metadata": {}, "parallel_tool_calls": true, "temperature": 1.0,
            "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": null,
        })
    }

    /// A response's message; without text it has just begun.
    pub(crate) fn output_item(&self, status: &str, text: Option<&str>) -> Value {
        let content: Vec<Value> = text.into_iter().map(text_part).collect();
        json!({
            "id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content,
        })
    }

    pub(crate) fn end_status(&self) -> &'static str {
        if self.truncated { "incomplete" } else { "completed" }
    }

    pub(crate) fn finish_reason(&self) -> &'static str {
        match self {
            Self { truncated: true, .. } => "length",
            Self { calls_tool: true, .. } => "tool_calls",
            _ => "stop",
        }
    }
}

impl Usage {
    pub(crate) fn json(self, endpoint: Endpoint) -> Value {
        let Self { input, output } = self;
        let total = input + output;
        match endpoint {
            Endpoint::Chat | Endpoint::Completions => json!({
                "prompt_tokens": input, "completion_tokens": output, "total_tokens": total,
                "prompt_tokens_details": { "cached_tokens": 0 },
                "completion_tokens_details": { "reasoning_tokens": 0 },
            }),
            Endpoint::Responses => json!({
                "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": total,
            }),
        }
    }
}

impl Endpoint {
    fn id_prefix(self) -> &'static str {
        match self {
            Endpoint::Chat => "chatcmpl-",
            Endpoint::Completions => "cmpl-",
            Endpoint::Responses => "resp_",
        }
    }
}

impl Piece {
    fn once(text: impl Into<String>) -> Self {
        Self { text: text.into(), times: 1 }
    }

    fn words(&self) -> u64 {
        crate::request::count_words(&self.text) * self.times
    }
}

pub(crate) fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

/// Writes `body`, with the pieces where [`TEXT`] stands, between `before` and `after`.
pub(crate) fn render(before: &str, body: &Value, pieces: &[Piece], after: &str) -> Vec<Run> {
    let json = body.to_string();
    let mut runs = Vec::new();
    let mut pending = before.to_owned();
    for (index, part) in json.split(TEXT).enumerate() {
        if index > 0 {
            write_pieces(pieces, &mut pending, &mut runs);
        }
        pending.push_str(part);
    }
    pending.push_str(after);
    runs.push(Run::once(pending));
    runs
}

fn write_pieces(pieces: &[Piece], pending: &mut String, runs: &mut Vec<Run>) {
    for Piece { text, times } in pieces {
        let quoted = Value::from(text.as_str()).to_string();
        let escaped = &quoted[1..quoted.len() - 1];
        if *times == 1 {
            pending.push_str(escaped);
        } else {
            runs.push(Run::once(std::mem::take(pending)));
            runs.push(Run { bytes: escaped.to_owned().into(), times: *times });
        }
    }
}

/// How much of the client's last message is said back.
const ECHOED_WORDS: usize = 12;
const REMARK: &str =
    "The demo provider knows nothing, but it takes its time: each of these words is a chunk of its own.";
/// A word of 8 bytes and its repetitions: what `demo-big` is made of.
const FILLER: &str = "filling ";
const BYTES_PER_CHUNK: u64 = 8 * 1024;
/// With a chunk for the role and one for the finish reason a stream has 32.
const FAST_WORDS: usize = 30;

fn text(behaviour: Behaviour, prompt: &Prompt) -> Vec<Piece> {
    match behaviour {
        Behaviour::Big(size) => big(size),
        Behaviour::Words(count) | Behaviour::StallAfter(count) => {
            (1..=count).map(|number| Piece::once(format!("word{number} "))).collect()
        }
        Behaviour::ToolCall => {
            ["{\"city\": ", "\"Paris\", ", "\"unit\": ", "\"celsius\"}"].map(Piece::once).to_vec()
        }
        Behaviour::Fast(_) => vec![Piece::once("tokens "); FAST_WORDS],
        _ => {
            let said: Vec<&str> = prompt.last.split_whitespace().take(ECHOED_WORDS).collect();
            let text = format!("You said: {} {REMARK}", said.join(" "));
            text.split_inclusive(' ').map(Piece::once).collect()
        }
    }
}

fn big(size: u64) -> Vec<Piece> {
    let chunk = FILLER.repeat((BYTES_PER_CHUNK / 8) as usize);
    let rest = chunk[..(size % BYTES_PER_CHUNK) as usize].to_owned();
    [Piece { text: chunk, times: size / BYTES_PER_CHUNK }, Piece::once(rest)]
        .into_iter()
        .filter(|piece| piece.times > 0 && !piece.text.is_empty())
        .collect()
}

pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}{:016x}", fastrand::u64(..))
}

pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(endpoint: Endpoint, behaviour: Behaviour, request: &str) -> Answer {
        let call = Call::parse(request.as_bytes()).expect(request);
        Answer::new(endpoint, behaviour, &call, &Prompt { last: "say \"hi\"".into(), words: 2 })
    }

    fn rendered(answer: &Answer) -> Value {
        let runs = render("", &answer.json(), &answer.pieces, "");
        let bytes: Vec<u8> = runs.iter().flat_map(|run| run.bytes.repeat(run.times as usize)).collect();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn a_word_is_a_token() {
        let body = rendered(&answer(Endpoint::Chat, Behaviour::Normal, r#"{"model":"demo"}"#));
        let text = body["choices"][0]["message"]["content"].as_str().expect("text");
        assert!(text.starts_with("You said: say \"hi\" The demo"), "{text}");
        assert_eq!(body["usage"]["completion_tokens"], crate::request::count_words(text));
        assert_eq!(body["usage"]["prompt_tokens"], 2);
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
    }

    #[test]
    fn a_limit_truncates_and_says_so() {
        let chat = rendered(&answer(Endpoint::Chat, Behaviour::Normal, r#"{"model":"demo","max_tokens":2}"#));
        assert_eq!(chat["choices"][0]["message"]["content"], "You said: ");
        assert_eq!(chat["choices"][0]["finish_reason"], "length");
        assert_eq!(chat["usage"]["total_tokens"], 4);
        let request = r#"{"model":"demo","max_output_tokens":1}"#;
        let response = rendered(&answer(Endpoint::Responses, Behaviour::Normal, request));
        assert_eq!(response["status"], "incomplete");
        assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
    }

    #[test]
    fn a_big_text_has_the_size_asked_for_and_little_memory() {
        let size = 3 * BYTES_PER_CHUNK + 20;
        let answer = answer(Endpoint::Completions, Behaviour::Big(size), r#"{"model":"demo"}"#);
        assert!(answer.pieces.iter().map(|piece| piece.text.len() as u64).sum::<u64>() < 2 * BYTES_PER_CHUNK);
        let body = rendered(&answer);
        let text = body["choices"][0]["text"].as_str().expect("text");
        assert_eq!(text.len() as u64, size);
        assert_eq!(body["usage"]["completion_tokens"], crate::request::count_words(text));
    }

    #[test]
    fn usage_can_be_left_out() {
        let body = rendered(&answer(Endpoint::Chat, Behaviour::NoUsage, r#"{"model":"demo"}"#));
        assert!(body.get("usage").is_none());
    }

    #[test]
    fn the_prepared_answer_has_about_600_bytes() {
        let answer =
            answer(Endpoint::Chat, Behaviour::Fast(std::time::Duration::ZERO), r#"{"model":"demo-fast"}"#);
        let length: u64 = render("", &answer.json(), &answer.pieces, "").iter().map(Run::length).sum();
        assert!((550..700).contains(&length), "{length}");
    }
}
