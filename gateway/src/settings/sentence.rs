//! One sentence for each kind of mistake a schema finds.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::address;
use super::format::{self, Format};
use super::problem::{Mistake, SchemaProblem};
use super::schema_walk as walk;
use super::{coerce, pointer, suggest};

/// The longest text of the user's that is repeated to him.
const SHOWN_CHARS: usize = 60;
/// With more keys than this, a list of them explains nothing.
const LISTED_KEYS: usize = 12;

/// Makes problems of the validator's errors.
pub(crate) struct Reporter<'a> {
    schema: &'a Value,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(schema: &'a Value, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { schema, variable }
    }

    /// The problems behind one error: one per unknown key, those of the nearest form of an `anyOf`.
    pub(crate) fn report(&self, error: &ValidationError<'_>) -> Vec<SchemaProblem> {
        let (at, value) = (error.instance_path().as_str(), error.instance());
        if let Some(options) = allowed_values(error) {
            return vec![self.not_one_of(at, value, &options)];
        }
        if let Some(types) = allowed_types(error) {
            return vec![self.wrong_type(at, value, &types)];
        }
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                unexpected.iter().map(|key| self.unknown_key(at, key)).collect()
            }
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                self.no_form_fits(at, value, context)
            }
            Kind::Required { property } => vec![self.missing(at, property.as_str().unwrap_or_default())],
            Kind::Format { format } => vec![self.wrong_format(at, value, format)],
            _ => vec![SchemaProblem::new(at, rule(error, &self.got(at, value)), "")],
        }
    }

    fn unknown_key(&self, at: &str, key: &str) -> SchemaProblem {
        let schemas = walk::subschemas(self.schema, at);
        let known = walk::property_names(&schemas);
        let nearest =
            || suggest::nearest(key, known.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        let listed = || format!("known here are {}", known.join(", "));
        let cure = match self.misplaced(at, key, &schemas).or_else(nearest) {
            Some(cure) => cure,
            None if (1..=LISTED_KEYS).contains(&known.len()) => listed(),
            None => "take it out".to_owned(),
        };
        SchemaProblem::new(pointer::join(at, key), "unknown key", cure).of_kind(Mistake::UnknownKey)
    }

    /// In TOML a key belongs to the header above it, which is easily the wrong one.
    fn misplaced(&self, at: &str, key: &str, schemas: &[&Value]) -> Option<String> {
        let has_key = |schemas: &[&Value]| walk::property_names(schemas).contains(&key);
        let inner =
            walk::properties(schemas).find(|(_, property)| has_key(&walk::expand(self.schema, property)));
        if let Some((table, _)) = inner {
            return Some(format!("did you mean \"{table}.{key}\"?"));
        }
        let mut around = pointer::ancestors(at).skip(1).map(|outer| walk::subschemas(self.schema, outer));
        let is_around = around.any(|outer| has_key(&outer));
        is_around
            .then(|| "it is a key of the table around this one: put it above this table's header".to_owned())
    }

    fn missing(&self, at: &str, key: &str) -> SchemaProblem {
        let at = pointer::join(at, key);
        let schemas = walk::subschemas(self.schema, &at);
        let cure = match coerce::variables(&schemas).as_slice() {
            [] => "give it a value".to_owned(),
            names => format!("set it here or in the environment variable {}", names.join(" or ")),
        };
        SchemaProblem::new(at, "missing", cure).of_kind(Mistake::Missing)
    }

    fn wrong_type(&self, at: &str, value: &Value, expected: &[JsonType]) -> SchemaProblem {
        let schemas = walk::subschemas(self.schema, at);
        let format = walk::annotation(&schemas, "format").and_then(Value::as_str).unwrap_or_default();
        if *expected == [JsonType::String] && format::named(format).is_some() {
            return self.wrong_format(at, value, format);
        }
        let phrases = expected.iter().map(|kind| type_phrase(*kind).to_owned()).collect::<Vec<_>>();
        let message = format!("expected {}, got {}", list(&phrases), self.got(at, value));
        SchemaProblem::new(at, message, self.type_cure(at, value, expected).unwrap_or_default())
    }

    /// What to write instead, where the value shows what was meant.
    fn type_cure(&self, at: &str, value: &Value, expected: &[JsonType]) -> Option<String> {
        let [expected] = expected else { return None };
        match (expected, value) {
            (JsonType::Array, Value::Object(_)) => {
                Some(format!("write it with two brackets, [[{}]]", pointer::dotted(at)))
            }
            (JsonType::Object, Value::Array(items)) if items.iter().all(Value::is_object) => {
                Some(format!("write it with single brackets, [{}]", pointer::dotted(at)))
            }
            _ if !self.may_show(at) => None,
            (JsonType::Array, Value::String(_) | Value::Number(_)) => Some(format!("write [{value}]")),
            (JsonType::String, Value::Number(_) | Value::Bool(_)) => {
                Some(format!("write \"{value}\", in quotes"))
            }
            (_, Value::String(text)) => coerce::scalar(*expected, text)
                .map(|meant| meant.to_string())
                .filter(|meant| meant == text)
                .map(|meant| format!("write {meant}, without quotes")),
            _ => None,
        }
    }

    fn wrong_format(&self, at: &str, value: &Value, name: &str) -> SchemaProblem {
        let format = format::named(name);
        let expected = match format {
            Some(format) => format.expected.to_owned(),
            None if name == "uri" => "a URI".to_owned(),
            None => format!("a value of the format \"{name}\""),
        };
        let cure = format.filter(|_| self.may_show(at)).and_then(|format| unit_cure(format, value));
        let message = format!("expected {expected}, got {}", self.got(at, value));
        SchemaProblem::new(at, message, cure.unwrap_or_default())
    }

    fn not_one_of(&self, at: &str, value: &Value, options: &[&Value]) -> SchemaProblem {
        if walk::is_marked(self.schema, at) {
            return SchemaProblem::new(at, "not one of the allowed values", "");
        }
        let shown = options.iter().map(|option| show(option)).collect::<Vec<_>>();
        let near = value
            .as_str()
            .filter(|_| self.may_show(at))
            .and_then(|given| suggest::nearest(given, options.iter().filter_map(|option| option.as_str())));
        let cure = near.map(|near| format!("did you mean \"{near}\"?")).unwrap_or_default();
        SchemaProblem::new(at, format!("expected {}, got {}", list(&shown), self.got(at, value)), cure)
    }

    /// Of several allowed forms, the problems of the one that was most likely meant.
    fn no_form_fits(
        &self,
        at: &str,
        value: &Value,
        forms: &[Vec<ValidationError<'static>>],
    ) -> Vec<SchemaProblem> {
        if let Some((tag, options)) = common(forms, allowed_values) {
            let chosen = value.pointer(tag.strip_prefix(at).unwrap_or_default()).unwrap_or(value);
            return vec![self.not_one_of(tag, chosen, &options)];
        }
        if let Some((_, types)) = common(forms, |error| own_types(at, error)) {
            return vec![self.wrong_type(at, value, &types)];
        }
        // Its own type is wrong, its tag is another one, it has many mistakes: ever less likely it was meant.
        let unlikeliness = |form: &&Vec<ValidationError<'static>>| {
            let wrong_type = form.iter().any(|error| own_types(at, error).is_some());
            let wrong_tag = form.iter().any(|error| allowed_values(error).is_some());
            (wrong_type, wrong_tag, form.len())
        };
        let likely = forms.iter().min_by_key(unlikeliness);
        likely.map(|form| form.iter().flat_map(|error| self.report(error)).collect()).unwrap_or_default()
    }

    /// The found value, as far as it may be shown.
    fn got(&self, at: &str, value: &Value) -> String {
        if let Some(variable) = (self.variable)(at) {
            return format!("the value of the environment variable {variable}");
        }
        if walk::is_secret(self.schema, at) { kind_of(value).to_owned() } else { show(value) }
    }

    fn may_show(&self, at: &str) -> bool {
        (self.variable)(at).is_none() && !walk::is_secret(self.schema, at)
    }
}

/// What a rule about size, range or shape asks for.
fn rule(error: &ValidationError<'_>, got: &str) -> String {
    match error.kind() {
        Kind::Minimum { limit } => format!("must be at least {limit}, got {got}"),
        Kind::Maximum { limit } => format!("must be at most {limit}, got {got}"),
        Kind::Custom { keyword, message } if keyword == "x-min" => {
            format!("must be at least {message}, got {got}")
        }
        Kind::Custom { keyword, message } if keyword == "x-max" => {
            format!("must be at most {message}, got {got}")
        }
        Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } | Kind::MinProperties { limit: 1 } => {
            "must not be empty".to_owned()
        }
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}, got {got}"),
        // Rare in configurations; the validator's own sentence, in which `got` stands for the value.
        _ => error.masked_with(got).to_string(),
    }
}

/// What every form says of one and the same place, taken together: the tag by which they tell themselves apart, when
/// none of them has the value found there, or their types.
fn common<'e, T: PartialEq>(
    forms: &'e [Vec<ValidationError<'static>>],
    allowed: impl Fn(&'e ValidationError<'static>) -> Option<Vec<T>>,
) -> Option<(&'e str, Vec<T>)> {
    let (mut place, mut all) = (None, Vec::new());
    for form in forms {
        let said =
            |error: &'e ValidationError<'static>| Some((error.instance_path().as_str(), allowed(error)?));
        let (at, more) = form.iter().find_map(said)?;
        if *place.get_or_insert(at) != at {
            return None;
        }
        for one in more {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    Some((place?, all))
}

fn allowed_values<'e>(error: &'e ValidationError<'_>) -> Option<Vec<&'e Value>> {
    match error.kind() {
        Kind::Constant { expected_value } => Some(vec![expected_value]),
        Kind::Enum { options } => Some(options.as_array()?.iter().collect()),
        _ => None,
    }
}

/// The types of a value at `at` itself.
fn own_types(at: &str, error: &ValidationError<'_>) -> Option<Vec<JsonType>> {
    allowed_types(error).filter(|_| error.instance_path().as_str() == at)
}

fn allowed_types(error: &ValidationError<'_>) -> Option<Vec<JsonType>> {
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(kind) } => Some(vec![*kind]),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => Some(kinds.iter().collect()),
        _ => None,
    }
}

fn type_phrase(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "nothing",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "a table",
    }
}

/// How to write a bare number with a unit.
fn unit_cure(format: &Format, value: &Value) -> Option<String> {
    let (unit, name) = format.unit?;
    let number = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
    let is_bare = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_bare.then(|| format!("write \"{number}{unit}\" for {name}"))
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > SHOWN_CHARS => {
            format!("{:?}…", address::shown_url(text).chars().take(SHOWN_CHARS).collect::<String>())
        }
        Value::String(text) => format!("{:?}", address::shown_url(text)),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => kind_of(value).to_owned(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}

/// `a`, `a or b`, `a, b or c`.
fn list(items: &[String]) -> String {
    match items {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
