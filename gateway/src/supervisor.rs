//! What a supervisor such as systemd hands over (listening sockets), and what it is told (ready, alive, stopping). All of
//! it is in the environment; without a supervisor nothing happens here.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::{debug, info, warn};

use crate::server::RollCall;

/// The ports that can be handed over, by the names that a `.socket` unit gives them (`FileDescriptorName=`).
const PORTS: [&str; 2] = ["server", "admin"];

/// Sockets that listened before this process was started.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub server: Option<TcpListener>,
    pub admin: Option<TcpListener>,
}

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The supervisor's: more sockets than ports.
    #[error(
        "LISTEN_FDS: {0} sockets were passed, and there are two ports: name them with FileDescriptorName=server and \
         FileDescriptorName=admin, or pass the clients' first and the operators' second"
    )]
    TooMany(usize),
    /// The supervisor's: two sockets for one port.
    #[error("LISTEN_FDNAMES: two sockets are named \"{0}\"")]
    Twice(&'static str),
    /// The supervisor's: not of the kind that connections come from.
    #[error("LISTEN_FDS: the socket for the {port} port is none that listens on TCP: {cause}")]
    Kind { port: &'static str, cause: String },
}

/// The sockets that were passed to this process (`LISTEN_FDS`). To be called before there are other threads.
pub(crate) fn sockets() -> Result<Sockets, SocketError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let mut found = [None, None];
    for (index, place) in assign(&names, passed.len())?.into_iter().enumerate() {
        let port = PORTS[place];
        let wrong = |cause: String| SocketError::Kind { port, cause };
        let listener = passed.take_tcp_listener(index).map_err(|error| wrong(error.to_string()))?;
        let listener = listener.ok_or_else(|| wrong("it was taken before".to_owned()))?;
        found[place] = Some(listening(listener).map_err(wrong)?);
    }
    let [server, admin] = found;
    Ok(Sockets { server, admin })
}

/// With `Accept=yes` systemd passes a connection, and starts a process for each.
fn listening(socket: TcpListener) -> Result<TcpListener, String> {
    let stream = TcpStream::from(OwnedFd::from(socket));
    if stream.peer_addr().is_ok() {
        return Err("it is a connection; set Accept=no".to_owned());
    }
    Ok(TcpListener::from(OwnedFd::from(stream)))
}

/// The port of each socket, as an index of [`PORTS`]. A socket without such a name takes the first port that is left.
fn assign(names: &str, count: usize) -> Result<Vec<usize>, SocketError> {
    if count > PORTS.len() {
        return Err(SocketError::TooMany(count));
    }
    let names: Vec<&str> = names.split(':').collect();
    let named = |index: usize| PORTS.iter().position(|port| names.get(index) == Some(port));
    let mut places: Vec<Option<usize>> = (0..count).map(named).collect();
    for index in 0..count {
        if places[index].is_none() {
            places[index] = (0..PORTS.len()).find(|port| !places.contains(&Some(*port)));
        }
    }
    match places[..] {
        [Some(one), Some(other)] if one == other => Err(SocketError::Twice(PORTS[one])),
        _ => Ok(places.into_iter().flatten().collect()),
    }
}

/// Tells the supervisor that requests are served.
pub(crate) fn ready(address: SocketAddr) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving on {address}"))]);
}

/// Tells the supervisor that the end has begun.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: requests and exporters have their time")]);
}

/// Tells the supervisor, as often as it wants to know (`WATCHDOG_USEC`), that this thread and all workers answer.
pub(crate) async fn keep_watchdog(workers: RollCall) {
    let Some(period) = sd_notify::watchdog_enabled().map(half) else { return };
    info!("the supervisor's watchdog is told every {period:?} that all workers answer");
    loop {
        tokio::time::sleep(period).await;
        match tokio::time::timeout(period, workers.answered()).await {
            Ok(()) => tell(&[NotifyState::Watchdog]),
            Err(_) => {
                warn!("a worker does not answer; the supervisor's watchdog is not told that all is well");
            }
        }
    }
}

/// sd_watchdog_enabled(3) recommends half of the time.
fn half(period: Duration) -> Duration {
    (period / 2).max(Duration::from_millis(1))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("the supervisor cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_by_their_names_and_then_by_their_order() {
        for (names, count, expected) in [
            ("", 0, Some(vec![])),
            ("", 1, Some(vec![0])),
            ("gateway.socket:gateway.socket", 2, Some(vec![0, 1])),
            ("server:admin", 2, Some(vec![0, 1])),
            ("admin:server", 2, Some(vec![1, 0])),
            ("admin", 1, Some(vec![1])),
            ("admin:gateway.socket", 2, Some(vec![1, 0])),
            ("gateway.socket:server", 2, Some(vec![1, 0])),
            ("server:server", 2, None),
            ("a:b:c", 3, None),
        ] {
            assert_eq!(assign(names, count).ok(), expected, "{names}");
        }
    }
}
