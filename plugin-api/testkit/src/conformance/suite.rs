//! The scenarios.

use std::{
    env, fmt,
    io::{self, Write as _},
    time::Duration,
};

use plugin_api::{Description, TelemetryExporter};

use super::{
    backend::{Backend, Behaviour, Unsupported},
    report::{Conclusion, Report},
    trial::Trial,
};
use crate::plugin::DEADLINE;

/// What the backend does while records are delivered. The [module](super) says what is demanded in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// Everything is taken.
    Accepted,
    /// One record in a batch.
    SingleRecord,
    /// One batch of as many records as the descriptor asks for.
    FullBatch,
    /// Records with texts, numbers and shapes that are legal and rare, among plain ones.
    OddRecords,
    /// [`Behaviour::RetryHalf`].
    HalfRetried,
    /// [`Behaviour::RejectHalf`].
    HalfRejected,
    /// [`Behaviour::Thirds`].
    Thirds,
    /// [`Behaviour::RetryOne`] for some calls, and until every other record has come to its end.
    OneDeferred,
    /// [`Behaviour::StallOne`], likewise.
    OneStalls,
    /// After some records that went well, [`Behaviour::NotFound`] until the gateway sees that no record is at fault.
    NotFound,
    /// After some records that went well, [`Behaviour::Throttle`] for two calls.
    Throttled,
    /// After some records that went well, [`Behaviour::Hang`] for two calls.
    Hang,
    /// After some records that went well, [`Behaviour::CutAnswer`] until the backend has taken some.
    CutAnswer,
    /// After some records that went well, [`Behaviour::Down`] for 30 seconds, or as [`Suite::outage`] says.
    Outage,
    /// [`Behaviour::Down`] when the plugin is made, and for two calls.
    DownAtStart,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 15] = [
        Self::Accepted,
        Self::SingleRecord,
        Self::FullBatch,
        Self::OddRecords,
        Self::HalfRetried,
        Self::HalfRejected,
        Self::Thirds,
        Self::OneDeferred,
        Self::OneStalls,
        Self::NotFound,
        Self::Throttled,
        Self::Hang,
        Self::CutAnswer,
        Self::Outage,
        Self::DownAtStart,
    ];

    /// The behaviour of the backend that it needs beside [`Behaviour::Accept`].
    #[must_use]
    pub fn behaviour(self) -> Behaviour {
        match self {
            Self::Accepted | Self::SingleRecord | Self::FullBatch | Self::OddRecords => Behaviour::Accept,
            Self::HalfRetried => Behaviour::RetryHalf,
            Self::HalfRejected => Behaviour::RejectHalf,
            Self::Thirds => Behaviour::Thirds,
            Self::OneDeferred => Behaviour::RetryOne,
            Self::OneStalls => Behaviour::StallOne,
            Self::NotFound => Behaviour::NotFound,
            Self::Throttled => Behaviour::Throttle,
            Self::Hang => Behaviour::Hang,
            Self::CutAnswer => Behaviour::CutAnswer,
            Self::Outage | Self::DownAtStart => Behaviour::Down,
        }
    }

    /// Whether there is a reason to refuse anything for good.
    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::OddRecords | Self::HalfRejected | Self::Thirds | Self::NotFound)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "everything accepted",
            Self::SingleRecord => "a single record",
            Self::FullBatch => "a full batch",
            Self::OddRecords => "odd records",
            Self::HalfRetried => "half refused for now",
            Self::HalfRejected => "half refused for good",
            Self::Thirds => "a third taken, a third refused for now, a third for good",
            Self::OneDeferred => "one record refused for now, again and again",
            Self::OneStalls => "one record that the backend does not answer",
            Self::NotFound => "a wrong address",
            Self::Throttled => "a backend that asks for a pause",
            Self::Hang => "a backend that does not answer",
            Self::CutAnswer => "a connection cut in the answer",
            Self::Outage => "an outage",
            Self::DownAtStart => "a backend that is down at the start",
        })
    }
}

/// How the scenarios are run. The defaults fit a backend on the same machine.
#[derive(Debug, Clone)]
#[must_use]
pub struct Suite {
    pub(super) records: u32,
    pub(super) deadline: Duration,
    pub(super) hang_deadline: Duration,
    pub(super) outage: Duration,
    pub(super) settle: Duration,
    pub(super) patience: Duration,
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

impl Suite {
    /// 60 records; calls of 10 s, and of 1 s where the backend hangs; an outage of 30 s, or what the environment
    /// variable `CONFORMANCE_OUTAGE` says (`2s`, `500ms`).
    ///
    /// # Panics
    /// When the variable is no duration.
    pub fn new() -> Self {
        let outage = env::var("CONFORMANCE_OUTAGE").ok().map(|text| {
            humantime::parse_duration(&text)
                .unwrap_or_else(|_| panic!("CONFORMANCE_OUTAGE: `{text}` is no duration; write 2s or 500ms"))
        });
        Self {
            records: 60,
            deadline: DEADLINE,
            hang_deadline: Duration::from_secs(1),
            outage: outage.unwrap_or(Duration::from_secs(30)),
            settle: Duration::from_secs(5),
            patience: Duration::from_secs(30),
        }
    }

    /// Records in a scenario that does not say itself. At least 6.
    pub fn records(self, records: u32) -> Self {
        Self { records: records.max(6), ..self }
    }

    /// Time for a call where the backend answers.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Time for a call where the backend hangs: longer than a call takes that goes well, and otherwise short, since
    /// several calls wait for it.
    pub fn hang_deadline(self, hang_deadline: Duration) -> Self {
        Self { hang_deadline, ..self }
    }

    /// Length of the outage, also where the environment says otherwise.
    pub fn outage(self, outage: Duration) -> Self {
        Self { outage, ..self }
    }

    /// How long a record that was delivered may take to be among those that the backend [holds](Backend::holds). 5 s
    /// unless set.
    pub fn settle(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }

    /// How long records are sent again before they are given up, not counting an outage. 30 s unless set. Waits count in
    /// full, though most of a long one is skipped.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Runs one scenario and fails the test when the exporter does not conform.
    ///
    /// # Panics
    /// Then, with the [`Report`].
    pub fn check<E: TelemetryExporter>(&self, scenario: Scenario, backend: impl Backend) {
        let report = self.run::<E>(scenario, backend);
        match report.conclusion {
            Conclusion::Passed => {}
            // Not by a macro: what those print is captured when a test passes, and this is to be seen.
            Conclusion::NotApplicable(_) => drop(writeln!(io::stderr(), "{report}")),
            Conclusion::Failed(_) => panic!("{report}"),
        }
    }

    /// Runs one scenario.
    pub fn run<E: TelemetryExporter>(&self, scenario: Scenario, mut backend: impl Backend) -> Report {
        let description = Description::of::<E>();
        let mut report = Report::new(&description.name, scenario);
        let mut trial = Trial::new(self, scenario, description, &mut backend);
        let ran = trial.run::<E>();
        trial.fill(&mut report);
        match ran {
            Err(Unsupported(reason)) => report.conclusion = Conclusion::NotApplicable(reason),
            Ok(()) if trial.books.faults.is_empty() => {}
            Ok(()) => report.conclusion = Conclusion::Failed(trial.books.faults),
        }
        report
    }
}
