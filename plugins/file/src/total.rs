//! How large all files of an exporter are together, and which of them go when that is too much.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tracing::info;

use crate::{pattern::Pattern, rotation::name_before};

/// A file that the exporter has written, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    /// When it was last written to.
    at: SystemTime,
    path: PathBuf,
    bytes: u64,
}

/// Deletes the oldest files until all together have at most `max_bytes`. Those of `open` stay, and those that another
/// process has locked.
///
/// # Errors
/// The first one. The rest was still done.
pub fn keep_below(max_bytes: u64, pattern: &Pattern, open: &HashSet<PathBuf>) -> io::Result<()> {
    let mut files = Vec::new();
    let mut outcome = list(&pattern.root(), pattern, pattern.depth(), &mut files);
    for file in surplus(files, max_bytes, open) {
        if is_locked(&file.path) {
            continue;
        }
        match fs::remove_file(&file.path) {
            Ok(()) => {
                let (path, bytes) = (file.path.display(), file.bytes);
                info!(%path, bytes, "deleted, since all files together have more than max_total_bytes");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => outcome = outcome.and(Err(error)),
        }
        remove_empty(file.path.parent(), &pattern.root());
    }
    outcome
}

/// The files to be deleted, oldest first.
fn surplus(mut files: Vec<Written>, max_bytes: u64, open: &HashSet<PathBuf>) -> Vec<Written> {
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    files.retain(|file| !open.contains(&file.path));
    files.sort_unstable_by(|one, other| (one.at, &one.path).cmp(&(other.at, &other.path)));
    let is_surplus = |file: &Written| {
        let is_too_much = total > max_bytes;
        total = total.saturating_sub(file.bytes);
        is_too_much
    };
    let mut is_surplus = is_surplus;
    files.into_iter().take_while(|file| is_surplus(file)).collect()
}

/// All files below a folder that have a name of the pattern, or had one before they were rotated.
fn list(folder: &Path, pattern: &Pattern, depth: usize, found: &mut Vec<Written>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    // Paths in the pattern have no `./` in front.
    let within = |name: &str| if folder == Path::new(".") { name.into() } else { folder.join(name) };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            list(&within(&name), pattern, depth - 1, found)?;
        }
        let is_ours = || {
            pattern.matches(&within(&name))
                || name_before(&name).is_some_and(|before| pattern.matches(&within(&before)))
        };
        if kind.is_file() && depth == 0 && is_ours() {
            // One that went in the meantime counts no more.
            if let Ok(metadata) = entry.metadata() {
                let at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Written { at, path: within(&name), bytes: metadata.len() });
            }
        }
    }
    Ok(())
}

/// Whether somebody writes to it.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Removes folders in which nothing is left, up to the one that all are in.
fn remove_empty(folder: Option<&Path>, root: &Path) {
    let mut folder = folder;
    while let Some(path) = folder.filter(|path| *path != root && !path.as_os_str().is_empty()) {
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn written(seconds: u64, name: &str, bytes: u64) -> Written {
        Written { at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), path: name.into(), bytes }
    }

    #[test]
    fn the_oldest_go_until_the_rest_is_small_enough() {
        let files =
            || vec![written(3, "c", 10), written(1, "a", 20), written(2, "b", 30), written(0, "open", 5)];
        let open = HashSet::from([PathBuf::from("open")]);
        for (max_bytes, expected) in [
            (65, &[][..]),
            (64, &["a"]),
            (45, &["a"]),
            (44, &["a", "b"]),
            (15, &["a", "b"]),
            (0, &["a", "b", "c"]),
        ] {
            let gone: Vec<_> = surplus(files(), max_bytes, &open).into_iter().map(|file| file.path).collect();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(gone, expected, "{max_bytes}");
        }
    }

    #[test]
    fn only_what_has_a_name_of_the_pattern_is_counted_and_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        let put = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x\n").unwrap();
        };
        let foreign = [
            "l/notes.jsonl",
            "l/2025-03-05/a.txt",
            "l/2025-03-05/x/a.jsonl",
            "l/a b/a.jsonl",
            "l/d/a-1.jsonl.bak",
        ];
        let ours = [
            "l/2025-03-05/a.jsonl",
            "l/2025-03-04/a.jsonl",
            "l/2025-03-05/a-20250305T160320.123Z.jsonl",
            "l/2025-03-05/a-20250305T160320.124Z.jsonl.zst",
        ];
        foreign.iter().chain(&ours).for_each(|name| put(name));
        let pattern = Pattern::parse(&format!("{root}/l/{{date}}/{{org_id}}.jsonl")).unwrap();
        let open = HashSet::from([directory.path().join(ours[0])]);
        keep_below(1, &pattern, &open).unwrap();
        let is_there = |name: &&&str| directory.path().join(name).exists();
        assert_eq!(foreign.iter().filter(is_there).count(), foreign.len());
        assert_eq!(ours.iter().filter(is_there).collect::<Vec<_>>(), [&ours[0]]);
        assert!(!directory.path().join("l/2025-03-04").exists(), "a folder with nothing in it goes too");
    }

    #[test]
    fn what_another_process_writes_to_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        fs::write(&path, "x\n").unwrap();
        let theirs = File::open(&path).unwrap();
        theirs.lock().unwrap();
        let pattern = Pattern::parse(&format!("{}/{{org_id}}.jsonl", directory.path().display())).unwrap();
        keep_below(0, &pattern, &HashSet::new()).unwrap();
        assert!(path.exists());
        drop(theirs);
        keep_below(0, &pattern, &HashSet::new()).unwrap();
        assert!(!path.exists());
    }
}
