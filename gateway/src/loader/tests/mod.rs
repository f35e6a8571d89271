//! The loader with real libraries: the probe of `tests/probe-plugin`, and copies of it that are damaged.

mod bad_files;
mod faults;
pub(super) mod probe;
