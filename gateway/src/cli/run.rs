//! `magicapi-gateway [run]`

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};
use tracing::{info, warn};

use super::{
    CONFIG, ConfigArgs, SOFTWARE, all_problems, block_on, check::unfit, complain, complain_about,
    complain_about_plugins, environment, load, logging, signals,
};
use crate::{
    config::{Config, Loaded},
    gateway::{self, Listeners, RunError},
    pipeline::dead_letter::Unfit,
    settings::Secret,
    startup::{self, Host},
    supervisor::{self, Sockets},
};

pub(super) fn run(args: &ConfigArgs) -> u8 {
    logging::start(args.log_format);
    block_on(async { serve(load(args), args.allow_insecure_plugins).await.err().unwrap_or(0) })
}

/// Configuration before plugins, plugins before ports: every mistake is told before anything is served.
async fn serve(loaded: Loaded, allow_insecure: bool) -> Result<(), u8> {
    signals::ignore_those_without_meaning().map_err(|error| without_signals(&error))?;
    // It changes the environment, and is done before there are threads that read it.
    let sockets = supervisor::sockets().map_err(|error| {
        complain(&format!("error: {error}"));
        CONFIG
    })?;
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
    let listeners = bind(&config, sockets)?;
    let shutdown = signals::shutdown().map_err(|error| without_signals(&error))?;
    gateway::run(config, plugins, listeners, shutdown).await.map_err(|error| {
        complain(&format!("error: {error}"));
        if matches!(error, RunError::Provider(_)) { CONFIG } else { SOFTWARE }
    })
}

fn without_signals(error: &io::Error) -> u8 {
    complain(&format!("error: signals cannot be handled: {error}"));
    SOFTWARE
}

/// A socket that was passed to this process goes before an address.
fn bind(config: &Config, passed: Sockets) -> Result<Listeners, u8> {
    let listen = |key: &str, address: SocketAddr, passed: Option<TcpListener>| {
        let listener = passed.map_or_else(|| open(address), Ok);
        listener.map_err(|error| complain(&refusal(key, address, &error)))
    };
    // The rule of the configuration holds for an address that is not in it, too.
    if let Some(address) = passed.admin.as_ref().and_then(|admin| admin.local_addr().ok())
        && !address.ip().is_loopback()
        && config.admin.token.as_ref().is_none_or(Secret::is_empty)
    {
        complain(&format!(
            "error: LISTEN_FDS: the socket for the admin port is on {address}, which is not a loopback address, and no \
             token is set; set admin.token or admin.token_file, or let it listen on 127.0.0.1"
        ));
        return Err(CONFIG);
    }
    let server = listen("server.listen", config.server.listen, passed.server);
    let admin = listen("admin.listen", config.admin.listen, passed.admin);
    match (server, admin) {
        (Ok(server), Ok(admin)) => Ok(Listeners { server, admin }),
        _ => Err(CONFIG),
    }
}

/// Connections that wait to be accepted; the kernel allows no more than `net.core.somaxconn`. The standard library's 128
/// overflow when a thousand clients come back at once: the kernel then drops them without a word to either side.
const BACKLOG: i32 = 4096;

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A port is free again as soon as nobody listens there, whatever of its old connections is left.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
