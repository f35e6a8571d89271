//! The probe's own books: every record that it claims to have delivered, one line of JSON each.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use plugin_api::{Batch, ExportError};
use serde::Deserialize;

/// Which records of a batch a call claims to have delivered.
pub(crate) enum Delivered {
    All,
    None,
    Some(Vec<usize>),
}

impl Delivered {
    pub(crate) fn count(&self, batch: usize) -> u64 {
        let count = match self {
            Self::All => batch,
            Self::None => 0,
            Self::Some(indices) => indices.len(),
        };
        count as u64
    }
}

/// A file in append mode. Every call is one write, so that several instances may share a file.
pub(crate) struct Ledger {
    file: File,
    instance: String,
}

impl Ledger {
    pub(crate) fn open(path: &Path, instance: &str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, instance: instance.to_owned() })
    }

    pub(crate) fn note(&self, batch: &Batch<'_>, delivered: &Delivered) -> Result<(), ExportError> {
        let mut lines = Vec::new();
        match delivered {
            Delivered::None => return Ok(()),
            Delivered::All => (0..batch.len()).try_for_each(|index| self.line(batch, index, &mut lines))?,
            Delivered::Some(some) => {
                some.iter().try_for_each(|&index| self.line(batch, index, &mut lines))?;
            }
        }
        Ok((&self.file).write_all(&lines)?)
    }

    fn line(&self, batch: &Batch<'_>, index: usize, lines: &mut Vec<u8>) -> Result<(), ExportError> {
        #[derive(Deserialize)]
        struct Id<'a> {
            #[serde(borrow)]
            id: std::borrow::Cow<'a, str>,
        }
        let record = batch.get(index).ok_or_else(|| ExportError::reject("no such record"))?;
        let Id { id } = record.read()?;
        let line = serde_json::json!({ "id": id, "attempt": batch.attempt(), "instance": self.instance });
        serde_json::to_writer(&mut *lines, &line)?;
        lines.push(b'\n');
        Ok(())
    }
}
