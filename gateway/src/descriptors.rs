//! How many files and sockets this process may have open. The system's soft limit is 1,024 almost everywhere, for the sake
//! of programs that use `select`; its hard limit is what an operator means.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Beside the connections of clients and to providers: libraries, files, the exporters' connections, the operators'.
const RESERVE: u64 = 256;

/// Raises the soft limit to the hard one; what is in force afterwards. `None` is no limit.
pub(crate) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    // Refused where a sandbox forbids it; the soft limit stays then.
    if current == maximum || setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current }
}

/// How much there may be at once: clients' connections, and requests, of which each may need a connection to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowd {
    pub connections: usize,
    pub requests: usize,
}

impl Crowd {
    /// As much of it as fits into the limit. Says so when that is not all: what is left over is kept for exporters, files and
    /// the admin port.
    pub(crate) fn within(self, limit: Option<u64>) -> Self {
        let fitting = self.fitting(limit);
        if fitting != self {
            let limit = limit.unwrap_or(u64::MAX);
            let needed = (self.connections as u64 + self.requests as u64).saturating_add(RESERVE);
            warn!(
                "this process may have {limit} files open, too few for server.max_connections = {} and \
                 server.max_requests = {}: at most {} connections and {} requests are served at once; raise the hard \
                 limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=) to {needed}, or lower the two",
                self.connections, self.requests, fitting.connections, fitting.requests
            );
        }
        fitting
    }

    fn fitting(self, limit: Option<u64>) -> Self {
        let Some(limit) = limit else { return self };
        // A limit that is smaller than the reserve is shared by halves.
        let room = limit.saturating_sub(RESERVE).max(limit / 2);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        // Half for each, and what one of them leaves is the other's.
        let connections = self.connections.min((room / 2).max(room.saturating_sub(self.requests)));
        let requests = self.requests.min(room.saturating_sub(connections));
        Self { connections: connections.max(1), requests: requests.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_requests_leave_room_for_what_is_open_beside_them() {
        for (limit, wanted, expected) in [
            (None, (10_000, 10_000), (10_000, 10_000)),
            (Some(20_256), (10_000, 10_000), (10_000, 10_000)),
            (Some(20_255), (10_000, 10_000), (9_999, 10_000)),
            (Some(1_024), (10_000, 10_000), (384, 384)),
            (Some(1_024), (100, 10_000), (100, 668)),
            (Some(1_024), (10_000, 68), (700, 68)),
            (Some(1_024), (100, 100), (100, 100)),
            (Some(64), (10_000, 10_000), (16, 16)),
            (Some(0), (10_000, 10_000), (1, 1)),
        ] {
            let crowd = |(connections, requests)| Crowd { connections, requests };
            let found = crowd(wanted).fitting(limit);
            assert_eq!(found, crowd(expected), "{limit:?} {wanted:?}");
        }
    }
}
