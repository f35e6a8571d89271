//! The command line. What a machine reads goes to standard output, what a person reads to standard error.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done; for `run`: stopped as asked |
//! | 1 | the plugin file was refused (`plugin inspect`); records are left (`replay`); it is not well (`health`) |
//! | 2 | the command line is wrong |
//! | 66 | a dead-letter file cannot be read, or the note beside it not be written (`replay`) |
//! | 69 | a required plugin could not be loaded |
//! | 70 | the gateway failed by itself, or a plugin ended it |
//! | 78 | the configuration is wrong, a port that is taken included |

mod check;
mod health;
mod inspect;
mod logging;
mod replay;
mod run;
mod signals;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Loaded, Source},
    loader::{self, OrderlyEnd},
    mask,
    pipeline::config::Plugin,
    providers,
    settings::Problem,
    startup::{self, Failure},
};

/// The gateway is not well.
pub(crate) const UNHEALTHY: u8 = 1;
/// Records are left after a replay.
pub(crate) const LEFT: u8 = 1;
/// The command line is wrong, in a way that only the configuration shows.
pub(crate) const USAGE: u8 = 2;
/// A file of a replay cannot be used (EX_NOINPUT).
pub(crate) const NO_FILE: u8 = 66;
/// A required plugin could not be loaded (EX_UNAVAILABLE).
pub(crate) const UNAVAILABLE: u8 = 69;
/// The gateway failed by itself (EX_SOFTWARE).
pub(crate) const SOFTWARE: u8 = 70;
/// The configuration is wrong (EX_CONFIG).
pub(crate) const CONFIG: u8 = 78;

#[derive(Debug, Parser)]
#[command(
    name = "magicapi-gateway",
    version,
    about = "HTTP gateway for LLM providers, with telemetry plugins"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests (the default).
    Run(ConfigArgs),
    /// Check the configuration and load its plugins; open no port.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask a running gateway whether it is well: for containers, whose images have no other client.
    Health(health::Arguments),
    /// Send dead letters again.
    Replay(replay::Arguments),
    /// Print a configuration to start from, or its schema.
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Look at plugin files.
    Plugin {
        #[command(subcommand)]
        what: PluginCommand,
    },
    /// Print the version.
    Version {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// A file with every key, its default and its meaning.
    Default,
    /// The JSON Schema of the file.
    Schema,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Check a plugin file and show what it is.
    Inspect {
        /// The file.
        file: PathBuf,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
        /// Run no code of the file: show only what can be read from it.
        #[arg(long)]
        no_load: bool,
        /// Look at a file that others may write to.
        #[arg(long)]
        allow_insecure_plugins: bool,
    },
    /// What the gateway runs by itself: tries the library that is its standard input.
    #[command(hide = true)]
    Probe,
}

#[derive(Debug, Clone, Default, Args)]
struct ConfigArgs {
    /// The configuration file; else $MAGICAPI_CONFIG, else ./gateway.toml, else the defaults.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Where plugins without a folder in their path are; else $MAGICAPI_PLUGIN_DIR, else plugins.directory.
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
    /// Load plugin files that others may write to. Whoever can write such a file runs code in the gateway.
    #[arg(long)]
    allow_insecure_plugins: bool,
    /// How the log is written.
    #[arg(long, value_enum, default_value_t)]
    log_format: logging::Format,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Cli::parse();
    let _end = OrderlyEnd;
    loader::try_first();
    ExitCode::from(obey(command))
}

/// Does what the command line says; the exit code.
fn obey(Cli { command, run }: Cli) -> u8 {
    match command.unwrap_or(Command::Run(run)) {
        Command::Run(args) => run::run(&args),
        Command::Check { config, json } => check::check(&config, json),
        Command::Health(arguments) => health::health(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Config { what: ConfigCommand::Default } => print(&config::default_file()),
        Command::Config { what: ConfigCommand::Schema } => print(&format!("{:#}\n", config::schema())),
        Command::Plugin { what: PluginCommand::Inspect { file, json, no_load, allow_insecure_plugins } } => {
            inspect::inspect(&file, json, !no_load, allow_insecure_plugins)
        }
        Command::Plugin { what: PluginCommand::Probe } => {
            loader::be_tried();
            complain("error: the gateway runs this by itself; try a file with `plugin inspect FILE`");
            USAGE
        }
        Command::Version { json: false } => {
            print(concat!("magicapi-gateway ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Command::Version { json: true } => {
            let version = serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "abi_version": plugin_api::abi::ABI_VERSION,
            });
            print(&format!("{version}\n"))
        }
    }
}

/// Runs a command that loads plugins, to its exit code.
fn block_on(command: impl Future<Output = u8>) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: no runtime: {error}"));
            return SOFTWARE;
        }
    };
    loader::watch_process();
    runtime.block_on(async {
        if let Err(error) = signals::outlive_file_size_limit() {
            complain(&format!("error: signals cannot be handled: {error}"));
            return SOFTWARE;
        }
        let code = command.await;
        // A constructor that never returned holds the system's loader, and every ordinary way out waits for it.
        if loader::opening().is_some() {
            loader::exit_at_once(code.into());
        }
        code
    })
}

/// The environment of this process.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load(args: &ConfigArgs) -> Loaded {
    let known_providers: Vec<&str> = providers::built_in().iter().map(|provider| provider.name).collect();
    let mut loaded = config::load(&Source {
        path: args.config.clone(),
        env: &environment,
        plugin_dir: args.plugin_dir.clone(),
        known_providers: &known_providers,
    });
    if let Some(config) = &mut loaded.config {
        config.plugins.allow_insecure |= args.allow_insecure_plugins;
        loaded.notes.extend(mask::learn(config.credentials()));
    }
    loaded
}

/// What is wrong with a configuration that cannot be used, the settings of its plugins included, in the order of the
/// file.
async fn all_problems(mut problems: Vec<Problem>, plugins: &[Plugin], allow_insecure: bool) -> Vec<Problem> {
    problems.extend(startup::check_settings(plugins, allow_insecure, environment).await);
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// Prints to standard output; a reader that has gone away is no error.
fn print(text: &str) -> u8 {
    let _ = io::stdout().write_all(mask::known().text(text).as_bytes());
    0
}

/// Prints to standard error.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", mask::known().text(text));
}

fn complain_about(problems: &[Problem]) {
    for problem in problems {
        complain(&format!("error: {problem}"));
    }
    let (count, s) = (problems.len(), if problems.len() == 1 { "" } else { "s" });
    complain(&format!("{count} problem{s} in the configuration"));
}

/// Prints what kept plugins from loading; the exit code for it.
fn complain_about_plugins(failures: Vec<Failure>) -> u8 {
    let code = code_of(&failures);
    let mut problems = Vec::new();
    for failure in failures {
        match failure {
            Failure::Settings(found) => problems.extend(found),
            Failure::Load { name, error } => complain(&format!("error: plugin \"{name}\": {error}")),
        }
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.line);
        complain_about(&problems);
    }
    code
}

/// Wrong settings go first: they are mended in the file that the operator has open.
fn code_of(failures: &[Failure]) -> u8 {
    let is_settings = |failure: &Failure| matches!(failure, Failure::Settings(_));
    if failures.iter().any(is_settings) { CONFIG } else { UNAVAILABLE }
}
