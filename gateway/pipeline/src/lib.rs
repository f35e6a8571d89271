//! What is decided about the records of one exporter, from the moment they are offered to it until each is delivered,
//! rejected or dropped: queue, batches, retries, pauses, circuit breaker, rate limit and books.
//!
//! All of it is one value, [`Pipeline`], that changes by four functions. They take the time as an argument and do
//! nothing else: no clock, no I/O, no waiting, no logging, no callback.
//!
//! | function | what it does |
//! |---|---|
//! | [`Pipeline::admit`] | takes records in, and sheds or drops by the policy |
//! | [`Pipeline::next`] | a batch to send, or until when to wait, or closed |
//! | [`Pipeline::settle`] | enters what became of a batch |
//! | [`Pipeline::abandon`] | accounts for everything that is left |
//!
//! What is to be done about it (records to write down, things to tell, memory to free) comes back as [`Effects`]. Whoever
//! keeps a pipeline behind a lock acts on them, and drops them, after the lock.
//!
//! The gateway, its `replay` and the exporters' conformance suite all decide by this crate.
//!
//! # Who waits for whom
//!
//! *A verdict speaks of the record, a failed call speaks of the backend.* A record that its own verdict sends back is
//! parked with a due time of its own; fresh records go past it. A call that fails as a whole pauses the exporter, and its
//! batch is tried again first, once: after that it takes turns with everything else. A batch that fails again while others
//! are delivered is split until the record that no backend can digest is alone; where there is no other, a single record
//! of it is sent to find out. While the backend seems to be down, fresh records are sent one at a time: enough to learn
//! that it takes them, and no more than that are used up.
//!
//! So whatever the backend does, once a fresh record has waited for `max_delay` and calls are permitted, one of
//! [`Pipeline::patience`] calls has a fresh record in it.
//!
//! A call that is refused as a whole is split, too. The refusal of a record alone counts for good only when the backend has
//! taken another one since the first refused call that the record was in: else it is the set-up that is at fault, and after
//! [`SETUP_REFUSALS`] such records the breaker opens and all of them wait.
//!
//! | module | what it is |
//! |---|---|
//! | `pipeline` | the value and its functions; `admit`, `next`, `settle` by file |
//! | `waiting` | what waits: fresh, to be sent again, parked |
//! | `judge` | from a call's outcome to what becomes of each record |
//! | `breaker`, `backoff`, `rate` | when a call may be made |
//! | `time` | times to come |
//! | `books` | where every record went |
//! | `policy`, `effects` | what goes in beside records, and what comes out |
//! | `shed` | what a record loses first where it is too large |

mod admit;
mod backoff;
mod batch;
mod books;
mod breaker;
mod effects;
mod judge;
mod next;
mod pipeline;
mod policy;
mod rate;
mod settle;
mod shed;
mod time;
mod waiting;

pub use self::{
    admit::{Arrival, Room},
    backoff::Retry,
    batch::{Batch, BatchId, Next, Outcome, Verdict},
    books::{Books, DropReason, RejectReason, Snapshot},
    breaker::{BreakerState, CircuitBreaker},
    effects::{Cause, Effects, GivenUp, Notice, Opened},
    pipeline::Pipeline,
    policy::{BatchLimits, BatchSettings, Capacity, OnFull, Policy, Settings},
    rate::RateLimits,
    settle::SETUP_REFUSALS,
    shed::Shed,
};
