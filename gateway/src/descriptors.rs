//! How many files and sockets this process may have open. The system's soft limit is 1,024 almost everywhere, for the sake
//! of programs that use `select`; its hard limit is what an operator means.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Beside the connections of clients and providers: libraries, files, the exporters' connections, the operators'.
const RESERVE: u64 = 256;

/// A client's connection, and the one to the provider that its request may need.
const PER_CONNECTION: u64 = 2;

/// Raises the soft limit to the hard one; what is in force afterwards. `None` is no limit.
pub(crate) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // Refused where a sandbox forbids it; the soft limit stays then.
    if current == maximum || setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current }
}

/// How many of the connections that are wanted fit into the limit. Says so when they do not: what is left over is kept for
/// exporters, files and the admin port.
pub(crate) fn connections(limit: Option<u64>, wanted: usize) -> usize {
    let fitting = fitting(limit, wanted);
    if fitting < wanted {
        let limit = limit.unwrap_or(u64::MAX);
        let needed = (wanted as u64).saturating_mul(PER_CONNECTION).saturating_add(RESERVE);
        warn!(
            "this process may have {limit} files open, too few for server.max_connections = {wanted}: at most {fitting} \
             connections are served at once; raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) to \
             {needed}, or lower server.max_connections"
        );
    }
    fitting
}

fn fitting(limit: Option<u64>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    // A limit that is smaller than the reserve is shared by halves.
    let room = limit.saturating_sub(RESERVE).max(limit / 2) / PER_CONNECTION;
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_what_is_open_beside_them() {
        for (limit, wanted, expected) in [
            (None, 10_000, 10_000),
            (Some(20_256), 10_000, 10_000),
            (Some(20_255), 10_000, 9_999),
            (Some(1_024), 10_000, 384),
            (Some(1_024), 100, 100),
            (Some(64), 10_000, 16),
            (Some(0), 10_000, 1),
        ] {
            assert_eq!(fitting(limit, wanted), expected, "{limit:?} {wanted}");
        }
    }
}
