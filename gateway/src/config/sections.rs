//! The parts of a configuration, each read on its own.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Config;
use crate::pipeline::config::Plugin;
use crate::settings::{
    Mistake, SchemaProblem,
    places::{Origin, Places},
    pointer,
};
use crate::{admin, loader, proxy, recorder, server};

/// The sections that could be read on their own, so that a mistake in one does not hide those in others.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    pub(crate) server: Option<server::config::Config>,
    pub(crate) admin: Option<admin::config::Config>,
    pub(crate) proxy: Option<proxy::config::Config>,
    pub(crate) providers: BTreeMap<String, Option<proxy::config::Provider>>,
    pub(crate) telemetry: Option<recorder::config::Config>,
    pub(crate) plugins: Option<loader::config::Config>,
    pub(crate) plugin: Vec<Option<Plugin>>,
}

impl Sections {
    /// Reads what can be read; `found` holds what the schema check found, and gets what goes wrong here.
    pub(crate) fn read(
        value: &Value,
        places: &Places,
        file: Option<&Path>,
        found: &mut Vec<SchemaProblem>,
    ) -> Self {
        let mut sections = Self {
            server: section(value, "/server", found),
            admin: section(value, "/admin", found),
            proxy: section(value, "/proxy", found),
            telemetry: section(value, "/telemetry", found),
            plugins: section(value, "/plugins", found),
            ..Self::default()
        };
        let providers = value.pointer("/providers").and_then(Value::as_object);
        for name in providers.into_iter().flat_map(Map::keys) {
            let provider = section(value, &pointer::join("/providers", name), found);
            sections.providers.insert(name.clone(), provider);
        }
        let count = value.pointer("/plugin").and_then(Value::as_array).map_or(0, Vec::len);
        for index in 0..count {
            let at = format!("/plugin/{index}");
            let mut plugin: Option<Plugin> = section(value, &at, found);
            if let Some(plugin) = &mut plugin {
                plugin.config.set_places(places.below(&pointer::join(&at, "config")));
                plugin.origin = Origin { file: file.map(Path::to_path_buf), places: places.below(&at) };
            }
            sections.plugin.push(plugin);
        }
        sections
    }

    /// The whole, if no part is missing.
    pub(crate) fn compose(self) -> Option<Config> {
        let all = |(name, provider): (String, Option<_>)| provider.map(|provider| (name, provider));
        Some(Config {
            server: self.server?,
            admin: self.admin?,
            proxy: self.proxy?,
            providers: self.providers.into_iter().map(all).collect::<Option<_>>()?,
            telemetry: self.telemetry?,
            plugins: self.plugins?,
            plugin: self.plugin.into_iter().collect::<Option<_>>()?,
        })
    }
}

/// One section; none when something is wrong in it. An absent one has its defaults.
fn section<T: DeserializeOwned>(value: &Value, at: &str, found: &mut Vec<SchemaProblem>) -> Option<T> {
    let mut content = value.pointer(at).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    for problem in found.iter().filter(|problem| pointer::is_within(&problem.pointer, at)) {
        // Without its unknown keys a section can still be held against the other rules.
        if problem.kind != Mistake::UnknownKey || !remove(&mut content, &problem.pointer[at.len()..]) {
            return None;
        }
    }
    match serde_json::from_value(content) {
        Ok(section) => Some(section),
        // The schema is made from the type, so this is a fault of ours. Serde's text may quote a secret.
        Err(_) => {
            let message = "cannot be read, although it fits the schema";
            found.push(SchemaProblem::new(at, message, "this is a fault of the gateway: please report it"));
            None
        }
    }
}

/// Takes a key out of a value; false when the pointer is the value's own.
fn remove(value: &mut Value, at: &str) -> bool {
    let mut keys = pointer::keys(at).collect::<Vec<_>>();
    let Some(last) = keys.pop() else { return false };
    let parent = keys.iter().try_fold(value, |inner, key| match inner {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        other => other.get_mut(&**key),
    });
    parent.and_then(Value::as_object_mut).is_some_and(|object| object.remove(&*last).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_section_is_read_without_its_unknown_keys_but_not_with_wrong_values() {
        let value = json!({ "server": { "worker": 1, "workers": 2 } });
        let unknown = SchemaProblem::new("/server/worker", "", "").of_kind(Mistake::UnknownKey);
        let wrong = SchemaProblem::new("/server/workers", "", "");
        for (mut found, expected) in [
            (vec![unknown.clone()], Some(2)),
            (vec![unknown, wrong], None),
            (vec![SchemaProblem::new("/server", "", "").of_kind(Mistake::UnknownKey)], None),
            (vec![SchemaProblem::new("/servers", "", "")], None),
        ] {
            let server: Option<server::config::Config> = section(&value, "/server", &mut found);
            assert_eq!(server.map(|server| server.workers), expected);
        }
        let absent: Option<server::config::Config> = section(&json!({}), "/server", &mut Vec::new());
        assert_eq!(absent, Some(server::config::Config::default()));
    }
}
