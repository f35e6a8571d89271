//! From the command line's wish to a checked configuration, or all that is wrong with it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::environment::{self, ENABLED_EXPORTERS};
use super::sections::Sections;
use super::{Config, check, files, schema};
use crate::pipeline::config::{Plugin, plugin_key};
use crate::settings::document::{self, Document, SyntaxFault};
use crate::settings::{Problem, SchemaProblem, coerce, places::Places, plugin, pointer, schema_check};
use crate::{admin, server};
use setting_values::regular_file;

/// The largest configuration that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Where to look for the configuration.
#[derive(Clone)]
pub struct Source<'a> {
    /// `--config`; else MAGICAPI_CONFIG, else ./gateway.toml if it is there, else the built-in defaults.
    pub path: Option<PathBuf>,
    /// The environment; `&|name| std::env::var(name).ok()` outside tests.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// `--plugin-dir`; else MAGICAPI_PLUGIN_DIR, else `plugins.directory`, else the executable's folder.
    pub plugin_dir: Option<PathBuf>,
    /// The names of the built-in providers.
    pub known_providers: &'a [&'a str],
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, plugin_dir, .. } = self;
        f.debug_struct("Source").field("path", path).field("plugin_dir", plugin_dir).finish_non_exhaustive()
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The configuration, when nothing is wrong with it.
    pub config: Option<Config>,
    /// The plugin entries that can be read, also when other parts are wrong: `check` can load those plugins and
    /// report their settings in the same run.
    pub plugins: Vec<Plugin>,
    /// All that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// What is not wrong but may surprise; for the log.
    pub notes: Vec<String>,
    /// The file that was read; none for the built-in defaults.
    pub path: Option<PathBuf>,
}

/// Reads and checks the configuration. Opens no port and loads no plugin.
pub fn load(source: &Source<'_>) -> Loaded {
    let path = locate(source, Path::new("gateway.toml"));
    let mut text = String::new();
    if let Some(path) = &path {
        match regular_file::read_text(path, MAX_BYTES) {
            Ok(content) => text = content,
            Err(error) => {
                let problems = vec![unreadable(path, &error)];
                return Loaded { problems, path: Some(path.clone()), ..Loaded::default() };
            }
        }
    }
    match document::parse(&text, source.env) {
        Ok(document) => Loading { source, path, problems: Vec::new(), found: Vec::new() }.run(document),
        Err(faults) => {
            let problems = faults.iter().map(|fault| syntax_problem(path.as_deref(), fault)).collect();
            Loaded { problems, path, ..Loaded::default() }
        }
    }
}

/// The file to read; a file that was asked for must be there, the one in the current directory need not.
fn locate(source: &Source<'_>, default: &Path) -> Option<PathBuf> {
    let asked =
        source.path.clone().or_else(|| environment::variable(source.env, "MAGICAPI_CONFIG").map(Into::into));
    asked.or_else(|| default.exists().then(|| default.to_path_buf()))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        file: Some(path.to_path_buf()),
        line: None,
        column: None,
        key: String::new(),
        message: format!("cannot read the configuration: {error}"),
        cure: "check --config and MAGICAPI_CONFIG; `magicapi-gateway config default` prints a file to start from"
            .to_owned(),
    }
}

fn syntax_problem(path: Option<&Path>, fault: &SyntaxFault) -> Problem {
    Problem {
        file: path.map(Path::to_path_buf),
        line: Some(fault.line),
        column: Some(fault.column),
        key: String::new(),
        message: format!("not valid TOML: {}", fault.message),
        cure: String::new(),
    }
}

struct Loading<'a> {
    source: &'a Source<'a>,
    path: Option<PathBuf>,
    /// Mistakes of the environment.
    problems: Vec<Problem>,
    /// Mistakes of the file.
    found: Vec<SchemaProblem>,
}

impl Loading<'_> {
    fn run(mut self, document: Document) -> Loaded {
        let Document { value, places, problems, missing } = document;
        let (value, mut notes) = self.with_exporters(value);
        let mut value = Value::Object(value);
        self.found = problems;
        self.check_schema(&mut value, &places, missing);
        check::check_names(&value, &places, &mut self.found);
        let mut sections = Sections::read(&value, &places, self.path.as_deref(), &mut self.found);
        // Also without a section to change, the variables are checked.
        let mut unused = server::config::Config::default().listen;
        let listen = sections.server.as_mut().map_or(&mut unused, |server| &mut server.listen);
        environment::override_listen(self.source.env, listen, &mut self.problems);
        let mut unused = admin::config::Config::default();
        let admin = sections.admin.as_mut().unwrap_or(&mut unused);
        environment::override_admin(self.source.env, admin, &mut self.problems);
        let variable = environment::variable(self.source.env, "MAGICAPI_PLUGIN_DIR").map(PathBuf::from);
        let plugin_dir = self.source.plugin_dir.clone().or(variable).map(|path| absolute(&path));
        files::resolve(&mut sections, &self.base(), plugin_dir.as_deref(), &mut self.found);
        check::check(&sections, self.source.known_providers, &mut self.found);
        let located = self.found.iter().map(|found| self.locate(found, &value, &places));
        let mut problems = located.chain(self.problems.iter().cloned()).collect::<Vec<_>>();
        problems.sort_by(|a, b| (a.line, &a.key, &a.message).cmp(&(b.line, &b.key, &b.message)));
        let plugins = sections.plugin.iter().flatten().cloned().collect();
        let config = if problems.is_empty() { sections.compose() } else { None };
        notes.extend(config.as_ref().and_then(open_relay));
        Loaded { config, plugins, problems, notes, path: self.path }
    }

    /// Without a file, the exporters that the environment asks for.
    fn with_exporters(&mut self, mut value: Map<String, Value>) -> (Map<String, Value>, Vec<String>) {
        let mut notes = Vec::new();
        if let Some(path) = &self.path {
            if environment::variable(self.source.env, ENABLED_EXPORTERS).is_some() {
                let path = path.display();
                notes.push(format!(
                    "{ENABLED_EXPORTERS} is set but not used: the plugins are those of {path}"
                ));
            }
        } else {
            let entries = environment::enabled_exporters(self.source.env, &mut self.problems);
            value.insert("plugin".to_owned(), Value::Array(entries));
        }
        (value, notes)
    }

    fn check_schema(&mut self, value: &mut Value, places: &Places, missing: Vec<SchemaProblem>) {
        let schema = schema();
        coerce::references(&schema, value, places);
        let filled = plugin::fill_from_variables(&schema, value, self.source.env);
        // A disabled plugin is often one whose credentials are not there.
        let needed = missing.into_iter().filter(|found| !is_disabled(value, &found.pointer));
        self.found.extend(needed);
        let variable = |at: &str| filled.get(at).cloned().or_else(|| places.variable(at));
        let faulty = self.found.iter().map(|found| found.pointer.clone()).collect::<Vec<_>>();
        let further = schema_check::check(&schema, value, &variable);
        // A value that could not be read is absent here; that it is "missing" would be said twice.
        self.found.extend(further.into_iter().filter(|found| !faulty.contains(&found.pointer)));
    }

    /// The folder that relative paths start from: that of the file, else the current one.
    fn base(&self) -> PathBuf {
        match &self.path {
            Some(path) => absolute(path).parent().map(Path::to_path_buf).unwrap_or_default(),
            None => std::env::current_dir().unwrap_or_default(),
        }
    }

    fn locate(&self, found: &SchemaProblem, value: &Value, places: &Places) -> Problem {
        Problem {
            file: self.path.clone(),
            line: places.line(&found.pointer),
            column: None,
            key: key_of(&found.pointer, value),
            message: found.message.clone(),
            cure: found.cure.clone(),
        }
    }
}

/// Clients need no credential of their own yet: whoever reaches the port spends the operator's.
fn open_relay(config: &Config) -> Option<String> {
    let listen = config.server.listen;
    let with_key = config.providers.iter().filter(|(_, provider)| provider.api_key.is_some());
    let names = with_key.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    (!listen.ip().is_loopback() && !names.is_empty()).then(|| {
        format!(
            "whoever reaches {listen} uses the API key of {names} without one of their own: let only your clients reach \
             that port, or set server.listen to 127.0.0.1"
        )
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// `plugin "NAME": queue.max_records` for a plugin that has a name, else the dotted key.
fn key_of(at: &str, value: &Value) -> String {
    let mut outer = pointer::ancestors(at).collect::<Vec<_>>().into_iter().rev().skip(1);
    let entry =
        outer.next().zip(outer.next()).filter(|(section, _)| *section == "/plugin").map(|(_, entry)| entry);
    let named = entry.and_then(|entry| Some((entry, value.pointer(entry)?.get("name")?.as_str()?)));
    match named {
        Some((entry, name)) if environment::is_label(name) && !at.ends_with("/name") => {
            plugin_key(name, &at[entry.len()..])
        }
        _ => pointer::dotted(at),
    }
}

fn is_disabled(value: &Value, at: &str) -> bool {
    at.starts_with("/plugin/")
        && pointer::ancestors(at)
            .any(|outer| value.pointer(outer).and_then(|v| v.get("enabled")) == Some(&false.into()))
}

#[cfg(test)]
mod tests;
