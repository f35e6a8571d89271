//! The books of an exporter against what its backend and its dead letters hold.

#![allow(clippy::print_stderr, reason = "the figures are what the run is for")]

use std::{collections::HashSet, fs, path::Path};

use serde_json::Value;

use crate::torment::plain;

/// Records that were dropped for these reasons leave no letter: they happen at the rate of the traffic.
const WITHOUT_LETTER: [&str; 2] = ["queue_full", "shed"];

/// An exporter's books, added up here and not by the gateway.
#[derive(Debug)]
pub(super) struct Books(Value);

impl Books {
    /// Of a plugin's entry of `GET /plugins`; they balance whenever they are read.
    pub(super) fn of(plugin: &Value) -> Self {
        let books = Self(plugin["books"].clone());
        let sum = books.settled() + books.waiting();
        assert_eq!(books.count("accepted"), sum, "the books do not balance: {plugin}");
        assert_eq!(books.0["balanced"], true, "{plugin}");
        books
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap()
    }

    pub(super) fn waiting(&self) -> u64 {
        self.count("queued") + self.count("in_flight")
    }

    pub(super) fn settled(&self) -> u64 {
        self.count("delivered") + self.reasons("rejected", |_| true) + self.reasons("dropped", |_| true)
    }

    fn reasons(&self, fate: &str, which: impl Fn(&str) -> bool) -> u64 {
        let counts = self.0[fate].as_object().unwrap().iter();
        counts.filter(|(reason, _)| which(reason)).map(|(_, count)| count.as_u64().unwrap()).sum()
    }

    fn lettered(&self) -> u64 {
        self.reasons("rejected", |_| true)
            + self.reasons("dropped", |reason| !WITHOUT_LETTER.contains(&reason))
    }
}

/// Every record is in the backend, or in a dead letter with its reason, or one of those counted as dropped for want of
/// room in the queue.
pub(super) fn assert_accounted(
    name: &str,
    books: &Books,
    records: &HashSet<String>,
    held: &[String],
    letters: &Path,
    may_repeat: bool,
) {
    assert_eq!(books.waiting(), 0, "{name}: {books:?}");
    assert_eq!(books.count("accepted"), records.len() as u64, "{name}: {books:?}");
    let once: HashSet<String> = held.iter().cloned().collect();
    let given_up = given_up(name, letters);
    let repeated = held.len() - once.len();
    eprintln!("{name}: {} held, {repeated} repeated, {} letters, {:?}", once.len(), given_up.len(), books.0);
    assert!(may_repeat || repeated == 0, "{name} holds {repeated} records twice");
    assert!(once.is_subset(records), "{name} holds a record that no request made");
    assert!(
        once.len() as u64 >= books.count("delivered"),
        "{name} lacks records that the books call delivered"
    );
    assert_eq!(given_up.len() as u64, books.lettered(), "{name}: a letter for each: {books:?}");
    let lost = records.iter().filter(|id| !once.contains(*id) && !given_up.contains(*id)).count() as u64;
    let without_room = books.reasons("dropped", |reason| WITHOUT_LETTER.contains(&reason));
    assert!(
        lost <= without_room,
        "{name}: {lost} records are nowhere, {without_room} had no room: {books:?}"
    );
}

/// The ids in the dead letters, each of which has its reason.
fn given_up(name: &str, file: &Path) -> HashSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut ids = HashSet::new();
    for line in text.lines() {
        let letter: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
        let (reason, message) = (letter["reason"].as_str().unwrap(), letter["message"].as_str().unwrap());
        assert!(!reason.is_empty() && !message.is_empty(), "{name}: a letter without a reason: {letter}");
        let id = plain(letter["record"]["metrics"]["id"].as_str().unwrap());
        assert!(ids.insert(id), "{name}: two letters for one record: {letter}");
    }
    ids
}
