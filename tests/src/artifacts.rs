//! The binaries and libraries under test, built once and found by what cargo says of them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

const PACKAGES: [&str; 4] =
    ["magicapi-gateway", "console-exporter", "file-exporter", "probe-exporter"];

/// The gateway's binary.
pub fn gateway() -> PathBuf {
    find("magicapi-gateway")
}

/// The library of a plugin, by its short name.
pub fn plugin(name: &str) -> PathBuf {
    find(&format!("{name}_exporter"))
}

/// The folder that holds this checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn find(target: &str) -> PathBuf {
    static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(build);
    built.get(target).unwrap_or_else(|| panic!("cargo built no {target}; it built {built:?}")).clone()
}

fn build() -> HashMap<String, PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--message-format=json"])
        .args(PACKAGES.iter().flat_map(|package| ["-p", package]))
        .current_dir(checkout())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo build failed");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| artifact(&serde_json::from_str(line).ok()?)).collect()
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
