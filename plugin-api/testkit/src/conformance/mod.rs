//! The conformance suite: does an exporter keep its promises when its backend does not behave?
//!
//! It is run over every exporter that comes with the gateway, and is public so that yours can be shown to be as good.
//! You write one small adapter, a [`Backend`], once; [`conformance_tests!`](crate::conformance_tests) makes a test of
//! every [`Scenario`].
//!
//! ```ignore
//! // tests/conformance.rs
//! use exporter_testkit::{conformance::{Backend, Behaviour, Unsupported}, conformance_tests};
//!
//! struct MyBackend { /* a server, or a fake of one */ }
//! impl Backend for MyBackend { /* four functions */ }
//!
//! conformance_tests!(MyExporter, || MyBackend::start());
//! ```
//!
//! # What is promised
//!
//! The records go through the gateway's own pipeline (the crate `exporter-pipeline`), which decides what is sent in one
//! batch, what is sent again and when, what is split, what loses its bodies and what is given up: what fails here fails
//! there. Only its waits are cut short. When it is done, in every scenario:
//!
//! * every record was delivered, rejected with a reason, or dropped with a reason;
//! * what the plugin called delivered is in the backend: once if the backend [can tell a record that it has
//!   already](Backend::deduplicates), else at least once;
//! * what it called rejected is not there, and neither is anything that was never sent;
//! * no call was [refused for good](plugin_api::ExportError::reject) where the backend refuses nothing;
//! * every call ended within its deadline (and a grace of a second, or a tenth of the deadline);
//! * nothing panicked, no verdict was missing or on a record that does not exist, no failure was without a text;
//! * no text contained a setting that the schema marks `x-secret`;
//! * `health` answered, `shutdown` succeeded.
//!
//! | scenario | the backend | what is demanded beside that, and why |
//! |---|---|---|
//! | [`Accepted`](Scenario::Accepted) | takes everything | everything is delivered |
//! | [`SingleRecord`](Scenario::SingleRecord) | takes everything | a batch of one is a batch; the gateway makes many at night |
//! | [`FullBatch`](Scenario::FullBatch) | takes everything | one batch as large as the descriptor allows: the plugin chose the number itself |
//! | [`OddRecords`](Scenario::OddRecords) | takes what it can | clients send zero bytes, lone surrogates, numbers beyond 64 bits, 3,000 brackets; each is delivered or rejected alone, and the plain records between them are delivered |
//! | [`HalfRetried`](Scenario::HalfRetried) | refuses half the first time | everything is delivered; a partial failure is no success |
//! | [`HalfRejected`](Scenario::HalfRejected) | refuses half for good | exactly those are rejected: a bad record takes no other with it |
//! | [`Thirds`](Scenario::Thirds) | takes, defers and refuses a third each | each third gets its own verdict, in one batch |
//! | [`OneDeferred`](Scenario::OneDeferred) | refuses one record for now, whenever it comes | all others are delivered meanwhile, and that one when it is taken: the verdict on one record is not that on its neighbours |
//! | [`OneStalls`](Scenario::OneStalls) | does not answer a request that holds one record | the same; the call ends by its deadline |
//! | [`NotFound`](Scenario::NotFound) | answers 404, or has lost the table | nothing is rejected, and everything is delivered when the address is right: no record is to blame |
//! | [`Throttled`](Scenario::Throttled) | asks for a pause of 2 s (429 with `Retry-After`) | the plugin [passes it on](plugin_api::ExportError::after) |
//! | [`Hang`](Scenario::Hang) | accepts and never answers, then recovers | the call ends by its deadline, nothing is lost: do not block the thread |
//! | [`CutAnswer`](Scenario::CutAnswer) | takes the records, breaks the connection in its answer | everything is sent again, and is there once: this is where duplicates come from |
//! | [`Outage`](Scenario::Outage) | is gone for 30 s in the middle | everything is delivered afterwards: reconnect |
//! | [`DownAtStart`](Scenario::DownAtStart) | comes up after the gateway | `init` succeeds, or fails with a text, and works later |
//!
//! A behaviour that a backend of some kind cannot have ([`Unsupported`]) makes its scenario *not applicable*: that is
//! written to standard error, also where the test harness captures the output of tests, and is never called passed.
//!
//! # Refused as a whole
//!
//! [`ExportError::reject`](plugin_api::ExportError::reject) says that the backend refused a request, and leaves open
//! whether a record is to blame or the set-up. The gateway finds out: it splits the batch, and a record that is refused
//! alone is rejected for good once the backend has taken another one. Until then it waits; when several are refused alone
//! and none is taken, the set-up is at fault, the circuit breaker opens, and all of them wait. A verdict
//! ([`Record::reject`](plugin_api::Record::reject)) is final: give it when the backend spoke of that record.
//!
//! # A complete example
//!
//! An exporter that sends lines over TCP, its backend, and the suite. The backend answers for each record (single
//! records: [`Script`] decides), and a [`Relay`](crate::relay::Relay) in front of it does what happens to connections.
//!
//! ```
#![doc = include_str!("example.rs")]
//!
//! # fn main() {
//! let suite = Suite::new().outage(std::time::Duration::from_millis(300));
//! let report = suite.run::<Lines>(Scenario::Thirds, LineServer::start());
//! assert!(report.is_passed(), "{report}");
//! # }
//! ```
//!
//! # With a real server
//!
//! Put a [`Relay`](crate::relay::Relay) in front of it: hang, cut answers and outages come for nothing. Refused
//! and stalled records can often be had with the server's own means, since [`Behaviour::fate_of`] depends on the id's last four
//! digits alone: a trigger in a database that raises an error, a mapping that some records do not fit. What cannot
//! be had is `Unsupported`; a fake beside the real server can do the rest.
//!
//! The records have ids that no other run has, and time stamps of now. Still, give each backend a table, index or
//! file of its own: the tests run in parallel.
//!
//! # Reading a failure
//!
//! ```text
//! exporter `lines` does not conform: half refused for good
//!   60 records sent in 2 calls: 60 delivered, 0 rejected, 0 dropped; the backend holds 30
//!   - refused by the backend, but called delivered: 30 (019f…0001, 019f…0003, 019f…0005, …)
//!   - called delivered, but not in the backend: 30 (019f…0001, 019f…0003, 019f…0005, …)
//!   last errors of the plugin: none
//! ```
//!
//! The counts often say enough. Here the exporter did not read the answer: it called a whole batch delivered of which
//! the backend took half. An id's last digits are the record's number; that of an odd record is shown with what is odd
//! about it.
//!
//! # Settings of a run
//!
//! `CONFORMANCE_OUTAGE` (`2s`, `500ms`) shortens the outage for a quick run; see [`Suite`] for the rest.

mod backend;
mod books;
mod check;
mod delivery;
mod records;
mod report;
mod secrets;
mod suite;
mod trial;

pub use self::{
    backend::{Backend, Behaviour, Fate, Script, Unsupported},
    report::{Conclusion, Report},
    suite::{Scenario, Suite},
};

/// One `#[test]` for each [`Scenario`](crate::conformance::Scenario), so that they run in parallel.
///
/// The arguments: the exporter's type; a function that starts a backend, called once in each test; and, where the
/// defaults do not fit, a [`Suite`](crate::conformance::Suite).
///
/// ```ignore
/// conformance_tests!(MyExporter, MyBackend::start);
/// conformance_tests!(MyExporter, || MyBackend::start("v2"), Suite::new().records(20));
/// ```
///
/// To run it over several backends, put each into a module of its own.
#[macro_export]
macro_rules! conformance_tests {
    ($exporter:ty, $backend:expr $(,)?) => {
        $crate::conformance_tests!($exporter, $backend, $crate::conformance::Suite::new());
    };
    ($exporter:ty, $backend:expr, $suite:expr $(,)?) => {
        $crate::conformance_tests!(@each $exporter, $backend, $suite;
            everything_is_accepted Accepted,
            a_batch_of_one_is_delivered SingleRecord,
            the_largest_batch_is_delivered FullBatch,
            odd_records_are_delivered_or_rejected_alone OddRecords,
            half_refused_for_now_is_delivered_later HalfRetried,
            half_refused_for_good_is_rejected_and_no_other HalfRejected,
            each_third_gets_its_own_verdict Thirds,
            a_record_refused_for_now_holds_up_no_other OneDeferred,
            a_record_that_is_never_answered_holds_up_no_other OneStalls,
            a_wrong_address_loses_nothing NotFound,
            a_pause_that_the_backend_asks_for_is_passed_on Throttled,
            a_hang_ends_by_the_deadline_and_loses_nothing Hang,
            a_cut_answer_makes_no_duplicates CutAnswer,
            an_outage_loses_nothing Outage,
            a_backend_may_come_up_later DownAtStart,
        );
    };
    (@each $exporter:ty, $backend:expr, $suite:expr; $($name:ident $scenario:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let suite: $crate::conformance::Suite = $suite;
                suite.check::<$exporter>($crate::conformance::Scenario::$scenario, ($backend)());
            }
        )*
    };
}
