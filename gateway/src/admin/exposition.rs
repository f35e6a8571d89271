//! Prometheus expositions of several origins as one, in the text format or in OpenMetrics.
//!
//! Formats: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>.

use std::collections::{HashMap, HashSet};

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

/// What one origin has to show.
#[derive(Debug)]
pub(super) struct Exposition {
    /// The plugin; `None` for the gateway itself.
    pub plugin: Option<String>,
    pub text: String,
}

/// A family that two origins have, and of which the later one's samples cannot be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    pub family: String,
    pub plugin: String,
    pub why: &'static str,
}

/// Joins expositions in one format. A family may stand in one place only: where several plugins have it, all their samples
/// stand there, told apart by a label `plugin`.
pub(super) fn join(format: Format, expositions: &[Exposition]) -> (String, Vec<Clash>) {
    let size: usize = expositions.iter().map(|exposition| exposition.text.len()).sum();
    let mut joined = Joined { order: Vec::new(), families: HashMap::new(), clashes: Vec::new() };
    for exposition in expositions {
        joined.add(exposition);
    }
    let mut out = String::with_capacity(size + 8);
    for name in &joined.order {
        if let Some(family) = joined.families.get(name) {
            family.write(&mut out);
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    (out, joined.clashes)
}

/// Families by name, in the order in which they came.
struct Joined<'a> {
    order: Vec<&'a str>,
    families: HashMap<&'a str, Family<'a>>,
    clashes: Vec<Clash>,
}

/// A family, and what each origin says of it.
#[derive(Default)]
struct Family<'a> {
    origins: Vec<Part<'a>>,
}

/// What one origin says of a family: lines of metadata, and samples.
#[derive(Default)]
struct Part<'a> {
    plugin: Option<&'a str>,
    metadata: Vec<&'a str>,
    samples: Vec<&'a str>,
}

impl<'a> Joined<'a> {
    fn add(&mut self, exposition: &'a Exposition) {
        let mut own: HashMap<&str, Part<'a>> = HashMap::new();
        let mut order = Vec::new();
        let mut current = "";
        for line in exposition.text.lines().filter(|line| !line.is_empty() && *line != "# EOF") {
            let metadata = family(line);
            current = metadata.unwrap_or_else(|| family_of_sample(line, current));
            let part = own.entry(current).or_insert_with(|| {
                order.push(current);
                Part { plugin: exposition.plugin.as_deref(), ..Part::default() }
            });
            if metadata.is_some() { part.metadata.push(line) } else { part.samples.push(line) }
        }
        for name in order {
            if let Some(part) = own.remove(name) {
                self.place(name, part);
            }
        }
    }

    fn place(&mut self, name: &'a str, part: Part<'a>) {
        let family = self.families.entry(name).or_insert_with(|| {
            self.order.push(name);
            Family::default()
        });
        let Some(first) = family.origins.first() else { return family.origins.push(part) };
        let why = match part.plugin {
            _ if first.plugin.is_none() => "the gateway has a metric of this name",
            _ if first.kind() != part.kind() => "another plugin has a metric of this name and another type",
            _ if first.has_label() || part.has_label() => "it has a label `plugin` already",
            _ => return family.origins.push(part),
        };
        let plugin = part.plugin.unwrap_or_default().to_owned();
        self.clashes.push(Clash { family: name.to_owned(), plugin, why });
    }
}

impl Family<'_> {
    fn write(&self, out: &mut String) {
        let is_shared = self.origins.len() > 1;
        for line in self.origins.first().map_or(&[][..], |first| &first.metadata) {
            push_line(out, line);
        }
        for part in &self.origins {
            for sample in &part.samples {
                match part.plugin.filter(|_| is_shared) {
                    Some(plugin) => push_line(out, &labelled(sample, plugin)),
                    None => push_line(out, sample),
                }
            }
        }
    }
}

impl Part<'_> {
    /// Its line of type.
    fn kind(&self) -> Option<&str> {
        self.metadata.iter().find(|line| line.starts_with("# TYPE ")).copied()
    }

    /// Whether the label that tells plugins apart is in use.
    fn has_label(&self) -> bool {
        self.samples.iter().any(|sample| sample.contains("plugin=\""))
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// A sample with one label more, which comes first.
fn labelled(sample: &str, plugin: &str) -> String {
    let name = sample.find(['{', ' ']).unwrap_or(sample.len());
    let (name, rest) = sample.split_at(name);
    match rest.strip_prefix('{') {
        Some(labels) if labels.starts_with('}') => format!("{name}{{plugin=\"{plugin}\"{labels}"),
        Some(labels) => format!("{name}{{plugin=\"{plugin}\",{labels}"),
        None => format!("{name}{{plugin=\"{plugin}\"}}{rest}"),
    }
}

/// A sample belongs to the family before it, unless it has another name: then it has no metadata, and is a family by
/// itself.
fn family_of_sample<'a>(line: &'a str, before: &'a str) -> &'a str {
    let name = line.split(['{', ' ']).next().unwrap_or(line);
    if !before.is_empty() && name.starts_with(before) || line.starts_with('#') { before } else { name }
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

    fn exposition(plugin: &str, text: &str) -> Exposition {
        Exposition { plugin: Some(plugin.to_owned()).filter(|name| !name.is_empty()), text: text.to_owned() }
    }

    #[test]
    fn a_family_of_two_plugins_stands_once_with_the_samples_of_both() {
        let first = "# HELP a Help.\n# TYPE a counter\na_total 1\na_total{x=\"}\"} 2 # {t=\"1\"} 1\n# EOF\n";
        let second =
            "# HELP a Other.\n# TYPE a counter\na_total{x=\"y\"} 2\na_total{} 3\n# TYPE b gauge\nb 3\n";
        let (text, clashes) = join(Format::OpenMetrics, &[exposition("p", first), exposition("q", second)]);
        assert_eq!(
            text,
            "# HELP a Help.\n# TYPE a counter\na_total{plugin=\"p\"} 1\n\
             a_total{plugin=\"p\",x=\"}\"} 2 # {t=\"1\"} 1\na_total{plugin=\"q\",x=\"y\"} 2\n\
             a_total{plugin=\"q\"} 3\n# TYPE b gauge\nb 3\n# EOF\n"
        );
        assert_eq!(clashes, []);
    }

    #[test]
    fn a_family_of_one_origin_is_shown_as_it_is() {
        let (gateway, plugin) =
            ("# TYPE a gauge\na{plugin=\"x\"} 1\nbare 1\n", "# TYPE c gauge\nc 1\nc_more 1\n");
        let (text, clashes) = join(Format::Text, &[exposition("", gateway), exposition("p", plugin)]);
        assert_eq!((text, clashes), (format!("{gateway}{plugin}"), vec![]));
    }

    #[test]
    fn what_cannot_be_told_apart_is_left_out_and_told() {
        let gauge = "# TYPE a gauge\na 1\n";
        for (first, text, expected) in [
            ("", gauge, "the gateway has"),
            ("p", "# TYPE a counter\na 1\n", "another type"),
            ("p", "# TYPE a gauge\na{plugin=\"x\"} 1\n", "a label `plugin` already"),
        ] {
            let (joined, clashes) = join(Format::Text, &[exposition(first, gauge), exposition("q", text)]);
            assert_eq!(joined, gauge);
            let [Clash { family, plugin, why }] = &clashes[..] else { panic!("{clashes:?}") };
            assert!((&**family, &**plugin) == ("a", "q") && why.contains(expected), "{clashes:?}");
        }
    }
}
