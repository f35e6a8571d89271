//! Whether the books of a scenario agree with its backend. Pure.

use std::collections::{BTreeMap, BTreeSet};

use exporter_pipeline::DropReason;

use super::{backend::canonical, books::End};

/// How a record is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Delivered,
    Rejected,
    /// Delivered, or rejected for a reason, or dropped because it is too large: the backend decides.
    Accounted,
}

/// What is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What no later look at the backend will mend.
    pub final_faults: Vec<String>,
    /// What the backend lacks so far.
    pub missing: Option<String>,
}

impl Wrong {
    pub(super) fn into_faults(self) -> Vec<String> {
        self.final_faults.into_iter().chain(self.missing).collect()
    }
}

/// Compares how the records ended with how they should have, and with what the backend holds. Ids are canonical but
/// for `held`.
pub(super) fn check(
    due: &BTreeMap<String, Due>,
    ends: &BTreeMap<String, End>,
    held: &[String],
    deduplicates: bool,
) -> Wrong {
    let mut copies = BTreeMap::<String, usize>::new();
    for id in held {
        *copies.entry(canonical(id)).or_default() += 1;
    }
    let ended = |is: fn(&End) -> bool| -> BTreeSet<&String> {
        ends.iter().filter(|(_, end)| is(end)).map(|(id, _)| id).collect()
    };
    let delivered = ended(|end| *end == End::Delivered);
    let rejected = ended(|end| matches!(end, End::Rejected(_)));
    let dropped = ended(|end| matches!(end, End::Dropped(_)));
    let too_large = ended(|end| *end == End::Dropped(DropReason::Oversize));
    let of = |wanted: Due| due.iter().filter(move |(_, due)| **due == wanted).map(|(id, _)| id);

    let mut wrong = Wrong::default();
    let mut find = |ids: Vec<&String>, what: &str| wrong.final_faults.extend(count(&ids, what));
    find(due.keys().filter(|id| !ends.contains_key(*id)).collect(), "ended nowhere (a bug of the suite)");
    find(
        of(Due::Rejected).filter(|id| delivered.contains(id)).collect(),
        "refused by the backend, but called delivered",
    );
    find(
        of(Due::Rejected).filter(|id| dropped.contains(id)).collect(),
        "refused by the backend for good, but to be sent again until dropped",
    );
    find(
        of(Due::Delivered).filter(|id| rejected.contains(id)).collect(),
        "not the record's fault, but it was rejected for good",
    );
    find(
        of(Due::Delivered).filter(|id| dropped.contains(id)).collect(),
        "taken by the backend, but to be sent again until dropped",
    );
    find(
        of(Due::Accounted).filter(|id| dropped.contains(id) && !too_large.contains(id)).collect(),
        "odd, and to be sent again until dropped (what the backend never takes is to be rejected)",
    );
    find(
        rejected.iter().copied().filter(|id| copies.contains_key(*id)).collect(),
        "called rejected, but in the backend",
    );
    find(copies.keys().filter(|id| !due.contains_key(*id)).collect(), "never sent, but in the backend");
    if deduplicates {
        find(
            copies.iter().filter(|(_, copies)| **copies > 1).map(|(id, _)| id).collect(),
            "in the backend more than once, though it deduplicates",
        );
    }
    let missing: Vec<_> = delivered.into_iter().filter(|id| !copies.contains_key(*id)).collect();
    wrong.missing = count(&missing, "called delivered, but not in the backend");
    wrong
}

/// `what: 5 (id, id, id, …)`, unless there is none.
fn count(ids: &[&String], what: &str) -> Option<String> {
    const SHOWN: usize = 3;
    let mut shown: Vec<&str> = ids.iter().take(SHOWN).map(|id| id.as_str()).collect();
    if ids.len() > SHOWN {
        shown.push("…");
    }
    (!ids.is_empty()).then(|| format!("{what}: {} ({})", ids.len(), shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each record is its id, what it is due, and how it ended.
    fn checked(records: &[(&str, Due, End)], held: &[&str], deduplicates: bool) -> Vec<String> {
        let due = records.iter().map(|(id, due, _)| ((*id).to_owned(), *due)).collect();
        let ends = records.iter().map(|(id, _, end)| ((*id).to_owned(), end.clone())).collect();
        let held: Vec<String> = held.iter().map(|id| (*id).to_owned()).collect();
        check(&due, &ends, &held, deduplicates).into_faults()
    }

    #[test]
    fn books_that_agree_with_the_backend_have_no_fault() {
        let rejected = || End::Rejected("bad".to_owned());
        let records = [
            ("a", Due::Delivered, End::Delivered),
            ("b", Due::Rejected, rejected()),
            ("c", Due::Accounted, rejected()),
            ("d", Due::Accounted, End::Delivered),
            ("e", Due::Accounted, End::Dropped(DropReason::Oversize)),
        ];
        assert_eq!(checked(&records, &["msg_A", "d"], true), [""; 0]);
        assert_eq!(checked(&records, &["a", "d", "a"], false), [""; 0]);
    }

    #[test]
    fn every_disagreement_is_found() {
        let rejected = || End::Rejected("bad".to_owned());
        let gone = || End::Dropped(DropReason::RetryExhausted);
        for (due, end, held, fault) in [
            (Due::Delivered, End::Delivered, vec![], "but not in the backend"),
            (Due::Delivered, End::Delivered, vec!["a", "a"], "more than once"),
            (Due::Delivered, End::Delivered, vec!["a", "x"], "never sent, but"),
            (Due::Delivered, rejected(), vec![], "but it was rejected for good"),
            (Due::Delivered, gone(), vec![], "taken by the backend, but to be sent"),
            (Due::Rejected, End::Delivered, vec!["a"], "refused by the backend, but"),
            (Due::Rejected, gone(), vec![], "for good, but to be sent again"),
            (Due::Rejected, rejected(), vec!["a"], "called rejected, but in"),
            (Due::Accounted, gone(), vec![], "odd, and"),
            (Due::Accounted, rejected(), vec!["a"], "called rejected, but in"),
        ] {
            let faults = checked(&[("a", due, end.clone())], &held, true);
            assert!(faults.len() == 1 && faults[0].contains(fault), "{due:?} {end:?} {held:?}: {faults:?}");
        }
    }

    #[test]
    fn a_fault_names_the_first_few_ids() {
        let ids: Vec<String> = (0..5).map(|id: u8| id.to_string()).collect();
        let ids: Vec<&String> = ids.iter().collect();
        assert_eq!(count(&ids, "lost").unwrap(), "lost: 5 (0, 1, 2, …)");
        assert_eq!(count(&ids[..1], "lost").unwrap(), "lost: 1 (0)");
        assert_eq!(count(&[], "lost"), None);
    }
}
