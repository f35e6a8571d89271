//! One scenario at work.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use plugin_api::{Description, TelemetryExporter, abi::status};

use super::{
    backend::{Backend, Behaviour, Fate, Unsupported, canonical},
    books::{Books, End},
    check::{Due, Wrong, check},
    delivery::{Calls, Delivery},
    records::{Numbering, odd},
    report::Report,
    secrets,
    suite::{Scenario, Suite},
};
use crate::{Failure, Plugin, Sample};

/// Pause before the backend is asked again.
const PAUSE: Duration = Duration::from_millis(20);
/// Calls for which a backend hangs, asks for a pause, or is down at the start.
const CALLS: u32 = 2;
/// Calls in which a single record is refused, at least, where the backend takes all others.
const DEFERRED_CALLS: u32 = 5;
/// Calls by which it should be plain that the set-up is at fault, and no record.
const SET_UP_CALLS: u32 = 30;
/// Calls after which a backend that cuts its answers should have taken something: time for a plugin to notice that its
/// connection has gone, or to have a batch split.
const CUT_CALLS: u32 = 10;

pub(super) struct Trial<'a> {
    suite: &'a Suite,
    scenario: Scenario,
    exporter: Description,
    backend: &'a mut dyn Backend,
    delivery: Delivery,
    pub books: Books,
    /// How each record is to end, by canonical id.
    due: BTreeMap<String, Due>,
    /// What is odd about a record, by canonical id.
    names: BTreeMap<String, &'static str>,
    held: usize,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        suite: &'a Suite,
        scenario: Scenario,
        exporter: Description,
        backend: &'a mut dyn Backend,
    ) -> Self {
        let outage = if scenario == Scenario::Outage { suite.outage } else { Duration::ZERO };
        let delivery = Delivery::new(&exporter, suite.patience + outage);
        Self {
            suite,
            scenario,
            exporter,
            backend,
            delivery,
            books: Books::default(),
            due: BTreeMap::new(),
            names: BTreeMap::new(),
            held: 0,
        }
    }

    /// Runs the scenario; what is wrong is in the books.
    ///
    /// # Errors
    /// When the backend cannot behave as it needs.
    pub(super) fn run<E: TelemetryExporter>(&mut self) -> Result<(), Unsupported> {
        self.books.secrets = secrets::of(&self.backend.config(), &self.exporter.config_schema);
        let samples = self.samples();
        match self.scenario {
            Scenario::OneDeferred | Scenario::OneStalls => self.beside::<E>(samples),
            Scenario::NotFound
            | Scenario::Throttled
            | Scenario::Hang
            | Scenario::CutAnswer
            | Scenario::Outage => self.disturbed::<E>(samples),
            Scenario::DownAtStart => self.late::<E>(samples),
            _ => self.steady::<E>(samples),
        }
    }

    pub(super) fn fill(&self, report: &mut Report) {
        let count = |is: fn(&End) -> bool| self.books.ends.values().filter(|end| is(end)).count();
        report.sent = self.due.len();
        report.calls = self.books.calls;
        report.delivered = count(|end| *end == End::Delivered);
        report.rejected = count(|end| matches!(end, End::Rejected(_)));
        report.dropped = count(|end| matches!(end, End::Dropped(_)));
        report.held = self.held;
        report.errors.clone_from(&self.books.errors);
    }

    /// The scenario's records, with how each is to end.
    fn samples(&mut self) -> Vec<Sample> {
        let numbering = Numbering::new();
        if self.scenario == Scenario::OddRecords {
            return self.odd_samples(&numbering);
        }
        let count = match self.scenario {
            Scenario::SingleRecord => 1,
            Scenario::FullBatch => u32::try_from(self.delivery.max_records()).unwrap_or(u32::MAX),
            _ => self.suite.records,
        };
        let samples = numbering.plain(count);
        for sample in &samples {
            let due = match self.scenario.behaviour().fate_of(sample.id()) {
                Fate::Refuse => Due::Rejected,
                Fate::Take | Fate::Retry | Fate::Stall => Due::Delivered,
            };
            self.due.insert(canonical(sample.id()), due);
        }
        samples
    }

    /// Odd records, each after a plain one.
    fn odd_samples(&mut self, numbering: &Numbering) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (number, (name, sample)) in (0..).zip(odd()) {
            let plain = numbering.give(2 * number, Sample::chat());
            let odd = numbering.give(2 * number + 1, sample);
            self.due.insert(canonical(plain.id()), Due::Delivered);
            self.due.insert(canonical(odd.id()), Due::Accounted);
            self.names.insert(canonical(odd.id()), name);
            samples.extend([plain, odd]);
        }
        samples
    }

    /// The backend behaves in one way all the time.
    fn steady<E: TelemetryExporter>(&mut self, samples: Vec<Sample>) -> Result<(), Unsupported> {
        self.backend.behave(self.scenario.behaviour())?;
        let Some(plugin) = self.create::<E>() else { return Ok(()) };
        self.deliver_all(&plugin, samples, |_, _, _| {});
        let defers = matches!(self.scenario, Scenario::HalfRetried | Scenario::Thirds);
        if defers && self.books.retried == 0 {
            self.books.fault(
                "nothing was to be sent again, though the backend refuses records for now: the plugin overlooks it, \
                 or `Backend::behave` is without effect",
            );
        }
        self.finish(plugin);
        Ok(())
    }

    /// The backend takes all records but one, until all others have come to their end.
    fn beside<E: TelemetryExporter>(&mut self, samples: Vec<Sample>) -> Result<(), Unsupported> {
        let behaviour = self.scenario.behaviour();
        self.backend.behave(behaviour)?;
        let Some(plugin) = self.create::<E>() else { return Ok(()) };
        let others = samples.iter().map(Sample::id).filter(|id| behaviour.fate_of(id) == Fate::Take);
        let others: Vec<String> = others.map(canonical).collect();
        let mut recovery = Recovery::default();
        self.deliver_all(&plugin, samples, |Calls { made, .. }, backend, books| {
            recovery.unless_done(backend, books, |_, books| {
                made >= DEFERRED_CALLS && others.iter().all(|id| books.ends.contains_key(id))
            });
        });
        self.recovered(&recovery)?;
        self.finish(plugin);
        Ok(())
    }

    /// A third of the records goes well; then something happens to the backend, and it recovers.
    fn disturbed<E: TelemetryExporter>(&mut self, mut samples: Vec<Sample>) -> Result<(), Unsupported> {
        self.backend.behave(Behaviour::Accept)?;
        let Some(plugin) = self.create::<E>() else { return Ok(()) };
        let rest = samples.split_off(samples.len() / 3);
        self.deliver(&plugin, samples, |_, _, _| {});
        self.backend.behave(self.scenario.behaviour())?;
        let (scenario, suite, started) = (self.scenario, self.suite, Instant::now());
        let ids: Vec<String> = rest.iter().map(|sample| canonical(sample.id())).collect();
        let mut recovery = Recovery::default();
        self.deliver_all(&plugin, rest, |Calls { made, is_probe }, backend, books| {
            recovery.unless_done(backend, books, |backend, books| match scenario {
                Scenario::Hang | Scenario::Throttled => made >= CALLS,
                Scenario::NotFound => is_probe || made >= SET_UP_CALLS,
                Scenario::CutAnswer => {
                    let has_some = || backend.holds().iter().any(|id| ids.contains(&canonical(id)));
                    let taken = made > 0 && wait_until(suite.settle / CUT_CALLS, has_some);
                    if !taken && made >= CUT_CALLS {
                        books.fault(nothing_taken());
                    }
                    taken || made >= CUT_CALLS
                }
                _ => {
                    if made == 1 {
                        check_health(&plugin, books);
                    }
                    made > 0 && started.elapsed() >= suite.outage
                }
            });
        });
        self.recovered(&recovery)?;
        if scenario == Scenario::Throttled && recovery.done {
            self.check_pause();
        }
        self.finish(plugin);
        Ok(())
    }

    /// A date says a time to the second.
    fn check_pause(&mut self) {
        let least = Behaviour::PAUSE - Duration::from_secs(1);
        if self.books.pause.is_none_or(|pause| pause < least) {
            self.books.fault(format!(
                "the backend asked to be left alone for {:?}, and the plugin did not pass it on \
                 (`ExportError::after`, `Batch::retry_after`)",
                Behaviour::PAUSE
            ));
        }
    }

    /// The backend comes up after the plugin was made.
    fn late<E: TelemetryExporter>(&mut self, samples: Vec<Sample>) -> Result<(), Unsupported> {
        self.backend.behave(Behaviour::Down)?;
        let plugin = match Plugin::<E>::create(self.backend.config()) {
            Ok(plugin) => {
                let plugin = plugin.with_deadline(self.suite.deadline);
                let mut recovery = Recovery::default();
                self.deliver_all(&plugin, samples, |Calls { made, .. }, backend, books| {
                    recovery.unless_done(backend, books, |_, books| {
                        if made == 1 {
                            check_health(&plugin, books);
                        }
                        made >= CALLS
                    });
                });
                self.recovered(&recovery)?;
                plugin
            }
            Err(failure) => {
                self.failed_cleanly(&failure);
                self.backend.behave(Behaviour::Accept)?;
                let Some(plugin) = self.create::<E>() else { return Ok(()) };
                self.deliver_all(&plugin, samples, |_, _, _| {});
                plugin
            }
        };
        self.finish(plugin);
        Ok(())
    }

    fn failed_cleanly(&mut self, failure: &Failure) {
        let Failure { status, message } = failure;
        self.books.text(message);
        let fault = match *status {
            status::PANIC => "`init` panicked while the backend was down",
            status::TIMEOUT => "`init` did not return while the backend was down",
            status::INVALID_CONFIG => "`init` calls its settings invalid because the backend is down",
            _ if message.is_empty() => "`init` failed without a text while the backend was down",
            _ => return,
        };
        self.books.fault(format!("{fault}: {message}"));
    }

    /// An instance, unless it cannot be made.
    fn create<E: TelemetryExporter>(&mut self) -> Option<Plugin<E>> {
        let deadline = match self.scenario {
            Scenario::Hang | Scenario::OneStalls => self.suite.hang_deadline,
            _ => self.suite.deadline,
        };
        match Plugin::create(self.backend.config()) {
            Ok(plugin) => Some(plugin.with_deadline(deadline)),
            Err(failure) => {
                self.books.text(&failure.message);
                self.books.fault(format!("`init` failed: {failure}"));
                None
            }
        }
    }

    /// Delivers the last records.
    fn deliver_all<E: TelemetryExporter>(
        &mut self,
        plugin: &Plugin<E>,
        samples: Vec<Sample>,
        before_call: impl FnMut(Calls, &mut dyn Backend, &mut Books),
    ) {
        self.delivery.admit(samples, &mut self.books);
        self.delivery.close(&mut self.books);
        self.deliver(plugin, Vec::new(), before_call);
    }

    /// Delivers some of the records, and everything that waits.
    fn deliver<E: TelemetryExporter>(
        &mut self,
        plugin: &Plugin<E>,
        samples: Vec<Sample>,
        mut before_call: impl FnMut(Calls, &mut dyn Backend, &mut Books),
    ) {
        let Self { delivery, backend, books, .. } = self;
        delivery.admit(samples, books);
        delivery.run(plugin, books, |calls, books| before_call(calls, *backend, books));
    }

    /// A fault that was over before any call failed has shown nothing.
    fn recovered(&mut self, recovery: &Recovery) -> Result<(), Unsupported> {
        if !recovery.done {
            self.books.fault(format!(
                "every record was settled while the scenario ({}) was still on: the plugin said so without an answer, \
                 or `Backend::behave` is without effect",
                self.scenario
            ));
            self.backend.behave(Behaviour::Accept)?;
        }
        Ok(())
    }

    fn finish<E: TelemetryExporter>(&mut self, plugin: Plugin<E>) {
        check_health(&plugin, &mut self.books);
        self.check_refusals();
        let wrong = self.compare();
        for fault in wrong.into_faults() {
            let fault = self
                .names
                .iter()
                .fold(fault, |fault, (id, name)| fault.replace(id, &format!("{id}: {name}")));
            self.books.fault(fault);
        }
        if plugin.is_stuck() {
            return;
        }
        if let Err(failure) = plugin.close() {
            self.books.text(&failure.message);
            self.books.fault(format!("`shutdown` or `drop` failed: {failure}"));
        }
    }

    /// The gateway makes the best of it, and the records wait; the last ones of a gateway that stops are lost.
    fn check_refusals(&mut self) {
        if self.books.refused > 0 && !self.scenario.refuses() {
            self.books.fault(format!(
                "records were refused for good (`ExportError::reject`) in {} calls, and the backend refuses none",
                self.books.refused
            ));
        }
    }

    /// Asks the backend until nothing is missing, or it had time enough.
    fn compare(&mut self) -> Wrong {
        let deduplicates = self.backend.deduplicates();
        let give_up = Instant::now() + self.suite.settle;
        loop {
            let held = self.backend.holds();
            self.held = held.len();
            let wrong = check(&self.due, &self.books.ends, &held, deduplicates);
            let may_mend = wrong.missing.is_some() && wrong.final_faults.is_empty();
            if !may_mend || Instant::now() >= give_up {
                return wrong;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Whether the backend was told to be well again.
#[derive(Debug, Default)]
struct Recovery {
    done: bool,
}

impl Recovery {
    fn unless_done(
        &mut self,
        backend: &mut dyn Backend,
        books: &mut Books,
        is_due: impl FnOnce(&mut dyn Backend, &mut Books) -> bool,
    ) {
        if self.done || !is_due(backend, books) {
            return;
        }
        self.done = true;
        if let Err(Unsupported(reason)) = backend.behave(Behaviour::Accept) {
            books.fault(format!("the backend cannot recover: {reason}"));
        }
    }
}

fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= give_up {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

fn nothing_taken() -> String {
    format!(
        "after {CUT_CALLS} calls whose answer was cut the backend holds none of the records: it has to take them first \
         (see `Behaviour::CutAnswer`), so nothing was shown about duplicates"
    )
}

/// The gateway asks for it for its readiness: an answer of any kind will do, a fault will not.
fn check_health<E: TelemetryExporter>(plugin: &Plugin<E>, books: &mut Books) {
    let Err(failure) = plugin.health() else { return };
    books.text(&failure.message);
    match failure.status {
        _ if plugin.is_stuck() => books.fault(failure.message),
        status::RETRY if failure.message.is_empty() => {
            books.fault("`health` says unhealthy for no reason: the text is empty".to_owned());
        }
        status::RETRY | status::UNSUPPORTED | status::TIMEOUT => {}
        _ => books.fault(format!("`health` failed: {failure}")),
    }
}
