//! A TOML file as a JSON value, with the origin of every value, and references to the environment replaced.

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::interpolate::{Expanded, Fault, expand};
use super::places::{Place, Places};
use super::pointer;
use super::problem::SchemaProblem;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// The content; a value with a mistake in it is left out.
    pub(crate) value: Map<String, Value>,
    /// Where each value stands.
    pub(crate) places: Places,
    /// Mistakes in single values.
    pub(crate) problems: Vec<SchemaProblem>,
    /// References to variables that are not set. Apart from the rest, because a disabled plugin needs none.
    pub(crate) missing: Vec<SchemaProblem>,
}

/// A place where the text is not TOML.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxFault {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

/// Reads a TOML text.
pub(crate) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Document, Vec<SyntaxFault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was recovered is a guess; checking it would add mistakes that nobody made.
        let mut faults = errors.iter().map(|error| syntax_fault(text, error)).collect::<Vec<_>>();
        // After the first fault of a line the parser stumbles over what is left of it.
        faults.sort_by_key(|fault| (fault.line, fault.column));
        faults.dedup_by_key(|fault| fault.line);
        return Err(faults);
    }
    let mut reader = Reader { lines: Lines::new(text), env, document: Document::default() };
    let value = reader.table(table.get_ref(), "");
    Ok(Document { value, ..reader.document })
}

fn syntax_fault(text: &str, error: &toml::de::Error) -> SyntaxFault {
    let (line, column) = Lines::new(text).position(error.span().map_or(0, |span| span.start));
    // `Display` would quote the line, and a secret with it.
    SyntaxFault { line, column, message: error.message().trim().replace('\n', "; ") }
}

struct Reader<'a> {
    lines: Lines<'a>,
    env: &'a dyn Fn(&str) -> Option<String>,
    document: Document,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, at: &str) -> Map<String, Value> {
        let mut entries = table.iter().collect::<Vec<_>>();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut object = Map::new();
        for (key, value) in entries {
            let at = pointer::join(at, key.get_ref());
            let line = self.lines.position(key.span().start).0;
            self.value(value, &at, line)
                .map(|value| object.insert(key.get_ref().clone().into_owned(), value));
        }
        object
    }

    fn array(&mut self, items: &[Spanned<DeValue<'_>>], at: &str) -> Vec<Value> {
        let mut array = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let line = self.lines.position(item.span().start).0;
            // A placeholder keeps the numbers of the items after a faulty one.
            array.push(self.value(item, &format!("{at}/{index}"), line).unwrap_or(Value::Null));
        }
        array
    }

    /// The value, or none with a problem noted.
    fn value(&mut self, value: &Spanned<DeValue<'_>>, at: &str, line: usize) -> Option<Value> {
        let mut place = Place { line: Some(line), ..Place::default() };
        let read = match value.get_ref() {
            DeValue::String(text) => self.string(text, at).map(|expanded| {
                place.variables = expanded.variables;
                place.whole = expanded.whole;
                Value::String(expanded.text)
            }),
            DeValue::Integer(number) => self.note(at, integer(number)),
            DeValue::Float(number) => self.note(at, float(number)),
            DeValue::Boolean(value) => Some(Value::Bool(*value)),
            DeValue::Datetime(time) => Some(Value::String(time.to_string())),
            DeValue::Array(items) => Some(Value::Array(self.array(items, at))),
            DeValue::Table(table) => Some(Value::Object(self.table(table, at))),
        };
        self.document.places.insert(at.to_owned(), place);
        read
    }

    fn string(&mut self, text: &str, at: &str) -> Option<Expanded> {
        match expand(text, self.env) {
            Ok(expanded) => return Some(expanded),
            Err(faults) => faults.into_iter().for_each(|fault| self.fault(at, fault)),
        }
        None
    }

    fn fault(&mut self, at: &str, fault: Fault) {
        let problem = |message: String, cure: String| SchemaProblem::new(at, message, cure);
        match fault {
            Fault::Missing(name) => self.document.missing.push(problem(
                format!("the environment variable {name} is not set"),
                format!("set it, or give a default: ${{{name}:-default}}"),
            )),
            Fault::Unclosed => self.document.problems.push(problem(
                "\"${\" without \"}\"".to_owned(),
                "close it, or write \"$${\" for a plain \"${\"".to_owned(),
            )),
            Fault::BadName => self.document.problems.push(problem(
                "\"${…}\" does not hold the name of an environment variable".to_owned(),
                "write ${NAME} or ${NAME:-default}, or \"$${\" for a plain \"${\"".to_owned(),
            )),
            Fault::Nested(name) => self.document.problems.push(problem(
                format!("the default of ${{{name}:-…}} holds another \"${{\""),
                "give it a plain default".to_owned(),
            )),
        }
    }

    fn note(&mut self, at: &str, read: Result<Value, &'static str>) -> Option<Value> {
        read.map_err(|message| self.document.problems.push(SchemaProblem::new(at, message, ""))).ok()
    }
}

fn integer(number: &DeInteger<'_>) -> Result<Value, &'static str> {
    i64::from_str_radix(number.as_str(), number.radix())
        .map(Value::from)
        .or_else(|_| u64::from_str_radix(number.as_str(), number.radix()).map(Value::from))
        .map_err(|_| "the number is too large")
}

fn float(number: &DeFloat<'_>) -> Result<Value, &'static str> {
    let number = number.as_str().parse().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or("not a finite number")
}

/// Turns offsets into lines.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    /// Line and column, both from 1; the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        (line, column)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "PORT").then(|| "80".to_owned())
    }

    #[test]
    fn values_keep_their_lines() {
        let text = "a = 1\n[server]\nlisten = \"x\"\nb.c = true\n\n[[plugin]]\nname = \"p\"\n[plugin.config]\n\
                    list = [\n  1,\n  { d = 0x10 },\n]\nday = 2025-03-05\n";
        let document = parse(text, &env).unwrap();
        assert_eq!(
            Value::Object(document.value),
            json!({ "a": 1, "server": { "listen": "x", "b": { "c": true } },
                "plugin": [{ "name": "p", "config": { "list": [1, { "d": 16 }], "day": "2025-03-05" } }] })
        );
        for (pointer, line) in [
            ("/a", 1),
            ("/server", 2),
            ("/server/b/c", 4),
            ("/plugin/0", 6),
            ("/plugin/0/queue", 6),
            ("/plugin/0/config", 8),
            ("/plugin/0/config/list/0", 10),
            ("/plugin/0/config/list/1/d", 11),
        ] {
            assert_eq!(document.places.line(pointer), Some(line), "{pointer}");
        }
    }

    #[test]
    fn references_are_replaced_and_remembered() {
        let document = parse("a = \"${PORT}\"\nb = \"x${PORT}\"\nc = \"${NONE}\"\nd = \"${\"", &env).unwrap();
        assert_eq!(Value::Object(document.value), json!({ "a": "80", "b": "x80" }));
        assert_eq!(document.places.references().collect::<Vec<_>>(), ["/a"]);
        assert_eq!(document.places.variable("/b").as_deref(), Some("PORT"));
        assert_eq!(
            document.missing[0].to_string(),
            "c: the environment variable NONE is not set; set it, or give a default: ${NONE:-default}"
        );
        assert_eq!(document.problems[0].pointer, "/d");
    }

    #[test]
    fn every_syntax_fault_has_its_line_and_no_text_of_the_file() {
        let faults = parse("a = 1\nkey = \"hunter2\nb = 2\nc = = 3\nb = 4", &env).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 4, 5]);
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
    }

    #[test]
    fn numbers_json_does_not_have_are_mistakes() {
        let document =
            parse("a = nan\nb = 1e400\nc = 0xFFFFFFFFFFFFFFFF\nd = 99999999999999999999", &env).unwrap();
        assert_eq!(
            document.problems.iter().map(|p| p.pointer.as_str()).collect::<Vec<_>>(),
            ["/a", "/b", "/d"]
        );
        assert_eq!(Value::Object(document.value), json!({ "c": u64::MAX }));
    }
}
