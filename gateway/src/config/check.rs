//! Rules between sections, and rules about names. Rules inside one section are the section's own.

use std::{net::SocketAddr, path::Path};

use serde_json::Value;

use super::environment::{LABEL_CURE, is_label, known_names_cure};
use super::sections::Sections;
use crate::pipeline::dead_letter::place;
use crate::settings::{SchemaProblem, places::Places, pointer};

/// Applies every rule to the sections that could be read.
pub(crate) fn check(sections: &Sections, known_providers: &[&str], problems: &mut Vec<SchemaProblem>) {
    if let Some(server) = &sections.server {
        server.check(problems);
    }
    if let Some(admin) = &sections.admin {
        admin.check(problems);
    }
    if let Some(proxy) = &sections.proxy {
        proxy.check(problems);
    }
    if let Some(telemetry) = &sections.telemetry {
        telemetry.check(problems);
    }
    for (name, provider) in &sections.providers {
        let known = known_providers.contains(&name.as_str());
        if let Some(provider) = provider {
            provider.check(&pointer::join("/providers", name), known, problems);
        }
    }
    for (index, plugin) in sections.plugin.iter().enumerate() {
        if let Some(plugin) = plugin {
            plugin.check(&format!("/plugin/{index}"), problems);
        }
    }
    check_ports(sections, problems);
    check_default_provider(sections, known_providers, problems);
    check_dead_letters(sections, problems);
}

/// Names are looked at in the raw value, so that an entry with other mistakes takes part.
pub(crate) fn check_names(value: &Value, places: &Places, problems: &mut Vec<SchemaProblem>) {
    for name in value.get("providers").and_then(Value::as_object).into_iter().flat_map(serde_json::Map::keys)
    {
        if !is_label(name) {
            problems.push(SchemaProblem::new(
                pointer::join("/providers", name),
                "not a provider name",
                LABEL_CURE,
            ));
        }
    }
    let plugins = value.get("plugin").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = plugins.iter().map(|plugin| plugin.get("name").and_then(Value::as_str)).collect::<Vec<_>>();
    for (index, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let at = format!("/plugin/{index}/name");
        if !is_label(name) {
            problems.push(SchemaProblem::new(&at, format!("not a plugin name: {name:?}"), LABEL_CURE));
        }
        if let Some(first) = names[..index].iter().position(|other| *other == Some(*name)) {
            let line = places.line(&format!("/plugin/{first}/name"));
            let before = line.map(|line| format!(" on line {line}")).unwrap_or_default();
            let message = format!("the name \"{name}\" is used before{before}");
            problems.push(SchemaProblem::new(at, message, "give each plugin a name of its own"));
        }
    }
}

fn check_ports(sections: &Sections, problems: &mut Vec<SchemaProblem>) {
    let (Some(server), Some(admin)) = (&sections.server, &sections.admin) else { return };
    if overlap(server.listen, admin.listen) {
        problems.push(SchemaProblem::new(
            "/admin/listen",
            format!("{} is taken by server.listen, {}", admin.listen, server.listen),
            "give the two different ports",
        ));
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 is a free port of the system's choice.
    one.port() != 0 && one.port() == other.port() && (any || one.ip() == other.ip())
}

fn check_default_provider(sections: &Sections, known: &[&str], problems: &mut Vec<SchemaProblem>) {
    let Some(proxy) = &sections.proxy else { return };
    let name = proxy.default_provider.as_str();
    let configured = sections.providers.keys().map(String::as_str);
    let mut names = known.iter().copied().chain(configured).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    if !names.contains(&name) {
        let cure = known_names_cure(name, names.into_iter());
        let message = format!("there is no provider \"{name}\"");
        problems.push(SchemaProblem::new("/proxy/default_provider", message, cure));
    }
}

/// Two writers would rotate each other's file away, by whatever path they come to it.
fn check_dead_letters(sections: &Sections, problems: &mut Vec<SchemaProblem>) {
    let mut taken: Vec<(&Path, &str)> = Vec::new();
    for (index, plugin) in sections.plugin.iter().enumerate() {
        let Some((plugin, file)) = plugin.as_ref().and_then(|p| Some((p, p.dead_letter.as_ref()?))) else {
            continue;
        };
        match taken.iter().find(|(other, _)| place::is_same(other, file)) {
            Some((_, owner)) => problems.push(SchemaProblem::new(
                format!("/plugin/{index}/dead_letter"),
                format!("plugin \"{owner}\" writes to the same file"),
                "give each plugin a file of its own",
            )),
            None => taken.push((file, plugin.name.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_only_on_the_same_port() {
        for (one, other, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(overlap(one.parse().unwrap(), other.parse().unwrap()), expected, "{one} {other}");
        }
    }
}
