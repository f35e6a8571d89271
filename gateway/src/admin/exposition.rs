//! Prometheus expositions of several origins as one, in the text format or in OpenMetrics.
//!
//! Formats: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>.

use std::collections::HashSet;

/// What the scraper asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    pub(super) fn of(accept: Option<&str>) -> Self {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Joins expositions in one format. A family that an earlier one has already is left out, since a family may stand in
/// one place only; its name is returned.
pub(super) fn join(format: Format, expositions: &[String]) -> (String, Vec<String>) {
    let mut seen = HashSet::new();
    let mut repeated = Vec::new();
    let mut out = String::with_capacity(expositions.iter().map(String::len).sum::<usize>() + 8);
    for exposition in expositions {
        let mut here = HashSet::new();
        let mut skipping = false;
        for line in exposition.lines().filter(|line| !line.is_empty() && *line != "# EOF") {
            if let Some(family) = family(line) {
                skipping = seen.contains(family);
                if here.insert(family) && skipping {
                    repeated.push(family.to_owned());
                }
            }
            if !skipping {
                out.push_str(line);
                out.push('\n');
            }
        }
        seen.extend(here);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    (out, repeated)
}

/// The first line that is neither metadata nor a sample. One such line, and a scraper refuses the whole exposition.
pub(super) fn first_fault(exposition: &str) -> Option<&str> {
    exposition.lines().find(|line| !line.is_empty() && !line.starts_with('#') && !is_sample(line))
}

/// `name{labels} value [timestamp] [# exemplar]`
fn is_sample(line: &str) -> bool {
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let name = line.bytes().take_while(is_name_byte).count();
    let (name, rest) = line.split_at(name);
    let rest = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels),
        None => Some(rest),
    };
    let value = rest.and_then(|rest| rest.split_whitespace().next());
    let is_number = |text: &str| matches!(text, "NaN" | "+Inf" | "-Inf") || text.parse::<f64>().is_ok();
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && value.is_some_and(is_number)
}

/// What follows the closing brace; a brace inside a quoted value closes nothing.
fn after_labels(labels: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return labels.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// The text format as OpenMetrics: a counter's family loses its `_total`, `untyped` is called `unknown`.
pub(super) fn to_open_metrics(text: &str) -> String {
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.strip_suffix("_total"))
        .collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.is_empty()) {
        match family(line) {
            Some(name) => out.push_str(&metadata(line, name, &counters)),
            None if line.starts_with('#') => continue,
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

fn metadata(line: &str, name: &str, counters: &HashSet<&str>) -> String {
    let is_counter = name.strip_suffix("_total").is_some_and(|base| counters.contains(base));
    let base = if is_counter { name.trim_end_matches("_total") } else { name };
    let line = line.replacen(name, base, 1);
    match line.strip_suffix(" untyped") {
        Some(rest) => format!("{rest} unknown"),
        // OpenMetrics wants `_total` on every counter's samples; one that has none cannot be called a counter.
        None if !is_counter && line.starts_with("# TYPE ") => match line.strip_suffix(" counter") {
            Some(rest) => format!("{rest} unknown"),
            None => line,
        },
        None => line,
    }
}

/// The family that a line of metadata is about.
fn family(line: &str) -> Option<&str> {
    let rest = ["# HELP ", "# TYPE ", "# UNIT "].iter().find_map(|prefix| line.strip_prefix(prefix))?;
    rest.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_chooses_the_format() {
        for (accept, format) in [
            (None, Format::Text),
            (Some("text/plain"), Format::Text),
            (Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Format::OpenMetrics),
        ] {
            assert_eq!(Format::of(accept), format);
        }
    }

    #[test]
    fn a_counter_keeps_its_samples_and_its_family_loses_the_suffix() {
        let text = "# HELP a_total Help of a_total\n# TYPE a_total counter\na_total{x=\"1\"} 2\n\
                    # a comment\n# TYPE b histogram\nb_bucket{le=\"+Inf\"} 1\n# TYPE c untyped\nc 1\n\
                    # TYPE d counter\nd 1\n";
        assert_eq!(
            to_open_metrics(text),
            "# HELP a Help of a_total\n# TYPE a counter\na_total{x=\"1\"} 2\n\
             # TYPE b histogram\nb_bucket{le=\"+Inf\"} 1\n# TYPE c unknown\nc 1\n# TYPE d unknown\nd 1\n"
        );
    }

    #[test]
    fn a_line_that_is_no_sample_is_found() {
        for line in [
            "",
            "# a comment",
            "a 1",
            "a:b_c{} NaN",
            "a{x=\"}\\\"{\",y=\"\"} +Inf 1700000000",
            "a_bucket{le=\"1\"} 3 # {trace_id=\"x\"} 0.5",
        ] {
            assert_eq!(first_fault(line), None, "{line}");
        }
        for line in ["not an exposition", "1a 2", "a", "a{x=\"} 1", "a{x=\"1\"} one", "{} 1"] {
            assert_eq!(first_fault(line), Some(line));
        }
    }

    #[test]
    fn a_family_of_two_origins_stands_once() {
        let first = "# TYPE a counter\na_total 1\n# EOF\n".to_owned();
        let second = "# TYPE a counter\na_total 2\n# TYPE b gauge\nb 3\n".to_owned();
        let (text, repeated) = join(Format::OpenMetrics, &[first, second]);
        assert_eq!(text, "# TYPE a counter\na_total 1\n# TYPE b gauge\nb 3\n# EOF\n");
        assert_eq!(repeated, ["a"]);
    }
}
