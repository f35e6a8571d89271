//! How far the gateway is on its way to its end, as connections and operators see it.

/// Only ever goes on to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nobody has asked for the end.
    Serving,
    /// It is near: `/readyz` says so, and everyone who comes is served all the same, and asked to leave.
    Draining,
    /// No further connections. What is under way has the grace period.
    Stopping,
}
