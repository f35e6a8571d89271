//! What signals mean here. None but SIGKILL, and those of a crash, ends the gateway without draining.

use std::{future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};
use tracing::{info, warn};

use crate::{loader, repeats::Repeats};

/// Asks for the end. What limits the processor time of a process (SIGXCPU) does so once before it kills.
const STOP: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::QUIT, Signal::XCPU];

/// By default each of these ends a process. A closed terminal sends SIGHUP, log rotation and supervisors send others.
const WITHOUT_MEANING: [(Signal, &str); 6] = [
    (Signal::HUP, "SIGHUP is ignored: a changed configuration is read at a restart"),
    (Signal::USR1, "SIGUSR1 has no meaning here and is ignored"),
    (Signal::USR2, "SIGUSR2 has no meaning here and is ignored"),
    (Signal::ALARM, "SIGALRM has no meaning here and is ignored"),
    (Signal::IO, "SIGIO has no meaning here and is ignored"),
    (Signal::POWER, "SIGPWR has no meaning here and is ignored"),
];

/// A file that has grown to the limit of this process (`ulimit -f`) makes the write fail, as a full disk does, and does
/// not end the process. A handler, once it is there, stays.
pub(super) fn outlive_file_size_limit() -> io::Result<()> {
    listen(Signal::XFSZ).map(drop)
}

/// Outlives the signals that ask for nothing. Each is told in the log.
pub(super) fn ignore_those_without_meaning() -> io::Result<()> {
    for (ignored, sentence) in WITHOUT_MEANING {
        let mut signals = listen(ignored)?;
        tokio::spawn(async move {
            let repeats = Repeats::default();
            while signals.recv().await.is_some() {
                if let Some(suppressed) = repeats.due(1) {
                    info!(suppressed, "{sentence}");
                }
            }
        });
    }
    Ok(())
}

/// Done at the first signal that asks for the end. A second one ends the process at once.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()>> {
    stop(&STOP)
}

/// As [`shutdown`], for a command at a terminal: its being closed asks for the end, too.
pub(super) fn shutdown_or_hangup() -> io::Result<impl Future<Output = ()>> {
    stop(&[&STOP[..], &[Signal::HUP]].concat())
}

fn stop(asking: &[Signal]) -> io::Result<impl Future<Output = ()> + use<>> {
    let mut signals = asking.iter().map(|asking| listen(*asking)).collect::<io::Result<Vec<_>>>()?;
    Ok(async move {
        any(&mut signals).await;
        tokio::spawn(async move {
            any(&mut signals).await;
            warn!("stopped at once by a second signal; records may be lost");
            loader::exit_at_once(130);
        });
    })
}

async fn any(signals: &mut [unix::Signal]) {
    poll_fn(|cx| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn listen(to: Signal) -> io::Result<unix::Signal> {
    signal(SignalKind::from_raw(to.as_raw()))
}
