//! Files that are no plugin, or no good one: each is refused with a sentence of its own, and the process lives.

use std::{fs, process::Command, time::Duration};

use serde_json::json;

use super::probe::{AMPLE, Planted, library, loaded, records, replaced, switched};
use crate::loader::{
    Door, ElfError, FileRequest, LoadError, LoadRequest, Plugin, Stage, describe, examine, exit_at_once,
};

/// Loads it as the gateway does, and returns why it was refused.
async fn refusal(bytes: &[u8]) -> LoadError {
    Planted::new(bytes).load(json!({})).await.unwrap_err()
}

async fn assert_refused(bytes: &[u8], sentence: &str) {
    let error = refusal(bytes).await;
    let text = error.to_string();
    assert!(text.contains(sentence), "expected `{sentence}` in `{text}`");
    assert!(text.contains("libprobe_exporter.so: "), "`{text}` does not name the file");
}

/// A generator of bytes that are the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn a_library_cut_off_anywhere_is_refused_before_it_is_loaded() {
    let whole = library();
    for place in 1..=100 {
        let length = whole.len() * place / 101;
        let error = refusal(&whole[..length]).await;
        let LoadError::Elf { source: ElfError::Truncated { needed, size, .. }, .. } = error else {
            panic!("cut at {length} of {}: {error}", whole.len());
        };
        assert!(size == length as u64 && needed > size, "{error}");
    }
}

#[tokio::test]
async fn a_library_cut_off_in_its_segments_is_told_which_bytes_are_missing() {
    let text = refusal(&library()[..222_692]).await.to_string();
    let sentence = "truncated: a segment needs ";
    assert!(text.contains(sentence) && text.contains(" bytes, the file has 222692"), "{text}");
    assert_refused(&library()[..20], "truncated: an ELF header needs 64 bytes, the file has 20").await;
    assert_refused(&library()[..library().len() - 1], "truncated: the section table needs ").await;
}

#[tokio::test]
async fn what_is_no_library_is_told_by_its_kind() {
    assert_refused(b"", "the file is empty").await;
    assert_refused(&noise(100_000), "it is a file of unknown kind, not an ELF shared library").await;
    assert_refused("[plugins]\n# größe\n".as_bytes(), "it is a text file").await;
    assert_refused(b"#!/bin/sh\nexit 0\n", "it is a script").await;
    assert_refused(b"!<arch>\n/               0", "it is a static library (an archive)").await;
    assert_refused(b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01", "it is a macOS library or program").await;
}

#[tokio::test]
async fn a_library_for_another_machine_is_told_which() {
    let mut foreign = library().to_vec();
    let (number, name) = if cfg!(target_arch = "x86_64") { (183_u16, "aarch64") } else { (62, "x86_64") };
    foreign[18..20].copy_from_slice(&number.to_le_bytes());
    assert_refused(&foreign, &format!("built for {name}, this is {}", std::env::consts::ARCH)).await;

    let mut narrow = library().to_vec();
    narrow[4] = 1;
    assert_refused(&narrow, "it is a 32-bit library, this gateway is 64-bit").await;

    let mut turned = library().to_vec();
    turned[5] = 2;
    assert_refused(&turned, "it is a big-endian library").await;
}

#[tokio::test]
async fn an_executable_is_refused() {
    let this_test = fs::read("/proc/self/exe").unwrap();
    assert_refused(&this_test, "it is an executable, not a shared library").await;

    let mut of_old_kind = library().to_vec();
    of_old_kind[16] = 2;
    assert_refused(&of_old_kind, "it is an executable, not a shared library").await;
}

#[tokio::test]
async fn a_library_that_is_no_plugin_is_refused() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("/libc.so"));
    let libc = fs::read(libc.unwrap()).unwrap();
    assert_refused(&libc, "no exporter entry symbol").await;
}

#[tokio::test]
async fn a_plugin_in_c_is_told_to_wait() {
    let c = replaced(
        library(),
        b"_1as_0lib_1header_0root_bmodule_bloader\0",
        b"magicapi_exporter_v1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    assert_refused(&c, "does not open plugins in C yet").await;
    assert_eq!(examine(&Planted::new(&c).request()).unwrap().door, Door::C);
}

#[tokio::test]
async fn a_plugin_of_another_abi_is_refused_without_running_it() {
    // Were it run, it would end the process.
    let fatal = switched("constructor-exits");
    let newer = replaced(&fatal, br#""abi_version":1"#, br#""abi_version":2"#);
    assert_refused(
        &newer,
        "plugin probe was built for ABI 2, this gateway speaks ABI 1; use a plugin build for 1.x, or gateway ≥ 2.0",
    )
    .await;
}

#[tokio::test]
async fn a_plugin_that_aborts_on_panic_is_refused() {
    let aborting = replaced(library(), br#""panic":"unwind"}"#, br#""panic":"abort" }"#);
    assert_refused(&aborting, "built with `panic = \"abort\"`").await;
    let damaged = replaced(library(), br#"{"name":"probe","version""#, br#"["name":"probe","version""#);
    assert_refused(&damaged, "its MagicAPI note cannot be read").await;
}

#[tokio::test]
async fn a_panic_in_describe_is_refused_with_its_message() {
    assert_refused(&switched("describe-panics"), "`describe` failed (panic): told to panic in describe (at ")
        .await;
}

#[tokio::test]
async fn a_describe_that_never_returns_is_given_up() {
    let planted = Planted::new(&switched("describe-hangs"));
    let limit = Duration::from_secs(3);
    let error = describe(planted.request(), limit).await.unwrap_err();
    assert!(error.to_string().contains("`describe` did not return within 3s"), "{error}");
}

#[tokio::test]
async fn a_create_that_panics_or_fails_is_refused_with_its_message() {
    for (init, sentence) in [
        ("panic", "the plugin could not start (panic): told to panic in init (at "),
        ("fail", "the plugin could not start (fault): told to fail"),
        ("invalid", "the plugin refuses its settings: init: told to be invalid"),
    ] {
        let error = Planted::new(library()).load(json!({ "init": init })).await.unwrap_err();
        assert!(error.to_string().contains(sentence), "{error}");
    }
    let error = Planted::new(library()).load(json!({ "unknown": 1 })).await.unwrap_err();
    assert!(matches!(error, LoadError::InvalidConfig { .. }), "{error}");
}

#[tokio::test]
async fn a_create_that_never_returns_is_given_up() {
    let planted = Planted::new(library());
    let request = LoadRequest {
        create_timeout: Duration::from_secs(4),
        ..planted.load_request(json!({ "init": "hang" }))
    };
    let error = Plugin::load(request).await.unwrap_err();
    assert!(matches!(error, LoadError::TimedOut { stage: Stage::Create, held_by: None, .. }), "{error}");
    assert!(error.to_string().contains("`create` did not return within 4s"), "{error}");
    // Nothing is left in the way of the next plugin.
    loaded(&[]).await.stop(AMPLE).await.unwrap();
}

#[tokio::test]
async fn settings_that_the_gateway_refuses_reach_no_plugin() {
    let planted = Planted::new(library());
    let settings = |description: &plugin_api::Description| Err(format!("{} wants more", description.name));
    let request = LoadRequest { settings: Box::new(settings), ..planted.load_request(json!({})) };
    let error = Plugin::load(request).await.unwrap_err();
    assert!(matches!(error, LoadError::Settings { .. }) && error.to_string().ends_with(": probe wants more"));
}

#[tokio::test]
async fn a_panic_of_the_gateways_own_while_loading_is_an_error() {
    let planted = Planted::new(library());
    let request = LoadRequest { settings: Box::new(|_| panic!("a bug")), ..planted.load_request(json!({})) };
    let error = Plugin::load(request).await.unwrap_err();
    assert!(matches!(error, LoadError::Internal { stage: Stage::Settings, .. }), "{error}");
}

#[tokio::test]
async fn a_group_writable_file_and_a_wrong_hash_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let planted = Planted::new(library());
    fs::set_permissions(&planted.path, fs::Permissions::from_mode(0o664)).unwrap();
    let error = planted.load(json!({})).await.unwrap_err();
    assert!(matches!(error, LoadError::Writable { mode: 0o664, .. }), "{error}");

    fs::set_permissions(&planted.path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut request = planted.load_request(json!({}));
    request.file.sha256 = Some("0".repeat(64));
    let error = Plugin::load(request).await.unwrap_err();
    assert!(matches!(error, LoadError::Pin { .. }), "{error}");
}

#[tokio::test]
async fn a_sound_plugin_is_examined_described_and_loaded() {
    let planted = Planted::new(library());
    let facts = examine(&planted.request()).unwrap();
    assert_eq!((facts.door, facts.size), (Door::Rust, library().len() as u64));
    let note = facts.note.clone().unwrap();
    assert_eq!((&*note.name, note.abi_version, note.panic.as_deref()), ("probe", 1, Some("unwind")));

    let (described, description) = describe(planted.request(), AMPLE).await.unwrap();
    assert_eq!(described, facts);
    assert_eq!(description.name, "probe");
    assert!(description.config_schema.get("properties").is_some_and(|keys| keys.get("script").is_some()));

    let pinned = FileRequest { sha256: Some(facts.sha256.clone()), ..planted.request() };
    let request = LoadRequest { file: pinned, ..planted.load_request(json!({})) };
    let plugin = Plugin::load(request).await.unwrap();
    assert_eq!((plugin.name(), plugin.facts()), ("probe-under-test", &facts));
    let outcome = plugin.export(0, records(3), 0, AMPLE).await.unwrap();
    assert!(outcome.verdicts.is_empty() && outcome.message.is_empty());
    plugin.stop(AMPLE).await.unwrap();
}

#[tokio::test]
async fn a_new_build_at_the_same_path_loads_as_the_new_one() {
    let planted = Planted::new(library());
    let old = planted.load(json!({})).await.unwrap();
    // A new build: another panic message is what tells it apart here.
    planted.install(&replaced(library(), b"told to panic in health", b"a newer build's message"));
    let new = planted.load(json!({ "health": "panic" })).await.unwrap();
    assert_ne!(old.facts().sha256, new.facts().sha256);
    let failure = new.health(AMPLE).await.unwrap_err().to_string();
    assert!(failure.contains("a newer build's message"), "{failure}");
    // The old one goes on as it was, even when its file is overwritten in place.
    fs::write(&planted.path, vec![0; library().len()]).unwrap();
    assert!(old.export(0, records(1), 0, AMPLE).await.is_ok());
}

#[tokio::test]
async fn the_same_file_twice_makes_two_plugins_that_share_nothing() {
    let planted = Planted::new(library());
    let (one, two) = (planted.load(json!({})).await.unwrap(), planted.load(json!({})).await.unwrap());
    one.export(0, records(5), 0, AMPLE).await.unwrap();
    let scrape =
        async |plugin: &Plugin| String::from_utf8(plugin.scrape(0, AMPLE).await.unwrap().unwrap()).unwrap();
    assert!(scrape(&one).await.ends_with("_total 5\n"));
    assert!(scrape(&two).await.ends_with("_total 0\n"));
    // Each is a mapping of its own.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let inodes: std::collections::BTreeSet<_> = maps
        .lines()
        .filter(|line| line.contains("memfd:probe-under-test:libprobe_exporter.so"))
        .filter_map(|line| line.split_whitespace().nth(4))
        .collect();
    assert!(inodes.len() >= 2, "{inodes:?}");
    one.stop(AMPLE).await.unwrap();
    assert!(two.export(0, records(1), 0, AMPLE).await.is_ok());
}

/// A constructor that hangs keeps the system's loader locked for the whole process, so this runs in one of its own.
#[test]
fn a_constructor_that_never_returns_is_given_up_and_named_to_those_who_wait_for_it() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "loader::tests::bad_files::with_a_hanging_constructor"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(42), "{text}");
}

#[tokio::test]
#[ignore = "leaves the loader locked; run in a process of its own by the test above"]
async fn with_a_hanging_constructor() {
    let limit = Duration::from_secs(4);
    let load = async |planted: &Planted| {
        let request = LoadRequest { create_timeout: limit, ..planted.load_request(json!({})) };
        Plugin::load(request).await.unwrap_err()
    };
    let (hanging, sound) = (Planted::new(&switched("constructor-hangs")), Planted::new(library()));
    let error = load(&hanging).await;
    assert!(error.to_string().contains("a constructor of the library did not return within 4s"), "{error}");
    assert!(error.holds_the_loader());

    let error = load(&sound).await;
    let culprit = format!("a constructor of {} never returned", hanging.path.display());
    assert!(error.to_string().contains(&culprit), "{error}");
    // The harness could not even report: its thread would block on its way out.
    exit_at_once(42);
}
