//! `magicapi-gateway check`

use std::path::Path;

use super::{
    CONFIG, ConfigArgs, all_problems, block_on, code_of, complain_about, complain_about_plugins, environment,
    load, logging, print,
};
use crate::{
    config::Loaded,
    pipeline::{
        config::Plugin as Entry,
        dead_letter::{self, Unfit},
    },
    settings::Problem,
    startup::{self, Failure, Host},
};

/// What a check finds.
enum Finding {
    /// The configuration cannot be used.
    Wrong(Vec<Problem>),
    /// It can, and required plugins do not load.
    Failed(Vec<Failure>),
    /// It can; so many plugins load, and these optional ones do not.
    Good { loaded: usize, absent: Vec<(String, String)> },
}

pub(super) fn check(args: &ConfigArgs, json: bool) -> u8 {
    logging::start(args.log_format);
    block_on(async {
        let loaded = load(args);
        let path = loaded.path.clone();
        report(examine(loaded, args.allow_insecure_plugins).await, path.as_deref(), json)
    })
}

/// Prints what was found; the exit code for it.
fn report(finding: Finding, path: Option<&Path>, json: bool) -> u8 {
    let code = finding.code();
    if json {
        let report = serde_json::json!({
            "ok": code == 0, "file": path, "problems": finding.problems(), "not_loaded": finding.absent(),
        });
        print(&format!("{report:#}\n"));
        return code;
    }
    match finding {
        Finding::Wrong(problems) => complain_about(&problems),
        Finding::Failed(failures) => drop(complain_about_plugins(failures)),
        Finding::Good { loaded, absent } => {
            let file = path.map_or("built-in defaults".to_owned(), |path| path.display().to_string());
            print(&format!("{file}: the configuration is good{}\n", plugins(loaded, &absent)));
        }
    }
    code
}

async fn examine(loaded: Loaded, allow_insecure: bool) -> Finding {
    let Loaded { config, plugins, problems, .. } = loaded;
    let Some(config) = config else {
        return Finding::Wrong(all_problems(problems, &plugins, allow_insecure).await);
    };
    let unwritable = unwritable(&config.plugin);
    if !unwritable.is_empty() {
        return Finding::Wrong(all_problems(unwritable, &plugins, allow_insecure).await);
    }
    match startup::load_plugins(&config.plugin, &Host::of(&config), environment).await {
        Ok(plugins) => Finding::Good { loaded: plugins.ready.len(), absent: plugins.absent },
        Err(failures) => Finding::Failed(failures),
    }
}

/// Dead-letter files that could not be written. Where only rights or folders are missing, a gateway would start all the
/// same, and lose the letters.
fn unwritable(entries: &[Entry]) -> Vec<Problem> {
    unfit(entries, |_| true)
}

/// Dead-letter paths that are unfit in a way that counts.
pub(super) fn unfit(entries: &[Entry], counts: impl Fn(&Unfit) -> bool) -> Vec<Problem> {
    let problem = |entry: &Entry| {
        let why = dead_letter::check(entry.dead_letter.as_ref()?).err().filter(&counts)?;
        let cure = match why {
            Unfit::NoFile(_) => "name a regular file, or one that is yet to be made",
            Unfit::Access(_) => "check the path and the permissions",
        };
        Some(entry.problem("dead_letter", &format!("cannot be written to: {why}"), cure))
    };
    entries.iter().filter(|entry| entry.enabled).filter_map(problem).collect()
}

impl Finding {
    fn code(&self) -> u8 {
        match self {
            Self::Wrong(_) => CONFIG,
            Self::Failed(failures) => code_of(failures),
            Self::Good { .. } => 0,
        }
    }

    fn problems(&self) -> Vec<String> {
        let texts = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect();
        let failure = |failure: &Failure| match failure {
            Failure::Settings(problems) => texts(problems),
            Failure::Load { name, error } => vec![format!("plugin \"{name}\": {error}")],
        };
        match self {
            Self::Wrong(problems) => texts(problems),
            Self::Failed(failures) => failures.iter().flat_map(failure).collect(),
            Self::Good { .. } => Vec::new(),
        }
    }

    fn absent(&self) -> Vec<String> {
        match self {
            Self::Good { absent, .. } => {
                absent.iter().map(|(name, error)| format!("plugin \"{name}\": {error}")).collect()
            }
            Self::Wrong(_) | Self::Failed(_) => Vec::new(),
        }
    }
}

/// The end of the sentence about a good configuration.
fn plugins(loaded: usize, absent: &[(String, String)]) -> String {
    if absent.is_empty() {
        return match loaded {
            0 => "; it has no plugins".to_owned(),
            1 => ", and its plugin loads".to_owned(),
            2 => ", and both plugins load".to_owned(),
            all => format!(", and all {all} plugins load"),
        };
    }
    let names = absent.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    format!(", but {names} will be missing: not required, and not loaded")
}
