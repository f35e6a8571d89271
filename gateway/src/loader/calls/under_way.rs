//! One call under way, and the callbacks through which the plugin speaks during it.
//!
//! **Contexts are tickets, not pointers.** What a plugin gets as `context` is a number that is given out once and
//! is valid for one call. A plugin that keeps it, and calls back when the call is over or from a thread of its own,
//! finds nothing and does no harm; the next call has another number. The structs that hold the callbacks are leaked,
//! one set for each thread that makes calls, so that a plugin that kept their address reads no freed memory either.
//!
//! **Two ways to a call.** A callback nearly always comes from the very thread that made the call: then the call
//! waits further down on the same stack, and a thread-local leads to it in a few nanoseconds. From other threads it
//! is looked up among all open calls under a lock that the end of the call waits for.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::c_void,
    panic::{self, AssertUnwindSafe},
    ptr,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plugin_api::abi::{BatchV1, Sink, Slice, verdict};

use super::{BatchSource, RecordVerdict};
use crate::loader::plain_text::plain_text;

/// Longest reason that is kept of a verdict.
const MAX_REASON: usize = 512;
/// Longest wait that a plugin may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

static NEXT_TICKET: AtomicUsize = AtomicUsize::new(1);
static OPEN: RwLock<BTreeMap<usize, Pointer>> = RwLock::new(BTreeMap::new());

thread_local! {
    static CURRENT: Cell<*const UnderWay<'static>> = const { Cell::new(ptr::null()) };
    static TABLES: Cell<*mut Tables> = const { Cell::new(ptr::null_mut()) };
}

/// A call under way.
pub(super) struct UnderWay<'a> {
    ticket: usize,
    batch: Option<&'a dyn BatchSource>,
    text: Mutex<Text>,
    verdicts: Mutex<Verdicts>,
}

/// What the plugin said during a call.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What was written to the sink.
    pub(super) text: Vec<u8>,
    /// Whether it wrote more than was taken.
    pub(super) cut: bool,
    pub(super) verdicts: Verdicts,
}

#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Empty until the first verdict, then as long as the batch.
    pub(super) given: Vec<Option<RecordVerdict>>,
    pub(super) faults: u32,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Debug)]
struct Text {
    bytes: Vec<u8>,
    limit: usize,
    cut: bool,
}

/// What the body of a call passes on to the plugin.
pub(super) struct Callbacks {
    pub(super) sink: *const Sink,
    tables: *mut Tables,
    ticket: usize,
    length: usize,
}

impl Callbacks {
    /// The batch of this call, as the plugin sees it.
    pub(super) fn batch(&self, attempt: u32, deadline_ms: u64) -> *const BatchV1 {
        let batch = BatchV1 {
            struct_size: const { size_of::<BatchV1>() as u32 },
            attempt,
            context: ptr::without_provenance_mut(self.ticket),
            length: self.length,
            deadline_ms,
            part,
            verdict: judge,
            retry_after,
        };
        // SAFETY: leaked, and written to by this thread alone, between the calls that it makes.
        unsafe {
            let place = &raw mut (*self.tables).batch;
            place.write(batch);
            place
        }
    }
}

impl<'a> UnderWay<'a> {
    /// Makes one call: `body` calls a function of the plugin's table. `limit` bounds what is taken from its sink.
    pub(super) fn run<R>(
        batch: Option<&'a dyn BatchSource>,
        limit: usize,
        body: impl FnOnce(&Callbacks) -> R,
    ) -> (R, Said) {
        let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        let text = Mutex::new(Text { bytes: Vec::new(), limit, cut: false });
        let call = UnderWay { ticket, batch, text, verdicts: Mutex::default() };
        let length = batch.map_or(0, BatchSource::len);
        let answer = {
            let _open = Opened::new(&call);
            let tables = tables();
            // SAFETY: leaked, and written to by this thread alone, between the calls that it makes.
            let sink = unsafe {
                let place = &raw mut (*tables).sink;
                place.write(Sink { context: ptr::without_provenance_mut(ticket), write });
                place
            };
            body(&Callbacks { sink, tables, ticket, length })
        };
        let text = call.text.into_inner().unwrap_or_else(PoisonError::into_inner);
        let verdicts = call.verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
        (answer, Said { text: text.bytes, cut: text.cut, verdicts })
    }

    fn append(&self, bytes: &[u8]) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let room = text.limit - text.bytes.len();
        text.cut |= bytes.len() > room;
        text.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn part(&self, index: usize, part: u32) -> Slice {
        match self.batch {
            Some(batch) if index < batch.len() => Slice::of(batch.part(index, part)),
            _ => Slice::EMPTY,
        }
    }

    fn judge(&self, index: usize, verdict: u32, reason: &[u8]) {
        let length = self.batch.map_or(0, BatchSource::len);
        let reason = || plain_text(reason, MAX_REASON);
        let verdict = match verdict {
            verdict::DELIVERED => Some(RecordVerdict::Delivered),
            verdict::RETRY => Some(RecordVerdict::Retry { reason: reason() }),
            verdict::REJECTED => Some(RecordVerdict::Rejected { reason: reason() }),
            _ => None,
        };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdict.is_none() || index >= length {
            verdicts.faults = verdicts.faults.saturating_add(1);
            return;
        }
        if verdicts.given.is_empty() {
            verdicts.given.resize(length, None);
        }
        verdicts.given[index] = verdict;
    }

    fn retry_after(&self, delay: Duration) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.retry_after = Some(delay.min(MAX_RETRY_AFTER));
    }
}

/// Makes a call known to the callbacks, for as long as it lives.
struct Opened {
    ticket: usize,
}

impl Opened {
    fn new(call: &UnderWay<'_>) -> Self {
        let pointer = ptr::from_ref(call).cast::<UnderWay<'static>>();
        OPEN.write().unwrap_or_else(PoisonError::into_inner).insert(call.ticket, Pointer(pointer));
        CURRENT.set(pointer);
        Self { ticket: call.ticket }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
        // Waits for callbacks from other threads that are in the middle of it.
        OPEN.write().unwrap_or_else(PoisonError::into_inner).remove(&self.ticket);
    }
}

struct Pointer(*const UnderWay<'static>);

// SAFETY: what it points to is `Sync` (see below), and `Opened` removes it before that goes away.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

const _: () = {
    const fn is_sync<T: Sync>() {}
    is_sync::<UnderWay<'static>>();
};

/// Finds the call that a context belongs to. `absent` when it is over, or never was.
fn with_call<R>(context: *mut c_void, absent: R, act: impl FnOnce(&UnderWay<'_>) -> R) -> R {
    let ticket = context.addr();
    let current = CURRENT.get();
    // SAFETY: `Opened` sets it to a call that waits further down on this thread's stack, and clears it at its end.
    if let Some(call) = unsafe { current.as_ref() }
        && call.ticket == ticket
    {
        return act(call);
    }
    let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
    match open.get(&ticket) {
        // SAFETY: `Opened` takes a call out under the write lock before it goes away; this holds the read lock.
        Some(Pointer(call)) => act(unsafe { &**call }),
        None => absent,
    }
}

/// The structs that plugins see: one set for each thread, never freed.
struct Tables {
    sink: Sink,
    batch: BatchV1,
}

fn tables() -> *mut Tables {
    if TABLES.get().is_null() {
        let sink = Sink { context: ptr::null_mut(), write };
        let batch = BatchV1 {
            struct_size: 0,
            attempt: 0,
            context: ptr::null_mut(),
            length: 0,
            deadline_ms: 0,
            part,
            verdict: judge,
            retry_after,
        };
        TABLES.set(Box::into_raw(Box::new(Tables { sink, batch })));
    }
    TABLES.get()
}

extern "C" fn write(context: *mut c_void, bytes: Slice) {
    // SAFETY: the ABI promises bytes that are valid for this call.
    let bytes = unsafe { borrow(bytes) };
    contained((), || with_call(context, (), |call| call.append(bytes)));
}

extern "C" fn part(context: *mut c_void, index: usize, part: u32) -> Slice {
    contained(Slice::EMPTY, || with_call(context, Slice::EMPTY, |call| call.part(index, part)))
}

extern "C" fn judge(context: *mut c_void, index: usize, verdict: u32, reason: Slice) {
    // SAFETY: the ABI promises bytes that are valid for this call.
    let reason = unsafe { borrow(reason) };
    contained((), || with_call(context, (), |call| call.judge(index, verdict, reason)));
}

extern "C" fn retry_after(context: *mut c_void, milliseconds: u64) {
    contained((), || with_call(context, (), |call| call.retry_after(Duration::from_millis(milliseconds))));
}

/// A slice of the plugin's. A length that cannot be is taken for nothing.
///
/// # Safety
/// The ABI's promise for slices: valid for its length while the call lasts.
pub(super) unsafe fn borrow<'a>(slice: Slice) -> &'a [u8] {
    if slice.length > isize::MAX as usize {
        return &[];
    }
    // SAFETY: the caller's promise, and the length is one that a slice can have.
    unsafe { slice.as_bytes() }
}

/// Nothing of ours unwinds into a plugin.
pub(super) fn contained<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(answer) => answer,
        Err(payload) => {
            // Dropping a payload may panic in turn.
            std::mem::forget(payload);
            otherwise
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Records(Vec<Vec<u8>>);

    impl BatchSource for Records {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn part(&self, index: usize, part: u32) -> &[u8] {
            if part == 0 { &self.0[index] } else { &[] }
        }
    }

    fn records() -> Records {
        Records(vec![b"zero".to_vec(), b"one".to_vec()])
    }

    /// What a plugin would do with the batch it was given.
    fn read(batch: *const BatchV1, index: usize, part: u32) -> Vec<u8> {
        // SAFETY: tests pass the batch of a call; its table is never freed.
        unsafe { ((*batch).part)((*batch).context, index, part).as_bytes().to_vec() }
    }

    #[test]
    fn a_batch_is_read_by_index_and_part_and_nothing_else_is_there() {
        let records = records();
        UnderWay::run(Some(&records), 0, |call| {
            let batch = call.batch(0, 0);
            assert_eq!(read(batch, 1, 0), b"one");
            assert_eq!(read(batch, 1, 7), b"");
            assert_eq!(read(batch, 2, 0), b"");
            assert_eq!(read(batch, usize::MAX, 0), b"");
        });
    }

    #[test]
    fn other_threads_reach_a_call_while_it_lasts() {
        let records = records();
        let ((), said) = UnderWay::run(Some(&records), 100, |call| {
            let (batch, sink) = (call.batch(0, 0).expose_provenance(), call.sink.expose_provenance());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let batch = ptr::with_exposed_provenance::<BatchV1>(batch);
                    let sink = ptr::with_exposed_provenance::<Sink>(sink);
                    assert_eq!(read(batch, 0, 0), b"zero");
                    // SAFETY: both are never freed.
                    unsafe {
                        ((*batch).verdict)((*batch).context, 1, verdict::REJECTED, Slice::of(b"bad\n"));
                        ((*sink).write)((*sink).context, Slice::of(b"from afar"));
                    }
                });
            });
        });
        assert_eq!(said.text, b"from afar");
        assert_eq!(said.verdicts.given, [None, Some(RecordVerdict::Rejected { reason: "bad".to_owned() })]);
    }

    #[test]
    fn a_context_that_was_kept_reaches_neither_the_ended_call_nor_the_next() {
        let records = records();
        let (stale, _) = UnderWay::run(Some(&records), 100, |call| {
            // SAFETY: it is the batch of this call.
            unsafe { *call.batch(0, 0) }
        });
        let misuse = || {
            assert_eq!((stale.part)(stale.context, 0, 0).length, 0);
            (stale.verdict)(stale.context, 0, verdict::REJECTED, Slice::EMPTY);
            (stale.retry_after)(stale.context, 5);
            write(stale.context, Slice::of(b"late"));
        };
        misuse();
        let ((), said) = UnderWay::run(Some(&records), 100, |_| misuse());
        assert!(
            said.text.is_empty() && said.verdicts.given.is_empty() && said.verdicts.retry_after.is_none()
        );
        for nonsense in [0, 1, usize::MAX] {
            assert_eq!(part(ptr::without_provenance_mut(nonsense), 0, 0).length, 0);
        }
    }

    #[test]
    fn the_last_verdict_counts_and_a_wrong_one_is_a_fault() {
        let records = records();
        let ((), said) = UnderWay::run(Some(&records), 0, |call| {
            // SAFETY: it is the batch of this call.
            let batch = unsafe { *call.batch(0, 0) };
            let judge = |index, value| (batch.verdict)(batch.context, index, value, Slice::of(b"why"));
            judge(0, verdict::REJECTED);
            judge(0, verdict::DELIVERED);
            judge(2, verdict::DELIVERED);
            judge(1, 77);
            (batch.retry_after)(batch.context, u64::MAX);
        });
        assert_eq!(said.verdicts.given, [Some(RecordVerdict::Delivered), None]);
        assert_eq!(said.verdicts.faults, 2);
        assert_eq!(said.verdicts.retry_after, Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn a_call_without_verdicts_allocates_none() {
        let ((), said) = UnderWay::run(Some(&records()), 0, |_| ());
        assert_eq!(said.verdicts.given.capacity(), 0);
    }

    #[test]
    fn what_is_said_is_bounded() {
        let ((), said) = UnderWay::run(None, 5, |call| {
            // SAFETY: it is the sink of this call.
            let sink = unsafe { *call.sink };
            (sink.write)(sink.context, Slice::of(b"abc"));
            (sink.write)(sink.context, Slice::of(b"def"));
            (sink.write)(sink.context, Slice { pointer: ptr::null(), length: usize::MAX });
        });
        assert_eq!(said.text, b"abcde");
        assert!(said.cut);
    }

    #[test]
    fn a_panic_of_the_gateways_own_does_not_reach_the_plugin() {
        struct Broken;
        impl BatchSource for Broken {
            fn len(&self) -> usize {
                1
            }
            fn part(&self, _: usize, _: u32) -> &[u8] {
                panic!("a bug")
            }
        }
        let (length, _) = UnderWay::run(Some(&Broken), 0, |call| read(call.batch(0, 0), 0, 0).len());
        assert_eq!(length, 0);
    }
}
