//! Where a plugin lies: whoever can put another file in its place runs code in the gateway.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    path::{Path, PathBuf},
};

use end_to_end::{Ended, Gateway, artifacts, magicapi_gateway};

/// The probe in `a/b` of a folder that is closed to others.
fn planted() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/b");
    fs::create_dir_all(&folder).unwrap();
    for folder in [&root.path().join("a"), &folder] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let path = folder.join("libprobe_exporter.so");
    fs::copy(artifacts::plugin("probe"), &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    (root, path)
}

/// Refused with this sentence, and loaded with a warning where that is allowed.
async fn assert_refused(path: &Path, says: &str) {
    let gateway = Gateway::new().plugin_file("probe", path, "");
    let refused = Ended::of(gateway.command(&["check"])).await;
    assert_eq!(refused.code, Some(69), "{refused:?}");
    let [complaint] = refused.complaints()[..] else { panic!("{refused:?}") };
    assert!(complaint.contains(says) && complaint.contains("--allow-insecure-plugins"), "{complaint}");
    let inspected = Ended::of(magicapi_gateway(&["plugin", "inspect", path.to_str().unwrap()])).await;
    assert_eq!(inspected.code, Some(1), "{inspected:?}");
    let allowed = Ended::of(gateway.command(&["check", "--allow-insecure-plugins"])).await;
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    let is_warning = |line: &str| line.contains("WARN") && line.contains(says);
    assert!(allowed.errors.lines().any(is_warning), "{allowed:?}");
}

async fn assert_loaded(path: &Path) {
    let gateway = Gateway::new().plugin_file("probe", path, "");
    let ended = Ended::of(gateway.command(&["check"])).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_plugin_below_a_folder_that_others_may_write_to_is_refused_unless_allowed() {
    let (root, path) = planted();
    assert_loaded(&path).await;
    for folder in [root.path().join("a"), root.path().join("a/b")] {
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert_refused(&path, &format!("others can write to the folder {} (mode 0777)", folder.display()))
            .await;
        // What is sticky lets others add files, and take none away.
        fs::set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
        assert_loaded(&path).await;
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    }
}

#[tokio::test]
async fn a_link_or_a_folder_of_another_owner_is_refused_unless_allowed() {
    let (root, path) = planted();
    let link = root.path().join("link.so");
    symlink(&path, &link).unwrap();
    assert_loaded(&link).await;
    if lchown(&link, Some(4242), None).is_err() {
        return; // Only root can give a file away; CI runs as root.
    }
    assert_refused(&link, &format!("the symbolic link {} belongs to user 4242", link.display())).await;
    let folder = root.path().join("a");
    lchown(&folder, Some(4242), None).unwrap();
    assert_refused(&path, &format!("the folder {} belongs to user 4242", folder.display())).await;
}

/// The bytes with another kind of entry in their dynamic table: `DT_RELACOUNT`, which is a hint, becomes `tag`, with the
/// offset of `text` in the string table.
fn with_dynamic(library: &[u8], tag: u64, text: &str) -> Vec<u8> {
    const STRTAB: u64 = 5;
    const RELACOUNT: u64 = 0x6fff_fff9;
    let mut bytes = library.to_vec();
    let word = |at: usize| u64::from_le_bytes(library[at..at + 8].try_into().unwrap());
    let headers = usize::try_from(word(32)).unwrap();
    let header = (headers..).step_by(56).find(|at| library[*at..*at + 4] == 2_u32.to_le_bytes()).unwrap();
    let table = usize::try_from(word(header + 8)).unwrap();
    let entry = |tag: u64| (table..).step_by(16).find(|at| word(*at) == tag).unwrap();
    // The string table lies in the first segment, where addresses are offsets.
    let strings = usize::try_from(word(entry(STRTAB) + 8)).unwrap();
    let place = library.windows(15).position(|window| window == b"__cxa_finalize\0").unwrap();
    bytes[place..place + 14].copy_from_slice(format!("{text:\0<14}").as_bytes());
    let entry = entry(RELACOUNT);
    bytes[entry..entry + 8].copy_from_slice(&tag.to_le_bytes());
    bytes[entry + 8..entry + 16].copy_from_slice(&((place - strings) as u64).to_le_bytes());
    bytes
}

#[tokio::test]
async fn a_library_that_brings_other_libraries_from_places_of_its_own_is_refused() {
    const NEEDED: u64 = 1;
    const RPATH: u64 = 15;
    const RUNPATH: u64 = 29;
    let (_root, path) = planted();
    let probe = fs::read(&path).unwrap();
    for (tag, text, says) in [
        (RUNPATH, "/opt/mylib", "its RUNPATH `/opt/mylib` names folders of its own"),
        (RPATH, "/opt/mylib", "its RUNPATH `/opt/mylib` names folders of its own"),
        (RUNPATH, "$ORIGIN/lib", "its RUNPATH `$ORIGIN/lib` names folders of its own"),
        (RUNPATH, "lib", "its RUNPATH `lib` names folders of its own"),
        (NEEDED, "/tmp/x.so", "it needs the library `/tmp/x.so` by its path"),
        (NEEDED, "./x.so", "it needs the library `./x.so` by its path"),
    ] {
        fs::write(&path, with_dynamic(&probe, tag, text)).unwrap();
        let ended = Ended::of(magicapi_gateway(&["plugin", "inspect", path.to_str().unwrap()])).await;
        assert_eq!(ended.code, Some(1), "{text}: {ended:?}");
        assert!(ended.complaints().iter().any(|complaint| complaint.contains(says)), "{text}: {ended:?}");
    }
}
