//! The gateway as its users have it.

#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod faults;
mod requests;
mod streams;
