//! Dead letters: records that an exporter will never deliver by itself, kept in a file with the reason.
//!
//! | module | what it is |
//! |---|---|
//! | `letter` | one of them |
//! | `line` | its line in the file, written and read; pure |
//! | `names` | the names of rotated files; pure |
//! | `place` | where a file really is, and whether it is one |
//! | `append` | whole lines or none, rotation by size |
//! | `writer` | the thread that writes, bounded, and what it counts |

mod append;
mod letter;
mod line;
mod names;
pub(crate) mod place;
mod writer;

pub(crate) use self::{
    append::{Unfit, check},
    letter::{Cause, DeadLetter},
    line::decode,
    names::{family, members},
    writer::{Counts, DeadLetters, Settings},
};
