//! Folds streams of chunks with `choices`: chat completions and completions.
//!
//! The chunks are merged into one object in the shape of a chunk, so that the text stands under `choices[].delta`
//! (completions: `choices[].text`). The rules, field by field:
//!
//! - On the top level the last value that is not `null` stays. Objects are merged (`x_groq` brings an id first and the
//!   usage last), with the same rule for their fields.
//! - `choices` are matched by their `index`, `tool_calls` as [`calls`] says.
//! - Inside of a choice, objects are merged and arrays joined (`logprobs`). Of strings, those that are documented to
//!   come in pieces are joined (see [`JOINED`]); of any other scalar the last that is not `null` stays.
//! - Content that comes as a list of parts is one list, and so is content of which only some is (see [`Part`]).
//! - A `message` beside the `delta` is all that came so far: the last one stays.
//! - An empty string that is not joined says nothing, and replaces nothing.
//! - A field whose type changes starts anew with the new type.
//!
//! Strings are joined as they are written, escapes and all: an emoji whose two surrogate escapes came in two chunks is
//! whole again.

mod calls;
mod parts;

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use self::parts::Part;
use super::{
    fold::{Answer, Fold, Seen, is_error},
    json::{self, Fields, Key, each_field, inside_array, inside_string},
    template::Template,
};

/// Strings that come in pieces: text, refusal, reasoning (two names for it are in use), the arguments of a call and
/// its name, a custom tool's input, the transcript and the samples of spoken answers.
const JOINED: &[&str] = &[
    "content",
    "text",
    "refusal",
    "reasoning_content",
    "reasoning",
    "arguments",
    "name",
    "input",
    "transcript",
    "data",
];

/// Objects and lists beyond these sizes are no answer of a model. What is over stays in `streamed_data` alone.
const MAX_FIELDS: usize = 256;
const MAX_INDEXED: usize = 256;
const MAX_DEPTH: u8 = 16;

/// The answer, as far as its chunks have come.
#[derive(Debug, Default)]
pub(crate) struct Chunks<'e> {
    answer: Object<'e>,
    trace: Trace<'e>,
    /// The chunk before, with holes where this one may differ.
    template: Option<Template<'e, Target>>,
    /// What the chunk at hand has in the holes.
    values: Vec<(&'e str, Target)>,
    /// The fields of the chunk at hand: nothing is merged before all of it has been read.
    fields: Vec<(Cow<'e, str>, &'e str)>,
    /// Any chunk came.
    began: bool,
    /// `[DONE]` came.
    done: bool,
}

/// Joined strings, and what the merge of one chunk did.
#[derive(Debug, Default)]
struct Trace<'e> {
    texts: Vec<String>,
    /// The strings that were joined, as they stand in the chunk.
    joined: Vec<(&'e str, usize)>,
    /// Merging the same again would do more than to join those strings.
    grows: bool,
    content: bool,
    /// An object of the chunk had the same key twice.
    repeats: bool,
}

/// Where the value of a template's hole goes.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// To the end of that text.
    Text(usize),
    /// Into that field of the answer.
    Field(usize),
}

impl<'e> Chunks<'e> {
    /// Merges a chunk that differs from the one before it in the usual places only.
    fn take_similar(&mut self, data: &'e str) -> Option<Seen> {
        if !self.template.as_ref()?.fit(data, &mut self.values) {
            return None;
        }
        let mut seen = Seen::default();
        for (value, target) in self.values.drain(..) {
            match target {
                Target::Field(at) => {
                    let (key, slot) = &mut self.answer.0[at];
                    if !is_absent(key, value) {
                        *slot = Value::Raw(value);
                    }
                }
                Target::Text(at) => {
                    let more = inside_string(value).unwrap_or_default();
                    seen.content |= !more.is_empty();
                    self.trace.texts[at].push_str(more);
                }
            }
        }
        Some(seen)
    }

    fn take_any(&mut self, data: &'e str) -> Result<Seen, serde_json::Error> {
        self.fields.clear();
        each_field(data, |key, raw| self.fields.push((key, raw)))?;
        if is_ping(&self.fields) {
            return Ok(Seen::default());
        }
        self.began = true;
        self.trace.begin_chunk();
        let (mut holes, mut cursor, mut error) = (Vec::new(), Cursor::default(), false);
        for (key, raw) in self.fields.drain(..) {
            if Kind::of(&key, Place::CHUNK) != Kind::Last {
                self.answer.merge_raw(key, raw, &mut cursor, Place::CHUNK, &mut self.trace);
                continue;
            }
            error |= is_error(&key, raw);
            let tells_kind = matches!(key.as_ref(), "error" | "object" | "type");
            let says_nothing = is_absent(&key, raw);
            let Some(slot) = self.answer.slot(key, &mut cursor, &mut self.trace) else { continue };
            let changes = matches!(slot, Value::Raw(before) if *before != "null" && *before != raw);
            // Where events of another kind come between, each is looked at.
            self.trace.grows |= tells_kind && (changes || error);
            if !(says_nothing && slot.is_known()) {
                slot.absorb(raw, Kind::Last, Place::CHUNK, &mut self.trace);
            }
            if changes && !raw.starts_with(['{', '[']) {
                holes.push((raw, Target::Field(cursor.hint - 1)));
            }
        }
        holes.extend(self.trace.joined.iter().map(|(raw, text)| (*raw, Target::Text(*text))));
        let Trace { grows, content, repeats, .. } = self.trace;
        self.template = if grows || repeats { None } else { Template::new(data, holes) };
        Ok(Seen { content, error, repeats })
    }
}

impl<'e> Fold<'e> for Chunks<'e> {
    fn take(&mut self, data: &'e str) -> Result<Seen, serde_json::Error> {
        match self.take_similar(data) {
            Some(seen) => Ok(seen),
            None => self.take_any(data),
        }
    }

    fn done(&mut self) {
        self.done = true;
    }

    fn finish(self: Box<Self>) -> Answer<'e> {
        let Self { answer, trace: Trace { texts, .. }, began, done, .. } = *self;
        let choices = answer.choices();
        let finished = choices.is_some_and(|choices| {
            !choices.is_empty() && choices.iter().all(|(_, choice)| choice.has("finish_reason"))
        });
        let finish_reasons = answer.of_choices("finish_reason");
        // Moonshot's usage stands in a choice.
        let usage = answer.of_choices("usage").pop().filter(|_| !answer.has("usage"));
        // What has no choices is of another form.
        let is_open = !finished && !done && (choices.is_some() || !began);
        let size: usize = texts.iter().map(String::len).sum();
        let mut head = String::with_capacity(size + 512);
        answer.write(&mut head, &texts);
        head.pop();
        let mut fields = answer.into_fields(&texts);
        if let Some(usage) = usage {
            fields.push(Cow::Borrowed("usage"), Cow::Borrowed(usage));
        }
        Answer { head, finished, closed: done, is_open, fields, finish_reasons }
    }
}

/// Whether a field of a chunk says nothing: an empty string, and no time. Azure's asynchronous filter sends such chunks.
fn is_absent(key: &str, raw: &str) -> bool {
    raw == "\"\"" || (raw == "0" && key == "created")
}

/// An event that only keeps the connection alive.
fn is_ping(fields: &[(Cow<'_, str>, &str)]) -> bool {
    let is_ping = |(key, raw): &(Cow<'_, str>, &str)| key == "type" && *raw == "\"ping\"";
    fields.iter().any(is_ping) && !fields.iter().any(|(key, _)| key == "choices")
}

/// Where an object stands decides how its fields are merged.
#[derive(Debug, Clone, Copy)]
struct Place {
    region: Region,
    depth: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Region {
    /// A chunk itself.
    Chunk,
    /// An object beside `choices`.
    Beside,
    /// A choice, and everything inside of it.
    Choice,
    /// `logprobs` of a choice, whose `content` and `text` are no content.
    Logprobs,
}

impl Place {
    const CHUNK: Self = Self { region: Region::Chunk, depth: 0 };

    /// The place of an object that is a field here.
    fn inner(self) -> Self {
        let region = if self.region == Region::Chunk { Region::Beside } else { self.region };
        Self { region, depth: self.depth + 1 }
    }

    /// The place of the object that is this field here.
    fn of_field(self, kind: Kind) -> Self {
        let inner = self.inner();
        if kind == Kind::Logprobs { Self { region: Region::Logprobs, ..inner } } else { inner }
    }

    /// The place of an object in an indexed list that is a field here.
    fn element(self) -> Self {
        Self { region: Region::Choice, depth: self.depth + 1 }
    }
}

/// An object that grows, its fields in the order in which they first came.
#[derive(Debug, Default)]
struct Object<'e>(Vec<(Cow<'e, str>, Value<'e>)>);

#[derive(Debug)]
enum Value<'e> {
    /// As it was written.
    Raw(&'e str),
    /// Joined strings, without the quotes: their place in [`Trace::texts`].
    Text(usize),
    /// Joined arrays, without the brackets.
    List(String),
    /// Content of which at least some came as a list.
    Parts(Vec<Part<'e>>),
    Object(Object<'e>),
    /// Objects by their `index`.
    Indexed(Vec<(u64, Object<'e>)>),
}

/// Where an object's next field probably is, and which have come. Chunks of one stream repeat their fields in the same
/// order.
#[derive(Debug, Default)]
struct Cursor {
    hint: usize,
    /// A bit for each of the first fields.
    seen: u128,
}

impl<'e> Object<'e> {
    /// The field's place.
    fn slot(
        &mut self,
        key: Cow<'e, str>,
        cursor: &mut Cursor,
        trace: &mut Trace<'e>,
    ) -> Option<&mut Value<'e>> {
        let fields = &self.0;
        let at = match fields.get(cursor.hint) {
            Some((name, _)) if *name == key => cursor.hint,
            _ => fields.iter().position(|(name, _)| *name == key).unwrap_or(fields.len()),
        };
        cursor.hint = at + 1;
        let bit = 1_u128.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0);
        trace.repeats |= cursor.seen & bit != 0;
        cursor.seen |= bit;
        if at == self.0.len() {
            if at >= MAX_FIELDS {
                return None;
            }
            self.0.push((key, Value::Raw("null")));
        }
        Some(&mut self.0[at].1)
    }

    /// How a field of this object is merged. Without a delta beside it a message may well come in pieces.
    fn kind_of(&self, key: &str, place: Place) -> Kind {
        match Kind::of(key, place) {
            Kind::SoFar if self.get("delta").is_none() => Kind::Last,
            kind => kind,
        }
    }

    /// Merges one field whose value comes next in `map`.
    fn merge<A: MapAccess<'e>>(
        &mut self,
        Key(key): Key<'e>,
        cursor: &mut Cursor,
        place: Place,
        map: &mut A,
        trace: &mut Trace<'e>,
    ) -> Result<(), A::Error> {
        let kind = self.kind_of(&key, place);
        let Some(slot) = self.slot(key, cursor, trace) else {
            return map.next_value::<IgnoredAny>().map(|_| ());
        };
        if kind.is_nested() {
            return map.next_value_seed(IntoSlot { slot, kind, place, trace });
        }
        let raw = map.next_value::<&RawValue>()?.get();
        slot.absorb(raw, kind, place, trace);
        Ok(())
    }

    /// Merges the fields of an object that is well-formed; what cannot be merged all the same is left out of the fold.
    fn merge_all(&mut self, raw: &'e str, place: Place, trace: &mut Trace<'e>) {
        let mut deserializer = serde_json::Deserializer::from_str(raw);
        let _ = deserializer.deserialize_map(Merge { object: self, place, trace });
    }

    /// Merges one field that was read before.
    fn merge_raw(
        &mut self,
        key: Cow<'e, str>,
        raw: &'e str,
        cursor: &mut Cursor,
        place: Place,
        trace: &mut Trace<'e>,
    ) {
        let kind = self.kind_of(&key, place);
        let Some(slot) = self.slot(key, cursor, trace) else { return };
        if kind.is_nested() {
            // The value is well-formed; what cannot be merged all the same is left out of the fold.
            let mut deserializer = serde_json::Deserializer::from_str(raw);
            let _ = IntoSlot { slot, kind, place, trace }.deserialize(&mut deserializer);
        } else {
            slot.absorb(raw, kind, place, trace);
        }
    }

    fn get(&self, name: &str) -> Option<&Value<'e>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A value, and not an empty one.
    fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, Value::Raw("null" | "\"\"")))
    }

    /// As a choice: whether it says that it failed.
    fn failed(&self) -> bool {
        matches!(self.get("finish_reason"), Some(Value::Raw("\"error\"")))
            || match self.get("error") {
                Some(Value::Raw(error)) => !json::is_nothing(error),
                error => error.is_some(),
            }
    }

    fn choices(&self) -> Option<&[(u64, Object<'e>)]> {
        match self.get("choices")? {
            Value::Indexed(choices) => Some(choices),
            _ => None,
        }
    }

    /// That field of every choice that has it, by the index of the choices.
    fn of_choices(&self, name: &str) -> Vec<&'e str> {
        let mut choices: Vec<_> = self.choices().unwrap_or_default().iter().collect();
        choices.sort_by_key(|(index, _)| *index);
        let field = |choice: &Object<'e>| {
            choice.0.iter().find_map(|(key, value)| match value {
                Value::Raw(raw) if key == name && *raw != "null" => Some(*raw),
                _ => None,
            })
        };
        choices.into_iter().filter_map(|(_, choice)| field(choice)).collect()
    }

    fn write(&self, out: &mut String, texts: &[String]) {
        out.push('{');
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            json::write_key(out, key);
            value.write(out, texts);
        }
        out.push('}');
    }

    /// Of the choices only those that failed are worth reading again.
    fn into_fields(self, texts: &[String]) -> Fields<'e> {
        let mut fields = Fields::default();
        for (key, value) in self.0 {
            match value {
                Value::Raw(raw) => fields.push(key, Cow::Borrowed(raw)),
                Value::Indexed(list) if !list.iter().any(|(_, choice)| choice.failed()) => {}
                value => {
                    let mut raw = String::new();
                    value.write(&mut raw, texts);
                    fields.push(key, Cow::Owned(raw));
                }
            }
        }
        fields
    }
}

/// How a field is merged, by its name and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Choices,
    Calls,
    Object,
    Logprobs,
    /// A string that comes in pieces.
    Joined,
    /// A string that comes in pieces, and that some servers repeat whole.
    Name,
    /// All that came so far, whatever it is.
    SoFar,
    Last,
}

impl Kind {
    fn of(key: &str, place: Place) -> Self {
        match (place.region, key) {
            _ if place.depth >= MAX_DEPTH => Self::Last,
            (Region::Chunk, "choices") => Self::Choices,
            (Region::Choice, "tool_calls") => Self::Calls,
            (Region::Choice, "logprobs") => Self::Logprobs,
            (Region::Choice, "delta" | "function" | "function_call" | "custom" | "audio") => Self::Object,
            (Region::Choice, "name") => Self::Name,
            (Region::Choice, "message") if place.depth == Place::CHUNK.element().depth => Self::SoFar,
            (Region::Choice, key) if JOINED.contains(&key) => Self::Joined,
            (Region::Chunk | Region::Beside | Region::Choice | Region::Logprobs, _) => Self::Last,
        }
    }

    /// Merged while it is read.
    fn is_nested(self) -> bool {
        matches!(self, Self::Choices | Self::Object | Self::Logprobs)
    }
}

impl<'e> Trace<'e> {
    fn begin_chunk(&mut self) {
        (self.grows, self.content, self.repeats) = (false, false, false);
        self.joined.clear();
    }

    fn new_text(&mut self) -> usize {
        self.texts.push(String::new());
        self.texts.len() - 1
    }

    fn join(&mut self, slot: &mut Value<'e>, raw: &'e str, is_name: bool) {
        self.grows |= is_name;
        let text = match slot {
            Value::Text(text) => *text,
            Value::Parts(parts) => return self.join_part(parts, raw),
            _ => {
                let text = self.new_text();
                *slot = Value::Text(text);
                text
            }
        };
        if is_name && Some(self.texts[text].as_str()) == inside_string(raw) {
            self.joined.push((raw, text));
        } else {
            self.extend(text, raw);
        }
    }

    /// Joins a string to a text.
    fn extend(&mut self, text: usize, raw: &'e str) {
        let more = inside_string(raw).unwrap_or_default();
        self.content |= !more.is_empty();
        self.texts[text].push_str(more);
        self.joined.push((raw, text));
    }
}

impl<'e> Value<'e> {
    fn is_known(&self) -> bool {
        !matches!(self, Self::Raw("null"))
    }

    fn absorb(&mut self, raw: &'e str, kind: Kind, place: Place, trace: &mut Trace<'e>) {
        match (kind, raw.as_bytes().first()) {
            (_, Some(b'n')) => {}
            (Kind::SoFar, _) => {
                trace.grows = true;
                *self = Self::Raw(raw);
            }
            (Kind::Calls, first) => {
                if first == Some(&b'[') {
                    self.absorb_calls(raw, place, trace);
                }
            }
            (Kind::Joined | Kind::Name, Some(b'"')) => trace.join(self, raw, kind == Kind::Name),
            (Kind::Joined, Some(b'[')) => trace.join_parts(self, raw),
            (_, Some(b'"')) if raw.len() == 2 && self.is_known() => {}
            (_, Some(b'[')) if matches!(place.region, Region::Choice | Region::Logprobs) => {
                let more = inside_array(raw).unwrap_or_default();
                trace.grows = true;
                match self {
                    Self::List(list) if list.is_empty() || more.is_empty() => list.push_str(more),
                    Self::List(list) => list.extend([",", more]),
                    _ => *self = Self::List(more.to_owned()),
                }
            }
            (_, Some(b'{')) => self.absorb_object(raw, place, trace),
            _ => *self = Self::Raw(raw),
        }
    }

    /// Objects stay as they were written until a second one comes to be merged with.
    fn absorb_object(&mut self, raw: &'e str, place: Place, trace: &mut Trace<'e>) {
        let merges = match self {
            Self::Raw(first) => first.starts_with('{') && place.depth < MAX_DEPTH,
            Self::Object(_) => true,
            _ => false,
        };
        if !merges {
            // The same again would be merged with it.
            trace.grows |= place.region == Region::Choice;
            *self = Self::Raw(raw);
            return;
        }
        if let Self::Raw(first) = *self {
            let mut object = Object::default();
            object.merge_all(first, place.inner(), trace);
            *self = Self::Object(object);
        }
        if let Self::Object(object) = self {
            object.merge_all(raw, place.inner(), trace);
        }
    }

    fn write(&self, out: &mut String, texts: &[String]) {
        match self {
            Self::Raw(raw) => out.push_str(raw),
            Self::Text(text) => out.extend(["\"", &texts[*text], "\""]),
            Self::List(list) => out.extend(["[", list, "]"]),
            Self::Parts(parts) => parts::write(parts, out, texts),
            Self::Object(object) => object.write(out, texts),
            Self::Indexed(objects) => {
                let mut objects: Vec<_> = objects.iter().collect();
                objects.sort_by_key(|(index, _)| *index);
                out.push('[');
                for (position, (_, object)) in objects.into_iter().enumerate() {
                    if position > 0 {
                        out.push(',');
                    }
                    object.write(out, texts);
                }
                out.push(']');
            }
        }
    }
}

/// Merges the object that is read into `object`.
struct Merge<'m, 'e> {
    object: &'m mut Object<'e>,
    place: Place,
    trace: &'m mut Trace<'e>,
}

impl<'e> Visitor<'e> for Merge<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        let mut cursor = Cursor::default();
        while let Some(key) = map.next_key::<Key<'e>>()? {
            self.object.merge(key, &mut cursor, self.place, &mut map, self.trace)?;
        }
        Ok(())
    }
}

/// A scalar where an object or a list should be is no error, and nothing to merge.
macro_rules! pass_over_scalars {
    () => {
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }

        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }

        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }

        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }

        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }

        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
    };
}

/// Merges an object or an indexed list into its slot; `null` leaves the slot as it is, and so does a value of another
/// shape.
struct IntoSlot<'m, 'e> {
    slot: &'m mut Value<'e>,
    kind: Kind,
    place: Place,
    trace: &'m mut Trace<'e>,
}

impl<'e> DeserializeSeed<'e> for IntoSlot<'_, 'e> {
    type Value = ();

    fn deserialize<D: Deserializer<'e>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'e> Visitor<'e> for IntoSlot<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { slot, kind, place, trace } = self;
        if kind != Kind::Choices && !matches!(slot, Value::Object(_)) {
            *slot = Value::Object(Object::default());
        }
        match slot {
            Value::Object(object) => Merge { object, place: place.of_field(kind), trace }.visit_map(map),
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { slot, kind, place, trace } = self;
        if kind == Kind::Choices && !matches!(slot, Value::Indexed(_)) {
            *slot = Value::Indexed(Vec::with_capacity(1));
        }
        let Value::Indexed(objects) = slot else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let (mut position, place) = (0, place.element());
        while seq.next_element_seed(Element { objects, position, place, trace })?.is_some() {
            position += 1;
        }
        Ok(())
    }

    pass_over_scalars!();
}

/// Merges one choice into the object that it belongs to.
struct Element<'m, 'e> {
    objects: &'m mut Vec<(u64, Object<'e>)>,
    position: usize,
    place: Place,
    trace: &'m mut Trace<'e>,
}

impl<'e> DeserializeSeed<'e> for Element<'_, 'e> {
    type Value = ();

    fn deserialize<D: Deserializer<'e>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'e> Visitor<'e> for Element<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { objects, position, place, trace } = self;
        // `index` comes first from most servers; what comes before it waits.
        let mut waiting: Vec<(Cow<'e, str>, &'e str)> = Vec::new();
        let mut index = None;
        while let Some(Key(key)) = map.next_key()? {
            let raw = map.next_value::<&RawValue>()?.get();
            if key == "index" {
                index = Some((key, raw));
                break;
            }
            waiting.push((key, raw));
        }
        let number = index.as_ref().and_then(|(_, raw)| json::count(raw));
        // Some servers leave `index` out.
        let number = number.unwrap_or_else(|| u64::try_from(position).unwrap_or(u64::MAX));
        let Some(object) = entry(objects, number) else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut cursor = Cursor::default();
        for (key, raw) in waiting.into_iter().chain(index) {
            object.merge_raw(key, raw, &mut cursor, place, trace);
        }
        while let Some(key) = map.next_key::<Key<'e>>()? {
            object.merge(key, &mut cursor, place, &mut map, trace)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    pass_over_scalars!();
}

fn entry<'m, 'e>(objects: &'m mut Vec<(u64, Object<'e>)>, index: u64) -> Option<&'m mut Object<'e>> {
    let at = objects.iter().position(|(known, _)| *known == index).unwrap_or(objects.len());
    if at == objects.len() {
        if at >= MAX_INDEXED {
            return None;
        }
        objects.push((index, Object::default()));
    }
    Some(&mut objects[at].1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    /// Folds chunks as the recorder does, and once more without the help of templates.
    fn fold(chunks: &[String]) -> (Json, bool) {
        let (mut quick, mut slow) = (Box::<Chunks<'_>>::default(), Box::<Chunks<'_>>::default());
        for chunk in chunks {
            let (a, b) = (quick.take(chunk), slow.take_any(chunk));
            assert_eq!(a.is_ok(), b.is_ok(), "{chunk}");
            assert_eq!(a.ok(), b.ok(), "{chunk}");
        }
        let (quick, slow) = (quick.finish(), slow.finish());
        assert_eq!(quick.head, slow.head);
        assert_eq!(quick.finished, slow.finished);
        assert_eq!(format!("{:?}", quick.fields), format!("{:?}", slow.fields));
        (serde_json::from_str(&(quick.head + "}")).unwrap(), quick.finished)
    }

    pub(super) fn check(chunks: &[Json], expected: &Json) {
        let chunks: Vec<String> = chunks.iter().map(Json::to_string).collect();
        assert_eq!(&fold(&chunks).0, expected, "{chunks:#?}");
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
    pub(super) fn delta(delta: Json) -> Json {
        json!({"choices": [{"index": 0, "delta": delta}]})
    }

    #[test]
    fn documented_strings_are_joined_and_of_others_the_last_stays() {
        check(
            &[
                delta(json!({"role": "assistant", "content": "a", "kind": "x", "n": 1, "refusal": null})),
                delta(json!({"role": "assistant", "content": "b", "kind": "y", "n": null, "reasoning": "r"})),
                delta(json!({"content": null, "reasoning": "s", "refusal": "no"})),
            ],
            &delta(
                json!({"role": "assistant", "content": "ab", "kind": "y", "n": 1, "refusal": "no", "reasoning": "rs"}),
            ),
        );
    }

    #[test]
    fn spoken_answers_old_functions_and_custom_tools_are_assembled() {
        check(
            &[
                delta(
                    json!({"audio": {"id": "a1", "transcript": "He"}, "function_call": {"name": "f", "arguments": ""}}),
                ),
                delta(
                    json!({"audio": {"transcript": "y", "data": "UklG"}, "function_call": {"arguments": "{}"}}),
                ),
                delta(json!({"audio": {"data": "Rg==", "expires_at": 7}})),
                delta(
                    json!({"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "c", "input": "x"}}]}),
                ),
                delta(json!({"tool_calls": [{"index": 0, "custom": {"input": "y"}}]})),
            ],
            &delta(json!({
                "audio": {"id": "a1", "transcript": "Hey", "data": "UklGRg==", "expires_at": 7},
                "function_call": {"name": "f", "arguments": "{}"},
                "tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "c", "input": "xy"}}],
            })),
        );
    }

    #[test]
    fn the_name_of_a_call_is_kept_once_where_a_server_repeats_it() {
        let call = |arguments: &str| {
            delta(json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": arguments}}]}))
        };
        check(&[call("{"), call("}")], &call("{}"));
    }

    #[test]
    fn an_index_that_comes_late_still_counts() {
        let late = |index: u64, text: &str| {
            format!(
                r#"{{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":null,"index":{index}}}]}}"#
            )
        };
        let (folded, _) = fold(&[late(1, "b"), late(0, "a"), late(1, "d"), late(0, "c")]);
        let choice = |index: u64, text: &str| json!({"delta": {"content": text}, "finish_reason": null, "index": index});
        assert_eq!(folded, json!({"choices": [choice(0, "ac"), choice(1, "bd")]}));
    }

    #[test]
    fn an_empty_string_replaces_nothing_and_a_filled_one_replaces_it() {
        let call = |call: Json| delta(json!({"role": "", "tool_calls": [call]}));
        let chunk = |id: &str, choice: Json| {
            json!({"id": id, "object": id, "model": id, "system_fingerprint": id, "service_tier": id,
                "created": u8::from(!id.is_empty()), "choices": choice["choices"]})
        };
        let text = |text: &str| delta(json!({"role": "assistant", "content": text}));
        check(
            &[
                chunk("", text("")),
                chunk("a", text("a")),
                chunk(
                    "b",
                    call(
                        json!({"index": 0, "id": "i", "type": "function", "function": {"name": "f", "arguments": "x"}}),
                    ),
                ),
                chunk(
                    "",
                    call(
                        json!({"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": "y"}}),
                    ),
                ),
                chunk("", text("")),
                chunk("", json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})),
                chunk("", json!({"choices": [{"index": 0, "delta": {}, "finish_reason": ""}]})),
            ],
            &chunk(
                "b",
                json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a", "tool_calls": [
                    {"index": 0, "id": "i", "type": "function", "function": {"name": "f", "arguments": "xy"}},
                ]}, "finish_reason": "stop"}]}),
            ),
        );
    }

    #[test]
    fn a_message_beside_the_delta_is_the_last_one_and_one_alone_comes_in_pieces() {
        let chunk = |delta: &str, message: &str| json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": message}, "delta": {"content": delta}}]});
        check(&[chunk("a", "a"), chunk("b", "ab"), chunk("c", "abc")], &chunk("abc", "abc"));
        let message = |text: &str| json!({"choices": [{"index": 0, "message": {"content": text}}]});
        check(&[message("a"), message("a"), message("b")], &message("aab"));
    }

    #[test]
    fn a_ping_is_no_chunk() {
        check(
            &[json!({"type": "ping"}), delta(json!({"content": "a"})), json!({"type": "ping"})],
            &delta(json!({"content": "a"})),
        );
        let ping = r#"{"type":"ping"}"#.to_owned();
        let mut fold = Box::<Chunks<'_>>::default();
        fold.take(&ping).unwrap();
        assert!(fold.finish().is_open);
    }

    #[test]
    fn a_key_that_is_there_twice_is_noticed_wherever_it_is() {
        for (chunk, repeats) in [
            (r#"{"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}"#, true),
            (r#"{"choices":[{"index":0,"delta":{"content":"a"},"delta":{}}]}"#, true),
            (r#"{"choices":[],"choices":[]}"#, true),
            (
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","name":"g"}}]}}]}"#,
                true,
            ),
            (r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"id":"a","id":"b"}]}}]}"#, true),
            (
                r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
                false,
            ),
            (
                r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":0,"delta":{"content":"b"}}]}"#,
                false,
            ),
        ] {
            let mut fold = Box::<Chunks<'_>>::default();
            assert_eq!(fold.take(chunk).unwrap().repeats, repeats, "{chunk}");
        }
    }

    #[test]
    fn an_error_is_noticed_among_chunks_that_look_like_it() {
        let chunk = |object: &str| json!({"object": object, "code": object, "choices": []}).to_string();
        let chunks = ["a", "b", "c", "error", "error", "d"].map(chunk);
        let mut fold = Box::<Chunks<'_>>::default();
        let errors: Vec<_> = chunks.iter().map(|chunk| fold.take(chunk).unwrap().error).collect();
        assert_eq!(errors, [false, false, false, true, true, false]);
    }

    #[test]
    fn an_answer_of_this_form_is_open_until_every_choice_or_the_stream_has_ended() {
        let choice =
            |index: u64, reason: Json| json!({"choices": [{"index": index, "finish_reason": reason}]});
        let usage = || json!({"choices": [], "usage": {"prompt_tokens": 1}});
        for (chunks, done, is_open) in [
            (vec![], false, true),
            (vec![], true, false),
            (vec![choice(0, json!(null))], false, true),
            (vec![choice(0, json!(""))], false, true),
            (vec![choice(0, json!(null)), usage()], false, true),
            (vec![choice(0, json!(null))], true, false),
            (vec![choice(0, json!("tool_calls")), usage()], false, false),
            (vec![choice(0, json!("stop")), choice(1, json!(null))], false, true),
            (vec![choice(0, json!("stop")), choice(1, json!("length"))], false, false),
            (vec![json!({"type": "message_start", "message": {}})], false, false),
        ] {
            let texts: Vec<String> = chunks.iter().map(Json::to_string).collect();
            let mut fold = Box::<Chunks<'_>>::default();
            texts.iter().for_each(|chunk| drop(fold.take(chunk)));
            if done {
                Fold::done(&mut *fold);
            }
            assert_eq!(fold.finish().is_open, is_open, "{texts:?}, {done}");
        }
    }

    #[test]
    fn on_the_top_level_the_last_value_stays_and_objects_are_merged() {
        check(
            &[
                json!({"id": "a", "usage": null, "citations": [1], "x_groq": {"id": "r", "seed": 1}}),
                json!({"id": null, "usage": {"n": 1}, "citations": [1, 2], "x_groq": null}),
                json!({"usage": {"n": 2}, "x_groq": {"usage": {"n": 3}, "seed": null}}),
            ],
            &json!({"id": "a", "usage": {"n": 2}, "citations": [1, 2], "x_groq": {"id": "r", "seed": 1, "usage": {"n": 3}}}),
        );
    }

    #[test]
    fn arrays_in_a_choice_are_joined() {
        check(
            &[
                delta(json!({"annotations": [{"a": 1}], "images": []})),
                delta(json!({"annotations": [], "images": [1]})),
                delta(json!({"annotations": [{"a": 2}], "images": null})),
            ],
            &delta(json!({"annotations": [{"a": 1}, {"a": 2}], "images": [1]})),
        );
    }

    #[test]
    fn an_emoji_whose_escapes_came_in_two_chunks_is_whole_again() {
        let chunk = |text: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#);
        let (folded, _) = fold(&[chunk(r"\ud83d"), chunk(r"\udc4b"), chunk(r" \u00fc\n\\")]);
        assert_eq!(folded, delta(json!({"content": "👋 ü\n\\"})));
    }

    #[test]
    fn what_has_another_shape_than_expected_is_kept_out_and_harms_nothing() {
        let text = || delta(json!({"content": "a"}));
        for odd in [
            json!({"choices": {"0": 1}}),
            json!({"choices": "none"}),
            json!({"choices": 17}),
            json!({"choices": [1, null, "x", [], [{}], 1.5, -1, true]}),
            delta(json!("text")),
            delta(json!([1])),
        ] {
            let chunks: Vec<String> = [text(), odd, text()].iter().map(Json::to_string).collect();
            assert_eq!(fold(&chunks).0, delta(json!({"content": "aa"})), "{chunks:#?}");
        }
        check(&[json!({"choices": [null, {"index": 0, "delta": {"content": "a"}}]})], &text());
        check(&[delta(json!({"tool_calls": {"index": 0}}))], &delta(json!({"tool_calls": null})));
    }

    #[test]
    fn a_choice_that_says_why_it_ended_ends_the_stream_once_all_have() {
        let end = |index: u64| json!({"choices": [{"index": index, "finish_reason": "stop"}]}).to_string();
        let begin = |index: u64| json!({"choices": [{"index": index, "finish_reason": null}]}).to_string();
        assert!(!fold(&[]).1);
        assert!(!fold(&[begin(0), begin(1), end(1)]).1);
        assert!(fold(&[begin(0), begin(1), end(1), end(0)]).1);
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let nested = |field: &str| {
            format!("{{{}1{}", format!(r#""{field}":{{"#).repeat(9000) + r#""x":"#, "}".repeat(9001))
        };
        let wrapped = |inner: &str| format!(r#"{{"choices":[{{"index":0,"delta":{inner}}}],"top":{inner}}}"#);
        for field in ["a", "delta", "function"] {
            let chunk = wrapped(&nested(field));
            let mut fold = Box::<Chunks<'_>>::default();
            fold.take_any(&chunk).unwrap();
            fold.take_any(&chunk).unwrap();
            assert!(serde_json::from_str::<&RawValue>(&(fold.finish().head + "}")).is_ok());
        }
        let many: Vec<String> = (0..2000_u64)
            .map(|n| {
                json!({"choices": [{"index": n, "delta": {n.to_string(): n}}], n.to_string(): n}).to_string()
            })
            .collect();
        let (folded, _) = fold(&many);
        assert_eq!(folded["choices"].as_array().unwrap().len(), MAX_INDEXED);
        assert_eq!(folded.as_object().unwrap().len(), MAX_FIELDS);
    }

    /// Chunks as servers send them, alike and yet not the same.
    fn chunk() -> impl Strategy<Value = String> {
        let text = prop_oneof![Just(String::new()), "[a-z\"\\\\\n👋é]{0,6}"];
        let field = prop_oneof![
            5 => Just("content"), 1 => Just("reasoning"), 1 => Just("role"), 1 => Just("name"), 1 => Just("tool_calls"),
            1 => Just("parts"), 1 => Just("thinking"), 1 => Just("call"),
        ];
        (text, field, 0..2_u64, 0..5_u64, "[a-z]{0,3}", any::<bool>()).prop_map(|(text, field, index, shape, nonce, ends)| {
            let part = json!({"type": "text", "text": text});
            let (field, value) = match field {
                "tool_calls" => (field, json!([{"index": index, "id": null, "function": {"arguments": text}}])),
                "call" => ("tool_calls", json!([{"id": nonce, "function": {"name": nonce, "arguments": text}}])),
                "parts" => ("content", json!([part, {"type": "other"}])),
                "thinking" => ("content", json!([{"type": "thinking", "thinking": [part]}])),
                _ => (field, json!(text)),
            };
            let mut choice = json!({"index": index, "delta": {field: value}, "finish_reason": null});
            if ends {
                choice["finish_reason"] = json!("stop");
            }
            let chunk = match shape {
                0 => json!({"id": "c", "choices": [choice]}),
                1 => json!({"id": "c", "choices": [choice], "nonce": nonce, "n": index}),
                2 => json!({"id": nonce, "object": nonce, "created": index, "choices": [choice]}),
                3 => {
                    choice["message"] = json!({"content": text});
                    choice["other"] = json!({"text": text});
                    json!({"id": "c", "choices": [choice]})
                }
                _ => json!({"id": "c", "choices": [choice], "usage": {"n": index}, "logprobs": {"content": [text]}}),
            };
            chunk.to_string()
        })
    }

    proptest! {
        #[test]
        fn templates_change_nothing(
            mut chunks in proptest::collection::vec(chunk(), 0..12),
            repeats in proptest::collection::vec(0..12_usize, 0..12),
            damage in proptest::option::of((0..24_usize, any::<proptest::sample::Index>(), "[\"\\\\{}\\[\\],:0-9a-z \n]")),
        ) {
            for repeat in repeats {
                if let Some(chunk) = chunks.get(repeat).cloned() {
                    chunks.push(chunk);
                }
            }
            if let Some((which, at, with)) = damage
                && let Some(chunk) = chunks.get_mut(which)
            {
                let mut characters: Vec<char> = chunk.chars().collect();
                let at = at.index(characters.len());
                characters.splice(at..=at, with.chars());
                *chunk = characters.into_iter().collect();
            }
            fold(&chunks);
        }
    }
}
