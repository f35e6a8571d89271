//! Backends of every character.

use std::time::Duration;

use exporter_pipeline::{Outcome, Verdict};
use fastrand::Rng;
use plugin_api::abi::{Status, status, verdict};

use crate::{
    draw::{milliseconds, smaller},
    ledger::Item,
};

/// How a backend behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// It takes everything.
    Good,
    /// Every call with one of some records in it ends like this.
    Poisoned { status: Status, is_paced: bool, one_in: u64 },
    /// It takes every call but for some records, on which it has a verdict of its own.
    Partial { one_in: u64 },
    /// Every call ends like this.
    Always { status: Status, is_paced: bool },
    /// No rule at all.
    Chaos,
}

const BAD: [Status; 8] = [
    status::RETRY,
    status::REJECT,
    status::TOO_LARGE,
    status::UNAUTHORIZED,
    status::TIMEOUT,
    status::PANIC,
    status::FAULT,
    4711,
];

impl Backend {
    pub fn draw(rng: &mut Rng) -> Self {
        let (status, is_paced) = (BAD[rng.usize(..BAD.len())], rng.u32(..4) == 0);
        match rng.u32(..8) {
            0 => Self::Good,
            1 | 2 => Self::Poisoned { status, is_paced, one_in: rng.u64(1..=6) },
            3 => Self::Partial { one_in: rng.u64(1..=6) },
            4 => Self::Always { status, is_paced },
            _ => Self::Chaos,
        }
    }

    /// Whether it never takes this record.
    pub fn refuses(self, id: u64) -> bool {
        match self {
            Self::Good => false,
            Self::Poisoned { one_in, .. } | Self::Partial { one_in } => id.is_multiple_of(one_in + 1),
            Self::Always { .. } | Self::Chaos => true,
        }
    }

    pub fn answer(self, rng: &mut Rng, items: &[Item]) -> Outcome<Item> {
        match self {
            Self::Poisoned { status, is_paced, .. } if items.iter().any(|item| self.refuses(item.id)) => {
                call(rng, status, is_paced)
            }
            Self::Good | Self::Poisoned { .. } => Outcome::of(status::OK, ""),
            Self::Partial { .. } => {
                let code =
                    |item: &Item| if self.refuses(item.id) { verdict::RETRY } else { verdict::DELIVERED };
                let verdicts = items.iter().map(|item| Some(say(code(item)))).collect();
                Outcome { verdicts, ..Outcome::of(status::PER_RECORD, "") }
            }
            Self::Always { status, is_paced } => call(rng, status, is_paced),
            Self::Chaos => chaos(rng, items),
        }
    }
}

fn call(rng: &mut Rng, status: Status, is_paced: bool) -> Outcome<Item> {
    Outcome { retry_after: is_paced.then(|| wait(rng)), ..Outcome::of(status, "no") }
}

fn wait(rng: &mut Rng) -> Duration {
    milliseconds([0, 10, 1_000, 600_000][rng.usize(..4)])
}

fn say(code: u32) -> Verdict {
    Verdict { code, reason: format!("verdict {code}") }
}

fn chaos(rng: &mut Rng, items: &[Item]) -> Outcome<Item> {
    let all = [status::OK, status::PER_RECORD];
    let status = if rng.bool() { all[rng.usize(..2)] } else { BAD[rng.usize(..BAD.len())] };
    let mut outcome = Outcome::of(status, "chaos");
    if rng.u32(..4) == 0 || status == status::PER_RECORD {
        // Too few, too many, unknown.
        let count = if rng.u32(..4) == 0 { rng.usize(..=items.len() + 2) } else { items.len() };
        outcome.verdicts = (0..count).map(|_| (rng.u32(..8) > 0).then(|| say(rng.u32(..=4) % 4))).collect();
    }
    outcome.retry_after = (rng.u32(..6) == 0).then(|| wait(rng));
    if let [item] = items
        && rng.bool()
    {
        outcome.smaller =
            smaller(rng, item.size).map(|size| (Item { size, has_bodies: false, ..*item }, size));
    }
    outcome
}
