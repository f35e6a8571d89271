//! Steps 1 and 2 of loading: the file is opened once, looked at, read and hashed through that one descriptor.
//!
//! What is checked here is what is loaded: nothing looks at the path again.

use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{error::LoadError, folder, patience::patiently};
use crate::hex::hex;

/// No plugin is larger, with all its debug information.
pub(crate) const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// A plugin's file, and how strictly it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRequest {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 that it must have, in hexadecimal.
    pub sha256: Option<String>,
    /// Whether a file that somebody else owns, may write to or can put another one in the place of is loaded all the same.
    pub allow_insecure: bool,
}

impl FileRequest {
    /// A request without a pin and with all checks.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), sha256: None, allow_insecure: false }
    }
}

/// A file that passed, in memory.
pub(crate) struct PluginFile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sha256: String,
}

/// Opens, checks and reads a plugin's file.
pub(crate) fn read(request: &FileRequest) -> Result<PluginFile, LoadError> {
    let path = &request.path;
    let pin = request.sha256.as_deref().map(|pin| parse_pin(path, pin)).transpose()?;
    let unopened = |source| LoadError::Open { path: path.clone(), source };
    let (real, insecure_way) = folder::follow(path).map_err(unopened)?;
    let file = open(&real).map_err(unopened)?;
    let size = check(&file, request, insecure_way)?;
    let bytes = read_whole(&file, path, size)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    match pin {
        Some(expected) if expected != sha256 => {
            Err(LoadError::Pin { path: path.clone(), expected, found: sha256 })
        }
        _ => Ok(PluginFile { bytes, sha256 }),
    }
}

/// Symbolic links were followed before. What is opened is none, even if somebody swaps it meanwhile. Opening never waits,
/// as it would for a named pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    // `File` sets O_CLOEXEC by itself.
    patiently(|| OpenOptions::new().read(true).custom_flags(flags).open(path))
}

/// Looks at the open file, not at the path. Returns its size. `insecure_way` is what is wrong with the way to it.
fn check(file: &File, request: &FileRequest, insecure_way: Option<LoadError>) -> Result<u64, LoadError> {
    let path = || request.path.clone();
    let metadata = file.metadata().map_err(|source| LoadError::Read { path: path(), source })?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { path: path(), found: kind(metadata.file_type()) });
    }
    let user = rustix::process::geteuid().as_raw();
    let insecure = if metadata.uid() != 0 && metadata.uid() != user {
        Some(LoadError::Owner { path: path(), expected: user, found: metadata.uid() })
    } else if metadata.mode() & 0o022 != 0 {
        Some(LoadError::Writable { path: path(), mode: metadata.mode() & 0o7777 })
    } else {
        insecure_way
    };
    match insecure {
        Some(error) if !request.allow_insecure => return Err(error),
        Some(error) => tracing::warn!("loading an insecure plugin file, as allowed: {error}"),
        None => {}
    }
    if is_noexec(file).map_err(|source| LoadError::Read { path: path(), source })? {
        return Err(LoadError::NoExec { path: path() });
    }
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(LoadError::TooLarge { path: path(), size, limit: MAX_BYTES });
    }
    Ok(size)
}

fn read_whole(file: &File, path: &Path, size: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 != size {
        return Err(LoadError::Changed { path: path.to_owned() });
    }
    Ok(bytes)
}

/// A memory file can always be executed, so the rule of the file's own mount is honoured here.
#[cfg(target_os = "linux")]
fn is_noexec(file: &File) -> io::Result<bool> {
    let mount = rustix::fs::fstatvfs(file)?;
    Ok(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Elsewhere the library is loaded from a copy in a folder whose own mount decides.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "the same face as on Linux")]
fn is_noexec(_file: &File) -> io::Result<bool> {
    Ok(false)
}

fn kind(file: FileType) -> &'static str {
    if file.is_dir() {
        "a folder"
    } else if file.is_fifo() {
        "a named pipe"
    } else if file.is_char_device() || file.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

fn parse_pin(path: &Path, pin: &str) -> Result<String, LoadError> {
    let digits = pin.strip_prefix("sha256:").unwrap_or(pin).trim();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err(LoadError::BadPin { path: path.to_owned(), pin: pin.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
        process::Command,
    };

    use super::*;

    /// SHA-256 of `abc`, from FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn folder_with(content: &[u8], mode: u32) -> (tempfile::TempDir, FileRequest) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin.so");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, FileRequest::new(path))
    }

    fn refusal(request: &FileRequest) -> LoadError {
        match read(request) {
            Ok(_) => panic!("{} was not refused", request.path.display()),
            Err(error) => error,
        }
    }

    #[test]
    fn a_file_is_read_and_hashed_and_its_pin_compared() {
        let (_folder, mut request) = folder_with(b"abc", 0o644);
        assert_eq!(read(&request).unwrap().sha256, ABC);
        for pin in [ABC.to_owned(), ABC.to_ascii_uppercase(), format!("sha256:{ABC}")] {
            request.sha256 = Some(pin);
            assert_eq!(read(&request).unwrap().bytes, b"abc");
        }
    }

    #[test]
    fn another_hash_is_refused_and_both_are_named() {
        let (_folder, mut request) = folder_with(b"abd", 0o644);
        request.sha256 = Some(ABC.to_owned());
        let error = refusal(&request);
        assert!(matches!(error, LoadError::Pin { .. }), "{error}");
        assert!(error.to_string().contains(&format!("the configuration expects {ABC}")), "{error}");
        request.sha256 = Some("abc".to_owned());
        assert!(matches!(refusal(&request), LoadError::BadPin { .. }));
    }

    #[test]
    fn a_file_that_others_may_write_to_is_refused_unless_allowed() {
        for mode in [0o664, 0o646] {
            let (_folder, mut request) = folder_with(b"abc", mode);
            let error = refusal(&request);
            assert!(matches!(error, LoadError::Writable { .. }), "{error}");
            assert!(error.to_string().contains(&format!("(mode {mode:04o})")), "{error}");
            request.allow_insecure = true;
            assert!(read(&request).is_ok());
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused_unless_allowed() {
        let (_folder, mut request) = folder_with(b"abc", 0o644);
        if std::os::unix::fs::chown(&request.path, Some(4242), None).is_err() {
            return; // Only root can give a file away; CI runs as root.
        }
        let error = refusal(&request);
        assert!(error.to_string().contains("belongs to user 4242"), "{error}");
        request.allow_insecure = true;
        assert!(read(&request).is_ok());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let (folder, _request) = folder_with(b"abc", 0o644);
        let error = refusal(&FileRequest::new(folder.path()));
        assert!(error.to_string().contains("it is a folder, not a regular file"), "{error}");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refusal(&FileRequest::new(pipe)).to_string().contains("a named pipe"));
        assert!(refusal(&FileRequest::new("/dev/null")).to_string().contains("a device"));
        let missing = refusal(&FileRequest::new(folder.path().join("missing.so")));
        assert!(missing.to_string().contains("No such file"), "{missing}");
    }

    #[test]
    fn a_link_is_followed_and_the_file_behind_it_is_looked_at() {
        let (folder, request) = folder_with(b"abc", 0o666);
        let link = folder.path().join("link.so");
        symlink(&request.path, &link).unwrap();
        assert!(matches!(refusal(&FileRequest::new(&link)), LoadError::Writable { .. }));
        fs::set_permissions(&request.path, Permissions::from_mode(0o600)).unwrap();
        assert!(read(&FileRequest::new(link)).is_ok());
    }

    #[test]
    fn a_file_on_a_noexec_mount_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let options = ["-t", "tmpfs", "-o", "noexec,size=1m", "none"];
        if !run(Command::new("mount").args(options).arg(folder.path())) {
            return; // Only root may mount; CI runs as root.
        }
        let path = folder.path().join("plugin.so");
        let written = fs::write(&path, "abc").map(|()| read(&FileRequest::new(path)).err());
        assert!(run(Command::new("umount").arg(folder.path())));
        let error = written.unwrap().unwrap();
        assert!(matches!(error, LoadError::NoExec { .. }), "{error}");
    }

    #[test]
    fn a_file_beyond_all_reason_is_refused_without_reading_it() {
        let (_folder, request) = folder_with(b"", 0o644);
        File::options().write(true).open(&request.path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(refusal(&request), LoadError::TooLarge { .. }));
    }
}
