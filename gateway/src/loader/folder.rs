//! Who can put another file in a plugin's place: everybody who can write to a folder on the way to it, or who owns one, or
//! a symbolic link on it. As `sshd` looks at the way to a user's keys (`StrictModes`).
//!
//! A folder that all may write to and that is sticky (`/tmp`) passes when root or the gateway's user owns it: others can
//! make files there, and can neither rename nor replace what is not theirs; that each thing below it belongs to root or to
//! the gateway's user is looked at in turn.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use super::error::LoadError;

/// More links than this are a circle, for the system too.
const MAX_LINKS: usize = 40;
const STICKY: u32 = 0o1000;

/// Follows a path from the root on: where the file really is, and the first thing on the way by which somebody else could
/// put another one there.
pub(super) fn follow(path: &Path) -> io::Result<(PathBuf, Option<LoadError>)> {
    let absolute = std::path::absolute(path)?;
    let mut ahead: Vec<OsString> = components(&absolute);
    let (mut real, mut links, mut insecure) = (PathBuf::from("/"), 0, None);
    let mut judge = |found: &Metadata, what, place: &Path| {
        if insecure.is_none() {
            insecure = judge(path, found, what, place);
        }
    };
    judge(&fs::metadata(&real)?, "the folder", &real);
    while let Some(name) = ahead.pop() {
        if name == ".." {
            real.pop();
            continue;
        }
        let place = real.join(&name);
        let found = fs::symlink_metadata(&place)?;
        if found.is_symlink() {
            judge(&found, "the symbolic link", &place);
            links += 1;
            if links > MAX_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            let target = fs::read_link(&place)?;
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            ahead.extend(components(&target));
            continue;
        }
        if found.is_dir() {
            judge(&found, "the folder", &place);
        }
        real = place;
    }
    Ok((real, insecure))
}

/// The names of a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).rev().collect()
}

fn judge(path: &Path, found: &Metadata, what: &'static str, place: &Path) -> Option<LoadError> {
    let (path, place) = (path.to_owned(), place.to_owned());
    let (user, mode) = (rustix::process::geteuid().as_raw(), found.mode());
    if found.uid() != 0 && found.uid() != user {
        return Some(LoadError::PlaceOwner { path, what, place, expected: user, found: found.uid() });
    }
    // The permissions of a link mean nothing.
    let is_open = found.is_dir() && mode & 0o022 != 0 && mode & STICKY == 0;
    is_open.then_some(LoadError::OpenFolder { path, place, mode: mode & 0o7777 })
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, lchown, symlink},
    };

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A folder in a folder, with a file in it.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        chmod(&root.path().join("a"), 0o755);
        chmod(&inner, 0o755);
        fs::write(inner.join("x.so"), "x").unwrap();
        (root, inner.join("x.so"))
    }

    #[test]
    fn any_folder_on_the_way_that_others_may_write_to_is_told() {
        let (root, file) = tree();
        assert!(follow(&file).unwrap().1.is_none(), "the system's own folder for temporary files is sticky");
        for folder in ["a", "a/b"] {
            let folder = root.path().join(folder);
            for mode in [0o775, 0o757, 0o777] {
                chmod(&folder, mode);
                let insecure = follow(&file).unwrap().1.unwrap().to_string();
                let expected =
                    format!("others can write to the folder {} (mode {mode:04o})", folder.display());
                assert!(insecure.contains(&expected), "{insecure}");
            }
            chmod(&folder, 0o1777);
            assert!(follow(&file).unwrap().1.is_none(), "sticky");
            chmod(&folder, 0o755);
        }
    }

    #[test]
    fn links_are_followed_as_the_system_does_and_the_folders_behind_them_count() {
        let (root, file) = tree();
        let real = file.canonicalize().unwrap();
        symlink("../b/x.so", root.path().join("a/b/relative")).unwrap();
        symlink(root.path().join("a/b"), root.path().join("absolute")).unwrap();
        for name in ["a/b/relative", "absolute/x.so", "absolute/../b/./relative", "a/b/../../absolute/x.so"] {
            let path = root.path().join(name);
            assert_eq!(follow(&path).unwrap().0, real, "{name}");
            assert_eq!(path.canonicalize().unwrap(), real, "{name}");
        }
        chmod(&root.path().join("a"), 0o777);
        assert!(matches!(
            follow(&root.path().join("absolute/x.so")).unwrap().1,
            Some(LoadError::OpenFolder { .. })
        ));
        symlink("circle", root.path().join("circle")).unwrap();
        assert!(follow(&root.path().join("circle")).is_err());
        assert!(follow(&root.path().join("nothing")).is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_on_the_way_is_told() {
        let (root, file) = tree();
        let link = root.path().join("link.so");
        symlink(&file, &link).unwrap();
        if lchown(&link, Some(4242), None).is_err() {
            return; // Only root can give a file away; CI runs as root.
        }
        let insecure =
            |path: &Path| follow(path).unwrap().1.map(|error| error.to_string()).unwrap_or_default();
        assert!(insecure(&link).contains("the symbolic link"), "{}", insecure(&link));
        assert!(insecure(&link).contains("belongs to user 4242"), "{}", insecure(&link));
        assert_eq!(insecure(&file), "");
        lchown(root.path().join("a"), Some(4242), None).unwrap();
        assert!(insecure(&file).contains("the folder"), "{}", insecure(&file));
    }
}
