//! Folds streams of the responses API.
//!
//! The last event carries the whole answer (`response.completed`, `.incomplete` or `.failed`): that is the folded
//! answer. When the stream breaks off before it, the answer is what `response.created` said, with the output items as
//! far as they came.

use std::borrow::Cow;

use super::{
    fold::{Answer, Fold, Seen, is_error},
    json::{self, Fields, each_field, inside_string},
};

/// Output items and content parts beyond this number are no answer of a model.
const MAX_ITEMS: usize = 256;

/// The answer, as far as its events have come.
#[derive(Debug, Default)]
pub(crate) struct Response<'e> {
    /// `response` of the last event that carried one.
    response: Option<&'e str>,
    /// An event of this API came.
    is_known: bool,
    /// Any event came.
    began: bool,
    finished: bool,
    /// `code` and `message` of an event that is an error as a whole.
    error: Option<&'e str>,
    items: Vec<(u64, Item<'e>)>,
}

/// One item of `output`.
#[derive(Debug, Default)]
struct Item<'e> {
    /// As it was when it was added.
    added: Option<&'e str>,
    /// As it was when it was done: then it is whole.
    done: Option<&'e str>,
    /// Text of its parts, as written, without the quotes.
    texts: Vec<(u64, String)>,
    /// Arguments of a call, as written, without the quotes.
    arguments: String,
}

/// The fields of an event that matter here, as JSON text.
#[derive(Default)]
struct Parts<'e> {
    kind: Cow<'e, str>,
    response: Option<&'e str>,
    item: Option<&'e str>,
    delta: Option<&'e str>,
    output_index: Option<u64>,
    content_index: Option<u64>,
    error: bool,
}

impl<'e> Fold<'e> for Response<'e> {
    fn take(&mut self, data: &'e str) -> Result<Seen, serde_json::Error> {
        let mut parts = Parts::default();
        each_field(data, |key, raw| {
            parts.error |= is_error(&key, raw);
            match key.as_ref() {
                "type" => parts.kind = json::text(raw).unwrap_or_default(),
                "response" => parts.response = Some(raw).filter(|raw| raw.starts_with('{')),
                "item" => parts.item = Some(raw).filter(|raw| raw.starts_with('{')),
                "delta" => parts.delta = inside_string(raw),
                "output_index" => parts.output_index = json::count(raw),
                "content_index" => parts.content_index = json::count(raw),
                _ => {}
            }
        })?;
        self.began = true;
        self.is_known |= parts.kind.starts_with("response.");
        if parts.response.is_some() {
            self.response = parts.response;
        }
        match parts.kind.as_ref() {
            "response.completed" | "response.incomplete" | "response.failed" => self.finished = true,
            "error" => self.error = Some(data),
            "response.output_item.added" => self.item(&parts, |item| item.added = parts.item),
            "response.output_item.done" => self.item(&parts, |item| item.done = parts.item),
            "response.output_text.delta" => self.item(&parts, |item| item.text(&parts)),
            "response.function_call_arguments.delta" => {
                self.item(&parts, |item| item.arguments.push_str(parts.delta.unwrap_or_default()));
            }
            _ => {}
        }
        // Every kind of `….delta` is something that the model made.
        let made = parts.kind.ends_with(".delta") && parts.delta.is_some_and(|delta| !delta.is_empty());
        Ok(Seen { content: made, error: parts.error, repeats: false })
    }

    /// What ends such a stream is its last event: `[DONE]` alone has no answer before it.
    fn done(&mut self) {}

    fn finish(mut self: Box<Self>) -> Answer<'e> {
        let mut fields = self.response.map(|raw| Fields::read(raw).0).unwrap_or_default();
        if let Some(error) = self.error {
            fields.push(Cow::Borrowed("error"), Cow::Borrowed(error));
        }
        let head = match self.response {
            Some(raw) if self.finished => raw.strip_suffix('}').unwrap_or(raw).to_owned(),
            _ => self.broken_off(),
        };
        let is_open = !self.finished && (self.is_known || !self.began);
        Answer { head, fields, finished: self.finished, closed: self.finished, is_open, ..Answer::default() }
    }
}

impl<'e> Response<'e> {
    fn item(&mut self, parts: &Parts<'e>, change: impl FnOnce(&mut Item<'e>)) {
        let index = parts.output_index.unwrap_or(0);
        if let Some(item) = at_index(&mut self.items, index) {
            change(item);
        }
    }

    /// What was announced, with the output as far as it came; without the closing brace.
    fn broken_off(&mut self) -> String {
        let mut head = "{".to_owned();
        if let Some(response) = self.response {
            write_fields(&mut head, response, &["output"]);
        }
        if !self.items.is_empty() {
            self.items.sort_by_key(|(index, _)| *index);
            open_field(&mut head, "output");
            head.push('[');
            for (position, (_, item)) in self.items.iter_mut().enumerate() {
                if position > 0 {
                    head.push(',');
                }
                item.write(&mut head);
            }
            head.push(']');
        }
        head
    }
}

impl Item<'_> {
    fn text(&mut self, parts: &Parts<'_>) {
        if let Some(text) = at_index(&mut self.texts, parts.content_index.unwrap_or(0)) {
            text.push_str(parts.delta.unwrap_or_default());
        }
    }

    fn write(&mut self, out: &mut String) {
        if let Some(done) = self.done {
            out.push_str(done);
            return;
        }
        out.push('{');
        let mut rewritten = Vec::new();
        if !self.texts.is_empty() {
            rewritten.push("content");
        }
        if !self.arguments.is_empty() {
            rewritten.push("arguments");
        }
        write_fields(out, self.added.unwrap_or("{}"), &rewritten);
        if !self.texts.is_empty() {
            self.texts.sort_by_key(|(index, _)| *index);
            open_field(out, "content");
            for (position, (_, text)) in self.texts.iter().enumerate() {
                out.push(if position == 0 { '[' } else { ',' });
                out.extend(["{\"type\":\"output_text\",\"text\":\"", text, "\"}"]);
            }
            out.push(']');
        }
        if !self.arguments.is_empty() {
            open_field(out, "arguments");
            out.extend(["\"", &self.arguments, "\""]);
        }
        out.push('}');
    }
}

/// Writes the fields of `object`, but for those named.
fn write_fields(out: &mut String, object: &str, without: &[&str]) {
    // Well-formed: it was read out of a whole event.
    let _ = each_field(object, |key, raw| {
        if !without.contains(&key.as_ref()) {
            open_field(out, &key);
            out.push_str(raw);
        }
    });
}

fn open_field(out: &mut String, key: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    json::write_key(out, key);
}

fn at_index<T: Default>(list: &mut Vec<(u64, T)>, index: u64) -> Option<&mut T> {
    let at = list.iter().position(|(known, _)| *known == index).unwrap_or(list.len());
    if at == list.len() {
        if at >= MAX_ITEMS {
            return None;
        }
        list.push((index, T::default()));
    }
    Some(&mut list[at].1)
}
