//! Loads the plugins of a configuration, all at once, and reports everything that is wrong with any of them.

use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::Description;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::{
    config,
    loader::{self, FileRequest, HostInfo, LoadError, LoadRequest, Plugin},
    mask,
    pipeline::config::Plugin as Entry,
    settings::{Problem, SchemaProblem, credentials, plugin_settings},
};

/// The environment, as plugins' settings see it.
pub type Environment = fn(&str) -> Option<String>;

/// Plugins that are ready to be fed, with their entries in the configuration.
#[derive(Debug, Default)]
pub struct LoadedPlugins {
    /// In the order of the configuration.
    pub(crate) ready: Vec<(Plugin, Entry)>,
    /// Optional plugins that did not load, and why.
    pub(crate) absent: Vec<(String, String)>,
}

/// A plugin that did not load.
#[derive(Debug)]
pub enum Failure {
    /// Its settings are wrong: the operator's to mend in the configuration.
    Settings(Vec<Problem>),
    /// The file or the plugin failed.
    Load {
        /// Its name in the configuration.
        name: String,
        /// Why.
        error: LoadError,
    },
}

/// What every plugin is told about the gateway.
#[derive(Debug, Clone)]
pub struct Host {
    /// `telemetry.service_name`
    pub service_name: String,
    /// `telemetry.environment`
    pub environment: String,
    /// `plugins.allow_insecure`
    pub allow_insecure: bool,
}

impl Host {
    /// Of a configuration.
    #[must_use]
    pub fn of(config: &config::Config) -> Self {
        Self {
            service_name: config.telemetry.service_name.clone(),
            environment: config.telemetry.environment.clone(),
            allow_insecure: config.plugins.allow_insecure,
        }
    }
}

/// Loads all enabled plugins, side by side. Those that are not `required` may fail, unless they take the system's
/// loader with them.
///
/// # Errors
/// Everything that is wrong with required plugins, and with the settings of any.
pub async fn load_plugins(
    entries: &[Entry],
    host: &Host,
    env: Environment,
) -> Result<LoadedPlugins, Vec<Failure>> {
    let mut loading = JoinSet::new();
    for (place, entry) in entries.iter().filter(|entry| entry.enabled).enumerate() {
        let (entry, host) = (entry.clone(), host.clone());
        loading.spawn(async move {
            let outcome = load(&entry, &host, env).await;
            (place, entry, outcome)
        });
    }
    let mut outcomes = loading.join_all().await;
    outcomes.sort_by_key(|(place, _, _)| *place);
    let mut plugins = LoadedPlugins::default();
    let mut failures = Vec::new();
    for (_, entry, outcome) in outcomes {
        match outcome {
            Ok(plugin) => {
                announce(&plugin);
                plugins.ready.push((plugin, entry));
            }
            Err(Failure::Load { name, error }) if !entry.required && !error.holds_the_loader() => {
                warn!(plugin = name, "not loaded, going on without it: {error}");
                plugins.absent.push((name, error.to_string()));
            }
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() { Ok(plugins) } else { Err(failures) }
}

fn announce(plugin: &Plugin) {
    let (name, version) = (&plugin.description().name, &plugin.description().version);
    let path = plugin.facts().path.display();
    info!("plugin {}: {name} {version} from {path}", plugin.name());
}

async fn load(entry: &Entry, host: &Host, env: Environment) -> Result<Plugin, Failure> {
    let problems = Arc::<Mutex<Vec<SchemaProblem>>>::default();
    let found = problems.clone();
    let (name, settings) = (entry.name.clone(), entry.config.clone());
    let check = move |description: &Description| {
        let schema = description.config_schema.as_value();
        let settings = plugin_settings(schema, &settings, &env).map_err(|problems| {
            *found.lock().unwrap_or_else(PoisonError::into_inner) = problems;
            "the settings do not fit the plugin's schema".to_owned()
        })?;
        // Before the plugin has them: it may say something about them as soon as it does.
        for unhidden in mask::learn(credentials::of(schema, &settings)) {
            warn!(plugin = name, "{unhidden}");
        }
        Ok(settings)
    };
    let loaded = Plugin::load(LoadRequest {
        name: entry.name.clone(),
        file: file(entry, host.allow_insecure),
        workers: entry.workers,
        create_timeout: entry.create_timeout,
        settings: Box::new(check),
        content: entry.content,
        host: HostInfo {
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
            service_name: host.service_name.clone(),
            environment: host.environment.clone(),
        },
    })
    .await;
    loaded.map_err(|error| failure(entry, error, &problems.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn file(entry: &Entry, allow_insecure: bool) -> FileRequest {
    FileRequest { path: entry.path.clone(), sha256: entry.sha256.clone(), allow_insecure }
}

fn failure(entry: &Entry, error: LoadError, problems: &[SchemaProblem]) -> Failure {
    if !problems.is_empty() {
        return Failure::Settings(problems.iter().map(|problem| entry.settings_problem(problem)).collect());
    }
    match error {
        // They fit the schema, and the plugin knows better.
        LoadError::InvalidConfig { message, .. } => {
            let problem = entry.problem("config", &format!("the plugin refuses its settings: {message}"), "");
            Failure::Settings(vec![problem])
        }
        LoadError::Content { allowed, needed, reason, .. } => {
            let (allowed, needed) = (allowed.as_str(), needed.as_str());
            let problem = entry.problem(
                "content",
                &format!("\"{allowed}\" keeps from the plugin what its settings need: {reason}"),
                &format!("set content = \"{needed}\", or take that setting out"),
            );
            Failure::Settings(vec![problem])
        }
        error => Failure::Load { name: entry.name.clone(), error },
    }
}

/// What is wrong with the settings of plugins whose configuration is otherwise broken: their schemas are read, and
/// nothing is created.
pub async fn check_settings(entries: &[Entry], allow_insecure: bool, env: Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    for entry in entries.iter().filter(|entry| entry.enabled) {
        // A file that does not load is told when it is loaded; here only the settings count.
        let described = loader::describe(file(entry, allow_insecure), entry.create_timeout).await;
        match described {
            Ok((_, description)) => {
                let schema = description.config_schema.as_value();
                let found = plugin_settings(schema, &entry.config, &env).err().unwrap_or_default();
                problems.extend(found.iter().map(|problem| entry.settings_problem(problem)));
            }
            Err(error) if error.holds_the_loader() => break,
            Err(_) => {}
        }
    }
    problems
}
