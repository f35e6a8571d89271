//! How many bodies went otherwise than they came: counted, and said once for each batch.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::warn;

use crate::encode::Encoded;

/// The counts of one instance.
#[derive(Debug)]
pub struct Tally {
    /// The gateway's name for it, as it stands in a label.
    instance: String,
    mended: AtomicU64,
    left_out: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// Of an instance of this name, all 0.
    #[must_use]
    pub fn of(instance: &str) -> Self {
        let instance = instance.replace(['"', '\\', '\n'], "_");
        Self { instance, mended: 0.into(), left_out: 0.into(), refused: 0.into() }
    }

    /// What became of the bodies of a batch.
    pub fn encoded(&self, encoded: &Encoded) {
        let Encoded { shed, mended, left_out, .. } = *encoded;
        if shed > 0 {
            warn!(records = shed, "larger than max_request_bytes, sent without their bodies");
        }
        if left_out > 0 {
            warn!(
                bodies = left_out,
                "bodies that no cluster takes are left out: too deep, or too long a name or text"
            );
        }
        add(&self.mended, mended);
        add(&self.left_out, left_out);
    }

    /// So many records were refused with their bodies, and taken without them.
    pub fn refused(&self, records: usize) {
        if records > 0 {
            warn!(records, "refused by the cluster with their bodies, and taken without them");
        }
        add(&self.refused, records);
    }

    /// Writes them in Prometheus' text format.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = "magicapi_elasticsearch_changed_bodies_total";
        writeln!(out, "# HELP {name} Bodies mended or left out, and records sent again without theirs.")?;
        writeln!(out, "# TYPE {name} counter")?;
        for (change, count) in
            [("mended", &self.mended), ("left_out", &self.left_out), ("refused", &self.refused)]
        {
            let (plugin, count) = (&self.instance, count.load(Ordering::Relaxed));
            writeln!(out, "{name}{{plugin=\"{plugin}\",change=\"{change}\"}} {count}")?;
        }
        Ok(())
    }
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}
