//! One sentence for each kind of mistake a schema finds.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;
use setting_values::{ByteSize, HumanDuration};

use super::problem::{Mistake, SchemaProblem};
use super::schema_check::pointer_of;
use super::schema_walk as walk;
use super::{address, coerce, pointer, suggest};

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
        let at = pointer_of(error);
        let value = error.instance();
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                unexpected.iter().map(|key| self.unknown_key(&at, key)).collect()
            }
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                self.no_form_fits(&at, value, context)
            }
            Kind::Required { property } => vec![self.missing(&at, property.as_str().unwrap_or_default())],
            Kind::PropertyNames { error } => {
                let name = error.instance().as_str().unwrap_or_default();
                vec![SchemaProblem::new(
                    pointer::join(&at, name),
                    "not an allowed name",
                    self.rule(error, "the name"),
                )]
            }
            Kind::Type { kind } => vec![self.wrong_type(&at, value, &expected_types(kind))],
            Kind::Constant { expected_value } => {
                vec![self.not_one_of(&at, value, &[expected_value.as_ref()])]
            }
            Kind::Enum { options } => {
                let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
                vec![self.not_one_of(&at, value, &options.iter().collect::<Vec<_>>())]
            }
            Kind::Format { format } => vec![self.wrong_format(&at, value, format)],
            _ => vec![SchemaProblem::new(&at, self.rule(error, &self.got(&at, value)), "")],
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
        if let (Some(_), [JsonType::String]) = (format_phrase(format), expected) {
            return self.wrong_format(at, value, format);
        }
        let phrases = expected.iter().map(|kind| type_phrase(*kind).to_owned()).collect::<Vec<_>>();
        let message = format!("expected {}, got {}", list(&phrases), self.got(at, value));
        SchemaProblem::new(at, message, self.type_cure(at, value, expected))
    }

    /// What to write instead, where the value shows what was meant.
    fn type_cure(&self, at: &str, value: &Value, expected: &[JsonType]) -> String {
        let [expected] = expected else { return String::new() };
        match (expected, value) {
            (JsonType::Array, Value::Object(_)) => {
                format!("write it with two brackets, [[{}]]", pointer::dotted(at))
            }
            (JsonType::Object, Value::Array(items)) if items.iter().all(Value::is_object) => {
                format!("write it with single brackets, [{}]", pointer::dotted(at))
            }
            _ if !self.may_show(at) => String::new(),
            (JsonType::Array, Value::String(_) | Value::Number(_)) => format!("write [{value}]"),
            (JsonType::String, Value::Number(_) | Value::Bool(_)) => format!("write \"{value}\", in quotes"),
            (JsonType::Integer | JsonType::Number | JsonType::Boolean, Value::String(text)) => {
                match coerce::scalar(*expected, text) {
                    Some(meant) if text == &meant.to_string() => format!("write {meant}, without quotes"),
                    _ => String::new(),
                }
            }
            _ => String::new(),
        }
    }

    fn wrong_format(&self, at: &str, value: &Value, format: &str) -> SchemaProblem {
        let expected = match format_phrase(format) {
            Some(phrase) => phrase.to_owned(),
            None if format == "uri" => "a URI".to_owned(),
            None => format!("a value of the format \"{format}\""),
        };
        let message = format!("expected {expected}, got {}", self.got(at, value));
        SchemaProblem::new(
            at,
            message,
            if self.may_show(at) { unit_cure(format, value) } else { String::new() },
        )
    }

    fn not_one_of(&self, at: &str, value: &Value, options: &[&Value]) -> SchemaProblem {
        if walk::is_secret(self.schema, at) {
            return SchemaProblem::new(at, "not one of the allowed values", "");
        }
        let shown =
            options.iter().filter(|option| !option.is_null()).map(|option| show(option)).collect::<Vec<_>>();
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
        // `null` is how schemas say "optional", and nothing a user can write in TOML.
        let forms = forms.iter().filter(|form| !only_null(form)).collect::<Vec<_>>();
        if let Some((key, options)) = discriminator(&forms) {
            let chosen = value.pointer(key.strip_prefix(at).unwrap_or_default()).unwrap_or(value);
            return vec![self.not_one_of(&key, chosen, &options)];
        }
        if let Some(expected) = types_of_all(at, &forms) {
            return vec![self.wrong_type(at, value, &expected)];
        }
        let likely = forms.iter().min_by_key(|form| unlikeliness(at, form));
        likely.map(|form| form.iter().flat_map(|error| self.report(error)).collect()).unwrap_or_default()
    }

    /// What a rule about size, range or shape asks for.
    fn rule(&self, error: &ValidationError<'_>, got: &str) -> String {
        let count = |word: &str, limit: &u64, of: &str| format!("must have at {word} {limit} {of}");
        match error.kind() {
            Kind::Minimum { limit } => format!("must be at least {limit}, got {got}"),
            Kind::Maximum { limit } => format!("must be at most {limit}, got {got}"),
            Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}, got {got}"),
            Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}, got {got}"),
            Kind::Custom { keyword, message } if keyword == "x-min" => {
                format!("must be at least {message}, got {got}")
            }
            Kind::Custom { keyword, message } if keyword == "x-max" => {
                format!("must be at most {message}, got {got}")
            }
            Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}, got {got}"),
            Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } | Kind::MinProperties { limit: 1 } => {
                "must not be empty".to_owned()
            }
            Kind::MinLength { limit } => count("least", limit, "characters"),
            Kind::MaxLength { limit } => count("most", limit, "characters"),
            Kind::MinItems { limit } => count("least", limit, "items"),
            Kind::MaxItems { limit } => count("most", limit, "items"),
            Kind::AdditionalItems { limit } => format!("must have at most {limit} items"),
            Kind::MinProperties { limit } => count("least", limit, "keys"),
            Kind::MaxProperties { limit } => count("most", limit, "keys"),
            Kind::Pattern { pattern } => format!("must match the pattern {pattern}, got {got}"),
            Kind::UniqueItems => "holds a value twice".to_owned(),
            Kind::FalseSchema => "no value is allowed here".to_owned(),
            Kind::OneOfMultipleValid { .. } => "fits several of the forms that exclude each other".to_owned(),
            // Rare in configurations; the keyword leads to the place in the schema.
            kind => format!("breaks the schema's rule \"{}\"", kind.keyword()),
        }
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

/// The key by which the forms tell themselves apart, when none of them has the value found there: with its
/// allowed values.
fn discriminator<'e>(forms: &[&'e Vec<ValidationError<'static>>]) -> Option<(String, Vec<&'e Value>)> {
    let choice = |error: &'e ValidationError<'static>| match error.kind() {
        Kind::Constant { expected_value } => Some((pointer_of(error), vec![expected_value.as_ref()])),
        Kind::Enum { options } => Some((pointer_of(error), options.as_array()?.iter().collect())),
        _ => None,
    };
    let mut choices =
        forms.iter().map(|form| form.iter().find_map(choice)).collect::<Option<Vec<_>>>()?.into_iter();
    let (key, mut options) = choices.next()?;
    for (other, more) in choices {
        if other != key {
            return None;
        }
        options.extend(more);
    }
    Some((key, options))
}

/// The types of all forms, when the value is of none of them.
fn types_of_all(at: &str, forms: &[&Vec<ValidationError<'static>>]) -> Option<Vec<JsonType>> {
    let of_form = |form: &&Vec<ValidationError<'static>>| {
        form.iter().find_map(|error| match error.kind() {
            Kind::Type { kind } if pointer_of(error) == at => Some(expected_types(kind)),
            _ => None,
        })
    };
    let mut types = Vec::new();
    for kind in forms.iter().map(of_form).collect::<Option<Vec<_>>>()?.into_iter().flatten() {
        if !types.contains(&kind) {
            types.push(kind);
        }
    }
    (!types.is_empty()).then_some(types)
}

/// How little a form looks like what was meant: its own type is wrong, its tag is another one, many mistakes.
fn unlikeliness(at: &str, form: &[ValidationError<'static>]) -> (bool, bool, usize) {
    let wrong_type = form.iter().any(|e| matches!(e.kind(), Kind::Type { .. }) && pointer_of(e) == at);
    let wrong_tag = form.iter().any(|e| matches!(e.kind(), Kind::Constant { .. } | Kind::Enum { .. }));
    (wrong_type, wrong_tag, form.len())
}

fn only_null(form: &[ValidationError<'static>]) -> bool {
    matches!(form, [error] if matches!(error.kind(), Kind::Type { kind: TypeKind::Single(JsonType::Null) }))
}

fn expected_types(kind: &TypeKind) -> Vec<JsonType> {
    match kind {
        TypeKind::Single(kind) => vec![*kind],
        TypeKind::Multiple(kinds) => kinds.iter().filter(|kind| *kind != JsonType::Null).collect(),
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

fn format_phrase(format: &str) -> Option<&'static str> {
    match format {
        HumanDuration::FORMAT => Some(HumanDuration::EXPECTED),
        ByteSize::FORMAT => Some(ByteSize::EXPECTED),
        address::LISTEN_ADDRESS => Some("an IP address and port such as \"127.0.0.1:3000\""),
        address::HTTP_URL => {
            Some("a base URL such as \"https://host/path\", without user, query or fragment")
        }
        _ => None,
    }
}

/// How to write a bare number with a unit.
fn unit_cure(format: &str, value: &Value) -> String {
    let number = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return String::new(),
    };
    let (unit, name) = match format {
        HumanDuration::FORMAT => ("s", "seconds"),
        ByteSize::FORMAT => (" B", "bytes"),
        _ => return String::new(),
    };
    let bare = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if bare { format!("write \"{number}{unit}\" for {name}") } else { String::new() }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() > SHOWN_CHARS => {
            format!("{:?}…", without_password(text).chars().take(SHOWN_CHARS).collect::<String>())
        }
        Value::String(text) => format!("{:?}", without_password(text)),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => kind_of(value).to_owned(),
    }
}

/// A URL often carries user and password: `postgres://user:password@host`.
fn without_password(text: &str) -> String {
    match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://***@{rest}"),
        None => text.to_owned(),
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
