//! `magicapi-gateway check`

use std::process::ExitCode;

use super::{CONFIG, ConfigArgs, SOFTWARE, complain, complain_about, complain_about_plugins, environment, load, logging, print};
use crate::{
    config::Loaded,
    startup::{self, Failure, Host},
};

pub(super) fn check(args: &ConfigArgs, json: bool) -> ExitCode {
    logging::start(args.log_format);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        complain("error: no runtime");
        return ExitCode::from(SOFTWARE);
    };
    let loaded = load(args);
    let path = loaded.path.clone();
    let failures = runtime.block_on(find_failures(loaded, args.allow_insecure_plugins));
    if json {
        let report = serde_json::json!({ "ok": failures.is_empty(), "file": path, "problems": texts(&failures) });
        print(&format!("{report:#}\n"));
        return ExitCode::from(if failures.is_empty() { 0 } else { CONFIG });
    }
    if failures.is_empty() {
        let file = path.map_or("built-in defaults".to_owned(), |path| path.display().to_string());
        return print(&format!("{file}: the configuration is good, and every plugin loads\n"));
    }
    if let [Failure::Settings(problems)] = failures.as_slice() {
        complain_about(problems);
        return ExitCode::from(CONFIG);
    }
    ExitCode::from(complain_about_plugins(failures))
}

async fn find_failures(loaded: Loaded, allow_insecure: bool) -> Vec<Failure> {
    let Loaded { config, plugins, mut problems, .. } = loaded;
    let Some(config) = config else {
        problems.extend(startup::check_settings(&plugins, allow_insecure, environment).await);
        return vec![Failure::Settings(problems)];
    };
    startup::load_plugins(&config.plugin, &Host::of(&config), environment).await.err().unwrap_or_default()
}

fn texts(failures: &[Failure]) -> Vec<String> {
    let text = |failure: &Failure| match failure {
        Failure::Settings(problems) => problems.iter().map(ToString::to_string).collect(),
        Failure::Load { name, error } => vec![format!("plugin \"{name}\": {error}")],
    };
    failures.iter().flat_map(text).collect()
}
