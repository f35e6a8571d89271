//! Which call a piece in `tool_calls` belongs to.
//!
//! - A new id, which is not empty, is a new call, also at an `index` that another call has.
//! - A piece without an id belongs to the latest call, of its `index` where it has one.
//! - Where a list has several pieces without index and id, they are told apart by their position.

use std::borrow::Cow;

use super::{Cursor, MAX_INDEXED, Object, Place, Trace, Value, each_field};
use crate::recorder::json;

type Fields<'e> = Vec<(Cow<'e, str>, &'e str)>;

impl<'e> Value<'e> {
    /// Merges a list of calls that is well-formed.
    pub(super) fn absorb_calls(&mut self, raw: &'e str, place: Place, trace: &mut Trace<'e>) {
        if !matches!(self, Self::Indexed(_)) {
            *self = Self::Indexed(Vec::with_capacity(1));
        }
        let Self::Indexed(calls) = self else { return };
        let mut pieces = Vec::with_capacity(1);
        let _ = json::each_raw(raw, |piece| {
            if piece.starts_with('{') && pieces.len() < MAX_INDEXED {
                pieces.push(piece);
            }
        });
        let is_alone = pieces.len() == 1;
        for (position, piece) in pieces.into_iter().enumerate() {
            let mut fields = Fields::with_capacity(4);
            let _ = each_field(piece, |key, raw| fields.push((key, raw)));
            let Some(at) = find_or_add(calls, &fields, (!is_alone).then_some(position)) else { continue };
            let mut cursor = Cursor::default();
            for (key, raw) in fields {
                calls[at].1.merge_raw(key, raw, &mut cursor, place.element(), trace);
            }
        }
    }
}

/// The place of a piece's call; `None` when there are too many.
fn find_or_add(
    calls: &mut Vec<(u64, Object<'_>)>,
    piece: &Fields<'_>,
    position: Option<usize>,
) -> Option<usize> {
    let field = |name: &str| piece.iter().rev().find(|(key, _)| key == name).map(|(_, raw)| *raw);
    let index = field("index").and_then(json::count);
    let id = field("id").filter(|raw| !json::is_nothing(raw));
    let known = match id {
        Some(id) => with_id(calls, index, id),
        None if index.is_some() => calls.iter().rposition(|(number, _)| Some(*number) == index),
        None => match position {
            Some(position) => Some(position).filter(|position| *position < calls.len()),
            None => calls.len().checked_sub(1),
        },
    };
    if known.is_some() || calls.len() >= MAX_INDEXED {
        return known;
    }
    let next = || calls.iter().map(|(number, _)| number.saturating_add(1)).max().unwrap_or(0);
    let number = index.unwrap_or_else(next);
    calls.push((number, Object::default()));
    Some(calls.len() - 1)
}

/// The call of that id; the latest of that index, when it has none yet.
fn with_id(calls: &[(u64, Object<'_>)], index: Option<u64>, id: &str) -> Option<usize> {
    let is_same = |number: u64| index.is_none_or(|index| index == number);
    let has_id = |call: &Object<'_>| matches!(call.get("id"), Some(Value::Raw(known)) if *known == id);
    let known = calls.iter().rposition(|(number, call)| is_same(*number) && has_id(call));
    let nameless = || {
        let latest = calls.iter().rposition(|(number, _)| Some(*number) == index)?;
        (!calls[latest].1.has("id")).then_some(latest)
    };
    known.or_else(nameless)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::tests::{check, delta};

    #[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    fn calls(calls: Json) -> Json {
        delta(json!({"tool_calls": calls}))
    }

    #[test]
    fn calls_without_an_index_are_told_apart_by_id_and_position() {
        check(
            &[
                calls(json!([{"id": "a", "function": {"name": "f", "arguments": "1"}}])),
                calls(json!([{"id": "b", "function": {"name": "g", "arguments": "2"}}])),
                calls(json!([{"id": "a", "function": {"arguments": "3"}}])),
            ],
            &calls(json!([
                {"id": "a", "function": {"name": "f", "arguments": "13"}},
                {"id": "b", "function": {"name": "g", "arguments": "2"}},
            ])),
        );
    }

    #[test]
    fn a_new_id_is_a_new_call_also_where_the_index_is_that_of_another() {
        check(
            &[
                calls(
                    json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]),
                ),
                calls(
                    json!([{"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"b\""}}]),
                ),
                calls(json!([{"index": 0, "function": {"arguments": ":2"}}])),
                calls(json!([{"index": 0, "id": "", "function": {"name": "", "arguments": "}"}}])),
                calls(json!([{"index": 0, "id": "a", "function": {"arguments": " "}}])),
            ],
            &calls(json!([
                {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1} "}},
                {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{\"b\":2}"}},
            ])),
        );
    }

    #[test]
    fn pieces_without_an_index_go_to_the_latest_call() {
        check(
            &[
                calls(json!([{"id": "a", "function": {"name": "f", "arguments": ""}}])),
                calls(json!([{"function": {"arguments": "{\"a\":"}}])),
                calls(json!([{"id": null, "function": {"arguments": "1}"}}])),
                calls(json!([{"id": "b", "function": {"name": "g", "arguments": ""}}])),
                calls(json!([{"id": "", "function": {"arguments": "{\"b\":"}}])),
                calls(json!([{"function": {"arguments": "2}"}}])),
            ],
            &calls(json!([
                {"id": "a", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": "b", "function": {"name": "g", "arguments": "{\"b\":2}"}},
            ])),
        );
    }

    #[test]
    fn pieces_of_several_calls_in_one_list_are_told_apart_by_position() {
        let pieces =
            |a: &str, b: &str| calls(json!([{"function": {"arguments": a}}, {"function": {"arguments": b}}]));
        check(&[pieces("1", "2"), pieces("3", "4")], &pieces("13", "24"));
    }

    #[test]
    fn interleaved_calls_are_told_apart_by_their_index() {
        let piece =
            |index: u64, arguments: &str| json!({"index": index, "function": {"arguments": arguments}});
        let begin = |index: u64, id: &str| json!({"index": index, "id": id, "function": {"name": id, "arguments": ""}});
        let whole = |index: u64, id: &str, arguments: &str| json!({"index": index, "id": id, "function": {"name": id, "arguments": arguments}});
        check(
            &[
                calls(json!([begin(1, "b")])),
                calls(json!([begin(0, "a"), piece(1, "1")])),
                calls(json!([piece(0, "2")])),
                calls(json!([piece(1, "3"), piece(0, "4")])),
            ],
            &calls(json!([whole(0, "a", "24"), whole(1, "b", "13")])),
        );
    }

    #[test]
    fn an_id_that_comes_after_the_first_piece_is_that_calls_own() {
        check(
            &[
                calls(json!([{"index": 0, "function": {"name": "f"}}])),
                calls(json!([{"index": 0, "id": "a", "function": {"arguments": "1"}}])),
            ],
            &calls(json!([{"index": 0, "function": {"name": "f", "arguments": "1"}, "id": "a"}])),
        );
    }
}
