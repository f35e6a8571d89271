//! `${NAME}` and `${NAME:-default}` in string values.

/// A text after its references were replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The text to use.
    pub(crate) text: String,
    /// The variables it was made from, in order; a default is the file's own text, and leaves none.
    pub(crate) variables: Vec<String>,
    /// True when the text was one reference and nothing else: it may then stand for a number or a boolean.
    pub(crate) whole: bool,
}

/// Why a text cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The variable is not set, and there is no default.
    Missing(String),
    /// `${` without `}`.
    Unclosed,
    /// What stands between the braces is not a variable's name. It may be a piece of a password: not kept.
    BadName,
    /// A `${` inside a default.
    Nested(String),
}

/// Replaces every reference; `$${` stands for a plain `${`. All faults are reported, not the first alone.
pub(crate) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, Vec<Fault>> {
    let mut expanded = Expanded::default();
    let mut faults = Vec::new();
    let mut rest = text;
    let mut references = 0;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        if let Some(plain) = before.strip_suffix('$') {
            expanded.text.push_str(plain);
            expanded.text.push_str("${");
            rest = &reference[2..];
            continue;
        }
        expanded.text.push_str(before);
        references += 1;
        let Some(end) = reference.find('}') else {
            faults.push(Fault::Unclosed);
            rest = "";
            break;
        };
        rest = &reference[end + 1..];
        expanded.whole = start == 0 && rest.is_empty() && references == 1;
        match resolve(&reference[2..end], env) {
            Ok((name, value)) => {
                expanded.text.push_str(&value);
                expanded.variables.extend(name);
            }
            Err(fault) => faults.push(fault),
        }
    }
    expanded.text.push_str(rest);
    if faults.is_empty() { Ok(expanded) } else { Err(faults) }
}

/// The value of one reference, given what stands between its braces, and the variable that it came from.
fn resolve(body: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(Option<String>, String), Fault> {
    let (name, default) = match body.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (body, None),
    };
    if !is_variable_name(name) {
        return Err(Fault::BadName);
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(Fault::Nested(name.to_owned()));
    }
    match (env(name), default) {
        // As in a shell, `:-` takes an empty variable for one that is not set.
        (Some(value), Some(default)) if value.is_empty() => Ok((None, default.to_owned())),
        (Some(value), _) => Ok((Some(name.to_owned()), value)),
        (None, Some(default)) => Ok((None, default.to_owned())),
        (None, None) => Err(Fault::Missing(name.to_owned())),
    }
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${A}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced() {
        for (text, expected, whole) in [
            ("plain $A {A}", "plain $A {A}", false),
            ("${A}", "1", true),
            ("x${A}y${A}", "x1y1", false),
            ("${A}${A}", "11", false),
            ("${NONE:-d e:-f}", "d e:-f", true),
            ("${NONE:-}", "", true),
            ("${EMPTY:-d}", "d", true),
            ("${EMPTY}", "", true),
            ("$${A}", "${A}", false),
            ("a$${A}b${A}", "a${A}b1", false),
            // A value is taken as it is: it cannot pull in further variables.
            ("${TRICKY}", "${A}", true),
            ("é${A}é", "é1é", false),
        ] {
            let expanded = expand(text, &env).unwrap();
            assert_eq!((expanded.text.as_str(), expanded.whole), (expected, whole), "{text}");
        }
        assert_eq!(expand("${A}-${NONE:-x}", &env).unwrap().variables, ["A"]);
    }

    #[test]
    fn every_fault_is_reported() {
        for (text, expected) in [
            ("${NONE} ${OTHER}", vec![Fault::Missing("NONE".into()), Fault::Missing("OTHER".into())]),
            ("x${A", vec![Fault::Unclosed]),
            ("${}", vec![Fault::BadName]),
            ("${A-b}", vec![Fault::BadName]),
            ("${1A}", vec![Fault::BadName]),
            ("${NONE:-${A}}", vec![Fault::Nested("NONE".into())]),
        ] {
            assert_eq!(expand(text, &env), Err(expected), "{text}");
        }
    }
}
