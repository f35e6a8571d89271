//! Where a file really is, and whether it is a file at all. Symbolic links are followed once, so that whoever comes by
//! another name finds the same file, its rotated ones and its note. What is no regular file is refused: a FIFO would
//! let its opener wait for ever, and what a device is given is not kept.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

pub(crate) use setting_values::regular_file::open;
use setting_values::regular_file::regular;

/// Whether there is a regular file, or could be one.
///
/// # Errors
/// What there is instead.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) => regular(found.file_type()),
        Err(_) => match fs::read_link(path) {
            Ok(target) => {
                let text = format!("it is a symbolic link to {}, which is not there", target.display());
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
            Err(_) => Ok(()),
        },
    }
}

/// The path without symbolic links, as far as it is there.
pub(crate) fn real(path: &Path) -> PathBuf {
    let mut missing: Vec<&OsStr> = Vec::new();
    for folder in path.ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Ok(real) = fs::canonicalize(folder) {
            return missing.iter().rev().fold(real, |path, name| path.join(name));
        }
        match folder.components().next_back() {
            Some(Component::Normal(name)) => missing.push(name),
            Some(Component::ParentDir) => missing.push(OsStr::new("..")),
            _ => break,
        }
    }
    path.to_owned()
}

/// Whether two paths lead to one file, or would once it is made.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one == other,
        _ => real(one) == real(other),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        fs::File,
        os::unix::{fs::symlink, net::UnixListener},
    };

    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    /// Paths that lead to no regular file, and what is said of them.
    pub(crate) fn no_files(folder: &Path) -> Vec<(PathBuf, &'static str)> {
        let at = |name: &str| folder.join(name);
        mknodat(CWD, at("fifo"), Kind::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        drop(UnixListener::bind(at("socket")).unwrap());
        symlink("fifo", at("to-fifo")).unwrap();
        vec![
            (at("fifo"), "it is a FIFO and no regular file"),
            (at("to-fifo"), "it is a FIFO and no regular file"),
            (at("socket"), "it is a socket and no regular file"),
            (folder.to_owned(), "it is a folder and no regular file"),
            (PathBuf::from("/dev/null"), "it is a device and no regular file"),
        ]
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for (path, expected) in no_files(folder.path()) {
            assert_eq!(check(&path).unwrap_err().to_string(), expected);
            let mut reading = File::options();
            reading.read(true);
            let mut appending = File::options();
            appending.append(true).create(true);
            for mut options in [reading, appending] {
                assert_eq!(open(&mut options, &path).unwrap_err().to_string(), expected);
            }
        }
        symlink("nowhere", folder.path().join("dangling")).unwrap();
        let dangling = check(&folder.path().join("dangling")).unwrap_err().to_string();
        assert_eq!(dangling, "it is a symbolic link to nowhere, which is not there");
        check(&folder.path().join("new")).unwrap();
        check(&folder.path().join("new/deep")).unwrap();
    }

    #[test]
    fn a_file_is_the_same_by_whatever_path_it_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/x"), "").unwrap();
        fs::hard_link(at("d/x"), at("hard")).unwrap();
        symlink("d", at("l")).unwrap();
        symlink("l/x", at("y")).unwrap();
        for (one, other, expected) in [
            ("d/x", "d/x", true),
            ("d/x", "l/x", true),
            ("d/x", "y", true),
            ("d/x", "hard", true),
            ("d/x", "d/../l/x", true),
            ("d/new", "l/new", true),
            ("d/new/a", "l/new/a", true),
            ("d/new", "d/other", false),
            ("d/new", "new", false),
            ("d/x", "d/new", false),
        ] {
            assert_eq!(is_same(&at(one), &at(other)), expected, "{one} {other}");
        }
        assert_eq!(real(&at("y")), fs::canonicalize(at("d/x")).unwrap());
    }
}
