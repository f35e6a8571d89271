//! The probe plugin on command, and its own account of what it delivered.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    artifacts,
    gateway::{Gateway, Running},
};

/// Keys of every probe that its test does not set itself: short waits, so that recoveries are quick.
const QUICK: [(&str, &str); 5] = [
    ("batch.max_delay", "10ms"),
    ("retry.initial", "1ms"),
    ("retry.max", "20ms"),
    ("circuit_breaker.cool_down", "20ms"),
    ("circuit_breaker.max_cool_down", "50ms"),
];

impl Gateway {
    /// Adds a probe: `keys` of its entry, and its settings (`script = ["retry", "ok"]`, see `tests/probe-plugin`).
    pub fn probe(self, name: &str, keys: &str, settings: &str) -> Self {
        let library = artifacts::plugin("probe");
        let (out, control) = (self.folder().join(out(name)), self.folder().join(control(name)));
        let quick = QUICK.iter().filter(|(key, _)| !keys.contains(key));
        let quick: String = quick.map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
        self.section(&format!(
            "[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n{quick}{keys}\n\
             [plugin.config]\nout = \"{}\"\ncontrol = \"{}\"\n{settings}\n",
            library.display(),
            out.display(),
            control.display(),
        ))
    }
}

impl Running {
    /// From its next call on the probe does this instead of its script.
    pub fn command(&self, probe: &str, behaviour: &str) {
        let draft = self.folder().join(format!("{probe}.draft"));
        std::fs::write(&draft, behaviour).unwrap();
        // In one step: the probe must never read half a word.
        std::fs::rename(draft, self.folder().join(control(probe))).unwrap();
    }

    /// Ids of the records that the probe claims to have delivered, in its order.
    pub fn delivered(&self, probe: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder().join(out(probe))).unwrap_or_default();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        text.lines().map(id).collect()
    }

    /// The same, none of them twice.
    pub fn delivered_once(&self, probe: &str) -> HashSet<String> {
        let ids = self.delivered(probe);
        let unique: HashSet<String> = ids.iter().cloned().collect();
        assert_eq!(unique.len(), ids.len(), "{probe} got a record twice");
        unique
    }

    /// Waits until every one of `accepted` records has come to its end; the books, which agree with the probe's.
    pub async fn settled(&self, probe: &str, accepted: usize) -> Value {
        let is_settled =
            |books: &Value| books["accepted"] == accepted && books["queued"] == 0 && books["in_flight"] == 0;
        let books = self.wait_for_books(probe, is_settled).await;
        assert_eq!(books["delivered"], self.delivered_once(probe).len(), "{probe}: {books}");
        books
    }
}

fn out(probe: &str) -> String {
    format!("{probe}.out")
}

fn control(probe: &str) -> String {
    format!("{probe}.control")
}
