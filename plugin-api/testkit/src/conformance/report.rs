//! What a scenario came to, in words that a stranger can act on.

use std::fmt;

use super::suite::Scenario;

/// What one scenario came to. Its `Display` is the message of a failed test.
#[derive(Debug, Clone)]
pub struct Report {
    /// The exporter's name, from its descriptor.
    pub exporter: String,
    /// What was tried.
    pub scenario: Scenario,
    /// Whether the exporter conforms.
    pub conclusion: Conclusion,
    /// Records that were sent.
    pub sent: usize,
    /// Calls of `export` that it took.
    pub calls: u32,
    /// Records that the plugin called delivered.
    pub delivered: usize,
    /// Records that the plugin called rejected.
    pub rejected: usize,
    /// Records that were given up.
    pub dropped: usize,
    /// Copies of records that the backend holds.
    pub held: usize,
    /// The last different texts with which the plugin's calls failed or its records were refused.
    pub errors: Vec<String>,
}

/// Whether an exporter conforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// It does.
    Passed,
    /// It does not, for these reasons.
    Failed(Vec<String>),
    /// Its backend cannot behave as the scenario needs, for this reason. Nothing was shown.
    NotApplicable(&'static str),
}

impl Report {
    pub(super) fn new(exporter: &str, scenario: Scenario) -> Self {
        Self {
            exporter: exporter.to_owned(),
            scenario,
            conclusion: Conclusion::Passed,
            sent: 0,
            calls: 0,
            delivered: 0,
            rejected: 0,
            dropped: 0,
            held: 0,
            errors: Vec::new(),
        }
    }

    /// Whether the exporter conforms. `false` for a scenario that is not applicable, too.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.conclusion == Conclusion::Passed
    }

    /// Why it does not conform; empty when it does, and when the scenario is not applicable.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        match &self.conclusion {
            Conclusion::Failed(faults) => faults,
            Conclusion::Passed | Conclusion::NotApplicable(_) => &[],
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exporter, scenario, .. } = self;
        match &self.conclusion {
            Conclusion::Passed => writeln!(f, "exporter `{exporter}` conforms: {scenario}")?,
            Conclusion::Failed(_) => writeln!(f, "exporter `{exporter}` does not conform: {scenario}")?,
            Conclusion::NotApplicable(reason) => {
                return write!(f, "exporter `{exporter}`: {scenario}: not applicable: {reason}");
            }
        }
        let calls = if self.calls == 1 { "call" } else { "calls" };
        write!(
            f,
            "  {} records sent in {} {calls}: {} delivered, {} rejected, {} dropped; the backend holds {}",
            self.sent, self.calls, self.delivered, self.rejected, self.dropped, self.held
        )?;
        if self.is_passed() {
            return Ok(());
        }
        for fault in self.faults() {
            write!(f, "\n  - {fault}")?;
        }
        f.write_str("\n  last errors of the plugin: ")?;
        match self.errors.as_slice() {
            [] => f.write_str("none"),
            errors => errors.iter().try_for_each(|error| write!(f, "\n    {error}")),
        }
    }
}
