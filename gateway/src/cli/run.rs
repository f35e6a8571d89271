//! `magicapi-gateway [run]`

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{
    CONFIG, ConfigArgs, SOFTWARE, all_problems, block_on, check::unfit, complain, complain_about,
    complain_about_plugins, environment, load, logging,
};
use crate::{
    config::{Config, Loaded},
    gateway::{self, Listeners, RunError},
    loader,
    pipeline::dead_letter::Unfit,
    startup::{self, Host},
};

pub(super) fn run(args: &ConfigArgs) -> u8 {
    logging::start(args.log_format);
    block_on(async { serve(load(args), args.allow_insecure_plugins).await.err().unwrap_or(0) })
}

/// Configuration before plugins, plugins before ports: every mistake is told before anything is served.
async fn serve(loaded: Loaded, allow_insecure: bool) -> Result<(), u8> {
    let Loaded { config, plugins, problems, notes, path } = loaded;
    let Some(config) = config else {
        complain_about(&all_problems(problems, &plugins, allow_insecure).await);
        return Err(CONFIG);
    };
    let no_files = unfit(&config.plugin, |why| matches!(why, Unfit::NoFile(_)));
    if !no_files.is_empty() {
        complain_about(&all_problems(no_files, &plugins, allow_insecure).await);
        return Err(CONFIG);
    }
    match &path {
        Some(path) => info!("magicapi-gateway {} with {}", env!("CARGO_PKG_VERSION"), path.display()),
        None => info!("magicapi-gateway {} with built-in defaults", env!("CARGO_PKG_VERSION")),
    }
    notes.iter().for_each(|note| warn!("{note}"));
    let plugins = startup::load_plugins(&config.plugin, &Host::of(&config), environment)
        .await
        .map_err(complain_about_plugins)?;
    let listeners = bind(&config)?;
    let shutdown = shutdown().map_err(|error| {
        complain(&format!("error: signals cannot be handled: {error}"));
        SOFTWARE
    })?;
    gateway::run(config, plugins, listeners, shutdown).await.map_err(|error| {
        complain(&format!("error: {error}"));
        if matches!(error, RunError::Provider(_)) { CONFIG } else { SOFTWARE }
    })
}

fn bind(config: &Config) -> Result<Listeners, u8> {
    let listen = |key: &str, address: SocketAddr| {
        TcpListener::bind(address).map_err(|error| complain(&refusal(key, address, &error)))
    };
    let server = listen("server.listen", config.server.listen);
    let admin = listen("admin.listen", config.admin.listen);
    match (server, admin) {
        (Ok(server), Ok(admin)) => Ok(Listeners { server, admin }),
        _ => Err(CONFIG),
    }
}

fn refusal(key: &str, address: SocketAddr, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; stop it, or choose another port (0 takes a free one)".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not listen there; ports below 1024 need a privilege".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    };
    format!("error: {key}: cannot listen on {address}: {cause}")
}

/// Done at the first SIGINT or SIGTERM. A second one ends the process at once.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        next(&mut interrupt, &mut terminate).await;
        tokio::spawn(async move {
            next(&mut interrupt, &mut terminate).await;
            warn!("stopped at once by a second signal; records may be lost");
            loader::exit_at_once(130);
        });
    })
}

async fn next(interrupt: &mut tokio::signal::unix::Signal, terminate: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
