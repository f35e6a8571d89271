//! What comes of whole exchanges.

pub(super) mod golden;
mod true_streams;
