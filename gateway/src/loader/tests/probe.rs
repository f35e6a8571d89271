//! Plugins for tests: the probe of `tests/probe-plugin`, built once, and copies of it with bytes changed.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use plugin_api::Content;
use serde_json::{Value, json};

use crate::loader::{BatchSource, FileRequest, HostInfo, LoadError, LoadRequest, Plugin};

/// More than anything takes that is not meant to hang.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

/// Bytes of the probe's library.
pub(crate) fn library() -> &'static [u8] {
    static LIBRARY: OnceLock<Vec<u8>> = OnceLock::new();
    LIBRARY.get_or_init(|| fs::read(build()).unwrap())
}

fn build() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/probe-plugin/Cargo.toml");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--message-format=json", "--manifest-path", manifest])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the probe was not built");
    let messages = String::from_utf8(output.stdout).unwrap();
    let files = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "probe_exporter")
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let is_library =
        |path: &PathBuf| path.extension().is_some_and(|end| end == std::env::consts::DLL_EXTENSION);
    files.filter_map(|file| file.as_str().map(PathBuf::from)).rfind(is_library).unwrap()
}

/// The probe with its switch (see `switch.rs` there) in another position.
pub(crate) fn switched(position: &str) -> Vec<u8> {
    let switch = format!("PROBE-SWITCH={position:<24}");
    replaced(library(), b"PROBE-SWITCH=none                    ", switch.as_bytes())
}

/// `bytes` with the one occurrence of `old` replaced.
pub(crate) fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut changed = bytes.to_vec();
    let first = bytes.windows(old.len()).position(|window| window == old).unwrap();
    changed[first..first + new.len()].copy_from_slice(new);
    changed
}

/// A plugin's file in a folder of its own.
pub(crate) struct Planted {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Planted {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libprobe_exporter.so");
        let planted = Self { _folder: folder, path };
        planted.install(bytes);
        planted
    }

    /// Puts other bytes there the way an installer does: a complete file, renamed.
    pub(crate) fn install(&self, bytes: &[u8]) {
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o644)).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    pub(crate) fn request(&self) -> FileRequest {
        FileRequest::new(&self.path)
    }

    pub(crate) fn load_request(&self, config: Value) -> LoadRequest {
        LoadRequest {
            name: "probe-under-test".to_owned(),
            file: self.request(),
            workers: 1,
            create_timeout: AMPLE,
            settings: Box::new(move |_| Ok(config)),
            content: Content::Full,
            host: HostInfo::default(),
        }
    }

    pub(crate) async fn load(&self, config: Value) -> Result<Plugin, LoadError> {
        Plugin::load(self.load_request(config)).await
    }
}

/// A probe that follows `script`.
pub(crate) async fn loaded(script: &[&str]) -> Plugin {
    Planted::new(library()).load(json!({ "script": script })).await.unwrap()
}

/// Records with nothing but an id: `r0`, `r1` and so on.
pub(crate) struct Records(Vec<Vec<u8>>);

impl BatchSource for Records {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn part(&self, index: usize, part: u32) -> &[u8] {
        if part == plugin_api::abi::part::METRICS { &self.0[index] } else { &[] }
    }
}

pub(crate) fn records(count: usize) -> Arc<dyn BatchSource> {
    Arc::new(Records(
        (0..count).map(|index| json!({ "id": format!("r{index}") }).to_string().into_bytes()).collect(),
    ))
}
