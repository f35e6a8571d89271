//! Values that must not be seen.

pub(crate) use setting_values::HIDDEN;
pub use setting_values::Secret;
