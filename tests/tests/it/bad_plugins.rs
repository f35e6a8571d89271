//! Files that are no plugin, or no good one: each is refused with a sentence of its own, and the gateway serves.

use std::{
    collections::HashSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use end_to_end::{Ended, Gateway, Provider, Running, artifacts, magicapi_gateway};

const REQUEST: &str = r#"{"model":"demo","messages":[{"role":"user","content":"Hello"}]}"#;
const FILE_NAME: &str = "libprobe_exporter.so";

/// A file that is to be refused.
struct Bad {
    name: &'static str,
    path: PathBuf,
    /// Further keys of its `[[plugin]]` entry.
    keys: &'static str,
    /// What the refusal says.
    says: &'static str,
}

/// The probe as it would be shipped: without debug information.
fn probe() -> &'static [u8] {
    static STRIPPED: OnceLock<Vec<u8>> = OnceLock::new();
    STRIPPED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("stripped.so");
        let stripped = Command::new("strip").arg("-o").arg(&copy).arg(artifacts::plugin("probe")).status();
        assert!(
            stripped.is_ok_and(|status| status.success()),
            "strip is missing or failed; it comes with the linker"
        );
        fs::read(copy).unwrap()
    })
}

/// The probe with `old` replaced wherever it stands; of the same length, so that nothing moves.
fn probe_with(old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = probe().to_vec();
    let is_old = |place: &usize| probe()[*place..].starts_with(old.as_bytes());
    let places: Vec<usize> = (0..bytes.len()).filter(is_old).collect();
    assert!(!places.is_empty(), "the probe does not hold {old:?}");
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

/// The probe that does this before it has any settings (see `switch.rs` there).
fn switched(position: &str) -> Vec<u8> {
    probe_with(&format!("PROBE-SWITCH={:<24}", "none"), &format!("PROBE-SWITCH={position:<24}"))
}

/// The probe with one byte of its ELF header changed.
fn probe_with_header(offset: usize, value: u8) -> Vec<u8> {
    let mut bytes = probe().to_vec();
    bytes[offset] = value;
    bytes
}

/// Puts a file there as an installer does: whole, and in one step.
fn install(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let (draft, path) = (folder.join(format!("{name}.draft")), folder.join(name));
    fs::write(&draft, bytes).unwrap();
    fs::set_permissions(&draft, Permissions::from_mode(0o644)).unwrap();
    fs::rename(draft, &path).unwrap();
    path
}

/// An ordinary library of the system: one that this process has loaded itself.
fn system_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.find(|path| path.contains("/libc.so")).unwrap().into()
}

/// Bytes without any order, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// One file of each kind that is refused for what it is.
fn bad_files(folder: &Path) -> Vec<Bad> {
    let foreign = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let file = |name: &'static str, bytes: &[u8], says| Bad {
        name,
        path: install(folder, &format!("lib{name}_exporter.so"), bytes),
        keys: "",
        says,
    };
    let at = |name, path: PathBuf, says| Bad { name, path, keys: "", says };
    let open_to_others =
        file("group-writable", probe(), "others can write to it (mode 0664); `chmod go-w` it");
    fs::set_permissions(&open_to_others.path, Permissions::from_mode(0o664)).unwrap();
    vec![
        file("empty", b"", "the file is empty; build or copy the plugin again"),
        file("noise", &noise(100_000), "it is a file of unknown kind, not an ELF shared library"),
        file("text", "[plugins]\n# größe\n".as_bytes(), "it is a text file, not an ELF shared library"),
        file("script", b"#!/bin/sh\nexit 0\n", "it is a script, not an ELF shared library"),
        file("cut", &probe()[..probe().len() / 2], "truncated: "),
        file("machine", &probe_with_header(18, foreign), "use a plugin build for "),
        file("class", &probe_with_header(4, 1), "it is a 32-bit library, this gateway is 64-bit"),
        at(
            "executable",
            "/bin/sh".into(),
            "it is an executable, not a shared library; build the plugin with",
        ),
        at(
            "no-symbol",
            system_library(),
            "no exporter entry symbol: it is a shared library, but no exporter plugin",
        ),
        file(
            "abi",
            &probe_with(r#""abi_version":1"#, r#""abi_version":2"#),
            "plugin probe was built for ABI 2, this gateway speaks ABI 1; use a plugin build for 1.x, or gateway ≥ 2.0",
        ),
        file(
            "describe",
            &switched("describe-panics"),
            "`describe` failed (panic): told to panic in describe",
        ),
        open_to_others,
        at("missing", folder.join("missing.so"), "cannot open it: No such file or directory"),
        at("folder", folder.to_owned(), "it is a folder, not a regular file"),
    ]
}

/// What is refused for what it does, or for what the configuration says of it.
fn bad_entries(folder: &Path) -> Vec<Bad> {
    let sound = install(folder, FILE_NAME, probe());
    let hanging = install(folder, "libhanging_exporter.so", &switched("describe-hangs"));
    let entry = |name, path: &Path, keys, says| Bad { name, path: path.to_owned(), keys, says };
    vec![
        entry(
            "hash",
            &sound,
            "sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
            "the configuration expects 0000",
        ),
        entry(
            "panics",
            &sound,
            "config.init = \"panic\"\n",
            "could not start (panic): told to panic in init",
        ),
        entry("fails", &sound, "config.init = \"fail\"\n", "could not start (fault): told to fail"),
        entry(
            "hangs",
            &sound,
            "config.init = \"hang\"\ncreate_timeout = \"4s\"\n",
            "`create` did not return within 4s; a plugin must not wait for its backend there",
        ),
        entry("hangs-early", &hanging, "create_timeout = \"4s\"\n", "`describe` did not return within 4s"),
    ]
}

/// A gateway with these plugins.
fn with_plugins(gateway: Gateway, bad: &[Bad], keys: &str) -> Gateway {
    bad.iter().fold(gateway, |gateway, bad| {
        gateway.plugin_file(bad.name, &bad.path, &format!("{keys}\n{}", bad.keys))
    })
}

async fn assert_serves(gateway: &Running) {
    assert_eq!(gateway.post("/v1/chat/completions", REQUEST).await.status, 200);
}

#[tokio::test]
async fn plugin_inspect_refuses_each_bad_file_with_a_sentence_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut sentences = HashSet::new();
    for Bad { name, path, says, .. } in bad_files(folder.path()) {
        let path = path.to_str().unwrap();
        let inspected = Ended::of(magicapi_gateway(&["plugin", "inspect", path])).await;
        assert_eq!((inspected.code, inspected.output.as_str()), (Some(1), ""), "{name}: {inspected:?}");
        let [complaint] = inspected.complaints()[..] else { panic!("{name}: {inspected:?}") };
        let sentence =
            complaint.strip_prefix(&format!("{path}: ")).unwrap_or_else(|| panic!("{name}: {complaint}"));
        assert!(sentence.contains(says), "{name}: expected `{says}` in `{sentence}`");
        assert!(sentences.insert(sentence.to_owned()), "{name}: not its own sentence: {sentence}");
    }
}

#[tokio::test]
async fn a_library_cut_at_a_hundred_places_is_refused_each_time_and_the_gateway_serves() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let cut = (1..=100).map(|place| {
        let bytes = &probe()[..probe().len() * place / 101];
        (format!("cut-{place}"), install(folder.path(), &format!("{place}.so"), bytes))
    });
    let gateway = Gateway::new().provider("demo", &provider.url());
    let gateway =
        cut.fold(gateway, |gateway, (name, path)| gateway.plugin_file(&name, &path, "required = false"));
    let gateway = gateway.start().await;
    assert_serves(&gateway).await;
    let plugins = gateway.admin("/plugins").await.json()["plugins"].take();
    let is_refused = |plugin: &&serde_json::Value| {
        plugin["state"] == "not_loaded" && plugin["reason"].as_str().unwrap().contains(": truncated: ")
    };
    assert_eq!(plugins.as_array().unwrap().iter().filter(is_refused).count(), 100, "{plugins:#}");
}

#[tokio::test]
async fn optional_plugins_that_do_not_load_are_left_out_and_shown_with_the_reason() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let mut bad = bad_files(folder.path());
    bad.extend(bad_entries(folder.path()));
    let gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    let gateway = with_plugins(gateway, &bad, "required = false").start().await;
    assert_serves(&gateway).await;
    assert_eq!(gateway.record().await["attributes"]["model"], "demo", "the sound plugin works beside them");
    let metrics = gateway.admin("/metrics").await.text();
    for Bad { name, says, .. } in bad {
        let plugin = gateway.plugin(name).await;
        assert_eq!(plugin["state"], "not_loaded", "{plugin}");
        assert!(plugin["reason"].as_str().unwrap().contains(says), "{name}: {plugin}");
        let warning = format!("plugin=\"{name}\"");
        assert!(gateway.log().lines().any(|line| line.contains("WARN") && line.contains(&warning)), "{name}");
        assert!(metrics.contains(&format!("magicapi_plugin_up{{plugin=\"{name}\"}} 0\n")), "{name}");
    }
    assert!(metrics.contains("magicapi_plugin_up{plugin=\"file\"} 1\n"));
    assert_eq!(gateway.admin("/readyz").await.status, 200, "none of them is required");
}

#[tokio::test]
async fn required_plugins_that_do_not_load_stop_the_start_and_all_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut bad = bad_files(folder.path());
    bad.extend(bad_entries(folder.path()));
    let gateway = with_plugins(Gateway::new().file_exporter(), &bad, "");
    let ended = Ended::of(gateway.command(&[])).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert_eq!(ended.complaints().len(), bad.len(), "{ended:?}");
    for Bad { name, path, says, .. } in bad {
        let prefix = format!("plugin \"{name}\": {}: ", path.display());
        let is_told = ended.complaints().iter().any(|line| line.starts_with(&prefix) && line.contains(says));
        assert!(is_told, "no `{prefix}…{says}` in\n{}", ended.errors);
    }
    assert!(!ended.errors.contains("listening on"), "{}", ended.errors);
}

#[tokio::test]
async fn a_constructor_that_never_returns_stops_the_start_of_a_gateway_that_needs_the_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let path = install(folder.path(), FILE_NAME, &switched("constructor-hangs"));
    let gateway = Gateway::new().plugin_file("hangs", &path, "create_timeout = \"4s\"");
    for arguments in [&[][..], &["check"]] {
        let ended = Ended::of(gateway.command(arguments)).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let sentence = "a constructor of the library did not return within 4s; tell the plugin's author";
        assert_eq!(ended.complaints(), [format!("plugin \"hangs\": {}: {sentence}", path.display())]);
    }
}

#[tokio::test]
async fn a_file_that_others_may_write_to_is_loaded_only_when_that_is_allowed_and_then_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = install(folder.path(), FILE_NAME, probe());
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let gateway = Gateway::new().plugin_file("open", &path, "");
    let refused = Ended::of(gateway.command(&["check"])).await;
    assert_eq!(refused.code, Some(69), "{refused:?}");
    let allowed = Ended::of(gateway.command(&["check", "--allow-insecure-plugins"])).await;
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    let is_warning =
        |line: &str| line.contains("WARN") && line.contains("loading an insecure plugin file, as allowed");
    assert!(allowed.errors.lines().any(is_warning), "{allowed:?}");
}

#[tokio::test]
async fn inspecting_without_loading_runs_no_code_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = install(folder.path(), FILE_NAME, &switched("constructor-exits"));
    let path = path.to_str().unwrap();
    let read = Ended::of(magicapi_gateway(&["plugin", "inspect", "--no-load", path])).await;
    assert_eq!(read.code, Some(0), "{read:?}");
    assert!(
        read.output.contains("probe 1.0.0, ABI 1, rust"),
        "the note is there without running it: {read:?}"
    );
    let run = Ended::of(magicapi_gateway(&["plugin", "inspect", path])).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.errors.contains("was ended with exit code 3"), "its constructor was run elsewhere: {run:?}");
}

#[tokio::test]
async fn a_new_build_at_the_same_path_disturbs_nothing_that_runs_and_is_what_the_next_start_loads() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let path = install(folder.path(), FILE_NAME, probe());
    let gateway = || Gateway::new().provider("demo", &provider.url()).plugin_file("probe", &path, "");
    let old = gateway().start().await;
    let before = old.plugin("probe").await;

    let words = "Fails, stalls, panics, lies and crashes on command";
    let new_words = "Is a newer build of the very same probe, at a path";
    // In place is the worst that an installer can do to a mapped file: both files are gone from under the old gateway.
    fs::write(&path, noise(probe().len())).unwrap();
    install(folder.path(), FILE_NAME, &probe_with(words, new_words));
    assert_serves(&old).await;
    old.wait_for_books("probe", |books| books["delivered"] == 1).await;
    assert_eq!(old.plugin("probe").await["descriptor"], before["descriptor"]);

    let new = gateway().start().await;
    let after = new.plugin("probe").await;
    assert_eq!(
        (&before["descriptor"]["description"], &after["descriptor"]["description"]),
        (&words.into(), &new_words.into())
    );
    assert_ne!(before["file"]["sha256"], after["file"]["sha256"]);
}

#[tokio::test]
async fn entries_of_one_file_are_plugins_that_share_nothing() {
    let provider = Provider::start().await;
    let path = artifacts::plugin("probe");
    let gateway = Gateway::new().provider("demo", &provider.url()).plugin_file(
        "one",
        &path,
        "batch.max_delay = \"1ms\"",
    );
    let gateway =
        gateway.plugin_file("other", &path, "config.script = [\"panic\"]\nbatch.max_delay = \"1ms\"");
    let gateway = gateway.start().await;
    assert_serves(&gateway).await;
    gateway.wait_for_books("one", |books| books["delivered"] == 1).await;
    gateway.wait_for_books("other", |books| books["retries"].as_u64() > Some(0)).await;
    // Each forwards its log by itself, under its own name.
    for name in ["one", "other"] {
        let is_its_own = |line: &str| {
            line.contains("the probe is ready")
                && line.contains(&format!("\"instance\":\"{name}\""))
                && line.contains(&format!("plugin=\"{name}\""))
        };
        assert_eq!(gateway.log().lines().filter(|line| is_its_own(line)).count(), 1, "{}", gateway.log());
    }
}
