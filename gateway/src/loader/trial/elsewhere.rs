//! Elsewhere than on Linux nothing is tried first.

use std::path::Path;

use super::{error::LoadError, load::Progress, memfile::Copy};

/// Does nothing.
pub fn try_first() {}

/// There is no trial here.
pub fn be_tried() -> bool {
    false
}

#[allow(clippy::unnecessary_wraps, reason = "the same face as on Linux")]
pub(super) fn run(_: &Copy, _: &str, _: &Path, _: &Progress) -> Result<(), LoadError> {
    Ok(())
}
