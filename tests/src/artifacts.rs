//! The binaries and libraries under test, built once and found by what cargo says of them.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

const PACKAGES: [&str; 11] = [
    "magicapi-gateway",
    "demo-provider",
    "console-exporter",
    "datadog-exporter",
    "elasticsearch-exporter",
    "file-exporter",
    "newrelic-exporter",
    "otlp-exporter",
    "postgres-exporter",
    "probe-exporter",
    "prometheus-exporter",
];

/// The gateway's binary.
pub fn gateway() -> PathBuf {
    find("magicapi-gateway")
}

/// The library of a plugin, by its short name.
pub fn plugin(name: &str) -> PathBuf {
    closed_to_others(find(&format!("{name}_exporter")))
}

/// With a umask of 002 the folders of a checkout are writable for its group, and the gateway refuses what lies in them: then
/// a copy in a folder that is not.
fn closed_to_others(file: PathBuf) -> PathBuf {
    static COPIES: OnceLock<tempfile::TempDir> = OnceLock::new();
    let is_open = |folder: &Path| {
        let mode = std::fs::metadata(folder).unwrap().permissions().mode();
        mode & 0o022 != 0 && mode & 0o1000 == 0
    };
    if !file.ancestors().skip(1).any(is_open) {
        return file;
    }
    let copies = COPIES.get_or_init(|| tempfile::tempdir().unwrap());
    let copy = copies.path().join(file.file_name().unwrap());
    if !copy.exists() {
        // In one step: other tests look for it at the same time.
        let draft = tempfile::NamedTempFile::new_in(copies.path()).unwrap().into_temp_path();
        std::fs::copy(&file, &draft).unwrap();
        draft.persist(&copy).unwrap();
    }
    copy
}

/// The folder that holds this checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `MAGICAPI_BUILD` names the folders, a colon between them, of a build to be tested in place of this checkout's: what
/// was released, or what a new test is to fail on.
fn find(target: &str) -> PathBuf {
    if let Some(folders) = std::env::var_os("MAGICAPI_BUILD") {
        return find_in(std::env::split_paths(&folders), target)
            .unwrap_or_else(|| panic!("there is no {target} in {}", folders.display()));
    }
    static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built.get(target).unwrap_or_else(|| panic!("cargo built no {target}; it built {built:?}")).clone()
}

fn find_in(folders: impl Iterator<Item = PathBuf>, target: &str) -> Option<PathBuf> {
    let files = folders.flat_map(|folder| [folder.join(format!("lib{target}.so")), folder.join(target)]);
    // A test's gateway does not run where the test does.
    files.into_iter().find(|file| file.is_file()).and_then(|file| file.canonicalize().ok())
}

fn build() -> HashMap<String, PathBuf> {
    let mut command = cargo("build", &checkout());
    command.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
    made_by(&mut command)
}

/// Cargo as a person would call it in that folder.
pub fn cargo(subcommand: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.arg(subcommand).current_dir(folder);
    // What cargo tells this process of its own package is an input of some build scripts (ring's): with it they, and
    // all that stands on them, would be built anew, and once more by the next build by hand.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a `cargo build`; the programs and libraries it made, by the names of their targets.
pub fn made_by(build: &mut Command) -> HashMap<String, PathBuf> {
    let output = build.arg("--message-format=json").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{build:?} failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let made: HashMap<_, _> =
        text.lines().filter_map(|line| artifact(&serde_json::from_str(line).ok()?)).collect();
    made.values().for_each(|file| close_to_others(file));
    made
}

/// With a umask of 002 cargo lets the group write to what it makes, and the gateway refuses such a plugin.
fn close_to_others(file: &Path) {
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    if mode & 0o022 != 0 {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode & !0o022)).unwrap();
    }
}

fn artifact(message: &serde_json::Value) -> Option<(String, PathBuf)> {
    let name = message["target"]["name"].as_str()?.to_owned();
    let is_program = message["executable"].as_str().map(PathBuf::from);
    let library = || {
        let files = message["filenames"].as_array()?;
        files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".so")).map(PathBuf::from)
    };
    Some((name, is_program.or_else(library)?))
}
