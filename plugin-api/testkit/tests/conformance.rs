//! The conformance suite on trial: the example of its documentation conforms, and every bad plugin is found out.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use exporter_testkit::conformance::{
    Backend, Behaviour, Conclusion, Fate, Scenario, Script, Suite, Unsupported,
};
use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, Record, TelemetryExporter};
use schemars::JsonSchema;
use serde::Deserialize;

/// The very text of the documentation.
#[allow(unused_imports, reason = "the documentation's example imports what its last lines need")]
mod example {
    include!("../src/conformance/example.rs");

    exporter_testkit::conformance_tests!(
        Lines,
        LineServer::start,
        Suite::new().outage(std::time::Duration::from_secs(2))
    );
}

/// Backends by number: the settings name one.
static STORES: Mutex<Vec<Arc<Mutex<Store>>>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Store {
    script: Script,
    ids: Vec<String>,
}

struct Memory {
    number: usize,
    store: Arc<Mutex<Store>>,
    vice: &'static str,
}

impl Memory {
    fn tempting_to(vice: &'static str) -> Self {
        let store = Arc::<Mutex<Store>>::default();
        let mut stores = STORES.lock().unwrap();
        stores.push(Arc::clone(&store));
        Self { number: stores.len() - 1, store, vice }
    }
}

impl Backend for Memory {
    fn config(&self) -> String {
        format!(r#"{{"store":{},"vice":"{}","password":"hunter2"}}"#, self.number, self.vice)
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        if self.vice == "unable" && behaviour == Behaviour::Hang {
            return Err(Unsupported("memory answers at once"));
        }
        // A backend that does not do as it is told must not make a plugin look good.
        if self.vice != "deaf backend" {
            self.store.lock().unwrap().script.behave(behaviour);
        }
        Ok(())
    }

    fn holds(&mut self) -> Vec<String> {
        self.store.lock().unwrap().ids.clone()
    }
}

#[derive(Deserialize, JsonSchema)]
struct Settings {
    store: usize,
    vice: String,
    #[schemars(extend("x-secret" = true))]
    password: String,
}

/// Delivers to a store in memory, as well as its vice allows.
struct Wicked {
    store: Arc<Mutex<Store>>,
    settings: Settings,
}

impl TelemetryExporter for Wicked {
    type Config = Settings;
    const DESCRIPTOR: Descriptor =
        Descriptor::new("wicked", "1.0.0").batch(40, 5 * 1024 * 1024, Duration::from_secs(1));

    async fn init(settings: Settings, _: Host) -> Result<Self, InitError> {
        let store = Arc::clone(&STORES.lock().unwrap()[settings.store]);
        let is_down = store.lock().unwrap().script.behaviour() == Behaviour::Down;
        match &*settings.vice {
            "panics in init" if is_down => panic!("nobody there"),
            "needs the backend" if is_down => Err(InitError::failed("nobody there")),
            "blames the settings" if is_down => Err(InitError::invalid_config("nobody there")),
            _ => Ok(Self { store, settings }),
        }
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        match (self.behaviour(), self.vice()) {
            (_, "says delivered") | (Behaviour::Hang | Behaviour::Down, "does not wait") => return Ok(()),
            (_, "panics") => panic!("no"),
            (_, "lies") => batch.delivered(1000),
            (_, "gives some verdicts") => {
                batch.delivered(0);
                return Err(ExportError::per_record());
            }
            (_, "shows its password") => {
                return Err(ExportError::retry(format!("{} refused", self.settings.password)));
            }
            (Behaviour::Hang, "blocks") => thread::sleep(Duration::from_secs(60)),
            (Behaviour::Hang, _) => std::future::pending().await,
            (Behaviour::Down, "rejects in an outage") => return Err(ExportError::reject("nobody there")),
            (Behaviour::Down, "fails silently") => return Err(ExportError::retry("")),
            (Behaviour::Down, _) => return Err(ExportError::retry("nobody there")),
            (Behaviour::NotFound, "blames the records") => {
                batch.iter().for_each(|record| record.reject("404"));
                return Err(ExportError::per_record());
            }
            (Behaviour::NotFound, "takes all or nothing") => return Err(ExportError::reject("404")),
            (Behaviour::NotFound, _) => return Err(ExportError::retry("404")),
            (Behaviour::Throttle, "keeps the pause to itself") => return Err(ExportError::retry("429")),
            (Behaviour::Throttle, "rejects what is too much") => {
                return Err(ExportError::reject("429").after(Behaviour::PAUSE));
            }
            (Behaviour::Throttle, _) => return Err(ExportError::retry("429").after(Behaviour::PAUSE)),
            _ => {}
        }
        if self.stalls(batch) {
            match self.vice() {
                "takes silence for yes" => {}
                "takes silence for no" => {
                    batch.iter().for_each(|record| record.reject("no answer"));
                    return Err(ExportError::per_record());
                }
                _ => std::future::pending().await,
            }
        }
        self.deliver(batch)
    }

    async fn health(&self) -> Health {
        match self.vice() {
            "panics in health" => panic!("ill"),
            _ if self.behaviour() == Behaviour::Down => Health::Unhealthy("nobody there".to_owned()),
            _ => Health::Healthy,
        }
    }

    async fn shutdown(&self) -> Result<(), ExportError> {
        if self.vice() == "fails to shut down" { Err(ExportError::retry("not yet")) } else { Ok(()) }
    }
}

impl Wicked {
    fn vice(&self) -> &str {
        &self.settings.vice
    }

    fn behaviour(&self) -> Behaviour {
        self.store.lock().unwrap().script.behaviour()
    }

    fn stalls(&self, batch: Batch<'_>) -> bool {
        batch.iter().any(|record| self.behaviour().fate_of(&id_of(record)) == Fate::Stall)
    }

    fn deliver(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        if self.vice() == "wants one by one" && batch.len() > 1 {
            return Err(ExportError::too_large("one at a time"));
        }
        let fates: Vec<Fate> = {
            let mut store = self.store.lock().unwrap();
            batch.iter().map(|record| store.script.decide(&id_of(record))).collect()
        };
        if self.vice() == "takes all or nothing" && fates.contains(&Fate::Retry) {
            return Err(ExportError::retry("one of these has to wait"));
        }
        if self.vice() == "takes all or nothing" && fates.contains(&Fate::Refuse) {
            return Err(ExportError::reject("one of these is bad"));
        }
        for (record, fate) in batch.iter().zip(&fates) {
            match fate {
                Fate::Retry if self.vice() == "overlooks retry" => record.delivered(),
                Fate::Retry if self.vice() == "rejects what comes again" && batch.attempt() > 0 => {
                    record.reject("busy");
                }
                Fate::Retry => record.retry("busy"),
                Fate::Refuse if self.vice() == "gives no reason" => record.reject(""),
                Fate::Refuse if self.vice() == "never rejects" => record.retry("busy"),
                Fate::Refuse => record.reject("bad"),
                Fate::Take if self.vice() == "rejects neighbours" && fates.contains(&Fate::Refuse) => {
                    record.reject("one of these is bad");
                }
                Fate::Take if self.vice() == "fears brackets" && record.request_json().starts_with(b"[[") => {
                    record.retry("cannot parse it");
                }
                Fate::Stall => record.delivered(),
                Fate::Take => self.take(record),
            }
        }
        if self.behaviour() == Behaviour::CutAnswer && self.vice() != "does not wait" {
            batch.iter().for_each(|record| record.retry("the answer was cut"));
        }
        Ok(())
    }

    fn take(&self, record: Record<'_>) {
        let id = id_of(record);
        let ids = &mut self.store.lock().unwrap().ids;
        if self.vice() == "sends twice" || !ids.contains(&id) {
            ids.push(id.clone());
        }
        match self.vice() {
            "changes ids" => *ids.last_mut().unwrap() = id.replace('-', "a"),
            "rejects what it has" => return record.reject("no"),
            _ => {}
        }
        record.delivered();
    }
}

fn id_of(record: Record<'_>) -> String {
    record.metrics().unwrap().id.into_owned()
}

fn suite() -> Suite {
    let ms = Duration::from_millis;
    Suite::new().hang_deadline(ms(200)).outage(ms(1500)).patience(ms(3000)).settle(ms(100))
}

#[test]
fn a_good_plugin_conforms_in_every_scenario() {
    thread::scope(|scope| {
        for scenario in Scenario::ALL {
            for virtue in ["none", "takes all or nothing", "wants one by one", "needs the backend"] {
                scope.spawn(move || {
                    let report = suite().run::<Wicked>(scenario, Memory::tempting_to(virtue));
                    assert!(report.is_passed(), "{virtue}: {report}");
                });
            }
        }
    });
}

#[test]
fn every_vice_is_found_out_and_named() {
    use Scenario::*;
    let found = |(vice, scenario, fault): &(&'static str, Scenario, &str)| {
        let report = suite().run::<Wicked>(*scenario, Memory::tempting_to(vice));
        let named = report.faults().iter().any(|named| named.contains(fault));
        assert!(named, "{vice}, {scenario:?}: no `{fault}` in: {report}");
    };
    thread::scope(|scope| {
        for case in &[
            ("says delivered", Accepted, "called delivered, but not in the backend: 60 ("),
            ("says delivered", SingleRecord, "called delivered, but not in the backend: 1 ("),
            ("overlooks retry", HalfRetried, "called delivered, but not in the backend: 30 ("),
            ("overlooks retry", HalfRetried, "nothing was to be sent again"),
            ("sends twice", CutAnswer, "in the backend more than once"),
            ("changes ids", Accepted, "never sent, but in the backend"),
            (
                "rejects neighbours",
                HalfRejected,
                "not the record's fault, but it was rejected for good: 30 (",
            ),
            ("rejects neighbours", Thirds, "not the record's fault, but it was rejected for good"),
            ("rejects what it has", Accepted, "called rejected, but in the backend"),
            ("never rejects", HalfRejected, "refused by the backend for good, but to be sent again"),
            ("gives no reason", HalfRejected, "rejected for no reason"),
            ("fails silently", Outage, "with status 1 and no text"),
            ("blocks", Hang, "`export` has not returned 1s after its deadline"),
            ("does not wait", Hang, "called delivered, but not in the backend: 40 ("),
            ("does not wait", Hang, "was still on"),
            ("does not wait", CutAnswer, "was still on"),
            ("rejects in an outage", Outage, "were refused for good (`ExportError::reject`) in"),
            (
                "rejects what comes again",
                OneDeferred,
                "not the record's fault, but it was rejected for good: 1 (",
            ),
            ("rejects what comes again", OneDeferred, "was still on"),
            ("takes silence for yes", OneStalls, "called delivered, but not in the backend: 1 ("),
            ("takes silence for no", OneStalls, "not the record's fault, but it was rejected for good"),
            ("blames the records", NotFound, "not the record's fault, but it was rejected for good: 40 ("),
            ("deaf backend", NotFound, "was still on"),
            ("keeps the pause to itself", Throttled, "to be left alone for 2s, and the plugin did not"),
            ("rejects what is too much", Throttled, "were refused for good (`ExportError::reject`) in"),
            ("deaf backend", Throttled, "was still on"),
            ("panics", Accepted, "`export` panicked: no"),
            ("panics in health", Accepted, "`health` failed"),
            ("panics in init", DownAtStart, "`init` panicked while the backend was down"),
            ("blames the settings", DownAtStart, "calls its settings invalid"),
            ("fails to shut down", Accepted, "`shutdown` or `drop` failed"),
            ("lies", Accepted, "a verdict on record 1000"),
            ("gives some verdicts", Accepted, "a record without a verdict"),
            ("shows its password", Accepted, "marked `x-secret`"),
            ("fears brackets", OddRecords, ": 3,000 brackets"),
            ("deaf backend", HalfRetried, "`Backend::behave` is without effect"),
            ("deaf backend", HalfRejected, "refused by the backend, but called delivered: 30 ("),
            ("deaf backend", Outage, "was still on"),
            ("deaf backend", DownAtStart, "was still on"),
        ] {
            scope.spawn(move || found(case));
        }
    });
}

#[test]
fn no_report_shows_a_secret() {
    let report = suite().run::<Wicked>(Scenario::Accepted, Memory::tempting_to("shows its password"));
    assert!(!report.to_string().contains("hunter2"), "{report}");
}

#[test]
fn what_a_backend_cannot_do_is_neither_passed_nor_failed() {
    let report = suite().run::<Wicked>(Scenario::Hang, Memory::tempting_to("unable"));
    assert_eq!(report.conclusion, Conclusion::NotApplicable("memory answers at once"));
    assert!(!report.is_passed() && report.to_string().ends_with("not applicable: memory answers at once"));
}
