//! What goes wrong: faults of a whole request, and what becomes of each record.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use exporter_testkit::conformance;
use serde_json::Value;

pub use exporter_testkit::conformance::{Behaviour, Fate};

/// What happens to a whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This answer, and nothing is stored.
    Status {
        /// The status code.
        code: u16,
        /// The value of `Retry-After`.
        retry_after: Option<String>,
        /// The body.
        body: String,
    },
    /// Takes the request and never answers.
    Hang,
    /// Processes and stores the request, sends half of the answer's body and closes the connection.
    CutAnswer,
    /// Waits, then goes on as if nothing had been.
    Slow(Duration),
}

impl Fault {
    /// A status with an empty JSON object for a body.
    pub fn status(code: u16) -> Self {
        Self::Status { code, retry_after: None, body: "{}".to_owned() }
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(retry_after: impl Into<String>) -> Self {
        Self::Status { code: 429, retry_after: Some(retry_after.into()), body: "{}".to_owned() }
    }
}

/// Says what becomes of the record with this id; the number counts how often that record was tried before.
type Judge = Arc<dyn Fn(&str, u32) -> Fate + Send + Sync>;

/// What a fake was told.
///
/// A backend without verdicts of its own for each record answers for the request as a whole: not at all when any record
/// of it stalls, "try again" when any is to be retried, otherwise a permanent refusal when any is to be refused; then it
/// stores nothing.
#[derive(Debug)]
pub struct Script(Mutex<State>);

struct State {
    conformance: conformance::Script,
    /// Decides in the place of `conformance`.
    judge: Option<Judge>,
    /// How often each record was tried; kept for `judge` alone.
    tries: HashMap<String, u32>,
    faults: Vec<Planned>,
    /// JSON pointers, tried in this order.
    id_at: Vec<String>,
}

#[derive(Debug)]
struct Planned {
    fault: Fault,
    /// Requests still to come; `None` until changed.
    left: Option<usize>,
    /// Only requests whose path begins so.
    path: String,
}

impl Default for Script {
    fn default() -> Self {
        // The places where an exporter may put the record's id; `id_at` replaces them.
        let id_at = ["/id", "/attributes/id", "/record_id", "/record.id", "/attributes/record_id"];
        Self(Mutex::new(State {
            conformance: conformance::Script::default(),
            judge: None,
            tries: HashMap::new(),
            faults: Vec::new(),
            id_at: id_at.map(str::to_owned).to_vec(),
        }))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behaviour = self.conformance.behaviour();
        f.debug_struct("State")
            .field("behaviour", &behaviour)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Script {
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        let mut state = self.0.lock().unwrap();
        state.conformance.behave(behaviour);
        state.judge = None;
        state.faults.clear();
    }

    pub(crate) fn judge_by(&self, judge: impl Fn(&str, u32) -> Fate + Send + Sync + 'static) {
        let mut state = self.0.lock().unwrap();
        state.judge = Some(Arc::new(judge));
        state.tries.clear();
    }

    pub(crate) fn plan(&self, path: &str, left: Option<usize>, fault: Fault) {
        self.0.lock().unwrap().faults.push(Planned { fault, left, path: path.to_owned() });
    }

    pub(crate) fn id_at(&self, pointers: &[&str]) {
        self.0.lock().unwrap().id_at = pointers.iter().map(|p| (*p).to_owned()).collect();
    }

    /// The fault for a request to this path: the oldest plan that is still open.
    pub(crate) fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut state = self.0.lock().unwrap();
        state.faults.retain(|plan| plan.left != Some(0));
        let plan = state.faults.iter_mut().find(|plan| path.starts_with(&plan.path))?;
        plan.left = plan.left.map(|left| left - 1);
        Some(plan.fault.clone())
    }

    /// The id that a record carries.
    pub fn id_of(&self, record: &Value) -> Option<String> {
        let state = self.0.lock().unwrap();
        state.id_at.iter().find_map(|pointer| record.pointer(pointer)?.as_str().map(str::to_owned))
    }

    /// What becomes of this record now; counts the try.
    pub fn judge(&self, id: &str) -> Fate {
        let mut state = self.0.lock().unwrap();
        let Some(judge) = state.judge.clone() else { return state.conformance.decide(id) };
        let tries = state.tries.entry(id.to_owned()).or_default();
        *tries += 1;
        judge(id, *tries - 1)
    }

    /// Whether a request with this record gets no answer. That is no try.
    pub(crate) fn stalls(&self, id: &str) -> bool {
        let state = self.0.lock().unwrap();
        match &state.judge {
            Some(judge) => judge(id, state.tries.get(id).copied().unwrap_or_default()) == Fate::Stall,
            None => state.conformance.behaviour().fate_of(id) == Fate::Stall,
        }
    }

    /// What becomes of a request whose records share one verdict. Every record's try is counted.
    pub fn judge_whole<'a>(&self, records: impl IntoIterator<Item = &'a Value>) -> Fate {
        let ids = records.into_iter().filter_map(|record| self.id_of(record));
        ids.map(|id| self.judge(&id)).fold(Fate::Take, worse)
    }
}

fn worse(a: Fate, b: Fate) -> Fate {
    match (a, b) {
        (Fate::Stall, _) | (_, Fate::Stall) => Fate::Stall,
        (Fate::Retry, _) | (_, Fate::Retry) => Fate::Retry,
        (Fate::Refuse, _) | (_, Fate::Refuse) => Fate::Refuse,
        (Fate::Take, Fate::Take) => Fate::Take,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_whole_is_judged_by_its_worst_record() {
        let script = Script::default();
        script.judge_by(|id, tries| match id {
            "retry" if tries == 0 => Fate::Retry,
            "refuse" => Fate::Refuse,
            "stall" => Fate::Stall,
            _ => Fate::Take,
        });
        let batch = |ids: &[&str]| ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>();
        let all = batch(&["good", "refuse", "retry"]);
        assert_eq!(script.judge_whole(&all), Fate::Retry);
        assert_eq!(script.judge_whole(&all), Fate::Refuse);
        assert_eq!(script.judge_whole(&batch(&["good", "retry"])), Fate::Take);
        assert_eq!(script.judge_whole(&batch(&["retry", "stall", "refuse"])), Fate::Stall);
    }

    #[test]
    fn faults_come_in_the_order_planned_and_only_on_their_path() {
        let script = Script::default();
        script.plan("", Some(1), Fault::status(500));
        script.plan("/metric", None, Fault::Hang);
        script.plan("", Some(1), Fault::status(429));
        let fault = |path| script.next_fault(path);
        assert_eq!(fault("/log"), Some(Fault::status(500)));
        assert_eq!(fault("/metric"), Some(Fault::Hang));
        assert_eq!(fault("/log"), Some(Fault::status(429)));
        assert_eq!(fault("/log"), None);
        assert_eq!(fault("/metric"), Some(Fault::Hang));
        script.behave(Behaviour::Accept);
        assert_eq!(fault("/metric"), None);
    }
}
