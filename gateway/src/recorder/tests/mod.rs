//! What comes of whole exchanges.

pub(super) mod golden;
