//! The conformance suite over the probe: what it does on command is what the suite expects of a good exporter, or is
//! found out.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
};

use exporter_testkit::{
    conformance::{Backend, Behaviour, Scenario, Suite, Unsupported},
    conformance_tests,
};
use probe_exporter::Probe;
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

/// The probe's control file and its ledger. It judges by a record's place in the batch, and all of a scenario's records
/// are in one batch, in the order of their numbers: places and numbers agree in the first call.
struct Control {
    directory: TempDir,
    script: Vec<&'static str>,
}

impl Control {
    fn start() -> Self {
        Self::with(vec![])
    }

    fn with(script: Vec<&'static str>) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), script }
    }
}

impl Backend for Control {
    fn config(&self) -> String {
        let path = |name| self.directory.path().join(name);
        json!({ "script": self.script, "control": path("control"), "out": path("out") }).to_string()
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        let word = match behaviour {
            Behaviour::Accept => "",
            Behaviour::Down => "retry",
            Behaviour::Hang => "slow:3600s",
            // An id ends in its record's number.
            Behaviour::RetryOne => "defer:-000000000003",
            Behaviour::StallOne => "stall:-000000000003",
            Behaviour::NotFound => "reject",
            Behaviour::Throttle => "retry_after:2s",
            Behaviour::RetryHalf => return self.first("retry_half"),
            Behaviour::RejectHalf => return self.first("reject_half"),
            Behaviour::Thirds => return self.first("thirds"),
            Behaviour::CutAnswer => {
                return Err(Unsupported(
                    "the ledger holds what the probe claims to have delivered, and no more",
                ));
            }
        };
        fs::write(self.directory.path().join("control"), word).unwrap();
        Ok(())
    }

    fn holds(&mut self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Line {
            id: String,
        }
        let ledger = BufReader::new(fs::File::open(self.directory.path().join("out")).unwrap());
        ledger.lines().map(|line| serde_json::from_str::<Line>(&line.unwrap()).unwrap().id).collect()
    }
}

impl Control {
    /// For the first call; the rest goes well.
    fn first(&mut self, word: &'static str) -> Result<(), Unsupported> {
        self.script = vec![word, "ok"];
        Ok(())
    }
}

conformance_tests!(Probe, Control::start);

#[test]
fn the_suite_finds_out_what_the_probe_does_wrong() {
    for (script, fault) in [
        ("panic", "`export` panicked"),
        ("panic_payload", "`export` panicked"),
        ("lie_index", "which is not in the batch"),
        ("per_record_missing", "a record without a verdict"),
        ("hang", "`export` has not returned"),
    ] {
        let deadline = std::time::Duration::from_millis(100);
        let suite = Suite::new().deadline(deadline).patience(deadline);
        let report = suite.run::<Probe>(Scenario::Accepted, Control::with(vec![script, "ok"]));
        assert!(report.faults().iter().any(|named| named.contains(fault)), "{script}: {report}");
    }
}
