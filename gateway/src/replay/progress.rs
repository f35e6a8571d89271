//! How far a replay is: a bar on a terminal, a line now and then elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;
use tracing::info;

/// Between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Progress {
    Bar(ProgressBar),
    Lines { total: u64, last: Instant },
}

impl Progress {
    /// On standard error, for so many records.
    pub(super) fn of(total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { total, last: Instant::now() };
        }
        let bar = ProgressBar::new(total);
        let template = "{bar:40} {pos}/{len} records, {per_sec}, {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// So many records have come to their end, so many of them undelivered.
    pub(super) fn show(&mut self, settled: u64, undelivered: u64) {
        match self {
            Self::Bar(bar) => {
                if undelivered > 0 {
                    bar.set_message(format!("({undelivered} not delivered)"));
                }
                bar.set_position(settled);
            }
            Self::Lines { total, last } if last.elapsed() >= INTERVAL => {
                *last = Instant::now();
                info!("{settled} of {total} records, {undelivered} of them not delivered");
            }
            Self::Lines { .. } => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
