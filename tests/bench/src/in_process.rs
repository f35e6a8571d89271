//! The figures that need the gateway's library instead of its binary.
//!
//! Each function measures for about `window` and returns `None`, after a line that says why, when it cannot.

use std::{fmt::Display, path::Path, time::Duration};

use magicapi_gateway::bench;

use crate::instance;

/// Nanoseconds of one call over the boundary.
pub(crate) fn boundary_call_ns(probe: &Path, window: Duration) -> Option<f64> {
    told(instance::boundary_call_ns(probe, window))
}

/// Records of 2 KB a second through queue, batch and boundary into a plugin that does nothing, per core.
pub(crate) fn pipeline_records_per_second(probe: &Path, window: Duration) -> Option<f64> {
    told(bench::pipeline_records_per_second(probe, window))
}

#[allow(clippy::print_stderr, reason = "the program's own voice")]
fn told(figure: Result<f64, impl Display>) -> Option<f64> {
    figure.inspect_err(|error| eprintln!("not measured: {error}")).ok()
}
