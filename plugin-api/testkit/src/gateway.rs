//! The gateway's side of the boundary: what a plugin is called with, and what it may call.

use std::{cell::RefCell, ffi::c_void, ptr, sync::mpsc, time::Duration};

use plugin_api::{
    Content, TelemetryExporter,
    abi::{
        self, ABI_VERSION, BatchV1, HostV1, Instance, Level, Part, Sink, Slice, Status, level, part, status,
        verdict,
    },
    door::function_table,
};

use crate::{
    outcome::{Failure, Outcome, Verdict},
    sample::Records,
};

pub(super) type Job = Box<dyn FnOnce(Instance) + Send>;

/// The instance's thread, from `create` to `destroy`.
pub(super) fn run<E: TelemetryExporter>(
    config: &str,
    ready: &mpsc::Sender<Result<(), Failure>>,
    inbox: &mpsc::Receiver<Job>,
) -> Result<(), Failure> {
    let table = function_table::<E>();
    let info = r#"{"gateway_version":"1.0.0","instance":"test","service_name":"test","environment":"test"}"#;
    let host = HostV1 {
        struct_size: size_of_u32::<HostV1>(),
        abi_version: ABI_VERSION,
        context: ptr::null_mut(),
        info: Slice::of(info.as_bytes()),
        max_level: level::OFF,
        log: ignore_log,
        get_extension: no_extension,
    };
    let mut instance: Instance = ptr::null_mut();
    let created = heard(|sink| (table.create)(Slice::of(config.as_bytes()), &host, sink, &mut instance));
    let failed = created.is_err();
    if ready.send(created.map(drop)).is_err() || failed {
        return Ok(());
    }
    while let Ok(job) = inbox.recv() {
        job(instance);
    }
    heard(|sink| (table.destroy)(instance, sink)).map(drop)
}

/// One call of `export`.
pub(super) struct Call {
    pub records: Records,
    pub content: Content,
    /// How often the batch was sent before.
    pub attempt: u32,
    pub deadline: Duration,
}

pub(super) fn export<E: TelemetryExporter>(instance: Instance, call: Call) -> Outcome {
    let length = call.records.len();
    let under_way = UnderWay {
        outcome: RefCell::new(Outcome {
            status: status::OK,
            message: String::new(),
            verdicts: vec![None; length],
            retry_after: None,
            faults: Vec::new(),
        }),
        call,
    };
    let batch = BatchV1 {
        struct_size: size_of_u32::<BatchV1>(),
        attempt: under_way.call.attempt,
        context: ptr::from_ref(&under_way).cast_mut().cast(),
        length,
        deadline_ms: milliseconds(under_way.call.deadline),
        part: part_of,
        verdict: judge,
        retry_after: wait,
    };
    let answer = heard(|sink| (function_table::<E>().export)(instance, &batch, sink));
    let mut outcome = under_way.outcome.into_inner();
    if let Err(failure) = answer {
        (outcome.status, outcome.message) = (failure.status, failure.message);
    }
    if outcome.status == status::PER_RECORD && outcome.verdicts.contains(&None) {
        outcome.faults.push("a record without a verdict, though every one should have its own".to_owned());
    }
    outcome
}

/// What the context of a [`BatchV1`] points to.
struct UnderWay {
    call: Call,
    outcome: RefCell<Outcome>,
}

impl UnderWay {
    /// # Safety
    /// `context` is that of a batch made by [`export`], during its call.
    unsafe fn of<'a>(context: *mut c_void) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*context.cast::<Self>() }
    }
}

extern "C" fn part_of(context: *mut c_void, index: usize, part: Part) -> Slice {
    // SAFETY: a plugin passes on the context it was given, during the call.
    let call = unsafe { &UnderWay::of(context).call };
    let Some(record) = call.records.0.get(index) else { return Slice::EMPTY };
    match part {
        part::METRICS => Slice::of(&record.metrics),
        part::REQUEST if call.content == Content::Full => Slice::of(&record.request),
        part::RESPONSE if call.content == Content::Full => Slice::of(&record.response),
        _ => Slice::EMPTY,
    }
}

extern "C" fn judge(context: *mut c_void, index: usize, verdict: abi::Verdict, reason: Slice) {
    // SAFETY: as in `part_of`.
    let (call, reason) = unsafe { (UnderWay::of(context), reason.as_bytes()) };
    let reason = String::from_utf8_lossy(reason).into_owned();
    let mut outcome = call.outcome.borrow_mut();
    let given = match verdict {
        verdict::DELIVERED => Verdict::Delivered,
        verdict::RETRY => Verdict::Retry(reason),
        verdict::REJECTED => Verdict::Rejected(reason),
        unknown => return outcome.faults.push(format!("verdict {unknown} does not exist")),
    };
    match outcome.verdicts.get_mut(index) {
        Some(place) => *place = Some(given),
        None => outcome.faults.push(format!("a verdict on record {index}, which is not in the batch")),
    }
}

extern "C" fn wait(context: *mut c_void, milliseconds: u64) {
    // SAFETY: as in `part_of`.
    let call = unsafe { UnderWay::of(context) };
    call.outcome.borrow_mut().retry_after = Some(Duration::from_millis(milliseconds));
}

/// Makes a call and hears what it writes to its sink: the answer after `OK`, else the error's text.
pub(super) fn heard(call: impl FnOnce(*const Sink) -> Status) -> Result<String, Failure> {
    let text = RefCell::new(Vec::new());
    let status = call(&Sink { context: ptr::from_ref(&text).cast_mut().cast(), write: append });
    let text = String::from_utf8_lossy(&text.into_inner()).into_owned();
    if status == status::OK { Ok(text) } else { Err(Failure { status, message: text }) }
}

extern "C" fn append(context: *mut c_void, bytes: Slice) {
    // SAFETY: the context is that of `heard`, during its call; the slice is valid for this one.
    let (text, bytes) = unsafe { (&*context.cast::<RefCell<Vec<u8>>>(), bytes.as_bytes()) };
    text.borrow_mut().extend_from_slice(bytes);
}

extern "C" fn ignore_log(_: *mut c_void, _: Level, _: Slice, _: Slice, _: Slice) {}

extern "C" fn no_extension(_: *mut c_void, _: Slice) -> *const c_void {
    ptr::null()
}

pub(super) fn extension<E: TelemetryExporter, T>(name: &str) -> &'static T {
    let table = (function_table::<E>().get_extension)(Slice::of(name.as_bytes()));
    // SAFETY: the extension of that name is a static `T`; every exporter that `plugin_api` makes a table of has it.
    unsafe { &*table.cast::<T>() }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
