//! Plugins that break the contract in ways that the SDK cannot: tables made by hand.

use plugin_api::{
    Content,
    abi::{ABI_VERSION, BatchV1, HostV1, Instance as Raw, Sink},
};
use serde_json::json;

use super::*;

const DESCRIPTION: &str = r#"{"name": "lies", "version": "1\n2", "api_version": "1.0.0", "content": "full",
    "batch": {"max_records": 1, "max_bytes": 1, "max_delay_ms": 1}, "config_schema": true}"#;

fn say(sink: *const Sink, text: &[u8]) {
    // SAFETY: the loader passes a sink that is never freed.
    unsafe { ((*sink).write)((*sink).context, Slice::of(text)) };
}

extern "C" fn describe(out: *const Sink) -> Status {
    say(out, DESCRIPTION.as_bytes());
    status::OK
}

extern "C" fn create(_: Slice, _: *const HostV1, _: *const Sink, instance: *mut Raw) -> Status {
    // SAFETY: the loader passes a place that is never freed.
    unsafe { instance.write(ptr::without_provenance_mut(8)) };
    status::OK
}

extern "C" fn export(_: Raw, _: *const BatchV1, error: *const Sink) -> Status {
    say(error, b"nonsense");
    4711
}

extern "C" fn flush(_: Raw, _: u64, error: *const Sink) -> Status {
    say(error, &[b'x'; 3 * MAX_MESSAGE]);
    status::RETRY
}

extern "C" fn destroy(_: Raw, _: *const Sink) -> Status {
    status::OK
}

extern "C" fn no_extension(_: Slice) -> *const c_void {
    ptr::null()
}

/// A table that keeps to the contract as little as possible.
pub(in crate::loader) fn table() -> ExporterV1 {
    ExporterV1 {
        struct_size: 56,
        abi_version: ABI_VERSION,
        describe,
        create,
        export,
        flush,
        destroy,
        get_extension: no_extension,
    }
}

fn library(table: ExporterV1) -> Library {
    Library::new(table, "/p/x.so".into(), Origin::leak("x", "/p/x.so".as_ref()))
}

fn instance(table: ExporterV1) -> Instance {
    library(table).create("lies", &json!({}), &HostInfo::default()).unwrap()
}

struct One;

impl BatchSource for One {
    fn len(&self) -> usize {
        1
    }

    fn part(&self, _: usize, _: u32) -> &[u8] {
        b"{}"
    }
}

#[test]
fn a_description_is_read_and_its_texts_are_made_plain() {
    let description = library(table()).describe().unwrap();
    assert_eq!((&*description.name, &*description.version), ("lies", "1 2"));
}

#[test]
fn a_description_that_is_wrong_is_refused_with_what_is_wrong() {
    extern "C" fn nothing(_: *const Sink) -> Status {
        status::OK
    }
    extern "C" fn no_json(out: *const Sink) -> Status {
        say(out, b"\xff{");
        status::OK
    }
    extern "C" fn a_bad_name(out: *const Sink) -> Status {
        say(out, DESCRIPTION.replace("lies", "../Lies").as_bytes());
        status::OK
    }
    extern "C" fn no_records(out: *const Sink) -> Status {
        say(out, DESCRIPTION.replace(r#""max_records": 1"#, r#""max_records": 0"#).as_bytes());
        status::OK
    }
    extern "C" fn endless(out: *const Sink) -> Status {
        let part = vec![b' '; MAX_DESCRIPTION / 2 + 1];
        say(out, &part);
        say(out, &part);
        status::OK
    }
    let wrong: [(extern "C" fn(*const Sink) -> Status, &str); 5] = [
        (nothing, "EOF while parsing"),
        (no_json, "expected value"),
        (a_bad_name, "its `name` is not of lower-case letters"),
        (no_records, "its `batch.max_records` is 0"),
        (endless, "it is longer than 4194304 bytes"),
    ];
    for (describe, sentence) in wrong {
        let error = library(ExporterV1 { describe, ..table() }).describe().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("its descriptor is wrong: ") && text.contains(sentence), "{text}");
    }
}

#[test]
fn a_status_that_does_not_exist_is_a_fault() {
    let outcome = instance(table()).export(&One, 0, Duration::from_secs(1));
    assert_eq!(outcome.status, CallStatus::Fault);
    assert!(outcome.message.contains("status 4711"), "{outcome:?}");
}

#[test]
fn a_status_that_the_call_cannot_have_is_a_fault() {
    extern "C" fn of_create(_: Raw, _: *const BatchV1, _: *const Sink) -> Status {
        status::INVALID_CONFIG
    }
    let outcome = instance(ExporterV1 { export: of_create, ..table() }).export(&One, 0, Duration::ZERO);
    assert_eq!(outcome.status, CallStatus::Fault);
}

#[test]
fn a_message_is_cut_to_its_bound() {
    let report = instance(table()).flush(Duration::MAX);
    assert_eq!((report.status, report.message.chars().count()), (CallStatus::Retry, MAX_MESSAGE + 1));
}

#[test]
fn a_create_that_stores_nothing_is_refused() {
    extern "C" fn forgetful(_: Slice, _: *const HostV1, _: *const Sink, _: *mut Raw) -> Status {
        status::OK
    }
    let library = library(ExporterV1 { create: forgetful, ..table() });
    let error = library.create("lies", &json!({}), &HostInfo::default()).unwrap_err();
    assert!(error.to_string().contains("stored no instance"), "{error}");
}

#[test]
fn a_plugin_without_extensions_has_no_metrics_and_cannot_tell_its_health() {
    let instance = instance(table());
    assert_eq!(instance.scrape(0), Ok(None));
    assert_eq!(instance.health(Duration::from_secs(1)), Ok(Health::Unknown));
    assert_eq!(instance.destroy().status, CallStatus::Ok);
}

#[test]
fn an_extension_that_is_too_small_or_crooked_is_not_used() {
    extern "C" fn small(_: Slice) -> *const c_void {
        // An address that is a multiple of 8 with a size of 4 in it.
        static TABLE: [u64; 1] = [4];
        TABLE.as_ptr().cast()
    }
    extern "C" fn crooked(_: Slice) -> *const c_void {
        ptr::without_provenance(0x1001)
    }
    for get_extension in [small, crooked] {
        assert_eq!(instance(ExporterV1 { get_extension, ..table() }).scrape(0), Ok(None));
    }
}

#[test]
fn what_settings_need_is_asked_before_there_is_an_instance() {
    /// Says its settings again: a test passes the answer.
    extern "C" fn content(config: Slice, out: *const Sink) -> Status {
        // SAFETY: the loader passes a slice that is valid for the call.
        say(out, unsafe { config.as_bytes() });
        status::OK
    }
    extern "C" fn extension(name: Slice) -> *const c_void {
        static TABLE: ContentV1 = ContentV1 { struct_size: 16, content };
        // SAFETY: the loader passes a slice that is valid for the call.
        let is_known = unsafe { name.as_bytes() } == CONTENT_V1.as_bytes();
        if is_known { ptr::from_ref(&TABLE).cast() } else { ptr::null() }
    }
    let library = |get_extension| library(ExporterV1 { get_extension, ..table() });
    let body = "a metric reads\na body";
    for (answer, expected) in [
        (json!({ "content": "metadata" }), Some(ContentNeed::new(Content::Metadata))),
        (
            json!({ "content": "full", "required": { "content": "full", "reason": body }, "of_a_later_release": 1 }),
            Some(ContentNeed::new(Content::Metadata).requires(Content::Full, "a metric reads a body")),
        ),
        (json!({ "content": "of a later release" }), None),
        (json!([]), None),
    ] {
        assert_eq!(library(extension).content(&answer).unwrap(), expected, "{answer}");
        assert_eq!(library(no_extension).content(&answer).unwrap(), None);
    }
}
