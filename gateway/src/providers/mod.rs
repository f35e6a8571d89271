//! The providers the gateway knows, as data: where they are, and which [dialect](crate::recorder::dialect) they speak.

mod table;
mod url;

pub use self::{
    table::{Provider, REQUEST_ID_HEADERS, built_in, find},
    url::{MovedPath, join, relocate},
};
