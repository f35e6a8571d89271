//! An exporter whose requests and their fates are scripted.

use std::sync::Mutex;

use exporter_testkit::{Plugin, Records, Sample};
use plugin_api::{
    Descriptor, Field, Host, InitError, TelemetryExporter,
    abi::{
        Status,
        status::{OK, REJECT, RETRY, TOO_LARGE, UNAUTHORIZED},
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::pack::{Frame, Limits, Packer};

const LOGS: Part = Part { name: "logs", bit: 1, delivery: Delivery::AtLeastOnce, can_shed_bodies: true };
const METRICS: Part =
    Part { name: "metrics", bit: 2, delivery: Delivery::AtMostOnce, can_shed_bodies: false };
const SPANS: Part = Part { name: "spans", bit: 4, delivery: Delivery::AtLeastOnce, can_shed_bodies: false };

/// Sends two records a request.
struct Scripted {
    calls: Mutex<std::vec::IntoIter<Call>>,
    progress: Progress,
}

#[derive(Deserialize, JsonSchema)]
struct Script {
    calls: Vec<Call>,
}

/// What a call must send, with what becomes of it, and how many records it must leave in the memory.
#[derive(Deserialize, JsonSchema)]
struct Call {
    /// `logs 01 ok`: the logs of records 0 and 1 are accepted. `logs 2 unfit`: those of 2 are in no request. `record 2
    /// unfit`: nothing of it is.
    requests: Vec<String>,
    remembered: usize,
}

impl TelemetryExporter for Scripted {
    type Config = Script;
    const DESCRIPTOR: Descriptor = Descriptor::new("scripted", "1.0.0");

    async fn init(config: Script, _: Host) -> Result<Self, InitError> {
        Ok(Self { calls: Mutex::new(config.calls.into_iter()), progress: Progress::new(100) })
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let call = self.calls.lock().unwrap().next().unwrap();
        let mut script = call.requests.iter().map(String::as_str).peekable();
        let mut round = Round::new(batch, &self.progress, "Acme");
        let mut ids = Vec::new();
        for record in batch.iter() {
            let fields = record.fields()?;
            let id = fields.text(Field::Id).unwrap();
            ids.push(id.to_string());
            let number = record.index().to_string();
            let unfit = format!("record {number} unfit");
            round.add(record, id, LOGS.bit | METRICS.bit | SPANS.bit, number);
            if script.next_if_eq(&&*unfit).is_some() {
                round.reject(record.index(), "unfit");
            }
        }
        for part in [LOGS, METRICS, SPANS] {
            let mut packer = Packer::new(Frame::NONE, Limits { max_records: 2, max_bytes: 9 });
            for item in round.due(part) {
                let is_first = [LOGS, METRICS, SPANS].iter().find(|part| item.lacks(**part)) == Some(&part);
                assert!(is_first, "{part:?} is not the next one of {item:?}");
                let unfit = format!("{} {} unfit", part.name, item.data);
                if script.next_if_eq(&&*unfit).is_some() {
                    item.reject("unfit");
                } else {
                    assert!(packer.add(item.record.index(), item.data.as_bytes()));
                }
            }
            let send = async |body: Vec<u8>| {
                // The call may be given up on while it waits for the answer.
                let is_noted = |digit: &u8| self.progress.of(&ids[usize::from(digit - b'0')]) & part.bit != 0;
                assert!(body.iter().all(|digit| is_noted(digit) == (part == METRICS)));
                let asked = format!("{} {}", part.name, String::from_utf8(body).unwrap());
                let scripted = script.next().unwrap_or_else(|| panic!("{asked} is one too many"));
                let (expected, fate) = scripted.rsplit_once(' ').unwrap();
                assert_eq!(asked, expected);
                fate_of(fate)
            };
            round.send(part, packer.finish(), send).await;
        }
        let outcome = round.finish();
        assert_eq!((script.next(), self.progress.len()), (None, call.remembered));
        outcome
    }
}

fn fate_of(fate: &str) -> Result<(), NoAnswer> {
    let (error, may_have_arrived) = match fate {
        "ok" => return Ok(()),
        "busy" => (ExportError::retry("busy"), false),
        "lost" => (ExportError::retry("lost"), true),
        "bad" => (ExportError::reject("bad"), false),
        "huge" => (ExportError::too_large("huge"), false),
        "key" => (ExportError::unauthorized("key"), false),
        _ => unreachable!(),
    };
    Err(NoAnswer { error, may_have_arrived })
}

/// Requests of a call, the records it leaves in the memory, its status, its verdicts.
type Expected<'a> = (&'a [&'a str], usize, Status, &'a str);

/// Exports the same records, call after call.
fn check(records: u32, calls: &[Expected<'_>]) {
    let script: Vec<_> = calls
        .iter()
        .map(|(requests, remembered, ..)| serde_json::json!({ "requests": requests, "remembered": remembered }))
        .collect();
    let plugin = Plugin::<Scripted>::create(serde_json::json!({ "calls": script }).to_string()).unwrap();
    let records = Records::of((0..records).map(|number| Sample::chat().number(number)));
    for (attempt, (requests, _, status, expected)) in (0..).zip(calls) {
        let outcome = plugin.export_again(&records, attempt);
        let found = (outcome.status, outcome.letters());
        assert_eq!(found, (*status, (*expected).to_owned()), "{requests:?}: {outcome:?}");
        assert!(outcome.faults.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_record_is_delivered_with_its_last_part_and_forgotten_then() {
    let all: &[&str] =
        &["logs 01 ok", "logs 2 ok", "metrics 01 ok", "metrics 2 ok", "spans 01 ok", "spans 2 ok"];
    check(3, &[(all, 0, OK, "DDD"), (all, 0, OK, "DDD")]);
    check(0, &[(&[], 0, OK, "")]);
}

#[test]
fn what_the_backend_has_is_not_sent_again_and_what_it_refused_is() {
    let rest: &[&str] = &["spans 01 ok"];
    let metrics: &[&str] = &["metrics 01 ok", "spans 01 ok"];
    for (first, remembered, status, again) in [
        (&["logs 01 busy"][..], 0, RETRY, &["logs 01 ok", "metrics 01 ok", "spans 01 ok"][..]),
        // Nobody knows: at least once, so again.
        (&["logs 01 lost"], 0, RETRY, &["logs 01 ok", "metrics 01 ok", "spans 01 ok"]),
        // Refused, or never reached: the note is taken back.
        (&["logs 01 ok", "metrics 01 busy"], 2, RETRY, metrics),
        (&["logs 01 ok", "metrics 01 bad"], 2, REJECT, metrics),
        (&["logs 01 ok", "metrics 01 huge"], 2, TOO_LARGE, metrics),
        (&["logs 01 ok", "metrics 01 key"], 2, UNAUTHORIZED, metrics),
        // Nobody knows: at most once, so never again.
        (&["logs 01 ok", "metrics 01 lost"], 2, RETRY, rest),
        (&["logs 01 ok", "metrics 01 ok", "spans 01 busy"], 2, RETRY, rest),
        (&["logs 01 ok", "metrics 01 ok", "spans 01 lost"], 2, RETRY, rest),
    ] {
        check(2, &[(first, remembered, status, "--"), (again, 0, OK, "DD")]);
    }
}

#[test]
fn requests_fail_by_themselves_unless_waiting_heals_it() {
    for (requests, remembered, status, expected) in [
        // The request behind it is sent, and later parts of its records alone.
        (&["logs 01 bad", "logs 23 ok", "metrics 23 ok", "spans 23 ok"][..], 0, REJECT, "--DD"),
        (
            &["logs 01 ok", "logs 23 ok", "metrics 01 huge", "metrics 23 ok", "spans 23 ok"],
            2,
            TOO_LARGE,
            "--DD",
        ),
        // None is sent after it; metrics that were not sent are not noted.
        (&["logs 01 busy"], 0, RETRY, "----"),
        (&["logs 01 ok", "logs 23 ok", "metrics 01 lost"], 4, RETRY, "----"),
        (&["logs 01 bad", "logs 23 busy"], 0, REJECT, "--rr"),
        (&["logs 01 huge", "logs 23 ok", "metrics 23 busy"], 2, TOO_LARGE, "--rr"),
    ] {
        check(4, &[(requests, remembered, status, expected)]);
    }
    // What was not sent is told to wait while the gateway splits the rest.
    check(6, &[(&["logs 01 bad", "logs 23 busy"], 0, REJECT, "--rrrr")]);
}

#[test]
fn a_record_alone_that_is_too_large_is_refused_unless_it_can_shed_its_bodies() {
    for (requests, remembered, status, expected) in [
        (&["logs 0 huge"][..], 0, TOO_LARGE, "-"),
        (&["logs 0 ok", "metrics 0 huge"], 1, REJECT, "-"),
        (&["logs 0 ok", "metrics 0 ok", "spans 0 huge"], 1, REJECT, "-"),
        (&["logs 0 bad"], 0, REJECT, "-"),
    ] {
        check(1, &[(requests, remembered, status, expected)]);
    }
}

#[test]
fn nothing_more_is_sent_of_a_record_that_was_rejected() {
    for (requests, remembered, status, expected) in [
        (&["logs 1 unfit", "logs 02 ok", "metrics 02 ok", "spans 02 ok"][..], 0, OK, "DxD"),
        (&["logs 01 ok", "logs 2 ok", "metrics 0 unfit", "metrics 12 ok", "spans 12 ok"], 1, OK, "xDD"),
        (&["record 0 unfit", "logs 12 ok", "metrics 12 ok", "spans 12 ok"], 0, OK, "xDD"),
        (&["logs 1 unfit", "logs 02 busy"], 0, RETRY, "-x-"),
        (&["logs 1 unfit", "logs 02 bad"], 0, REJECT, "-x-"),
    ] {
        check(3, &[(requests, remembered, status, expected)]);
    }
}
