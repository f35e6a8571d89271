//! The figures that need the gateway's library instead of its binary.
//!
//! Each function measures for about `window` and returns `None` when it cannot.

use std::time::Duration;

/// Nanoseconds of one call of a function of a plugin's table that does nothing, through the loader's handle.
pub(crate) fn boundary_call_ns(window: Duration) -> Option<f64> {
    let _ = window;
    None
}

/// Records of 2 KB a second through queue, batch and boundary into a plugin that does nothing, per core.
pub(crate) fn pipeline_records_per_second(window: Duration) -> Option<f64> {
    let _ = window;
    None
}
