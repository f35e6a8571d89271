//! The providers the gateway knows, as data, and the dialects they speak, one module each.
//!
//! Nothing outside of this folder asks which provider it has: the table says where it is, the dialect how to read it.

pub mod dialect;
mod groq;
mod openai;
mod table;
mod url;
mod xai;

pub use self::{
    dialect::{Api, Dialect},
    table::{Provider, REQUEST_ID_HEADERS, built_in, find},
    url::{MovedPath, join, relocate},
};
