//! `magicapi-gateway replay FILE… --plugin NAME`

use std::{fmt::Write as _, path::PathBuf};

use super::{
    CONFIG, ConfigArgs, LEFT, NO_FILE, SOFTWARE, USAGE, all_problems, block_on, complain, complain_about,
    complain_about_plugins, environment, load, logging, print, signals,
};
use crate::{
    admin::metrics::Metrics,
    config::{Config, Loaded},
    pipeline::config::Plugin as Entry,
    replay::{Replay, ReplayError, Survey, Tally},
    startup::{self, Host},
};

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// Dead-letter files, also rotated and gzip-compressed ones. They are read and never changed.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The exporter that gets the records: the name of its [[plugin]] entry.
    #[arg(long, value_name = "NAME")]
    plugin: String,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn replay(arguments: &Arguments) -> u8 {
    logging::start(arguments.config.log_format);
    block_on(async { obey(arguments).await.unwrap_or_else(|code| code) })
}

async fn obey(arguments: &Arguments) -> Result<u8, u8> {
    let Loaded { config, plugins, problems, .. } = load(&arguments.config);
    let Some(config) = config else {
        complain_about(&all_problems(problems, &plugins, arguments.config.allow_insecure_plugins).await);
        return Err(CONFIG);
    };
    let entry = entry(&config, &arguments.plugin)?;
    let survey = Survey::of(&arguments.files, &entry.name).map_err(|error| refuse(&error))?;
    survey.remarks.iter().for_each(|remark| complain(&format!("warning: {remark}")));
    if arguments.dry_run {
        let Tally { wanted, .. } = survey.tally;
        return Ok(print(&format!("{wanted} to send{}\n", asides(&survey.tally))));
    }
    let tally = if survey.tally.wanted == 0 { survey.tally } else { send(survey, entry, &config).await? };
    print(&report(&tally));
    Ok(if tally.left() == 0 { 0 } else { LEFT })
}

/// The entry of that name. What is optional for a gateway is not for a replay.
fn entry(config: &Config, name: &str) -> Result<Entry, u8> {
    let Some(entry) = config.plugin.iter().find(|entry| entry.name == name) else {
        let names: Vec<&str> = config.plugin.iter().map(|entry| entry.name.as_str()).collect();
        let known =
            if names.is_empty() { "has no plugins".into() } else { format!("has {}", names.join(", ")) };
        complain(&format!("error: --plugin: there is no plugin \"{name}\"; the configuration {known}"));
        return Err(USAGE);
    };
    if !entry.enabled {
        complain(&format!("error: --plugin: \"{name}\" is disabled; set enabled = true in its entry"));
        return Err(USAGE);
    }
    Ok(Entry { required: true, ..entry.clone() })
}

async fn send(survey: Survey, entry: Entry, config: &Config) -> Result<Tally, u8> {
    let software = |error: &dyn std::fmt::Display| {
        complain(&format!("error: {error}"));
        SOFTWARE
    };
    let entries = std::slice::from_ref(&entry);
    let loaded = startup::load_plugins(entries, &Host::of(config), environment).await;
    let plugin = loaded.map_err(complain_about_plugins)?.ready.into_iter().next();
    let (plugin, _) = plugin.ok_or(SOFTWARE)?;
    let metrics = Metrics::new().map_err(|error| software(&error))?;
    let shutdown = signals::shutdown_or_hangup().map_err(|error| software(&error))?;
    let replay = Replay::new(survey, plugin, entry, metrics.exporter_instruments());
    let replay = replay.map_err(|error| refuse(&error))?;
    replay.run(shutdown, config.telemetry.drain_timeout).await.map_err(|error| refuse(&error))
}

fn refuse(error: &ReplayError) -> u8 {
    complain(&format!("error: {error}"));
    NO_FILE
}

/// The counts, for a person and for a script; below them why records were not delivered.
fn report(tally: &Tally) -> String {
    let Tally { delivered, rejected, given_up, .. } = tally;
    let mut text = format!(
        "{delivered} delivered, {rejected} rejected again, {given_up} given up{}; {} left\n",
        asides(tally),
        tally.left()
    );
    for ((cause, message), records) in &tally.reasons {
        let _ = writeln!(text, "  {records} {} ({}): {message}", cause.fate, cause.reason);
    }
    text
}

fn asides(tally: &Tally) -> String {
    let counts = [
        (tally.delivered_before, "delivered before"),
        (tally.repeated, "met twice"),
        (tally.unreadable, "unreadable"),
        (tally.torn, "torn"),
    ];
    let shown = counts.iter().filter(|(count, _)| *count > 0);
    shown.map(|(count, what)| format!(", {count} {what}")).collect()
}
