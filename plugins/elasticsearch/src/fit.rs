//! A body as a cluster takes it. Every one is JSON, and some JSON is refused with its whole document: names that stand
//! twice in one object, very long numbers and names, very deep nesting. No client is to keep itself out of the log that
//! way. What can be mended without loss is mended, and other bodies are left out.

use std::{borrow::Cow, ops::Range};

use crate::tokens::{Kind, Token, Tokens, unescaped};

/// What a cluster takes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays in one another.
    pub depth: usize,
    /// Objects in one another.
    pub object_depth: usize,
    /// Arrays in one another, before the first object.
    pub outer_arrays: usize,
    /// Bytes of a value and the path that leads to it, which become one term.
    pub term: usize,
    /// Whether a body must be an object.
    pub must_be_object: bool,
}

/// Characters of a number, in the JSON parser of Elasticsearch and OpenSearch (Jackson, `StreamReadConstraints`).
const LONGEST_NUMBER: usize = 1000;
/// Characters of a name there.
const LONGEST_NAME: usize = 50_000;
/// Characters of a string, as both products set it.
const LONGEST_STRING: usize = 50_000_000;

/// What becomes of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Fit {
    /// It goes as it is.
    AsItIs,
    /// This goes in its place, and means the same to those who read JSON.
    Mended(Vec<u8>),
    /// It is left out.
    Unfit,
}

/// Looks at a body, which is JSON or empty, once.
#[must_use]
pub fn fit(body: &[u8], limits: &Limits) -> Fit {
    let mut look = Look::of(body, limits);
    match look.through() {
        None => Fit::Unfit,
        Some(()) if look.edits.is_empty() => Fit::AsItIs,
        Some(()) => Fit::Mended(mend(body, look.edits)),
    }
}

/// What is put in the place of a piece of the body.
type Edit = (Range<usize>, &'static [u8]);

/// A member of an object that is not closed yet.
#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, [u8]>,
    /// Where it starts, with its quote.
    start: usize,
}

#[derive(Debug)]
struct Look<'a> {
    body: &'a [u8],
    limits: &'a Limits,
    edits: Vec<Edit>,
    /// Of all open objects, one behind the other.
    members: Vec<Member<'a>>,
    /// Where the members of each open object begin.
    objects: Vec<usize>,
    /// Bytes of the path to each open object.
    paths: Vec<usize>,
    /// Places in `members`, by name: memory that is used again.
    order: Vec<usize>,
}

impl<'a> Look<'a> {
    fn of(body: &'a [u8], limits: &'a Limits) -> Self {
        let (edits, members, objects, paths, order) = Default::default();
        Self { body, limits, edits, members, objects, paths, order }
    }

    /// `None` where the body cannot be sent.
    fn through(&mut self) -> Option<()> {
        let mut tokens = Tokens::of(self.body);
        while let Some(token) = tokens.next() {
            match token {
                Token::Open(kind) => self.open(kind, tokens.depth())?,
                Token::Close(Kind::Object) => self.close_object(),
                Token::Key(range) => self.key(range)?,
                Token::Text(range) => {
                    self.value(&range)?;
                    if range.len() > LONGEST_STRING {
                        return None;
                    }
                }
                Token::Number(range) => {
                    self.value(&range)?;
                    self.number(range);
                }
                Token::Word => self.value(&(0..0))?,
                Token::Close(Kind::Array) => {}
            }
        }
        Some(())
    }

    fn open(&mut self, kind: Kind, depth: usize) -> Option<()> {
        if self.limits.must_be_object && depth == 1 && kind == Kind::Array {
            return None;
        }
        if kind == Kind::Object {
            self.paths.push(self.path());
            self.objects.push(self.members.len());
        }
        let is_outer_array = self.objects.is_empty();
        let fits = depth <= self.limits.depth
            && self.objects.len() <= self.limits.object_depth
            && (!is_outer_array || depth <= self.limits.outer_arrays);
        fits.then_some(())
    }

    fn key(&mut self, range: Range<usize>) -> Option<()> {
        let name = unescaped(&self.body[range.clone()]);
        if name.len() > LONGEST_NAME {
            return None;
        }
        self.members.push(Member { name, start: range.start - 1 });
        Some(())
    }

    /// Bytes of the names that lead to where the look is, with what stands between them.
    fn path(&self) -> usize {
        let outer = self.paths.last().copied().unwrap_or_default();
        let start = self.objects.last().copied().unwrap_or_default();
        outer + self.members.get(start..).and_then(<[_]>::last).map_or(0, |member| member.name.len() + 1)
    }

    fn value(&self, range: &Range<usize>) -> Option<()> {
        if self.limits.must_be_object && self.objects.is_empty() {
            return None;
        }
        let (path, limit) = (self.path(), self.limits.term);
        let fits = path + range.len() <= limit || path + unescaped(&self.body[range.clone()]).len() <= limit;
        fits.then_some(())
    }

    /// One that is too long goes as a string.
    fn number(&mut self, range: Range<usize>) {
        if range.len() > LONGEST_NUMBER {
            self.edits.push((range.start..range.start, b"\""));
            self.edits.push((range.end..range.end, b"\""));
        }
    }

    /// Of members with one name the last stays, as it does wherever such JSON is read.
    fn close_object(&mut self) {
        self.paths.pop();
        let start = self.objects.pop().unwrap_or_default();
        let members = &self.members[start..];
        self.order.clear();
        self.order.extend(0..members.len());
        self.order.sort_unstable_by(|one, other| {
            members[*one].name.cmp(&members[*other].name).then(one.cmp(other))
        });
        for pair in self.order.windows(2) {
            let (earlier, later) = (pair[0], pair[1]);
            if members[earlier].name == members[later].name {
                // There is a member behind it: the later one, if no other.
                self.edits.push((members[earlier].start..members[earlier + 1].start, b""));
            }
        }
        self.members.truncate(start);
    }
}

fn mend(body: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|(range, _)| range.start);
    let (mut mended, mut copied) = (Vec::with_capacity(body.len() + edits.len()), 0);
    for (range, text) in edits {
        // One inside of what was cut out is of no use.
        if range.start >= copied {
            mended.extend_from_slice(&body[copied..range.start]);
            mended.extend_from_slice(text);
            copied = range.end;
        }
    }
    mended.extend_from_slice(&body[copied..]);
    mended
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const LIMITS: Limits =
        Limits { depth: 9, object_depth: 4, outer_arrays: 2, term: 100, must_be_object: false };

    fn fitted(body: &str) -> Option<String> {
        match fit(body.as_bytes(), &LIMITS) {
            Fit::AsItIs => Some(body.to_owned()),
            Fit::Mended(mended) => Some(String::from_utf8(mended).unwrap()),
            Fit::Unfit => None,
        }
    }

    #[test]
    fn of_members_with_one_name_the_last_stays() {
        for (body, expected) in [
            ("", ""),
            ("7", "7"),
            (r#"{"a":{"a":1},"b":[{"a":2},{"a":3}]}"#, r#"{"a":{"a":1},"b":[{"a":2},{"a":3}]}"#),
            (r#"{"user":"a","user":"b"}"#, r#"{"user":"b"}"#),
            (r#"{ "a" : 1 , "b" : 2 , "a" : 3 }"#, r#"{ "b" : 2 , "a" : 3 }"#),
            (r#"{"a":1,"a":2,"a":3,"b":4,"b":5}"#, r#"{"a":3,"b":5}"#),
            (r#"{"x":[{"a":1,"a":{"b":1,"b":2}}],"y":1}"#, r#"{"x":[{"a":{"b":2}}],"y":1}"#),
            (r#"{"a":{"b":1,"b":2},"c":0,"a":1}"#, r#"{"c":0,"a":1}"#),
            // The same name in another writing.
            (r#"{"a":1,"\u0061":2}"#, r#"{"\u0061":2}"#),
            (r#"{"\ud800":1,"\ud800":2}"#, r#"{"\ud800":2}"#),
            (r#"{"":1,"":2}"#, r#"{"":2}"#),
        ] {
            assert_eq!(fitted(body).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn a_number_that_is_too_long_becomes_a_string() {
        let digits = "7".repeat(LONGEST_NUMBER);
        let limits = Limits { term: usize::MAX, ..LIMITS };
        let mended = |body: &str| match fit(body.as_bytes(), &limits) {
            Fit::Mended(mended) => String::from_utf8(mended).unwrap(),
            other => panic!("{other:?}"),
        };
        let body = format!(r#"{{"seed":{digits},"x":-{digits}}}"#);
        assert_eq!(mended(&body), format!(r#"{{"seed":{digits},"x":"-{digits}"}}"#));
        let twice = format!(r#"{{"seed":1{digits},"seed":1{digits}}}"#);
        assert_eq!(mended(&twice), format!(r#"{{"seed":"1{digits}"}}"#));
    }

    #[test]
    fn a_body_up_to_every_limit_goes_and_one_beyond_does_not() {
        let arrays = |count: usize| "[".repeat(count) + &"]".repeat(count);
        let objects = |count: usize| r#"{"a":"#.repeat(count) + "1" + &"}".repeat(count);
        let term = |name: usize, value: usize| {
            format!(r#"{{"a":{{"{}":"{}"}}}}"#, "n".repeat(name), "v".repeat(value))
        };
        let escaped = |count: usize| format!(r#"["{}"]"#, r"\u00e9".repeat(count));
        for (at, over) in [
            (arrays(2), arrays(3)),
            (format!(r#"{{"a":{}}}"#, arrays(8)), format!(r#"{{"a":{}}}"#, arrays(9))),
            (format!("[{}]", objects(4)), format!("[{}]", objects(5))),
            // `a.nnn.vvv`
            (term(7, 90), term(7, 91)),
            (term(96, 1), term(97, 1)),
            (escaped(50), escaped(51)),
        ] {
            assert_eq!(fitted(&at).as_deref(), Some(&*at));
            assert_eq!(fitted(&over), None, "{over}");
        }
        let limits = Limits { term: usize::MAX, ..LIMITS };
        let long = |length: usize| fit(format!(r#"{{"{}":1}}"#, "n".repeat(length)).as_bytes(), &limits);
        assert_eq!((long(LONGEST_NAME), long(LONGEST_NAME + 1)), (Fit::AsItIs, Fit::Unfit));
    }

    #[test]
    fn where_a_body_must_be_an_object_nothing_else_goes() {
        let limits = Limits { must_be_object: true, ..LIMITS };
        for (body, expected) in [
            ("", Fit::AsItIs),
            (r#"{"a":[1]}"#, Fit::AsItIs),
            ("[{}]", Fit::Unfit),
            ("1", Fit::Unfit),
            ("null", Fit::Unfit),
            (r#""a""#, Fit::Unfit),
        ] {
            assert_eq!(fit(body.as_bytes(), &limits), expected, "{body}");
        }
    }

    #[test]
    fn the_deepest_body_and_the_widest_are_looked_at_in_time() {
        assert_eq!(fitted(&"[".repeat(1_000_000)), None);
        let names: Vec<_> = (0..200_000).map(|number| format!(r#""{}":1"#, number % 100_000)).collect();
        let wide = fitted(&format!("{{{}}}", names.join(","))).unwrap();
        assert_eq!(wide.matches(':').count(), 100_000);
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![Just("1"), Just("null"), Just(r#""a,\"}{b""#), Just(r#""\\""#)];
        leaf.prop_map(str::to_owned).prop_recursive(5, 40, 6, |inner| {
            let member = ("[abc]", inner.clone()).prop_map(|(name, value)| format!(r#""{name}":{value}"#));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(" ,"))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_mended_body_means_what_the_body_meant(body in json()) {
            let limits = Limits { depth: 99, object_depth: 99, outer_arrays: 99, ..LIMITS };
            let mended = match fit(body.as_bytes(), &limits) {
                Fit::AsItIs => body.clone(),
                Fit::Mended(mended) => String::from_utf8(mended).unwrap(),
                Fit::Unfit => panic!("{body}"),
            };
            // serde takes the last of several members too.
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            prop_assert_eq!(value(&mended), value(&body));
            prop_assert_eq!(fit(mended.as_bytes(), &limits), Fit::AsItIs, "{}", mended);
        }
    }
}
